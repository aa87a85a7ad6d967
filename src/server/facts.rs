//! What the rooms know, as metrics: asked at each scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::diagnostic::Severity;
use crate::proxy::handshake::RefusedHandshakes;
use crate::reload::{SnapshotCell, Status};
use crate::secrets::{CircuitState, LoginReport, ManagerReport, ReferenceState, Secrets};
use crate::snapshot::CertificateState;
use crate::telemetry::metrics::{Collect, Kind, Page, SecretFacts, write_secret_facts};

/// Asked at each scrape.
pub(super) struct Facts {
    pub(super) cell: Arc<SnapshotCell>,
    pub(super) status: Arc<Status>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) refused: Arc<RefusedHandshakes>,
    pub(super) clock: Arc<dyn Clock>,
    /// `claviger.tls.expiry_notice`.
    pub(super) expiry_notice: Duration,
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
            ("expired", &self.refused.expired),
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
            let Some(end) = certificate.not_after() else {
                continue;
            };
            let names = certificate.names().iter().map(String::as_str);
            // What is shown to upstreams has no name.
            let unnamed = certificate.names().is_empty().then_some("");
            for name in names.chain(unnamed) {
                page.sample(&[("ssl", &certificate.ssl), ("sni", name)], unix(end));
            }
        }
        page.family(
            "claviger_certificates",
            "Certificates of the configuration in force, by state.",
            Kind::Gauge,
        );
        let now = self.clock.wall();
        let pairs = snapshot.certificates.iter();
        let pairs = pairs.flat_map(|certificate| certificate.pairs.iter());
        let states: Vec<_> = pairs
            .map(|pair| CertificateState::of(pair.as_deref(), now, self.expiry_notice))
            .collect();
        for state in CertificateState::ALL {
            let pairs = states.iter().filter(|other| **other == state).count();
            page.sample(&[("state", state.as_str())], count(pairs as u64));
        }
        page.family(
            "claviger_tls_quarantined",
            "Items of ssls whose newest values failed a rehearsed handshake while others serve.",
            Kind::Gauge,
        );
        let certificates = snapshot.certificates.iter();
        let quarantined = certificates.filter(|certificate| certificate.quarantined);
        page.sample(&[], count(quarantined.count() as u64));
    }

    /// Declared managers, and what references name besides: `env`, managers that are not declared,
    /// and no manager at all where a reference is malformed.
    fn secret_facts(&self) -> Vec<SecretFacts> {
        let mut facts: BTreeMap<Arc<str>, SecretFacts> = BTreeMap::new();
        for manager in self.secrets.manager_report() {
            facts.insert(Arc::clone(&manager.id), facts_of(&manager));
        }
        // A report of every reference would take more memory than the references.
        for reference in self.secrets.unmanaged_report() {
            let facts = facts
                .entry(Arc::clone(&reference.manager))
                .or_insert_with(|| SecretFacts {
                    manager: reference.manager.to_string(),
                    ..SecretFacts::default()
                });
            match reference.state {
                ReferenceState::Fresh => facts.fresh += 1,
                ReferenceState::Stale => facts.stale += 1,
                ReferenceState::Refused => facts.refused += 1,
            }
            facts.oldest = facts.oldest.max(reference.age);
        }
        facts.into_values().collect()
    }
}

fn facts_of(report: &ManagerReport) -> SecretFacts {
    let left = |login: LoginReport| Some((login.method, login.left?));
    SecretFacts {
        manager: report.id.to_string(),
        circuit: Some(match report.circuit {
            CircuitState::Closed => 0,
            CircuitState::Open => 1,
            CircuitState::Probing => 2,
        }),
        login: report.login.and_then(left),
        documents: Some(report.documents),
        fresh: report.fresh,
        stale: report.stale,
        refused: report.refused,
        oldest: report.oldest,
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
