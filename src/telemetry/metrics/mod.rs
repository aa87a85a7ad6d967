//! The process's metrics. One registry, handed to whoever counts; nothing process-wide.
//!
//! Three sources make the page: the request metrics ([`HttpMetrics`], own cells), a
//! `prometheus::Registry` for everything counted rarely, and collectors that are asked at each
//! scrape. The page is made anew for each scrape: APISIX caches it for `refresh_interval` because
//! its counters live in shared memory, ours cost a copy of ready text.

mod auth;
mod claviger;
mod config;
mod connections;
mod handshakes;
mod http;
mod labels;
mod page;
mod secrets;
mod series;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::{Encoder, Registry, TextEncoder};

use crate::clock::{Clock, SystemClock};

pub use auth::AuthFailure;
pub use claviger::OwnMetrics;
pub use config::{FamilyConfig, MetricsConfig, MetricsConfigError};
pub use connections::{ConnectionCounts, Connections, OpenRequest};
pub use handshakes::{HandshakeCounts, HandshakeFailure, OpenHandshake};
pub use http::{Exchange, HttpMetrics};
pub use labels::Disabled;
pub use page::{Collect, Kind, Page};
pub use secrets::{SecretFacts, SecretMetrics, write_secret_facts};

/// All metrics of the process.
pub struct Metrics {
    prefix: String,
    clock: Arc<dyn Clock>,
    registry: Registry,
    http: HttpMetrics,
    connections: Arc<Connections>,
    own: OwnMetrics,
    collectors: Mutex<Vec<Arc<dyn Collect>>>,
}

impl Metrics {
    /// A fresh registry with defaults. `prefix` is APISIX's `metric_prefix` (`apisix_`).
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let config = MetricsConfig {
            metric_prefix: prefix.to_owned(),
            ..MetricsConfig::default()
        };
        Self::with_config(&config, Arc::new(SystemClock))
    }

    /// A fresh registry.
    #[must_use]
    pub fn with_config(config: &MetricsConfig, clock: Arc<dyn Clock>) -> Self {
        let registry = Registry::new();
        Self {
            prefix: config.metric_prefix.clone(),
            http: HttpMetrics::new(config, clock.now()),
            connections: Arc::default(),
            own: OwnMetrics::new(&registry),
            collectors: Mutex::default(),
            registry,
            clock,
        }
    }

    /// The request metrics.
    #[must_use]
    pub fn http(&self) -> &HttpMetrics {
        &self.http
    }

    /// Connections and requests in flight.
    #[must_use]
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The `claviger_*` metrics.
    #[must_use]
    pub fn own(&self) -> &OwnMetrics {
        &self.own
    }

    /// For further metrics that are counted through handles taken once.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Asks `collector` at each scrape, for as long as the process lives.
    pub fn register(&self, collector: Arc<dyn Collect>) {
        let collectors = &self.collectors;
        let mut collectors = collectors.lock().unwrap_or_else(PoisonError::into_inner);
        collectors.push(collector);
    }

    /// The page, text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        self.render_at(self.clock.now())
    }

    fn render_at(&self, now: Instant) -> Vec<u8> {
        let mut page = Page::new(&self.prefix, 64 * 1024);
        self.http.write(&mut page, now);
        self.connections.collect(&mut page);
        write_node_info(&mut page);

        let collectors = self.collectors.lock();
        for collector in collectors.unwrap_or_else(PoisonError::into_inner).iter() {
            collector.collect(&mut page);
        }
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            log::error!("metrics cannot be written: {error}");
        }
        page.into_text()
    }
}

fn write_node_info(page: &mut Page) {
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy();
    let version = env!("CARGO_PKG_VERSION");
    page.apisix_family("node_info", "Info of this gateway node.", Kind::Gauge);
    page.sample(&[("hostname", &hostname), ("version", version)], 1.0);
    let errors = "nginx_metric_errors_total";
    page.apisix_family(errors, "Number of errors in metrics.", Kind::Counter);
    page.sample(&[], 0.0);
}

#[cfg(test)]
mod tests;
