//! What happened to the names of an item, counted. Never labelled with a name: clients choose them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Counters of one item.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub fetched: AtomicU64,
    pub unknown: AtomicU64,
    pub unusable: AtomicU64,
    pub failed: AtomicU64,
    pub changed: AtomicU64,
    pub dropped: AtomicU64,
    pub bad_name: AtomicU64,
    pub negative: AtomicU64,
    pub expired: AtomicU64,
    pub cap: AtomicU64,
    pub crowded: AtomicU64,
    pub timed_out: AtomicU64,
}

/// What an item keeps, and what happened to its names.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Names with a certificate in memory.
    pub names: usize,
    /// Names refused from memory.
    pub refused: usize,
    /// Handshakes that wait.
    pub waiting: usize,
    /// Earliest end of validity of a certificate in memory.
    pub not_after: Option<SystemTime>,
    /// First fetches of names, by what came of them.
    pub fetches: [(&'static str, u64); 4],
    /// Handshakes refused, by reason.
    pub refusals: [(&'static str, u64); 6],
    /// Times a name's certificate was replaced by another.
    pub changed: u64,
    /// Names forgotten: unused, or one too many.
    pub dropped: u64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fetches(&self) -> [(&'static str, u64); 4] {
        [
            ("fetched", &self.fetched),
            ("unknown", &self.unknown),
            ("unusable", &self.unusable),
            ("failed", &self.failed),
        ]
        .map(|(word, counter)| (word, counter.load(Ordering::Relaxed)))
    }

    pub(super) fn refusals(&self) -> [(&'static str, u64); 6] {
        [
            ("bad_name", &self.bad_name),
            ("known", &self.negative),
            ("expired", &self.expired),
            ("cap", &self.cap),
            ("crowded", &self.crowded),
            ("timeout", &self.timed_out),
        ]
        .map(|(word, counter)| (word, counter.load(Ordering::Relaxed)))
    }
}
