//! What may be told about documents and references; never a value.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cache, EntryId, Selector};
use crate::secrets::report::{ReferenceReport, ReferenceState};

/// What one manager's documents and references are worth now.
#[derive(Debug, Default)]
pub(in crate::secrets) struct Tally {
    pub(in crate::secrets) documents: usize,
    /// Why the last read of one of them failed.
    pub(in crate::secrets) failure: Option<Arc<str>>,
    pub(in crate::secrets) fresh: usize,
    pub(in crate::secrets) stale: usize,
    pub(in crate::secrets) refused: usize,
    /// Age of the value confirmed longest ago.
    pub(in crate::secrets) oldest: Option<Duration>,
}

impl Cache {
    /// What may be told about a reference in use.
    pub(in crate::secrets) fn report(
        &self,
        now: Instant,
        id: EntryId,
        selector: &Selector,
        reference: &Arc<str>,
    ) -> Option<ReferenceReport> {
        let entry = self.entries.get(&id)?;
        let slot = entry.slots.get(selector)?;
        let (state, age) = slot.state(now, &entry.schedule);
        let failure = entry.failure.as_ref();
        let outcome = slot.outcome(now, &entry.schedule, failure);
        let reason = match (&outcome, state) {
            (Err(unresolved), _) => Some(&unresolved.reason),
            (Ok(_), ReferenceState::Fresh) => None,
            (Ok(_), _) => slot.reason(failure),
        };
        Some(ReferenceReport {
            reference: Arc::clone(reference),
            manager: Arc::clone(&entry.key.manager),
            path: Arc::clone(&entry.key.path),
            state,
            age,
            version: outcome.as_ref().ok().map(|resolved| resolved.version),
            manager_version: entry.manager_version.clone(),
            reason: reason.cloned(),
        })
    }

    /// What each manager's documents and references are worth now.
    pub(in crate::secrets) fn tallies(&self, now: Instant) -> HashMap<Arc<str>, Tally> {
        let mut tallies: HashMap<Arc<str>, Tally> = HashMap::new();
        for entry in self.entries.values() {
            let tally = tallies.entry(Arc::clone(&entry.key.manager)).or_default();
            tally.documents += 1;
            if tally.failure.is_none() {
                tally.failure.clone_from(&entry.failure);
            }
            for slot in entry.slots.values() {
                let (state, age) = slot.state(now, &entry.schedule);
                let count = match state {
                    ReferenceState::Fresh => &mut tally.fresh,
                    ReferenceState::Stale => &mut tally.stale,
                    ReferenceState::Refused => &mut tally.refused,
                };
                *count += slot.users.len();
                tally.oldest = tally.oldest.max(age);
            }
        }
        tallies
    }
}
