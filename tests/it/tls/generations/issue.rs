//! Certificates by the thousand: numbered, and with keys that are at hand where making one is slow.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

/// What kind of key a certificate has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ecdsa,
    Rsa,
}

/// An authority whose certificates have the numbers it is told.
pub(super) struct Mint {
    pub(super) ca: X509,
    key: PKey<Private>,
    rsa: Vec<PKey<Private>>,
}

impl Mint {
    pub(super) fn new() -> Self {
        let key = p256();
        let mut builder = start("mint", 1, &key);
        builder.set_issuer_name(&named("mint")).unwrap();
        let constraints = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(constraints).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let rsa = || PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        Self {
            ca: builder.build(),
            key,
            rsa: (0..3).map(|_| rsa()).collect(),
        }
    }

    /// Certificate and key, PEM.
    pub(super) fn issue(&self, name: &str, number: u32, kind: Kind) -> (String, String) {
        let key = match kind {
            Kind::Ecdsa => p256(),
            Kind::Rsa => self.rsa[number as usize % self.rsa.len()].clone(),
        };
        let mut builder = start(name, number, &key);
        builder.set_issuer_name(self.ca.subject_name()).unwrap();
        let context = builder.x509v3_context(Some(&self.ca), None);
        let names = SubjectAlternativeName::new().dns(name).build(&context);
        builder.append_extension(names.unwrap()).unwrap();
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        let cert = builder.build().to_pem().unwrap();
        (text(cert), text(key.private_key_to_pem_pkcs8().unwrap()))
    }
}

fn start(name: &str, number: u32, key: &PKey<Private>) -> X509Builder {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let number = BigNum::from_u32(number).unwrap();
    let number = number.to_asn1_integer().unwrap();
    builder.set_serial_number(&number).unwrap();
    builder.set_subject_name(&named(name)).unwrap();
    builder.set_pubkey(key).unwrap();
    let from = Asn1Time::from_unix(0).unwrap();
    builder.set_not_before(&from).unwrap();
    let to = Asn1Time::days_from_now(30).unwrap();
    builder.set_not_after(&to).unwrap();
    builder
}

fn named(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().unwrap();
    builder.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    builder.build()
}

fn p256() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}
