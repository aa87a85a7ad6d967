//! Rules that change under clients: CAs and revocation lists, literal and by reference. Neither a
//! session nor a connection outlives what it was accepted by.

use std::time::Instant;

use claviger::tls::dev::Authority;

use super::visitor::{Card, Visitor, ask};
use super::*;

/// `m.test`, whose rules stand in files that the manager `file` reads.
struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    resources: String,
}

impl Setup {
    /// With this content of `client` behind `ca`, and these files.
    fn start(more: &str, files: &[(&str, String)]) -> Self {
        Self::start_with(false, more, files)
    }

    fn start_with(tickets: bool, more: &str, files: &[(&str, String)]) -> Self {
        let authority = Authority::new().unwrap();
        let upstream = Upstream::start(Behaviour::ok());
        let mut builder = Gateway::builder().bootstrap(&format!(
            "apisix: {{ ssl: {{ ssl_session_tickets: {tickets} }} }}"
        ));
        for (name, text) in files {
            builder = builder.file(&format!("secrets/{name}"), text);
        }
        let folder = builder.dir().join("secrets");
        let item = item(
            "m",
            &["m.test"],
            &certs::server(&authority, &["m.test"]),
            &guard("$secret://file/main/ca.pem", more),
        );
        let secrets = format!(
            "secrets:\n  - {{ id: file/main, path: {} }}\n",
            folder.display()
        );
        let resources = secrets + &resources(&upstream, &[item]);
        let gateway = builder.resources(&resources).start();
        Self {
            upstream,
            gateway,
            resources,
        }
    }

    fn write(&self, name: &str, text: &str) {
        self.gateway.write_file(&format!("secrets/{name}"), text);
    }

    fn visitor<'a>(&self, card: &'a Card) -> Visitor<'a> {
        Visitor::new(self.gateway.https(), "m.test").card(card)
    }

    fn accepts(&self, card: &Card) -> bool {
        self.visitor(card).ask("m.test", "/") == Ok(200)
    }

    fn await_refusal(&self, card: &Card) {
        wait_until("the certificate is refused", || !self.accepts(card));
    }
}

/// Certificates and lists count from the moment their authority was made.
fn seconds_since(began: Instant) -> i64 {
    i64::try_from(began.elapsed().as_secs()).unwrap()
}

fn pem(authority: &Authority) -> String {
    authority.cert_pem().unwrap()
}

#[test]
fn a_rotated_ca_lets_its_clients_in_and_the_former_ones_out() {
    let [old, new] = ["old", "new"].map(|name| Authority::named(name).unwrap());
    let (former, fresh) = (Card::of(&old), Card::of(&new));
    let setup = Setup::start("", &[("ca.pem", pem(&old))]);
    assert!(setup.accepts(&former) && !setup.accepts(&fresh));
    let mut kept = setup.visitor(&former).connect().unwrap();
    let http2 = setup.visitor(&former).connect_http2();
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(200));
    assert_eq!(http2.ask("m.test", "/", &[]), Some(200));

    // Both: nobody notices, on connections that stand neither.
    setup.write("ca.pem", &(pem(&new) + &pem(&old)));
    wait_until("the new CA is in force", || setup.accepts(&fresh));
    assert!(setup.accepts(&former));
    let mut of_new = setup.visitor(&fresh).connect().unwrap();
    assert_eq!(ask(&mut of_new, "m.test", "/"), Some(200));
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(200));
    assert_eq!(http2.ask("m.test", "/", &[]), Some(200));

    // The new one alone.
    setup.write("ca.pem", &pem(&new));
    setup.await_refusal(&former);
    let served = setup.upstream.count();
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(421));
    assert!(kept.is_closed(), "the client must connect anew");
    assert_eq!(http2.ask("m.test", "/", &[]), Some(421));
    wait_until("the connection ends", || http2.is_closed());
    assert_eq!(setup.upstream.count(), served, "nothing goes up");
    assert_eq!(ask(&mut of_new, "m.test", "/"), Some(200));
    let said = "before the rules for client certificates of m.test changed";
    await_log(&setup.gateway, said);
}

