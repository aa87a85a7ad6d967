//! Series by their label text. The text is rendered once, when a combination is first seen; from
//! then on it is found through the caches of `http.rs`, and a scrape copies it as it stands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// One label set of a family.
pub(super) struct Series<T> {
    pub(super) labels: Box<str>,
    pub(super) value: T,
    /// Second of the registry's life in which it was last counted into.
    used: AtomicU32,
}

impl<T> Series<T> {
    /// Notes that it is in use, where the family lets idle series expire.
    pub(super) fn touch(&self, second: u32) {
        if self.used.load(Relaxed) != second {
            self.used.store(second, Relaxed);
        }
    }
}

type Map<T> = HashMap<Box<str>, Arc<Series<T>>, ahash::RandomState>;

/// A family's series.
pub(super) struct Family<T> {
    /// `None` keeps series for ever.
    pub(super) expire_secs: Option<u32>,
    series: RwLock<Map<T>>,
}

impl<T> Family<T> {
    pub(super) fn new(expire: u64) -> Self {
        Self {
            expire_secs: u32::try_from(expire).ok().filter(|secs| *secs > 0),
            series: RwLock::default(),
        }
    }

    pub(super) fn find(&self, labels: &str) -> Option<Arc<Series<T>>> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.get(labels).cloned()
    }

    pub(super) fn ensure(&self, labels: &str, make: impl FnOnce() -> T) -> Arc<Series<T>> {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.get(labels) {
            return Arc::clone(known);
        }
        let new = Arc::new(Series {
            labels: labels.into(),
            value: make(),
            used: AtomicU32::new(0),
        });
        series.insert(labels.into(), Arc::clone(&new));
        new
    }

    pub(super) fn len(&self) -> usize {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.len()
    }

    /// Drops what was idle too long; true where there was such.
    pub(super) fn drop_idle(&self, second: u32) -> bool {
        let Some(expire) = self.expire_secs else {
            return false;
        };
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let before = series.len();
        series.retain(|_, series| second.saturating_sub(series.used.load(Relaxed)) <= expire);
        series.len() != before
    }

    /// All series in a stable order.
    pub(super) fn sorted(&self) -> Vec<Arc<Series<T>>> {
        let mut all: Vec<_> = {
            let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
            series.values().cloned().collect()
        };
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        all
    }
}

/// Upper bounds shared by all histograms of a family.
pub(super) struct Bounds {
    micros: Box<[u64]>,
    /// `le="…"` of each bound, and of infinity last.
    pub(super) labels: Box<[Box<str>]>,
}

impl Bounds {
    pub(super) fn milliseconds(bounds: &[f64]) -> Self {
        Self::of(bounds, 1000.0)
    }

    pub(super) fn seconds(bounds: &[f64]) -> Self {
        Self::of(bounds, 1_000_000.0)
    }

    fn of(bounds: &[f64], micros: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the configuration was checked: positive and below 1e12"
        )]
        let micros = bounds
            .iter()
            .map(|bound| (bound * micros).round() as u64)
            .collect();
        let label = |bound: &f64| format!("le=\"{bound}\"").into();
        let infinity = std::iter::once("le=\"+Inf\"".into());
        Self {
            micros,
            labels: bounds.iter().map(label).chain(infinity).collect(),
        }
    }
}

/// A histogram of times. Its cells are plain atomics: at 600 000 requests a second into one
/// series each cell's cache line is busy for a few per cent of the time, so there is nothing
/// that sharding per core would buy.
pub(super) struct Histogram {
    /// One cell per bound, one for infinity.
    buckets: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            buckets: bounds.labels.iter().map(|_| AtomicU64::new(0)).collect(),
            sum_micros: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, bounds: &Bounds, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let fits = |bound: &u64| micros <= *bound;
        let bucket = bounds.micros.iter().position(fits);
        let bucket = bucket.unwrap_or(bounds.micros.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// Cumulative counts, and the sum in milliseconds.
    pub(super) fn read(&self) -> (Vec<u64>, f64) {
        let mut total = 0;
        let cumulative = self.buckets.iter().map(|cell| {
            total += cell.load(Relaxed);
            total
        });
        let counts = cumulative.collect();
        #[expect(
            clippy::cast_precision_loss,
            reason = "below 2^53 microseconds for 285 years of latency"
        )]
        let sum = self.sum_micros.load(Relaxed) as f64 / 1000.0;
        (counts, sum)
    }
}
