//! A certificate chain with its key, parsed once and handed to every handshake. Errors name what
//! is wrong and never hold a byte of what was read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::Sha256;
use openssl::x509::{X509, X509Ref};
use pingora_core::utils::tls::CertKey;

use super::sni_store::covers;
use crate::secrets::Secret;

/// Why a certificate, a key or a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text holds no certificate block.
    #[error("no PEM certificate found")]
    NoCertificate,
    /// A block that is not a certificate.
    #[error("a PEM certificate does not parse")]
    BadCertificate,
    /// The text holds no private key block.
    #[error("no PEM private key found")]
    NoKey,
    /// A pass phrase would be needed, and there is nobody to ask.
    #[error("the private key is encrypted; encrypted keys are not supported")]
    EncryptedKey,
    /// A block that is not a private key.
    #[error("the PEM private key does not parse")]
    BadKey,
    /// Neither RSA, ECDSA on P-256 or P-384, nor Ed25519.
    #[error("the key must be RSA, ECDSA on P-256 or P-384, or Ed25519")]
    UnsupportedKey,
    /// RSA below 2048 bits.
    #[error("the RSA key has {bits} bits; at least 2048 are needed")]
    WeakKey {
        /// Size of the modulus.
        bits: u32,
    },
    /// Signed with MD5 or SHA-1: OpenSSL would refuse it in every handshake.
    #[error("a certificate of the chain is signed with MD5 or SHA-1")]
    WeakSignature,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// Past its end.
    #[error("the certificate expired {days} day(s) ago")]
    Expired {
        /// Whole days since.
        days: u64,
    },
    /// Before its start.
    #[error("the certificate is not valid for another {days} day(s)")]
    NotYetValid {
        /// Whole days until.
        days: u64,
    },
}

impl CertificateError {
    /// Whether the key is what should be looked at, and not the certificate.
    #[must_use]
    pub const fn is_about_key(&self) -> bool {
        matches!(
            self,
            Self::NoKey
                | Self::EncryptedKey
                | Self::BadKey
                | Self::UnsupportedKey
                | Self::WeakKey { .. }
                | Self::Mismatch
        )
    }
}

/// What deserves a look though the certificate serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateWarning {
    /// Less than the caller's notice is left.
    #[error("the certificate expires in {days} day(s)")]
    ExpiresSoon {
        /// Whole days left.
        days: u64,
    },
    /// A pattern of the item that the certificate does not cover; clients will refuse it.
    #[error("the certificate does not cover {pattern}")]
    NotCovered {
        /// The pattern, as configured.
        pattern: Box<str>,
    },
    /// A link whose issuer is not the next certificate.
    #[error("the chain is out of order: certificate {position} was not issued by the next one")]
    ChainOutOfOrder {
        /// Position from 1.
        position: usize,
    },
}

/// A chain and the key of its leaf.
pub struct CertifiedKey {
    leaf: X509,
    intermediates: Vec<X509>,
    key: PKey<Private>,
    not_before: SystemTime,
    not_after: SystemTime,
    fingerprint: [u8; 32],
}

impl CertifiedKey {
    /// Parses a chain (leaf first) and its key, both PEM, and checks that they belong together
    /// and that OpenSSL will agree to present them. Looks at no clock: [`Self::check_validity`].
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn parse(cert: &[u8], key: &Secret) -> Result<Self, CertificateError> {
        let mut chain = parse_certificates(cert)?;
        if chain.iter().any(has_weak_signature) {
            return Err(CertificateError::WeakSignature);
        }
        let fingerprint = fingerprint(cert, key);
        let leaf = chain.remove(0);
        let key = parse_key(key)?;
        let public = leaf
            .public_key()
            .map_err(|_| CertificateError::BadCertificate)?;
        if !public.public_eq(&key) {
            return Err(CertificateError::Mismatch);
        }
        Ok(Self {
            not_before: time(leaf.not_before())?,
            not_after: time(leaf.not_after())?,
            leaf,
            intermediates: chain,
            key,
            fingerprint,
        })
    }

