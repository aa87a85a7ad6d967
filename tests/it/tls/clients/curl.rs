//! curl: protocols, names, trust.

use super::*;

/// curl to `name`, which is led to the gateway; what it printed, and its exit code.
fn run(gateway: &Gateway, name: &str, args: &[&str]) -> (String, Option<i32>) {
    let port = gateway.https().port();
    let output = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "--max-time", "10"])
        .args(["--noproxy", "*"])
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://{name}:{port}/"))
        .current_dir(gateway.dir())
        .output()
        .expect("curl is installed (scripts/setup.sh)");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (said, output.status.code())
}

/// Arguments by which curl trusts the CA of the names, and tells what became of a request.
const TRUSTING: [&str; 4] = [
    "--cacert",
    "ca.pem",
    "-w",
    "%{http_code} %{http_version} %{ssl_verify_result}",
];

#[test]
fn both_http_versions_are_served_under_both_tls_versions() {
    let (upstream, gateway) = two_names();
    for (tls, said) in [
        (
            &["--tlsv1.2", "--tls-max", "1.2"][..],
            "SSL connection using TLSv1.2",
        ),
        (&["--tlsv1.3"], "SSL connection using TLSv1.3"),
        (&[], "SSL connection using TLSv1.3"),
    ] {
        for (http, served) in [
            ("--http1.1", "200 1.1 0"),
            ("--http2", "200 2 0"),
            ("--http1.0", "200 1.1 0"),
        ] {
            let args = [&TRUSTING[..], tls, &[http, "-v"]].concat();
            let (output, code) = run(&gateway, "a.test", &args);
            assert_eq!(code, Some(0), "{tls:?} {http}: {output}");
            assert!(output.starts_with(served), "{tls:?} {http}: {output}");
            assert!(output.contains(said), "{tls:?} {http}: {output}");
        }
    }
    assert_eq!(upstream.count(), 9);
}

#[test]
fn versions_below_1_2_are_refused() {
    let (upstream, gateway) = two_names();
    for max in ["1.0", "1.1"] {
        let old = ["--tlsv1.0", "--tls-max", max];
        let old = [&TRUSTING[..], &old, &["--ciphers", "ALL:@SECLEVEL=0"]].concat();
        let (output, code) = run(&gateway, "a.test", &old);
        assert_eq!(code, Some(35), "{max}: {output}");
        assert!(output.contains("protocol version"), "{max}: {output}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_name_is_served_only_with_a_certificate_the_client_can_check() {
    let (upstream, gateway) = two_names();
    for name in ["a.test", "b.test", "A.TEST"] {
        let (output, code) = run(&gateway, name, &TRUSTING);
        assert_eq!((&*output, code), ("200 2 0", Some(0)), "{name}");
    }
    let served = upstream.count();
    // A name nobody declares ends in an alert; curl calls any failed handshake 35.
    let (output, code) = run(&gateway, "c.test", &TRUSTING);
    assert_eq!(code, Some(35), "{output}");
    assert!(output.contains("unrecognized name"), "{output}");
    // 60: the certificate cannot be verified.
    let (output, code) = run(&gateway, "a.test", &["--cacert", "other-ca.pem"]);
    assert_eq!(code, Some(60), "{output}");
    // Sent to an address, curl sends no name: nobody to be.
    let (output, code) = run(&gateway, "127.0.0.1", &TRUSTING);
    assert_eq!(code, Some(35), "{output}");
    assert_eq!(upstream.count(), served, "no refused request goes on");
}

#[test]
fn one_connection_serves_many_requests() {
    let (upstream, gateway) = two_names();
    let url = format!("https://a.test:{}/", gateway.https().port());
    for (http, tls) in [("--http1.1", "1.2"), ("--http2", "1.2"), ("--http2", "1.3")] {
        let more = [http, "--tls-max", tls, "-o", "/dev/null", &url];
        let told = ["--cacert", "ca.pem", "-w", "%{http_code}/%{num_connects} "];
        let (output, code) = run(&gateway, "a.test", &[&told[..], &more].concat());
        assert_eq!((&*output, code), ("200/1 200/0 ", Some(0)), "{http} {tls}");
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn a_client_certificate_is_asked_for_where_the_name_wants_one() {
    let (upstream, gateway) = start_mtls();
    for http in ["--http1.1", "--http2"] {
        for tls in ["1.2", "1.3"] {
            let with = ["--cert", "good.pem", http, "--tls-max", tls];
            let (output, code) = run(&gateway, "m.test", &[&TRUSTING[..], &with].concat());
            assert_eq!(code, Some(0), "{output}");
            assert!(output.starts_with("200 "), "{output}");
            let served = upstream.count();
            let without = [&TRUSTING[..], &with[2..]].concat();
            let (output, code) = run(&gateway, "m.test", &without);
            // Under 1.3 the client thinks it is through, and learns better when it reads.
            assert!(matches!(code, Some(35 | 55 | 56)), "{code:?} {output}");
            assert_eq!(upstream.count(), served);
        }
    }
}
