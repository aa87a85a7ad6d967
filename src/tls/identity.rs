//! What one `ssls` item presents, and when.

use std::sync::Arc;
use std::time::SystemTime;

use openssl::sha::Sha256;

use super::certificate::{CertifiedKey, Validity};
use super::on_demand::OnDemand;
use super::policy::TlsPolicy;
use super::stapling::Stapling;

/// Whether an identity can serve.
pub enum IdentityState {
    /// Pairs that may be presented; never empty. Which of them are, depends on the moment:
    /// [`TlsIdentity::presented`].
    Serving {
        /// The pairs.
        pairs: Vec<Arc<CertifiedKey>>,
    },
    /// Pairs are fetched for each name that a client asks for.
    OnDemand(Box<OnDemand>),
    /// Every handshake for its names ends with an alert.
    Refused {
        /// Why, for the log. Names places, never a value.
        reason: Box<str>,
    },
}

/// What one `ssls` item presents.
pub struct TlsIdentity {
    /// Id of the item.
    pub id: Arc<str>,
    /// Whether it can serve.
    pub state: IdentityState,
    /// What handshakes must hold to.
    pub policy: TlsPolicy,
    /// Earliest end of validity of its pairs; `None` where it refuses.
    pub not_after: Option<SystemTime>,
    /// Whether a pair is presented past its end, for want of a better one. Default false.
    pub serve_expired: bool,
    /// How responses about its certificates are stapled; `None` staples none.
    pub stapling: Option<Stapling>,
    /// Whether requests for its names must come over a handshake that saw a client certificate.
    /// True also where that cannot be set up and the identity refuses: a connection made for
    /// another name must not get around it.
    pub guards_clients: bool,
}

impl TlsIdentity {
    /// An identity that presents these pairs; with none it refuses.
    #[must_use]
    pub fn serving(id: Arc<str>, pairs: Vec<Arc<CertifiedKey>>, policy: TlsPolicy) -> Self {
        let Some(not_after) = pairs.iter().map(|pair| pair.not_after()).min() else {
            return Self::refused(id, "no certificate", policy);
        };
        Self {
            id,
            state: IdentityState::Serving { pairs },
            not_after: Some(not_after),
            serve_expired: false,
            stapling: None,
            guards_clients: policy.client().is_some(),
            policy,
        }
    }

    /// An identity whose names have pairs of their own.
    #[must_use]
    pub fn on_demand(id: Arc<str>, names: OnDemand, policy: TlsPolicy) -> Self {
        Self {
            id,
            state: IdentityState::OnDemand(Box::new(names)),
            not_after: None,
            serve_expired: false,
            stapling: None,
            guards_clients: policy.client().is_some(),
            policy,
        }
    }

    /// An identity that refuses.
    #[must_use]
    pub fn refused(id: Arc<str>, reason: impl Into<Box<str>>, policy: TlsPolicy) -> Self {
        let reason = reason.into();
        Self {
            id,
            state: IdentityState::Refused { reason },
            not_after: None,
            serve_expired: false,
            stapling: None,
            guards_clients: policy.client().is_some(),
            policy,
        }
    }
}

