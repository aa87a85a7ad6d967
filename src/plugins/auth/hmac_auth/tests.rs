use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::consumer::{CredentialEntry, CredentialIndex};
use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

const SECRET: &str = "s3cret";
/// The time of [`Exchange`]: 14 November 2023, 22:13:20.
const NOW: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

fn with_consumers(mut exchange: Exchange) -> Exchange {
    let mut index = CredentialIndex::new([1; 16]);
    let json = json!({"key_id": "alice-id", "secret_key": SECRET});
    let side = testing::credential(&DEF, &json).expect("credential is valid");
    let entry = CredentialEntry::new(
        testing::consumer("alice"),
        0,
        Some("c1".into()),
        Some(side.data),
    );
    index.insert(&side.lookup_key, entry);
    exchange.state.consumers = testing::with_guest(NAME, index);
    exchange
}

/// HMAC by RFC 2104 itself, over SHA-256.
fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = [&block.map(|byte| byte ^ 0x36)[..], text].concat();
    let outer = [
        &block.map(|byte| byte ^ 0x5c)[..],
        &openssl::sha::sha256(&inner),
    ]
    .concat();
    openssl::sha::sha256(&outer)
}

fn authorization(headers: &str, text: &str) -> String {
    use base64::Engine as _;
    let signature = hmac_sha256(SECRET.as_bytes(), text.as_bytes());
    let signature = base64::prelude::BASE64_STANDARD.encode(signature);
    format!(
        r#"Signature keyId="alice-id",algorithm="hmac-sha256",headers="{headers}",signature="{signature}""#
    )
}

/// `GET target` dated and signed as `headers` says over `text`.
fn signed(target: &str, headers: &str, text: &str) -> Exchange {
    with_consumers(Exchange::get(target))
        .header("date", NOW)
        .header("authorization", &authorization(headers, text))
}

fn dated() -> Exchange {
    let text = format!("alice-id\nGET /a?b=c\ndate: {NOW}\n");
    signed("/a?b=c", "@request-target date", &text)
}

fn passes(hooks: &Hooks, mut exchange: Exchange, what: &str) {
    let answer = exchange.rewrite(hooks);
    assert!(
        answer.is_none(),
        "{what}: {:?}",
        answer.map(|answer| answer.status)
    );
    assert_eq!(exchange.who(), Some("alice"), "{what}");
}

fn refused(hooks: &Hooks, mut exchange: Exchange, why: &str) {
    let answer = exchange.rewrite(hooks).expect("request is refused");
    assert_eq!(answer.status, 401);
    let message = format!("{{\"message\":\"client request can't be validated{why}\"}}\n");
    assert_eq!(body_text(&answer), message);
    assert_eq!(
        answered(&answer, "www-authenticate"),
        Some("hmac realm=\"hmac\"")
    );
    assert_eq!(exchange.who(), None);
}

#[test]
fn a_signed_request_attaches_its_consumer() {
    let mut exchange = dated();
    assert!(exchange.rewrite(&built(&DEF, &json!({}))).is_none());
    assert_eq!(exchange.who(), Some("alice"));
    assert_eq!(exchange.values("x-credential-identifier"), ["c1"]);
    assert_eq!(
        exchange.values("authorization").len(),
        1,
        "is not hidden by default"
    );
    let mut exchange = dated();
    assert!(
        exchange
            .rewrite(&built(&DEF, &json!({"hide_credentials": true})))
            .is_none()
    );
    assert!(exchange.values("authorization").is_empty());
}

