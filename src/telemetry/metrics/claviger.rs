//! What APISIX does not count: secrets (a file of their own), refusals. State that is known only when asked
//! (configuration, certificates, references) comes through collectors. Names start with
//! `claviger_` whatever the prefix. None of this stands on a request's ordinary path.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::auth::AuthFailure;
use super::secrets::SecretMetrics;

/// The `claviger_*` metrics that rooms count into. Gauges that are known only when asked come
/// through [`Collect`](super::Collect).
pub struct OwnMetrics {
    secrets: SecretMetrics,
    protocol_refusals: IntCounterVec,
    auth_failures: IntCounterVec,
}

impl OwnMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            secrets: SecretMetrics::new(registry),
            protocol_refusals: counters(
                registry,
                "protocol_refusals_total",
                "Requests refused before routing.",
                &["reason"],
            ),
            auth_failures: counters(
                registry,
                "auth_failures_total",
                "Requests an auth plugin refused.",
                &["plugin", "reason"],
            ),
        }
    }

    /// What happens at secret managers.
    #[must_use]
    pub const fn secrets(&self) -> &SecretMetrics {
        &self.secrets
    }

    /// Counts a request refused before routing. `reason` is a fixed word.
    pub fn refused(&self, reason: &'static str) {
        self.protocol_refusals.with_label_values(&[reason]).inc();
    }

    /// The counter of refusals by `plugin`; taken when a plugin is built.
    #[must_use]
    pub fn auth_failures(&self, plugin: &'static str, reason: AuthFailure) -> IntCounter {
        let labels = [plugin, reason.label()];
        self.auth_failures.with_label_values(&labels)
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

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    register(
        registry,
        IntCounterVec::new(options(name, help), labels).expect(VALID),
    )
}

pub(super) fn histograms(registry: &Registry, name: &str, help: &str, label: &str) -> HistogramVec {
    let mut options = HistogramOpts::new(name, help).namespace("claviger");
    options.buckets = vec![
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    register(registry, HistogramVec::new(options, &[label]).expect(VALID))
}
