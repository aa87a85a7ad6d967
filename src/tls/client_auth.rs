//! Client mutual TLS of a name: whose certificates it accepts, and whether one must be presented
//! in the handshake or only for some paths. Made at load; a handshake takes a share of it.

use std::cmp::Ordering;
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::ssl::{SslRef, SslVerifyMode};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId};
use pingora_core::tls::ext;
use regex::Regex;

use super::certificate::CaBundle;
use super::ffi;
use super::revocation::RevocationLists;

/// What upstreams are told of a verified client (RFC 9440).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forward {
    /// Nothing.
    #[default]
    Nothing,
    /// `Client-Cert`.
    Leaf,
    /// `Client-Cert` and `Client-Cert-Chain`. Sessions do not resume: they keep no chain.
    Chain,
}

/// What a name asks of its clients.
pub struct ClientRules {
    /// Who may issue their certificates.
    pub ca: CaBundle,
    /// Intermediates there may be between a certificate and its root (APISIX default 1).
    pub depth: u32,
    /// What was revoked. With it, every issuer of a chain, the root too, must have a list.
    pub revoked: Option<RevocationLists>,
    /// Paths that need no certificate. `None` has every handshake without a good one refused;
    /// with `Some` it is asked for, and requests for all other paths are refused.
    pub exempt: Option<Vec<Regex>>,
    /// What upstreams are told.
    pub forward: Forward,
}

impl ClientRules {
    /// Only these issuers; everything else as by default.
    #[must_use]
    pub fn new(ca: CaBundle) -> Self {
        Self {
            ca,
            depth: 1,
            revoked: None,
            exempt: None,
            forward: Forward::Nothing,
        }
    }
}

/// [`ClientRules`] as handshakes and requests use them.
pub struct ClientAuth {
    store: X509Store,
    /// One certificate of each name that clients are told of.
    hints: Vec<X509>,
    depth: i32,
    exempt: Option<Vec<Regex>>,
    forward: Forward,
    /// End of the revocation list that ends first.
    fresh_until: Option<SystemTime>,
    digest: [u8; 32],
}

impl ClientAuth {
    /// What these rules come to.
    ///
    /// # Errors
    /// OpenSSL refused a certificate or a list.
    pub fn build(rules: ClientRules) -> Result<Self, ErrorStack> {
        let depth = i32::try_from(rules.depth).unwrap_or(i32::MAX);
        let mut param = X509VerifyParam::new()?;
        param.set_depth(depth);
        param.set_purpose(X509PurposeId::SSL_CLIENT)?;
        param.set_auth_level(AUTH_LEVEL);
        let mut store = X509StoreBuilder::new()?;
        for certificate in rules.ca.certificates() {
            store.add_cert(certificate.clone())?;
        }
        let mut digest = Sha256::new();
        digest.update(rules.ca.digest());
        digest.update(&rules.depth.to_be_bytes());
        digest.update(&[
            u8::from(rules.revoked.is_some()),
            u8::from(rules.forward == Forward::Chain),
        ]);
        if let Some(revoked) = &rules.revoked {
            param.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)?;
            for list in revoked.lists() {
                ffi::add_crl(&mut store, list)?;
            }
            digest.update(revoked.digest());
        }
        store.set_param(&param)?;
        Ok(Self {
            store: store.build(),
            hints: hints(&rules.ca),
            depth,
            exempt: rules.exempt,
            forward: rules.forward,
            fresh_until: rules.revoked.and_then(|revoked| revoked.fresh_until()),
            digest: digest.finish(),
        })
    }

    /// Changes whenever the verdict over some certificate may, or what is kept of it.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether a handshake without a good certificate is refused. If not, requests are.
    #[must_use]
    pub fn is_enforced_in_handshake(&self) -> bool {
        self.exempt.is_none()
    }

    /// Whether requests for this normalised path need no certificate.
    #[must_use]
    pub fn exempts(&self, path: &str) -> bool {
        let exempt = self.exempt.as_deref().unwrap_or_default();
        exempt.iter().any(|pattern| pattern.is_match(path))
    }

    /// What upstreams are told.
    #[must_use]
    pub fn forward(&self) -> Forward {
        self.forward
    }

    /// Whether a revocation list has ended: nothing can be told good then.
    #[must_use]
    pub fn is_out_of_date(&self, now: SystemTime) -> bool {
        self.fresh_until.is_some_and(|until| until < now)
    }

    /// Makes this handshake ask for a certificate, and, unless paths are exempt, end with an
    /// alert without a good one.
    ///
    /// # Errors
    /// OpenSSL refused; the handshake must not go on.
    pub fn require(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ext::ssl_set_verify_cert_store(ssl, &self.store)?;
        for hint in &self.hints {
            ssl.add_client_ca(hint)?;
        }
        let param = ssl.param_mut();
        param.set_depth(self.depth);
        // A name that allows TLS 1.1 lowers the connection's level, which is not meant for this.
        param.set_auth_level(AUTH_LEVEL);
        if self.is_enforced_in_handshake() {
            ssl.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        } else {
            // What was found stays with the connection, and with its session.
            ssl.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        }
        match self.forward {
            Forward::Nothing => {}
            Forward::Leaf => ffi::set_max_certificates(ssl, MAX_FORWARDED),
            Forward::Chain => {
                ffi::set_max_certificates(ssl, MAX_FORWARDED);
                ssl.set_num_tickets(0)?;
            }
        }
        Ok(())
    }

    pub(super) fn store(&self) -> &X509Store {
        &self.store
    }
}

/// The names clients choose a certificate by; a bundle may hold several keys of one name.
fn hints(ca: &CaBundle) -> Vec<X509> {
    let mut hints: Vec<X509> = Vec::new();
    for certificate in ca.certificates() {
        let same = |hint: &X509| {
            let order = hint.subject_name().try_cmp(certificate.subject_name());
            order.is_ok_and(Ordering::is_eq)
        };
        if !hints.iter().any(same) {
            hints.push(certificate.clone());
        }
    }
    hints
}

/// OpenSSL's level 2: keys of at least 112 bits of strength, no MD5 or SHA-1.
const AUTH_LEVEL: i32 = 2;

/// Bytes of a client's certificates, chain and all, where they go on in header fields: they take
/// a third more there. OpenSSL's own bound is 100 KiB.
const MAX_FORWARDED: u16 = 24 << 10;

#[cfg(test)]
mod tests;
