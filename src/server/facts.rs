//! What the rooms know, as metrics and readiness: the one place that sees all of them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::sockets::Sockets;
use crate::admin::Readiness;
use crate::diagnostic::Severity;
use crate::proxy::drain::Drain;
use crate::proxy::handshake::RefusedHandshakes;
use crate::reload::{SnapshotCell, Status};
use crate::secrets::manager::FetchError;
use crate::secrets::{Observer, ReferenceState, Secrets};
use crate::telemetry::metrics::{
    Collect, FetchMetrics, Kind, Metrics, Page, SecretFacts, write_secret_facts,
};

/// Counts fetches from secret managers.
pub(super) struct FetchObserver {
    metrics: Arc<Metrics>,
    handles: Mutex<HashMap<String, FetchMetrics>>,
}

impl FetchObserver {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            handles: Mutex::default(),
        }
    }
}

impl Observer for FetchObserver {
    fn fetch(&self, manager: &str, outcome: Result<(), &FetchError>, took: Duration) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = handles
            .entry(manager.to_owned())
            .or_insert_with(|| self.metrics.own().manager(manager));
        let answered = outcome.err().is_none_or(FetchError::is_authoritative);
        handle.fetched(answered, took);
    }
}

/// Asked at each scrape.
pub(super) struct Facts {
    pub(super) cell: Arc<SnapshotCell>,
    pub(super) status: Arc<Status>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) refused: Arc<RefusedHandshakes>,
}

impl Collect for Facts {
    fn collect(&self, page: &mut Page) {
        self.configuration(page);
        self.certificates(page);
        write_secret_facts(page, &self.secret_facts());
        page.family(
            "claviger_handshakes_refused_total",
            "TLS handshakes refused before a certificate was chosen.",
            Kind::Counter,
        );
        for (reason, counter) in [
            ("no_name", &self.refused.no_name),
            ("unknown_name", &self.refused.unknown_name),
            ("bad_name", &self.refused.bad_name),
            ("refused_item", &self.refused.refused_item),
        ] {
            page.sample(
                &[("reason", reason)],
                count(counter.load(Ordering::Relaxed)),
            );
        }
    }
}

impl Facts {
    fn configuration(&self, page: &mut Page) {
        let status = self.status.report();
        page.family(
            "claviger_config_reloads_total",
            "Configurations tried, by result.",
            Kind::Counter,
        );
        page.sample(&[("result", "accepted")], count(status.accepted));
        page.sample(&[("result", "unchanged")], count(status.unchanged));
        page.sample(&[("result", "rejected")], count(status.rejected));
        page.family(
            "claviger_config_last_reload_success",
            "Whether the newest configuration is in force.",
            Kind::Gauge,
        );
        page.sample(&[], f64::from(u8::from(status.rejection.is_none())));
        if let Some(time) = status.last_accepted {
            page.family(
                "claviger_config_last_accepted_timestamp_seconds",
                "When a configuration last came into force.",
                Kind::Gauge,
            );
            page.sample(&[], unix(time));
        }
        let Some(snapshot) = self.cell.current() else {
            return;
        };
        page.family(
            "claviger_config_revision",
            "Number of the configuration in force.",
            Kind::Gauge,
        );
        page.sample(&[], count(snapshot.revision));
        let mut counts: Vec<_> = snapshot.counts.iter().collect();
        counts.sort_unstable_by_key(|(kind, _)| **kind);
        page.family(
            "claviger_config_items",
            "Items declared, by kind.",
            Kind::Gauge,
        );
        for (kind, items) in &counts {
            page.sample(&[("kind", kind)], count(items.items as u64));
        }
        page.family(
            "claviger_config_refused_items",
            "Items that refuse, by kind.",
            Kind::Gauge,
        );
        for (kind, items) in &counts {
            page.sample(&[("kind", kind)], count(items.refused as u64));
        }
        page.family(
            "claviger_config_diagnostics",
            "Findings about the configuration in force.",
            Kind::Gauge,
        );
        for (word, severity) in [("error", Severity::Error), ("warning", Severity::Warning)] {
            let found = snapshot
                .diagnostics
                .iter()
                .filter(|finding| finding.severity == severity)
                .count();
            page.sample(&[("severity", word)], count(found as u64));
        }
    }

    fn certificates(&self, page: &mut Page) {
        let Some(snapshot) = self.cell.current() else {
            return;
        };
        page.family(
            "claviger_certificate_expiry_seconds",
            "End of validity of the certificates in force, in seconds since 1970.",
            Kind::Gauge,
        );
        for certificate in snapshot.certificates.iter() {
            let Some(end) = certificate.not_after else {
                continue;
            };
            for name in &certificate.names {
                page.sample(&[("ssl", &certificate.ssl), ("sni", name)], unix(end));
            }
        }
    }

    fn secret_facts(&self) -> Vec<SecretFacts> {
        let mut managers: HashMap<Arc<str>, SecretFacts> = HashMap::new();
        for reference in self.secrets.report() {
            let facts = managers
                .entry(Arc::clone(&reference.manager))
                .or_insert_with(|| SecretFacts {
                    manager: reference.manager.to_string(),
                    references: [("fresh", 0), ("stale", 0), ("refused", 0)].into(),
                    ..SecretFacts::default()
                });
            let state = match reference.state {
                ReferenceState::Fresh => 0,
                ReferenceState::Stale => 1,
                ReferenceState::Refused => 2,
            };
            facts.references[state].1 += 1;
            facts.unresolved += usize::from(reference.state == ReferenceState::Refused);
            facts.oldest = facts.oldest.max(reference.age);
        }
        let mut facts: Vec<_> = managers.into_values().collect();
        facts.sort_by(|a, b| a.manager.cmp(&b.manager));
        facts
    }
}

/// What `/status/ready` says.
pub(super) struct Ready {
    pub(super) cell: Arc<SnapshotCell>,
    pub(super) status: Arc<Status>,
    pub(super) drain: Arc<Drain>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) secrets: Arc<Secrets>,
}

impl Readiness for Ready {
    /// Unresolved references count (`spec/01` §6.5); what does not need them serves all the same.
    fn obstacle(&self) -> Option<String> {
        if self.drain.is_draining() {
            return Some("draining".to_owned());
        }
        if self.cell.current().is_none() {
            return Some("worker id: 0 has not received configuration".to_owned());
        }
        if !self.drain.is_listening() || !self.sockets.all_listen() {
            return Some("not listening yet".to_owned());
        }
        let unresolved = self.status.report().unresolved;
        if unresolved == 0 {
            return None;
        }
        let mut text = format!("{unresolved} secret references are not resolved");
        if let Some(remark) = self.remark() {
            text.push_str("; ");
            text.push_str(&remark);
        }
        Some(text)
    }

    fn remark(&self) -> Option<String> {
        let silent = self.secrets.silent_managers();
        let silent = silent
            .iter()
            .map(|(id, why)| format!("secret manager {id} does not answer: {why}"));
        let remark = silent.collect::<Vec<_>>().join("; ");
        Some(remark).filter(|remark| !remark.is_empty())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn count(value: u64) -> f64 {
    value as f64
}

fn unix(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
