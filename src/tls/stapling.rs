//! OCSP stapling: what authorities say of certificates, fetched ahead of time and sent with them.
//! Handshakes only read what stands beside the pair ([`super::CertifiedKey::staple`]).

mod keeper;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub use keeper::{CurrentItems, Keeper};

/// The plugin that has to be listed in `plugins`, as in APISIX.
pub const PLUGIN: &str = "ocsp-stapling";

/// How the certificates of one item are stapled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stapling {
    /// Whether the signatures of responses are left unchecked.
    pub skip_verify: bool,
    /// How long a response is used at most.
    pub cache_ttl: Duration,
}

/// A response that says that a certificate is good.
pub struct Staple {
    der: Box<[u8]>,
    /// First moment at which it is not sent any more.
    until: SystemTime,
    verified: bool,
}

impl Staple {
    /// The response, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether it may be sent at this moment, under these settings.
    #[must_use]
    pub fn fits(&self, settings: Stapling, now: SystemTime) -> bool {
        now < self.until && (self.verified || settings.skip_verify)
    }
}

/// How questions ended.
#[derive(Debug, Default)]
pub struct Counts {
    good: AtomicU64,
    revoked: AtomicU64,
    unknown: AtomicU64,
    invalid: AtomicU64,
    unreachable: AtomicU64,
}

impl Counts {
    /// By result.
    #[must_use]
    pub fn results(&self) -> [(&'static str, u64); 5] {
        let counts = [
            ("good", &self.good),
            ("revoked", &self.revoked),
            ("unknown", &self.unknown),
            ("invalid", &self.invalid),
            ("unreachable", &self.unreachable),
        ];
        counts.map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }
}
