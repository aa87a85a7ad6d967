//! Probes: whether references would resolve, asked with a token that may not read a value.

use std::collections::BTreeSet;
use std::sync::Arc;

use claviger::secrets::manager::Step;
use serde_json::json;

use super::*;

/// What is said of each: the version, or the step and the reason.
async fn probed(room: &Room, rests: &[&str]) -> Vec<Result<String, (Option<Step>, String)>> {
    let references = rests.iter().map(|rest| format!("$secret://{ID}/{rest}"));
    let references: BTreeSet<Arc<str>> = references.map(Into::into).collect();
    assert_eq!(references.len(), rests.len());
    let reports = room.secrets.probe(&references).await;
    let of = |rest: &&str| {
        let reference = format!("$secret://{ID}/{rest}");
        let mut found = reports.iter().filter(|one| *one.reference == *reference);
        let report = found.next().expect("must be reported");
        match &report.result {
            Ok(_) => Ok(report.version.as_deref().unwrap_or_default().to_owned()),
            Err(fault) => Err((fault.step, fault.why.to_string())),
        }
    };
    rests.iter().map(of).collect()
}

fn refused(step: Step, why: &str) -> Result<String, (Option<Step>, String)> {
    Err((Some(step), why.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_are_told_without_the_right_to_read_a_value() {
    let bao = dev().await;
    bao.put_v2(
        "apisix/a",
        json!({"k": "v", "obj": {"x": {"y": 1}}, "n": 1}),
    )
    .await;
    bao.put_v2("apisix/gone", json!({"k": "v"})).await;
    bao.delete_v2("apisix/gone").await;
    let rules = r#"path "secret/subkeys/*" { capabilities = ["read"] }
        path "secret/metadata/*" { capabilities = ["read"] }"#;
    let token = bao.token_with("prober", rules).await;
    let room = room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": token}));
    let forbidden = "forbidden by the manager: no policy of our token lets it read \
                     secret/data/apisix/a";
    assert_eq!(
        value(&room).await,
        Err(forbidden.to_owned()),
        "it may read no value"
    );
    let asked = [
        "a/k",
        "a/n",
        "a/k?version=1",
        "a/nope",
        "a/obj",
        "gone/k",
        "none/k",
    ];
    let expected = [
        Ok("2".to_owned()),
        Ok("2".to_owned()),
        Ok("1".to_owned()),
        refused(Step::Field, "field not found"),
        refused(Step::Shape, "value is an object"),
        refused(Step::Path, "document version is deleted"),
        refused(Step::Path, "document not found"),
    ];
    assert_eq!(probed(&room, &asked).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_that_is_not_to_be_had_the_document_is_read_and_forgotten() {
    let bao = dev().await;
    bao.put_v1("apisix/a", json!({"k": "v", "flag": true}))
        .await;
    let token = bao.token_with("reader", READER).await;
    let room = room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": token}));
    assert_eq!(value(&room).await, found("v"));
    assert_eq!(probed(&room, &["a/k"]).await, [Ok("1".to_owned())]);

    let room = room_of(json!({"uri": bao.addr, "prefix": "kv1/apisix", "token": bao.token}));
    assert_eq!(value(&room).await, found("v"));
    let expected = [
        Ok(String::new()),
        refused(Step::Shape, "value is a boolean"),
    ];
    assert_eq!(probed(&room, &["a/k", "a/flag"]).await, expected);

    let none = bao
        .token_with(
            "none",
            r#"path "secret/data/x" { capabilities = ["read"] }"#,
        )
        .await;
    let room = room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": none}));
    assert!(value(&room).await.is_err());
    let forbidden = "forbidden by the manager: no policy of our token lets it read \
                     secret/data/apisix/a";
    assert_eq!(
        probed(&room, &["a/k"]).await,
        [refused(Step::Policy, forbidden)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_logs_in_and_says_when_it_cannot() {
    let bao = dev().await;
    let role_id = app_role(&bao, json!({})).await;
    let secret_id = secret_id(&bao).await;
    for (secret_id, expected) in [
        (secret_id.as_str(), Ok("1".to_owned())),
        (
            "wrong",
            refused(
                Step::Login,
                "login failed: approle at auth/approle does not accept role_id and secret_id \
                 (status 400)",
            ),
        ),
    ] {
        let auth = json!({"method": "approle", "role_id": role_id, "secret_id": secret_id});
        let room = room_of(fields(&bao.addr, auth));
        room.ensure(&[]).await;
        assert_eq!(probed(&room, &["a/k"]).await, [expected]);
    }
}