    /// The certificate itself.
    #[must_use]
    pub fn leaf(&self) -> &X509 {
        &self.leaf
    }

    /// The rest of the chain, as configured.
    #[must_use]
    pub fn intermediates(&self) -> &[X509] {
        &self.intermediates
    }

    /// The private key. It stays inside OpenSSL, which wipes it when the last holder goes.
    #[must_use]
    pub fn key(&self) -> &PKey<Private> {
        &self.key
    }

    /// End of validity of the leaf.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Digest of both texts: equal exactly when the same pair was parsed again.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether the leaf is valid at this moment.
    ///
    /// # Errors
    /// [`CertificateError::Expired`] or [`CertificateError::NotYetValid`].
    pub fn check_validity(&self, now: SystemTime) -> Result<(), CertificateError> {
        if let Ok(until) = self.not_before.duration_since(now)
            && !until.is_zero()
        {
            let days = whole_days(until);
            return Err(CertificateError::NotYetValid { days });
        }
        match now.duration_since(self.not_after) {
            Ok(since) => Err(CertificateError::Expired {
                days: whole_days(since),
            }),
            Err(_) => Ok(()),
        }
    }

    /// What deserves a look: less than `notice` left, patterns that are not covered, a chain out
    /// of order.
    #[must_use]
    pub fn warnings(
        &self,
        now: SystemTime,
        notice: Duration,
        patterns: &[impl AsRef<str>],
    ) -> Vec<CertificateWarning> {
        let mut warnings = Vec::new();
        if let Ok(left) = self.not_after.duration_since(now)
            && left < notice
        {
            let days = whole_days(left);
            warnings.push(CertificateWarning::ExpiresSoon { days });
        }
        for pattern in patterns.iter().map(AsRef::as_ref) {
            if !self.covers(pattern) {
                let pattern = pattern.into();
                warnings.push(CertificateWarning::NotCovered { pattern });
            }
        }
        let links = std::iter::once(&self.leaf).chain(&self.intermediates);
        for (position, (link, next)) in links.zip(&self.intermediates).enumerate() {
            if !same_name(link, next) {
                let position = position + 1;
                warnings.push(CertificateWarning::ChainOutOfOrder { position });
                break;
            }
        }
        warnings
    }

    /// Whether a client that asks for a name of this pattern would accept the leaf. `*` alone
    /// asks for nothing in particular.
    #[must_use]
    pub fn covers(&self, pattern: &str) -> bool {
        if pattern == "*" {
            return true;
        }
        if let Some(names) = self.leaf.subject_alt_names() {
            let mut names = names.iter().filter_map(|name| name.dnsname());
            return names.any(|name| covers(name, pattern));
        }
        let mut entries = self.leaf.subject_name().entries_by_nid(Nid::COMMONNAME);
        entries.any(|entry| {
            let name = entry.data().to_string();
            name.is_ok_and(|name| covers(&name, pattern))
        })
    }

    /// The same pair as Pingora presents it to upstreams.
    #[must_use]
    pub fn for_upstream(&self) -> CertKey {
        let mut chain = Vec::with_capacity(1 + self.intermediates.len());
        chain.push(self.leaf.clone());
        chain.extend(self.intermediates.iter().cloned());
        CertKey::new(chain, self.key.clone())
    }
}

impl std::fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertifiedKey")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Certificates that are trusted, and a digest that changes with them.
#[derive(Clone)]
pub struct CaBundle {
    certificates: Vec<X509>,
    digest: [u8; 32],
}

impl CaBundle {
    /// Parses one or more PEM certificates.
    ///
    /// # Errors
    /// There is none, or one does not parse.
    pub fn parse(pem: &[u8]) -> Result<Self, CertificateError> {
        let certificates = parse_certificates(pem)?;
        let mut digest = Sha256::new();
        for certificate in &certificates {
            let one = certificate.digest(MessageDigest::sha256());
            digest.update(&one.map_err(|_| CertificateError::BadCertificate)?);
        }
        Ok(Self {
            certificates,
            digest: digest.finish(),
        })
    }

