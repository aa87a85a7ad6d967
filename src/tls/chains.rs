//! What follows a leaf in its chain. Thousands of certificates of one authority send the same, so
//! equal ones are parsed once and kept once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use openssl::sha::Sha256;
use openssl::x509::X509;

use super::certificate::{CertificateError, has_weak_signature, time};

/// The certificates behind a leaf.
#[derive(Default)]
pub struct Chain {
    links: Box<[X509]>,
    /// Their ends, by the same position.
    ends: Box<[SystemTime]>,
}

impl Chain {
    /// The certificates, in the order they are sent.
    #[must_use]
    pub fn links(&self) -> &[X509] {
        &self.links
    }

    /// When each of them ends.
    pub(super) fn ends(&self) -> &[SystemTime] {
        &self.ends
    }

    fn parse(ders: &[Vec<u8>]) -> Result<Self, CertificateError> {
        let parse = |der: &Vec<u8>| X509::from_der(der);
        let links: Box<[X509]> = ders
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::BadCertificate)?;
        if links.iter().any(has_weak_signature) {
            return Err(CertificateError::WeakSignature);
        }
        let ends = links.iter().map(|link| time(link.not_after()));
        Ok(Self {
            ends: ends.collect::<Result<_, _>>()?,
            links,
        })
    }
}

/// The chains in use, by content. One that nobody uses any more goes.
#[derive(Default)]
pub struct Chains(Mutex<Known>);

#[derive(Default)]
struct Known {
    chains: HashMap<[u8; 32], Weak<Chain>>,
    /// How many there may be before those that are gone are looked for.
    room: usize,
}

impl Chains {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The chain of these certificates: the one in use, else a new one.
    pub(super) fn share(&self, ders: &[Vec<u8>]) -> Result<Arc<Chain>, CertificateError> {
        let mut digest = Sha256::new();
        for der in ders {
            digest.update(&(der.len() as u64).to_be_bytes());
            digest.update(der);
        }
        let digest = digest.finish();
        if let Some(chain) = self.locked(|known| known.chains.get(&digest)?.upgrade()) {
            return Ok(chain);
        }
        let chain = Arc::new(Chain::parse(ders)?);
        Ok(self.locked(|known| known.insert(digest, chain)))
    }

    fn locked<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    /// Another thread may have been faster with the same one.
    fn insert(&mut self, digest: [u8; 32], chain: Arc<Chain>) -> Arc<Chain> {
        if let Some(first) = self.chains.get(&digest).and_then(Weak::upgrade) {
            return first;
        }
        if self.chains.len() >= self.room {
            self.chains.retain(|_, chain| chain.strong_count() > 0);
            self.room = 2 * self.chains.len() + LEAST_ROOM;
        }
        self.chains.insert(digest, Arc::downgrade(&chain));
        chain
    }
}

const LEAST_ROOM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::dev::Authority;

    fn der(name: &str) -> Vec<u8> {
        let pem = Authority::named(name).and_then(|authority| authority.cert_pem());
        let parsed = X509::from_pem(pem.expect("pem").as_bytes());
        parsed.and_then(|parsed| parsed.to_der()).expect("der")
    }

    #[test]
    fn equal_chains_are_one_as_long_as_somebody_holds_it() {
        let chains = Chains::new();
        let (one, two) = (der("one"), der("two"));
        let first = chains.share(&[one.clone(), two.clone()]).expect("chain");
        let again = chains.share(&[one.clone(), two.clone()]).expect("chain");
        assert!(Arc::ptr_eq(&first, &again));
        let turned = chains.share(&[two, one]).expect("chain");
        assert!(!Arc::ptr_eq(&first, &turned));
        assert_eq!(first.links().len(), 2);
        let gone = Arc::downgrade(&first);
        drop((first, again));
        assert!(gone.upgrade().is_none(), "nothing is kept for its own sake");
    }

    #[test]
    fn chains_that_are_gone_are_forgotten() {
        let chains = Chains::new();
        for n in 0..=2 * LEAST_ROOM {
            let mut der = der("one");
            // Behind the certificate: another content, the same certificate.
            der.extend(n.to_be_bytes());
            chains.share(&[der]).expect("chain");
        }
        let known = chains.locked(|known| known.chains.len());
        assert!(known <= LEAST_ROOM, "{known}");
    }
}