#[test]
fn sessions_end_with_the_ca_they_were_made_under() {
    let [old, new] = ["old", "new"].map(|name| Authority::named(name).unwrap());
    let card = Card::of(&old);
    for tickets in [false, true] {
        let setup = Setup::start_with(tickets, "", &[("ca.pem", pem(&old))]);
        let file = setup.gateway.dir().join("card.pem");
        std::fs::write(&file, &card.pem).unwrap();
        let path = |name: &str| setup.gateway.dir().join(name).display().to_string();
        let file = path("card.pem");
        let converse = |args: &[&str], version: &str| {
            let common = ["-ign_eof", "-servername", "m.test", version];
            let request = REQUEST.replace("none", "m.test");
            converse(setup.gateway.https(), &[&common, args].concat(), &request)
        };
        let versions = ["-tls1_2", "-tls1_3"];
        for version in versions {
            let session = path(version);
            let first = converse(&["-cert", &file, "-sess_out", &session], version);
            assert!(
                first.contains("200 X") && first.contains("New, "),
                "{first}"
            );
            let again = converse(&["-sess_in", &session], version);
            assert!(
                again.contains("200 X") && again.contains("Reused, "),
                "{again}"
            );
        }
        setup.write("ca.pem", &pem(&new));
        setup.await_refusal(&card);
        let served = setup.upstream.count();
        for version in versions {
            let session = path(version);
            // Neither by itself nor together with the certificate.
            for args in [
                &["-sess_in", &session][..],
                &["-sess_in", &session, "-cert", &file],
            ] {
                let said = converse(args, version);
                let case = format!("tickets {tickets} {version} {args:?}\n{said}");
                assert!(!said.contains("Reused, "), "{case}");
                assert!(!said.contains("HTTP/1.1"), "{case}");
            }
        }
        assert_eq!(setup.upstream.count(), served);
    }
}

#[test]
fn a_name_that_begins_to_ask_does_so_on_connections_that_stand() {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("clients").unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let issued = certs::server(&authority, &["m.test"]);
    let with = |more: &str| resources(&upstream, &[item("m", &["m.test"], &issued, more)]);
    let gateway = Gateway::start(with(""));
    let mut kept = Visitor::new(gateway.https(), "m.test").connect().unwrap();
    let http2 = Visitor::new(gateway.https(), "m.test").connect_http2();
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(200));
    assert_eq!(http2.ask("m.test", "/", &[]), Some(200));
    gateway.write_resources(&with(&guard(&pem(&clients), "")));
    let stranger = Visitor::new(gateway.https(), "m.test");
    wait_until("certificates are asked for", || {
        stranger.ask("m.test", "/").is_err()
    });
    assert_eq!(http2.ask("m.test", "/", &[]), Some(421));
    wait_until("the connection ends", || http2.is_closed());
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(421));
    // Paths that need none are served to those who have none.
    let skip = r#", skip_mtls_uri_regex: ["^/open$"]"#;
    gateway.write_resources(&with(&guard(&pem(&clients), skip)));
    wait_until("paths are exempt", || {
        stranger.ask("m.test", "/open") == Ok(200)
    });
    // Nor does what was let in without one go on once everything needs one.
    let mut open = stranger.connect().unwrap();
    assert_eq!(ask(&mut open, "m.test", "/open"), Some(200));
    gateway.write_resources(&with(&guard(&pem(&clients), "")));
    wait_until("certificates are asked for", || {
        stranger.ask("m.test", "/open").is_err()
    });
    assert_eq!(ask(&mut open, "m.test", "/open"), Some(400));
}

