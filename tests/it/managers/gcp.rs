//! `gcp` against a real `drongo` behind a guard that wants what Google wants, and against servers
//! that answer as Google does when it refuses.

use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, SystemClock};
use claviger::secrets::manager::{
    BuildCtx, FetchError, FieldValue, Fields, Location, MANAGERS, Manager, Presence, Read, Step,
};
use claviger::secrets::{Event, Observer, ReferenceState, Secret, SecretsSettings};
use serde_json::{Value, json};

use super::{Backend, Room, Told, conformance, text};
use crate::harness::google::{Role, Tokens};
use crate::harness::{Behaviour, Drongo, Google, Relay, Relaying, Upstream};

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
    let built = build(fields, &told);
    (built.expect("fields must be accepted"), told)
}

fn build(
    fields: Value,
    told: &Arc<Told>,
) -> Result<Box<dyn Manager>, claviger::secrets::manager::BuildError> {
    let observer: Arc<dyn Observer> = Arc::clone(told) as _;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ctx = BuildCtx {
        id: &"gcp/main".into(),
        clock: &clock,
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
    let told = Arc::new(Told::default());
    let manager = build(json!({"metadata_uri": "http://127.0.0.1:1"}), &told).unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_key_file_works_and_a_changed_one_is_followed() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.json");
    std::fs::write(&path, cloud.key.to_string()).unwrap();
    let room = Room::new(Duration::from_millis(200), Duration::from_millis(200));
    let fields = json!({"auth_file": path, "entries_uri": cloud.entries_uri()});
    assert_eq!(room.configure("gcp/main", fields), []);
    let reference = "$secret://gcp/main/db";
    let view = room.ensure(&[reference]).await;
    assert_eq!(text(&view, reference), Ok("v".to_owned()));
    assert_eq!(cloud.google.logins(), [EMAIL]);

    // What is no key changes nothing, and is told.
    std::fs::write(&path, r#"{"type":"hunter2"}"#).unwrap();
    let failed = |event: &Event| matches!(event, Event::LoginFailed { why, .. } if why.contains("auth_file"));
    until("a bad file must be told", || {
        room.events("gcp/main").iter().any(failed)
    })
    .await;
    assert!(!format!("{:?}", room.events("gcp/main")).contains("hunter2"));
    assert_eq!(room.state(reference), ReferenceState::Fresh);

    // Another account, written aside and renamed as tools that rotate keys do; the old one goes.
    let other = "second@test-project.iam.gserviceaccount.com";
    let aside = home.path().join("aside");
    std::fs::write(&aside, cloud.google.account(other).to_string()).unwrap();
    std::fs::rename(aside, &path).unwrap();
    cloud.google.forget(EMAIL);
    until("the other must log in", || {
        cloud.google.logins() == [EMAIL, other]
    })
    .await;
    cloud.google.revoke();
    until("a revoked token is replaced", || {
        cloud.google.logins().len() == 3
    })
    .await;
    assert_eq!(cloud.google.logins()[2], other);
    cloud.drongo.put("db", b"w").await;
    room.until(reference, Ok("w")).await;
    assert!(
        cloud.google.complaints().is_empty(),
        "{:?}",
        cloud.google.complaints()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_logs_in_as_itself() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let fields = json!({"metadata_uri": cloud.google.uri(), "entries_uri": cloud.entries_uri()});
    let (first, told) = manager(fields.clone());
    assert!(first.login().is_none());
    assert_eq!(value(&*first, "db", None, "").await, "v");
    assert_eq!(value(&*first, "db", None, "").await, "v");
    assert_eq!(cloud.google.logins(), ["metadata"], "one login serves all");
    assert_eq!(events(&told), [Event::LoggedIn { method: "metadata" }]);
    assert_eq!(first.login().map(|login| login.method), Some("metadata"));

    let mut elsewhere = fields.clone();
    elsewhere["project_id"] = json!("other-project");
    let (elsewhere, _) = manager(elsewhere);
    assert_eq!(
        value(&*elsewhere, "db", None, "").await,
        "document not found"
    );

    cloud.google.set_tokens(Tokens::Refused);
    let (alone, _) = manager(fields.clone());
    assert_eq!(
        value(&*alone, "db", None, "").await,
        "login failed: no service account is attached to this machine"
    );
    cloud.google.set_tokens(Tokens::Good);
    cloud.google.drop_flavor();
    let (fooled, _) = manager(fields);
    assert_eq!(
        value(&*fooled, "db", None, "").await,
        "answer not understood: not Google's metadata server"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_replaced_ahead_of_their_end_and_no_read_fails() {
    let cloud = Cloud::start().await;
    // Kept for two seconds, and dead soon after: whoever kept it longer would be seen.
    cloud.google.set_life(62, Duration::from_millis(2500));
    cloud.drongo.put("db", b"v").await;
    let room = Room::new(Duration::from_millis(100), Duration::from_millis(100));
    assert_eq!(room.configure("gcp/main", cloud.fields()), []);
    let reference = "$secret://gcp/main/db";
    let view = room.ensure(&[reference]).await;
    assert_eq!(text(&view, reference), Ok("v".to_owned()));
    until("two renewals must come", || {
        cloud.google.logins().len() >= 3
    })
    .await;
    let renewed = Event::Renewed {
        method: "service_account",
    };
    let events = room.events("gcp/main");
    let logins: Vec<_> = events.iter().filter(|event| **event == LOGGED_IN).collect();
    assert_eq!(logins.len(), 1, "{events:?}");
    assert!(
        events.iter().filter(|event| **event == renewed).count() >= 2,
        "{events:?}"
    );
    let told = room.told.reads.lock().unwrap().clone();
    assert!(
        told.len() > 10 && told.iter().all(Option::is_none),
        "{told:?}"
    );
    assert_eq!(cloud.google.reads().1, 0, "no read without a living token");
    let login = room.secrets.manager_report()[0].login.clone();
    assert!(login.is_some(), "its end is reported");
    assert!(
        cloud.google.complaints().is_empty(),
        "{:?}",
        cloud.google.complaints()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_fails_leaves_values_in_force_and_heals_by_itself() {
    let cloud = Cloud::start().await;
    cloud.google.set_life(62, Duration::from_millis(2500));
    cloud.drongo.put("db", b"v").await;
    let room = Room::new(Duration::from_millis(100), Duration::from_millis(100));
    let mut fields = cloud.fields();
    fields["timeout"] = json!(0.5);
    assert_eq!(room.configure("gcp/main", fields), []);
    let reference = "$secret://gcp/main/db";
    let view = room.ensure(&[reference]).await;
    assert_eq!(text(&view, reference), Ok("v".to_owned()));
    for (tokens, kind, why) in [
        (
            Tokens::Refused,
            "login",
            "login failed: token endpoint does not accept",
        ),
        (
            Tokens::Garbage,
            "garbage",
            "answer not understood: login is not answered in JSON",
        ),
        (
            Tokens::Failing,
            "server_error",
            "manager failed with status 503",
        ),
        (Tokens::Never, "timed_out", "manager did not answer in time"),
    ] {
        cloud.google.set_tokens(tokens);
        // The token in hand serves to its end.
        let kinds = room.failures(2).await;
        assert!(kinds.contains(kind), "{tokens:?}: {kinds:?}");
        room.until_state(reference, ReferenceState::Stale).await;
        assert_eq!(text(&room.secrets.view(), reference), Ok("v".to_owned()));
        let failed = |event: &Event| matches!(event, Event::LoginFailed { why: told, .. } if told.starts_with(why));
        assert!(
            room.events("gcp/main").iter().any(failed),
            "{:?}",
            room.events("gcp/main")
        );
        cloud.google.set_tokens(Tokens::Good);
        room.until_state(reference, ReferenceState::Fresh).await;
    }
    assert!(!format!("{:?}", room.events("gcp/main")).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_documents_share_one_login_and_a_revoked_token_costs_one_more() {
    let cloud = Cloud::start().await;
    for number in 0..30 {
        cloud.drongo.put(&format!("d{number}"), b"v").await;
    }
    let room = Room::new(Duration::from_secs(600), Duration::from_secs(600));
    assert_eq!(room.configure("gcp/main", cloud.fields()), []);
    let references: Vec<String> = (0..30)
        .map(|number| format!("$secret://gcp/main/d{number}"))
        .collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let view = room.ensure(&references).await;
    for reference in &references {
        assert_eq!(text(&view, reference), Ok("v".to_owned()));
    }
    assert_eq!(cloud.google.logins().len(), 1);

    cloud.google.revoke();
    let (before, _) = cloud.google.reads();
    room.secrets.refresh_now();
    until("all must be read again", || {
        cloud.google.reads().0 >= before + 30
    })
    .await;
    assert_eq!(cloud.google.logins().len(), 2, "one login for all of them");
    assert_eq!(
        room.events("gcp/main")
            .iter()
            .filter(|event| **event == LOGGED_IN)
            .count(),
        2
    );
    let told = room.told.reads.lock().unwrap().clone();
    assert!(told.iter().all(Option::is_none), "nobody noticed: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_always_refused_is_asked_for_once_more_and_no_oftener() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    cloud.google.set_life(3600, Duration::ZERO);
    let (manager, _) = manager(cloud.fields());
    let found = value(&*manager, "db", None, "").await;
    assert_eq!(found, "manager does not accept our token");
    assert_eq!(
        (cloud.google.logins().len(), cloud.google.reads()),
        (2, (0, 2))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_key_may_come_from_the_environment() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let pem = cloud.key["private_key"].as_str().unwrap();
    let room = Room::with(SecretsSettings {
        env: vec![
            ("TEST_PEM".to_owned(), Secret::from(pem.to_owned())),
            // As an environment file has to hold it.
            (
                "TEST_LINE".to_owned(),
                Secret::from(pem.replace('\n', "\\n")),
            ),
            ("TEST_JSON".to_owned(), Secret::from(cloud.key.to_string())),
        ],
        ..SecretsSettings::default()
    });
    let from = |reference: &str| {
        let mut fields = cloud.fields();
        fields["auth_config"]["private_key"] = reference.into();
        fields
    };
    let managers = [
        ("gcp/pem", from("$env://TEST_PEM")),
        ("gcp/line", from("$env://TEST_LINE")),
        ("gcp/json", from("$env://TEST_JSON/private_key")),
    ];
    assert_eq!(room.configure_all(&managers), []);
    let references = managers.map(|(id, _)| format!("$secret://{id}/db"));
    let view = room
        .ensure(&references.each_ref().map(String::as_str))
        .await;
    for reference in &references {
        assert_eq!(text(&view, reference), Ok("v".to_owned()), "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_google_has_its_meaning_and_is_never_repeated() {
    let cloud = Cloud::start().await;
    let server = Upstream::start(Behaviour::ok());
    let (manager, _) = manager(cloud.fields_at(&format!("http://{}/v1", server.addr)));
    let json = |status, body: &str| Behaviour::Answer(status, body.to_owned());
    let said = |status, word: &str| {
        json(
            status,
            &format!(r#"{{"error":{{"message":"hunter2","status":"{word}"}}}}"#),
        )
    };
    let large = format!(
        r#"{{"payload":{{"data":"{}"}}}}"#,
        "x".repeat(3 * 1024 * 1024)
    );
    let garbage = FetchError::Garbage("not the JSON Secret Manager speaks");
    for (answer, expected) in [
        (said(404, "NOT_FOUND"), FetchError::NotFound),
        (said(403, "PERMISSION_DENIED"), FetchError::Forbidden),
        (said(400, "FAILED_PRECONDITION"), FetchError::Deleted),
        (
            said(400, "INVALID_ARGUMENT"),
            FetchError::UnexpectedStatus(400),
        ),
        (said(401, "UNAUTHENTICATED"), FetchError::TokenRefused),
        (said(429, "RESOURCE_EXHAUSTED"), FetchError::Throttled),
        (said(500, "INTERNAL"), FetchError::ServerError(500)),
        (json(503, "<html>hunter2"), FetchError::ServerError(503)),
        (
            json(404, "<html>hunter2"),
            FetchError::UnexpectedStatus(404),
        ),
        (
            json(403, "<html>hunter2"),
            FetchError::UnexpectedStatus(403),
        ),
        (json(307, ""), FetchError::Redirected(307)),
        (json(200, "<html>hunter2"), garbage.clone()),
        (json(200, r#"{"payload":{"data":"hunt"#), garbage),
        (json(200, "{}"), FetchError::Garbage("no payload in it")),
        (
            json(200, r#"{"payload":{"data":"hunter2!"}}"#),
            FetchError::Garbage("data is not base64"),
        ),
        (
            json(
                200,
                r#"{"payload":{"data":"aHVudGVyMg==","dataCrc32c":"1"}}"#,
            ),
            FetchError::Garbage("value does not fit its checksum"),
        ),
        (json(200, &large), FetchError::TooLarge(2 * 1024 * 1024)),
    ] {
        server.set(answer.clone());
        let found = manager.fetch(read("a", None, &[])).await.map(drop);
        let shown = format!("{found:?}");
        assert_eq!(found, Err(expected), "{answer:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let seen = server.requests().remove(0);
    assert_eq!(
        seen.start,
        "GET /v1/projects/test-project/secrets/a/versions/latest:access HTTP/1.1"
    );
    assert_eq!(seen.header("authorization"), Some("Bearer ya29.test-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_step_and_the_server_and_only_a_trusted_one_is_asked() {
    use claviger::tls::dev::{Authority, LeafOptions};

    let cloud = Cloud::start().await;
    let authority = Authority::new().unwrap();
    let issued = authority
        .issue(&["127.0.0.1"], &LeafOptions::default())
        .unwrap();
    let answer = Behaviour::Answer(200, r#"{"payload":{"data":"dg=="}}"#.to_owned());
    let key = issued.key_pem.expose();
    let server = Upstream::start_tls(answer, &issued.cert_pem, key);
    let fields = cloud.fields_at(&format!("https://{}/v1", server.addr));
    let (untrusting, _) = manager(fields.clone());
    let found = untrusting.fetch(read("a", None, &[])).await.map(drop);
    assert_eq!(found.map_err(|why| why.step()), Err(Step::Tls));
    assert_eq!(server.requests().len(), 0);
    let ca = authority.cert_pem().unwrap();
    for (field, trust) in [("tls", json!({ "ca": ca })), ("ssl_verify", json!(false))] {
        let mut fields = fields.clone();
        fields[field] = trust;
        let (trusting, _) = manager(fields);
        assert_eq!(value(&*trusting, "a", None, "").await, "v");
    }

    let mut nowhere = cloud.fields();
    nowhere["auth_config"]["token_uri"] = json!("http://nowhere.invalid/token");
    let mut closed = cloud.fields();
    closed["auth_config"]["token_uri"] = json!("http://127.0.0.1:1/token");
    for (fields, step) in [(nowhere, Step::Dns), (closed, Step::Tcp)] {
        let (manager, _) = manager(fields);
        let error = manager
            .fetch(read("a", None, &[]))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.step(), step);
        assert!(error.to_string().contains("token endpoint: "), "{error}");
        assert!(!error.to_string().contains("http:"), "{error}");
    }
}

#[test]
fn fields_that_cannot_work_are_refused_by_name() {
    let told = Arc::new(Told::default());
    let rsa = |bits| {
        let key = openssl::rsa::Rsa::generate(bits).unwrap();
        String::from_utf8(key.private_key_to_pem().unwrap()).unwrap()
    };
    let (good, short) = (rsa(2048), rsa(1024));
    let account = json!({"client_email": "a@b", "private_key": good, "project_id": "p"});
    let with = |name: &str, value: Value| {
        let mut account = account.clone();
        account[name] = value;
        json!({ "auth_config": account })
    };
    assert!(build(json!({ "auth_config": account }), &told).is_ok());
    assert!(build(with("scope", json!("one")), &told).is_ok());
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        json!({ "auth_file": path })
    };
    let fine = file("fine", &account.to_string());
    assert!(build(fine, &told).is_ok());
    let open = file("open", &account.to_string());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(home.path().join("open"), mode).unwrap();
    let mut user = account.clone();
    user["type"] = json!("authorized_user");
    let mut both = json!({ "auth_config": account });
    both["auth_file"] = json!("/hunter2");

    for (fields, field, message) in [
        (both, "auth_file", "not both"),
        (
            json!({"auth_file": "/nowhere/hunter2"}),
            "auth_file",
            "cannot be read",
        ),
        (file("text", "hunter2"), "auth_file", "in JSON"),
        (file("empty", "{}"), "auth_file", "client_email"),
        (
            file("user", &user.to_string()),
            "auth_file",
            "type: expected service_account",
        ),
        (open, "auth_file", "others may write"),
        (
            with("client_email", json!(" ")),
            "auth_config.client_email",
            "empty",
        ),
        (
            with("client_email", json!(["hunter2"])),
            "auth_config.client_email",
            "string",
        ),
        (
            with("project_id", json!("../hunter2")),
            "auth_config.project_id",
            "project",
        ),
        (
            with("project_id", json!(null)),
            "auth_config.project_id",
            "string",
        ),
        (
            with("private_key", json!("hunter2")),
            "auth_config.private_key",
            "RSA",
        ),
        (
            with("private_key", json!(null)),
            "auth_config.private_key",
            "RSA",
        ),
        (
            with("private_key", json!(short)),
            "auth_config.private_key",
            "2048",
        ),
        (
            with("token_uri", json!("hunter2")),
            "auth_config.token_uri",
            "http",
        ),
        (
            with("entries_uri", json!("http://a:hunter2@b")),
            "auth_config.entries_uri",
            "http",
        ),
        (with("scope", json!(7)), "auth_config.scope", ""),
        (json!({"entries_uri": "ftp://x"}), "entries_uri", "http"),
        (json!({"project_id": ".."}), "project_id", "project"),
        (json!({"metadata_uri": "hunter2"}), "metadata_uri", "http"),
        (json!({"timeout": 0}), "timeout", "more than 0"),
        (json!({"tls": {"ca": "/nowhere/ca.pem"}}), "tls.ca", "PEM"),
        (
            json!({"tls": {"server_name": "a.b"}}),
            "tls.server_name",
            "none",
        ),
    ] {
        let error = build(fields.clone(), &told)
            .err()
            .unwrap_or_else(|| panic!("{fields}"));
        assert_eq!(error.field, field, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!error.to_string().contains("PRIVATE KEY"), "{error}");
    }
    let mut beside = json!({ "auth_config": account });
    beside["metadata_uri"] = json!("http://a");
    assert_eq!(build(beside, &told).err().unwrap().field, "metadata_uri");
}
