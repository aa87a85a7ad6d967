//! Signatures that were accepted, for as long as their date stays acceptable: a second use of one
//! is refused. Bounded: what does not fit is refused, never forgotten early.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::consumer::{Digest, digest};

/// Locks, so that cores seldom wait for each other.
const SHARDS: usize = 64;

/// Remembers signatures by keyed digest. An entry takes about 60 bytes.
pub(super) struct Replays {
    key: [u8; 16],
    /// Most entries of a shard.
    room: usize,
    /// The longest clock skew of any route: a signature may be used on another one.
    skew: AtomicU64,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Default)]
struct Shard {
    seen: HashMap<Digest, (), ahash::RandomState>,
    /// Entries by the second they are dated.
    dated: BTreeMap<u64, Vec<Digest>>,
    /// What is dated before is forgotten.
    horizon: u64,
}

/// What is known of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It was not used before; it is remembered now.
    First,
    /// It was used before.
    Again,
    /// It is so old that nobody can tell.
    Late,
    /// There is no room to remember it.
    Full,
}

impl Replays {
    /// Room for about `entries`, under a random key.
    pub(super) fn new(key: [u8; 16], entries: usize) -> Self {
        Self {
            key,
            room: entries.div_ceil(SHARDS),
            skew: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// A route accepts dates that differ by so many seconds.
    pub(super) fn expect_skew(&self, seconds: u64) {
        self.skew.fetch_max(seconds, Ordering::Relaxed);
    }

    /// Uses a signature of a request dated `date`, at `now`; both in Unix seconds.
    pub(super) fn take(&self, signature: &[u8], date: u64, now: u64) -> Use {
        let digest = digest(&self.key, signature);
        let shard = &self.shards[usize::from(digest[0]) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.forget(now.saturating_sub(self.skew.load(Ordering::Relaxed)));
        if date < shard.horizon {
            Use::Late
        } else if shard.seen.contains_key(&digest) {
            Use::Again
        } else if shard.seen.len() >= self.room {
            Use::Full
        } else {
            shard.seen.insert(digest, ());
            shard.dated.entry(date).or_default().push(digest);
            Use::First
        }
    }
}

impl Shard {
    /// Clocks may be set back; what was forgotten stays forgotten.
    fn forget(&mut self, horizon: u64) {
        if horizon <= self.horizon {
            return;
        }
        self.horizon = horizon;
        let kept = self.dated.split_off(&horizon);
        for digest in std::mem::replace(&mut self.dated, kept)
            .into_values()
            .flatten()
        {
            self.seen.remove(&digest);
        }
        // A flood's room is given back.
        if self.seen.capacity() > 64 && self.seen.len() < self.seen.capacity() / 4 {
            self.seen.shrink_to(self.seen.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replays(entries: usize) -> Replays {
        let replays = Replays::new([7; 16], entries);
        replays.expect_skew(300);
        replays.expect_skew(10);
        replays
    }

    fn held(replays: &Replays) -> usize {
        let shards = replays.shards.iter();
        shards
            .map(|shard| shard.lock().expect("not poisoned").seen.len())
            .sum()
    }

    #[test]
    fn a_signature_is_used_once_while_its_date_is_acceptable() {
        let replays = replays(1000);
        assert_eq!(replays.take(b"a", 1000, 1000), Use::First);
        assert_eq!(replays.take(b"a", 1000, 1001), Use::Again);
        assert_eq!(replays.take(b"b", 1000, 1001), Use::First);
        assert_eq!(replays.take(b"a", 1000, 1300), Use::Again);
        assert_eq!(replays.take(b"a", 1000, 1301), Use::Late);
        assert_eq!(replays.take(b"a", 1000, 1000), Use::Late, "clock set back");
        assert_eq!(replays.take(b"ahead", 1600, 1300), Use::First);
        assert_eq!(replays.take(b"ahead", 1600, 1900), Use::Again);
    }

    #[test]
    fn what_does_not_fit_is_refused_until_there_is_room() {
        let replays = replays(64);
        let signature = |n: u32| n.to_be_bytes();
        let uses: Vec<_> = (0..1000)
            .map(|n| replays.take(&signature(n), 1000, 1000))
            .collect();
        assert_eq!(held(&replays), 64);
        assert_eq!(uses.iter().filter(|used| **used == Use::First).count(), 64);
        assert_eq!(uses.iter().filter(|used| **used == Use::Full).count(), 936);
        let again = (0..1000).map(|n| replays.take(&signature(n), 1000, 1000));
        assert_eq!(again.filter(|used| *used == Use::Again).count(), 64);
        for n in 0..1000 {
            replays.take(&signature(n), 2000, 2000);
        }
        let dated = replays.shards.iter();
        let dated = dated.flat_map(|shard| {
            let shard = shard.lock().expect("not poisoned");
            shard.dated.keys().copied().collect::<Vec<_>>()
        });
        assert!(dated.eq([2000; 64]), "what is old was forgotten");
    }

    #[test]
    fn of_many_at_once_one_is_first() {
        let replays = replays(1000);
        let firsts: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| replays.take(b"a", 1000, 1000)))
                .collect();
            let uses = threads
                .into_iter()
                .map(|thread| thread.join().expect("runs"));
            uses.filter(|used| *used == Use::First).count()
        });
        assert_eq!(firsts, 1);
    }
}
