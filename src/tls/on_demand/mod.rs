//! Certificates of names that clients ask for, fetched at the first handshake and kept in memory while
//! they are used. What a handshake does here takes no lock; fetching, checking and forgetting is the
//! [`Keeper`]'s, on threads of its own. Nothing a client makes up is kept beyond a bound, and none of
//! it reaches a secret manager before it passed as a host name.

mod allowance;
mod counts;
mod item;
mod keeper;
mod names;
mod pairs;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use tokio::sync::{mpsc, oneshot};

use super::certificate::CertifiedKey;
use super::policy::{Protocols, TlsPolicy};
use super::present;
use super::rehearsal::{Classes, Rehearsal};
use crate::clock::Clock;
use crate::http::host_name::is_host_name;
use counts::Counts;
pub use counts::Tally;
pub use keeper::Keeper;
pub use names::{Found, Names};

/// Bounds of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Names kept at most; those used longest ago go first.
    pub names: usize,
    /// How long a handshake waits.
    pub wait: Duration,
    /// How long a name without a usable certificate is refused without being asked for.
    pub negative: Duration,
    /// How long a name is kept that nobody asks for.
    pub idle: Duration,
    /// Names asked for in vain per second, on average.
    pub unknown_per_second: u32,
    /// The same at once, after a pause.
    pub unknown_burst: u32,
    /// Names fetched at the same time.
    pub concurrency: usize,
    /// Handshakes that wait at the same time; as many names may wait for their fetch.
    pub waiting: usize,
}

/// What a name presents.
pub struct Served {
    /// The pairs, one per kind of key; never empty.
    pub pairs: Box<[Arc<CertifiedKey>]>,
    /// Changes with them: a session made under others does not resume.
    pub generation: [u8; 32],
    /// Earliest end of their validity.
    pub not_after: SystemTime,
    /// Protocols that clients were served over, in rehearsal.
    protocols: Option<Protocols>,
}

/// What the pairs of an item's names have to pass before one is shown to a client: a handshake in
/// memory, under the item's policy.
pub struct Trial {
    rehearsal: Arc<Rehearsal>,
    policy: TlsPolicy,
    classes: Classes,
}

/// Why a name is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No host name.
    BadName,
    /// Its manager has no certificate for it, or none that can be used; known from before or just
    /// found out.
    Unknown,
    /// Its manager could not be asked.
    Failed,
    /// Too many names without a certificate were asked for lately.
    Cap,
    /// Too many handshakes wait already.
    Crowded,
    /// It took too long; the fetch goes on.
    TimedOut,
}

/// An item as handshakes see it.
pub struct OnDemand {
    names: Arc<Names>,
    limits: Limits,
    trial: Arc<Trial>,
    door: Door,
}

/// Where handshakes ask the [`Keeper`].
#[derive(Clone)]
pub struct Door {
    requests: mpsc::Sender<Request>,
    clock: Arc<dyn Clock>,
}

/// A handshake that waits.
struct Request {
    names: Arc<Names>,
    limits: Limits,
    trial: Arc<Trial>,
    name: Box<str>,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Arc<Served>, Refusal>>;

impl Served {
    /// Session id context for `name` while it presents these pairs: nothing resumes that was made
    /// under others. What is not in memory resumes nothing at all, so that no session outlives a
    /// certificate that was deleted.
    ///
    /// # Errors
    /// OpenSSL has no randomness.
    pub fn session_context(
        &self,
        policy: &TlsPolicy,
        name: &str,
        at: SystemTime,
    ) -> Result<[u8; 32], ErrorStack> {
        let mut digest = Sha256::new();
        digest.update(&present::session_context(policy, name, at)?);
        digest.update(&self.generation);
        Ok(digest.finish())
    }
}

impl Door {
    /// A door that leads nowhere, for programs that serve no handshakes.
    #[must_use]
    pub fn closed(clock: Arc<dyn Clock>) -> Self {
        let (requests, _) = mpsc::channel(1);
        Self { requests, clock }
    }
}

impl Trial {
    /// For an item whose names are held to this policy.
    #[must_use]
    pub fn new(rehearsal: Arc<Rehearsal>, policy: TlsPolicy) -> Self {
        Self {
            rehearsal,
            policy,
            classes: Classes::default(),
        }
    }

    /// What clients are served over with these pairs; all must be that were (`expected`).
    fn pass(
        &self,
        pairs: &[Arc<CertifiedKey>],
        expected: Option<Protocols>,
    ) -> Result<Option<Protocols>, String> {
        let rehearsed = self
            .classes
            .rehearse(pairs, &self.policy, &self.rehearsal, expected);
        let rehearsed = rehearsed.map_err(|errors| format!("openssl cannot rehearse: {errors}"))?;
        match rehearsed.fault(expected) {
            Some((_, failure)) => Err(failure.to_string()),
            None => Ok(rehearsed.served()),
        }
    }
}

impl OnDemand {
    /// An item with these names and bounds, whose pairs have to pass the trial.
    #[must_use]
    pub fn new(names: Arc<Names>, limits: Limits, trial: Trial, door: Door) -> Self {
        Self {
            names,
            limits,
            trial: Arc::new(trial),
            door,
        }
    }

    /// What is known of the name now, which must be in lower case.
    #[must_use]
    pub fn find(&self, name: &str) -> Found {
        if !is_host_name(name) {
            Counts::add(&self.names.counts.bad_name);
            return Found::Refused(Refusal::BadName);
        }
        self.names.find(name, &*self.door.clock)
    }

    /// Waits until the name is known, or the wait is over. The fetch goes on without the handshake.
    ///
    /// # Errors
    /// It cannot be served.
    pub async fn obtain(&self, name: &str) -> Result<Arc<Served>, Refusal> {
        let counts = &self.names.counts;
        let Some(_place) = self.names.wait_in_line(self.limits.waiting) else {
            Counts::add(&counts.crowded);
            return self.stale(name).ok_or(Refusal::Crowded);
        };
        let (reply, answer) = oneshot::channel();
        let request = Request {
            names: Arc::clone(&self.names),
            limits: self.limits,
            trial: Arc::clone(&self.trial),
            name: name.into(),
            reply,
        };
        if self.door.requests.try_send(request).is_err() {
            Counts::add(&counts.crowded);
            return self.stale(name).ok_or(Refusal::Crowded);
        }
        match tokio::time::timeout(self.limits.wait, answer).await {
            Ok(Ok(Ok(served))) if served.not_after <= self.door.clock.wall() => {
                Counts::add(&counts.expired);
                Err(Refusal::Unknown)
            }
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::Failed),
            Err(_) => {
                Counts::add(&counts.timed_out);
                self.stale(name).ok_or(Refusal::TimedOut)
            }
        }
    }

    /// What is kept and counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.names.tally()
    }

    /// A pair whose refresh is overdue, and that has not been refused: its manager is away or slow.
    fn stale(&self, name: &str) -> Option<Arc<Served>> {
        self.names.stale(name, &*self.door.clock)
    }
}
