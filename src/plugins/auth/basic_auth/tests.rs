//! The scheme as a plugin, on requests made by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

/// Of `hunter2`, by libxcrypt.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

/// Consumers with one credential `c` each, and `guest`.
fn with_users(mut exchange: Exchange, users: &[(&str, &str)]) -> Exchange {
    let mut index = CredentialIndex::new([1; 16]);
    for (order, (name, password)) in (0..).zip(users) {
        let side = json!({"username": name, "password": password});
        let side = testing::credential(&DEF, &side).expect("credential is valid");
        let id = Some("c".into());
        let entry = CredentialEntry::new(testing::consumer(name), order, id, Some(side.data));
        index.insert(&side.lookup_key, entry);
    }
    exchange.state.consumers = testing::with_guest(NAME, index);
    exchange
}

const USERS: &[(&str, &str)] = &[
    ("alice", "se:cr:et"),
    ("bob", " pass word "),
    ("zoë", "pässwörd"),
];

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn asking(users: &[(&str, &str)], value: &str) -> Exchange {
    with_users(Exchange::get("/"), users).header("Authorization", value)
}

fn scheme(pending: usize) -> BasicAuth {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    BasicAuth {
        hide_credentials: false,
        missing: Response::status(401),
        malformed: Response::status(401),
        unknown: Response::status(401),
        busy: busy(),
        verifier: Verifier::with_places(pending, &clock),
    }
}

#[test]
fn name_and_password_attach_the_consumer() {
    let hooks = built(&DEF, &json!(null));
    for (name, password) in USERS {
        let value = basic(&format!("{name}:{password}"));
        let mut exchange = asking(USERS, &value).header("X-Consumer-Username", "forged");
        assert!(exchange.rewrite(&hooks).is_none(), "{name} goes on");
        assert_eq!(exchange.who(), Some(*name));
        assert_eq!(exchange.values("x-credential-identifier"), ["c"]);
        assert_eq!(exchange.values("authorization"), [value], "is not hidden");
    }
}

#[test]
fn refusals_are_those_of_apisix() {
    let hooks = built(&DEF, &json!({}));
    let missing = "Missing authorization in request";
    let malformed = "Invalid authorization in request";
    let unknown = "Invalid user authorization";
    let mut cases = vec![(with_users(Exchange::get("/"), USERS), missing)];
    for value in [
        "",
        "Basic",
        "Bearer abc",
        "xBasic YTpi",
        &basic("alice"),
        &basic("alice:"),
        &basic(":se:cr:et"),
    ] {
        cases.push((asking(USERS, value), malformed));
    }
    let right = basic("alice:se:cr:et");
    cases.push((
        asking(USERS, &right).header("Authorization", &right),
        malformed,
    ));
    for pair in [
        // What APISIX makes of the password: cut at its first colon, stripped.
        "alice:se",
        "bob:password",
        "alice:se:cr:et ",
        "Alice:se:cr:et",
        "alice:wrong",
        "nobody:se:cr:et",
        "bob:se:cr:et",
        "alice:$env://PASSWORD",
        "$secret://vault/1/a/b:se:cr:et",
    ] {
        cases.push((asking(USERS, &basic(pair)), unknown));
    }
    for (mut exchange, message) in cases {
        let said = exchange.values("authorization").join(" ");
        let answer = exchange.rewrite(&hooks).expect("request is refused");
        assert_eq!(answer.status, 401, "{said}");
        let body = format!("{{\"message\":\"{message}\"}}\n");
        assert_eq!(body_text(&answer), body, "{said}");
        let challenge = answered(&answer, "www-authenticate");
        assert_eq!(challenge, Some("Basic realm=\"basic\""));
        let content_type = answered(&answer, "content-type");
        assert_eq!(content_type, Some("text/plain; charset=utf-8"));
        assert_eq!(exchange.who(), None);
    }
}

#[test]
fn without_any_credential_everybody_is_unknown() {
    let hooks = built(&DEF, &json!({"realm": "shop"}));
    for exchange in [Exchange::get("/"), with_users(Exchange::get("/"), &[])] {
        let mut exchange = exchange.header("Authorization", &basic("alice:x"));
        let answer = exchange.rewrite(&hooks).expect("request is refused");
        assert_eq!(answer.status, 401);
        let challenge = answered(&answer, "www-authenticate");
        assert_eq!(challenge, Some("Basic realm=\"shop\""));
    }
}

#[test]
fn credentials_are_hidden_where_that_is_asked_for() {
    let hooks = built(
        &DEF,
        &json!({"hide_credentials": true, "anonymous_consumer": "guest"}),
    );
    for (value, name) in [
        (basic("alice:se:cr:et"), "alice"),
        (basic("alice:wrong"), "guest"),
        ("Bearer abc".to_owned(), "guest"),
    ] {
        let mut exchange = asking(USERS, &value);
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.who(), Some(name));
        assert!(exchange.values("authorization").is_empty(), "{value}");
    }
    let mut exchange = with_users(Exchange::get("/"), USERS);
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.who(), Some("guest"));
}