#[test]
fn what_is_signed_is_the_request_as_it_came() {
    let hooks = built(&DEF, &json!({"signed_headers": []}));
    let target = "@request-target";
    let mut exchange = signed("/a%20b", target, "alice-id\nGET /a b\n");
    exchange.state.path = Some("/a b".to_owned());
    passes(&hooks, exchange, "decoded path");
    passes(
        &hooks,
        signed("/a?", target, "alice-id\nGET /a\n"),
        "empty query",
    );
    passes(
        &hooks,
        signed("/?x=%20&y", target, "alice-id\nGET /?x=%20&y\n"),
        "raw query",
    );
    passes(
        &hooks,
        signed("/", "", "alice-id\n"),
        "nothing but the key id",
    );
    passes(
        &hooks,
        signed("/", "x-absent", "alice-id\n"),
        "absent headers are skipped",
    );
    let exchange = signed("/", "X-Foo", "alice-id\nX-Foo: first\n");
    let mut exchange = exchange.header("x-foo", "first").header("x-foo", "second");
    assert!(
        exchange.rewrite(&hooks).is_none(),
        "the first value is signed"
    );
    assert_eq!(exchange.values("x-foo"), ["first"], "others do not go on");
    let exchange = signed("/", "host", "alice-id\nhost: a.test:80\n");
    passes(&hooks, exchange.header("host", "a.test:80"), "host");

    let mut exchange = signed("/a%20b?q", target, "alice-id\nGET /a b?q\n");
    exchange.state.path = Some("/a b".to_owned());
    let mut ctx = exchange.ctx();
    ctx.set_target("/elsewhere").expect("target is valid");
    ctx.set_target("/elsewhere/again").expect("target is valid");
    ctx.set_method(Method::POST);
    passes(&hooks, exchange, "rewritten by an earlier plugin");
}

#[test]
fn each_check_has_its_answer() {
    let hooks = built(
        &DEF,
        &json!({"allowed_algorithms": ["hmac-sha256"], "clock_skew": 10}),
    );
    passes(&hooks, dated(), "sanity");
    let bare = || with_consumers(Exchange::get("/a?b=c"));
    refused(&hooks, bare(), ": missing Authorization header");
    let scheme = ": Authorization header does not start with 'Signature'";
    refused(&hooks, bare().header("authorization", "Basic YTpi"), scheme);
    refused(&hooks, dated().header("authorization", "Basic YTpi"), "");
    let good = authorization("date", &format!("alice-id\ndate: {NOW}\n"));
    for (old, new) in [
        ("alice-id", "nobody"),
        ("alice-id", "$env://KEY"),
        ("keyId=\"alice-id\",", ""),
        ("signature=", "x="),
        ("algorithm=\"hmac-sha256\",", ""),
        ("hmac-sha256", "hmac-sha512"),
        ("hmac-sha256", "none"),
        ("headers=\"date\"", "headers=\"Date\""),
        ("headers=\"date\",", ""),
    ] {
        let authorization = good.replace(old, new);
        let exchange = bare()
            .header("date", NOW)
            .header("authorization", &authorization);
        refused(&hooks, exchange, "");
    }
    passes(
        &hooks,
        bare().header("date", NOW).header("authorization", &good),
        "sanity",
    );
    refused(&hooks, bare().header("authorization", &good), "");
    let mut tampered = dated();
    tampered.head.set_method(Method::POST);
    refused(&hooks, tampered, "");
}

#[test]
fn dates_are_read_in_three_forms_and_must_be_near() {
    let hooks = built(&DEF, &json!({"clock_skew": 10}));
    for (date, good) in [
        ("Tue, 14 Nov 2023 22:13:30 GMT", true),
        ("Tue, 14 Nov 2023 22:13:10 GMT", true),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", true),
        ("Tue Nov 14 22:13:20 2023", true),
        ("Tue, 14 Nov 2023 22:13:31 GMT", false),
        ("Tue, 14 Nov 2023 22:13:09 GMT", false),
        ("1700000000", false),
        ("2023-11-14T22:13:20Z", false),
        ("", false),
    ] {
        let authorization = authorization("date", &format!("alice-id\ndate: {date}\n"));
        let exchange = with_consumers(Exchange::get("/"))
            .header("date", date)
            .header("authorization", &authorization);
        if good {
            passes(&hooks, exchange, date);
        } else {
            refused(&hooks, exchange, "");
        }
    }
}

