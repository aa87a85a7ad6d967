use openssl::symm::Cipher;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::tls::KeySlot;
use crate::tls::dev::{Authority, Issued, KeyKind, LeafOptions, Usage};

fn issue(names: &[&str], options: &LeafOptions) -> Issued {
    Authority::new()
        .and_then(|authority| authority.issue(names, options))
        .expect("leaf")
}

fn parse(issued: &Issued) -> Result<CertifiedKey, CertificateError> {
    CertifiedKey::parse(issued.cert_pem.as_bytes(), &issued.key_pem)
}

#[test]
fn every_kind_of_key_that_servers_use_parses() {
    for key in [
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Rsa2048,
        KeyKind::Ed25519,
    ] {
        let options = LeafOptions {
            key,
            ..LeafOptions::default()
        };
        assert!(parse(&issue(&["a.test"], &options)).is_ok(), "{key:?}");
    }
}

#[test]
fn old_pem_forms_of_keys_parse() {
    let issued = issue(&["a.test"], &LeafOptions::default());
    let key = PKey::private_key_from_pem(issued.key_pem.expose()).expect("key");
    let sec1 = key.ec_key().and_then(|key| key.private_key_to_pem());
    let mut text =
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n".to_vec();
    text.extend(sec1.expect("sec1"));
    let outcome = CertifiedKey::parse(issued.cert_pem.as_bytes(), &Secret::new(text));
    assert_eq!(outcome.err(), None, "SEC1 after its parameters");
}

#[test]
fn a_key_of_another_certificate_is_a_mismatch() {
    let mut issued = issue(&["a.test"], &LeafOptions::default());
    issued.key_pem = issue(&["a.test"], &LeafOptions::default()).key_pem;
    assert_eq!(parse(&issued).err(), Some(CertificateError::Mismatch));
}

#[test]
fn encrypted_keys_are_refused_without_asking_for_a_pass_phrase() {
    let mut issued = issue(&["a.test"], &LeafOptions::default());
    let key = PKey::private_key_from_pem(issued.key_pem.expose()).expect("key");
    let cipher = Cipher::aes_128_cbc();
    let pkcs8 = key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret");
    let sec1 = key.ec_key().expect("ec");
    let sec1 = sec1.private_key_to_pem_passphrase(cipher, b"secret");
    for pem in [pkcs8.expect("pkcs8"), sec1.expect("sec1")] {
        issued.key_pem = Secret::new(pem);
        assert_eq!(parse(&issued).err(), Some(CertificateError::EncryptedKey));
    }
}

#[test]
fn garbage_is_named_and_never_quoted() {
    let issued = issue(&["a.test"], &LeafOptions::default());
    let garbage =
        Secret::from("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----".to_owned());
    let cert = issued.cert_pem.as_bytes();
    assert_eq!(
        CertifiedKey::parse(cert, &garbage).err(),
        Some(CertificateError::BadKey)
    );
    let nothing = Secret::from("hunter2".to_owned());
    assert_eq!(
        CertifiedKey::parse(cert, &nothing).err(),
        Some(CertificateError::NoKey)
    );
    let none = CertifiedKey::parse(b"hunter2", &issued.key_pem);
    assert_eq!(none.err(), Some(CertificateError::NoCertificate));
    let broken = b"-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n";
    let bad = CertifiedKey::parse(broken, &issued.key_pem);
    assert_eq!(bad.err(), Some(CertificateError::BadCertificate));
}

