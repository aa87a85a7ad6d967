//! The one place that reads the machine's clocks. Everything else is handed a [`Clock`].

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// Source of time, so that what depends on time can be tested without waiting.
pub trait Clock: Send + Sync {
    /// Monotonic time, for durations and deadlines.
    fn now(&self) -> Instant;
    /// Wall-clock time, for what people and certificates read.
    fn wall(&self) -> SystemTime;
}

/// Whole seconds since 1970; 0 for a time before.
#[must_use]
pub fn unix_secs(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The machine's clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that moves only when told to, for tests.
#[derive(Debug)]
pub struct ManualClock {
    start: (Instant, SystemTime),
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that stands still at the moment it is made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: (Instant::now(), SystemTime::now()),
            elapsed: Mutex::new(Duration::ZERO),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.elapsed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start.0 + *self.lock()
    }

    fn wall(&self) -> SystemTime {
        self.start.1 + *self.lock()
    }
}
