//! `gcp` against a real `drongo` behind a guard that wants what Google wants, and against servers
//! that answer as Google does when it refuses.

mod answers;
mod fields;
mod gateway;
mod logins;

use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, SystemClock};
use claviger::secrets::manager::{
    BuildCtx, BuildError, FetchError, FieldValue, Fields, Location, MANAGERS, Manager, Presence,
    Read,
};
use claviger::secrets::{Event, Observer};
use serde_json::{Value, json};

use super::{Backend, Told, conformance};
use crate::harness::google::Role;
use crate::harness::{Drongo, Google, Relay, Relaying};

const EMAIL: &str = "gateway@test-project.iam.gserviceaccount.com";

/// Servers and an account.
pub struct Cloud {
    pub drongo: Drongo,
    pub google: Google,
    /// Key of [`EMAIL`], as Google hands it out.
    pub key: Value,
}

impl Cloud {
    pub async fn start() -> Self {
        let drongo = Drongo::start().await;
        let google = Google::start(&drongo);
        let key = google.account(EMAIL);
        Self {
            drongo,
            google,
            key,
        }
    }

    pub fn entries_uri(&self) -> String {
        format!("{}/v1", self.google.uri())
    }

    /// Fields of an item with the key inline.
    pub fn fields(&self) -> Value {
        self.fields_at(&self.entries_uri())
    }

    fn fields_at(&self, entries_uri: &str) -> Value {
        let mut account = json!({ "entries_uri": entries_uri });
        for name in ["client_email", "private_key", "project_id", "token_uri"] {
            account[name] = self.key[name].clone();
        }
        json!({ "auth_config": account })
    }
}

struct SecretManager {
    cloud: Cloud,
    relay: Relay,
}

/// Names of secrets have no slashes.
fn name(path: &str) -> String {
    path.replace('/', "_")
}

impl Backend for SecretManager {
    fn id(&self) -> &'static str {
        "gcp/main"
    }

    fn fields(&self) -> Value {
        self.cloud.fields_at(&format!("{}/v1", self.relay.uri()))
    }

    async fn put(&self, path: &str, fields: Value) {
        let value = fields.to_string();
        self.cloud.drongo.put(&name(path), value.as_bytes()).await;
    }

    async fn delete(&self, path: &str) {
        self.cloud.drongo.set_newest(&name(path), "disable").await;
    }

    async fn undelete(&self, path: &str, _fields: Value) {
        self.cloud.drongo.set_newest(&name(path), "enable").await;
    }

    async fn go_down(&mut self) {
        self.relay.set(Relaying::Close);
    }

    fn at(&self, path: &str, field: &str) -> String {
        format!("{}/{field}", name(path))
    }

    fn any_names(&self) -> bool {
        false
    }

    async fn put_binary(&self, path: &str, bytes: &[u8]) -> String {
        self.cloud.drongo.put(&name(path), bytes).await;
        name(path)
    }

    async fn forbid(&self, path: &str) -> bool {
        self.cloud.google.forbid(&name(path));
        true
    }

    async fn allow(&self, path: &str) {
        self.cloud.google.allow(&name(path));
    }

    fn relay(&self) -> Option<&Relay> {
        Some(&self.relay)
    }

    fn deleted(&self) -> &'static str {
        "document version is deleted"
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secret_manager_conforms() {
    let cloud = Cloud::start().await;
    let relay = Relay::start(&cloud.google.uri(), Relaying::Pass);
    conformance(SecretManager { cloud, relay }).await;
}

/// A manager by itself, and what it told.
fn manager(fields: Value) -> (Box<dyn Manager>, Arc<Told>) {
    let told = Arc::new(Told::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let built = build(fields, &told, &clock);
    (built.expect("fields must be accepted"), told)
}

fn build(
    fields: Value,
    told: &Arc<Told>,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn Manager>, BuildError> {
    let observer: Arc<dyn Observer> = Arc::clone(told) as _;
    let ctx = BuildCtx {
        id: &"gcp/main".into(),
        clock,
        trusted_ca: None,
        observer: &observer,
    };
    let def = MANAGERS.iter().find(|def| def.name == "gcp").unwrap();
    (def.build)(&Fields::new(fields), &ctx)
}

fn events(told: &Told) -> Vec<Event> {
    let events = told.events.lock().unwrap();
    events.iter().map(|(_, event)| event.clone()).collect()
}

fn read<'a>(path: &'a str, version: Option<&'a str>, fields: &'a [Arc<str>]) -> Read<'a> {
    Read {
        path,
        version,
        fields,
    }
}

