use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use serde_json::json;

use super::*;

fn bytes(base64url: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(base64url).expect("vector is base64")
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("key is made")).expect("key is RSA")
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("curve is known");
    PKey::from_ec_key(EcKey::generate(&group).expect("key is made")).expect("key is EC")
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
    match (algorithm.family(), algorithm.curve()) {
        (Family::Hmac, _) => {
            let secret: [u8; 32] = rand::random();
            (
                SigningKey::from_secret(algorithm, &secret).expect("secret fits"),
                VerifyingKey::from_secret(algorithm, &secret).expect("secret fits"),
            )
        }
        (_, Some((curve, _))) => pair(algorithm, &ec(curve)),
        (Family::Rsa, _) => pair(algorithm, &rsa(2048)),
        _ => pair(algorithm, &PKey::generate_ed25519().expect("key is made")),
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

/// Whether the key signed this token.
fn verifies(key: &VerifyingKey, token: &str) -> bool {
    let compact = Compact::split(token.as_bytes()).expect("token has three parts");
    let signature = decode_base64url(compact.signature).expect("signature is base64url");
    key.verify(compact.message, &signature)
}

#[test]
fn names_are_compared_with_case() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        assert_eq!(format!("{algorithm:?}"), algorithm.name());
    }
    for name in [
        "", "none", "None", "hs256", "HS256 ", "EDDSA", "ES256K", "RSA",
    ] {
        assert_eq!(Algorithm::named(name), None, "{name}");
    }
}

#[test]
fn rfc_7515_a1_hs256() {
    let message = format!("{A1_HEADER}.{JOE}");
    let secret = bytes(A1_KEY);
    let signing = SigningKey::from_secret(Algorithm::HS256, &secret).expect("secret fits");
    let signature = signing.sign(message.as_bytes()).expect("signs");
    assert_eq!(URL_SAFE_NO_PAD.encode(signature), A1_SIGNATURE);
    let key = VerifyingKey::from_secret(Algorithm::HS256, &secret).expect("secret fits");
    assert!(verifies(&key, &format!("{message}.{A1_SIGNATURE}")));
}

#[test]
fn rfc_7515_a2_rs256() {
    let (n, e) = (bytes(A2_N), bytes("AQAB"));
    let key = VerifyingKey::from_rsa(Algorithm::RS256, &n, &e).expect("key fits");
    assert!(verifies(&key, &format!("{A2_HEADER}.{JOE}.{A2_SIGNATURE}")));
    let key = VerifyingKey::from_rsa(Algorithm::RS384, &n, &e).expect("key fits");
    assert!(!verifies(
        &key,
        &format!("{A2_HEADER}.{JOE}.{A2_SIGNATURE}")
    ));
}

#[test]
fn rfc_7515_a3_es256() {
    let (x, y) = (bytes(A3_X), bytes(A3_Y));
    let key = VerifyingKey::from_ec(Algorithm::ES256, &x, &y).expect("key fits");
    assert!(verifies(&key, &format!("{A3_HEADER}.{JOE}.{A3_SIGNATURE}")));
    assert!(
        VerifyingKey::from_ec(Algorithm::ES256, &y, &x).is_err(),
        "not on the curve"
    );
}

#[test]
fn rfc_7515_a4_es512() {
    let x = bytes(
        "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    );
    let y = bytes(
        "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    );
    let key = VerifyingKey::from_ec(Algorithm::ES512, &x, &y).expect("key fits");
    let token = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    assert!(verifies(&key, token));
    assert!(!verifies(&key, &token.replacen("UGF5", "UGF6", 1)));
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

    let x = bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let key = VerifyingKey::from_ed(Algorithm::EdDSA, &x).expect("key fits");
    assert!(key.verify(message, &signature));
}

#[test]
fn every_algorithm_signs_and_verifies_and_sees_every_change() {
    for algorithm in Algorithm::ALL {
        let (signing, verifying) = pair_for(algorithm);
        let (_, stranger) = pair_for(algorithm);
        let token = signing.encode(&json!({"sub": "alice"})).expect("signs");
        assert!(verifies(&verifying, &token));
        assert!(!verifies(&stranger, &token), "{algorithm}: another's key");

        let compact = Compact::split(token.as_bytes()).expect("token has parts");
        let message = compact.message;
        let header = decode_base64url(compact.header).expect("base64url");
        let expected = format!("{{\"typ\":\"JWT\",\"alg\":\"{algorithm}\"}}");
        assert_eq!(header.as_slice(), expected.as_bytes());
        let good = decode_base64url(compact.signature).expect("base64url");
        for place in 0..message.len() {
            let mut bad = message.to_vec();
            bad[place] ^= 1;
            if place % 16 == 0 {
                assert!(
                    !verifying.verify(&bad, &good),
                    "{algorithm}: message at {place}"
                );
            }
        }
        for place in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(
                !verifying.verify(message, &bad),
                "{algorithm}: bit at {place}"
            );
        }
        for bad in [
            &good[1..],
            &[good.as_slice(), b"\0"].concat(),
            b"",
            &[0; 64],
            &[0; 96],
            &[0; 132],
            &[0xff; 64],
            &[0xff; 132],
        ] {
            assert!(!verifying.verify(message, bad), "{algorithm}");
        }
    }
}

#[test]
fn ed448_is_eddsa_too() {
    let (signing, verifying) = pair(
        Algorithm::EdDSA,
        &PKey::generate_ed448().expect("key is made"),
    );
    let signature = signing.sign(b"m").expect("signs");
    assert_eq!(signature.len(), 114);
    assert!(verifying.verify(b"m", &signature));
    assert!(!verifying.verify(b"n", &signature));
}

/// APISIX takes PSS signatures of 256 bytes only.
#[test]
fn rsa_keys_of_other_lengths_serve() {
    let key = rsa(3072);
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::PS512] {
        let (signing, verifying) = pair(algorithm, &key);
        let signature = signing.sign(b"m").expect("signs");
        assert_eq!(signature.len(), 384);
        assert!(verifying.verify(b"m", &signature));
    }
}

