//! What names are served with: versions, ciphers, ALPN.

use claviger::tls::dev::{Authority, KeyKind, LeafOptions};

use crate::harness::{Behaviour, Gateway, Upstream, certs};

use super::*;

#[test]
fn each_item_has_its_own_protocol_versions() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let item = |name: &str, protocols: &str| {
        let more = format!("    ssl_protocols: [{protocols}]\n");
        item(name, &[name], &certs::server(&authority, &[name]), &more)
    };
    let gateway = Gateway::builder()
        .bootstrap("apisix: { ssl: { ssl_ciphers: \"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA\" } }")
        .resources(resources(
            &upstream,
            &[
                item("old.test", "TLSv1.1"),
                item("mid.test", "TLSv1.2"),
                item("new.test", "TLSv1.3"),
                item("ends.test", "TLSv1.1, TLSv1.3"),
            ],
        ))
        .start();
    for (name, allowed) in [
        ("old.test", &["-tls1_1"][..]),
        ("mid.test", &["-tls1_2"]),
        ("new.test", &["-tls1_3"]),
        ("ends.test", &["-tls1_1", "-tls1_3"]),
    ] {
        for version in ["-tls1_1", "-tls1_2", "-tls1_3"] {
            let args = ["-servername", name, version, "-cipher", "ALL:@SECLEVEL=0"];
            let said = s_client(gateway.https(), &args);
            if allowed.contains(&version) {
                assert_eq!(subject_in(&said).as_deref(), Some(name), "{version}");
            } else {
                let none = "no peer certificate available";
                assert!(said.contains(none), "{name} {version}\n{said}");
            }
        }
    }
}

#[test]
fn the_global_protocols_are_those_of_names_that_say_nothing() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let item = |name: &str, protocols: &str| {
        let more = match protocols {
            "" => String::new(),
            protocols => format!("    ssl_protocols: [{protocols}]\n"),
        };
        item(name, &[name], &certs::server(&authority, &[name]), &more)
    };
    let text = resources(
        &upstream,
        &[
            item("global.test", ""),
            item("own.test", "TLSv1.1, TLSv1.2"),
        ],
    );
    const ALERT: &str = "SSL alert number 70";
    for (global, allowed) in [
        ("TLSv1.3", &["-tls1_3"][..]),
        ("TLSv1.2", &["-tls1_2"]),
        ("TLSv1.1", &["-tls1_1"]),
        ("TLSv1.1 TLSv1.3", &["-tls1_1", "-tls1_3"]),
        ("TLSv1 TLSv1.1 TLSv1.2", &["-tls1_1", "-tls1_2"]),
    ] {
        let gateway = Gateway::builder()
            .bootstrap(&format!(
                "apisix: {{ ssl: {{ ssl_protocols: {global}, ssl_ciphers: \
                 \"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA\" }} }}"
            ))
            .resources(&text)
            .start();
        for version in ["-tls1_1", "-tls1_2", "-tls1_3"] {
            for (name, allowed) in [
                ("global.test", allowed),
                ("own.test", &["-tls1_1", "-tls1_2"]),
            ] {
                let args = ["-servername", name, version, "-cipher", "ALL:@SECLEVEL=0"];
                let said = s_client(gateway.https(), &args);
                let case = format!("{global}, {name}, {version}\n{said}");
                if allowed.contains(&version) {
                    assert_eq!(subject_in(&said).as_deref(), Some(name), "{case}");
                } else {
                    // Where the server would take an older one, it is the client that refuses.
                    let refused = said.contains(ALERT) || said.contains("unsupported protocol");
                    assert!(
                        refused && said.contains("no peer certificate available"),
                        "{case}"
                    );
                }
            }
        }
        let told = gateway.log().contains("TLSv1 is not spoken");
        assert_eq!(told, global.starts_with("TLSv1 "), "{global}");
    }
}

/// One item of an RSA certificate, one of an ECDSA certificate.
fn two_kinds(builder: Builder) -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let of = |name: &str, key| {
        let options = LeafOptions {
            key,
            ..LeafOptions::default()
        };
        let issued = authority.issue(&[name], &options).unwrap();
        item(name, &[name], &issued, "")
    };
    let items = [
        of("rsa.test", KeyKind::Rsa2048),
        of("ec.test", KeyKind::EcdsaP256),
    ];
    let gateway = builder.resources(resources(&upstream, &items)).start();
    (upstream, gateway)
}

fn cipher(said: &str) -> Option<&str> {
    let line = said.lines().find(|line| line.contains("Cipher is "))?;
    line.rsplit("Cipher is ").next()
}

