//! What APISIX does not count: fetches of secrets, refusals. State that is known only when asked
//! (configuration, certificates, references) comes through collectors. Names start with
//! `claviger_` whatever the prefix. None of this stands on a request's ordinary path.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::page::{Kind, Page};

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
/// through [`Collect`](super::Collect).
pub struct OwnMetrics {
    fetch_total: IntCounterVec,
    fetch_errors: IntCounterVec,
    fetch_latency: HistogramVec,
    protocol_refusals: IntCounterVec,
    auth_failures: IntCounterVec,
}

impl OwnMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
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
        }
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

const VALID: &str = "names are constants that the unit tests register";

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("claviger")
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect(VALID);
    metric
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