#[test]
fn a_password_may_be_kept_as_a_hash() {
    let hooks = built(&DEF, &json!({"hide_credentials": true}));
    let users = &[("alice", BCRYPT)];
    for (pair, right) in [
        ("alice:hunter2", true),
        ("alice:hunter2", true),
        ("alice:hunter3", false),
        ("alice:hunter3", false),
        // Whoever reads the file must not get in by what stands there.
        (&format!("alice:{BCRYPT}"), false),
        ("nobody:hunter2", false),
    ] {
        let mut exchange = asking(users, &basic(pair));
        let answer = exchange.rewrite(&hooks);
        assert_eq!(answer.is_none(), right, "{pair}");
        assert_eq!(exchange.who(), right.then_some("alice"), "{pair}");
        assert_eq!(exchange.values("authorization").is_empty(), right);
        if let Some(answer) = answer {
            let body = "{\"message\":\"Invalid user authorization\"}\n";
            assert_eq!((answer.status, body_text(&answer)), (401, body));
        }
    }
}

#[test]
fn an_unknown_name_costs_the_work_of_a_known_one() {
    let scheme = scheme(4);
    let waits = |users: &[(&str, &str)], pair: &str| {
        let mut exchange = asking(users, &basic(pair));
        matches!(scheme.authenticate(&mut exchange.ctx()), Trial::Wait)
    };
    let users = &[("alice", BCRYPT)];
    assert!(waits(users, "alice:wrong"));
    assert!(waits(users, "nobody:wrong"));
    assert!(!waits(USERS, "alice:wrong"), "nothing to compute");
    assert!(!waits(USERS, "nobody:wrong"));
    // Among both kinds an unknown name is of the one or the other, and stays it.
    let mixed = &[("alice", BCRYPT), ("bob", "plain")];
    let names: Vec<_> = (0..64).map(|n| format!("nobody{n}:wrong")).collect();
    let first: Vec<_> = names.iter().map(|name| waits(mixed, name)).collect();
    let again: Vec<_> = names.iter().map(|name| waits(mixed, name)).collect();
    assert_eq!(first, again);
    assert!(first.contains(&true) && first.contains(&false));
}

#[test]
fn anothers_password_lets_an_unknown_name_never_in() {
    let hooks = built(&DEF, &json!({}));
    for users in [[("alice", "hunter2")], [("alice", BCRYPT)]] {
        for pair in ["nobody:hunter2", "alice:hunter2", "nobody:hunter2"] {
            let mut exchange = asking(&users, &basic(pair));
            let refused = exchange.rewrite(&hooks).is_some();
            assert_eq!(refused, pair.starts_with("nobody"), "{pair}");
        }
    }
}

#[tokio::test]
async fn a_verifier_without_room_asks_to_come_back() {
    let scheme = scheme(0);
    let mut exchange = asking(&[("alice", BCRYPT)], &basic("alice:hunter2"));
    let mut ctx = exchange.ctx();
    let failure = scheme.wait(&mut ctx).await.err().expect("it is refused");
    assert_eq!(failure.reason, AuthFailure::Unavailable);
    assert_eq!(failure.answer.status, 503);
    assert_eq!(answered(&failure.answer, "retry-after"), Some("1"));
}

#[test]
fn logs_are_told_what_to_mask() {
    let hooks = built(&DEF, &json!({}));
    assert_eq!(hooks.redacted(), ["authorization"].map(Box::<str>::from));
}

#[test]
fn wrong_configuration_names_the_field_and_no_value() {
    let realm = "realm: must be 1 to 128 printable ASCII characters without '\"' and '\\'";
    for (json, expected) in [
        (json!({"realm": ""}), realm),
        (json!({"realm": "a\\b"}), realm),
        (
            json!({"anonymous_consumer": ""}),
            "anonymous_consumer: must not be empty",
        ),
        (
            json!({"hide_credentials": "hunter2"}),
            "hide_credentials: expected a boolean",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
}

#[test]
fn a_credential_that_can_never_work_is_refused() {
    let side = |json: &Value| testing::credential(&DEF, json);
    let reference = "$secret://vault/1/a/b";
    for (username, password, field, message) in [
        (json!(""), json!("p"), "username", "must not be empty"),
        (json!("a"), json!(""), "password", "must not be empty"),
        (
            json!("a:b"),
            json!("p"),
            "username",
            "must not contain a colon",
        ),
        (json!("a\n"), json!("p"), "username", NO_CONTROLS),
        (json!("a"), json!("s3cret\n"), "password", NO_CONTROLS),
        (
            json!(reference),
            json!("p"),
            "username",
            "reference has no value",
        ),
        (
            json!("a"),
            json!(reference),
            "password",
            "reference has no value",
        ),
        (
            json!("a"),
            json!("$2b$17$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm"),
            "password",
            "would cost too much: bcrypt is limited to cost 16",
        ),
    ] {
        let error = side(&json!({"username": username, "password": password}));
        let error = error.err().expect("credential is refused");
        assert_eq!((&*error.field, &*error.message), (field, message));
    }
    for (json, field) in [
        (json!({"username": "a", "password": 12345}), "password"),
        (json!({"username": 12345, "password": "p"}), "username"),
        (
            json!({"username": "a", "password": "$5$saltstring$x"}),
            "password",
        ),
        (
            json!({"username": "a", "password": "$argon2id$s3cret"}),
            "password",
        ),
        (json!({"username": "a"}), ""),
        (json!(null), ""),
    ] {
        let error = side(&json).err().expect("credential is refused");
        assert_eq!(error.field, field, "{error}");
        assert!(!error.message.contains("12345"), "{error}");
        assert!(!error.message.contains("s3cret"), "{error}");
    }
}
