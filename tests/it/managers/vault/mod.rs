//! `vault` against a real `OpenBao`, and against servers that are anything but.

mod addresses;
mod conformance;
mod documents;
mod fields;
mod life;
mod logins;
mod probe;
mod strangers;
mod tls;

use std::time::Duration;

use claviger::secrets::{Event, Secret};
use serde_json::{Value, json};

use super::{Room, text};
use crate::harness::openbao::OpenBao;

const ID: &str = "vault/main";
const REFERENCE: &str = "$secret://vault/main/a/k";
/// What a gateway may do, and no more.
const READER: &str = r#"path "secret/data/apisix/*" { capabilities = ["read"] }"#;

/// A room that reads often, so that what breaks is seen soon.
fn quick() -> Room {
    Room::new(Duration::from_millis(250), Duration::from_millis(200))
}

/// A room with one manager, of these fields.
fn room_of(fields: Value) -> Room {
    let room = quick();
    assert_eq!(room.configure(ID, fields), [], "fields must be accepted");
    room
}

/// Fields of a manager at this address that logs in so.
fn fields(uri: &str, auth: Value) -> Value {
    json!({"uri": uri, "prefix": "secret/apisix", "auth": auth, "timeout": 3})
}

/// The value of [`REFERENCE`].
async fn value(room: &Room) -> Result<String, String> {
    text(&room.ensure(&[REFERENCE]).await, REFERENCE)
}

fn found(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// A dev server with a document, and with the policy `reader`.
async fn dev() -> OpenBao {
    let bao = OpenBao::start().await;
    furnish(&bao).await;
    bao
}

async fn furnish(bao: &OpenBao) {
    bao.put_v2("apisix/a", json!({"k": "v"})).await;
    bao.policy("reader", READER).await;
}

/// Enables an auth method at its own name.
async fn enable(bao: &OpenBao, method: &str) {
    let path = format!("sys/auth/{method}");
    bao.call("POST", &path, json!({"type": method})).await;
}

/// An AppRole `gateway` for the policy `reader`; returns its `role_id`.
async fn app_role(bao: &OpenBao, settings: Value) -> String {
    enable(bao, "approle").await;
    let mut role = json!({"token_policies": "reader"});
    for (name, value) in settings.as_object().into_iter().flatten() {
        role[name] = value.clone();
    }
    bao.call("POST", "auth/approle/role/gateway", role).await;
    let path = "auth/approle/role/gateway/role-id";
    let answer = bao.call("GET", path, Value::Null).await;
    answer["data"]["role_id"].as_str().unwrap().to_owned()
}

async fn secret_id(bao: &OpenBao) -> String {
    let path = "auth/approle/role/gateway/secret-id";
    let answer = bao.call("POST", path, json!({})).await;
    answer["data"]["secret_id"].as_str().unwrap().to_owned()
}

/// Ends every token that AppRole logins gave.
async fn revoke_logins(bao: &OpenBao) {
    let path = "sys/leases/revoke-prefix/auth/approle/login";
    bao.call("POST", path, json!({})).await;
}

/// A token like that of [`OpenBao::token_with`], with further settings.
async fn token(bao: &OpenBao, settings: Value) -> String {
    let answer = bao.call("POST", "auth/token/create", settings).await;
    answer["auth"]["client_token"].as_str().unwrap().to_owned()
}

fn logins(room: &Room, method: &'static str) -> usize {
    let is_login = |event: &&Event| **event == Event::LoggedIn { method };
    room.events(ID).iter().filter(is_login).count()
}

fn renewals(room: &Room) -> usize {
    let is_renewal = |event: &&Event| matches!(event, Event::Renewed { .. });
    room.events(ID).iter().filter(is_renewal).count()
}

/// Why logins failed, so far.
fn failures(room: &Room) -> Vec<String> {
    let why = |event: Event| match event {
        Event::LoginFailed { why, .. } => Some(why),
        _ => None,
    };
    room.events(ID).into_iter().filter_map(why).collect()
}

/// Waits until a condition about the room holds.
async fn until(room: &Room, what: &str, done: impl Fn() -> bool) {
    let complaint = || format!("{what}: {:?} {:?}", room.events(ID), room.told());
    room.wait(done, complaint).await;
}

/// Kinds of reads that failed, so far.
fn failed_reads(room: &Room) -> Vec<&'static str> {
    let reads = super::lock(&room.told.reads);
    reads.iter().copied().flatten().collect()
}

/// How many reads there were, so far.
fn reads(room: &Room) -> usize {
    super::lock(&room.told.reads).len()
}

fn key_text(secret: &Secret) -> &str {
    secret.expose_str().expect("PEM is ASCII")
}
