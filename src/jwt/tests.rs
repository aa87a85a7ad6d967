use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::*;

const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn bytes(base64url: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(base64url).expect("vector is base64")
}

/// Without looking at times: the vectors' have passed.
fn timeless(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    validation
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("key is made")).expect("key is RSA")
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("curve is known");
    PKey::from_ec_key(EcKey::generate(&group).expect("key is made")).expect("key is EC")
}

fn ed() -> PKey<Private> {
    PKey::generate_ed25519().expect("key is made")
}

fn pair(algorithm: Algorithm, key: &PKey<Private>) -> (SigningKey, VerifyingKey) {
    let private = key.private_key_to_pem_pkcs8().expect("PEM");
    let public = key.public_key_to_pem().expect("PEM");
    (
        SigningKey::from_pem(algorithm, &private).expect("private key fits"),
        VerifyingKey::from_pem(algorithm, &public).expect("public key fits"),
    )
}

fn pair_for(algorithm: Algorithm) -> (SigningKey, VerifyingKey) {
    match algorithm.family() {
        AlgorithmFamily::Hmac => (
            SigningKey::from_secret(algorithm, b"secret").expect("secret fits"),
            VerifyingKey::from_secret(algorithm, b"secret").expect("secret fits"),
        ),
        AlgorithmFamily::Rsa => pair(algorithm, &rsa(2048)),
        AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => {
            pair(algorithm, &ec(Nid::SECP384R1))
        }
        AlgorithmFamily::Ec => pair(algorithm, &ec(Nid::X9_62_PRIME256V1)),
        AlgorithmFamily::Ed => pair(algorithm, &ed()),
    }
}

const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const A1_HEADER: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
const A1_KEY: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const A1_SIGNATURE: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const A2_HEADER: &str = "eyJhbGciOiJSUzI1NiJ9";
const A2_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const A3_HEADER: &str = "eyJhbGciOiJFUzI1NiJ9";
const A3_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const A3_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const A3_SIGNATURE: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

#[test]
fn rfc_7515_a1_hs256() {
    let message = format!("{A1_HEADER}.{JOE}");
    let secret = bytes(A1_KEY);
    let signing = SigningKey::from_secret(Algorithm::HS256, &secret).expect("secret fits");
    let signature = signing.sign(message.as_bytes()).expect("signs");
    assert_eq!(URL_SAFE_NO_PAD.encode(signature), A1_SIGNATURE);

    let key = VerifyingKey::from_secret(Algorithm::HS256, &secret).expect("secret fits");
    let token = format!("{message}.{A1_SIGNATURE}");
    let data = key.decode::<Value>(&token, &timeless(Algorithm::HS256));
    assert_eq!(data.expect("token is good").claims["iss"], "joe");
}

#[test]
fn rfc_7515_a2_rs256() {
    let key = DecodingKey::from_rsa_components(A2_N, "AQAB").expect("components are base64");
    let token = format!("{A2_HEADER}.{JOE}.{A2_SIGNATURE}");
    let ours = VerifyingKey::from_crate(Algorithm::RS256, &key).expect("key fits");
    let data = ours.decode::<Value>(&token, &timeless(Algorithm::RS256));
    assert_eq!(data.expect("token is good").claims["iss"], "joe");
    // The crate by itself, with a key of its own, is served too.
    install();
    let data = jsonwebtoken::decode::<Value>(&token, &key, &timeless(Algorithm::RS256));
    assert_eq!(data.expect("token is good").claims["iss"], "joe");
}

#[test]
fn rfc_7515_a3_es256() {
    let key = DecodingKey::from_ec_components(A3_X, A3_Y).expect("components are base64");
    let key = VerifyingKey::from_crate(Algorithm::ES256, &key).expect("key fits");
    let token = format!("{A3_HEADER}.{JOE}.{A3_SIGNATURE}");
    let data = key.decode::<Value>(&token, &timeless(Algorithm::ES256));
    assert_eq!(data.expect("token is good").claims["iss"], "joe");
}

#[test]
fn rfc_7515_a4_es512_is_refused_since_the_crate_does_not_know_it() {
    let token = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    assert!(decode_header(token).is_err());
    let (_, key) = pair_for(Algorithm::ES256);
    assert!(
        key.decode::<Value>(token, &timeless(Algorithm::ES256))
            .is_err()
    );
    let p521 = ec(Nid::SECP521R1).public_key_to_pem().expect("PEM");
    for algorithm in [Algorithm::ES256, Algorithm::ES384] {
        assert!(VerifyingKey::from_pem(algorithm, &p521).is_err());
    }
}

