//! Certificates as metrics and people see them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::resource::{SslConfig, SslKind};
use crate::tls::{CertifiedKey, Validity};

/// One `ssls` item that is switched on.
#[derive(Clone)]
pub struct CertificateReport {
    /// Id of the item.
    pub ssl: Arc<str>,
    /// Its pairs, by position; `None` has no usable value.
    pub pairs: Arc<[Option<Arc<CertifiedKey>>]>,
    /// Whether the item refused when it was last looked at.
    pub refused: bool,
    /// Whether its newest values wait in quarantine while others serve.
    pub quarantined: bool,
    pub(super) config: Arc<SslConfig>,
}

/// How a pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateState {
    /// Valid for longer than the notice.
    Valid,
    /// Valid, and within the notice of its end.
    Expiring,
    /// Past its end.
    Expired,
    /// Before its start.
    NotYetValid,
    /// Without a usable value.
    Refused,
}

impl CertificateState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Valid,
        Self::Expiring,
        Self::Expired,
        Self::NotYetValid,
        Self::Refused,
    ];

    /// The state of a pair at this moment.
    #[must_use]
    pub fn of(pair: Option<&CertifiedKey>, now: SystemTime, notice: Duration) -> Self {
        let Some(pair) = pair else {
            return Self::Refused;
        };
        let left = pair.not_after().duration_since(now).unwrap_or_default();
        match pair.validity(now) {
            Validity::Early => Self::NotYetValid,
            Validity::Expired => Self::Expired,
            Validity::Valid if left < notice => Self::Expiring,
            Validity::Valid => Self::Valid,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Refused => "refused",
        }
    }
}

impl CertificateReport {
    /// Its names; none where it is for upstreams.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self.config.kind {
            SslKind::Server => &self.config.snis,
            SslKind::Client => &[],
        }
    }

    /// End of validity of the pair that ends first; `None` where no pair has usable values.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        let pairs = self.pairs.iter().flatten();
        pairs.map(|pair| pair.not_after()).min()
    }
}
