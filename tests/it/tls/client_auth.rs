//! Client certificates.

use super::visitor::Visitor;
use super::*;

#[test]
fn a_guarded_name_asks_for_a_certificate_of_its_ca() {
    let (upstream, gateway) = start_mtls();
    for version in ["1.2", "1.3"] {
        let versions = ["--tls-max", version];
        let ask = |cert: &str| {
            curl(
                &gateway,
                "m.test",
                &[&versions[..], &["--cert", cert]].concat(),
            )
        };
        assert_eq!(ask("good.pem"), (Some(0), "200".to_owned()));
        assert_eq!(
            ask("one.pem"),
            (Some(0), "200".to_owned()),
            "one intermediate"
        );
        let served = upstream.count();
        for cert in ["expired.pem", "foreign.pem", "two.pem"] {
            let (code, status) = ask(cert);
            assert!(
                code != Some(0) && status == "000",
                "{version} {cert}: {status}"
            );
        }
        let (code, status) = curl(&gateway, "m.test", &versions);
        assert!(code != Some(0) && status == "000", "{version}: {status}");
        assert_eq!(upstream.count(), served, "no refused request goes on");
    }
    assert_eq!(curl(&gateway, "o.test", &[]), (Some(0), "200".to_owned()));
    assert_ne!(curl(&gateway, "bad.test", &[]).0, Some(0));
}

#[test]
fn a_guarded_name_is_not_reached_over_another_names_handshake() {
    let (upstream, gateway) = start_mtls();
    let ask = |sni: &str, host: &str, more: &[&str]| {
        let host = format!("Host: {host}");
        curl(&gateway, sni, &[&["-H", &host][..], more].concat()).1
    };
    for protocol in ["--http1.1", "--http2"] {
        let cert = [protocol, "--cert", "good.pem"];
        for (sni, host, more) in [
            ("o.test", "m.test", &[protocol][..]),
            ("o.test", "M.test", &[protocol]),
            ("o.test", "m.test:443", &[protocol]),
            ("o.test", "m.test.", &[protocol]),
            ("o.test", "bad.test", &[protocol]),
            ("o.test", "a.b.w.test", &[protocol]),
            ("o.test", "a.b.c.W.test.:443", &cert),
            ("o.test", "m.test", &cert),
            ("a.w.test", "b.w.test", &cert),
            ("m.test", "a.w.test", &cert),
        ] {
            assert_eq!(ask(sni, host, more), "400", "{protocol} {sni} {host}");
        }
        assert_eq!(upstream.count(), 0);
        assert_eq!(ask("m.test", "m.test", &cert), "200");
        assert_eq!(ask("m.test", "o.test", &cert), "200");
        for host in ["none.test", "w.test", "a.b.m.test"] {
            assert_eq!(ask("o.test", host, &[protocol]), "200", "{host}");
        }
        let served = gateway.get("m.test", "/", &[]).status;
        assert_eq!(served, 200, "in the clear nothing is checked");
        upstream.forget();
    }
    let said = "client certificate not verified with SNI o.test, but the host is m.test";
    assert!(gateway.log().contains(said), "{said}");
}

/// Pingora keeps such a host from whoever looks for it, and sends it upstream.
#[test]
fn a_target_without_a_host_field_names_a_guarded_host_all_the_same() {
    let (upstream, gateway) = start_mtls();
    let ask = |target: &str| {
        let mut visit = Visitor::new(gateway.https(), "o.test").connect().unwrap();
        visit.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        visit.expect_reply().status
    };
    for target in [
        "http://m.test/",
        "https://M.test.:443/",
        "http://m.test?/",
        "other://m.test/",
        "http://u@m.test/",
        "http://a.w.test/",
    ] {
        assert_eq!(ask(target), 400, "{target}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(ask("http://o.test/a"), 200);
    let seen = upstream.take();
    assert_eq!(seen[0].header("host"), Some("o.test"));
}
