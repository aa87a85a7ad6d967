//! A certificate chain with its key, parsed once and handed to every handshake. Errors name what
//! is wrong and never hold a byte of what was read.

mod finding;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sha::Sha256;
use openssl::stack::Stack;
use openssl::x509::{GeneralName, X509, X509ExtendedKeyUsage, X509KeyUsage, X509Ref};
use pingora_core::utils::tls::CertKey;

use super::chains::{Chain, Chains};
use super::key::{KeyAlgorithm, parse_keys};
use super::sni_store::covers;
use super::stapling::{Staple, Stapling};
use super::{ffi, pem};
use crate::secrets::Secret;

pub use finding::{CertificateError, CertificateWarning, Moment, Purpose};

/// A chain and the key of its leaf.
pub struct CertifiedKey {
    leaf: X509,
    chain: Arc<Chain>,
    key: PKey<Private>,
    algorithm: KeyAlgorithm,
    not_before: SystemTime,
    not_after: SystemTime,
    fingerprint: [u8; 32],
    /// What its authority said of the leaf. Here, so that it never goes with another certificate.
    staple: ArcSwapOption<Staple>,
}

/// Where a moment stands to the validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Before it.
    Early,
    /// Within.
    Valid,
    /// Past its end.
    Expired,
}

impl CertifiedKey {
    /// Parses a chain (leaf first) and its key, both PEM, and checks that they belong together
    /// and that OpenSSL will agree to present them. Looks at no clock: [`Self::check_validity`].
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn parse(cert: &[u8], key: &Secret) -> Result<Self, CertificateError> {
        Self::parse_sharing(cert, key, &Chains::new())
    }

    /// The same; what follows the leaf is shared with equal chains. Of several keys the one that
    /// fits is taken.
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn parse_sharing(
        cert: &[u8],
        key: &Secret,
        chains: &Chains,
    ) -> Result<Self, CertificateError> {
        let mut ders = parse_blocks(cert)?;
        let leaf = ders.remove(0);
        let leaf = X509::from_der(&leaf).map_err(|_| CertificateError::BadCertificate)?;
        if has_weak_signature(&leaf) {
            return Err(CertificateError::WeakSignature);
        }
        let chain = chains.share(&ders)?;
        let mut keys = parse_keys(key)?;
        let Some(fitting) = keys.iter().position(|key| belongs(key, &leaf)) else {
            return Err(why_none_fits(&keys, &chain));
        };
        let key_of_leaf = keys.swap_remove(fitting);
        Ok(Self {
            algorithm: KeyAlgorithm::of(&key_of_leaf)?,
            not_before: time(leaf.not_before())?,
            not_after: time(leaf.not_after())?,
            fingerprint: fingerprint(cert, key),
            leaf,
            chain,
            key: key_of_leaf,
            staple: ArcSwapOption::empty(),
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
        self.chain.links()
    }

    /// The private key. It stays inside OpenSSL, which wipes it when the last holder goes.
    #[must_use]
    pub fn key(&self) -> &PKey<Private> {
        &self.key
    }

    /// What kind of key it is.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// Start of validity of the leaf.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
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

    /// SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint -sha256` show it but
    /// without colons. Reckoned when asked for.
    #[must_use]
    pub fn sha256(&self) -> String {
        let digest = self.leaf.digest(MessageDigest::sha256());
        let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        digest.map_or_else(|_| String::new(), |digest| hex(&digest))
    }

    /// The response to send with the leaf at this moment, under these settings. Waits for nothing.
    #[must_use]
    pub fn staple(&self, settings: Stapling, now: SystemTime) -> Option<Arc<Staple>> {
        let staple = self.staple.load();
        let fit = staple.as_ref().filter(|staple| staple.fits(settings, now));
        fit.cloned()
    }

    /// Has this response sent with the leaf from now on; `None` for none.
    pub(super) fn set_staple(&self, staple: Option<Arc<Staple>>) {
        self.staple.store(staple);
    }

    /// Where this moment stands to the validity of the leaf.
    #[must_use]
    pub fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            Validity::Early
        } else if now < self.not_after {
            Validity::Valid
        } else {
            Validity::Expired
        }
    }

