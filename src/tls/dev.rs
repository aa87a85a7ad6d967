//! A certificate authority for development and tests. Nothing it makes is meant to be trusted
//! outside the machine it was made on, and nothing in the gateway trusts it by itself.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage,
    SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{
    X509, X509Builder, X509CrlBuilder, X509Extension, X509NameBuilder, X509RevokedBuilder,
};

use crate::clock::{Clock, SystemClock};
use crate::secrets::Secret;

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A leaf needs a name.
    #[error("a certificate needs at least one name")]
    NoName,
    /// OpenSSL refused.
    #[error("openssl could not make the certificate")]
    OpenSsl(#[from] ErrorStack),
}

/// What kind of key a certificate gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// The cheapest to serve.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// Ed25519; few browsers take it.
    Ed25519,
}

/// Which side of a connection a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// Presented by a server.
    #[default]
    Server,
    /// Presented by a client.
    Client,
}

/// How a leaf is made.
#[derive(Debug, Clone)]
pub struct LeafOptions {
    /// Kind of key.
    pub key: KeyKind,
    /// Which side it is for.
    pub usage: Usage,
    /// Start of validity, in seconds from now; negative is in the past.
    pub starts_in_secs: i64,
    /// End of validity, in seconds from now; negative makes an expired certificate.
    pub ends_in_secs: i64,
    /// URL of who is asked whether it is revoked (OCSP).
    pub responder: Option<String>,
}

impl Default for LeafOptions {
    fn default() -> Self {
        Self {
            key: KeyKind::default(),
            usage: Usage::default(),
            starts_in_secs: -HOUR_SECS,
            ends_in_secs: 90 * DAY_SECS,
            responder: None,
        }
    }
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf, then the intermediates it needs; never the root.
    pub cert_pem: String,
    /// PKCS#8.
    pub key_pem: Secret,
}

/// A certificate authority whose key lives in memory only.
pub struct Authority {
    cert: X509,
    key: PKey<Private>,
    /// What a leaf must send besides itself; empty for a root.
    chain: Vec<X509>,
    now: SystemTime,
}

impl Authority {
    /// A new root called `Claviger development CA`, valid for ten years.
    ///
    /// # Errors
    /// OpenSSL refused.
    pub fn new() -> Result<Self, DevError> {
        Self::named("Claviger development CA")
    }

