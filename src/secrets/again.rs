//! Reads ahead of time: who uses a value may have reason to think that its document changed, such as
//! a token that names a key which the set lacks. Asking is one store and waits for nothing; the
//! room's loop reads, and not more often than once per [`PAUSE`] and manager, whoever asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Asks for one manager's documents to be read again.
#[derive(Debug, Clone)]
pub struct Again(Arc<AtomicBool>);

impl Again {
    /// The manager will be read soon, in the background. Costs next to nothing, however often.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is asked for, by manager.
#[derive(Debug, Default)]
pub(super) struct Wishes(Mutex<HashMap<Arc<str>, Wish>>);

#[derive(Debug, Default)]
struct Wish {
    asked: Arc<AtomicBool>,
    granted: Option<Instant>,
}

impl Wishes {
    /// A way to ask for this manager.
    pub(super) fn again(&self, manager: &str) -> Again {
        let mut wishes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wish = wishes.entry(manager.into()).or_default();
        Again(Arc::clone(&wish.asked))
    }

    /// The managers to be read now. Those asked for again too soon stay asked for.
    pub(super) fn take(&self, now: Instant) -> Vec<Arc<str>> {
        let mut wishes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = |wish: &Wish| wish.granted.is_some_and(|at| now < at + PAUSE);
        // One that was granted is remembered, lest a reload be a way around the pause.
        wishes.retain(|_, wish| Arc::strong_count(&wish.asked) > 1 || rests(wish));
        let mut granted = Vec::new();
        for (manager, wish) in wishes.iter_mut() {
            if !rests(wish) && wish.asked.swap(false, Ordering::Relaxed) {
                wish.granted = Some(now);
                granted.push(Arc::clone(manager));
            }
        }
        granted
    }
}

const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    #[test]
    fn a_manager_is_read_once_per_pause_however_often_it_is_asked_for() {
        let (clock, wishes) = (ManualClock::new(), Wishes::default());
        let (one, same, other) = (wishes.again("a"), wishes.again("a"), wishes.again("b"));
        assert!(wishes.take(clock.now()).is_empty());
        for _ in 0..1000 {
            one.ask();
            same.clone().ask();
        }
        assert_eq!(wishes.take(clock.now()), ["a".into()]);
        assert!(wishes.take(clock.now()).is_empty());
        one.ask();
        other.ask();
        assert_eq!(wishes.take(clock.now()), ["b".into()], "a rests");
        // Nobody holds it any more, and it rests all the same.
        drop((one, same));
        wishes.again("a").ask();
        assert!(wishes.take(clock.now()).is_empty());
        clock.advance(PAUSE);
        wishes.again("a").ask();
        let asking = wishes.again("a");
        assert_eq!(wishes.take(clock.now()), ["a".into()]);
        drop(asking);
        clock.advance(PAUSE);
        drop(other);
        wishes.take(clock.now());
        assert!(
            wishes.0.lock().expect("not poisoned").is_empty(),
            "and is forgotten"
        );
    }
}
