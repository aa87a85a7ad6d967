//! What a connection's client presented, and what that is worth under the rules of today: those of
//! its handshake may have been replaced since. One verdict per connection and rules; a request
//! only compares digests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::ssl::SslRef;
use openssl::stack::Stack;
use openssl::x509::{X509, X509StoreContext, X509VerifyResult};

use super::client_auth::ClientAuth;
use super::client_certificate::ClientCertificate;

/// What a request may know of its client's certificate.
#[derive(Debug, Clone, Default)]
pub enum ClientVerdict {
    /// None was presented, or none for the name the request is for.
    #[default]
    Absent,
    /// One that is not accepted; why, in OpenSSL's words.
    Failed(&'static str),
    /// A good one.
    Verified(Arc<ClientCertificate>),
}

/// A verdict under the rules of today.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Found in the handshake under these rules, or found again by them.
    Current(ClientVerdict),
    /// The handshake knew other rules, by which nothing was presented that these accept. A new
    /// handshake may find otherwise.
    Outdated,
}

/// What a client presented in a handshake that asked for a certificate.
pub struct Presented {
    /// Digest of the rules the handshake knew.
    rules: [u8; 32],
    verdict: ClientVerdict,
    leaf: Option<X509>,
    /// What came with it; not verified. Empty in sessions resumed by ticket.
    others: Vec<X509>,
    /// The verdict by the rules asked last that are not those of the handshake.
    again: Mutex<Option<([u8; 32], Standing)>>,
}

impl Presented {
    /// What was presented in this handshake, which is complete, to these rules.
    #[must_use]
    pub fn read(ssl: &SslRef, auth: &ClientAuth) -> Self {
        let leaf = ssl.peer_certificate();
        let verdict = match (&leaf, ssl.verify_result()) {
            (None, _) => ClientVerdict::Absent,
            (Some(leaf), X509VerifyResult::OK) => {
                let chain = ssl.verified_chain().into_iter().flatten();
                let chain = chain.map(ToOwned::to_owned);
                let certificate = ClientCertificate::new(leaf.clone(), chain);
                ClientVerdict::Verified(Arc::new(certificate))
            }
            (Some(_), failure) => ClientVerdict::Failed(failure.error_string()),
        };
        let others = ssl.peer_cert_chain().into_iter().flatten();
        Self {
            rules: *auth.digest(),
            verdict,
            leaf,
            others: others.map(ToOwned::to_owned).collect(),
            again: Mutex::new(None),
        }
    }

    /// Whether the handshake found a good certificate.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self.verdict, ClientVerdict::Verified(_))
    }

    /// What it is worth to these rules, now.
    #[must_use]
    pub fn standing(&self, auth: &ClientAuth, now: SystemTime) -> Standing {
        let standing = if self.rules == *auth.digest() {
            Standing::Current(self.verdict.clone())
        } else {
            self.standing_again(auth)
        };
        match standing {
            // Sessions are renewed by resuming them: neither end may be outlived that way.
            Standing::Current(ClientVerdict::Verified(certificate)) => {
                Standing::Current(if certificate.in_force_until() < now {
                    ClientVerdict::Failed(EXPIRED)
                } else if auth.is_out_of_date(now) {
                    ClientVerdict::Failed(LIST_EXPIRED)
                } else {
                    ClientVerdict::Verified(certificate)
                })
            }
            other => other,
        }
    }

    fn standing_again(&self, auth: &ClientAuth) -> Standing {
        // Shared by the requests of one connection, and only once its rules were replaced.
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((rules, standing)) = &*again
            && rules == auth.digest()
        {
            return standing.clone();
        }
        let standing = match self.verify(auth) {
            Ok(Some(certificate)) => {
                Standing::Current(ClientVerdict::Verified(Arc::new(certificate)))
            }
            Ok(None) | Err(_) => Standing::Outdated,
        };
        *again = Some((*auth.digest(), standing.clone()));
        standing
    }

    /// The certificate as these rules accept it; `None` where they do not.
    fn verify(&self, auth: &ClientAuth) -> Result<Option<ClientCertificate>, ErrorStack> {
        let Some(leaf) = &self.leaf else {
            return Ok(None);
        };
        let mut others = Stack::new()?;
        for other in &self.others {
            others.push(other.clone())?;
        }
        // What is verified by stands in the store.
        let mut context = X509StoreContext::new()?;
        let chain = context.init(auth.store(), leaf, &others, |context| {
            let good = context.verify_cert()?;
            let chain = context.chain().filter(|_| good);
            Ok(chain.map(|chain| chain.iter().map(ToOwned::to_owned).collect::<Vec<_>>()))
        })?;
        Ok(chain.map(|chain| ClientCertificate::new(leaf.clone(), chain)))
    }
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Presented").field(&self.verdict).finish()
    }
}

/// OpenSSL's words for the same findings.
const EXPIRED: &str = "certificate has expired";
const LIST_EXPIRED: &str = "CRL has expired";