    /// A new root of another name, so that two can be told apart.
    ///
    /// # Errors
    /// OpenSSL refused.
    pub fn named(name: &str) -> Result<Self, DevError> {
        let key = generate(KeyKind::EcdsaP256)?;
        let now = SystemClock.wall();
        let mut builder = start(name, &key, now, -HOUR_SECS, 3650 * DAY_SECS)?;
        let issuer = subject(name)?;
        builder.set_issuer_name(&issuer)?;
        authority_extensions(&mut builder, None)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            cert: builder.build(),
            key,
            chain: Vec::new(),
            now,
        })
    }

    /// An intermediate under this authority. Its leaves carry it in their chain.
    ///
    /// # Errors
    /// OpenSSL refused.
    pub fn intermediate(&self, name: &str) -> Result<Self, DevError> {
        let key = generate(KeyKind::EcdsaP256)?;
        let mut builder = start(name, &key, self.now, -HOUR_SECS, 3650 * DAY_SECS)?;
        builder.set_issuer_name(self.cert.subject_name())?;
        authority_extensions(&mut builder, Some(&self.cert))?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        let cert = builder.build();
        let mut chain = vec![cert.clone()];
        chain.extend(self.chain.iter().cloned());
        Ok(Self {
            cert,
            key,
            chain,
            now: self.now,
        })
    }

    /// The authority's own certificate, for clients to trust.
    ///
    /// # Errors
    /// OpenSSL refused.
    pub fn cert_pem(&self) -> Result<String, DevError> {
        Ok(pem_text(self.cert.to_pem()?))
    }

    /// The authority's key, for a caller that wants to issue again later.
    ///
    /// # Errors
    /// OpenSSL refused.
    pub fn key_pem(&self) -> Result<Secret, DevError> {
        Ok(Secret::new(self.key.private_key_to_pem_pkcs8()?))
    }

    /// A leaf for these names: DNS names, wildcards or IP addresses. The first is its subject.
    ///
    /// # Errors
    /// There is no name, or OpenSSL refused one (longer than 64 bytes as subject).
    pub fn issue(&self, names: &[&str], options: &LeafOptions) -> Result<Issued, DevError> {
        let first = names.first().ok_or(DevError::NoName)?;
        let key = generate(options.key)?;
        let mut builder = start(
            first,
            &key,
            self.now,
            options.starts_in_secs,
            options.ends_in_secs,
        )?;
        builder.set_issuer_name(self.cert.subject_name())?;
        leaf_extensions(&mut builder, &self.cert, names, options.usage)?;
        if let Some(url) = &options.responder {
            builder.append_extension(authority_access(url)?)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        let mut cert_pem = builder.build().to_pem()?;
        for link in &self.chain {
            cert_pem.extend(link.to_pem()?);
        }
        Ok(Issued {
            cert_pem: pem_text(cert_pem),
            key_pem: Secret::new(key.private_key_to_pem_pkcs8()?),
        })
    }

    /// A revocation list of this authority over these certificates (PEM), which ends so many
    /// seconds from now; negative makes one that has ended.
    ///
    /// # Errors
    /// A certificate does not parse, or OpenSSL refused.
    pub fn revoke(&self, certificates: &[&str], ends_in_secs: i64) -> Result<String, DevError> {
        let now = seconds(self.now);
        let start = Asn1Time::from_unix(now.saturating_add(ends_in_secs.min(0) - HOUR_SECS))?;
        let end = Asn1Time::from_unix(now.saturating_add(ends_in_secs))?;
        let mut builder = X509CrlBuilder::new()?;
        builder.set_issuer_name(self.cert.subject_name())?;
        builder.set_last_update(&start)?;
        builder.set_next_update(&end)?;
        for certificate in certificates {
            let certificate = X509::from_pem(certificate.as_bytes())?;
            let mut revoked = X509RevokedBuilder::new()?;
            revoked.set_serial_number(certificate.serial_number())?;
            revoked.set_revocation_date(&start)?;
            builder.add_revoked(revoked.build())?;
        }
        let none = X509::builder()?;
        let issuer = AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&none.x509v3_context(Some(&self.cert), None))?;
        builder.append_extension(issuer)?;
        builder.append_extension(CrlNumber::new(BigNum::from_u32(1)?)?.build()?)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(pem_text(builder.build()?.to_pem()?))
    }
}

fn pem_text(pem: Vec<u8>) -> String {
    String::from_utf8(pem).expect("PEM is ASCII")
}

fn generate(kind: KeyKind) -> Result<PKey<Private>, ErrorStack> {
    match kind {
        KeyKind::EcdsaP256 => generate_ec(Nid::X9_62_PRIME256V1),
        KeyKind::EcdsaP384 => generate_ec(Nid::SECP384R1),
        KeyKind::Rsa2048 => PKey::from_rsa(Rsa::generate(2048)?),
        KeyKind::Ed25519 => PKey::generate_ed25519(),
    }
}

fn generate_ec(curve: Nid) -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(curve)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn subject(name: &str) -> Result<openssl::x509::X509Name, ErrorStack> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    Ok(subject.build())
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed())
}

/// Everything that root, intermediate and leaf have in common.
fn start(
    name: &str,
    key: &PKey<Private>,
    now: SystemTime,
    starts_in_secs: i64,
    ends_in_secs: i64,
) -> Result<X509Builder, ErrorStack> {
    let now = seconds(now);
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let serial: Asn1Integer = serial.to_asn1_integer()?;
    let name = subject(name)?;

    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_pubkey(key)?;
    let not_before = Asn1Time::from_unix(now.saturating_add(starts_in_secs))?;
    let not_after = Asn1Time::from_unix(now.saturating_add(ends_in_secs))?;
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    Ok(builder)
}

