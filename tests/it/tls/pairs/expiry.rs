//! Certificates whose time comes while they serve, and those that are to serve all the same.

use super::super::*;
use super::issue_for;

fn samples(gateway: &Gateway, samples: &[&str]) {
    let page = gateway.metrics_page();
    for sample in samples {
        assert!(page.lines().any(|line| line == *sample), "{sample}\n{page}");
    }
}

/// Long enough for a reload on a busy machine, short enough to be waited for.
const SOON: i64 = 8;

#[test]
fn time_alone_ends_and_begins_what_is_served() {
    let upstream = Upstream::start(Behaviour::ok());
    let day = 24 * 3600;
    let lasting = |name| issue_for(&Authority::new().unwrap(), name, -day, 90 * day);
    let with = |ends: &Issued, near: &Issued, next: &Issued| {
        let items = [
            item("ends", &["ends.test"], ends, ""),
            item("near", &["near.test"], near, ""),
            item("next", &["next.test"], next, ""),
            item("steady", &["steady.test"], &lasting("steady.test"), ""),
        ];
        resources(&upstream, &items)
    };
    let [ends, near, next] = ["ends.test", "near.test", "next.test"].map(lasting);
    let gateway = Gateway::builder()
        .bootstrap("claviger: { tls: { expiry_notice: 1d } }")
        .resources(with(&ends, &near, &next))
        .start();
    // Made now, so that little of their time is gone when they are in force. `Authority` keeps the
    // moment it was made.
    let authority = Authority::new().unwrap();
    let ends = issue_for(&authority, "ends.test", -day, SOON);
    let near = issue_for(&authority, "near.test", -day, day + SOON);
    let later = issue_for(&authority, "later.test", SOON, 90 * day);
    gateway.write_resources(&with(&ends, &near, &later));
    let at = gateway.https();
    let session = gateway.dir().join("session.pem");
    let session = session.to_str().unwrap();
    // A connection that is not closed in order takes its session along.
    let resume = |io: &str| {
        let common = ["-ign_eof", "-tls1_2", "-servername", "ends.test"];
        converse(at, &[&common[..], &[io, session]].concat(), REQUEST)
    };
    wait_until("the pair that ends soon serves", || {
        gateway.log().matches("trigger=Source").count() == 2
    });
    assert!(resume("-sess_out").contains("New, TLSv1.2"));
    assert!(resume("-sess_in").contains("Reused, TLSv1.2"));
    let log = gateway.log();
    let told = "ssls/next cert: the certificate is not valid before ";
    let line = log.lines().find(|line| line.contains(told)).expect(told);
    assert!(line.ends_with("the last good pair serves on"), "{line}");
    assert_eq!(subject(at, "next.test").as_deref(), Some("next.test"));
    assert!(!log.contains("ssls/near"), "{log}");

    wait_until("it is past its end", || subject(at, "ends.test").is_none());
    assert_alert(&s_client(at, &["-servername", "ends.test"]), 80);
    // What it says of a certificate is what the session holds: all that came was an alert.
    let said = resume("-sess_in");
    let alert = ["SSL handshake has read 7 bytes", "SSL alert number 80"];
    assert!(alert.iter().all(|part| said.contains(part)), "{said}");
    assert!(
        !said.contains("Reused") && !said.contains("HTTP/1.1"),
        "{said}"
    );
    wait_until("the next one serves from its start on", || {
        subject(at, "next.test").as_deref() == Some("later.test")
    });
    wait_until("all is told", || {
        let log = gateway.log();
        log.contains("ssls/near cert: the certificate expires on ")
            && log.contains("ssls/ends cert: the certificate expired on ")
    });
    assert!(gateway.log().contains("trigger=Time"));
    assert!(!gateway.log().contains("ssls/steady"));
    samples(
        &gateway,
        &[
            "claviger_certificates{state=\"valid\"} 2",
            "claviger_certificates{state=\"expiring\"} 1",
            "claviger_certificates{state=\"expired\"} 1",
            "claviger_certificates{state=\"refused\"} 0",
            "claviger_config_refused_items{kind=\"ssls\"} 1",
        ],
    );
    let page = gateway.metrics_page();
    let refused = "claviger_handshakes_refused_total{reason=\"expired\"} ";
    let refused = page.lines().find_map(|line| line.strip_prefix(refused));
    assert!(refused.is_some_and(|times| times != "0"), "{page}");

    gateway.write_resources(&with(&lasting("ends.test"), &near, &later));
    wait_until("a renewed one serves", || {
        subject(at, "ends.test").is_some()
    });
}

#[test]
fn a_certificate_past_its_end_is_presented_only_where_that_was_asked_for() {
    let authority = Authority::new().unwrap();
    let over = certs::expired(&authority, &["a.test"]);
    let early = issue_for(&authority, "a.test", 3600, 7200);
    let upstream = Upstream::start(Behaviour::ok());
    let yes = "    serve_expired: true\n";
    let no = "    serve_expired: false\n";
    let items = [
        item("unsaid", &["unsaid.test"], &over, ""),
        item("yes", &["yes.test"], &over, yes),
        item("no", &["no.test"], &over, no),
        item("early", &["early.test"], &early, yes),
    ];
    for (bootstrap, served) in [
        ("{}", &["yes.test"][..]),
        (
            "claviger: { tls: { serve_expired: true } }",
            &["unsaid.test", "yes.test"],
        ),
    ] {
        let gateway = Gateway::builder()
            .bootstrap(bootstrap)
            .resources(resources(&upstream, &items))
            .start();
        for name in ["unsaid.test", "yes.test", "no.test", "early.test"] {
            let said = s_client(gateway.https(), &["-servername", name]);
            if served.contains(&name) {
                assert_eq!(subject_in(&said).as_deref(), Some("a.test"), "{said}");
                assert!(said.contains("certificate has expired"), "{said}");
            } else {
                assert_alert(&said, 80);
            }
        }
        let log = gateway.log();
        for (item, ending) in [
            (
                "ssls/yes cert: ",
                "serve_expired lets it be presented all the same",
            ),
            ("ssls/no cert: ", "it is not presented any more"),
            ("ssls/early cert: ", "it is not presented until then"),
        ] {
            let line = log.lines().find(|line| line.contains(item)).expect(item);
            assert!(line.ends_with(ending), "{line}");
        }
        samples(
            &gateway,
            &[
                "claviger_certificates{state=\"expired\"} 3",
                "claviger_certificates{state=\"not_yet_valid\"} 1",
                &format!(
                    "claviger_config_refused_items{{kind=\"ssls\"}} {}",
                    4 - served.len()
                ),
            ],
        );
    }
}
