//! Which names get a handshake, and under which protocols.

use claviger::tls::dev::Authority;

use crate::harness::{Behaviour, Gateway, Upstream, certs};

use super::*;

#[test]
fn names_are_matched_exactly_then_by_wildcard_then_by_star() {
    let (_upstream, gateway) = start(Gateway::builder(), &["*.a.test", "one.a.test", "*"]);
    let at = gateway.https();
    for (asked, shown) in [
        ("one.a.test", "one.a.test"),
        ("ONE.a.Test", "one.a.test"),
        ("one.a.test.", "one.a.test"),
        ("two.a.test", "*.a.test"),
        ("three.two.a.test", "*"),
        ("a.test", "*"),
        ("elsewhere", "*"),
    ] {
        assert_eq!(subject(at, asked).as_deref(), Some(shown), "{asked}");
    }
}

#[test]
fn a_name_without_an_item_gets_an_alert_and_no_certificate() {
    let (_upstream, gateway) = start(Gateway::builder(), &["*.a.test", "b.test"]);
    let at = gateway.https();
    for name in ["c.test", "a.test", "x.y.a.test", "b.test.c.test"] {
        for version in ["-tls1_2", "-tls1_3"] {
            assert_alert(&s_client(at, &["-servername", name, version]), 112);
        }
    }
    assert_alert(&s_client(at, &["-noservername"]), 112);
    let refused = |reason: &str| {
        let start = format!("claviger_handshakes_refused_total{{reason=\"{reason}\"}} ");
        let page = gateway.metrics_page();
        page.lines()
            .find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
    };
    assert_eq!(refused("unknown_name"), Some(8.0));
    assert_eq!(refused("no_name"), Some(1.0));
    assert_eq!(subject(at, "b.test").as_deref(), Some("b.test"));
}

#[test]
fn names_no_certificate_can_have_get_an_alert() {
    let (_upstream, gateway) = start(Gateway::builder(), &["*", "a.test"]);
    let at = gateway.https();
    let sane = answer_to(at, &hello(Some(&server_name(b"a.test"))));
    assert_eq!(sane[0], 0x16, "the hello itself must be well formed");
    for name in [
        &[b'a'; 300][..],
        b"a.test\0.b.test",
        b"",
        b"a\xff.test",
        b"a b",
    ] {
        let answer = answer_to(at, &hello(Some(&server_name(name))));
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 112], "{name:?}");
    }
    for content in [
        &[][..],
        &[0],
        &[0, 9, 0, 0, 1, b'a'],
        &[0, 4, 1, 0, 1, b'a'],
    ] {
        let answer = answer_to(at, &hello(Some(content)));
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 50], "{content:?}");
    }
    assert_eq!(subject(at, "a.test").as_deref(), Some("a.test"));
}

#[test]
fn a_fallback_serves_clients_without_a_name_and_nobody_else() {
    let builder = Gateway::builder().bootstrap("apisix: { ssl: { fallback_sni: fall.test } }");
    let (_upstream, gateway) = start(builder, &["fall.test", "b.test"]);
    let at = gateway.https();
    let nameless = s_client(at, &["-noservername"]);
    assert_eq!(subject_in(&nameless).as_deref(), Some("fall.test"));
    assert_alert(&s_client(at, &["-servername", "c.test"]), 112);
}

#[test]
fn an_item_that_is_off_does_not_exist() {
    let authority = Authority::new().unwrap();
    let issued = |name| certs::server(&authority, &[name]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item("1", &["a.test"], &issued("off"), "    status: 0\n"),
            item("2", &["a.test"], &issued("on"), ""),
            item("3", &["b.test"], &issued("off"), "    status: 0\n"),
            item("4", &["c.test"], &issued("client"), "    type: client\n"),
        ],
    ));
    let at = gateway.https();
    assert_eq!(subject(at, "a.test").as_deref(), Some("on"));
    assert_alert(&s_client(at, &["-servername", "b.test"]), 112);
    assert_alert(&s_client(at, &["-servername", "c.test"]), 112);
}

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
