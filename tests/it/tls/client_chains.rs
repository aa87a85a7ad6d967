//! Which chains are accepted: depth, and certificates of hostile clients. What a client is told
//! stands in its alert (`spec/04` §7).

use claviger::tls::dev::{Authority, KeyKind, LeafOptions, Usage};
use openssl::ssl::SslVersion;
use openssl::x509::X509;

use super::visitor::{Card, Visitor};
use super::*;

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

#[test]
fn depth_counts_the_intermediates_between_a_certificate_and_its_root() {
    let authority = Authority::new().unwrap();
    let roots = [Authority::named("root").unwrap()];
    let one = roots[0].intermediate("one").unwrap();
    let two = one.intermediate("two").unwrap();
    let three = two.intermediate("three").unwrap();
    let cards = [&roots[0], &one, &two, &three].map(Card::of);
    let ca = roots[0].cert_pem().unwrap();
    let names = ["d0.test", "d1.test", "d2.test", "unset.test"];
    let depths = [", depth: 0", ", depth: 1", ", depth: 2", ""];
    let items: Vec<_> = names
        .iter()
        .zip(depths)
        .map(|(name, depth)| {
            let issued = certs::server(&authority, &[name]);
            item(name, &[name], &issued, &guard(&ca, depth))
        })
        .collect();
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream, &items));
    for (name, depth) in names.iter().zip([0, 1, 2, 1]) {
        for (intermediates, card) in cards.iter().enumerate() {
            for version in VERSIONS {
                let visitor = Visitor::new(gateway.https(), name).card(card);
                let outcome = visitor.version(version).ask(name, "/");
                let case = format!("{name} {intermediates} {version:?}: {outcome:?}");
                match outcome {
                    Ok(status) => assert!(status == 200 && intermediates <= depth, "{case}"),
                    Err(error) => {
                        assert!(intermediates > depth, "{case}");
                        assert!(error.contains("unknown ca"), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn hostile_certificates_end_the_handshake_with_an_alert() {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("clients").unwrap();
    let impostor = Authority::named("clients").unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let issued = certs::server(&authority, &["m.test"]);
    let items = [item(
        "m",
        &["m.test"],
        &issued,
        &guard(&clients.cert_pem().unwrap(), ", forward: leaf"),
    )];
    let gateway = Gateway::start(resources(&upstream, &items));
    let with = |change: fn(&mut LeafOptions)| Card::with(&clients, "someone", change);
    let own = Card::from(&own_issued());
    let crowd = (0..80).map(|n| {
        let stranger = Authority::named(&format!("stranger {n}")).unwrap();
        X509::from_pem(stranger.cert_pem().unwrap().as_bytes()).unwrap()
    });
    let good = Card::of(&clients);
    for (what, card, alert) in [
        (
            "none at all",
            None,
            "handshake failure|certificate required",
        ),
        (
            "over",
            Some(with(|options| {
                options.starts_in_secs = -7200;
                options.ends_in_secs = -3600;
            })),
            "certificate expired",
        ),
        (
            "to come",
            Some(with(|options| options.starts_in_secs = 3600)),
            "bad certificate",
        ),
        (
            "for servers",
            Some(with(|options| options.usage = Usage::Server)),
            "unsupported certificate",
        ),
        (
            "of a CA of the same name",
            Some(Card::of(&impostor)),
            "decrypt error|unknown ca",
        ),
        ("of another CA", Some(Card::of(&authority)), "unknown ca"),
        ("its own CA", Some(own), "unknown ca"),
        (
            "another's, without its key",
            Some(good.clone().with_stolen_certificate()),
            "decrypt error",
        ),
        (
            "with a crowd behind it",
            Some(good.clone().and(crowd)),
            "illegal parameter|excessive|closed|reset|broken pipe",
        ),
    ] {
        for version in VERSIONS {
            let visitor = Visitor::new(gateway.https(), "m.test").version(version);
            let visitor = card.as_ref().map_or(visitor, |card| visitor.card(card));
            let error = visitor.ask("m.test", "/").expect_err(what).to_lowercase();
            let told = alert.split('|').any(|alert| error.contains(alert));
            assert!(told, "{what} {version:?}: {alert} expected, was {error}");
        }
    }
    assert_eq!(upstream.count(), 0);
    let rsa = with(|options| options.key = KeyKind::Rsa2048);
    for card in [&good, &rsa] {
        let visitor = Visitor::new(gateway.https(), "m.test").card(card);
        assert_eq!(visitor.ask("m.test", "/"), Ok(200));
    }
}

/// A certificate that nobody but itself vouches for.
fn own_issued() -> claviger::tls::dev::Issued {
    let own = Authority::named("someone").unwrap();
    claviger::tls::dev::Issued {
        cert_pem: own.cert_pem().unwrap(),
        key_pem: own.key_pem().unwrap(),
    }
}

#[test]
fn each_name_tells_clients_its_own_issuers() {
    let authority = Authority::new().unwrap();
    let [one, two] =
        ["first clients", "second clients"].map(|name| Authority::named(name).unwrap());
    let bundle = one.cert_pem().unwrap() + &two.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let server = |name| certs::server(&authority, &[name]);
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item(
                "one",
                &["one.test"],
                &server("one.test"),
                &guard(&one.cert_pem().unwrap(), ""),
            ),
            item(
                "both",
                &["both.test"],
                &server("both.test"),
                &guard(&bundle, ""),
            ),
        ],
    ));
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, told) in [("one.test", [true, false]), ("both.test", [true, true])] {
            let said = s_client(gateway.https(), &["-servername", name, version]);
            let names = ["first clients", "second clients"];
            assert_eq!(
                names.map(|ca| said.contains(ca)),
                told,
                "{version} {name}\n{said}"
            );
        }
    }
}
