//! Pairs whose values change in their manager: they switch together, live, and alone.

use super::super::*;
use super::{issue, more_pairs};
use crate::harness::Connection;
use claviger::tls::dev::KeyKind;
use serde_json::json;

/// A gateway whose item `a` takes its pair from the folder `secrets`, watched.
fn gateway(builder: Builder, upstream: &Upstream, cert: &str, key: &str, more: &str) -> Gateway {
    let folder = builder.dir().join("secrets");
    let yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {}, ttl: 600, neg_ttl: 1 }}\n{}",
        folder.display(),
        resources(
            upstream,
            &[format!(
                "  - id: a\n    sni: a.test\n    cert: $secret://file/main/{cert}\n    key: \
                 $secret://file/main/{key}\n{more}"
            )]
        )
    );
    builder.resources(yaml).start()
}

fn document(issued: &Issued) -> String {
    json!({"cert": issued.cert_pem, "key": certs::key_text(issued)}).to_string()
}

fn leaf(issued: &Issued) -> Vec<u8> {
    let parsed = openssl::x509::X509::from_pem(issued.cert_pem.as_bytes());
    parsed.unwrap().to_der().unwrap()
}

fn serves(gateway: &Gateway, ca: &str) -> Vec<u8> {
    Connection::open_tls(gateway.https(), "a.test", ca)
        .expect("no handshake may fail")
        .certificate()
}

#[test]
fn a_pair_in_one_document_switches_at_once_to_any_kind_of_key() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let kinds = [
        KeyKind::Rsa2048,
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Ed25519,
    ];
    let pairs = kinds.map(|key| issue(&authority, "a.test", key));
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder().file("secrets/site.json", document(&pairs[0]));
    let gateway = gateway(builder, &upstream, "site/cert", "site/key", "");
    assert!(serves(&gateway, &ca) == leaf(&pairs[0]));
    for pair in &pairs[1..] {
        gateway.write_file("secrets/site.json", document(pair));
        wait_until("the new pair serves", || {
            serves(&gateway, &ca) == leaf(pair)
        });
    }
    let log = gateway.log();
    assert!(!log.contains("does not belong"), "no half was ever seen");
    assert_eq!(log.matches("trigger=Source").count(), 1, "{log}");
}

#[test]
fn halves_in_two_documents_wait_for_each_other() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let [first, second, over] = [
        issue(&authority, "a.test", KeyKind::EcdsaP256),
        issue(&authority, "a.test", KeyKind::Rsa2048),
        certs::expired(&authority, &["a.test"]),
    ];
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/tls.crt", &first.cert_pem)
        .file("secrets/tls.key", certs::key_text(&first));
    let gateway = gateway(builder, &upstream, "tls.crt", "tls.key", "");
    let tells = |finding: &str| {
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains(finding) && line.ends_with("the last good pair serves on"))
    };
    // The key first, as often as not.
    gateway.write_file("secrets/tls.key", certs::key_text(&second));
    wait_until("the half is told of", || {
        assert!(serves(&gateway, &ca) == leaf(&first));
        tells("ssls/a key: the private key does not belong to the certificate")
    });
    gateway.write_file("secrets/tls.crt", &second.cert_pem);
    wait_until("both serve", || serves(&gateway, &ca) == leaf(&second));

    // What cannot serve replaces nothing: not a pair that has ended, nor text that is none.
    gateway.write_file("secrets/tls.crt", &over.cert_pem);
    gateway.write_file("secrets/tls.key", certs::key_text(&over));
    wait_until("the expired pair is told of", || {
        assert!(serves(&gateway, &ca) == leaf(&second));
        tells("ssls/a cert: the certificate expired on ")
    });
    gateway.write_file("secrets/tls.crt", "x".repeat(200));
    wait_until("the garbage is told of", || {
        assert!(serves(&gateway, &ca) == leaf(&second));
        tells("ssls/a cert: no PEM certificate found")
    });
    gateway.write_file("secrets/tls.crt", "short");
    wait_until("the bound is told of", || {
        assert!(serves(&gateway, &ca) == leaf(&second));
        tells("ssls/a cert: expected PEM of 128 to 65536 characters")
    });
}

#[test]
fn a_chain_may_change_alone() {
    let root = Authority::new().unwrap();
    let middle = root.intermediate("middle").unwrap();
    let issued = issue(&middle, "a.test", KeyKind::EcdsaP256);
    let end = issued.cert_pem.rfind("-----BEGIN").unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/tls.crt", &issued.cert_pem[..end])
        .file("secrets/tls.key", certs::key_text(&issued));
    let gateway = gateway(builder, &upstream, "tls.crt", "tls.key", "");
    let sent = || {
        let said = s_client(gateway.https(), &["-servername", "a.test", "-showcerts"]);
        said.matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!(sent(), 1);
    gateway.write_file("secrets/tls.crt", &issued.cert_pem);
    wait_until("the intermediate is sent, too", || sent() == 2);
}

#[test]
fn a_second_pair_that_is_half_rotated_does_not_disturb_the_first() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let [ecdsa, renewed] = [0, 1].map(|_| issue(&authority, "a.test", KeyKind::EcdsaP256));
    let [rsa, other] = [0, 1].map(|_| issue(&authority, "a.test", KeyKind::Rsa2048));
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/site.json", document(&ecdsa))
        .file("secrets/rsa.crt", &rsa.cert_pem)
        .file("secrets/rsa.key", certs::key_text(&rsa));
    let more =
        "    certs: [$secret://file/main/rsa.crt]\n    keys: [$secret://file/main/rsa.key]\n";
    let gateway = gateway(builder, &upstream, "site/cert", "site/key", more);
    let only_rsa = || {
        let args = ["-servername", "a.test", "-sigalgs", "RSA-PSS+SHA256"];
        s_client(gateway.https(), &args).contains("Server public key is 2048 bit")
    };
    assert!(only_rsa());
    gateway.write_file("secrets/rsa.key", certs::key_text(&other));
    wait_until("the half is told of", || {
        assert!(only_rsa());
        gateway
            .log()
            .contains("ssls/a keys.0: the private key does not belong")
    });
    gateway.write_file("secrets/site.json", document(&renewed));
    wait_until("the first is rotated meanwhile", || {
        assert!(only_rsa());
        serves(&gateway, &ca) == leaf(&renewed)
    });
}