#[test]
fn the_default_ciphers_work_in_the_servers_order_and_no_others() {
    let (_upstream, gateway) = two_kinds(Gateway::builder());
    let at = gateway.https();
    let chosen = |name: &str, offered: &str| {
        let said = s_client(at, &["-tls1_2", "-servername", name, "-cipher", offered]);
        cipher(&said).map(str::to_owned)
    };
    for (name, kind) in [("rsa.test", "RSA"), ("ec.test", "ECDSA")] {
        for rest in [
            "AES128-GCM-SHA256",
            "AES256-GCM-SHA384",
            "CHACHA20-POLY1305",
        ] {
            let suite = format!("ECDHE-{kind}-{rest}");
            assert_eq!(chosen(name, &suite), Some(suite));
        }
        let offered = format!(
            "ECDHE-{kind}-CHACHA20-POLY1305:ECDHE-{kind}-AES256-GCM-SHA384:ECDHE-{kind}-AES128-GCM-SHA256"
        );
        let first = format!("ECDHE-{kind}-AES128-GCM-SHA256");
        assert_eq!(chosen(name, &offered), Some(first), "the server's order");
        for weak in [
            format!("ECDHE-{kind}-AES128-SHA"),
            "AES128-GCM-SHA256".to_owned(),
        ] {
            let said = s_client(at, &["-tls1_2", "-servername", name, "-cipher", &weak]);
            assert_alert(&said, 40);
        }
    }
    for suite in ["DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384"] {
        assert_eq!(chosen("rsa.test", suite).as_deref(), Some(suite));
    }
}

#[test]
fn ciphers_that_serve_nobody_are_told() {
    let list = |list: &str| {
        Gateway::builder().bootstrap(&format!("apisix: {{ ssl: {{ ssl_ciphers: '{list}' }} }}"))
    };
    let mut gateway = list("NO-SUCH-CIPHER:TLS_AES_128_GCM_SHA256")
        .resources("")
        .spawn();
    assert!(!gateway.wait_exit().success());
    let log = gateway.log();
    for part in [
        "config.yaml:1:",
        "apisix.ssl.ssl_ciphers",
        "expected a cipher list of OpenSSL",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    let (_upstream, gateway) = two_kinds(list(
        "ECDHE-ECDSA-AES256-GCM-SHA384:NO-SUCH-CIPHER:TLS_AES_128_GCM_SHA256:!aNULL",
    ));
    let at = gateway.https();
    for (name, version, works) in [
        ("ec.test", "-tls1_2", true),
        ("ec.test", "-tls1_3", true),
        ("rsa.test", "-tls1_2", false),
        ("rsa.test", "-tls1_3", true),
    ] {
        let said = s_client(at, &["-servername", name, version]);
        match works {
            true => assert_eq!(subject_in(&said).as_deref(), Some(name), "{version}"),
            false => assert_alert(&said, 40),
        }
    }
    let log = gateway.log();
    for part in [
        "NO-SUCH-CIPHER is no cipher OpenSSL knows",
        "TLS_AES_128_GCM_SHA256 has no effect",
        "ssls/rsa.test",
        "has no cipher for a key of this kind",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    let of_ec = |line: &str| line.contains("ssls/ec.test") && line.contains("no cipher");
    assert!(!log.lines().any(of_ec), "{log}");
}

#[test]
fn http2_is_agreed_upon_where_both_want_it() {
    let agreed = |gateway: &Gateway, offered: &[&str]| {
        let args = [&["-servername", "a.test"][..], offered].concat();
        let said = s_client(gateway.https(), &args);
        assert_eq!(subject_in(&said).as_deref(), Some("a.test"), "{said}");
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("ALPN protocol: "));
        line.map(str::to_owned)
    };
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    for (offered, expected) in [
        (&["-alpn", "h2,http/1.1"][..], Some("h2")),
        (&["-alpn", "http/1.1,h2"], Some("h2")),
        (&["-alpn", "http/1.1"], Some("http/1.1")),
        (&["-alpn", "h2"], Some("h2")),
        (&["-alpn", "spdy/3,acme-tls/1"], None),
        (&[], None),
    ] {
        assert_eq!(
            agreed(&gateway, offered).as_deref(),
            expected,
            "{offered:?}"
        );
    }
    let off = Gateway::builder().bootstrap("apisix: { enable_http2: false }");
    let (_upstream, gateway) = start(off, &["a.test"]);
    for (offered, expected) in [
        (&["-alpn", "h2,http/1.1"][..], Some("http/1.1")),
        (&["-alpn", "h2"], None),
        (&[], None),
    ] {
        assert_eq!(
            agreed(&gateway, offered).as_deref(),
            expected,
            "{offered:?}"
        );
    }
}

#[test]
fn nothing_is_renegotiated_compressed_or_sent_early() {
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let at = gateway.https();
    let said = s_client(at, &["-servername", "a.test", "-tls1_2"]);
    assert!(said.contains("Compression: NONE"), "{said}");
    // `R` on a line of its own has the client ask for another handshake; its end is the answer.
    let mut client = Command::new("timeout")
        .args(["10", "openssl", "s_client", "-connect", &at.to_string()])
        .args(["-servername", "a.test", "-tls1_2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    let said = converse(
        at,
        &["-servername", "a.test", "-tls1_3", "-ign_eof"],
        REQUEST,
    );
    assert!(said.contains("Max Early Data: 0"), "{said}");
}
