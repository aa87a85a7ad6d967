//! What stands in a KV engine: versions, deletions, namespaces, policies.

use std::time::Duration;

use claviger::secrets::ReferenceState;
use serde_json::{Value, json};

use super::super::text;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_are_read_when_asked_for_and_deleted_ones_are_gone() {
    let bao = OpenBao::start().await;
    bao.put_v2("apisix/a", json!({"k": "first"})).await;
    bao.put_v2("apisix/a", json!({"k": "second"})).await;
    let room = room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": bao.token}));
    let [newest, first, ninth, word] =
        ["", "?version=1", "?version=9", "?version=x"].map(|query| format!("{REFERENCE}{query}"));
    let view = room.ensure(&[&newest, &first, &ninth, &word]).await;
    assert_eq!(text(&view, &newest), found("second"));
    assert_eq!(text(&view, &first), found("first"));
    assert_eq!(text(&view, &ninth), Err("document not found".to_owned()));
    assert!(text(&view, &word).unwrap_err().contains("is a number"));

    bao.delete_v2("apisix/a").await;
    let deleted = Err("document version is deleted");
    room.until(&newest, deleted).await;
    assert_eq!(text(&room.secrets.view(), &first), found("first"));
    let second = json!({"versions": [2]});
    bao.call("POST", "secret/undelete/apisix/a", second.clone())
        .await;
    room.until(&newest, Ok("second")).await;
    bao.call("PUT", "secret/destroy/apisix/a", second).await;
    room.until(&newest, deleted).await;
    bao.put_v2("apisix/a", json!({"k": "third"})).await;
    room.until(&newest, Ok("third")).await;
    bao.call("DELETE", "secret/metadata/apisix/a", Value::Null)
        .await;
    room.until(&newest, Err("document not found")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_token_that_may_not_read_ends_the_value_and_a_dead_token_does_not() {
    let bao = dev().await;
    let living = bao.token_with("living", READER).await;
    let dying = bao.token_with("dying", READER).await;
    // Not even `lookup-self`: who is told from a dead token by the server's words.
    let narrow = json!({"policies": ["living"], "no_default_policy": true});
    let narrow = token(&bao, narrow).await;
    let rooms = [&living, &narrow, &dying]
        .map(|token| room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": token})));
    for room in &rooms {
        assert_eq!(value(room).await, found("v"));
    }
    bao.revoke(&dying).await;
    let elsewhere = r#"path "secret/data/other" { capabilities = ["read"] }"#;
    bao.policy("living", elsewhere).await;
    let forbidden =
        "forbidden by the manager: no policy of our token lets it read secret/data/apisix/a";
    for room in &rooms[..2] {
        room.until(REFERENCE, Err(forbidden)).await;
    }
    assert!(rooms[2].failures(3).await.iter().eq(["login"].iter()));
    assert_eq!(text(&rooms[2].secrets.view(), REFERENCE), found("v"));
    assert_eq!(rooms[2].state(REFERENCE), ReferenceState::Stale);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_a_place_of_its_own() {
    let bao = dev().await;
    bao.call("POST", "sys/namespaces/team-a", json!({})).await;
    let inside = ("X-Vault-Namespace", "team-a");
    let kv = json!({"type": "kv", "options": {"version": "2"}});
    bao.call_with(inside, "sys/mounts/secret", kv).await;
    // Version 2 is set up after the mount is there.
    let written = async || {
        let document = json!({"data": {"k": "inside"}});
        let written = bao.try_call_with(inside, "secret/data/apisix/a", document);
        written.await.is_ok_and(|(status, _)| status == 200)
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !written().await {
        assert!(
            std::time::Instant::now() < deadline,
            "namespace must take a document"
        );
    }
    for (namespace, expected) in [
        (json!(null), found("v")),
        (json!("team-a"), found("inside")),
        (json!("team-b"), Err("namespace not found".to_owned())),
    ] {
        let room = room_of(json!({
            "uri": bao.addr, "prefix": "secret/apisix", "token": bao.token,
            "namespace": namespace, "kv_version": 2,
        }));
        assert_eq!(value(&room).await, expected, "{namespace}");
    }
    let room = room_of(json!({"uri": bao.addr, "prefix": "nowhere/x", "token": bao.token}));
    assert_eq!(value(&room).await, Err("mount not found".to_owned()));
}
