//! Generations of certificates: each is rehearsed before it is served, a failing one waits in
//! quarantine, and a storm of them fails no handshake.

mod issue;
mod storm;
#[path = "../../../src/tls/rehearsal/weak.rs"]
mod weak;

use claviger::tls::dev::{Authority, LeafOptions};
use serde_json::json;

use super::*;
use crate::harness::Connection;

/// Two halves as one document of the `file` manager.
fn document(cert: &str, key: &str) -> String {
    json!({ "cert": cert, "key": key }).to_string()
}

fn weak_document() -> String {
    let (cert, key) = weak::small_ca();
    document(
        std::str::from_utf8(&cert).unwrap(),
        std::str::from_utf8(&key).unwrap(),
    )
}

#[test]
fn a_generation_that_fails_its_rehearsal_waits_in_quarantine() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder();
    let folder = builder.dir().join("secrets");
    let item = |id: &str| {
        format!(
            "  - {{ id: {id}, sni: {id}.test, cert: $secret://file/main/{id}/cert, \
             key: $secret://file/main/{id}/key }}\n"
        )
    };
    let good = |name: &str| {
        let issued = certs::server(&authority, &[name]);
        document(&issued.cert_pem, certs::key_text(&issued))
    };
    let manager = format!(
        "secrets:\n  - {{ id: file/main, path: {} }}\n",
        folder.display()
    );
    let resources = manager + &resources(&upstream, &[item("a"), item("b")]);
    let gateway = builder
        .file("secrets/a.json", good("a.test"))
        .file("secrets/b.json", weak_document())
        .resources(resources)
        .start();
    let shown = || {
        let connection = Connection::open_tls(gateway.https(), "a.test", &ca);
        connection.expect("served").certificate()
    };
    let first = shown();
    // With nothing before it, an item that cannot be served refuses, and it alone.
    assert_alert(&s_client(gateway.https(), &["-servername", "b.test"]), 80);
    let said = "ca key too small; its names refuse handshakes";
    assert!(gateway.log().contains(said));
    assert_eq!(gateway.metric("claviger_tls_quarantined"), Some(0.0));

    gateway.write_file("secrets/a.json", weak_document());
    wait_until("the bad generation is in quarantine", || {
        gateway.metric("claviger_tls_quarantined") == Some(1.0)
    });
    assert_eq!(shown(), first);
    let log = gateway.log();
    let told = log
        .lines()
        .find(|line| line.contains("the pairs of before serve on"));
    let told = told.expect("the log tells of it");
    for part in [
        "apisix.yaml",
        "ssls/a",
        "cert",
        "openssl refuses the certificate",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }

    gateway.write_file("secrets/a.json", good("a.test"));
    wait_until("the next good one is served", || {
        shown() != first && gateway.metric("claviger_tls_quarantined") == Some(0.0)
    });
    gateway.write_file("secrets/b.json", good("b.test"));
    wait_until("the item that refused serves", || {
        Connection::open_tls(gateway.https(), "b.test", &ca).is_ok()
    });
}

#[test]
fn check_rehearses_too() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let issued = |(cert, key): (Vec<u8>, Vec<u8>)| Issued {
        cert_pem: String::from_utf8(cert).unwrap(),
        key_pem: String::from_utf8(key).unwrap().into(),
    };
    let (weak, torn) = (issued(weak::small_ca()), issued(weak::torn()));
    let ed25519 = LeafOptions {
        key: claviger::tls::dev::KeyKind::Ed25519,
        ..LeafOptions::default()
    };
    let ed25519 = authority.issue(&["e.test"], &ed25519).unwrap();
    let old = "    ssl_protocols: [TLSv1.1]\n";
    let items = [
        item("weak", &["weak.test"], &weak, ""),
        item("torn", &["torn.test"], &torn, ""),
        item("old", &["e.test"], &ed25519, old),
        item(
            "good",
            &["good.test"],
            &certs::server(&authority, &["good.test"]),
            "",
        ),
    ];
    let gateway = Gateway::builder()
        .resources(resources(&upstream, &items))
        .start();
    let resources = gateway.dir().join("apisix.yaml");
    let checked = gateway
        .command(&["check", "--resources", resources.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    for told in [
        "ssls/weak cert: openssl refuses the certificate: ca key too small",
        "ssls/old cert: no TLSv1.1 handshake succeeds: no shared cipher",
        "ssls/torn cert: no TLSv1.2 handshake succeeds: ",
        "3 error(s)",
    ] {
        assert!(said.contains(told), "{told}\n{said}");
    }
}
