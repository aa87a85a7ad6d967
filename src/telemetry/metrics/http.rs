//! APISIX's request metrics: `http_status`, `http_latency`, `bandwidth`.
//!
//! A combination of label values is rendered to text once and its cells kept. A thread finds the
//! cells again by the addresses of the names (which the cache keeps alive, so an address cannot
//! come to mean another name): a few loads, one hash of integers, eight additions; no lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use thread_local::ThreadLocal;

use super::config::{FamilyConfig, MetricsConfig};
use super::labels::{Disabled, Labels};
use super::page::{Kind, Page};
use super::series::{Bounds, Family, Histogram, Series};
use crate::expr::VarSource;

/// One exchange that is over. Names are `Arc`s since their addresses are the cache's keys;
/// `None` makes an empty label.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// Status sent.
    pub code: u16,
    /// `upstream`, `apisix` or `nginx`.
    pub response_source: &'static str,
    /// Route id or name.
    pub route: Option<&'a Arc<str>>,
    /// Service id or name.
    pub service: Option<&'a Arc<str>>,
    /// The route's pattern that matched.
    pub matched_uri: Option<&'a Arc<str>>,
    /// The route's host that matched.
    pub matched_host: Option<&'a Arc<str>>,
    /// Username.
    pub consumer: Option<&'a Arc<str>>,
    /// The upstream node chosen last.
    pub node: Option<IpAddr>,
    /// Whole time.
    pub request_time: Duration,
    /// The upstream's part; `None` where none was contacted.
    pub upstream_time: Option<Duration>,
    /// Bytes received.
    pub ingress: u64,
    /// Bytes sent.
    pub egress: u64,
    /// When it ended, for expiry.
    pub ended: Instant,
    /// Labels to leave empty.
    pub disabled: Disabled,
    /// Answers extra labels. With extra labels configured the cells are looked up by their text.
    pub vars: Option<&'a dyn VarSource>,
}

/// The request metrics.
pub struct HttpMetrics {
    status: Family<AtomicU64>,
    latency: Family<Latency>,
    bandwidth: Family<Bandwidth>,
    labels: Labels,
    bounds: Bounds,
    max_series: usize,
    overflowed: AtomicU64,
    started: Instant,
    /// Raised when cached cells must be looked up anew.
    generation: AtomicU32,
    caches: ThreadLocal<RefCell<Cache>>,
}

struct Latency {
    request: Histogram,
    upstream: Histogram,
    own: Histogram,
}

#[derive(Default)]
struct Bandwidth {
    ingress: AtomicU64,
    egress: AtomicU64,
}

#[derive(Clone)]
struct Cells {
    status: Arc<Series<AtomicU64>>,
    latency: Arc<Series<Latency>>,
    bandwidth: Arc<Series<Bandwidth>>,
}

/// Addresses and small values that together name one set of cells.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    names: [usize; 6],
    node: Option<IpAddr>,
    disabled: Disabled,
    code: u16,
}

struct Cached {
    cells: Cells,
    /// Keeps the names' addresses taken.
    _names: [Option<Arc<str>>; 5],
}

#[derive(Default)]
struct Cache {
    generation: u32,
    found: HashMap<Key, Cached, ahash::RandomState>,
}

impl HttpMetrics {
    pub(super) fn new(config: &MetricsConfig, started: Instant) -> Self {
        let default = FamilyConfig::default();
        let of = |name: &str| config.metrics.get(name).unwrap_or(&default);
        Self {
            status: Family::new(of("http_status").expire),
            latency: Family::new(of("http_latency").expire),
            bandwidth: Family::new(of("bandwidth").expire),
            labels: Labels::new(of("http_status"), of("http_latency"), of("bandwidth")),
            bounds: Bounds::milliseconds(&config.default_buckets),
            max_series: config.max_series,
            overflowed: AtomicU64::new(0),
            started,
            generation: AtomicU32::new(0),
            caches: ThreadLocal::new(),
        }
    }

    /// Counts an exchange.
    pub fn record(&self, exchange: &Exchange<'_>) {
        if self.labels.has_extra() {
            self.count(&self.resolve(exchange), exchange);
            return;
        }
        let key = Key::of(exchange);
        let cache = self.caches.get_or_default();
        let mut cache = cache.borrow_mut();
        let generation = self.generation.load(Relaxed);
        if cache.generation != generation {
            cache.generation = generation;
            cache.found.clear();
        }
        if let Some(cached) = cache.found.get(&key) {
            self.count(&cached.cells, exchange);
            return;
        }
        let cells = self.resolve(exchange);
        self.count(&cells, exchange);
        if cache.found.len() >= MAX_CACHED {
            cache.found.clear();
        }
        cache.found.insert(key, Cached::of(exchange, cells));
    }

    /// Whether [`Exchange::vars`] is of any use.
    #[must_use]
    pub fn wants_vars(&self) -> bool {
        self.labels.has_extra()
    }

