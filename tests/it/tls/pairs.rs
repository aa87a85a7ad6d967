//! Certificates and keys: chosen, refused, rotated.

mod expiry;
mod kinds;
mod rotation;

use std::fs;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use claviger::tls::dev::{Authority, Issued, KeyKind, LeafOptions};

use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, wait_until};

use super::*;

/// A server certificate with this kind of key.
fn issue(authority: &Authority, name: &str, key: KeyKind) -> Issued {
    let options = LeafOptions {
        key,
        ..LeafOptions::default()
    };
    authority.issue(&[name], &options).unwrap()
}

/// A server certificate that is valid between these seconds from the moment its authority was made.
fn issue_for(authority: &Authority, name: &str, starts_in_secs: i64, ends_in_secs: i64) -> Issued {
    let options = LeafOptions {
        starts_in_secs,
        ends_in_secs,
        ..LeafOptions::default()
    };
    authority.issue(&[name], &options).unwrap()
}

/// The fields of further pairs of an item.
fn more_pairs(issued: &[&Issued]) -> String {
    let certs: Vec<_> = issued.iter().map(|issued| &issued.cert_pem).collect();
    let keys: Vec<_> = issued
        .iter()
        .map(|issued| certs::key_text(issued))
        .collect();
    format!(
        "    certs: {}\n    keys: {}\n",
        serde_json::to_string(&certs).unwrap(),
        serde_json::to_string(&keys).unwrap()
    )
}

#[test]
fn the_whole_chain_is_sent() {
    let root = Authority::new().unwrap();
    let middle = root.intermediate("middle").unwrap();
    let issued = certs::server(&middle, &["a.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .file("root.pem", root.cert_pem().unwrap())
        .resources(resources(&upstream, &[item("a", &["a.test"], &issued, "")]))
        .start();
    let root = gateway.dir().join("root.pem");
    let root = root.to_str().unwrap();
    let said = s_client(
        gateway.https(),
        &["-servername", "a.test", "-showcerts", "-CAfile", root],
    );
    assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[test]
fn of_two_pairs_the_one_the_client_can_verify_is_sent() {
    let authority = Authority::new().unwrap();
    let ecdsa = certs::server(&authority, &["a.test"]);
    let options = LeafOptions {
        key: KeyKind::Rsa2048,
        ..LeafOptions::default()
    };
    let rsa = authority.issue(&["a.test"], &options).unwrap();
    let more = format!(
        "    certs: [{}]\n    keys: [{}]\n",
        serde_json::to_string(&rsa.cert_pem).unwrap(),
        serde_json::to_string(certs::key_text(&rsa)).unwrap(),
    );
    let upstream = Upstream::start(Behaviour::ok());
    let item = item("a", &["a.test"], &ecdsa, &more);
    let gateway = Gateway::start(resources(&upstream, &[item]));
    for version in ["-tls1_2", "-tls1_3"] {
        for (algorithms, key) in [
            ("ECDSA+SHA256", "Server public key is 256 bit"),
            ("RSA-PSS+SHA256", "Server public key is 2048 bit"),
            ("RSA-PSS+SHA256:ECDSA+SHA256", "Server public key is"),
        ] {
            let args = ["-servername", "a.test", version, "-sigalgs", algorithms];
            let said = s_client(gateway.https(), &args);
            assert!(said.contains(key), "{version} {algorithms}\n{said}");
        }
    }
}

#[test]
fn a_pair_that_cannot_serve_closes_its_name_and_no_other() {
    let authority = Authority::new().unwrap();
    let good = certs::server(&authority, &["good.test"]);
    let torn = Issued {
        key_pem: certs::server(&authority, &["torn.test"]).key_pem,
        ..certs::server(&authority, &["torn.test"])
    };
    let over = certs::expired(&authority, &["over.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item("torn", &["torn.test"], &torn, ""),
            item("over", &["over.test"], &over, ""),
            item("good", &["good.test", "*"], &good, ""),
        ],
    ));
    let at = gateway.https();
    assert_eq!(subject(at, "good.test").as_deref(), Some("good.test"));
    // Nor does the broader item take the name over.
    assert_alert(&s_client(at, &["-servername", "torn.test"]), 80);
    assert_alert(&s_client(at, &["-servername", "over.test"]), 80);
    let log = gateway.log();
    for said in [
        "the private key does not belong to the certificate",
        "ssls/over cert: the certificate expired on ",
    ] {
        assert!(log.contains(said), "{said}");
    }
    let page = gateway.metrics_page();
    let refused = "claviger_config_refused_items{kind=\"ssls\"} 2";
    assert!(page.lines().any(|line| line == refused), "{page}");
}

#[test]
fn an_item_refuses_whole_where_one_of_its_values_cannot_be_used() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let rsa = LeafOptions {
        key: KeyKind::Rsa2048,
        ..LeafOptions::default()
    };
    let second = authority.issue(&["a"], &rsa).unwrap();
    let other = authority.issue(&["a"], &rsa).unwrap();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let pair = |cert: &str, key: &str| format!("    certs: [{cert}]\n    keys: [{key}]\n");
    let cert = quoted(&second.cert_pem);
    let client = |more: &str| {
        let ca = quoted(&authority.cert_pem().unwrap());
        format!("    client: {{ ca: {ca}{more} }}\n")
    };
    let cases = [
        (
            pair(&cert, "$env://NO_SUCH_KEY"),
            "keys.0: reference $env://NO_SUCH_KEY",
        ),
        (
            pair(&cert, &quoted(certs::key_text(&other))),
            "keys.0: the private key does not belong",
        ),
        (
            pair("$env://NO_SUCH_CERT", &quoted(certs::key_text(&second))),
            "certs.0: reference $env://NO_SUCH_CERT",
        ),
        (
            client(", crl: \"$env://NO_SUCH_CRL\""),
            "client.crl: reference $env://NO_SUCH_CRL",
        ),
    ];
    let names: Vec<_> = (0..cases.len()).map(|n| format!("{n}.test")).collect();
    let mut items: Vec<_> = cases
        .iter()
        .zip(&names)
        .map(|((more, _), name)| {
            let issued = certs::server(&authority, &[name]);
            item(name, &[name], &issued, more)
        })
        .collect();
    // Served, though its certificate does not cover the name.
    let apart = certs::server(&authority, &["another.test"]);
    items.push(item("apart", &["apart.test"], &apart, ""));
    let gateway = Gateway::builder()
        .resources(resources(&upstream, &items))
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    for ((_, said), name) in cases.iter().zip(&names) {
        assert_alert(&s_client(gateway.https(), &["-servername", name]), 80);
        assert!(gateway.log().contains(said), "{name}: {said}");
    }
    let shown = subject(gateway.https(), "apart.test");
    assert_eq!(shown.as_deref(), Some("another.test"));
    let said = "the certificate does not cover apart.test";
    assert!(gateway.log().contains(said), "{said}");
}

#[test]
fn a_new_certificate_is_for_new_handshakes_and_cuts_no_connection() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let with = |issued: &Issued| resources(&upstream, &[item("a", &["a.test"], issued, "")]);
    let gateway = Gateway::start(with(&certs::server(&authority, &["a.test"])));
    let connect = || Connection::open_tls(gateway.https(), "a.test", &ca).expect("served");
    let mut kept = connect();
    let first = kept.certificate();
    gateway.write_resources(&with(&certs::server(&authority, &["a.test"])));
    wait_until("new handshakes get the new certificate", || {
        connect().certificate() != first
    });
    kept.request("GET", "/", &[("Host", "a.test")]);
    assert_eq!(kept.expect_reply().status, 200);
    // A pair whose halves do not fit changes nothing.
    let second = connect().certificate();
    let torn = Issued {
        key_pem: certs::server(&authority, &["a.test"]).key_pem,
        ..certs::server(&authority, &["a.test"])
    };
    gateway.write_resources(&with(&torn));
    wait_until("the torn pair is reported", || {
        gateway.log().contains("the last good pair serves on")
    });
    assert_eq!(connect().certificate(), second);
}

