use serde_json::{Value, json};

use super::*;

/// Keys of RFC 7515 A.2, A.3, A.4 and RFC 8037 A.2, and 57 bytes on Ed448 (RFC 8032 §7.4).
fn rsa() -> Value {
    json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"})
}

fn p256() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
}

fn p521() -> Value {
    json!({"kty": "EC", "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"})
}

fn ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

fn ed448() -> Value {
    json!({"kty": "OKP", "crv": "Ed448",
        "x": "X9dEm1m0Yf0s54fsYWrUah2hNCSFpw4fig6nXYDpZ3jt8SR2m0bHBhvWeD3x5Q9s0foavq_oJWGA"})
}

fn secret() -> Value {
    json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"})
}

const PUBLIC: JwkRules = JwkRules {
    algorithm: None,
    secrets: false,
};
const OURS: JwkRules = JwkRules {
    algorithm: None,
    secrets: true,
};

fn with(mut key: Value, members: Value) -> Value {
    let members = members.as_object().expect("members are an object").clone();
    key.as_object_mut()
        .expect("key is an object")
        .extend(members);
    key
}

/// Reads a set both ways, which must say the same.
fn read(keys: &[Value], rules: JwkRules) -> Result<JwkSet, JwkSetError> {
    let set = json!({"keys": keys});
    let (text, tree) = (
        JwkSet::parse(set.to_string().as_bytes(), rules),
        JwkSet::from_value(&set, rules),
    );
    assert_eq!(format!("{text:?}"), format!("{tree:?}"));
    text
}