#[test]
fn a_connection_ends_with_its_certificate() {
    let clients = Authority::named("clients").unwrap();
    let began = Instant::now();
    let setup = Setup::start("", &[("ca.pem", pem(&clients))]);
    let card = Card::with(&clients, "short", |options| {
        options.ends_in_secs = seconds_since(began) + 4;
    });
    let mut kept = setup.visitor(&card).connect().unwrap();
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(200));
    let mut last = Some(200);
    wait_until("the certificate ends", || {
        last = ask(&mut kept, "m.test", "/");
        last != Some(200)
    });
    assert_eq!(last, Some(400));
    let said = "client certificate verification is not passed: FAILED:certificate has expired";
    await_log(&setup.gateway, said);
}

#[test]
fn a_value_that_cannot_be_used_leaves_the_last_good_one() {
    let clients = Authority::named("clients").unwrap();
    let card = Card::of(&clients);
    let files = [
        ("ca.pem", pem(&clients)),
        ("crl.pem", clients.revoke(&[], 3600).unwrap()),
    ];
    let setup = Setup::start(r#", crl: "$secret://file/main/crl.pem""#, &files);
    let torn = "-----BEGIN CERTIFICATE-----\n".to_owned() + &"A".repeat(200);
    let torn_list = "-----BEGIN X509 CRL-----\n".to_owned() + &"A".repeat(200);
    for (name, torn, said) in [
        (
            "ca.pem",
            &torn,
            "client.ca: a PEM certificate does not parse; the last good value serves on",
        ),
        (
            "crl.pem",
            &torn_list,
            "client.crl: a PEM revocation list does not parse; the last good value serves on",
        ),
    ] {
        setup.write(name, torn);
        wait_until("the value is reported", || {
            setup.gateway.log().contains(said)
        });
        assert!(setup.accepts(&card));
        let (_, good) = files.iter().find(|(file, _)| *file == name).unwrap();
        setup.write(name, good);
    }
    // Nor does it do so for another declaration.
    setup.write("ca.pem", &torn);
    wait_until("the value is reported again", || {
        setup
            .gateway
            .log()
            .matches("client.ca: a PEM certificate does not parse")
            .count()
            > 1
    });
    assert!(setup.accepts(&card));
    let other = setup.resources.replace("crl.pem\"", "crl.pem\", depth: 2");
    setup.gateway.write_resources(&other);
    setup.await_refusal(&card);
    setup.write("ca.pem", &pem(&clients));
    wait_until("it heals", || setup.accepts(&card));
}

#[test]
fn revoked_certificates_are_refused_at_once() {
    let root = Authority::named("clients").unwrap();
    let one = root.intermediate("one").unwrap();
    let (good, bad) = (Card::named(&one, "good"), Card::named(&one, "bad"));
    let lists =
        |revoked: &[&str]| one.revoke(revoked, 3600).unwrap() + &root.revoke(&[], 3600).unwrap();
    let files = [("ca.pem", pem(&root)), ("crl.pem", lists(&[]))];
    let setup = Setup::start(r#", crl: "$secret://file/main/crl.pem""#, &files);
    assert!(setup.accepts(&good) && setup.accepts(&bad));
    let connect = |card| setup.visitor(card).connect().unwrap();
    let (mut of_good, mut of_bad) = (connect(&good), connect(&bad));
    assert_eq!(ask(&mut of_good, "m.test", "/"), Some(200));
    assert_eq!(ask(&mut of_bad, "m.test", "/"), Some(200));
    let session = setup.gateway.dir().join("session").display().to_string();
    let file = setup.gateway.dir().join("bad.pem").display().to_string();
    std::fs::write(&file, &bad.pem).unwrap();
    let resumes = |args: &[&str]| {
        let common = ["-ign_eof", "-servername", "m.test", "-tls1_3"];
        let request = REQUEST.replace("none", "m.test");
        converse(setup.gateway.https(), &[&common, args].concat(), &request)
    };
    let with_chain = ["-cert", &file, "-cert_chain", &file, "-sess_out", &session];
    assert!(resumes(&with_chain).contains("200 X"));
    assert!(resumes(&["-sess_in", &session]).contains("Reused, "));

    setup.write("crl.pem", &lists(&[&bad.leaf_pem()]));
    setup.await_refusal(&bad);
    let error = setup.visitor(&bad).ask("m.test", "/").unwrap_err();
    assert!(error.contains("certificate revoked"), "{error}");
    assert_eq!(ask(&mut of_bad, "m.test", "/"), Some(421));
    assert_eq!(ask(&mut of_good, "m.test", "/"), Some(200));
    assert!(!resumes(&["-sess_in", &session]).contains("HTTP/1.1"));

    // Who vouches for certificates may be revoked, too.
    let middle = one.cert_pem().unwrap();
    let all = one.revoke(&[], 3600).unwrap() + &root.revoke(&[&middle], 3600).unwrap();
    setup.write("crl.pem", &all);
    setup.await_refusal(&good);
    assert_eq!(ask(&mut of_good, "m.test", "/"), Some(421));
}

#[test]
fn lists_must_be_fresh_and_there_must_be_one_of_each_issuer() {
    let root = Authority::named("clients").unwrap();
    let one = root.intermediate("one").unwrap();
    let card = Card::of(&one);
    let both = |ends| one.revoke(&[], ends).unwrap() + &root.revoke(&[], 3600).unwrap();
    let stranger = Authority::named("stranger").unwrap();
    for (lists, accepted) in [
        (both(3600), true),
        (both(-60), false),
        (one.revoke(&[], 3600).unwrap(), false),
        (root.revoke(&[], 3600).unwrap(), false),
        (stranger.revoke(&[], 3600).unwrap(), false),
    ] {
        let files = [("ca.pem", pem(&root)), ("crl.pem", lists)];
        let setup = Setup::start(r#", crl: "$secret://file/main/crl.pem""#, &files);
        assert_eq!(setup.accepts(&card), accepted);
    }
}

#[test]
fn a_connection_ends_with_the_list_it_was_checked_against() {
    let clients = Authority::named("clients").unwrap();
    let began = Instant::now();
    let card = Card::of(&clients);
    let files = [
        ("ca.pem", pem(&clients)),
        ("crl.pem", clients.revoke(&[], 3600).unwrap()),
    ];
    let more = r#", crl: "$secret://file/main/crl.pem", skip_mtls_uri_regex: ["^/open$"]"#;
    let setup = Setup::start(more, &files);
    let mut kept = setup.visitor(&card).connect().unwrap();
    assert_eq!(ask(&mut kept, "m.test", "/"), Some(200));
    let ends = seconds_since(began) + 4;
    setup.write("crl.pem", &clients.revoke(&[], ends).unwrap());
    let mut last = Some(200);
    wait_until("the list ends", || {
        last = ask(&mut kept, "m.test", "/");
        last != Some(200)
    });
    // The other where the list had ended before it was first asked.
    assert!(matches!(last, Some(400 | 421)), "{last:?}");
    let visitor = setup.visitor(&card);
    assert_eq!(visitor.ask("m.test", "/"), Ok(400));
    assert_eq!(visitor.ask("m.test", "/open"), Ok(200));
    let said = "client certificate verification is not passed: FAILED:CRL has expired";
    await_log(&setup.gateway, said);
    // A new one heals it.
    setup.write("crl.pem", &clients.revoke(&[], 3600).unwrap());
    wait_until("the new list is in force", || {
        visitor.ask("m.test", "/") == Ok(200)
    });
    setup.write(
        "crl.pem",
        &clients.revoke(&[&card.leaf_pem()], 3600).unwrap(),
    );
    wait_until("it is revoked", || visitor.ask("m.test", "/") == Ok(400));
    let said = "client certificate verification is not passed: FAILED:certificate revoked";
    await_log(&setup.gateway, said);
}