#[test]
fn a_key_serves_one_algorithm() {
    let key = rsa(2048);
    let algorithms = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    for signs in algorithms {
        let (signing, _) = pair(signs, &key);
        let signature = signing.sign(b"m").expect("signs");
        for verifies in algorithms {
            let (_, verifying) = pair(verifies, &key);
            assert_eq!(verifying.verify(b"m", &signature), signs == verifies);
        }
    }
    // The public key as a shared secret, the classic.
    let public = key.public_key_to_pem().expect("PEM");
    let confused = SigningKey::from_secret(Algorithm::HS256, &public).expect("secret fits");
    let (_, verifying) = pair(Algorithm::RS256, &key);
    assert!(!verifying.verify(b"m", &confused.sign(b"m").expect("signs")));
}

#[test]
fn keys_of_the_wrong_kind_are_refused_and_nothing_panics() {
    let keys = [
        rsa(2048),
        ec(Nid::X9_62_PRIME256V1),
        ec(Nid::SECP384R1),
        ec(Nid::SECP521R1),
        ec(Nid::SECP256K1),
        PKey::generate_ed25519().expect("key is made"),
        PKey::generate_ed448().expect("key is made"),
        PKey::generate_x25519().expect("key is made"),
    ];
    let fits = |algorithm: Algorithm| match algorithm {
        Algorithm::ES256 => 1..2,
        Algorithm::ES384 => 2..3,
        Algorithm::ES512 => 3..4,
        Algorithm::EdDSA => 5..7,
        _ if algorithm.family() == Family::Hmac => 0..0,
        _ => 0..1,
    };
    for algorithm in Algorithm::ALL {
        for (number, key) in keys.iter().enumerate() {
            let private = key.private_key_to_pem_pkcs8().expect("PEM");
            let public = key.public_key_to_pem().expect("PEM");
            let right = fits(algorithm).contains(&number);
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
        assert_eq!(secret.is_ok(), algorithm.family() == Family::Hmac);
        assert!(
            VerifyingKey::from_secret(algorithm, b"").is_err(),
            "an empty key verifies all"
        );
        for key in [
            VerifyingKey::from_rsa(algorithm, b"", b""),
            VerifyingKey::from_rsa(algorithm, &[0xff; 256], b"\0"),
            VerifyingKey::from_ec(algorithm, b"x", b"y"),
            VerifyingKey::from_ec(algorithm, b"", b""),
            VerifyingKey::from_ec(algorithm, &[4; 32], &[4; 32]),
            VerifyingKey::from_ec(algorithm, &[0; 66], &[0; 66]),
            VerifyingKey::from_ed(algorithm, b"short"),
            VerifyingKey::from_ed(algorithm, b""),
        ] {
            assert!(!key.is_ok_and(|key| key.verify(b"m", b"s")));
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
fn equal_keys_of_one_algorithm_have_one_identity() {
    let (first, second) = (rsa(2048), rsa(2048));
    let identity = |algorithm, key: &PKey<Private>| pair(algorithm, key).1.identity();
    let own = identity(Algorithm::RS256, &first);
    assert_eq!(own, identity(Algorithm::RS256, &first));
    assert_ne!(own, identity(Algorithm::RS256, &second));
    assert_ne!(own, identity(Algorithm::PS256, &first));
    let secret = |algorithm, secret: &str| {
        let key = VerifyingKey::from_secret(algorithm, secret.as_bytes());
        key.expect("secret fits").identity()
    };
    assert_eq!(secret(Algorithm::HS256, "a"), secret(Algorithm::HS256, "a"));
    assert_ne!(secret(Algorithm::HS256, "a"), secret(Algorithm::HS256, "b"));
    assert_ne!(secret(Algorithm::HS256, "a"), secret(Algorithm::HS512, "a"));
}

#[test]
fn debug_shows_no_key() {
    let (signing, verifying) = pair_for(Algorithm::HS256);
    let shown = format!("{signing:?} {verifying:?}");
    assert_eq!(shown, "SigningKey(HS256, …) VerifyingKey(HS256, …)");
}