fn fault(key: Value, rules: JwkRules) -> JwkFault {
    match read(std::slice::from_ref(&key), rules) {
        Err(JwkSetError::NoneUsable(fault)) => fault,
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn every_kind_of_key_is_bound_to_one_algorithm() {
    let ruled = |algorithm| JwkRules {
        algorithm: Some(algorithm),
        secrets: true,
    };
    for (key, rules, expected) in [
        (rsa(), OURS, Algorithm::RS256),
        (rsa(), ruled(Algorithm::PS384), Algorithm::PS384),
        (rsa(), ruled(Algorithm::ES256), Algorithm::RS256),
        (rsa(), ruled(Algorithm::HS256), Algorithm::RS256),
        (
            with(rsa(), json!({"alg": "RS512"})),
            ruled(Algorithm::PS384),
            Algorithm::RS512,
        ),
        (p256(), ruled(Algorithm::ES512), Algorithm::ES256),
        (
            with(p256(), json!({"alg": "ES256"})),
            OURS,
            Algorithm::ES256,
        ),
        (p521(), OURS, Algorithm::ES512),
        (ed25519(), OURS, Algorithm::EdDSA),
        (
            with(ed25519(), json!({"alg": "EdDSA"})),
            OURS,
            Algorithm::EdDSA,
        ),
        (
            with(ed25519(), json!({"alg": "Ed25519"})),
            OURS,
            Algorithm::EdDSA,
        ),
        (ed448(), OURS, Algorithm::EdDSA),
        (secret(), OURS, Algorithm::HS256),
        (secret(), ruled(Algorithm::HS512), Algorithm::HS512),
        (secret(), ruled(Algorithm::RS256), Algorithm::HS256),
        (
            with(secret(), json!({"alg": "HS384"})),
            OURS,
            Algorithm::HS384,
        ),
    ] {
        let set = read(std::slice::from_ref(&key), rules)
            .unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(set.keys[0].key.algorithm(), expected, "{key}");
        assert_eq!(set.ignored, []);
    }
}

#[test]
fn what_a_key_is_for_decides_whether_it_counts() {
    for (members, counts) in [
        (json!({"use": "sig"}), true),
        (json!({"use": "enc"}), false),
        (json!({"use": "Sig"}), false),
        (json!({"use": null}), false),
        (json!({"key_ops": ["verify"]}), true),
        (json!({"key_ops": ["sign", "verify"]}), true),
        (json!({"key_ops": ["encrypt"]}), false),
        (json!({"key_ops": []}), false),
        (json!({"key_ops": "verify"}), false),
        (json!({"use": "sig", "key_ops": ["wrapKey"]}), false),
        (json!({"use": "enc", "key_ops": ["verify"]}), false),
    ] {
        let set = read(&[p256(), with(rsa(), members.clone())], PUBLIC).expect("P-256 counts");
        assert_eq!(set.keys.len() == 2, counts, "{members}");
        let ignored = if counts {
            vec![]
        } else {
            vec![(1, JwkFault::Purpose)]
        };
        assert_eq!(set.ignored, ignored, "{members}");
    }
}

#[test]
fn keys_that_are_not_understood_are_passed_over_and_alone_are_none() {
    let short = "x".repeat(172);
    for (key, expected) in [
        (json!({}), JwkFault::Kind),
        (json!({"kty": "rsa"}), JwkFault::Kind),
        (json!({"kty": ["RSA"]}), JwkFault::Kind),
        (
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            JwkFault::Kind,
        ),
        (
            with(rsa(), json!({"alg": "RSA-OAEP-256"})),
            JwkFault::Algorithm,
        ),
        (with(rsa(), json!({"alg": "HS256"})), JwkFault::Algorithm),
        (with(rsa(), json!({"alg": "ES256"})), JwkFault::Algorithm),
        (with(rsa(), json!({"alg": "none"})), JwkFault::Algorithm),
        (with(rsa(), json!({"alg": null})), JwkFault::Algorithm),
        (with(rsa(), json!({"kid": 7})), JwkFault::Member("kid")),
        (with(rsa(), json!({"n": null})), JwkFault::Member("n")),
        (with(rsa(), json!({"n": ""})), JwkFault::Member("n")),
        (with(rsa(), json!({"n": "Ag"})), JwkFault::Member("n")),
        (with(rsa(), json!({"n": "a+b/"})), JwkFault::Member("n")),
        (
            with(rsa(), json!({"n": short})),
            JwkFault::Key(KeyError::TooShort),
        ),
        (with(rsa(), json!({"e": "AQ"})), JwkFault::Member("e")),
        (with(rsa(), json!({"e": "AAAB"})), JwkFault::Member("e")),
        (with(rsa(), json!({"e": "Ag"})), JwkFault::Member("e")),
        (with(p256(), json!({"crv": "secp256k1"})), JwkFault::Curve),
        (with(p256(), json!({"crv": null})), JwkFault::Curve),
        (with(p256(), json!({"alg": "ES384"})), JwkFault::Algorithm),
        (with(p256(), json!({"y": null})), JwkFault::Member("y")),
        (
            with(p256(), json!({"y": p256()["x"]})),
            JwkFault::Key(KeyError::Expected("an EC key on P-256")),
        ),
        (
            with(p256(), json!({"crv": "P-384"})),
            JwkFault::Key(KeyError::Expected("an EC key on P-384")),
        ),
        (with(ed25519(), json!({"crv": "X25519"})), JwkFault::Curve),
        (
            with(ed25519(), json!({"alg": "Ed448"})),
            JwkFault::Algorithm,
        ),
        (
            with(ed25519(), json!({"crv": "Ed448"})),
            JwkFault::Member("x"),
        ),
        (with(secret(), json!({"alg": "RS256"})), JwkFault::Algorithm),
        (with(secret(), json!({"k": ""})), JwkFault::Member("k")),
        (
            with(secret(), json!({"k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"})),
            JwkFault::Short,
        ),
    ] {
        assert_eq!(fault(key.clone(), OURS), expected, "{key}");
        let set = read(&[key.clone(), p256()], OURS).expect("the neighbour serves");
        assert_eq!(
            (set.keys.len(), &*set.ignored),
            (1, &[(0, expected)][..]),
            "{key}"
        );
    }
}

/// Who can read a set must not be able to sign with it.
#[test]
fn shared_secrets_count_only_where_the_set_is_ours() {
    assert_eq!(fault(secret(), PUBLIC), JwkFault::Secret);
    let set = read(&[secret(), rsa()], PUBLIC).expect("RSA counts");
    assert_eq!(set.keys.len(), 1);
    assert_eq!(set.keys[0].key.algorithm(), Algorithm::RS256);
}

#[test]
fn private_keys_refuse_the_whole_set() {
    for member in PRIVATE {
        for key in [rsa(), p256(), with(ed25519(), json!({"use": "enc"}))] {
            let key = with(key, json!({*member: "hunter2"}));
            let error = read(&[p256(), key], OURS).expect_err("a private key is in the world");
            assert_eq!(error, JwkSetError::Private(1, member));
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}

#[test]
fn one_kid_names_one_key() {
    let named = |key, kid: &str| with(key, json!({"kid": kid}));
    let set = read(
        &[named(rsa(), "a"), named(p256(), "A"), ed25519(), ed448()],
        PUBLIC,
    );
    let kids: Vec<_> = set
        .expect("all differ")
        .keys
        .into_iter()
        .map(|key| key.kid)
        .collect();
    assert_eq!(kids, [Some("a".into()), Some("A".into()), None, None]);
    let other = with(named(rsa(), "a"), json!({"alg": "PS256"}));
    read(&[named(rsa(), "a"), named(p256(), "a"), other], PUBLIC).expect("algorithms differ");
    let error = read(
        &[json!({}), named(rsa(), "a"), p256(), named(rsa(), "a")],
        PUBLIC,
    );
    assert_eq!(error.err(), Some(JwkSetError::DuplicateKid(1, 3)));
    // A key for something else is none of ours, whatever its name.
    let other = with(named(rsa(), "a"), json!({"use": "enc"}));
    assert_eq!(
        read(&[other, named(p256(), "a")], PUBLIC)
            .expect("one key counts")
            .keys
            .len(),
        1
    );
}

#[test]
fn what_is_no_set_is_refused_without_repeating_it() {
    for text in [
        "",
        "hunter2",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":["hunter2"]}"#,
        r#"{"keys":[{"kty":"RSA"]}"#,
        r#"{"keys":[]}{"keys":[]}"#,
        "<html>hunter2</html>",
    ] {
        let error = JwkSet::parse(text.as_bytes(), OURS).expect_err("no set");
        assert_eq!(error, JwkSetError::NotASet, "{text}");
        assert!(!error.to_string().contains("hunter2"));
    }
    assert_eq!(read(&[], OURS).err(), Some(JwkSetError::Empty));
    let many = vec![json!({}); MOST_KEYS + 1];
    assert_eq!(read(&many, OURS).err(), Some(JwkSetError::TooMany));
}
