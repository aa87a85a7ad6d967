//! What the road to production last did, for readiness, metrics and `explain`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The last reload and the totals.
#[derive(Debug, Clone, Default)]
pub struct StatusReport {
    /// Reloads that published a snapshot, from any trigger.
    pub accepted: u64,
    /// Times the source was read and said what was in force already.
    pub unchanged: u64,
    /// Reloads that were rejected whole.
    pub rejected: u64,
    /// When a snapshot was last published.
    pub last_accepted: Option<SystemTime>,
    /// Why the newest text was rejected; `None` while it was not.
    pub rejection: Option<String>,
    /// References of required objects without value now.
    pub unresolved: usize,
}

/// Shared by the reload loop, which writes, and its readers. Never on a request's path.
#[derive(Debug, Default)]
pub struct Status(Mutex<StatusReport>);

impl Status {
    /// Nothing loaded yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state now.
    #[must_use]
    pub fn report(&self) -> StatusReport {
        self.lock().clone()
    }

    pub(super) fn accepted(&self, now: SystemTime, from_file: bool) {
        let mut status = self.lock();
        status.accepted += 1;
        status.last_accepted = Some(now);
        if from_file {
            status.rejection = None;
        }
    }

    /// The source says what is in force; an earlier rejection is mended thereby.
    pub(super) fn unchanged(&self) {
        let mut status = self.lock();
        status.unchanged += 1;
        status.rejection = None;
    }

    pub(super) fn rejected(&self, why: String) {
        let mut status = self.lock();
        status.rejected += 1;
        status.rejection = Some(why);
    }

    pub(super) fn unresolved(&self, count: usize) {
        self.lock().unresolved = count;
    }

    fn lock(&self) -> MutexGuard<'_, StatusReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
