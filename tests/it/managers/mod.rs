//! One conformance suite that every secret manager passes, through [`Backend`]; what is a
//! manager's own stands in its file.

mod env;
mod file;
mod vault;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::clock::SystemClock;
use claviger::secrets::{
    ManagerProblem, ManagerSpec, ReferenceState, Secret, Secrets, SecretsSettings, View,
};
use serde_json::Value;
use tokio::sync::watch;

/// Where a manager's secrets are kept, seen from the side that writes them.
pub trait Backend {
    /// Kind and name of the item.
    fn id(&self) -> &'static str;
    /// Fields of the item that reads from here.
    fn fields(&self) -> Value;
    /// Writes a document.
    async fn put(&self, path: &str, fields: Value);
    /// Deletes it.
    async fn delete(&self, path: &str);
    /// Makes the place unreadable.
    async fn go_down(&mut self);
    /// Why a reference is unresolved whose document is not there.
    fn no_document(&self) -> &'static str {
        "document not found"
    }
}

/// The room with its loop running.
pub struct Room {
    pub secrets: Arc<Secrets>,
    _shutdown: watch::Sender<bool>,
}

impl Room {
    pub fn new(ttl: Duration, neg_ttl: Duration) -> Self {
        Self::with(SecretsSettings {
            ttl,
            neg_ttl,
            env: vec![(
                "TEST_TOKEN".to_owned(),
                Secret::from(" from-env\n".to_owned()),
            )],
            ..SecretsSettings::default()
        })
    }

    pub fn with(settings: SecretsSettings) -> Self {
        let secrets = Secrets::new(settings, Arc::new(SystemClock), Arc::new(()));
        let (shutdown, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&secrets).run(stopped));
        Self {
            secrets,
            _shutdown: shutdown,
        }
    }

    pub fn configure(&self, id: &str, fields: Value) -> Vec<ManagerProblem> {
        self.secrets.configure(&[ManagerSpec {
            id: id.into(),
            kind: id.split('/').next().unwrap_or_default().to_owned(),
            fields,
        }])
    }

    pub async fn ensure(&self, references: &[&str]) -> View {
        let references: BTreeSet<Arc<str>> = references.iter().map(|text| (*text).into()).collect();
        self.secrets
            .ensure(&references, Duration::from_secs(10))
            .await
    }

    /// Waits until the reference is worth what is expected.
    pub async fn until(&self, reference: &str, expected: Result<&str, &str>) {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let view = self.secrets.view();
            let now = text(&view, reference);
            if now.as_deref().map_err(String::as_str) == expected {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{reference} is {now:?}, not {expected:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn state(&self, reference: &str) -> ReferenceState {
        let report = self.secrets.report();
        report
            .iter()
            .find(|one| &*one.reference == reference)
            .unwrap()
            .state
    }
}

/// Value or reason, as text.
pub fn text(view: &View, reference: &str) -> Result<String, String> {
    match view.resolve(reference) {
        Ok(resolved) => Ok(resolved.value.expose_str().unwrap().to_owned()),
        Err(unresolved) => Err(unresolved.to_string()),
    }
}

/// Everything a manager must do with documents.
pub async fn conformance(mut backend: impl Backend) {
    let room = Room::new(Duration::from_millis(500), Duration::from_millis(400));
    assert_eq!(
        room.configure(backend.id(), backend.fields()),
        [],
        "fields must be accepted"
    );
    let at = |rest: &str| format!("$secret://{}/{rest}", backend.id());

    let large = "x".repeat(1024 * 1024 - 64);
    let pem = "-----BEGIN X-----\nYQ==\n-----END X-----\n";
    backend
        .put(
            "edge/tls",
            serde_json::json!({"key": "one", "other": "two", "pem": pem, "uni": "пароль 🔑",
                "a/b": "slash", "n": 42, "flag": true, "none": null, "obj": {"x": "y"},
                "list": ["x"], "empty": "", "b64": "Zm9v"}),
        )
        .await;
    backend
        .put("deep/er/than/two", serde_json::json!({"k": "deep"}))
        .await;
    backend
        .put("sp ace/100%/ключ", serde_json::json!({"k": "odd"}))
        .await;
    backend.put("large", serde_json::json!({"k": large})).await;

    let expected = [
        ("edge/tls/key", Ok("one")),
        ("edge/tls/other", Ok("two")),
        ("edge/tls/pem", Ok(pem)),
        ("edge/tls/uni", Ok("пароль 🔑")),
        ("edge/tls#a/b", Ok("slash")),
        ("edge/tls#key", Ok("one")),
        ("edge/tls/n", Ok("42")),
        ("edge/tls/b64?decode=base64", Ok("foo")),
        ("edge/tls/key?decode=base64", Err("value is not base64")),
        ("edge/tls/flag", Err("value is a boolean")),
        ("edge/tls/none", Err("value is null")),
        ("edge/tls/obj", Err("value is an object")),
        ("edge/tls/list", Err("value is an array")),
        ("edge/tls/empty", Err("value is empty")),
        ("edge/tls/nowhere", Err("field not found")),
        ("edge/absent/key", Err(backend.no_document())),
        ("deep/er/than/two/k", Ok("deep")),
        ("sp ace/100%/ключ/k", Ok("odd")),
        ("large/k", Ok(&large)),
        (
            "edge/../tls/key",
            Err("error format: '.' or '..' segment in secret key"),
        ),
    ];
    let references: Vec<String> = expected.iter().map(|(rest, _)| at(rest)).collect();
    let view = room
        .ensure(&references.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    for (reference, (_, expected)) in references.iter().zip(expected) {
        let found = text(&view, reference);
        assert!(
            found.as_deref().map_err(String::as_str) == expected,
            "{reference}"
        );
    }

    // A rotated value is live by itself; one that did not change keeps its version.
    let (key, deep) = (at("edge/tls/key"), at("deep/er/than/two/k"));
    let before = view.resolve(&key).unwrap().version;
    let deep_before = view.resolve(&deep).unwrap().version;
    let mut changed = room.secrets.changed();
    changed.mark_unchanged();
    backend
        .put("edge/tls", serde_json::json!({"key": "rotated"}))
        .await;
    room.until(&key, Ok("rotated")).await;
    assert!(changed.has_changed().unwrap(), "a rotation is announced");
    let view = room.secrets.view();
    assert!(view.resolve(&key).unwrap().version > before);
    assert_eq!(view.resolve(&deep).unwrap().version, deep_before);

    // What is deleted ends, what appears begins, both without being asked.
    backend.delete("deep/er/than/two").await;
    room.until(&deep, Err(backend.no_document())).await;
    backend
        .put("edge/absent", serde_json::json!({"key": "appeared"}))
        .await;
    room.until(&at("edge/absent/key"), Ok("appeared")).await;

    // An outage: known values stay, and are called stale.
    backend.go_down().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(text(&room.secrets.view(), &key), Ok("rotated".to_owned()));
    assert_eq!(room.state(&key), ReferenceState::Stale);
}