impl TlsIdentity {
    /// The pairs that may be presented at this moment, at most one per [`super::KeySlot`]: the
    /// first that is valid; else, with [`Self::serve_expired`], the first that expired.
    pub fn presented(&self, now: SystemTime) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let pairs = match &self.state {
            IdentityState::Serving { pairs } => &pairs[..],
            IdentityState::OnDemand(_) | IdentityState::Refused { .. } => &[],
        };
        let rank = move |pair: &CertifiedKey| match pair.validity(now) {
            Validity::Valid => Some(0),
            Validity::Expired if self.serve_expired => Some(1),
            Validity::Expired | Validity::Early => None,
        };
        pairs.iter().enumerate().filter_map(move |(place, pair)| {
            let own = rank(pair)?;
            let slot = pair.algorithm().slot();
            let rivals = pairs.iter().enumerate();
            let mut rivals = rivals.filter(|(_, rival)| rival.algorithm().slot() == slot);
            let beaten = rivals.any(|(at, rival)| {
                rank(rival).is_some_and(|other| other < own || other == own && at < place)
            });
            (!beaten).then_some(pair)
        })
    }

    /// Whether some handshake may end well at this moment.
    #[must_use]
    pub fn serves(&self, now: SystemTime) -> bool {
        match &self.state {
            IdentityState::Serving { .. } => self.presented(now).next().is_some(),
            IdentityState::OnDemand(_) => true,
            IdentityState::Refused { .. } => false,
        }
    }

    /// The session id context of a handshake, made another one each time a pair has ended and is not
    /// presented for that. So no session outlives the certificate it was made with.
    #[must_use]
    pub fn narrow(&self, context: [u8; 32], now: SystemTime) -> [u8; 32] {
        let lapsed = self.lapsed(now);
        if lapsed == 0 {
            return context;
        }
        let mut digest = Sha256::new();
        digest.update(&context);
        digest.update(&lapsed.to_be_bytes());
        digest.finish()
    }

    /// Which of its pairs are past their end and not presented for that, one bit for each.
    fn lapsed(&self, now: SystemTime) -> u64 {
        let IdentityState::Serving { pairs } = &self.state else {
            return 0;
        };
        if self.serve_expired || self.not_after.is_none_or(|end| now < end) {
            return 0;
        }
        let pairs = (0..u64::BITS).zip(pairs);
        let lapsed = pairs.filter(|(_, pair)| pair.validity(now) == Validity::Expired);
        lapsed.fold(0, |bits, (bit, _)| bits | 1 << bit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::tls::dev::{Authority, KeyKind, LeafOptions};
    use crate::tls::policy::Protocols;

    fn pair(key: KeyKind, ends_in_secs: i64) -> Arc<CertifiedKey> {
        let options = LeafOptions {
            key,
            ends_in_secs,
            ..LeafOptions::default()
        };
        let issued = Authority::new().and_then(|ca| ca.issue(&["a.test"], &options));
        let issued = issued.expect("leaf");
        let pair = CertifiedKey::parse(issued.cert_pem.as_bytes(), &issued.key_pem);
        Arc::new(pair.expect("pair"))
    }

    const NONE: [usize; 0] = [];

    #[test]
    fn the_first_valid_pair_of_each_kind_is_presented() {
        let now = ManualClock::new().wall();
        let pairs = vec![
            pair(KeyKind::EcdsaP256, 100),
            pair(KeyKind::Ed25519, 5000),
            pair(KeyKind::EcdsaP384, 1000),
        ];
        let policy = TlsPolicy::new("1", Protocols::default(), None, 0);
        let mut identity = TlsIdentity::serving("1".into(), pairs.clone(), policy);
        let in_secs = |secs| now + Duration::from_secs(secs);
        let presented = |identity: &TlsIdentity, at| {
            let place =
                |one: &Arc<CertifiedKey>| pairs.iter().position(|pair| Arc::ptr_eq(pair, one));
            identity.presented(at).filter_map(place).collect::<Vec<_>>()
        };
        assert_eq!(presented(&identity, in_secs(0)), [0, 1]);
        assert_eq!(presented(&identity, in_secs(200)), [1, 2]);
        assert_eq!(presented(&identity, in_secs(2000)), [1]);
        assert_eq!(presented(&identity, in_secs(6000)), NONE);
        assert_eq!(presented(&identity, now - Duration::from_secs(4000)), NONE);
        let lapsed = [0, 200, 2000, 6000].map(|secs| identity.lapsed(in_secs(secs)));
        assert_eq!(lapsed, [0b000, 0b001, 0b101, 0b111]);
        let contexts = [0, 200, 300, 2000].map(|secs| identity.narrow([7; 32], in_secs(secs)));
        assert_eq!(contexts[0], [7; 32]);
        assert_ne!(
            contexts[0], contexts[1],
            "a session ends with its certificate"
        );
        assert_eq!(contexts[1], contexts[2]);
        assert_ne!(contexts[2], contexts[3]);
        identity.serve_expired = true;
        assert_eq!(presented(&identity, in_secs(200)), [1, 2]);
        assert_eq!(presented(&identity, in_secs(6000)), [0, 1]);
        assert_eq!(identity.lapsed(in_secs(6000)), 0, "nothing is left out");
        assert_eq!(presented(&identity, now - Duration::from_secs(4000)), NONE);
    }
}