fn authority_extensions(
    builder: &mut X509Builder,
    issuer: Option<&X509>,
) -> Result<(), ErrorStack> {
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    let usage = KeyUsage::new()
        .critical()
        .key_cert_sign()
        .crl_sign()
        .build()?;
    builder.append_extension(usage)?;
    key_identifiers(builder, issuer)
}

fn leaf_extensions(
    builder: &mut X509Builder,
    issuer: &X509,
    names: &[&str],
    usage: Usage,
) -> Result<(), ErrorStack> {
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    let key_usage = KeyUsage::new().critical().digital_signature().build()?;
    builder.append_extension(key_usage)?;
    let mut extended = ExtendedKeyUsage::new();
    match usage {
        Usage::Server => extended.server_auth(),
        Usage::Client => extended.client_auth(),
    };
    builder.append_extension(extended.build()?)?;
    let mut alternatives = SubjectAlternativeName::new();
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(_) => alternatives.ip(name),
            Err(_) => alternatives.dns(name),
        };
    }
    let alternatives = alternatives.build(&builder.x509v3_context(Some(issuer), None))?;
    builder.append_extension(alternatives)?;
    key_identifiers(builder, Some(issuer))
}

/// Where OCSP is spoken (RFC 5280 §4.2.2.1).
fn authority_access(url: &str) -> Result<X509Extension, ErrorStack> {
    const OCSP: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01";
    let description = [block(0x06, OCSP), block(0x86, url.as_bytes())].concat();
    let content = block(0x30, &block(0x30, &description));
    let oid = Asn1Object::from_str("1.3.6.1.5.5.7.1.1")?;
    let content = Asn1OctetString::new_from_bytes(&content)?;
    X509Extension::new_from_der(&oid, false, &content)
}

/// A value in DER, its length in the form of two bytes at most.
fn block(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, ..0x80) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}

fn key_identifiers(builder: &mut X509Builder, issuer: Option<&X509>) -> Result<(), ErrorStack> {
    let issuer = issuer.map(AsRef::as_ref);
    let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(issuer, None))?;
    builder.append_extension(own)?;
    if issuer.is_some() {
        let theirs = AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&builder.x509v3_context(issuer, None))?;
        builder.append_extension(theirs)?;
    }
    Ok(())
}

const HOUR_SECS: i64 = 3600;
const DAY_SECS: i64 = 24 * HOUR_SECS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_signed_by_its_authority_and_carries_its_names() {
        let authority = Authority::new().expect("authority");
        let leaf = authority
            .issue(
                &["a.test", "*.a.test", "127.0.0.1"],
                &LeafOptions::default(),
            )
            .expect("leaf");
        let cert = X509::from_pem(leaf.cert_pem.as_bytes()).expect("pem");
        assert!(cert.verify(&authority.key).expect("verify"));
        let names = cert.subject_alt_names().expect("names");
        assert_eq!(
            names.get(1).and_then(|name| name.dnsname()),
            Some("*.a.test")
        );
        assert!(names.get(2).is_some_and(|name| name.ipaddress().is_some()));
        let key = PKey::private_key_from_pem(leaf.key_pem.expose()).expect("key");
        assert!(cert.public_key().expect("public").public_eq(&key));
    }

    #[test]
    fn a_leaf_of_an_intermediate_carries_it_in_its_chain() {
        let root = Authority::new().expect("root");
        let middle = root.intermediate("middle").expect("intermediate");
        let options = LeafOptions {
            key: KeyKind::Rsa2048,
            ..LeafOptions::default()
        };
        let leaf = middle.issue(&["a.test"], &options).expect("leaf");
        let chain = X509::stack_from_pem(leaf.cert_pem.as_bytes()).expect("pem");
        assert_eq!(chain.len(), 2);
        assert!(chain[1].verify(&root.key).expect("verify"));
    }

    #[test]
    fn a_leaf_needs_a_name() {
        let authority = Authority::new().expect("authority");
        let outcome = authority.issue(&[], &LeafOptions::default());
        assert!(matches!(outcome, Err(DevError::NoName)));
    }
}