async fn value(manager: &dyn Manager, path: &str, version: Option<&str>, field: &str) -> String {
    let wanted = [Arc::from(field)];
    match manager.fetch(read(path, version, &wanted)).await {
        Ok(document) => match document.field(field) {
            Some(FieldValue::Text(secret)) => String::from_utf8_lossy(secret.expose()).into_owned(),
            Some(FieldValue::Other(what)) => what.to_owned(),
            None => "field not found".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

const LOGGED_IN: Event = Event::LoggedIn {
    method: "service_account",
};

/// Polls until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_key_is_split_at_its_first_slash() {
    let (manager, _) = manager(json!({"metadata_uri": "http://127.0.0.1:1"}));
    let locate = |rest: &str| {
        use claviger::secrets::reference::{Reference, Target};
        let reference = Reference::parse(&format!("$secret://gcp/main/{rest}")).unwrap();
        let Target::Managed(key) = reference.target() else {
            panic!("must be a manager's")
        };
        manager.locate(key).map_err(|error| error.to_string())
    };
    for (rest, path, field) in [
        ("db", "db", ""),
        ("db/password", "db", "password"),
        ("db/pass/word", "db", "pass/word"),
        ("db#pass/word", "db", "pass/word"),
        ("db/password?version=7", "db", "password"),
        ("db?version=prod", "db", ""),
    ] {
        let expected = Location {
            path: path.into(),
            field: field.into(),
        };
        assert_eq!(locate(rest), Ok(expected), "{rest}");
    }
    assert_eq!(
        locate("a/b#c"),
        Err("error key format, key: a/b".to_owned())
    );
    for rest in ["db?version=..", "db?version=1.2"] {
        let error = locate(rest).unwrap_err();
        assert_eq!(
            error,
            "error format: version of a gcp secret is a number or an alias"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_read_and_probed_without_a_value() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", br#"{"k":"one"}"#).await;
    cloud.drongo.put("db", br#"{"k":"two"}"#).await;
    cloud.drongo.put("plain", b"42").await;
    let (manager, _) = manager(cloud.fields());
    for (path, version, field, expected) in [
        ("db", None, "k", "two"),
        ("db", None, "", r#"{"k":"two"}"#),
        ("db", Some("latest"), "k", "two"),
        ("db", Some("1"), "k", "one"),
        ("db", Some("3"), "k", "document not found"),
        ("plain", None, "", "42"),
        ("plain", None, "k", "value is not a JSON object"),
        ("nowhere", None, "", "document not found"),
        ("sp ace", None, "", "document not found"),
    ] {
        let found = value(&*manager, path, version, field).await;
        assert_eq!(found, expected, "{path} {version:?} {field}");
    }
    let wanted = [Arc::from("k")];
    let document = manager.fetch(read("db", None, &wanted)).await.unwrap();
    assert_eq!(document.version.as_deref(), Some("2"));

    // Who may look and not read, and who may read and not look.
    let there = |version: &str| Presence {
        fields: None,
        version: Some(version.into()),
    };
    cloud.google.set_role(Role::Viewer);
    let refused = manager.fetch(read("db", None, &wanted)).await.map(drop);
    assert_eq!(refused, Err(FetchError::Forbidden));
    let probe = |path, version| manager.probe(read(path, version, &wanted));
    assert_eq!(probe("db", None).await, Ok(there("2")));
    assert_eq!(probe("db", Some("1")).await, Ok(there("1")));
    assert_eq!(probe("nowhere", None).await, Err(FetchError::NotFound));
    cloud.drongo.set_newest("db", "destroy").await;
    assert_eq!(probe("db", None).await, Err(FetchError::Deleted));
    let gone = value(&*manager, "db", Some("1"), "k").await;
    assert_eq!(gone, "forbidden by the manager");

    cloud.google.set_role(Role::Accessor);
    assert_eq!(probe("db", None).await, Err(FetchError::Deleted));
    let found = probe("db", Some("1")).await.unwrap();
    assert!(found.fields.is_some_and(|fields| fields.contains_key("k")));
    cloud.google.forbid("db");
    assert_eq!(probe("db", Some("1")).await, Err(FetchError::Forbidden));
}