#[test]
fn validity_is_judged_at_the_given_moment() {
    let now = ManualClock::new().wall();
    let day = Duration::from_secs(86_400);
    let options = LeafOptions {
        starts_in_secs: 0,
        ends_in_secs: 10 * 86_400,
        ..LeafOptions::default()
    };
    let pair = parse(&issue(&["a.test"], &options)).expect("pair");
    let (start, end) = (pair.not_before(), pair.not_after());
    assert_eq!(pair.check_validity(now + day), Ok(()));
    let early = pair.check_validity(start - Duration::from_secs(1));
    assert_eq!(early, Err(CertificateError::NotYetValid { at: start }));
    assert_eq!(pair.check_validity(start), Ok(()));
    let late = pair.check_validity(end);
    assert_eq!(late, Err(CertificateError::Expired { at: end }));
    let warnings = pair.warnings(
        now + day,
        30 * day,
        Purpose::Server,
        &["a.test", "b.test", "*"],
    );
    let not_covered = CertificateWarning::NotCovered {
        pattern: "b.test".into(),
    };
    let soon = CertificateWarning::ExpiresSoon { at: end };
    assert_eq!(warnings, [soon, not_covered]);
    // What is to be said changes at its start, with the notice, and at its end.
    let next = |at| pair.next_change(at, 2 * day);
    assert_eq!(next(start - day), Some(start));
    assert_eq!(next(start), Some(end - 2 * day));
    assert_eq!(next(end - 2 * day), Some(end));
    assert_eq!(next(end), None);
}

#[test]
fn moments_read_as_people_write_them() {
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert_eq!(Moment(at).to_string(), "2023-11-14 at 22:13:20 UTC");
    assert_eq!(Moment(UNIX_EPOCH).to_string(), "1970-01-01 at 00:00:00 UTC");
}

#[test]
fn a_wildcard_certificate_covers_one_label_only() {
    let pair = parse(&issue(&["*.a.test"], &LeafOptions::default())).expect("pair");
    for (pattern, covered) in [
        ("*.a.test", true),
        ("b.A.test", true),
        ("a.test", false),
        ("c.b.a.test", false),
        ("*.b.a.test", false),
        ("*.test", false),
    ] {
        assert_eq!(pair.covers(pattern), covered, "{pattern}");
    }
}

#[test]
fn a_chain_out_of_order_is_worth_a_warning() {
    let root = Authority::new().expect("root");
    let middle = root.intermediate("middle").expect("middle");
    let issued = middle
        .issue(&["a.test"], &LeafOptions::default())
        .expect("leaf");
    let now = ManualClock::new().wall();
    assert_eq!(
        parse(&issued)
            .expect("pair")
            .warnings(now, Duration::ZERO, Purpose::Server, &["a.test"]),
        []
    );
    let end = issued.cert_pem.rfind("-----BEGIN").expect("two blocks");
    let stranger = Issued {
        cert_pem: issued.cert_pem[..end].to_owned() + &root.cert_pem().expect("pem"),
        key_pem: issued.key_pem,
    };
    let warnings =
        parse(&stranger)
            .expect("pair")
            .warnings(now, Duration::ZERO, Purpose::Server, &["a.test"]);
    assert_eq!(
        warnings,
        [CertificateWarning::ChainOutOfOrder { position: 1 }]
    );
}

#[test]
fn a_bundle_is_told_apart_by_its_digest() {
    let first = Authority::named("one")
        .and_then(|ca| ca.cert_pem())
        .expect("pem");
    let second = Authority::named("two")
        .and_then(|ca| ca.cert_pem())
        .expect("pem");
    let both = CaBundle::parse((first.clone() + &second).as_bytes()).expect("bundle");
    assert_eq!(both.certificates().len(), 2);
    let one = CaBundle::parse(first.as_bytes()).expect("bundle");
    assert_ne!(one.digest(), both.digest());
    assert_eq!(
        one.digest(),
        CaBundle::parse(first.as_bytes()).expect("again").digest()
    );
    assert!(CaBundle::parse(b"").is_err());
}

