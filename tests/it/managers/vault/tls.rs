//! TLS to a real listener, and which step an error names.

use std::time::Duration;

use claviger::tls::dev::{Authority, LeafOptions, Usage};
use serde_json::{Value, json};

use super::super::{Room, text};
use super::*;
use crate::harness::certs;
use crate::harness::openbao::Tls;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_by_the_authority_and_name_it_was_given() {
    let bao = OpenBao::start_tls().await;
    bao.put_v2("apisix/a", json!({"k": "v"})).await;
    let ca = bao.ca();
    let pem = std::fs::read_to_string(&ca).unwrap();
    for (tls, trusted) in [
        (json!({}), false),
        (json!({"ca": ca}), true),
        (json!({"ca": pem}), true),
        (json!({"ca": pem, "server_name": "localhost"}), true),
        (json!({"ca": pem, "server_name": "elsewhere.test"}), false),
        (json!({"verify": false}), true),
    ] {
        let room = Room::new(Duration::from_secs(300), Duration::from_secs(60));
        let fields = json!({
            "uri": bao.addr, "prefix": "secret/apisix", "token": bao.token, "tls": tls,
        });
        assert_eq!(room.configure("vault/main", fields), []);
        let reference = "$secret://vault/main/a/k";
        let found = text(&room.ensure(&[reference]).await, reference);
        assert_eq!(found.is_ok(), trusted, "{tls}: {found:?}");
    }
}

/// Kind of the error of a first read, and its reason.
async fn refusal(fields: Value) -> (Vec<&'static str>, String) {
    let room = room_of(fields);
    let why = value(&room).await.expect_err("must be refused");
    (failed_reads(&room), why)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_names_the_step_that_failed() {
    let authority = Authority::new().unwrap();
    let strangers = Authority::named("Strangers").unwrap();
    let certificate = certs::server(&authority, &["vault.test"]);
    let clients = Authority::named("Clients").unwrap();
    let options = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    let ours = clients.issue(&["gateway"], &options).unwrap();
    let foreign = strangers.issue(&["gateway"], &options).unwrap();
    let bao = OpenBao::start_server_with(Some(Tls {
        certificate: &certificate,
        client_ca: Some(&clients.cert_pem().unwrap()),
        client: Some(&ours),
    }))
    .await;
    furnish(&bao).await;
    let ca = authority.cert_pem().unwrap();
    let with = |uri: &str, tls: Value| json!({"uri": uri, "prefix": "secret/apisix", "token": bao.token, "tls": tls});
    let tls = |issued: &claviger::tls::dev::Issued, name: &str, ca: &str| {
        json!({"ca": ca, "server_name": name, "client_cert": issued.cert_pem,
            "client_key": key_text(&issued.key_pem)})
    };
    let room = room_of(with(&bao.addr, tls(&ours, "vault.test", &ca)));
    assert_eq!(value(&room).await, found("v"));

    let strange = strangers.cert_pem().unwrap();
    let nowhere = format!("http://127.0.0.1:{}", crate::harness::ports::free());
    for (fields, kind, words) in [
        (
            with("http://vault.invalid:8200", json!({})),
            "dns",
            "lookup",
        ),
        (with(&nowhere, json!({})), "unreachable", "refused"),
        (
            with(&bao.addr, tls(&ours, "vault.test", &strange)),
            "tls",
            "certificate verify failed",
        ),
        (
            with(&bao.addr, tls(&ours, "other.test", &ca)),
            "tls",
            "mismatch",
        ),
        (
            with(&bao.addr, tls(&foreign, "vault.test", &ca)),
            "tls",
            "alert",
        ),
        (
            with(&bao.addr, json!({"ca": ca, "server_name": "vault.test"})),
            "tls",
            "certificate required",
        ),
    ] {
        let (kinds, why) = refusal(fields).await;
        assert_eq!(kinds, [kind], "{why}");
        assert!(why.contains(words), "{why}");
        assert!(!why.contains("http"), "{why}");
    }
}
