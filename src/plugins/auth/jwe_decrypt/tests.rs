//! The scheme as a plugin, on tokens made by hand.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::symm::encrypt_aead;
use serde_json::{Value, json};

use super::*;
use crate::consumer::{CredentialEntry, CredentialIndex};
use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn sealed(header: &str, key: &str, iv: &[u8], plain: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(header.as_bytes());
    let mut tag = [0; TAG_BYTES];
    let cipher = Cipher::aes_256_gcm();
    let text = encrypt_aead(
        cipher,
        key.as_bytes(),
        Some(iv),
        header.as_bytes(),
        plain,
        &mut tag,
    );
    let text = text.expect("encrypts");
    format!(
        "{header}..{}.{}.{}",
        encode(iv),
        encode(&text),
        encode(&tag)
    )
}

fn token(plain: &[u8]) -> String {
    let header = r#"{"alg":"dir","enc":"A256GCM","kid":"alice"}"#;
    sealed(header, SECRET, &[7; 12], plain)
}

fn with_consumers(mut exchange: Exchange) -> Exchange {
    let consumer = testing::consumer("alice");
    let mut index = CredentialIndex::new([1; 16]);
    let json = json!({"key": "alice", "secret": SECRET});
    let credential = testing::credential(&DEF, &json).expect("credential is valid");
    let entry = CredentialEntry::new(consumer.clone(), 0, None, Some(credential.data.clone()));
    index.insert(&credential.lookup_key, entry);
    // Not possible through `credential`; shows that the request side refuses too.
    for key in ["", "$secret://vault/1/a/b"] {
        let entry = CredentialEntry::new(consumer.clone(), 1, None, Some(credential.data.clone()));
        index.insert(&Secret::from(key.to_owned()), entry);
    }
    exchange.state.consumers = testing::with_guest(NAME, index);
    exchange
}

#[test]
fn what_is_in_the_token_takes_its_place() {
    let hooks = built(&DEF, &json!(null));
    let token = token(b"hello world");
    for value in [
        token.clone(),
        format!("Bearer {token}"),
        format!("bearer {token}"),
    ] {
        let mut exchange = with_consumers(Exchange::get("/").header("Authorization", &value));
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.values("authorization"), ["hello world"]);
        assert!(exchange.state.consumer.is_none(), "it names no consumer");
        assert!(exchange.values("x-consumer-username").is_empty());
    }
    let hooks = built(&DEF, &json!({"header": "X-In", "forward_header": "X-Out"}));
    let exchange = Exchange::get("/")
        .header("X-In", &token)
        .header("X_Out", "forged")
        .header("X-Out", "forged");
    let mut exchange = with_consumers(exchange);
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.values("x-out"), ["hello world"]);
    assert!(exchange.values("x_out").is_empty());
    assert_eq!(exchange.values("x-in"), [token]);
}

#[test]
fn a_request_without_token_is_refused_where_strict() {
    let mut exchange = with_consumers(Exchange::get("/"));
    let answer = exchange
        .rewrite(&built(&DEF, &json!({})))
        .expect("request is refused");
    assert_eq!(answer.status, 403);
    assert_eq!(
        body_text(&answer),
        "{\"message\":\"missing JWE token in request\"}\n"
    );
    assert_eq!(answered(&answer, "www-authenticate"), None);

    let hooks = built(&DEF, &json!({"strict": false, "forward_header": "X-Out"}));
    let mut exchange = with_consumers(Exchange::get("/").header("X-Out", "forged"));
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert!(
        exchange.values("x-out").is_empty(),
        "a client's own value goes"
    );
    let mut exchange = with_consumers(Exchange::get("/").header("Authorization", "x"));
    assert!(
        exchange.rewrite(&hooks).is_some(),
        "a token that is there must be good"
    );
}

