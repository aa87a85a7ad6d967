//! A token and the life it was given: when to renew it, when to log in again instead. Pure; the
//! session keeps the times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use serde::Deserialize;

use super::answer;
use crate::secrets::manager::http::wiped_header;
use crate::secrets::manager::{FetchError, secret_text};
use crate::secrets::value::Secret;

/// A token, ready to be sent.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    /// `None` until the server was asked.
    pub(super) lease: Option<Lease>,
    /// When the server last said whether it lives, and what. Shared by all leases of the token.
    pub(super) looked_up: Arc<tokio::sync::Mutex<Option<(Instant, bool)>>>,
}

impl Token {
    pub(super) fn new(header: HeaderValue, lease: Option<Lease>) -> Self {
        Self {
            header,
            lease,
            looked_up: Arc::default(),
        }
    }

    /// The same token on another lease.
    pub(super) fn with(&self, lease: Lease) -> Self {
        Self {
            header: self.header.clone(),
            lease: Some(lease),
            looked_up: Arc::clone(&self.looked_up),
        }
    }

    /// Whether the other came of the same login.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.looked_up, &other.looked_up)
    }
}

/// How long a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) since: Instant,
    /// `None`: it has no end.
    pub(super) ttl: Option<Duration>,
    pub(super) renewable: bool,
    /// What it was given at first.
    pub(super) full: Duration,
    /// The last renewal gave less than that: the longest life is near.
    pub(super) capped: bool,
}

/// What a token needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Renewal(Instant),
    /// A login in its place.
    Replacement(Instant),
    /// It ends, and nothing can be done about it but to say so.
    Warning(Instant),
}

impl Lease {
    /// Of a token that may not be asked about.
    pub(super) fn unseen(since: Instant) -> Self {
        Self {
            since,
            ttl: None,
            renewable: false,
            full: Duration::ZERO,
            capped: false,
        }
    }

    pub(super) fn ends(&self) -> Option<Instant> {
        self.ttl.map(|ttl| self.since + ttl)
    }

    /// The lease of a token that turned out not to be renewable.
    pub(super) fn for_good(mut self) -> Self {
        self.renewable = false;
        self
    }

    /// The lease after a renewal at `since` that gave this much.
    pub(super) fn renewed(&self, since: Instant, grant: &Grant) -> Self {
        Self {
            since,
            ttl: grant.ttl(),
            renewable: grant.renewable,
            full: self.full,
            capped: grant
                .ttl()
                .is_some_and(|ttl| ttl < self.full.mul_f64(FULL_ENOUGH)),
        }
    }

    /// `replaceable`: a login can be repeated. `jitter` in `[0, 1)` spreads the replicas of a gateway.
    pub(super) fn need(&self, replaceable: bool, jitter: f64) -> Need {
        let Some(ttl) = self.ttl else {
            return Need::Nothing;
        };
        let due = self.since + ttl.mul_f64(0.55 + 0.1 * jitter);
        let prolongs = self.renewable && !self.capped;
        let worth_renewing = self.renewable && ttl >= SHORTEST_RENEWAL;
        match (replaceable, prolongs) {
            (_, true) => Need::Renewal(due),
            (true, false) => Need::Replacement(due),
            (false, false) if worth_renewing => Need::Renewal(due),
            (false, false) => {
                let before = (self.full / 10).clamp(Duration::from_secs(1), LONGEST_WARNING);
                Need::Warning(self.since + ttl.saturating_sub(before))
            }
        }
    }
}

/// What a login or a renewal gave.
#[derive(Deserialize)]
pub(super) struct Grant {
    #[serde(default, deserialize_with = "secret_text")]
    client_token: Option<Secret>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct GrantAnswer {
    auth: Option<Grant>,
}

impl Grant {
    pub(super) fn parse(body: &[u8]) -> Result<Self, FetchError> {
        let answer: GrantAnswer = answer::parse(body)?;
        answer.auth.ok_or(FetchError::Garbage("no auth in it"))
    }

    /// The token it came with.
    pub(super) fn token(&self, since: Instant) -> Result<Token, FetchError> {
        let text = self.client_token.as_ref().map(Secret::expose);
        let header = text.filter(|text| !text.is_empty()).and_then(wiped_header);
        let header = header.ok_or(FetchError::Garbage("no token in it"))?;
        Ok(Token::new(header, Some(self.lease(since))))
    }

    fn lease(&self, since: Instant) -> Lease {
        Lease {
            since,
            ttl: self.ttl(),
            renewable: self.renewable,
            full: self.ttl().unwrap_or_default(),
            capped: false,
        }
    }

