//! What APISIX does not count: reloads, secrets, certificates, refusals. Names start with
//! `claviger_` whatever the prefix. None of this stands on a request's ordinary path.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::page::{Collect, Kind, Page};

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// A new snapshot is in force.
    Applied,
    /// Nothing had changed.
    Unchanged,
    /// The text did not parse or was refused as a whole; the old snapshot serves on.
    Rejected,
}

impl ReloadResult {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Rejected];

    const fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

/// Facts of a published snapshot.
#[derive(Debug, Clone, Default)]
pub struct ConfigFacts {
    /// Its number.
    pub revision: u64,
    /// Items in force by kind (`routes`, `consumers`, …).
    pub items: Vec<(&'static str, usize)>,
    /// Items that were left out, by kind.
    pub dropped: Vec<(&'static str, usize)>,
    /// Items that refuse in their place, by kind.
    pub refused: Vec<(&'static str, usize)>,
    /// Findings of severity warning and error.
    pub diagnostics: (usize, usize),
}

/// A certificate in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Id of the `ssls` item.
    pub ssl: Arc<str>,
    /// A name it serves.
    pub sni: Arc<str>,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// State of a manager's references at the time of a scrape.
#[derive(Debug, Clone, Default)]
pub struct SecretFacts {
    /// Manager and id (`vault/main`).
    pub manager: String,
    /// References by state (`fresh`, `stale`, `missing`, …), each state always the same word.
    pub references: Vec<(&'static str, usize)>,
    /// References without a usable value.
    pub unresolved: usize,
    /// Age of the oldest value in use.
    pub oldest: Option<Duration>,
}

/// Fetches from one manager. Resolved once when the manager is built.
#[derive(Clone)]
pub struct FetchMetrics {
    total: IntCounter,
    errors: IntCounter,
    latency: prometheus::Histogram,
}

impl FetchMetrics {
    /// Counts one round trip to the manager.
    pub fn fetched(&self, succeeded: bool, took: Duration) {
        self.total.inc();
        if !succeeded {
            self.errors.inc();
        }
        self.latency.observe(took.as_secs_f64());
    }
}

/// The `claviger_*` metrics that rooms count into. Gauges that are known only when asked come
/// through [`Collect`].
pub struct OwnMetrics {
    reloads: IntCounterVec,
    last_success: Gauge,
    revision: Gauge,
    items: IntGaugeVec,
    dropped: IntGaugeVec,
    refused: IntGaugeVec,
    diagnostics: IntGaugeVec,
    fetch_total: IntCounterVec,
    fetch_errors: IntCounterVec,
    fetch_latency: HistogramVec,
    protocol_refusals: IntCounterVec,
    auth_failures: IntCounterVec,
    certificates: ArcSwap<Vec<CertificateFacts>>,
}

impl OwnMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let own = Self {
            reloads: counters(
                registry,
                "config_reloads_total",
                "Reloads by result.",
                "result",
            ),
            last_success: gauge(
                registry,
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last put in force.",
            ),
            revision: gauge(
                registry,
                "config_revision",
                "Number of the configuration in force.",
            ),
            items: gauges(registry, "config_items", "Items in force.", "kind"),
            dropped: gauges(registry, "config_dropped_items", "Items left out.", "kind"),
            refused: gauges(
                registry,
                "config_refused_items",
                "Items that refuse in their place.",
                "kind",
            ),
            diagnostics: gauges(
                registry,
                "config_diagnostics",
                "Findings about the configuration in force.",
                "severity",
            ),
            fetch_total: counters(
                registry,
                "secret_fetches_total",
                "Round trips to secret managers.",
                "manager",
            ),
            fetch_errors: counters(
                registry,
                "secret_fetch_errors_total",
                "Round trips to secret managers that failed.",
                "manager",
            ),
            fetch_latency: histograms(registry),
            protocol_refusals: counters(
                registry,
                "protocol_refusals_total",
                "Requests refused before routing.",
                "reason",
            ),
            auth_failures: counters(
                registry,
                "auth_failures_total",
                "Requests an auth plugin refused.",
                "plugin",
            ),
            certificates: ArcSwap::default(),
        };
        for result in ReloadResult::ALL {
            own.reloads.with_label_values(&[result.label()]);
        }
        own
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: ReloadResult, now: SystemTime) {
        self.reloads.with_label_values(&[result.label()]).inc();
        if result == ReloadResult::Applied {
            self.last_success.set(unix_seconds(now));
        }
    }

    /// Shows what the new snapshot holds.
    pub fn published(&self, facts: &ConfigFacts) {
        #[expect(clippy::cast_precision_loss, reason = "revisions stay far below 2^53")]
        self.revision.set(facts.revision as f64);
        for (family, counts) in [
            (&self.items, &facts.items),
            (&self.dropped, &facts.dropped),
            (&self.refused, &facts.refused),
        ] {
            family.reset();
            for (kind, count) in counts {
                family.with_label_values(&[*kind]).set(integer(*count));
            }
        }
        let (warnings, errors) = facts.diagnostics;
        for (severity, count) in [("warning", warnings), ("error", errors)] {
            let gauge = self.diagnostics.with_label_values(&[severity]);
            gauge.set(integer(count));
        }
    }

    /// Replaces the list of certificates whose expiry is shown.
    pub fn certificates(&self, certificates: Vec<CertificateFacts>) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Handles for the manager `name` (`vault/main`).
    #[must_use]
    pub fn manager(&self, name: &str) -> FetchMetrics {
        FetchMetrics {
            total: self.fetch_total.with_label_values(&[name]),
            errors: self.fetch_errors.with_label_values(&[name]),
            latency: self.fetch_latency.with_label_values(&[name]),
        }
    }

    /// Counts a request refused before routing. `reason` is a fixed word.
    pub fn refused(&self, reason: &'static str) {
        self.protocol_refusals.with_label_values(&[reason]).inc();
    }

    /// The counter of refusals by `plugin`; taken when a plugin is built.
    #[must_use]
    pub fn auth_failures(&self, plugin: &'static str) -> IntCounter {
        self.auth_failures.with_label_values(&[plugin])
    }
}

impl Collect for OwnMetrics {
    fn collect(&self, page: &mut Page) {
        let certificates = self.certificates.load();
        if certificates.is_empty() {
            return;
        }
        page.family(
            "claviger_certificate_expiry_seconds",
            "End of validity of the certificates in force, in seconds since 1970.",
            Kind::Gauge,
        );
        for certificate in certificates.iter() {
            page.sample(
                &[("ssl", &certificate.ssl), ("sni", &certificate.sni)],
                unix_seconds(certificate.not_after),
            );
        }
    }
}

/// Writes the state of secret references; the room `secrets` calls it from its collector.
pub fn write_secret_facts(page: &mut Page, managers: &[SecretFacts]) {
    let families = [
        ("secret_references", "References by state."),
        ("secret_unresolved", "References without a usable value."),
        (
            "secret_oldest_age_seconds",
            "Age of the oldest value in use.",
        ),
    ];
    for (name, help) in families {
        page.family(&format!("claviger_{name}"), help, Kind::Gauge);
        for facts in managers {
            let manager = ("manager", facts.manager.as_str());
            match name {
                "secret_references" => {
                    for (state, count) in &facts.references {
                        page.sample(&[manager, ("state", state)], count_of(*count));
                    }
                }
                "secret_unresolved" => page.sample(&[manager], count_of(facts.unresolved)),
                _ => {
                    if let Some(age) = facts.oldest {
                        page.sample(&[manager], age.as_secs_f64());
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn count_of(count: usize) -> f64 {
    count as f64
}

fn integer(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

const VALID: &str = "names are constants that the unit tests register";

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("claviger")
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect(VALID);
    metric
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(
        registry,
        Gauge::with_opts(options(name, help)).expect(VALID),
    )
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    register(
        registry,
        IntGaugeVec::new(options(name, help), &[label]).expect(VALID),
    )
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    register(
        registry,
        IntCounterVec::new(options(name, help), &[label]).expect(VALID),
    )
}

fn histograms(registry: &Registry) -> HistogramVec {
    let mut options = HistogramOpts::new(
        "secret_fetch_duration_seconds",
        "Time of round trips to secret managers.",
    )
    .namespace("claviger");
    options.buckets = vec![
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    register(
        registry,
        HistogramVec::new(options, &["manager"]).expect(VALID),
    )
}