    /// Whether the leaf is valid at this moment.
    ///
    /// # Errors
    /// [`CertificateError::Expired`] or [`CertificateError::NotYetValid`].
    pub fn check_validity(&self, now: SystemTime) -> Result<(), CertificateError> {
        match self.validity(now) {
            Validity::Valid => Ok(()),
            Validity::Early => Err(CertificateError::NotYetValid {
                at: self.not_before,
            }),
            Validity::Expired => Err(CertificateError::Expired { at: self.not_after }),
        }
    }

    /// The next moment at which validity or [`Self::warnings`] change; `None` where none comes.
    #[must_use]
    pub fn next_change(&self, now: SystemTime, notice: Duration) -> Option<SystemTime> {
        let ends = std::iter::once(&self.not_after).chain(self.chain.ends());
        let moments = ends.flat_map(|end| [end.checked_sub(notice), Some(*end)]);
        let moments = moments.flatten().chain([self.not_before]);
        moments.filter(|moment| *moment > now).min()
    }

    /// What deserves a look in a pair that is used for this, under these patterns: less than
    /// `notice` left, names that are not covered, a use that the certificate does not allow, a
    /// chain out of order or past its end, a key that makes handshakes dear.
    #[must_use]
    pub fn warnings(
        &self,
        now: SystemTime,
        notice: Duration,
        purpose: Purpose,
        patterns: &[impl AsRef<str>],
    ) -> Vec<CertificateWarning> {
        let mut warnings = Vec::new();
        let soon = |end: SystemTime| end.duration_since(now).is_ok_and(|left| left < notice);
        if self.not_after > now && soon(self.not_after) {
            let at = self.not_after;
            warnings.push(CertificateWarning::ExpiresSoon { at });
        }
        self.about_names(purpose, patterns, &mut warnings);
        self.about_use(purpose, &mut warnings);
        for (position, end) in (2..).zip(self.chain.ends()) {
            let at = *end;
            if at <= now {
                warnings.push(CertificateWarning::LinkExpired { position, at });
            } else if soon(at) && at < self.not_after {
                warnings.push(CertificateWarning::LinkExpiresSoon { position, at });
            }
        }
        let links = std::iter::once(&self.leaf).chain(self.intermediates());
        for (position, (link, next)) in (1..).zip(links.zip(self.intermediates())) {
            if !same_name(link, next) {
                warnings.push(CertificateWarning::ChainOutOfOrder { position });
                break;
            }
        }
        if let Some(bits) = self.algorithm.rsa_bits()
            && bits > CHEAP_RSA_BITS
        {
            warnings.push(CertificateWarning::DearKey { bits });
        }
        warnings
    }

    fn about_names(
        &self,
        purpose: Purpose,
        patterns: &[impl AsRef<str>],
        warnings: &mut Vec<CertificateWarning>,
    ) {
        if purpose == Purpose::Client {
            return;
        }
        let names = self.leaf.subject_alt_names();
        if names.is_none() {
            warnings.push(CertificateWarning::NoAlternativeNames);
        }
        for pattern in patterns.iter().map(AsRef::as_ref) {
            if !self.is_covered(names.as_ref(), pattern) {
                let pattern = pattern.into();
                warnings.push(CertificateWarning::NotCovered { pattern });
            }
        }
    }

    fn about_use(&self, purpose: Purpose, warnings: &mut Vec<CertificateWarning>) {
        if ffi::is_authority(&self.leaf) {
            warnings.push(CertificateWarning::Authority);
        }
        let (wanted, gated) = match purpose {
            // Netscape's and Microsoft's gated cryptography stood for serverAuth once.
            Purpose::Server => (X509ExtendedKeyUsage::SSL_SERVER, X509ExtendedKeyUsage::SGC),
            Purpose::Client => (
                X509ExtendedKeyUsage::SSL_CLIENT,
                X509ExtendedKeyUsage::empty(),
            ),
        };
        let enough = wanted | gated | X509ExtendedKeyUsage::ANYEKU;
        let usage = self.leaf.extended_key_usage();
        if usage.is_some_and(|usage| !usage.intersects(enough)) {
            warnings.push(CertificateWarning::Purpose(purpose));
        }
        let usage = self.leaf.key_usage();
        if usage.is_some_and(|usage| !usage.contains(X509KeyUsage::DIGITAL_SIGNATURE)) {
            warnings.push(CertificateWarning::NoSignatures);
        }
    }

