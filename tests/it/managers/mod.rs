//! One conformance suite that every secret manager passes, through [`Backend`]; what is a
//! manager's own stands in its file.

mod aws;
mod aws_chain;
mod counting;
mod engine;
mod env;
mod file;
mod forged;
mod gcp;
mod vault;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use claviger::clock::SystemClock;
use claviger::secrets::manager::FetchError;
use claviger::secrets::{
    Event, ManagerProblem, ManagerSpec, Observer, ReferenceReport, ReferenceState, Secret, Secrets,
    SecretsSettings, View,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Relay, Relaying};

/// What can go wrong on the way to a document without the manager's saying anything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No answer within the time limit.
    Slow,
    /// The connection is closed without an answer.
    Closed,
    /// Bytes that are not the protocol's.
    Garbage,
    /// An answer whose end is missing.
    Truncated,
    /// Somebody else's answer: status 200 with a page in it.
    WrongContent,
    /// A status of 500.
    Failing,
    /// Asked too often.
    Throttled,
    /// Vault's word for not being open yet; other managers are unavailable.
    Sealed,
}

/// Where a manager's secrets are kept, seen from the side that writes them. Hooks with a default
/// are for what some managers cannot do; each says how the suite takes that.
pub trait Backend {
    /// Kind and name of the item.
    fn id(&self) -> &'static str;
    /// Fields of the item that reads from here, through [`Backend::relay`] where there is one.
    fn fields(&self) -> Value;
    /// Writes a document.
    async fn put(&self, path: &str, fields: Value);
    /// Deletes it so that it can be undeleted, where the manager knows such a thing.
    async fn delete(&self, path: &str);
    /// Makes the place unreadable, for good.
    async fn go_down(&mut self);

    /// The same fields with a time limit of half a second.
    fn impatient(&self) -> Value {
        let mut fields = self.fields();
        fields["timeout"] = json!(0.5);
        fields
    }
    /// What a reference to that field holds behind the manager's id.
    fn at(&self, path: &str, field: &str) -> String {
        match field.contains('/') {
            true => format!("{path}#{field}"),
            false => format!("{path}/{field}"),
        }
    }
    /// Whether names of documents may hold blanks, `%` and letters of any script.
    fn any_names(&self) -> bool {
        true
    }
    /// Length of the longest value that is tried.
    fn longest(&self) -> usize {
        1024 * 1024
    }
    /// Writes bytes that are not text; returns what a reference to them holds behind the id.
    async fn put_binary(&self, path: &str, bytes: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.put(path, json!({ "k": text })).await;
        format!("{}?decode=base64", self.at(path, "k"))
    }
    /// Takes [`Backend::delete`] back; the document holds these fields again.
    async fn undelete(&self, path: &str, fields: Value) {
        self.put(path, fields).await;
    }
    /// Takes the right to read a document away. False where nobody can be forbidden to.
    async fn forbid(&self, path: &str) -> bool {
        let _ = path;
        false
    }
    /// Takes [`Backend::forbid`] back.
    async fn allow(&self, path: &str) {
        let _ = path;
    }
    /// What stands between the room and the manager.
    fn relay(&self) -> Option<&Relay> {
        None
    }
    /// What the relay does for a fault: the manager's own words where it has some.
    fn relaying(&self, fault: Fault) -> Relaying {
        match fault {
            Fault::Slow => Relaying::Never,
            Fault::Closed => Relaying::Close,
            Fault::Garbage => Relaying::Garbage,
            Fault::Truncated => Relaying::Truncated,
            Fault::WrongContent => Relaying::Answer(200, "<html>not found</html>"),
            Fault::Failing => Relaying::Answer(500, ""),
            Fault::Throttled => Relaying::Answer(429, ""),
            Fault::Sealed => Relaying::Answer(503, ""),
        }
    }
    /// Brings a fault about. False where this manager cannot have it.
    async fn begin(&self, fault: Fault, path: &str) -> bool {
        let _ = path;
        let Some(relay) = self.relay() else {
            return false;
        };
        relay.set(self.relaying(fault));
        true
    }
    /// Ends it; the document holds these fields again.
    async fn end(&self, path: &str, fields: Value) {
        let _ = (path, fields);
        if let Some(relay) = self.relay() {
            relay.set(Relaying::Pass);
        }
    }