    /// Zero is how a token without end is shown.
    fn ttl(&self) -> Option<Duration> {
        (self.lease_duration > 0).then(|| seconds(self.lease_duration))
    }
}

#[derive(Deserialize)]
struct LookupAnswer {
    data: Lookup,
}

#[derive(Deserialize)]
struct Lookup {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    #[serde(default)]
    period: u64,
    #[serde(default)]
    renewable: bool,
    expire_time: Option<serde::de::IgnoredAny>,
}

/// The lease `lookup-self` tells of.
pub(super) fn looked_up(body: &[u8], since: Instant) -> Result<Lease, FetchError> {
    let found: Lookup = answer::parse::<LookupAnswer>(body)?.data;
    let full = if found.period > 0 {
        found.period
    } else {
        found.creation_ttl
    };
    Ok(Lease {
        since,
        ttl: found.expire_time.is_some().then(|| seconds(found.ttl)),
        renewable: found.renewable,
        full: seconds(full),
        capped: false,
    })
}

/// A lease that a server could not mean is cut, so that adding it to a time is safe.
fn seconds(number: u64) -> Duration {
    Duration::from_secs(number).min(LONGEST_LEASE)
}

/// Leases come in whole seconds, rounded down.
const FULL_ENOUGH: f64 = 0.8;
/// Below this a token that cannot be replaced is left to end.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(2);
const LONGEST_WARNING: Duration = Duration::from_secs(3600);
const LONGEST_LEASE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    fn lease(ttl: u64, full: u64, renewable: bool) -> Lease {
        Lease {
            since: ManualClock::new().now(),
            ttl: Some(Duration::from_secs(ttl)),
            renewable,
            full: Duration::from_secs(full),
            capped: false,
        }
    }

    fn renewal(ttl: u64) -> Grant {
        Grant {
            client_token: None,
            lease_duration: ttl,
            renewable: true,
        }
    }

    #[test]
    fn a_token_is_renewed_while_that_prolongs_it_and_replaced_after() {
        let at = |lease: &Lease, secs| lease.since + Duration::from_secs(secs);
        let fresh = lease(100, 100, true);
        for replaceable in [true, false] {
            assert_eq!(fresh.need(replaceable, 0.0), Need::Renewal(at(&fresh, 55)));
        }
        assert!(matches!(fresh.need(true, 0.999), Need::Renewal(due) if due < at(&fresh, 66)));

        // Found late in its life, it is not at the end of the longest one.
        let late = lease(1, 100, true);
        assert!(matches!(late.need(false, 0.0), Need::Renewal(_)));
        let same = fresh.renewed(fresh.since, &renewal(99));
        assert_eq!(
            same.need(true, 0.0),
            Need::Renewal(same.since + Duration::from_secs(99).mul_f64(0.55))
        );

        let capped = fresh.renewed(fresh.since, &renewal(40));
        assert_eq!(capped.need(true, 0.0), Need::Replacement(at(&capped, 22)));
        assert_eq!(capped.need(false, 0.0), Need::Renewal(at(&capped, 22)));
        let batch = lease(100, 100, false);
        assert_eq!(batch.need(true, 0.0), Need::Replacement(at(&batch, 55)));
    }

    #[test]
    fn a_token_that_only_ends_is_warned_of_and_one_without_end_needs_nothing() {
        let ending = lease(100, 100, false);
        let due = ending.since + Duration::from_secs(90);
        assert_eq!(ending.need(false, 0.5), Need::Warning(due));
        let nearly = ending.renewed(ending.since, &renewal(1));
        assert_eq!(nearly.need(false, 0.5), Need::Warning(nearly.since));
        let root = Lease {
            ttl: None,
            ..ending
        };
        assert_eq!(root.need(false, 0.5), Need::Nothing);
    }

    #[test]
    fn absurd_leases_are_cut_and_none_is_no_end() {
        let body = format!(
            r#"{{"auth":{{"client_token":"t","lease_duration":{}}}}}"#,
            u64::MAX
        );
        let now = ManualClock::new().now();
        let token = Grant::parse(body.as_bytes()).and_then(|grant| grant.token(now));
        let lease = token
            .ok()
            .and_then(|token| token.lease)
            .expect("must be granted");
        assert_eq!(lease.ttl, Some(LONGEST_LEASE));
        let root = looked_up(br#"{"data":{"ttl":0,"expire_time":null}}"#, now);
        assert_eq!(root.map(|lease| lease.ttl), Ok(None));
    }
}
