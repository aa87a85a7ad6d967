//! A token's life: renewed, replaced before it ends, found dead. Reads go on meanwhile.

use claviger::secrets::ReferenceState;
use serde_json::json;

use super::super::text;
use super::*;
use crate::harness::{Relay, Relaying};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_it_ends_and_no_read_fails() {
    let bao = dev().await;
    let short = token(&bao, json!({"policies": ["reader"], "ttl": "2s"})).await;
    let room = room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": short}));
    assert_eq!(value(&room).await, found("v"));
    until(&room, "three renewals", || renewals(&room) >= 3).await;
    assert_eq!(failed_reads(&room), Vec::<&str>::new());
    assert_eq!(logins(&room, "token"), 1);
    let report = room.secrets.manager_report();
    let login = report[0].login.expect("must be logged in");
    let left = login.left.expect("it ends");
    assert!(left <= Duration::from_secs(2), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_longest_life_is_over_another_login_takes_over_and_no_read_fails() {
    let bao = dev().await;
    let lives = json!({"token_ttl": "2s", "token_max_ttl": "3s"});
    let role_id = app_role(&bao, lives).await;
    let secret_id = secret_id(&bao).await;
    let auth = json!({"method": "approle", "role_id": role_id, "secret_id": secret_id});
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let room = room_of(fields(&relay.uri(), auth));
    assert_eq!(value(&room).await, found("v"));
    until(&room, "three logins", || logins(&room, "approle") >= 3).await;
    assert!(renewals(&room) >= 1, "{:?}", room.events(ID));
    assert_eq!(failed_reads(&room), Vec::<&str>::new());
    assert!(reads(&room) >= 6);
    assert_eq!(failures(&room), Vec::<String>::new());
    // Each read asked once: none found its token dead.
    let is_read = |path: &&String| path.starts_with("/v1/secret/data/");
    let asked = relay.paths().iter().filter(is_read).count();
    assert!(asked <= reads(&room) + 1, "{asked} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_tokens_and_tokens_that_may_do_nothing_else_are_replaced_too() {
    let bao = dev().await;
    // A batch token cannot be renewed; the other may neither renew nor look itself up.
    let role_id = app_role(&bao, json!({"token_ttl": "2s", "token_type": "batch"})).await;
    let other = json!({"token_policies": "reader", "token_ttl": "2s",
        "token_no_default_policy": true});
    bao.call("POST", "auth/approle/role/narrow", other).await;
    let read = async |path: &str| bao.call("GET", path, serde_json::Value::Null).await;
    let narrow_id = read("auth/approle/role/narrow/role-id").await["data"]["role_id"].clone();
    let made = bao
        .call("POST", "auth/approle/role/narrow/secret-id", json!({}))
        .await;
    let rooms = [
        (json!(role_id), json!(secret_id(&bao).await)),
        (narrow_id, made["data"]["secret_id"].clone()),
    ]
    .map(|(role_id, secret_id)| {
        let auth = json!({"method": "approle", "role_id": role_id, "secret_id": secret_id});
        room_of(fields(&bao.addr, auth))
    });
    for room in &rooms {
        assert_eq!(value(room).await, found("v"));
    }
    for room in &rooms {
        until(room, "three logins", || logins(room, "approle") >= 3).await;
        assert_eq!(failed_reads(room), Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_replaced_within_the_read_that_finds_it_out() {
    let bao = dev().await;
    let role_id = app_role(&bao, json!({})).await;
    let secret_id = secret_id(&bao).await;
    let auth = json!({"method": "approle", "role_id": role_id, "secret_id": secret_id});
    let room = room_of(fields(&bao.addr, auth));
    assert_eq!(value(&room).await, found("v"));
    for nth in 2..4 {
        revoke_logins(&bao).await;
        bao.put_v2("apisix/a", json!({"k": format!("v{nth}")}))
            .await;
        room.until(REFERENCE, Ok(&format!("v{nth}"))).await;
        assert_eq!(logins(&room, "approle"), nth);
    }
    assert_eq!(failed_reads(&room), Vec::<&str>::new());

    // Nothing to log in with any more: the manager is at fault, the value serves on.
    let role = "auth/approle/role/gateway";
    bao.call("DELETE", role, serde_json::Value::Null).await;
    revoke_logins(&bao).await;
    assert!(room.failures(3).await.contains("login"));
    assert_eq!(text(&room.secrets.view(), REFERENCE), found("v3"));
    assert_eq!(room.state(REFERENCE), ReferenceState::Stale);
    assert!(failures(&room)[0].contains("does not accept role_id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_renewed_is_warned_of_and_its_values_outlive_it() {
    let bao = dev().await;
    let ending = json!({"policies": ["reader"], "ttl": "3s", "renewable": false});
    let ending = token(&bao, ending).await;
    let room = room_of(json!({"uri": bao.addr, "prefix": "secret/apisix", "token": ending}));
    assert_eq!(value(&room).await, found("v"));
    until(&room, "a warning", || !failures(&room).is_empty()).await;
    assert_eq!(
        failed_reads(&room),
        Vec::<&str>::new(),
        "it is warned of before"
    );
    let why = &failures(&room)[0];
    assert!(
        why.starts_with("token ends in ") && why.ends_with("cannot be renewed"),
        "{why}"
    );
    assert!(room.failures(2).await.contains("login"));
    assert_eq!(text(&room.secrets.view(), REFERENCE), found("v"));
    room.until_state(REFERENCE, ReferenceState::Stale).await;
    let last = failures(&room).pop();
    assert_eq!(last.as_deref(), Some("manager does not accept our token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_ends_no_login_and_a_restart_heals_by_itself() {
    let mut bao = OpenBao::start_server().await;
    furnish(&bao).await;
    let role_id = app_role(&bao, json!({"token_ttl": "60s"})).await;
    let secret_id = secret_id(&bao).await;
    let auth = json!({"method": "approle", "role_id": role_id, "secret_id": secret_id});
    let room = room_of(fields(&bao.addr, auth));
    assert_eq!(value(&room).await, found("v"));
    bao.seal().await;
    assert!(room.failures(2).await.contains("sealed"));
    bao.restart().await;
    room.until_state(REFERENCE, ReferenceState::Stale).await;
    bao.unseal().await;
    bao.put_v2("apisix/a", json!({"k": "healed"})).await;
    room.until(REFERENCE, Ok("healed")).await;
    assert_eq!(logins(&room, "approle"), 1, "tokens are kept by the server");
}
