//! How many names may be asked for in vain: some at once, and some more each second. One that is
//! found gives its turn back, so that a thousand known names after a start are as welcome as one.
//! Pure.

use std::time::Instant;

pub(super) struct Allowance {
    left: f64,
    counted: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant, burst: u32) -> Self {
        Self {
            left: f64::from(burst),
            counted: now,
        }
    }

    /// Takes a turn, where there is one.
    pub(super) fn take(&mut self, now: Instant, per_second: u32, burst: u32) -> bool {
        let since = now.saturating_duration_since(self.counted);
        self.counted = now;
        let earned = since.as_secs_f64() * f64::from(per_second);
        self.left = (self.left + earned).min(f64::from(burst));
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// Gives a turn back; what is over the burst goes at the next [`Allowance::take`].
    pub(super) fn give_back(&mut self) {
        self.left += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    #[test]
    fn names_in_vain_are_bounded_and_names_found_are_not() {
        let clock = ManualClock::new();
        let mut allowance = Allowance::new(clock.now(), 3);
        let mut take = |clock: &ManualClock| allowance.take(clock.now(), 2, 3);
        assert_eq!(
            [(); 5].map(|()| take(&clock)),
            [true, true, true, false, false]
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!([(); 3].map(|()| take(&clock)), [true, true, false]);
        clock.advance(Duration::from_secs(1000));
        assert_eq!([(); 4].map(|()| take(&clock)), [true, true, true, false]);
        for _ in 0..100 {
            allowance.give_back();
            assert!(allowance.take(clock.now(), 2, 3));
        }
        assert!(!allowance.take(clock.now(), 2, 3));
    }
}
