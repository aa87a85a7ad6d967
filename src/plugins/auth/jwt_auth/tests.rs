//! The scheme as a plugin, on requests made by hand.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::*;
use crate::consumer::{Consumers, CredentialIndex};
use crate::jwt::{Algorithm, Family, SigningKey};
use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

mod fuzz;
mod judgement;

/// The clock of [`Exchange`].
const NOW: u64 = 1_700_000_000;
const SECRET: &str = "a secret of more than thirty-two bytes";

/// Consumers of these names with these credentials, and `guest`.
fn consumers(credentials: &[(&str, Value)]) -> Arc<Consumers> {
    let mut index = CredentialIndex::new([1; 16]);
    for (order, (name, json)) in (0..).zip(credentials) {
        let credential = testing::credential(&DEF, json).expect("credential is valid");
        let id = name.contains('/').then(|| Arc::from("c1"));
        let owner = testing::consumer(name.split('/').next().unwrap_or_default());
        let entry = CredentialEntry::new(owner, order, id, Some(credential.data));
        index.insert(&credential.lookup_key, entry);
    }
    testing::with_guest(NAME, index)
}

fn alice() -> Arc<Consumers> {
    consumers(&[("alice", json!({"key": "alice-key", "secret": SECRET}))])
}

fn hs256(secret: &str, header: &str, payload: &str) -> String {
    let message = [header, payload]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    signed(Algorithm::HS256, secret, &message)
}