    /// Why a reference is unresolved whose document is not there.
    fn no_document(&self) -> &'static str {
        "document not found"
    }
    /// Why a reference is unresolved whose document was deleted.
    fn deleted(&self) -> &'static str {
        self.no_document()
    }
    /// Why a reference is unresolved whose document may not be read.
    fn forbidden(&self) -> &'static str {
        "forbidden by the manager"
    }
}

/// What the room told: kinds of errors of reads (`None` where it went well), and events.
#[derive(Default)]
pub struct Told {
    pub reads: Mutex<Vec<Option<&'static str>>>,
    pub events: Mutex<Vec<(String, Event)>>,
}

impl Observer for Told {
    fn fetch(&self, _manager: &str, outcome: Result<(), &FetchError>, _took: Duration) {
        let kind = outcome.err().map(FetchError::kind);
        lock(&self.reads).push(kind);
    }

    fn event(&self, manager: &str, event: Event) {
        lock(&self.events).push((manager.to_owned(), event));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room with its loop running.
pub struct Room {
    pub secrets: Arc<Secrets>,
    pub told: Arc<Told>,
    _shutdown: watch::Sender<bool>,
}

impl Room {
    pub fn new(ttl: Duration, neg_ttl: Duration) -> Self {
        Self::with(SecretsSettings {
            ttl,
            neg_ttl,
            env: vec![(
                "TEST_TOKEN".to_owned(),
                Secret::from(" from-env\n".to_owned()).seal(),
            )],
            ..SecretsSettings::default()
        })
    }

    pub fn with(settings: SecretsSettings) -> Self {
        let told = Arc::new(Told::default());
        let observer: Arc<dyn Observer> = Arc::clone(&told) as _;
        let secrets = Secrets::new(settings, Arc::new(SystemClock), observer);
        let (shutdown, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&secrets).run(stopped));
        Self {
            secrets,
            told,
            _shutdown: shutdown,
        }
    }

    pub fn configure(&self, id: &str, fields: Value) -> Vec<ManagerProblem> {
        self.configure_all(&[(id, fields)])
    }

    pub fn configure_all(&self, managers: &[(&str, Value)]) -> Vec<ManagerProblem> {
        let specs = managers.iter().map(|(id, fields)| ManagerSpec {
            id: (*id).into(),
            kind: id.split('/').next().unwrap_or_default().to_owned(),
            fields: fields.clone(),
        });
        self.secrets.configure(&specs.collect::<Vec<_>>())
    }

    pub async fn ensure(&self, references: &[&str]) -> View {
        let references: BTreeSet<Arc<str>> = references.iter().map(|text| (*text).into()).collect();
        self.secrets
            .ensure(&references, Duration::from_secs(10))
            .await
    }

    /// Waits until the reference is worth what is expected.
    pub async fn until(&self, reference: &str, expected: Result<&str, &str>) {
        let worth = || text(&self.secrets.view(), reference);
        self.wait(
            || worth().as_deref().map_err(String::as_str) == expected,
            || format!("{reference} is {:?}, not {expected:?}", worth()),
        )
        .await;
    }

    /// Waits until the reference is in this state.
    pub async fn until_state(&self, reference: &str, state: ReferenceState) {
        self.wait(
            || self.state(reference) == state,
            || format!("{reference} must become {state:?}: {:?}", self.told()),
        )
        .await;
    }

    /// Waits until so many more reads have failed, and says of what kinds.
    pub async fn failures(&self, count: usize) -> BTreeSet<&'static str> {
        let before = lock(&self.told.reads).len();
        let failed = || -> Vec<&'static str> {
            let reads = lock(&self.told.reads);
            reads[before..].iter().copied().flatten().collect()
        };
        self.wait(
            || failed().len() >= count,
            || format!("{count} reads must fail: {:?}", self.told()),
        )
        .await;
        failed().into_iter().collect()
    }

    /// Waits until it is so.
    pub async fn wait(&self, mut done: impl FnMut() -> bool, complaint: impl Fn() -> String) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "{}", complaint());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn told(&self) -> Vec<Option<&'static str>> {
        let reads = lock(&self.told.reads);
        reads[reads.len().saturating_sub(20)..].to_vec()
    }

    /// Events about a manager so far.
    pub fn events(&self, manager: &str) -> Vec<Event> {
        let events = lock(&self.told.events);
        let of = events.iter().filter(|(id, _)| id == manager);
        of.map(|(_, event)| event.clone()).collect()
    }

    pub fn report(&self, reference: &str) -> ReferenceReport {
        let reports = self.secrets.report().into_iter();
        let mut found = reports.filter(|one| &*one.reference == reference);
        found.next().expect("reference must be in use")
    }

    pub fn state(&self, reference: &str) -> ReferenceState {
        self.report(reference).state
    }
}