#[test]
fn a_pair_that_is_deleted_refuses_though_it_was_good() {
    let authority = Authority::new().unwrap();
    let issued = issue(&authority, "a.test", KeyKind::EcdsaP256);
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/tls.crt", &issued.cert_pem)
        .file("secrets/tls.key", certs::key_text(&issued));
    let gateway = gateway(builder, &upstream, "tls.crt", "tls.key", "");
    let ca = authority.cert_pem().unwrap();
    assert!(serves(&gateway, &ca) == leaf(&issued));
    std::fs::remove_file(gateway.dir().join("secrets/tls.key")).unwrap();
    let at = gateway.https();
    wait_until("its name refuses", || subject(at, "a.test").is_none());
    assert_alert(&s_client(at, &["-servername", "a.test"]), 80);
    // The same pair again.
    gateway.write_file("secrets/tls.key", certs::key_text(&issued));
    wait_until("it serves again", || subject(at, "a.test").is_some());
}

#[test]
fn ten_names_rotated_at_once_build_ten_items() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let documents = |names: std::ops::Range<usize>| {
        let pairs = names.map(|n| {
            let issued = certs::server(&authority, &[&format!("n{n}.test")]);
            let pair = json!({"cert": issued.cert_pem, "key": certs::key_text(&issued)});
            (format!("n{n}"), pair.to_string())
        });
        pairs.collect::<Vec<_>>()
    };
    let upstream = Upstream::start(Behaviour::ok());
    let mut builder = Gateway::builder();
    for (name, document) in documents(0..40) {
        builder = builder.file(&format!("secrets/{name}.json"), document);
    }
    let items: Vec<_> = (0..40)
        .map(|n| {
            format!(
                "  - {{ id: n{n}, sni: n{n}.test, cert: $secret://file/main/n{n}/cert, key: \
                 $secret://file/main/n{n}/key }}\n"
            )
        })
        .collect();
    let yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {}, ttl: 600 }}\n{}",
        builder.dir().join("secrets").display(),
        resources(&upstream, &items)
    );
    let gateway = builder.resources(yaml).start();
    let serves = |n: usize| {
        Connection::open_tls(gateway.https(), &format!("n{n}.test"), &ca)
            .expect("no handshake may fail")
            .certificate()
    };
    let before: Vec<_> = (0..40).map(serves).collect();
    for (name, document) in documents(10..20) {
        gateway.write_file(&format!("secrets/{name}.json"), document);
    }
    wait_until("ten have changed", || {
        (10..20).all(|n| serves(n) != before[n])
    });
    for n in (0..10).chain(20..40) {
        assert!(serves(n) == before[n], "n{n} stays");
    }
    // In one step or in several, each item was built for itself alone.
    wait_until("ten items were built", || {
        let log = gateway.log();
        let rotations = log.lines().filter(|line| line.contains("trigger=Secrets"));
        let built = rotations.filter_map(|line| {
            let built = line.split("others_built=").nth(1)?;
            built.split(' ').next()?.parse::<usize>().ok()
        });
        let built: usize = built.sum();
        assert!(built <= 10, "{built}");
        built == 10
    });
}

#[test]
fn several_pairs_come_from_several_managers() {
    let authority = Authority::new().unwrap();
    let ecdsa = issue(&authority, "a.test", KeyKind::EcdsaP256);
    let rsa = issue(&authority, "a.test", KeyKind::Rsa2048);
    let edwards = issue(&authority, "a.test", KeyKind::Ed25519);
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .bootstrap("nginx_config: { envs: [CERT, KEY] }")
        .env("CERT", &rsa.cert_pem)
        .env("KEY", certs::key_text(&rsa))
        .file("secrets/site.json", document(&ecdsa));
    // A literal, too.
    let literal = more_pairs(&[&edwards]);
    let more = literal
        .replace("certs: [", "certs: [$env://CERT, ")
        .replace("keys: [", "keys: [$env://KEY, ");
    let gateway = gateway(builder, &upstream, "site/cert", "site/key", &more);
    for (algorithm, key) in [
        ("ECDSA+SHA256", "Server public key is 256 bit"),
        ("RSA-PSS+SHA256", "Server public key is 2048 bit"),
        ("ed25519", "Server public key is 256 bit"),
    ] {
        let args = ["-servername", "a.test", "-sigalgs", algorithm];
        let said = s_client(gateway.https(), &args);
        assert!(said.contains(key), "{algorithm}\n{said}");
    }
}
