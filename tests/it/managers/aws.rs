//! `aws` against a real `moto` server, and against servers that answer as AWS does when it
//! refuses.

use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, SystemClock};
use claviger::secrets::manager::{
    BuildCtx, FetchError, FieldValue, Fields, Location, MANAGERS, Manager, Read, Step,
};
use claviger::secrets::{Event, Observer, Secret, SecretsSettings};
use claviger::tls::dev::{Authority, LeafOptions};
use serde_json::{Value, json};

use super::{Backend, Fault, Room, Told, conformance, text};
use crate::harness::moto::{AccessKey, Moto};
use crate::harness::{Behaviour, Relay, Relaying, Upstream};

struct SecretsManager {
    moto: Moto,
    relay: Relay,
    /// Before the impatient room alone, so that the other's circuit stays closed meanwhile.
    faults: Relay,
}

impl Backend for SecretsManager {
    fn id(&self) -> &'static str {
        "aws/main"
    }

    fn fields(&self) -> Value {
        fields(&self.relay.uri())
    }

    async fn put(&self, path: &str, fields: Value) {
        self.moto.put(path, &fields.to_string()).await;
    }

    async fn delete(&self, path: &str) {
        self.moto.delete(path).await;
    }

    async fn undelete(&self, path: &str, _fields: Value) {
        self.moto.restore(path).await;
    }

    async fn go_down(&mut self) {
        self.relay.set(Relaying::Close);
    }

    fn any_names(&self) -> bool {
        false
    }

    async fn put_binary(&self, path: &str, bytes: &[u8]) -> String {
        self.moto.put_binary(path, bytes).await;
        path.to_owned()
    }

    async fn forbid(&self, _path: &str) -> bool {
        self.relay.set(Relaying::Answer(400, DENIED));
        true
    }

    async fn allow(&self, _path: &str) {
        self.relay.set(Relaying::Pass);
    }

    fn impatient(&self) -> Value {
        let mut fields = fields(&self.faults.uri());
        fields["timeout"] = json!(0.5);
        fields
    }

    fn relay(&self) -> Option<&Relay> {
        Some(&self.faults)
    }

    fn relaying(&self, fault: Fault) -> Relaying {
        match fault {
            Fault::Slow => Relaying::Never,
            Fault::Closed => Relaying::Close,
            Fault::Garbage => Relaying::Garbage,
            Fault::Truncated => Relaying::Truncated,
            Fault::WrongContent => Relaying::Answer(404, "<html>not found</html>"),
            Fault::Failing => Relaying::Answer(500, r#"{"__type":"InternalServiceError"}"#),
            Fault::Throttled => Relaying::Answer(400, r#"{"__type":"ThrottlingException"}"#),
            Fault::Sealed => Relaying::Answer(503, r#"{"__type":"ServiceUnavailable"}"#),
        }
    }

    fn deleted(&self) -> &'static str {
        "document version is deleted"
    }
}

/// As AWS words it.
const DENIED: &str = r#"{"__type":"AccessDeniedException","Message":"User: arn:aws:sts::123456789012:assumed-role/gw/s is not authorized to perform: secretsmanager:GetSecretValue on resource: hunter2"}"#;

fn fields(endpoint: &str) -> Value {
    json!({"access_key_id": "AKIDTEST", "secret_access_key": "hunter2-key", "endpoint_url": endpoint})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_manager_conforms() {
    let moto = Moto::start().await;
    let [relay, faults] = [(); 2].map(|()| Relay::start(&moto.addr, Relaying::Pass));
    conformance(SecretsManager {
        moto,
        relay,
        faults,
    })
    .await;
}

/// A manager by itself, and what it told.
fn manager(fields: Value) -> (Box<dyn Manager>, Arc<Told>) {
    let told = Arc::new(Told::default());
    let observer: Arc<dyn Observer> = Arc::clone(&told) as _;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ctx = BuildCtx {
        id: &"aws/main".into(),
        clock: &clock,
        trusted_ca: None,
        observer: &observer,
    };
    let def = MANAGERS.iter().find(|def| def.name == "aws").unwrap();
    let built = (def.build)(&Fields::new(fields), &ctx);
    (built.expect("fields must be accepted"), told)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_labels_and_bytes_are_read_and_probed_without_a_value() {
    let moto = Moto::start().await;
    let first = moto.put_in(
        "us-east-1",
        "app/db",
        json!({"SecretString": r#"{"k":"one"}"#}),
    );
    let first = first.await;
    let second = moto.put_in(
        "us-east-1",
        "app/db",
        json!({"SecretString": r#"{"k":"two"}"#}),
    );
    let second = second.await;
    moto.put("plain", "42").await;
    moto.put_binary("bytes", br#"{"k":"in bytes"}"#).await;
    let (manager, told) = manager(fields(&moto.addr));
    for (path, version, field, expected) in [
        ("app/db", None, "k", "two"),
        ("app/db", None, "", r#"{"k":"two"}"#),
        ("app/db", Some("AWSPREVIOUS"), "k", "one"),
        ("app/db", Some(&*first), "k", "one"),
        ("app/db", Some("AWSPENDING"), "k", "document not found"),
        ("plain", None, "", "42"),
        ("plain", None, "k", "value is not a JSON object"),
        ("bytes", None, "", r#"{"k":"in bytes"}"#),
        ("bytes", None, "k", "in bytes"),
        ("nowhere", None, "", "document not found"),
    ] {
        let found = value(&*manager, path, version, field).await;
        assert_eq!(found, expected, "{path} {version:?} {field}");
    }
    let wanted = [Arc::from("k")];
    let document = manager.fetch(read("app/db", None, &wanted)).await.unwrap();
    assert_eq!(document.version.as_deref(), Some(&*second));

    for (path, version, expected) in [
        ("app/db", None, Ok(&second)),
        ("app/db", Some("AWSPREVIOUS"), Ok(&first)),
        ("app/db", Some(&*first), Ok(&first)),
        ("app/db", Some("NOLABEL"), Err(FetchError::NotFound)),
        ("nowhere", None, Err(FetchError::NotFound)),
    ] {
        let found = manager.probe(read(path, version, &wanted)).await;
        assert!(found.as_ref().is_ok_and(|there| there.fields.is_none()) == expected.is_ok());
        let found = found.map(|there| there.version.unwrap().to_string());
        assert_eq!(found, expected.cloned(), "{path} {version:?}");
    }
    moto.delete("app/db").await;
    let gone = manager.probe(read("app/db", None, &wanted)).await;
    assert_eq!(gone, Err(FetchError::Deleted));

    let login = manager.login().expect("static keys are a login");
    assert_eq!((login.method, login.ends), ("static", None));
    assert_eq!(events(&told), [Event::LoggedIn { method: "static" }]);
}

/// APISIX #13519: the longest name that exists is the secret, the rest is the field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_name_that_exists_is_read_and_remembered() {
    let moto = Moto::start().await;
    moto.put("app/db", r#"{"password":"short","sub/field":"deep"}"#)
        .await;
    moto.put("app/db/password", "long").await;
    moto.put("app/other/db", r#"{"password":"only"}"#).await;
    let relay = Relay::start(&moto.addr, Relaying::Pass);
    let room = Room::new(Duration::from_secs(300), Duration::from_millis(200));
    assert_eq!(room.configure("aws/main", fields(&relay.uri())), []);
    let at = |rest: &str| format!("$secret://aws/main/{rest}");
    let expected = [
        ("app/db/password", Ok("long")),
        ("app/db#password", Ok("short")),
        ("app/db/sub/field", Ok("deep")),
        ("app/other/db/password", Ok("only")),
        ("app/db/nowhere", Err("field not found")),
        ("gone/db/password", Err("document not found")),
        // Exact: no field `gone/password` of `app/db` is looked for.
        ("app/db/gone#password", Err("document not found")),
    ];
    let references = expected.map(|(rest, _)| at(rest));
    let all: Vec<&str> = references.iter().map(String::as_str).collect();
    let view = room.ensure(&all).await;
    for (reference, (_, expected)) in references.iter().zip(expected) {
        let found = text(&view, reference);
        assert_eq!(
            found.as_deref().map_err(String::as_str),
            expected,
            "{reference}"
        );
    }

    // Found once is remembered: another look at everything asks no name that is not there.
    let known = [&*references[2], &*references[3]];
    room.ensure(&known).await;
    let before = relay.count();
    room.secrets.refresh_now();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while relay.count() < before + 2 {
        assert!(
            std::time::Instant::now() < deadline,
            "two documents are read again"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(relay.count(), before + 2, "one read per document");

    // A name that appears does not take a reference that was found over.
    moto.put("app/other/db/password", "new").await;
    room.secrets.refresh_now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(text(&room.secrets.view(), known[1]), Ok("only".to_owned()));
}

/// A policy for `app/db` alone denies every other name, whether it exists or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_may_not_be_asked_for_is_shortened_too() {
    let server = Upstream::start(Behaviour::Answer(400, DENIED.to_owned()));
    let room = Room::new(Duration::from_secs(300), Duration::from_millis(200));
    let fields = fields(&format!("http://{}", server.addr));
    assert_eq!(room.configure("aws/main", fields), []);
    let reference = "$secret://aws/main/app/db/password";
    let view = room.ensure(&[reference]).await;
    assert_eq!(
        text(&view, reference),
        Err("forbidden by the manager".to_owned())
    );
    let asked = |message: &crate::harness::wire::Message| {
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        body["SecretId"].as_str().unwrap().to_owned()
    };
    let names: Vec<String> = server.requests().iter().map(asked).collect();
    assert_eq!(names[..3], ["app/db/password", "app/db", "app"]);
}

/// `moto` computes each signature anew with botocore and compares.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_are_those_of_aws_and_keys_may_come_from_the_environment() {
    let moto = Moto::start().await;
    moto.put("app/db", r#"{"k":"v"}"#).await;
    let AccessKey { id, secret } = moto.user("reader").await;
    moto.enforce(true).await;
    let room = Room::with(SecretsSettings {
        env: vec![
            ("TEST_ID".to_owned(), Secret::from(id).seal()),
            (
                "TEST_KEY".to_owned(),
                Secret::from(format!(" {secret}\n")).seal(),
            ),
        ],
        ..SecretsSettings::default()
    });
    let mut good = fields(&moto.addr);
    good["access_key_id"] = "$env://TEST_ID".into();
    good["secret_access_key"] = "$env://TEST_KEY".into();
    let mut bad = good.clone();
    bad["secret_access_key"] = "hunter2-wrong".into();
    assert_eq!(
        room.configure_all(&[("aws/good", good), ("aws/bad", bad)]),
        []
    );
    let references = ["good", "bad"].map(|name| format!("$secret://aws/{name}/app/db#k"));
    let view = room
        .ensure(&references.each_ref().map(String::as_str))
        .await;
    assert_eq!(text(&view, &references[0]), Ok("v".to_owned()));
    let reason = text(&view, &references[1]).unwrap_err();
    assert!(reason.contains("403"), "{reason}");
}

#[test]
fn a_key_is_split_behind_the_longest_part_that_can_be_a_name() {
    let (manager, _) = manager(fields("http://127.0.0.1:1"));
    let at = |path: &str, field: &str| Location {
        path: path.into(),
        field: field.into(),
    };
    let locate = |rest: &str| {
        use claviger::secrets::reference::{Reference, Target};
        let reference = Reference::parse(&format!("$secret://aws/main/{rest}")).unwrap();
        let Target::Managed(key) = reference.target() else {
            panic!("must be a manager's")
        };
        manager.locate(key).map_err(|error| error.to_string())
    };
    assert_eq!(locate("app/db/password"), Ok(at("app/db/password", "")));
    assert_eq!(locate("app/db#pass/word"), Ok(at("app/db", "pass/word")));
    assert_eq!(locate("app/d b/x"), Ok(at("app", "d b/x")));
    let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-a1b2c3";
    assert_eq!(locate(arn), Ok(at(arn, "")));
    assert!(locate("ключ/x").is_err());
    assert!(locate("a b#x").is_err());

    let mut tried = at("app/db/password", "");
    let mut places = Vec::new();
    while let Some(next) = manager.elsewhere(&tried, &FetchError::NotFound) {
        places.push(next.clone());
        tried = next;
    }
    assert_eq!(places, [at("app/db", "password"), at("app", "db/password")]);
    let whole = at("app/db", "");
    assert!(manager.elsewhere(&whole, &FetchError::Forbidden).is_some());
    for why in [
        FetchError::Deleted,
        FetchError::Throttled,
        FetchError::TimedOut,
        FetchError::UnexpectedStatus(404),
    ] {
        assert_eq!(manager.elsewhere(&whole, &why), None, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_aws_has_its_meaning_and_is_never_repeated() {
    let server = Upstream::start(Behaviour::ok());
    let (manager, told) = manager(fields(&format!("http://{}", server.addr)));
    let json = |status, body: &str| Behaviour::Answer(status, body.to_owned());
    let of = |kind: &str| {
        json(
            400,
            &format!(r#"{{"__type":"com.amazonaws#{kind}","message":"hunter2"}}"#),
        )
    };
    let deleted = r#"{"__type":"InvalidRequestException","Message":"You can't perform this operation on the secret because it was marked for deletion."}"#;
    let large = format!(r#"{{"SecretString":"{}"}}"#, "x".repeat(3 * 1024 * 1024));
    for (answer, expected) in [
        (json(400, DENIED), FetchError::Forbidden),
        (json(400, deleted), FetchError::Deleted),
        (of("ResourceNotFoundException"), FetchError::NotFound),
        (
            of("InvalidRequestException"),
            FetchError::UnexpectedStatus(400),
        ),
        (
            of("DecryptionFailure"),
            FetchError::Unreadable("AWS cannot decrypt it".into()),
        ),
        (of("ThrottlingException"), FetchError::Throttled),
        (of("UnrecognizedClientException"), FetchError::TokenRefused),
        (of("InvalidSignatureException"), FetchError::TokenRefused),
        (of("ExpiredTokenException"), FetchError::TokenRefused),
        (of("NeverHeardOf"), FetchError::UnexpectedStatus(400)),
        (json(500, "{}"), FetchError::ServerError(500)),
        (json(503, "<html>hunter2"), FetchError::ServerError(503)),
        (json(429, ""), FetchError::Throttled),
        (
            json(403, "<html>hunter2"),
            FetchError::UnexpectedStatus(403),
        ),
        (
            json(404, "<html>hunter2"),
            FetchError::UnexpectedStatus(404),
        ),
        (json(307, ""), FetchError::Redirected(307)),
        (
            json(200, "<html>hunter2"),
            FetchError::Garbage("not the JSON Secrets Manager speaks"),
        ),
        (
            json(200, r#"{"SecretString":"hunt"#),
            FetchError::Garbage("not the JSON Secrets Manager speaks"),
        ),
        (json(200, "{}"), FetchError::Garbage("no value in it")),
        (json(200, &large), FetchError::TooLarge(2 * 1024 * 1024)),
    ] {
        server.set(answer.clone());
        let found = manager.fetch(read("a", None, &[])).await.map(drop);
        let shown = format!("{found:?}");
        assert_eq!(found, Err(expected), "{answer:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let failures: Vec<_> = events(&told)
        .into_iter()
        .filter(|event| matches!(event, Event::LoginFailed { .. }))
        .collect();
    assert_eq!(failures.len(), 3, "one for each reason: {failures:?}");
    assert!(!format!("{failures:?}").contains("hunter2"));

    for (behaviour, timeout) in [
        (Behaviour::Garbage, false),
        (Behaviour::Close, false),
        (Behaviour::Never, true),
    ] {
        server.set(behaviour);
        let mut fields = fields(&format!("http://{}", server.addr));
        fields["timeout"] = 0.3.into();
        let (manager, _) = self::manager(fields);
        let found = manager.fetch(read("a", None, &[])).await.map(drop);
        match found {
            Err(FetchError::TimedOut) => assert!(timeout),
            Err(FetchError::Unreachable(Step::Tcp, _)) => assert!(!timeout),
            other => panic!("{other:?}"),
        }
    }
    let (manager, _) = self::manager(fields("http://nowhere.invalid"));
    let found = manager.fetch(read("a", None, &[])).await.map(drop);
    assert_eq!(found.map_err(|why| why.step()), Err(Step::Dns));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_names_region_token_secret_and_version_and_asks_a_trusted_server() {
    let authority = Authority::new().unwrap();
    let issued = authority
        .issue(&["127.0.0.1"], &LeafOptions::default())
        .unwrap();
    let answer = Behaviour::Answer(200, r#"{"SecretString":"v","VersionId":"1"}"#.to_owned());
    let key = issued.key_pem.expose();
    let server = Upstream::start_tls(answer, &issued.cert_pem, key);
    let mut trusting = fields(&format!("https://{}/", server.addr));
    trusting["session_token"] = "session/token+==".into();
    let (untrusting, _) = manager(trusting.clone());
    trusting["region"] = "eu-central-1".into();
    trusting["tls"] = json!({ "ca": authority.cert_pem().unwrap() });
    let (trusting, _) = manager(trusting);

    let found = untrusting.fetch(read("a", None, &[])).await.map(drop);
    assert_eq!(found.map_err(|why| why.step()), Err(Step::Tls));
    assert_eq!(server.requests().len(), 0);

    assert_eq!(value(&*trusting, "a/b", None, "").await, "v");
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.start, "POST / HTTP/1.1");
    let header = |name| seen.header(name).unwrap_or_default();
    assert_eq!(header("x-amz-target"), "secretsmanager.GetSecretValue");
    assert_eq!(header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(header("x-amz-security-token"), "session/token+==");
    let authorization = header("authorization");
    assert!(
        authorization.contains("Credential=AKIDTEST/"),
        "{authorization}"
    );
    assert!(authorization.contains("/eu-central-1/secretsmanager/aws4_request"));
    assert!(
        authorization.contains("x-amz-security-token"),
        "the token is signed, too"
    );
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        body,
        json!({"SecretId": "a/b", "VersionStage": "AWSCURRENT"})
    );
}

#[tokio::test]
async fn fields_that_cannot_work_are_refused_by_name() {
    for (field, value, expected) in [
        ("access_key_id", json!(null), "access_key_id"),
        ("secret_access_key", json!(null), "secret_access_key"),
        ("access_key_id", json!(" "), "access_key_id"),
        (
            "secret_access_key",
            json!("hunter2\u{7}"),
            "secret_access_key",
        ),
        (
            "secret_access_key",
            json!("$env://TEST_ABSENT"),
            "secret_access_key",
        ),
        ("session_token", json!("hunter2 x"), "session_token"),
        ("session_token", json!(["hunter2"]), "session_token"),
        ("region", json!("hunter2.example.com/"), "region"),
        ("region", json!(""), "region"),
        ("endpoint_url", json!("ftp://x"), "endpoint_url"),
        (
            "endpoint_url",
            json!("http://user:hunter2@x"),
            "endpoint_url",
        ),
        ("timeout", json!(0), "timeout"),
        ("tls", json!({"ca": "/nowhere/ca.pem"}), "tls.ca"),
        ("tls", json!({"server_name": "x"}), "tls.server_name"),
    ] {
        let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
        let mut fields = fields("http://127.0.0.1:1");
        fields[field] = value.clone();
        let problems = room.configure("aws/main", fields);
        assert_eq!(problems.len(), 1, "{field}: {value}");
        assert_eq!(problems[0].field, expected, "{:?}", problems[0]);
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
    let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
    let lonely = json!({"session_token": "x", "endpoint_url": "http://127.0.0.1:1"});
    assert_eq!(room.configure("aws/main", lonely)[0].field, "session_token");
    assert_eq!(
        room.configure("aws/main", json!({})),
        [],
        "the default chain"
    );
}
