//! Python's `ssl` module, which sends the name, checks the certificate, and resumes sessions.

use serde_json::{Value, json};

use super::*;
use crate::harness::tool;

/// What became of each of these connections; the wishes of `tests/clients/tls.py`, with the CA of
/// the names unless one says otherwise.
fn connect(gateway: &Gateway, wishes: &[Value]) -> Vec<Value> {
    let wishes: Vec<_> = wishes
        .iter()
        .map(|wish| {
            let mut wish = wish.clone();
            wish.as_object_mut()
                .unwrap()
                .entry("ca")
                .or_insert_with(|| "ca.pem".into());
            wish
        })
        .collect();
    let mut client = Command::new(tool("python3"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/tls.py"))
        .arg(gateway.https().port().to_string())
        .current_dir(gateway.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed (scripts/setup.sh)");
    let text = Value::from(wishes).to_string();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a list of outcomes")
}

#[test]
fn name_certificate_version_and_protocol_are_as_agreed() {
    let (upstream, gateway) = two_names();
    let told = connect(
        &gateway,
        &[
            json!({ "name": "a.test", "version": "1.2" }),
            json!({ "name": "b.test", "version": "1.3" }),
            json!({ "name": "a.test", "alpn": ["http/1.1"] }),
            json!({ "name": "a.test", "alpn": ["spdy/1", "http/1.1"] }),
            json!({ "name": "a.test", "alpn": ["spdy/1"] }),
        ],
    );
    let expected = [
        ("TLSv1.2", "a.test", json!(null)),
        ("TLSv1.3", "b.test", json!(null)),
        ("TLSv1.3", "a.test", json!("http/1.1")),
        ("TLSv1.3", "a.test", json!("http/1.1")),
        // Nothing in common: served as if it had not asked.
        ("TLSv1.3", "a.test", json!(null)),
    ];
    for (told, (version, name, alpn)) in told.iter().zip(expected) {
        assert_eq!(told["version"], version, "{told}");
        assert_eq!(told["names"], json!([name]), "{told}");
        assert_eq!(told["issuer"], "Claviger development CA", "{told}");
        assert_eq!(told["alpn"], alpn, "{told}");
        assert_eq!(told["status"], "200", "{told}");
        assert_eq!(told["resumed"], false, "{told}");
    }
    assert_eq!(upstream.count(), 5);
}

#[test]
fn what_cannot_be_checked_or_agreed_is_not_served() {
    let (upstream, gateway) = two_names();
    let told = connect(
        &gateway,
        &[
            json!({ "name": "a.test", "ca": "other-ca.pem" }),
            json!({ "name": "c.test" }),
            json!({ "name": "a.test", "version": "1.1" }),
            json!({ "name": "127.0.0.1" }),
        ],
    );
    let unverified = &told[0]["unverified"];
    assert_eq!(
        unverified, "unable to get local issuer certificate",
        "{told:?}"
    );
    let unknown = "TLSV1_UNRECOGNIZED_NAME";
    assert_eq!(told[1]["failed"], unknown, "{told:?}");
    assert_eq!(
        told[2]["failed"], "TLSV1_ALERT_PROTOCOL_VERSION",
        "{told:?}"
    );
    assert_eq!(told[3]["failed"], unknown, "{told:?}");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_certificate_of_another_name_is_refused_by_the_client() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test", "*.w.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let names = ["a.test", "other.test", "*.w.test", "deep.x.w.test"];
    let gateway = Gateway::builder()
        .file("ca.pem", authority.cert_pem().unwrap())
        .resources(resources(&upstream, &[item("a", &names, &issued, "")]))
        .start();
    let asked = ["a.test", "x.w.test", "other.test", "deep.x.w.test"];
    let told = connect(&gateway, &asked.map(|name| json!({ "name": name })));
    for served in &told[..2] {
        assert_eq!(served["status"], "200", "{served}");
    }
    for (refused, name) in told[2..].iter().zip(&asked[2..]) {
        let said = refused["unverified"].as_str().unwrap_or_default();
        assert!(said.starts_with("Hostname mismatch"), "{name}: {refused}");
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn sessions_resume_by_ticket_and_by_cache_for_their_own_name() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test", "b.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let items = ["a.test", "b.test"].map(|name| item(name, &[name], &issued, ""));
    for tickets in [true, false] {
        let gateway = Gateway::builder()
            .file("ca.pem", authority.cert_pem().unwrap())
            .bootstrap(&format!(
                "apisix: {{ ssl: {{ ssl_session_tickets: {tickets} }} }}"
            ))
            .resources(resources(&upstream, &items))
            .start();
        for version in ["1.2", "1.3"] {
            let wish = |name: &str| json!({ "name": name, "version": version });
            let with = |name: &str, earlier: usize| json!({ "name": name, "version": version, "resume": earlier });
            let told = connect(
                &gateway,
                &[
                    wish("a.test"),
                    with("a.test", 0),
                    with("a.test", 1),
                    with("b.test", 0),
                ],
            );
            let resumed: Vec<_> = told.iter().map(|told| &told["resumed"]).collect();
            let named: Vec<_> = told.iter().map(|told| &told["status"]).collect();
            assert_eq!(
                resumed,
                [false, true, true, false],
                "tickets {tickets}, {version}"
            );
            assert_eq!(named, ["200"; 4]);
        }
    }
}

#[test]
fn a_client_certificate_is_presented_where_it_is_asked_for() {
    let (upstream, gateway) = start_mtls();
    for version in ["1.2", "1.3"] {
        let with = |cert: &str| json!({ "name": "m.test", "version": version, "cert": cert });
        let told = connect(
            &gateway,
            &[
                with("good.pem"),
                with("one.pem"),
                with("foreign.pem"),
                with("expired.pem"),
                json!({ "name": "m.test", "version": version }),
                json!({ "name": "o.test", "version": version, "cert": "good.pem" }),
            ],
        );
        for served in [&told[0], &told[1], &told[5]] {
            assert_eq!(served["status"], "200", "{version} {served}");
        }
        for refused in &told[2..5] {
            let reason = refused["failed"].as_str().unwrap_or_default();
            assert!(
                reason.contains("ALERT") || reason.contains("HANDSHAKE"),
                "{version} {refused}"
            );
        }
    }
    assert_eq!(upstream.count(), 6);
}