/// Value or reason, as text.
pub fn text(view: &View, reference: &str) -> Result<String, String> {
    match view.resolve(reference) {
        Ok(resolved) => Ok(resolved.open().as_str().unwrap().to_owned()),
        Err(unresolved) => Err(unresolved.to_string()),
    }
}

/// Everything a manager must do with documents.
pub async fn conformance(mut backend: impl Backend) {
    let room = Room::new(Duration::from_millis(400), Duration::from_millis(200));
    assert_eq!(
        room.configure(backend.id(), backend.fields()),
        [],
        "fields must be accepted"
    );
    finds_what_is_there(&backend, &room).await;
    follows_what_changes(&backend, &room).await;
    keeps_values_through_faults(&backend).await;

    // An outage: known values stay, and are called stale.
    let key = full(&backend, "edge/tls", "key");
    backend.go_down().await;
    room.failures(3).await;
    room.until_state(&key, ReferenceState::Stale).await;
    assert_eq!(text(&room.secrets.view(), &key), Ok("rotated".to_owned()));
}

fn full(backend: &impl Backend, path: &str, field: &str) -> String {
    format!("$secret://{}/{}", backend.id(), backend.at(path, field))
}

async fn finds_what_is_there(backend: &impl Backend, room: &Room) {
    let large = "x".repeat(backend.longest());
    let pem = "-----BEGIN X-----\nYQ==\n-----END X-----\n";
    let fields = json!({"key": "one", "other": "two", "pem": pem, "uni": "пароль 🔑",
        "a/b": "slash", "n": 42, "flag": true, "none": null, "obj": {"x": "y"},
        "list": ["x"], "empty": "", "b64": "Zm9v"});
    backend.put("edge/tls", fields).await;
    backend.put("deep/er/than/two", json!({"k": "deep"})).await;
    backend.put("large", json!({"k": large})).await;
    let bytes = [0, 159, 10, 146, 150, 255];
    let binary = backend.put_binary("binary", &bytes).await;

    let tls = |field: &str| full(backend, "edge/tls", field);
    let not_there = Err(backend.no_document());
    let mut expected = vec![
        (tls("key"), Ok("one")),
        (tls("other"), Ok("two")),
        (tls("pem"), Ok(pem)),
        (tls("uni"), Ok("пароль 🔑")),
        (tls("a/b"), Ok("slash")),
        (tls("n"), Ok("42")),
        (tls("b64") + "?decode=base64", Ok("foo")),
        (tls("key") + "?decode=base64", Err("value is not base64")),
        (tls("flag"), Err("value is a boolean")),
        (tls("none"), Err("value is null")),
        (tls("obj"), Err("value is an object")),
        (tls("list"), Err("value is an array")),
        (tls("empty"), Err("value is empty")),
        (tls("nowhere"), Err("field not found")),
        (full(backend, "edge/absent", "key"), not_there),
        (full(backend, "deep/er/than/two", "k"), Ok("deep")),
        (full(backend, "large", "k"), Ok(&large)),
        (
            format!("$secret://{}/edge/../tls/key", backend.id()),
            Err("error format: '.' or '..' segment in secret key"),
        ),
    ];
    if backend.any_names() {
        let odd = "sp ace/100%/ключ";
        backend.put(odd, json!({"k": "odd"})).await;
        expected.push((full(backend, odd, "k"), Ok("odd")));
    }
    let binary = format!("$secret://{}/{binary}", backend.id());
    let references = expected.iter().map(|(reference, _)| reference.as_str());
    let view = room
        .ensure(&references.chain([&*binary]).collect::<Vec<_>>())
        .await;
    for (reference, expected) in &expected {
        let found = text(&view, reference);
        let as_expected = found.as_deref().map_err(String::as_str) == *expected;
        assert!(as_expected, "{reference}: {:?}", found.err());
    }
    let found = view.resolve(&binary).expect("bytes must be found");
    assert_eq!(*found.open(), bytes);
}

