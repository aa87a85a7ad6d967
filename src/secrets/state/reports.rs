//! What the room tells about references and managers; never a value.

use std::sync::Arc;
use std::time::Instant;

use super::{Settled, State};
use crate::secrets::reference::{Reference, Target};
use crate::secrets::report::{
    CircuitState, LoginReport, ManagerReport, ReferenceReport, ReferenceState,
};

impl State {
    pub(in crate::secrets) fn report(&self, now: Instant) -> Vec<ReferenceReport> {
        let uses = self.cache.uses();
        let cached = uses
            .filter_map(|(entry, _, selector, text)| self.cache.report(now, entry, selector, text));
        let settled = self.settled.iter();
        let settled = settled.map(|(text, settled)| settled_report(text, settled));
        let mut reports: Vec<_> = cached.chain(settled).collect();
        reports.sort_by(|a, b| a.reference.cmp(&b.reference));
        reports
    }

    /// In no order.
    pub(in crate::secrets) fn unmanaged_report(&self) -> Vec<ReferenceReport> {
        let declared = |manager: &Arc<str>| self.managers.contains_key(manager);
        let unmanaged = self.settled.iter();
        let unmanaged =
            unmanaged.filter(|(_, settled)| !settled.manager.as_ref().is_some_and(declared));
        unmanaged
            .map(|(text, settled)| settled_report(text, settled))
            .collect()
    }

    pub(in crate::secrets) fn manager_report(&self, now: Instant) -> Vec<ManagerReport> {
        let mut tallies = self.cache.tallies(now);
        for settled in self.settled.values() {
            if let Some(manager) = &settled.manager {
                tallies.entry(Arc::clone(manager)).or_default().refused += 1;
            }
        }
        let report = |(id, installed): (&Arc<str>, &super::Installed)| {
            let tally = tallies.remove(id).unwrap_or_default();
            let runner = installed.runner();
            let circuit = runner.map_or(CircuitState::Open, |runner| runner.circuit_state());
            let login = runner.and_then(|runner| runner.manager.login());
            ManagerReport {
                id: Arc::clone(id),
                reason: installed.obstacle().or(tally.failure),
                healthy: circuit == CircuitState::Closed,
                circuit,
                last_error: runner.and_then(|runner| runner.last_error()),
                login: login.map(|login| LoginReport {
                    method: login.method,
                    left: login.ends.map(|at| at.saturating_duration_since(now)),
                }),
                documents: tally.documents,
                fresh: tally.fresh,
                stale: tally.stale,
                refused: tally.refused,
                oldest: tally.oldest,
            }
        };
        let mut reports: Vec<_> = self.managers.iter().map(report).collect();
        reports.sort_by(|a, b| a.id.cmp(&b.id));
        reports
    }
}

fn settled_report(text: &Arc<str>, settled: &Settled) -> ReferenceReport {
    let outcome = &settled.outcome;
    let (manager, path) = match Reference::parse_shared(text)
        .as_ref()
        .map(Reference::target)
    {
        Ok(Target::Env { name, .. }) => ("env".into(), (&**name).into()),
        _ => (settled.manager.clone().unwrap_or_default(), Arc::default()),
    };
    ReferenceReport {
        reference: Arc::clone(text),
        manager,
        path,
        state: match outcome {
            Ok(_) => ReferenceState::Fresh,
            Err(_) => ReferenceState::Refused,
        },
        age: None,
        version: outcome.as_ref().ok().map(|resolved| resolved.version),
        manager_version: None,
        reason: outcome
            .as_ref()
            .err()
            .map(|unresolved| Arc::clone(&unresolved.reason)),
    }
}