fn signed(algorithm: Algorithm, secret: &str, message: &str) -> String {
    let key = SigningKey::from_secret(algorithm, secret.as_bytes()).expect("secret fits");
    let signature = key.sign(message.as_bytes()).expect("signs");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token of alice with this payload.
fn with_payload(payload: &str) -> String {
    hs256(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, payload)
}

fn with_header(header: &str) -> String {
    hs256(SECRET, header, r#"{"key":"alice-key"}"#)
}

fn good() -> String {
    with_payload(r#"{"key":"alice-key"}"#)
}

/// A key pair as PEM: private, public.
fn pems(key: &PKey<Private>) -> (Vec<u8>, String) {
    let public = String::from_utf8(key.public_key_to_pem().expect("PEM"));
    (
        key.private_key_to_pem_pkcs8().expect("PEM"),
        public.expect("text"),
    )
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("curve is known");
    PKey::from_ec_key(EcKey::generate(&group).expect("key is made")).expect("key is EC")
}

/// What becomes of a request with this token in `Authorization`: the consumer, or the message.
fn outcome(hooks: &Hooks, consumers: &Arc<Consumers>, token: &str) -> Result<String, String> {
    outcome_at(hooks, consumers, token, Duration::ZERO)
}

fn outcome_at(
    hooks: &Hooks,
    consumers: &Arc<Consumers>,
    token: &str,
    later: Duration,
) -> Result<String, String> {
    let mut exchange = Exchange::get("/").header("Authorization", token);
    exchange.state.consumers = Arc::clone(consumers);
    exchange.state.started += later;
    exchange.state.started_wall += later;
    match exchange.rewrite(hooks) {
        None => Ok(exchange.who().expect("a consumer is attached").to_owned()),
        Some(answer) => {
            assert_eq!(answer.status, 401);
            let challenge = answered(&answer, "www-authenticate");
            assert_eq!(challenge, Some("Bearer realm=\"jwt\""));
            let body: Value = serde_json::from_str(body_text(&answer)).expect("body is JSON");
            Err(body["message"]
                .as_str()
                .expect("body has a message")
                .to_owned())
        }
    }
}

const INVALID: &str = "JWT token invalid";
const NO_USER: &str = "missing user key in JWT token";
const UNKNOWN: &str = "Invalid user key in JWT token";
const FAILED: &str = "failed to verify jwt";

#[test]
fn a_token_attaches_its_consumer_and_identity_headers() {
    let hooks = built(&DEF, &json!(null));
    let all = consumers(&[
        ("alice", json!({"key": "alice-key", "secret": SECRET})),
        (
            "bob/c1",
            json!({"key": "bob-key", "algorithm": "HS512", "secret": SECRET}),
        ),
    ]);
    let message =
        [r#"{"alg":"HS512"}"#, r#"{"key":"bob-key"}"#].map(|part| URL_SAFE_NO_PAD.encode(part));
    let bob = signed(Algorithm::HS512, SECRET, &message.join("."));
    for (token, name, credential) in [(good(), "alice", None), (bob, "bob", Some("c1"))] {
        // The second time it is remembered.
        for _ in 0..2 {
            let mut exchange = Exchange::get("/")
                .header("Authorization", &format!("Bearer {token}"))
                .header("X-Consumer-Username", "forged")
                .header("X-Credential-Identifier", "forged");
            exchange.state.consumers = Arc::clone(&all);
            assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
            assert_eq!(exchange.who(), Some(name));
            assert_eq!(exchange.values("x-consumer-username"), [name]);
            assert_eq!(
                exchange.values("x-credential-identifier"),
                credential.as_slice()
            );
            assert_eq!(
                exchange.values("authorization").len(),
                1,
                "not hidden by default"
            );
        }
    }
}

#[test]
fn the_first_place_that_has_a_token_counts() {
    let hooks = built(&DEF, &json!({}));
    let (token, all) = (good(), alice());
    let run = |exchange: Exchange| {
        let mut exchange = exchange;
        exchange.state.consumers = Arc::clone(&all);
        let answer = exchange.rewrite(&hooks);
        answer.map_or_else(String::new, |answer| body_text(&answer).to_owned())
    };
    let query = format!("/?a=1&jwt={token}");
    let cookie = format!("x=1; jwt={token}");
    let missing = "{\"message\":\"Missing JWT token in request\"}\n";
    let invalid = "{\"message\":\"JWT token invalid\"}\n";
    let get = Exchange::get;
    for (name, exchange, expected) in [
        ("nothing", get("/"), missing),
        (
            "others",
            get("/?jwts=x").header("Cookie", "jwts=x"),
            missing,
        ),
        (
            "Bearer",
            get("/").header("Authorization", &format!("Bearer {token}")),
            "",
        ),
        (
            "bearer",
            get("/").header("Authorization", &format!("bearer {token}")),
            "",
        ),
        ("bare", get("/").header("Authorization", &token), ""),
        (
            "BEARER",
            get("/").header("Authorization", &format!("BEARER {token}")),
            invalid,
        ),
        (
            "two blanks",
            get("/").header("Authorization", &format!("Bearer  {token}")),
            invalid,
        ),
        ("query", get(&query), ""),
        (
            "encoded",
            get(&query.replace('.', "%2E").replace("jwt=", "%6awt=")),
            "",
        ),
        ("cookie", get("/").header("Cookie", &cookie), ""),
        (
            "header first",
            get(&query).header("Authorization", "x"),
            invalid,
        ),
        (
            "empty header counts",
            get(&query).header("Authorization", ""),
            invalid,
        ),
        (
            "query before cookie",
            get("/?jwt=x").header("Cookie", &cookie),
            invalid,
        ),
        (
            "empty argument counts",
            get("/?jwt").header("Cookie", &cookie),
            invalid,
        ),
        (
            "two arguments",
            get(&format!("{query}&jwt={token}")),
            invalid,
        ),
        (
            "first of two headers",
            get("/")
                .header("Authorization", &token)
                .header("Authorization", "x"),
            invalid,
        ),
        (
            "last of two headers",
            get("/")
                .header("Authorization", "x")
                .header("Authorization", &token),
            invalid,
        ),
        (
            "two cookies",
            get("/").header("Cookie", &format!("{cookie}; jwt=x")),
            invalid,
        ),
        (
            "two cookies in two fields",
            get("/").header("Cookie", &cookie).header("Cookie", "jwt=x"),
            invalid,
        ),
        (
            "Basic",
            get("/").header("Authorization", "Basic Zm9vOmJhcg=="),
            invalid,
        ),
    ] {
        assert_eq!(run(exchange), expected, "{name}");
    }
    let hooks = built(&DEF, &json!({"header": "X-T", "query": "t", "cookie": "T"}));
    for exchange in [
        get("/").header("x-t", &token),
        get(&format!("/?t={token}")),
        get("/").header("Cookie", &format!("t=x; T={token}")),
    ] {
        let mut exchange = exchange;
        exchange.state.consumers = Arc::clone(&all);
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    }
    assert_eq!(hooks.redacted(), ["x-t", "t", "T"].map(Box::<str>::from));
}

#[test]
fn a_hidden_token_leaves_the_place_it_was_found_in() {
    let hooks = built(&DEF, &json!({"hide_credentials": true}));
    let token = good();
    let mut exchange = Exchange::get(&format!("/p%20q?a=%2F&jwt={token}&b"))
        .header("Authorization", &token)
        .header("Cookie", &format!("a=1; jwt={token}"));
    exchange.state.consumers = alice();
    assert!(exchange.rewrite(&hooks).is_none());
    assert!(exchange.values("authorization").is_empty());
    assert_eq!(exchange.target(), format!("/p%20q?a=%2F&jwt={token}&b"));
    assert!(exchange.rewrite(&hooks).is_none());
    assert_eq!(exchange.target(), "/p%20q?a=%2F&b");
    assert_eq!(exchange.values("cookie"), [format!("a=1; jwt={token}")]);
    assert!(exchange.rewrite(&hooks).is_none());
    assert_eq!(exchange.values("cookie"), ["a=1"]);

    // What is no token of ours may be another way's credential.
    let mut exchange = Exchange::get("/").header("Authorization", "Basic YTpi");
    assert!(exchange.rewrite(&hooks).is_some());
    assert_eq!(exchange.values("authorization"), ["Basic YTpi"]);
}

#[test]
fn the_anonymous_consumer_takes_over_any_failure() {
    let settings = json!({"anonymous_consumer": "guest", "hide_credentials": true});
    let hooks = built(&DEF, &settings);
    for token in [None, Some("x".to_owned()), Some(with_payload("{}"))] {
        let mut exchange = Exchange::get("/?jwt=x&a").header("Cookie", "jwt=x");
        if let Some(token) = &token {
            exchange = exchange.header("Authorization", token);
        }
        exchange.state.consumers = alice();
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.who(), Some("guest"));
        assert_eq!(exchange.target(), "/?a");
        assert!(exchange.values("authorization").is_empty());
        assert!(exchange.values("cookie").is_empty());
    }
    let hooks = built(&DEF, &json!({"anonymous_consumer": "nobody"}));
    let answer = outcome(&hooks, &alice(), "x");
    assert_eq!(answer, Err("Invalid user authorization".to_owned()));
}

#[test]
fn the_payload_is_kept_where_asked() {
    use crate::expr::{VarSource as _, Variable};
    let (token, all) = (
        with_payload(r#"{"key":"alice-key","role":"admin"}"#),
        alice(),
    );
    for (json, expected) in [
        (json!({"store_in_ctx": true}), Some("admin")),
        (json!({}), None),
    ] {
        let hooks = built(&DEF, &json);
        for _ in 0..2 {
            let mut exchange = Exchange::get("/").header("Authorization", &token);
            exchange.state.consumers = Arc::clone(&all);
            assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
            let claim = Variable::parse("jwt_auth_payload.role");
            assert_eq!(exchange.ctx().var(&claim).as_deref(), expected);
            let whole = Variable::parse("jwt_auth_payload");
            let whole = exchange.ctx().var(&whole).map(std::borrow::Cow::into_owned);
            assert_eq!(whole.is_some(), expected.is_some());
        }
    }
    let hooks = built(
        &DEF,
        &json!({"store_in_ctx": true, "anonymous_consumer": "guest"}),
    );
    let mut exchange = Exchange::get("/").header("Authorization", &format!("{token}x"));
    exchange.state.consumers = all;
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    let claim = Variable::parse("jwt_auth_payload.role");
    assert_eq!(
        exchange.ctx().var(&claim),
        None,
        "nothing of a token that failed"
    );
}

#[test]
fn wrong_configuration_names_the_field_and_no_value() {
    for (json, expected) in [
        (json!({"header": ""}), "header: must be a header name"),
        (
            json!({"key_claim_name": ""}),
            "key_claim_name: must not be empty",
        ),
        (
            json!({"claims_to_verify": ["exp", "iat"]}),
            "claims_to_verify: must hold \"exp\" and \"nbf\" only",
        ),
        (
            json!({"claims_to_verify": ["exp", "exp"]}),
            "claims_to_verify: must not hold a claim twice",
        ),
        (
            json!({"anonymous_consumer": ""}),
            "anonymous_consumer: must not be empty",
        ),
        (
            json!({"hide_credentials": "hunter2"}),
            "hide_credentials: expected a boolean",
        ),
        (
            json!({"realm": "a\"b"}),
            "realm: must be 1 to 128 printable ASCII characters without '\"' and '\\'",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
    assert!(testing::build(&DEF, &json!({"claims_to_verify": []})).is_ok());
}

/// What the plugin finds out is in its memory, and only once it was found to be good.
#[test]
fn a_token_is_remembered_once_it_was_good() {
    testing::With::default().with(|ctx| {
        let challenge = HeaderValue::from_static("Bearer");
        let plugin = JwtAuth::new(JwtAuthConfig::default(), &challenge, ctx);
        let plugin = plugin.expect("configuration is valid");
        let memory = plugin.remembered.as_deref().expect("it is on");
        let expired = with_payload(&format!("{{\"key\":\"alice-key\",\"exp\":{}}}", NOW - 1));
        for (token, is_good) in [
            (good(), true),
            (expired, false),
            (format!("{}x", good()), false),
            (with_payload(r#"{"key":"bob"}"#), false),
            (
                hs256("wrong", r#"{"alg":"HS256"}"#, r#"{"key":"alice-key"}"#),
                false,
            ),
        ] {
            let mut exchange = Exchange::get("/");
            exchange.state.consumers = alice();
            let now = exchange.state.started;
            let id = memory.id("key", token.as_bytes());
            assert!(memory.find(id, now).is_none());
            let verdict = plugin.judge(&mut exchange.ctx(), token.as_bytes());
            assert_eq!(verdict.is_ok(), is_good, "{token}");
            assert_eq!(memory.find(id, now).is_some(), is_good, "{token}");
        }
    });
}
