//! h2load: many connections at once, each with many streams.

use super::*;

/// h2load to `name`; everything it printed.
fn run(gateway: &Gateway, name: &str, args: &[&str]) -> String {
    let port = gateway.https().port();
    let output = Command::new("h2load")
        .arg(format!("--connect-to=127.0.0.1:{port}"))
        .args(args)
        .arg(format!("https://{name}:{port}/"))
        .output()
        .expect("h2load is installed (scripts/setup.sh)");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn every_request_of_many_connections_and_streams_is_answered() {
    let authority = Authority::new().unwrap();
    let only = |version: &str| {
        let name = format!("{version}.test");
        let issued = certs::server(&authority, &[&name]);
        let protocols = format!("    ssl_protocols: [TLS{version}]\n");
        item(version, &[&name], &issued, &protocols)
    };
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream, &[only("v1.2"), only("v1.3")]));
    for version in ["v1.2", "v1.3"] {
        for (alpn, streams) in [("h2", "20"), ("http/1.1", "1")] {
            let list = format!("--npn-list={alpn}");
            let load = ["-n", "400", "-c", "16", "-m", streams, &list];
            let said = run(&gateway, &format!("{version}.test"), &load);
            for expected in [
                "400 total, 400 started, 400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout",
                "status codes: 400 2xx, 0 3xx, 0 4xx, 0 5xx",
                &format!("TLS Protocol: TLS{version}"),
                &format!("Application protocol: {alpn}"),
            ] {
                assert!(said.contains(expected), "{expected}\n{said}");
            }
        }
    }
    assert_eq!(upstream.count(), 1600);
}

#[test]
fn handshakes_of_every_group_and_suite_are_answered() {
    let (upstream, gateway) = two_names();
    for (options, key) in [
        (&["--groups=X25519"][..], "X25519"),
        (&["--groups=P-256"], "ECDH prime256v1"),
        (&["--groups=P-384"], "ECDH secp384r1"),
        (
            &["--tls13-ciphers=TLS_CHACHA20_POLY1305_SHA256"],
            "CHACHA20",
        ),
        (&["--tls13-ciphers=TLS_AES_256_GCM_SHA384"], "AES_256_GCM"),
    ] {
        let load = ["-n", "24", "-c", "12", "-m", "2"];
        let said = run(&gateway, "a.test", &[&load[..], options].concat());
        assert!(
            said.contains("24 succeeded, 0 failed"),
            "{options:?}\n{said}"
        );
        assert!(said.contains(key), "{options:?} {key}\n{said}");
    }
    assert_eq!(upstream.count(), 120);
}