#[test]
fn every_step_has_its_refusal() {
    let hooks = built(&DEF, &json!({}));
    let good = token(b"x");
    let parts: Vec<&str> = good.split('.').collect();
    let with = |place: usize, part: &str| {
        let mut parts = parts.clone();
        parts[place] = part;
        parts.join(".")
    };
    let of_header = |header: &str| sealed(header, SECRET, &[7; 12], b"x");
    let dir = |rest: &str| of_header(&format!("{{\"alg\":\"dir\",\"enc\":\"A256GCM\",{rest}}}"));
    let (invalid, failed) = ("JWE token invalid", "failed to decrypt JWE token");
    let (missing, unknown) = ("missing kid in JWE token", "invalid kid in JWE token");
    for (token, message) in [
        (String::new(), invalid),
        ("Bearer ".to_owned(), invalid),
        (parts[..4].join("."), invalid),
        (format!("{good}."), invalid),
        (with(0, "!"), invalid),
        (with(0, "e30="), invalid),
        (with(0, "W10"), invalid),
        (with(1, "AAAA"), invalid),
        (with(2, "AAAA"), invalid),
        (with(2, "!"), invalid),
        (with(3, "A"), invalid),
        (with(4, "AAAA"), invalid),
        (with(4, ""), invalid),
        (dir("\"kid\":\"alice\",\"kid\":\"alice\""), invalid),
        (dir("\"kid\":\"alice\",\"crit\":[\"x\"]"), invalid),
        (dir("\"kid\":\"alice\",\"zip\":\"DEF\""), invalid),
        ("a".repeat(LONGEST_TOKEN + 1), invalid),
        (dir("\"a\":1"), missing),
        (dir("\"kid\":false"), missing),
        (dir("\"kid\":7"), unknown),
        (dir("\"kid\":null"), unknown),
        (dir("\"kid\":\"bob\""), unknown),
        (dir("\"kid\":\"\""), unknown),
        (dir("\"kid\":\"$secret://vault/1/a/b\""), unknown),
        (of_header(r#"{"kid":"alice"}"#), failed),
        (
            of_header(r#"{"alg":"dir","enc":"A128GCM","kid":"alice"}"#),
            failed,
        ),
        (
            of_header(r#"{"alg":"A256KW","enc":"A256GCM","kid":"alice"}"#),
            failed,
        ),
        (with(3, "AAAA"), failed),
        (with(4, &"A".repeat(22)), failed),
        (with(2, &"A".repeat(16)), failed),
        (
            with(
                0,
                &URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM","kid":"alice","a":1}"#),
            ),
            failed,
        ),
        (token_under("f".repeat(32).as_str()), failed),
        (token(b"a\r\nX-Injected: 1"), failed),
    ] {
        let mut exchange = with_consumers(Exchange::get("/").header("Authorization", &token));
        let answer = exchange.rewrite(&hooks).expect("request is refused");
        assert_eq!(answer.status, 400, "{token}");
        let expected = format!("{{\"message\":\"{message}\"}}\n");
        assert_eq!(body_text(&answer), expected, "{token}");
    }
}

fn token_under(secret: &str) -> String {
    let header = r#"{"alg":"dir","enc":"A256GCM","kid":"alice"}"#;
    sealed(header, secret, &[7; 12], b"x")
}

#[test]
fn the_secret_has_32_bytes() {
    let side = |secret: &str, encoded: bool| {
        let json = json!({"key": "k", "secret": secret, "is_base64_encoded": encoded});
        let built = testing::credential(&DEF, &json);
        built
            .map(drop)
            .map_err(|error| (error.field, error.message))
    };
    let bytes: Vec<u8> = (200..232).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
    assert_eq!(side(SECRET, false), Ok(()));
    assert_eq!(side(&encoded, true), Ok(()));
    assert_eq!(side(&URL_SAFE_NO_PAD.encode(&bytes), true), Ok(()));
    let after = "the secret length after base64 decode should be 32 chars";
    for (secret, encoded, message) in [
        ("short", false, "the secret length should be 32 chars"),
        (
            encoded.as_str(),
            false,
            "the secret length should be 32 chars",
        ),
        ("c2hvcnQ=", true, after),
        ("not base64!", true, "must be base64"),
        ("", false, "must not be empty"),
        (
            "$secret://vault/1/jwe/secretttt",
            false,
            "reference has no value",
        ),
    ] {
        let expected = Err(("secret".to_owned(), message.to_owned()));
        assert_eq!(side(secret, encoded), expected, "{secret}");
    }
    for json in [
        json!({"secret": SECRET}),
        json!({"key": "", "secret": SECRET}),
        Value::Null,
    ] {
        assert!(testing::credential(&DEF, &json).is_err(), "{json}");
    }
}

#[test]
fn wrong_configuration_names_the_field() {
    for (json, expected) in [
        (json!({"header": ""}), "header: must be a header name"),
        (
            json!({"forward_header": "a b"}),
            "forward_header: must be a header name",
        ),
        (json!({"strict": "hunter2"}), "strict: expected a boolean"),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
}
