//! Lines that strangers can provoke, bounded: so many in a second, and how many more there were.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::{Clock, SystemClock, unix_secs};

/// Admits so many log lines in a second. Share one between everything that a stranger can provoke
/// by the same means.
pub struct LineBudget {
    clock: Arc<dyn Clock>,
    per_second: u64,
    /// The second, and above its 32 bits how many lines it had.
    state: AtomicU64,
    held_back: AtomicU64,
}

/// Lines that were not written since the last one; to be written at a line's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack(u64);

impl LineBudget {
    /// Zero admits no line at all.
    #[must_use]
    pub fn new(per_second: u32, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            per_second: per_second.into(),
            state: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now. One that may not is counted.
    pub fn admit(&self) -> Option<HeldBack> {
        // The low half of the seconds, which is enough to tell one from the next.
        let second = unix_secs(self.clock.wall()) & LOW;
        let next = |state: u64| {
            let used = if state & LOW == second {
                state >> 32
            } else {
                0
            };
            (used < self.per_second).then(|| (used + 1) << 32 | second)
        };
        if self.state.fetch_update(Relaxed, Relaxed, next).is_err() {
            self.held_back.fetch_add(1, Relaxed);
            return None;
        }
        Some(HeldBack(self.held_back.swap(0, Relaxed)))
    }
}

impl Default for LineBudget {
    /// Twenty lines in a second of the machine's clock.
    fn default() -> Self {
        Self::new(20, Arc::new(SystemClock))
    }
}

impl fmt::Debug for LineBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineBudget")
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} more such failures not logged)"),
        }
    }
}

const LOW: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_one_says_what_was_held_back() {
        let clock = Arc::new(ManualClock::new());
        let budget = LineBudget::new(2, Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(budget.admit(), Some(HeldBack(0)));
        assert_eq!(budget.admit(), Some(HeldBack(0)));
        assert_eq!((budget.admit(), budget.admit()), (None, None));
        clock.advance(Duration::from_secs(1));
        let told = budget.admit().expect("a new second");
        assert_eq!(told.to_string(), " (and 2 more such failures not logged)");
        assert_eq!(
            budget.admit().map(|held| held.to_string()),
            Some(String::new())
        );
        assert_eq!(budget.admit(), None);
    }
}