#[test]
fn halves_in_each_others_place_are_told_so() {
    let issued = issue(&["a.test"], &LeafOptions::default());
    let cert = Secret::from(issued.cert_pem.clone());
    let swapped = CertifiedKey::parse(issued.key_pem.expose(), &cert);
    assert_eq!(swapped.err(), Some(CertificateError::KeyForCertificate));
    let twice = CertifiedKey::parse(cert.expose(), &cert);
    assert_eq!(twice.err(), Some(CertificateError::CertificateForKey));
}

#[test]
fn one_text_may_hold_both_halves_and_other_keys() {
    let issued = issue(&["a.test"], &LeafOptions::default());
    let other = issue(&["b.test"], &LeafOptions::default());
    let mut both = b"Bag Attributes\n".to_vec();
    both.extend(other.key_pem.expose());
    both.extend(issued.key_pem.expose());
    both.extend(issued.cert_pem.as_bytes());
    both.extend(b"garbage behind");
    let windows = String::from_utf8(both.clone()).expect("PEM");
    for text in [both, windows.replace('\n', "\r\n").into_bytes()] {
        let pair = CertifiedKey::parse(&text, &Secret::new(text.clone()));
        assert_eq!(pair.err(), None);
    }
}

#[test]
fn lines_that_were_escaped_twice_are_told_so() {
    let issued = issue(&["a.test"], &LeafOptions::default());
    let escaped = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.trim_end().replace('\n', "\\n")
    };
    let cert = escaped(issued.cert_pem.as_bytes());
    let outcome = CertifiedKey::parse(cert.as_bytes(), &issued.key_pem);
    assert_eq!(outcome.err(), Some(CertificateError::EscapedLines));
    let key = Secret::from(escaped(issued.key_pem.expose()));
    let outcome = CertifiedKey::parse(issued.cert_pem.as_bytes(), &key);
    assert_eq!(outcome.err(), Some(CertificateError::EscapedLines));
}

#[test]
fn a_chain_whose_leaf_is_not_first_names_the_one_that_is() {
    let root = Authority::new().expect("root");
    let middle = root.intermediate("middle").expect("middle");
    let leaf = root
        .issue(&["a.test"], &LeafOptions::default())
        .expect("leaf");
    let cas = middle.cert_pem().expect("pem") + &root.cert_pem().expect("pem");
    let turned = Issued {
        cert_pem: cas + &leaf.cert_pem,
        key_pem: leaf.key_pem,
    };
    let error = parse(&turned).expect_err("the leaf is last");
    assert_eq!(error, CertificateError::LeafNotFirst { position: 3 });
    assert!(!error.is_about_key(), "the chain is what to mend");
}

#[test]
fn other_curves_and_sizes_are_refused() {
    for curve in [Nid::SECP521R1, Nid::SECP256K1, Nid::BRAINPOOL_P256R1] {
        let key = openssl::ec::EcGroup::from_curve_name(curve)
            .and_then(|group| openssl::ec::EcKey::generate(&group))
            .and_then(PKey::from_ec_key);
        let outcome = KeyAlgorithm::of(&*key.expect("key"));
        assert_eq!(outcome, Err(CertificateError::UnsupportedKey), "{curve:?}");
    }
    let x25519 = PKey::generate_x25519().expect("key");
    let outcome = KeyAlgorithm::of(&*x25519);
    assert_eq!(outcome, Err(CertificateError::UnsupportedKey));
    let rsa = |bits: i32| {
        let mut modulus = openssl::bn::BigNum::new().expect("number");
        modulus
            .rand(bits, openssl::bn::MsbOption::ONE, true)
            .expect("number");
        let e = openssl::bn::BigNum::from_u32(65_537).expect("number");
        let key = openssl::rsa::Rsa::from_public_components(modulus, e);
        KeyAlgorithm::of(&*key.and_then(PKey::from_rsa).expect("key"))
    };
    assert_eq!(rsa(2047), Err(CertificateError::WeakKey { bits: 2047 }));
    for bits in [2048i32, 4096, 8192] {
        let size = bits.unsigned_abs();
        assert_eq!(rsa(bits), Ok(KeyAlgorithm::Rsa { bits: size }));
    }
    assert_eq!(rsa(8193), Err(CertificateError::HugeKey { bits: 8193 }));
}