#[test]
fn the_end_of_a_certificate_is_on_the_metrics_page() {
    let options = LeafOptions {
        ends_in_secs: 1000,
        ..LeafOptions::default()
    };
    let issued = Authority::new()
        .unwrap()
        .issue(&["a.test"], &options)
        .unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream, &[item("a", &["a.test"], &issued, "")]));
    let page = gateway.metrics_page();
    let samples: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("claviger_certificate_expiry_seconds{"))
        .collect();
    let [sample] = samples[..] else {
        panic!("{samples:?}");
    };
    assert!(
        sample.contains("ssl=\"a\"") && sample.contains("sni=\"a.test\""),
        "{sample}"
    );
    let end: f64 = sample.rsplit(' ').next().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let left = end - now.as_secs_f64();
    assert!((900.0..=1000.0).contains(&left), "{left}");
    assert!(
        gateway
            .log()
            .contains("ssls/a cert: the certificate expires on ")
    );
}

#[test]
fn pairs_come_from_references() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let [env, file] = ["env.test", "file.test"].map(|name| certs::server(&authority, &[name]));
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .bootstrap("nginx_config: { envs: [CERT, KEY] }")
        .env("CERT", &env.cert_pem)
        .env("KEY", certs::key_text(&env))
        .file("secrets/tls.crt", &file.cert_pem)
        .file("secrets/tls.key", certs::key_text(&file));
    let folder = builder.dir().join("secrets");
    let items = "  - { id: e, sni: env.test, cert: $env://CERT, key: $env://KEY }
  - id: f
    sni: file.test
    cert: $secret://file/main/tls.crt
    key: $secret://file/main/tls.key
"
    .to_owned();
    let secrets = format!(
        "secrets:\n  - {{ id: file/main, path: {} }}\n",
        folder.display()
    );
    let gateway = builder
        .resources(secrets + &resources(&upstream, &[items]))
        .start();
    for name in ["env.test", "file.test"] {
        let mut tls = Connection::open_tls(gateway.https(), name, &ca).expect("served");
        tls.request("GET", "/", &[("Host", name)]);
        assert_eq!(tls.expect_reply().status, 200);
    }
    fs::remove_file(folder.join("tls.key")).unwrap();
    assert!(subject(gateway.https(), "env.test").is_some());
}
