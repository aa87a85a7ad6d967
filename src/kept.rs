//! State that outlives snapshots, by stable key: health, counters, balancer positions.
//! An entry goes when the last snapshot that uses it goes (learned from Caddy's `usagepool.go`).

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Entry = Weak<dyn Any + Send + Sync>;

/// A pool of shared state. Taken at load, never on a request's path.
#[derive(Default)]
pub struct Kept {
    entries: Mutex<HashMap<String, Entry>>,
}

impl Kept {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state under `key`, made by `make` when no snapshot holds it any more or its type
    /// changed. Keys start with the owner's name (`upstream/1/round-robin`).
    pub fn entry<T: Any + Send + Sync>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = entries.get(key).and_then(Weak::upgrade)
            && let Ok(state) = live.downcast::<T>()
        {
            return state;
        }
        let state = Arc::new(make());
        let shared: Arc<dyn Any + Send + Sync> = state.clone();
        entries.insert(key.to_owned(), Arc::downgrade(&shared));
        state
    }

    /// Forgets keys nobody holds any more. Called after a snapshot was replaced.
    pub fn sweep(&self) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, entry| entry.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lives_as_long_as_someone_holds_it() {
        let kept = Kept::new();
        let first = kept.entry("a", || 1_u32);
        assert_eq!(*kept.entry("a", || 2_u32), 1, "held state is shared");
        drop(first);
        assert_eq!(*kept.entry("a", || 3_u32), 3, "released state is made anew");
    }

    #[test]
    fn a_key_of_another_type_is_made_anew() {
        let kept = Kept::new();
        let _first = kept.entry("a", || 1_u32);
        assert_eq!(*kept.entry("a", || "text"), "text");
    }
}