async fn follows_what_changes(backend: &impl Backend, room: &Room) {
    // A rotated value is live by itself; one that did not change keeps its version.
    let key = full(backend, "edge/tls", "key");
    let deep = full(backend, "deep/er/than/two", "k");
    let view = room.secrets.view();
    let before = view.resolve(&key).unwrap().version;
    let deep_before = view.resolve(&deep).unwrap().version;
    let mut changed = room.secrets.changed();
    changed.mark_unchanged();
    backend.put("edge/tls", json!({"key": "rotated"})).await;
    room.until(&key, Ok("rotated")).await;
    assert!(changed.has_changed().unwrap(), "a rotation is announced");
    let view = room.secrets.view();
    assert!(view.resolve(&key).unwrap().version > before);
    assert_eq!(view.resolve(&deep).unwrap().version, deep_before);

    // What is deleted ends and comes back, what appears begins, all without being asked.
    backend.delete("deep/er/than/two").await;
    room.until(&deep, Err(backend.deleted())).await;
    backend
        .undelete("deep/er/than/two", json!({"k": "deep"}))
        .await;
    room.until(&deep, Ok("deep")).await;
    backend.put("edge/absent", json!({"key": "appeared"})).await;
    room.until(&full(backend, "edge/absent", "key"), Ok("appeared"))
        .await;

    // So does what may not be read any more.
    if backend.forbid("deep/er/than/two").await {
        room.until(&deep, Err(backend.forbidden())).await;
        backend.allow("deep/er/than/two").await;
        room.until(&deep, Ok("deep")).await;
        room.until(&key, Ok("rotated")).await;
    }
}

/// Nothing but the manager's own word ends a value, however long it lasts.
async fn keeps_values_through_faults(backend: &impl Backend) {
    let room = Room::new(Duration::from_millis(200), Duration::from_millis(100));
    assert_eq!(room.configure(backend.id(), backend.impatient()), []);
    let fields = json!({"k": "kept"});
    backend.put("faulty", fields.clone()).await;
    let reference = full(backend, "faulty", "k");
    let view = room.ensure(&[&reference]).await;
    assert_eq!(text(&view, &reference), Ok("kept".to_owned()));
    for fault in [
        Fault::Slow,
        Fault::Closed,
        Fault::Garbage,
        Fault::Truncated,
        Fault::WrongContent,
        Fault::Failing,
        Fault::Throttled,
        Fault::Sealed,
    ] {
        if !backend.begin(fault, "faulty").await {
            continue;
        }
        // Two in a row would confirm a "no"; fewer than five keep the circuit closed.
        let count = if fault == Fault::Slow { 2 } else { 3 };
        let kinds = room.failures(count).await;
        let authoritative = ["not_found", "deleted", "forbidden", "unsupported"];
        let said_no = authoritative.iter().any(|kind| kinds.contains(kind));
        assert!(!said_no, "{fault:?} was taken for an answer: {kinds:?}");
        let kept = text(&room.secrets.view(), &reference);
        assert_eq!(kept, Ok("kept".to_owned()), "after {fault:?}");
        room.until_state(&reference, ReferenceState::Stale).await;
        let reason = room.report(&reference).reason;
        assert!(reason.is_some(), "{fault:?} must be named as the reason");
        backend.end("faulty", fields.clone()).await;
        room.until_state(&reference, ReferenceState::Fresh).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
