use openssl::symm::Cipher;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::tls::dev::{Authority, Issued, KeyKind, LeafOptions};

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