#[test]
fn the_body_must_have_the_digest_that_was_sent() {
    let hooks = built(
        &DEF,
        &json!({"validate_request_body": true, "max_req_body_size": 4}),
    );
    let with = |digest: &'static str, body: &'static str| {
        let mut exchange = dated().header("digest", digest);
        exchange.state.body = Some(body.into());
        exchange
    };
    let abc = "SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    let empty = "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    passes(&hooks, with(abc, "abc"), "digest of a body");
    passes(&hooks, with(empty, ""), "digest of nothing");
    refused(&hooks, with(empty, "abc"), "");
    refused(&hooks, with("SHA-256=abc", "abc"), "");
    let mut exchange = dated();
    exchange.state.body = Some("abc".into());
    refused(&hooks, exchange, "");
    let answer = with(abc, "abcde")
        .rewrite(&hooks)
        .expect("request is refused");
    assert_eq!(answer.status, 413);
    let message = "request size 5 is greater than the maximum size 4 allowed";
    assert_eq!(
        body_text(&answer),
        format!("{{\"message\":\"{message}\"}}\n")
    );
    // A wrong signature is told before anything is read.
    let mut exchange = with(abc, "abcde");
    exchange.head.set_method(Method::PUT);
    refused(&hooks, exchange, "");
}

#[test]
fn a_signature_is_good_once_where_asked() {
    let now = chronological(0);
    let text = format!("alice-id\ndate: {now}\n");
    let request = |headers: &str, text: &str| {
        let mut exchange = with_consumers(Exchange::get("/"))
            .header("date", &now)
            .header("authorization", &authorization(headers, text));
        exchange.state.started_wall = SystemTime::now();
        exchange
    };
    let hooks = built(&DEF, &json!({"reject_replays": true}));
    passes(&hooks, request("date", &text), "first use");
    refused(&hooks, request("date", &text), "");
    let other = format!("{text}@request-target: x\n");
    refused(&hooks, request("date", &other), "");
    let own = format!("alice-id\ndate: {now}\nGET /\n");
    passes(
        &hooks,
        request("date @request-target", &own),
        "another signature",
    );
    let hooks = built(&DEF, &json!({}));
    passes(&hooks, request("date", &text), "not asked");
    passes(&hooks, request("date", &text), "not asked");
}

fn chronological(ahead: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead))
}

#[test]
fn the_anonymous_consumer_takes_over_any_failure() {
    let json = json!({"anonymous_consumer": "guest", "hide_credentials": true});
    let hooks = built(&DEF, &json);
    let mut tampered = dated();
    tampered.head.set_method(Method::POST);
    for mut exchange in [with_consumers(Exchange::get("/")), tampered] {
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.who(), Some("guest"));
        assert!(exchange.values("authorization").is_empty());
    }
}

#[test]
fn wrong_configuration_names_the_field_and_no_value() {
    let length = "signed_headers: names must have 1 to 50 characters";
    for (json, expected) in [
        (
            json!({"allowed_algorithms": []}),
            "allowed_algorithms: must name at least one algorithm",
        ),
        (json!({"clock_skew": 0}), "clock_skew: must be at least 1"),
        (json!({"signed_headers": [""]}), length),
        (json!({"signed_headers": ["a".repeat(51)]}), length),
        (
            json!({"signed_headers": [], "reject_replays": true}),
            "reject_replays: needs `date` among `signed_headers`",
        ),
        (
            json!({"anonymous_consumer": ""}),
            "anonymous_consumer: must not be empty",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
    for json in [
        json!({"allowed_algorithms": ["hunter2"]}),
        json!({"clock_skew": "hunter2"}),
        json!({"realm": "hunter2\""}),
    ] {
        assert!(!refusal(&DEF, &json).contains("hunter2"));
    }
}

#[test]
fn a_credential_needs_an_id_and_a_secret_that_are_values() {
    let side = |id: Value, secret: Value| {
        testing::credential(&DEF, &json!({"key_id": id, "secret_key": secret}))
    };
    let long = "a".repeat(256);
    assert!(side(json!(long), json!(long)).is_ok());
    let longer = "a".repeat(257);
    for (id, secret, field) in [
        (json!(""), json!("s"), "key_id"),
        (json!(longer), json!("s"), "key_id"),
        (json!("$env://KEY"), json!("s"), "key_id"),
        (json!("k"), json!(""), "secret_key"),
        (json!("k"), json!(longer), "secret_key"),
        (json!("k"), json!("$secret://vault/1/a/b"), "secret_key"),
        (json!("k"), json!(12345), "secret_key"),
    ] {
        let error = side(id, secret).err().expect("credential is refused");
        assert_eq!(error.field, field, "{error}");
        assert!(!error.message.contains("12345"), "{error}");
    }
}