    /// Lets go of the names of a replaced snapshot.
    pub fn forget_names(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    fn count(&self, cells: &Cells, exchange: &Exchange<'_>) {
        cells.status.value.fetch_add(1, Relaxed);
        let latency = &cells.latency.value;
        latency.request.observe(&self.bounds, exchange.request_time);
        let mut own = exchange.request_time;
        if let Some(upstream) = exchange.upstream_time {
            latency.upstream.observe(&self.bounds, upstream);
            own = own.saturating_sub(upstream);
        }
        latency.own.observe(&self.bounds, own);
        let bandwidth = &cells.bandwidth.value;
        bandwidth.ingress.fetch_add(exchange.ingress, Relaxed);
        bandwidth.egress.fetch_add(exchange.egress, Relaxed);
        self.touch(cells, exchange.ended);
    }

    fn touch(&self, cells: &Cells, ended: Instant) {
        let expires = [
            self.status.expire_secs,
            self.latency.expire_secs,
            self.bandwidth.expire_secs,
        ];
        if expires == [None; 3] {
            return;
        }
        let second = self.second(ended);
        cells.status.touch(second);
        cells.latency.touch(second);
        cells.bandwidth.touch(second);
    }

    fn second(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.started).as_secs();
        u32::try_from(since).unwrap_or(u32::MAX)
    }

    fn resolve(&self, exchange: &Exchange<'_>) -> Cells {
        let [status, latency, bandwidth] = self.labels.render(exchange, false);
        if let (Some(status), Some(latency), Some(bandwidth)) = (
            self.status.find(&status),
            self.latency.find(&latency),
            self.bandwidth.find(&bandwidth),
        ) {
            return Cells {
                status,
                latency,
                bandwidth,
            };
        }
        if self.status.len().max(self.latency.len()) < self.max_series {
            return self.ensure([&status, &latency, &bandwidth]);
        }
        self.overflowed.fetch_add(1, Relaxed);
        let [status, latency, bandwidth] = self.labels.render(exchange, true);
        self.ensure([&status, &latency, &bandwidth])
    }

    fn ensure(&self, [status, latency, bandwidth]: [&str; 3]) -> Cells {
        Cells {
            status: self.status.ensure(status, AtomicU64::default),
            latency: self.latency.ensure(latency, || Latency {
                request: Histogram::new(&self.bounds),
                upstream: Histogram::new(&self.bounds),
                own: Histogram::new(&self.bounds),
            }),
            bandwidth: self.bandwidth.ensure(bandwidth, Bandwidth::default),
        }
    }

    pub(super) fn write(&self, page: &mut Page, now: Instant) {
        let second = self.second(now);
        let dropped = [
            self.status.drop_idle(second),
            self.latency.drop_idle(second),
            self.bandwidth.drop_idle(second),
        ];
        if dropped.contains(&true) {
            self.forget_names();
        }
        self.write_bandwidth(page);
        self.write_latency(page);
        self.write_status(page);
        page.family(
            "claviger_metrics_overflow_total",
            "Label combinations past max_series that were counted under the label value overflow.",
            Kind::Counter,
        );
        page.raw_integer("", "", "", self.overflowed.load(Relaxed));
    }

    fn write_status(&self, page: &mut Page) {
        let help = "HTTP status codes per route.";
        page.apisix_family("http_status", help, Kind::Counter);
        for series in self.status.sorted() {
            page.raw_integer("", &series.labels, "", series.value.load(Relaxed));
        }
    }

    fn write_bandwidth(&self, page: &mut Page) {
        let help = "Bytes received and sent per route.";
        page.apisix_family("bandwidth", help, Kind::Counter);
        for series in self.bandwidth.sorted() {
            let Bandwidth { ingress, egress } = &series.value;
            for (kind, cell) in [(EGRESS, egress), (INGRESS, ingress)] {
                page.raw_integer("", &series.labels, kind, cell.load(Relaxed));
            }
        }
    }

    fn write_latency(&self, page: &mut Page) {
        let help = "Latency in milliseconds per route.";
        page.apisix_family("http_latency", help, Kind::Histogram);
        for series in self.latency.sorted() {
            let Latency {
                request,
                upstream,
                own,
            } = &series.value;
            for (kind, histogram) in [
                ("type=\"apisix\"", own),
                ("type=\"request\"", request),
                ("type=\"upstream\"", upstream),
            ] {
                self.write_histogram(page, &series.labels, kind, histogram);
            }
        }
    }

    fn write_histogram(&self, page: &mut Page, labels: &str, kind: &str, histogram: &Histogram) {
        let (counts, sum) = histogram.read();
        let total = counts.last().copied().unwrap_or_default();
        if total == 0 {
            return;
        }
        let labels = format!("{labels},{kind}");
        for (count, le) in counts.iter().zip(&self.bounds.labels) {
            page.raw_integer("_bucket", &labels, le, *count);
        }
        page.raw("_sum", &labels, "", sum);
        page.raw_integer("_count", &labels, "", total);
    }
}

impl Key {
    fn of(exchange: &Exchange<'_>) -> Self {
        let [route, service, uri, host, consumer] = names(exchange).map(address);
        let source = exchange.response_source.as_ptr().addr();
        Self {
            names: [route, service, uri, host, consumer, source],
            node: exchange.node,
            disabled: exchange.disabled,
            code: exchange.code,
        }
    }
}

impl Cached {
    fn of(exchange: &Exchange<'_>, cells: Cells) -> Self {
        Self {
            cells,
            _names: names(exchange).map(Option::<&Arc<str>>::cloned),
        }
    }
}

fn names<'a>(exchange: &Exchange<'a>) -> [Option<&'a Arc<str>>; 5] {
    [
        exchange.route,
        exchange.service,
        exchange.matched_uri,
        exchange.matched_host,
        exchange.consumer,
    ]
}

fn address(name: Option<&Arc<str>>) -> usize {
    name.map_or(0, |name| Arc::as_ptr(name).addr())
}

const INGRESS: &str = "type=\"ingress\"";
const EGRESS: &str = "type=\"egress\"";

/// Combinations one thread remembers; past it, it starts anew.
const MAX_CACHED: usize = 65_536;
