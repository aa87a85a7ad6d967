//! Logins that were finished: each may be finished once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use openssl::sha::sha256;

/// The states of the newest logins that were finished here. Bounded: Casdoor, who takes a code
/// only once, is asked about older ones.
#[derive(Default)]
pub(super) struct Used(Mutex<Newest>);

#[derive(Default)]
struct Newest {
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

const MOST: usize = 10_000;

impl Used {
    /// Whether the login was finished.
    pub(super) fn knows(&self, state: &str) -> bool {
        self.lock().known.contains(&sha256(state.as_bytes()))
    }

    /// Whether this is the state's first use.
    pub(super) fn take(&self, state: &str) -> bool {
        let digest = sha256(state.as_bytes());
        let mut newest = self.lock();
        if !newest.known.insert(digest) {
            return false;
        }
        newest.order.push_back(digest);
        if newest.order.len() > MOST
            && let Some(oldest) = newest.order.pop_front()
        {
            newest.known.remove(&oldest);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_taken_once_and_the_oldest_are_forgotten() {
        let used = Used::default();
        assert!(used.take("first"));
        assert!(!used.take("first"));
        assert!(used.knows("first") && !used.knows("second"));
        for number in 0..MOST {
            assert!(used.take(&number.to_string()));
        }
        let newest = used.0.lock().expect("nobody panicked");
        assert_eq!(newest.known.len(), MOST, "the set is bounded");
        drop(newest);
        assert!(used.take("first"), "it was the oldest");
    }
}
