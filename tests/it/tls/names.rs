//! Which names get a handshake.

use claviger::tls::dev::Authority;

use crate::harness::{Behaviour, Gateway, Upstream, certs, wait_until};

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
fn names_are_written_and_asked_for_in_many_ways() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(63));
    assert_eq!(longest.len(), 255);
    let of = |id: &str, names: &[&str]| item(id, names, &certs::server(&authority, &[id]), "");
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            of("upper", &["Upper.TEST", "*.Wild.Test."]),
            of("dotted", &["dotted.test."]),
            of("under", &["_dmarc.my_host.test"]),
            of("deep", &["*.deep.wild.test"]),
            of("long", &[&longest]),
            of("idn", &["xn--bcher-kva.test"]),
        ],
    ));
    let at = gateway.https();
    for (asked, shown) in [
        ("upper.test", "upper"),
        ("x.wild.test", "upper"),
        ("x.deep.wild.test", "deep"),
        ("deep.wild.test", "upper"),
        ("dotted.test", "dotted"),
        ("DOTTED.test.", "dotted"),
        ("_dmarc.my_host.test", "under"),
        ("xn--bcher-kva.test", "idn"),
    ] {
        assert_eq!(subject(at, asked).as_deref(), Some(shown), "{asked}");
    }
    let answer = answer_to(at, &hello(Some(&server_name(longest.as_bytes()))));
    assert_eq!(answer[0], 0x16, "the longest name there can be");
    // A literal address is no name (RFC 6066 §3), and no item's.
    for address in ["127.0.0.1", "::1", "[::1]"] {
        let answer = answer_to(at, &hello(Some(&server_name(address.as_bytes()))));
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 112], "{address}");
    }
}

#[test]
fn clients_without_an_answer_are_told_in_the_log() {
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let at = gateway.https();
    assert_alert(&s_client(at, &["-noservername"]), 112);
    assert_alert(&s_client(at, &["-servername", "Unknown.test."]), 112);
    wait_until("both are told", || {
        let log = gateway.log();
        log.contains("failed to find SNI")
            && log.contains("failed to find any SSL certificate by SNI: unknown.test")
    });
}

#[test]
fn a_fallback_serves_unknown_names_where_that_is_asked_for() {
    let builder = Gateway::builder()
        .bootstrap("apisix: { ssl: { fallback_sni: FALL.test. } }")
        .bootstrap("claviger: { fallback_for_unknown: true }");
    let (_upstream, gateway) = start(builder, &["fall.test", "b.test"]);
    let at = gateway.https();
    for args in [&["-noservername"][..], &["-servername", "c.test"]] {
        let shown = subject_in(&s_client(at, args));
        assert_eq!(shown.as_deref(), Some("fall.test"), "{args:?}");
    }
    assert_eq!(subject(at, "b.test").as_deref(), Some("b.test"));
    // Where the fallback itself is nobody's name, nothing is shown.
    let builder = Gateway::builder()
        .bootstrap("apisix: { ssl: { fallback_sni: nobody.test } }")
        .bootstrap("claviger: { fallback_for_unknown: true }");
    let (_upstream, gateway) = start(builder, &["b.test"]);
    for args in [&["-noservername"][..], &["-servername", "c.test"]] {
        assert_alert(&s_client(gateway.https(), args), 112);
    }
}

#[test]
fn an_item_that_cannot_serve_refuses_its_own_names_and_no_others() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let good = certs::server(&authority, &["good.test", "*.test"]);
    let broken = |id: &str, cert: &str, key: &str| {
        format!("  - {{ id: {id}, snis: [{id}.test], cert: \"{cert}\", key: \"{key}\" }}\n")
    };
    let gateway = Gateway::builder()
        .resources(resources(
            &upstream,
            &[
                broken("ref", "$env://NO_CERT", "$env://NO_KEY"),
                broken("pem", "$env://BAD_CERT", "$env://BAD_CERT"),
                item("good", &["good.test", "*.test"], &good, ""),
            ],
        ))
        .env("BAD_CERT", "this is no certificate")
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    for name in ["ref.test", "pem.test"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(gateway.https(), &["-servername", name, version]);
            assert_alert(&said, 80);
        }
    }
    assert_eq!(
        subject(gateway.https(), "other.test").as_deref(),
        Some("good.test")
    );
    assert!(!gateway.log().contains("this is no certificate"));
}

#[test]
fn names_that_never_serve_are_told_by_check() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item("1", &["a.test", "*.a.test"], &issued, ""),
            item("2", &["A.test.", "b.test"], &issued, ""),
            item("3", &["a.test:443"], &issued, ""),
        ],
    ));
    let output = gateway.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let line = |parts: &[&str]| {
        let holds = |line: &str| parts.iter().all(|part| line.contains(part));
        said.lines().any(holds)
    };
    assert!(
        line(&[
            "apisix.yaml:",
            "ssls/2",
            "a.test stands in ssls/1",
            "serves it"
        ]),
        "{said}"
    );
    assert!(!line(&["b.test stands"]), "{said}");
    assert!(
        line(&["ssls/3", "no client can ask for this name"]),
        "{said}"
    );

    let text = resources(&upstream, &[item("4", &["bücher.test"], &issued, "")]);
    gateway.write_file("idn.yaml", format!("{text}#END\n"));
    let output = gateway
        .command(&["check", "--resources", "idn.yaml"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("in its ASCII form (xn--…)"), "{said}");
}