#[test]
fn rfc_8037_a4_ed25519() {
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = bytes(
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
    let d = bytes("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let private = PKey::private_key_from_raw_bytes(&d, Id::ED25519).expect("key is 32 bytes");
    let private = private.private_key_to_pem_pkcs8().expect("PEM");
    let signing = SigningKey::from_pem(Algorithm::EdDSA, &private).expect("key fits");
    assert_eq!(signing.sign(message).expect("signs"), signature);

    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = DecodingKey::from_ed_components(x).expect("component is base64");
    let key = VerifyingKey::from_crate(Algorithm::EdDSA, &key).expect("key fits");
    assert!(key.verify(message, &signature));
}

#[test]
fn every_algorithm_signs_and_verifies_and_sees_every_change() {
    for algorithm in ALL {
        let (signing, verifying) = pair_for(algorithm);
        let (_, stranger) = match algorithm.family() {
            AlgorithmFamily::Hmac => {
                let other = VerifyingKey::from_secret(algorithm, b"other").expect("secret fits");
                (signing.clone(), other)
            }
            _ => pair_for(algorithm),
        };
        let token = signing.encode(&json!({"sub": "alice"})).expect("signs");
        let read =
            |key: &VerifyingKey, token: &str| key.decode::<Value>(token, &timeless(algorithm));
        let data = read(&verifying, &token).expect("token is good");
        assert_eq!(
            (data.header.alg, &data.claims["sub"]),
            (algorithm, &json!("alice"))
        );
        assert!(
            read(&stranger, &token).is_err(),
            "{algorithm:?}: another's key"
        );

        let (message, signature) = token.rsplit_once('.').expect("token has parts");
        let header = message.split('.').next().expect("token has parts");
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"mallory"}"#);
        let good = bytes(signature);
        for token in [
            format!("{header}.{forged}.{signature}"),
            format!("{message}."),
        ] {
            assert!(read(&verifying, &token).is_err(), "{algorithm:?}: {token}");
        }
        for place in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(bad));
            assert!(
                read(&verifying, &token).is_err(),
                "{algorithm:?}: bit at {place}"
            );
        }
        for bad in [
            &good[1..],
            &[good.as_slice(), b"\0"].concat(),
            &[0; 64],
            &[0; 96],
            &[0xff; 64],
        ] {
            assert!(!verifying.verify(message.as_bytes(), bad), "{algorithm:?}");
        }
    }
}

#[test]
fn a_token_cannot_choose_its_algorithm() {
    let key = rsa(2048);
    let public = key.public_key_to_pem().expect("PEM");
    let (signing, verifying) = pair(Algorithm::RS256, &key);
    // The public key as a shared secret, the classic.
    let confused = SigningKey::from_secret(Algorithm::HS256, &public).expect("secret fits");
    let (other, _) = pair(Algorithm::PS256, &key);
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode("{}")
    );
    let tokens = [
        confused.encode(&json!({})).expect("signs"),
        other.encode(&json!({})).expect("signs"),
        none,
    ];
    for token in tokens {
        // Even where the caller's validation would let it pass.
        let mut validation = timeless(Algorithm::RS256);
        validation.algorithms = ALL.to_vec();
        assert!(verifying.decode::<Value>(&token, &validation).is_err());
    }
    let good = signing.encode(&json!({})).expect("signs");
    assert!(
        verifying
            .decode::<Value>(&good, &timeless(Algorithm::HS256))
            .is_ok()
    );
    let header = Header::new(Algorithm::RS512);
    assert!(signing.encode_with(&header, &json!({})).is_err());
}

