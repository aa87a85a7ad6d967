//! The signed tokens of the standards, at the room's own interface: their keys as JWK Sets.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger::jwt::{Algorithm, Compact, JwkRules, JwkSet, VerifyingKey, decode_base64url};
use serde_json::{Value, json};

/// Each vector's source, algorithm, key and token.
fn vectors() -> Vec<(String, Algorithm, Value, String)> {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors/jws.json")).unwrap();
    let vectors = vectors.as_array().unwrap().iter();
    let text = |vector: &Value, member: &str| vector[member].as_str().unwrap().to_owned();
    vectors
        .map(|vector| {
            let algorithm = Algorithm::named(&text(vector, "alg")).unwrap();
            let (source, token) = (text(vector, "source"), text(vector, "token"));
            (source, algorithm, vector["jwk"].clone(), token)
        })
        .collect()
}

fn read(jwk: &Value, algorithm: Algorithm) -> VerifyingKey {
    let rules = JwkRules {
        algorithm: Some(algorithm),
        secrets: true,
    };
    let set = JwkSet::from_value(&json!({ "keys": [jwk] }), rules).unwrap();
    assert_eq!(set.keys[0].kid.as_deref(), jwk["kid"].as_str());
    set.keys[0].key.clone()
}

/// Whether the key signed this token, whose header names the key's algorithm.
fn verifies(key: &VerifyingKey, token: &str) -> bool {
    let Some(compact) = Compact::split(token.as_bytes()) else {
        return false;
    };
    let (Some(header), Some(signature)) = (
        decode_base64url(compact.header),
        decode_base64url(compact.signature),
    ) else {
        return false;
    };
    let header: Value = serde_json::from_slice(&header).unwrap_or_default();
    header["alg"] == key.algorithm().name() && key.verify(compact.message, &signature)
}

#[test]
fn the_tokens_of_the_standards_are_accepted_and_no_changed_one_is() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 10);
    for (source, algorithm, jwk, token) in &vectors {
        let key = read(jwk, *algorithm);
        assert_eq!(key.algorithm(), *algorithm, "{source}");
        assert!(verifies(&key, token), "{source}");
        let parts: Vec<&str> = token.split('.').collect();
        for (place, part) in parts.iter().enumerate() {
            let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
            for bit in [0, bytes.len() * 4, bytes.len() * 8 - 1] {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let changed = URL_SAFE_NO_PAD.encode(changed);
                let mut parts = parts.clone();
                parts[place] = &changed;
                let changed = parts.join(".");
                assert!(
                    !verifies(&key, &changed),
                    "{source}: part {place}, bit {bit}"
                );
            }
        }
        for end in 1..8 {
            assert!(
                !verifies(&key, &token[..token.len() - end]),
                "{source}: cut by {end}"
            );
        }
        assert!(!verifies(&key, &format!("{token}AA")), "{source}: longer");
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for unsigned in [
            format!("{header}.{}.", parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
        ] {
            assert!(!verifies(&key, &unsigned), "{source}: unsigned");
        }
    }
}

#[test]
fn no_key_of_a_standard_verifies_the_token_of_another() {
    for (source, algorithm, jwk, _) in &vectors() {
        let key = read(jwk, *algorithm);
        for (other, _, other_jwk, token) in &vectors() {
            let same = jwk == other_jwk;
            assert!(same || !verifies(&key, token), "{source} against {other}");
        }
    }
}

/// RFC 7520's keys are private as printed; such a set is in the world by mistake.
#[test]
fn a_set_with_the_private_members_of_a_vector_is_refused() {
    let (_, _, mut jwk, _) = vectors().swap_remove(9);
    jwk["d"] = json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let error = JwkSet::from_value(&json!({ "keys": [jwk] }), JwkRules::default());
    let error = error
        .expect_err("RFC 8037 A.1 is a private key")
        .to_string();
    assert_eq!(
        error,
        "key 0 holds the private member \"d\": expected public keys only"
    );
}