#[test]
fn each_kind_of_key_is_known_by_its_name_and_place() {
    for (key, name, slot) in [
        (KeyKind::EcdsaP256, "ECDSA P-256", KeySlot::Ecdsa),
        (KeyKind::EcdsaP384, "ECDSA P-384", KeySlot::Ecdsa),
        (KeyKind::Rsa2048, "RSA 2048", KeySlot::Rsa),
        (KeyKind::Ed25519, "Ed25519", KeySlot::Ed25519),
    ] {
        let options = LeafOptions {
            key,
            ..LeafOptions::default()
        };
        let algorithm = parse(&issue(&["a.test"], &options))
            .expect("pair")
            .algorithm();
        assert_eq!((&*algorithm.to_string(), algorithm.slot()), (name, slot));
    }
}

#[test]
fn a_use_that_the_certificate_does_not_allow_is_worth_a_warning() {
    let now = ManualClock::new().wall();
    let warnings = |issued: &Issued, purpose| {
        let pair = parse(issued).expect("pair");
        pair.warnings(now, Duration::ZERO, purpose, &[] as &[&str])
    };
    let server = issue(&["a.test"], &LeafOptions::default());
    assert_eq!(warnings(&server, Purpose::Server), []);
    let purpose = CertificateWarning::Purpose(Purpose::Client);
    assert_eq!(warnings(&server, Purpose::Client), [purpose]);
    let client = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    let client = issue(&["someone"], &client);
    assert_eq!(warnings(&client, Purpose::Client), []);
    let purpose = CertificateWarning::Purpose(Purpose::Server);
    assert_eq!(warnings(&client, Purpose::Server), [purpose]);
    let authority = Authority::new().expect("authority");
    let authority = Issued {
        cert_pem: authority.cert_pem().expect("pem"),
        key_pem: authority.key_pem().expect("pem"),
    };
    assert_eq!(
        warnings(&authority, Purpose::Server),
        [
            CertificateWarning::NoAlternativeNames,
            CertificateWarning::Authority,
            CertificateWarning::NoSignatures,
        ]
    );
}

#[test]
fn the_rest_of_a_chain_is_judged_by_its_own_ends() {
    let day = Duration::from_secs(86_400);
    let middle = Authority::new()
        .and_then(|root| root.intermediate("middle"))
        .expect("middle");
    let options = LeafOptions {
        ends_in_secs: 20 * 365 * 86_400,
        ..LeafOptions::default()
    };
    let issued = middle.issue(&["a.test"], &options).expect("leaf");
    let pair = parse(&issued).expect("pair");
    let at = pair.not_before() + Duration::from_secs(3600) + 3650 * day;
    let warnings = |now| pair.warnings(now, 30 * day, Purpose::Server, &["a.test"]);
    let position = 2;
    assert_eq!(warnings(at - 31 * day), []);
    let soon = CertificateWarning::LinkExpiresSoon { position, at };
    assert_eq!(warnings(at - day), [soon]);
    let over = CertificateWarning::LinkExpired { position, at };
    assert_eq!(warnings(at), [over]);
    assert_eq!(
        pair.next_change(at - 40 * day, 30 * day),
        Some(at - 30 * day)
    );
    assert_eq!(pair.next_change(at - day, 30 * day), Some(at));
}

#[test]
fn addresses_are_covered_by_addresses_only() {
    let names = ["a.test", "127.0.0.1", "::1"];
    let pair = parse(&issue(&names, &LeafOptions::default())).expect("pair");
    for (pattern, covered) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("127.0.0.2", false),
        ("a.test", true),
        ("b.test", false),
    ] {
        assert_eq!(pair.covers(pattern), covered, "{pattern}");
    }
}
