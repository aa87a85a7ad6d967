use base64::engine::general_purpose::STANDARD;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::super::DEF;
use super::*;
use crate::jwt::SigningKey;
use crate::plugins::testing;

/// The refusal of a credential as `field: message`.
fn refused(json: &Value) -> String {
    match testing::credential(&DEF, json) {
        Ok(_) => panic!("{json} must be refused"),
        Err(error) => format!("{}: {}", error.field, error.message),
    }
}

/// What is told of a credential that serves.
fn warnings(json: &Value) -> Vec<String> {
    let (built, warnings) = testing::credential_and_warnings(&DEF, json);
    assert!(built.is_ok(), "{json} must serve");
    let told = warnings.iter();
    told.map(|told| format!("{}: {}", told.field, told.message))
        .collect()
}

fn public(key: &PKey<Private>) -> String {
    String::from_utf8(key.public_key_to_pem().expect("PEM")).expect("PEM is text")
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("key is made")).expect("key is RSA")
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = openssl::ec::EcGroup::from_curve_name(curve).expect("curve is known");
    let key = openssl::ec::EcKey::generate(&group).expect("key is made");
    PKey::from_ec_key(key).expect("key is EC")
}

#[test]
fn fields_that_do_not_hold_are_named() {
    let needed = "property \"secret\" is required when using HS based algorithms";
    let base64 = "base64_secret required but the secret is not in base64 format";
    let names =
        "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA";
    for (json, expected) in [
        (json!({"key": "k"}), format!("secret: {needed}")),
        (
            json!({"key": "k", "public_key": "x"}),
            format!("secret: {needed}"),
        ),
        (
            json!({"key": "k", "algorithm": "RS256", "secret": "x"}),
            "public_key: missing valid public key".to_owned(),
        ),
        (
            json!({"key": "k", "algorithm": "none", "secret": "x"}),
            format!("algorithm: must be one of {names}"),
        ),
        (
            json!({"key": "", "secret": "x"}),
            "key: must not be empty".to_owned(),
        ),
        (
            json!({"key": "k", "secret": ""}),
            "secret: must not be empty".to_owned(),
        ),
        (
            json!({"key": "k", "algorithm": "ES256", "public_key": ""}),
            "public_key: must not be empty".to_owned(),
        ),
        (
            json!({"key": "k", "secret": "a b", "base64_secret": true}),
            format!("secret: {base64}"),
        ),
        (
            json!({"key": "k", "secret": "====", "base64_secret": true}),
            format!("secret: {base64}"),
        ),
        (
            json!({"key": "k", "secret": "x", "exp": 0}),
            "exp: must be at least 1".to_owned(),
        ),
        (
            json!({"key": "k", "secret": "x", "lifetime_grace_period": -1}),
            "lifetime_grace_period: must be 0 to 4294967295".to_owned(),
        ),
        (
            json!({"key": "$secret://vault/1/a/b", "secret": "x"}),
            "key: reference has no value".to_owned(),
        ),
        (
            json!({"key": "k", "secret": "$ENV://SECRET"}),
            "secret: reference has no value".to_owned(),
        ),
        (
            json!({"key": "k", "algorithm": "RS256", "public_key": "$env://KEY"}),
            "public_key: reference has no value".to_owned(),
        ),
        (
            json!({"key": "k", "keys": [{"kid": "a", "secret": "x"}, {"kid": "b"}]}),
            format!("keys[1].secret: {needed}"),
        ),
        (
            json!({"key": "k", "keys": [{"kid": "", "secret": "x"}]}),
            "keys[0].kid: must not be empty".to_owned(),
        ),
        (
            json!({"key": "k", "keys": [{"kid": "a", "secret": "x"}, {"kid": "a", "secret": "y"}]}),
            "keys[1].kid: stands twice".to_owned(),
        ),
        (
            json!({"key": "k", "keys": [{"kid": "a", "algorithm": "EdDSA", "public_key": "hunter2"}]}),
            "keys[0].public_key: does not fit EdDSA: expected an Ed25519 or Ed448 key".to_owned(),
        ),
        (
            json!({"key": "k", "secret": "x", "keys": [{"kid": "a", "secret": "$secret://v/1/a"}]}),
            "keys[0].secret: reference has no value".to_owned(),
        ),
    ] {
        assert_eq!(refused(&json), expected, "{json}");
    }
    for (json, field) in [
        (json!({"secret": "x"}), ""),
        (json!(null), ""),
        (json!({"key": 12345, "secret": "x"}), "key"),
        (json!({"key": "k", "secret": 12345}), "secret"),
        (json!({"key": "k", "keys": [{"secret": "x"}]}), "keys[0]"),
    ] {
        let error = testing::credential(&DEF, &json).err().expect("is refused");
        assert_eq!(error.field, field, "{json}");
        assert!(!error.message.contains("12345"), "{error}");
    }
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_refused() {
    let (rsa, p256) = (rsa(2048), ec(Nid::X9_62_PRIME256V1));
    let private = String::from_utf8(rsa.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
    let short = public(&self::rsa(1024));
    for (algorithm, key, told) in [
        ("ES256", public(&rsa), "expected an EC key on P-256"),
        ("ES384", public(&p256), "expected an EC key on P-384"),
        ("ES512", public(&p256), "expected an EC key on P-521"),
        ("RS256", public(&p256), "expected an RSA key"),
        ("EdDSA", public(&p256), "expected an Ed25519 or Ed448 key"),
        ("RS256", private, "expected an RSA key"),
        ("PS512", short, "RSA key is shorter than 2048 bits"),
        ("RS256", "not a key".to_owned(), "expected an RSA key"),
    ] {
        let json = json!({"key": "k", "algorithm": algorithm, "public_key": key});
        let expected = format!("public_key: does not fit {algorithm}: {told}");
        assert_eq!(refused(&json), expected);
    }
}

#[test]
fn short_secrets_serve_and_are_told() {
    let told = |field: &str, algorithm: &str, bytes: u32| {
        format!(
            "{field}: key shorter than its algorithm: {algorithm} asks for {bytes} bytes (RFC 7518 §3.2)"
        )
    };
    let long = "x".repeat(64);
    for (json, expected) in [
        (
            json!({"key": "k", "secret": "x".repeat(31)}),
            vec![told("secret", "HS256", 32)],
        ),
        (json!({"key": "k", "secret": "x".repeat(32)}), vec![]),
        (
            json!({"key": "k", "algorithm": "HS512", "secret": "x".repeat(63)}),
            vec![told("secret", "HS512", 64)],
        ),
        (
            json!({"key": "k", "secret": STANDARD.encode("x".repeat(31)), "base64_secret": true}),
            vec![told("secret", "HS256", 32)],
        ),
        (
            json!({"key": "k", "secret": &long, "keys": [
                {"kid": "a", "secret": &long},
                {"kid": "b", "algorithm": "HS384", "secret": "short"},
            ]}),
            vec![told("keys[1].secret", "HS384", 48)],
        ),
    ] {
        assert_eq!(warnings(&json), expected, "{json}");
    }
}

#[test]
fn a_secret_may_be_base64_as_nginx_reads_it() {
    let signing = SigningKey::from_secret(Algorithm::HS256, b"\xff\xfe secret").expect("fits");
    let signature = signing.sign(b"m").expect("signs");
    for text in ["//4gc2VjcmV0", "//4gc2VjcmV0====", "//4gc2VjcmV0="] {
        let json = json!({"key": "k", "secret": text, "base64_secret": true});
        let Ok(built) = testing::credential(&DEF, &json) else {
            assert_ne!(text, "//4gc2VjcmV0", "no padding is needed");
            continue;
        };
        let built = built.data.downcast_ref::<Verification>().expect("is ours");
        let key = built
            .keys
            .choose(Some(Algorithm::HS256), None)
            .expect("one key");
        assert!(key.verify(b"m", &signature));
    }
}