#[test]
fn keys_of_the_wrong_kind_are_refused_and_nothing_panics() {
    let keys = [
        rsa(2048),
        ec(Nid::X9_62_PRIME256V1),
        ec(Nid::SECP384R1),
        ec(Nid::SECP256K1),
        ed(),
        PKey::generate_ed448().expect("key is made"),
        PKey::generate_x25519().expect("key is made"),
    ];
    let fits = |algorithm: Algorithm| match algorithm.family() {
        AlgorithmFamily::Hmac => None,
        AlgorithmFamily::Rsa => Some(0),
        AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => Some(2),
        AlgorithmFamily::Ec => Some(1),
        AlgorithmFamily::Ed => Some(4),
    };
    for algorithm in ALL {
        for (number, key) in keys.iter().enumerate() {
            let private = key.private_key_to_pem_pkcs8().expect("PEM");
            let public = key.public_key_to_pem().expect("PEM");
            let right = fits(algorithm) == Some(number);
            assert_eq!(SigningKey::from_pem(algorithm, &private).is_ok(), right);
            assert_eq!(VerifyingKey::from_pem(algorithm, &public).is_ok(), right);
            assert!(SigningKey::from_pem(algorithm, &public).is_err());
            assert!(VerifyingKey::from_pem(algorithm, &private).is_err());
        }
        for text in [
            &b""[..],
            b"secret",
            b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        ] {
            assert!(SigningKey::from_pem(algorithm, text).is_err());
            assert!(VerifyingKey::from_pem(algorithm, text).is_err());
        }
        let secret = VerifyingKey::from_secret(algorithm, b"secret");
        assert_eq!(secret.is_ok(), algorithm.family() == AlgorithmFamily::Hmac);
        assert!(
            VerifyingKey::from_secret(algorithm, b"").is_err(),
            "an empty key verifies all"
        );
        for key in [
            DecodingKey::from_secret(b""),
            DecodingKey::from_rsa_der(b"x"),
            DecodingKey::from_rsa_raw_components(b"", b""),
            DecodingKey::from_rsa_raw_components(&[0xff; 256], b"\0"),
            DecodingKey::from_ec_der(b"\x04xy"),
            DecodingKey::from_ec_der(&[4; 65]),
            DecodingKey::from_ed_der(b"short"),
        ] {
            let used = VerifyingKey::from_crate(algorithm, &key);
            assert!(!used.is_ok_and(|key| key.verify(b"m", b"s")));
        }
    }
    let error = VerifyingKey::from_pem(Algorithm::ES256, b"hunter2").expect_err("no key");
    assert_eq!(error.to_string(), "expected an EC key on P-256");
    let short = rsa(1024).public_key_to_pem().expect("PEM");
    let error = VerifyingKey::from_pem(Algorithm::RS256, &short).expect_err("too short");
    assert_eq!(error, KeyError::TooShort);
}

#[test]
fn a_public_key_may_stand_in_each_usual_form() {
    let key = rsa(2048);
    let pkcs1 = key
        .rsa()
        .expect("RSA")
        .public_key_to_pem_pkcs1()
        .expect("PEM");
    let mut certificate = openssl::x509::X509::builder().expect("builder");
    let now = openssl::asn1::Asn1Time::days_from_now(0).expect("now is a date");
    certificate.set_not_before(&now).expect("date is set");
    certificate.set_not_after(&now).expect("date is set");
    certificate.set_pubkey(&key).expect("key is set");
    let digest = openssl::hash::MessageDigest::sha256();
    certificate.sign(&key, digest).expect("signs");
    let certificate = certificate.build().to_pem().expect("PEM");
    let (signing, _) = pair(Algorithm::RS256, &key);
    let old_form = key.rsa().expect("RSA").private_key_to_pem().expect("PEM");
    let old_form = SigningKey::from_pem(Algorithm::RS256, &old_form).expect("PKCS#1 fits");
    for pem in [pkcs1, certificate] {
        let verifying = VerifyingKey::from_pem(Algorithm::RS256, &pem).expect("key fits");
        for signing in [&signing, &old_form] {
            assert!(verifying.verify(b"m", &signing.sign(b"m").expect("signs")));
        }
    }
}

#[test]
fn a_loan_ends_with_the_call_it_was_for() {
    let (signing, verifying) = pair_for(Algorithm::HS256);
    let token = signing.encode(&json!({})).expect("signs");
    assert!(
        verifying
            .decode::<Value>(&token, &timeless(Algorithm::HS256))
            .is_ok()
    );
    // The crate is on its own again: the key it is given counts, and an empty one is none.
    let validation = timeless(Algorithm::HS256);
    for (secret, good) in [(&b"secret"[..], true), (b"other", false), (b"", false)] {
        let key = DecodingKey::from_secret(secret);
        let data = jsonwebtoken::decode::<Value>(&token, &key, &validation);
        assert_eq!(data.is_ok(), good);
    }
    let lent = std::panic::catch_unwind(|| {
        provider::lend_private(&std::sync::Arc::clone(&signing.key), || panic!("inside"))
    });
    assert!(lent.is_err());
    let key = EncodingKey::from_secret(b"");
    let header = Header::new(Algorithm::HS256);
    assert!(jsonwebtoken::encode(&header, &json!({}), &key).is_err());
}

#[test]
fn debug_shows_no_key() {
    let (signing, verifying) = pair_for(Algorithm::HS256);
    let shown = format!("{signing:?} {verifying:?}");
    assert_eq!(shown, "SigningKey(HS256, …) VerifyingKey(HS256, …)");
}
