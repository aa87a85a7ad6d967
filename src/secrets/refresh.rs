//! When a document is read again: ahead of its expiry, after a "no", after a failure. The times
//! are pure arithmetic; [`run`] is the loop that keeps them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Secrets;

/// The clocks of one manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) ttl: Duration,
    pub(super) neg_ttl: Duration,
    pub(super) max_stale: Duration,
}

impl Schedule {
    /// From the start of a good read to the next. `jitter` is in `[0, 1)`, here and below: always
    /// early enough that the read is over when the ttl is.
    pub(super) fn after_success(&self, jitter: f64) -> Duration {
        self.ttl.mul_f64(0.8 + 0.15 * jitter).max(SHORTEST)
    }

    /// From a "no" about a value nobody has, to the next try.
    pub(super) fn after_denial(&self, jitter: f64) -> Duration {
        self.neg_ttl.mul_f64(0.8 + 0.2 * jitter).max(SHORTEST)
    }

    /// From the first "no" about a known value to the try that confirms it. Without jitter: it
    /// must not come before `neg_ttl` is over.
    pub(super) fn confirmation(&self) -> Duration {
        self.neg_ttl.max(SHORTEST)
    }

    /// From the `failures`th failure in a row to the next try.
    pub(super) fn after_failure(&self, failures: u32, jitter: f64) -> Duration {
        let longest = self.neg_ttl.clamp(SHORTEST, LONGEST_BACK_OFF);
        back_off(FIRST_BACK_OFF, failures, longest, jitter)
    }

    /// Age at which a value is refused.
    pub(super) fn limit(&self) -> Duration {
        self.max_stale.max(self.ttl)
    }
}

/// Doubles from `first` with every failure up to `longest`, then takes between half and all of it.
pub(super) fn back_off(first: Duration, failures: u32, longest: Duration, jitter: f64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(longest).mul_f64(0.5 + 0.5 * jitter)
}

/// Reads what is due until `shutdown` turns true or its sender is gone.
pub(super) async fn run(secrets: Arc<Secrets>, mut shutdown: watch::Receiver<bool>) {
    let mut beside = Vec::new();
    while !*shutdown.borrow() {
        secrets.keep_beside(&mut beside);
        secrets.reread_touched();
        secrets.grant_wishes();
        secrets.pump();
        let pause = secrets.until_next_due().min(LONGEST_PAUSE);
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(pause) => {}
            () = secrets.woken() => {}
        }
    }
}

/// No document is read more often than this, whatever its ttl.
const SHORTEST: Duration = Duration::from_millis(100);
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
/// A manager that comes back is noticed within this (and the circuit's pause).
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// Values that lapse are noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        ttl: Duration::from_secs(100),
        neg_ttl: Duration::from_secs(20),
        max_stale: Duration::from_secs(1000),
    };

    #[test]
    fn a_refresh_is_over_before_the_ttl_is() {
        for jitter in [0.0, 0.5, 0.999_999] {
            let pause = SCHEDULE.after_success(jitter);
            assert!(pause >= Duration::from_secs(80) && pause < Duration::from_secs(96));
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let at = |failures| SCHEDULE.after_failure(failures, 1.0).as_millis();
        assert_eq!([at(1), at(2), at(3)], [500, 1000, 2000]);
        assert_eq!([at(6), at(60), at(u32::MAX)], [10_000; 3]);
        assert_eq!(SCHEDULE.after_failure(3, 0.0).as_millis(), 1000);
    }

    #[test]
    fn zero_times_do_not_spin() {
        let zero = Schedule {
            ttl: Duration::ZERO,
            neg_ttl: Duration::ZERO,
            max_stale: Duration::ZERO,
        };
        for pause in [
            zero.after_success(0.0),
            zero.after_denial(0.0),
            zero.confirmation(),
            zero.after_failure(9, 1.0),
        ] {
            assert_eq!(pause, SHORTEST);
        }
    }

    #[test]
    fn a_stale_bound_below_the_ttl_means_the_ttl() {
        let schedule = Schedule {
            max_stale: Duration::ZERO,
            ..SCHEDULE
        };
        assert_eq!(schedule.limit(), SCHEDULE.ttl);
    }
}