    /// The certificates, in file order.
    #[must_use]
    pub fn certificates(&self) -> &[X509] {
        &self.certificates
    }

    /// Digest over all of them, in order.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether a certificate of it is self-signed by name: chains end at one.
    #[must_use]
    pub fn has_root(&self) -> bool {
        let mut certificates = self.certificates.iter();
        certificates.any(|certificate| same_name(certificate, certificate))
    }

    /// As `PeerOptions::ca` wants it.
    #[must_use]
    pub fn for_upstream(&self) -> std::sync::Arc<Box<[X509]>> {
        std::sync::Arc::new(self.certificates.clone().into_boxed_slice())
    }
}

/// Digest of a pair's texts, to tell without parsing that nothing changed.
#[must_use]
pub fn fingerprint(cert: &[u8], key: &Secret) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(&(cert.len() as u64).to_be_bytes());
    digest.update(cert);
    digest.update(key.expose());
    digest.finish()
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<X509>, CertificateError> {
    let chain = X509::stack_from_pem(pem).map_err(|_| CertificateError::BadCertificate)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    Ok(chain)
}

fn parse_key(pem: &Secret) -> Result<PKey<Private>, CertificateError> {
    let bytes = pem.expose();
    if memchr::memmem::find(bytes, b"PRIVATE KEY-----").is_none() {
        return Err(CertificateError::NoKey);
    }
    if memchr::memmem::find(bytes, b"ENCRYPTED").is_some() {
        return Err(CertificateError::EncryptedKey);
    }
    // Without a callback OpenSSL would ask for a pass phrase on the terminal.
    let key = PKey::private_key_from_pem_callback(bytes, |_| Ok(0))
        .map_err(|_| CertificateError::BadKey)?;
    match key.id() {
        Id::RSA | Id::RSA_PSS if key.bits() < MIN_RSA_BITS => {
            Err(CertificateError::WeakKey { bits: key.bits() })
        }
        Id::RSA | Id::RSA_PSS | Id::ED25519 => Ok(key),
        Id::EC if is_supported_curve(&key) => Ok(key),
        _ => Err(CertificateError::UnsupportedKey),
    }
}

fn is_supported_curve(key: &PKey<Private>) -> bool {
    let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
    matches!(curve, Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1))
}

/// OpenSSL's security level 2 (default since 3.2) refuses these in `SSL_use_certificate`, but not
/// on a self-signed root, whose signature nobody checks.
fn has_weak_signature(certificate: &X509) -> bool {
    let algorithm = certificate.signature_algorithm().object().nid();
    let weak = matches!(
        algorithm,
        Nid::MD5WITHRSAENCRYPTION
            | Nid::SHA1WITHRSAENCRYPTION
            | Nid::SHA1WITHRSA
            | Nid::ECDSA_WITH_SHA1
            | Nid::DSAWITHSHA1
    );
    weak && !same_name(certificate, certificate)
}

/// Whether `issuer` names itself as `link` names its issuer.
fn same_name(link: &X509Ref, issuer: &X509Ref) -> bool {
    let order = link.issuer_name().try_cmp(issuer.subject_name());
    order.is_ok_and(std::cmp::Ordering::is_eq)
}

fn time(at: &Asn1TimeRef) -> Result<SystemTime, CertificateError> {
    let seconds = Asn1Time::from_unix(0)
        .and_then(|epoch| epoch.diff(at))
        .map_err(|_| CertificateError::BadCertificate)
        .map(|since| i64::from(since.days) * 86_400 + i64::from(since.secs))?;
    // A time before 1970 is as good as 1970.
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn whole_days(of: Duration) -> u64 {
    of.as_secs() / 86_400
}

const MIN_RSA_BITS: u32 = 2048;

#[cfg(test)]
mod tests;
