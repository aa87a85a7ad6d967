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
use crate::tls::IdentityState;
use crate::tls::on_demand::Tally;
use crate::tls::stapling;
use crate::tls::{SessionCache, TicketKeys};

/// Asked at each scrape.
pub(super) struct Facts {
    pub(super) cell: Arc<SnapshotCell>,
    pub(super) status: Arc<Status>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) refused: Arc<RefusedHandshakes>,
    pub(super) tickets: Option<Arc<TicketKeys>>,
    pub(super) stapled: Arc<stapling::Counts>,
    pub(super) sessions: Arc<SessionCache>,
    pub(super) clock: Arc<dyn Clock>,
    /// `claviger.tls.expiry_notice`.
    pub(super) expiry_notice: Duration,
}

impl Collect for Facts {
    fn collect(&self, page: &mut Page) {
        self.configuration(page);
        self.certificates(page);
        self.on_demand(page);
        self.stapling(page);
        self.sessions(page);
        self.tickets(page);
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
    fn sessions(&self, page: &mut Page) {
        let report = self.sessions.report();
        page.family(
            "claviger_tls_sessions",
            "TLS sessions kept in memory, to be resumed without a ticket.",
            Kind::Gauge,
        );
        page.sample(&[], count(report.sessions as u64));
        page.family(
            "claviger_tls_session_bytes",
            "Memory that kept TLS sessions take.",
            Kind::Gauge,
        );
        page.sample(&[], count(report.bytes as u64));
    }

    fn tickets(&self, page: &mut Page) {
        let Some(tickets) = &self.tickets else {
            return;
        };
        let (report, counts) = (tickets.report(), tickets.counts());
        page.family(
            "claviger_tls_ticket_keys",
            "Keys that open session tickets; the newest seals them.",
            Kind::Gauge,
        );
        page.sample(&[], count(report.keys as u64));
        page.family(
            "claviger_tls_ticket_key_generation",
            "Keys that have sealed session tickets since the start.",
            Kind::Gauge,
        );
        page.sample(&[], count(report.generation));
        if let Some(age) = report.age {
            page.family(
                "claviger_tls_ticket_key_age_seconds",
                "How long the newest key has sealed session tickets here.",
                Kind::Gauge,
            );
            page.sample(&[], age.as_secs_f64());
        }
        page.family(
            "claviger_tls_tickets_total",
            "Session tickets issued, and presented by clients.",
            Kind::Counter,
        );
        for (result, counter) in [
            ("issued", &counts.sealed),
            ("newest_key", &counts.newest),
            ("older_key", &counts.older),
            ("unknown_key", &counts.unknown),
        ] {
            page.sample(
                &[("result", result)],
                count(counter.load(Ordering::Relaxed)),
            );
        }
    }

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

    fn stapling(&self, page: &mut Page) {
        let Some(snapshot) = self.cell.current() else {
            return;
        };
        let now = self.clock.wall();
        let (mut stapled, mut missing) = (0, 0);
        for identity in snapshot.names.identities() {
            if let (Some(settings), IdentityState::Serving { pairs }) =
                (identity.stapling, &identity.state)
            {
                let fit = pairs.iter().filter_map(|pair| pair.staple(settings, now));
                let fit = fit.count();
                stapled += fit;
                missing += pairs.len() - fit;
            }
        }
        if stapled + missing == 0 {
            return;
        }
        page.family(
            "claviger_ocsp_staples",
            "Certificates of items with ocsp_stapling, with and without a response to send.",
            Kind::Gauge,
        );
        page.sample(&[("state", "stapled")], count(stapled as u64));
        page.sample(&[("state", "missing")], count(missing as u64));
        page.family(
            "claviger_ocsp_responses_total",
            "Questions to OCSP responders, by what they brought.",
            Kind::Counter,
        );
        for (result, number) in self.stapled.results() {
            page.sample(&[("result", result)], count(number));
        }
    }

    /// By item: names are the clients'.
    fn on_demand(&self, page: &mut Page) {
        type Gauge = (&'static str, &'static str, fn(&Tally) -> usize);
        type Total = (&'static str, &'static str, fn(&Tally) -> u64);
        let Some(snapshot) = self.cell.current() else {
            return;
        };
        let identities = snapshot.names.identities();
        let items = identities.filter_map(|identity| match &identity.state {
            IdentityState::OnDemand(names) => Some((&*identity.id, names.tally())),
            _ => None,
        });
        let items: Vec<_> = items.collect();
        if items.is_empty() {
            return;
        }
        let gauges: [Gauge; 3] = [
            (
                "names",
                "Names on demand with a certificate in memory.",
                |tally| tally.names,
            ),
            (
                "refused_names",
                "Names on demand that are refused from memory.",
                |tally| tally.refused,
            ),
            (
                "waiting",
                "Handshakes that wait for a certificate on demand.",
                |tally| tally.waiting,
            ),
        ];
        for (name, help, of) in gauges {
            page.family(&format!("claviger_on_demand_{name}"), help, Kind::Gauge);
            for (id, tally) in &items {
                page.sample(&[("ssl", id)], count(of(tally) as u64));
            }
        }
        let name = "claviger_on_demand_expiry_seconds";
        let help =
            "End of the certificate on demand in memory that ends first, in seconds since 1970.";
        page.family(name, help, Kind::Gauge);
        for (id, tally) in &items {
            if let Some(end) = tally.not_after {
                page.sample(&[("ssl", id)], unix(end));
            }
        }
        let name = "claviger_on_demand_fetches_total";
        page.family(
            name,
            "First fetches of names on demand, by result.",
            Kind::Counter,
        );
        for (id, tally) in &items {
            for (result, number) in tally.fetches {
                page.sample(&[("ssl", id), ("result", result)], count(number));
            }
        }
        let name = "claviger_on_demand_refusals_total";
        page.family(
            name,
            "Handshakes for names on demand that were refused.",
            Kind::Counter,
        );
        for (id, tally) in &items {
            for (reason, number) in tally.refusals {
                page.sample(&[("ssl", id), ("reason", reason)], count(number));
            }
        }
        let totals: [Total; 2] = [
            (
                "changed",
                "Times a name's certificate was replaced.",
                |tally| tally.changed,
            ),
            (
                "dropped",
                "Names forgotten, unused or one too many.",
                |tally| tally.dropped,
            ),
        ];
        for (name, help, of) in totals {
            page.family(
                &format!("claviger_on_demand_{name}_total"),
                help,
                Kind::Counter,
            );
            for (id, tally) in &items {
                page.sample(&[("ssl", id)], count(of(tally)));
            }
        }
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