    /// Whether a client that asks for a name of this pattern would accept the leaf. `*` alone
    /// asks for nothing in particular.
    #[must_use]
    pub fn covers(&self, pattern: &str) -> bool {
        self.is_covered(self.leaf.subject_alt_names().as_ref(), pattern)
    }

    fn is_covered(&self, names: Option<&Stack<GeneralName>>, pattern: &str) -> bool {
        if pattern == "*" {
            return true;
        }
        if let Some(names) = names {
            return match pattern.parse::<IpAddr>() {
                Ok(ip) => names.iter().any(|name| is_address(name.ipaddress(), ip)),
                Err(_) => {
                    let mut names = names.iter().filter_map(|name| name.dnsname());
                    names.any(|name| covers(name, pattern))
                }
            };
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
        let mut chain = Vec::with_capacity(1 + self.intermediates().len());
        chain.push(self.leaf.clone());
        chain.extend(self.intermediates().iter().cloned());
        CertKey::new(chain, self.key.clone())
    }
}

impl CertifiedKey {
    /// The same, to be used once: of RSA with a key of its own ([`ffi::copy_of_key`]).
    pub(super) fn to_try(&self) -> Result<Self, ErrorStack> {
        let key = match self.algorithm.rsa_bits() {
            Some(_) => ffi::copy_of_key(&self.key)?,
            None => self.key.clone(),
        };
        Ok(Self {
            leaf: self.leaf.clone(),
            chain: Arc::clone(&self.chain),
            key,
            staple: ArcSwapOption::new(self.staple.load_full()),
            ..*self
        })
    }
}

impl std::fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertifiedKey")
            .field("algorithm", &self.algorithm)
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

/// The certificates of a text, as DER; never none.
fn parse_blocks(text: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let mut ders = Vec::with_capacity(2);
    let mut key = false;
    for block in pem::blocks(text) {
        let block = block.map_err(|pem::Torn| CertificateError::BadCertificate)?;
        key |= block.is_private_key();
        if block.is_certificate() {
            let der = block.decode().ok_or(CertificateError::BadCertificate)?;
            ders.push(der);
        }
    }
    match ders.is_empty() {
        false => Ok(ders),
        true if key => Err(CertificateError::KeyForCertificate),
        true => Err(CertificateError::no_block(
            text,
            CertificateError::NoCertificate,
        )),
    }
}

fn parse_certificates(text: &[u8]) -> Result<Vec<X509>, CertificateError> {
    let ders = parse_blocks(text)?;
    let certificates = ders.iter().map(|der| X509::from_der(der));
    let certificates: Result<_, _> = certificates.collect();
    certificates.map_err(|_| CertificateError::BadCertificate)
}

fn belongs(key: &PKey<Private>, certificate: &X509) -> bool {
    let public = certificate.public_key();
    public.is_ok_and(|public| public.public_eq(key))
}

/// Why no key belongs to the leaf.
fn why_none_fits(keys: &[PKey<Private>], chain: &Chain) -> CertificateError {
    for key in keys {
        if let Err(error) = KeyAlgorithm::of(key) {
            return error;
        }
    }
    let fits = |link: &X509| keys.iter().any(|key| belongs(key, link));
    match chain.links().iter().position(fits) {
        Some(link) => CertificateError::LeafNotFirst { position: link + 2 },
        None => CertificateError::Mismatch,
    }
}

fn is_address(name: Option<&[u8]>, ip: IpAddr) -> bool {
    name.is_some_and(|name| match ip {
        IpAddr::V4(ip) => ip.octets() == name,
        IpAddr::V6(ip) => ip.octets() == name,
    })
}

/// OpenSSL's security level 2 (default since 3.2) refuses these in `SSL_use_certificate`, but not
/// on a self-signed root, whose signature nobody checks.
pub(super) fn has_weak_signature(certificate: &X509) -> bool {
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

pub(super) fn time(at: &Asn1TimeRef) -> Result<SystemTime, CertificateError> {
    let seconds = Asn1Time::from_unix(0)
        .and_then(|epoch| epoch.diff(at))
        .map_err(|_| CertificateError::BadCertificate)
        .map(|since| i64::from(since.days) * 86_400 + i64::from(since.secs))?;
    // A time before 1970 is as good as 1970.
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Longer keys make a signature take milliseconds.
const CHEAP_RSA_BITS: u32 = 4096;

#[cfg(test)]
mod tests;
