//! What the road to production last did, for readiness, metrics and `explain`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::Trigger;
use crate::snapshot::graph::{Graph, Use};
use crate::telemetry::Audit;

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
    /// References without value now.
    pub missing: Missing,
    /// Every reference in use had a value at some time.
    pub was_resolved: bool,
}

/// References without value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// References that something needs which traffic can reach.
    pub required: usize,
    /// Places these stand in.
    pub uses: usize,
    /// The first of these places (`consumers/jack plugins.key-auth.key`).
    pub places: Vec<String>,
    /// References that only unused or disabled objects hold.
    pub unused: usize,
}

impl Missing {
    /// Sums up the uses of references without value.
    pub(super) fn of(graph: &Graph) -> Self {
        let (needed, others): (Vec<_>, Vec<_>) = graph.uses.iter().partition(|one| one.required);
        let references = |uses: &[&Use]| -> BTreeSet<Arc<str>> {
            let references = uses.iter().map(|one| Arc::clone(&one.reference));
            references.collect()
        };
        let required = references(&needed);
        let places = needed.iter().take(MOST_NAMED);
        Self {
            required: required.len(),
            uses: needed.len(),
            places: places
                .map(|one| {
                    format!("{} {}", one.object, one.field)
                        .trim_end()
                        .to_owned()
                })
                .collect(),
            unused: references(&others).difference(&required).count(),
        }
    }
}

/// Shared by the reload loop, which writes, and its readers. Never on a request's path.
#[derive(Default)]
pub struct Status {
    report: Mutex<StatusReport>,
    audit: Option<Audit>,
}

impl Status {
    /// Nothing loaded yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing loaded yet; what comes into force or is rejected goes into this log.
    #[must_use]
    pub fn audited(audit: Option<Audit>) -> Self {
        Self {
            audit,
            ..Self::default()
        }
    }

    /// The state now.
    #[must_use]
    pub fn report(&self) -> StatusReport {
        self.lock().clone()
    }

    pub(super) fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    pub(super) fn accepted(&self, now: SystemTime, revision: u64, trigger: Trigger) {
        let mut status = self.lock();
        status.accepted += 1;
        status.last_accepted = Some(now);
        if trigger == Trigger::Source {
            status.rejection = None;
        }
        drop(status);
        if let Some(audit) = &self.audit {
            let trigger = match trigger {
                Trigger::Source => "source",
                Trigger::Secrets => "secrets",
                Trigger::Time => "time",
            };
            let fields = vec![("revision", revision.into()), ("trigger", trigger.into())];
            audit.record("configuration", fields);
        }
    }

    /// The source says what is in force; an earlier rejection is mended thereby.
    pub(super) fn unchanged(&self) {
        let mut status = self.lock();
        status.unchanged += 1;
        status.rejection = None;
    }

    pub(super) fn rejected(&self, why: String) {
        if let Some(audit) = &self.audit {
            audit.record("configuration_rejected", vec![("why", why.clone().into())]);
        }
        let mut status = self.lock();
        status.rejected += 1;
        status.rejection = Some(why);
    }

    pub(super) fn missing(&self, missing: Missing) {
        let mut status = self.lock();
        status.was_resolved |= missing.required == 0;
        status.missing = missing;
    }

    fn lock(&self) -> MutexGuard<'_, StatusReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many places readiness names.
const MOST_NAMED: usize = 20;
