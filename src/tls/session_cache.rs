//! Sessions that resume without tickets, kept in this process's memory for all listeners.
//!
//! Stands in for OpenSSL's own cache, which is one list under one lock, is bounded by a count however
//! much a session takes (with a client's certificate several times as much as without), and forgets
//! every session whose connection the client ended first.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::clock::Clock;

/// A session's id, drawn by OpenSSL.
pub type SessionId = [u8; 32];

/// Sessions by id. The oldest go first, when there is no room or their time is over.
pub struct SessionCache {
    shards: Box<[Mutex<Shard>]>,
    /// Bytes that a shard's sessions may take.
    room: usize,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionReport {
    /// Sessions, those included whose time is over and that nobody has cleared away yet.
    pub sessions: usize,
    /// Bytes they take.
    pub bytes: usize,
}

#[derive(Default)]
struct Shard {
    sessions: HashMap<SessionId, Encoded, ahash::RandomState>,
    /// In the order in which they came, which is that in which they end.
    ends: VecDeque<(Instant, SessionId)>,
    bytes: usize,
}

/// A session as OpenSSL writes it, its secret included.
type Encoded = Arc<Zeroizing<Box<[u8]>>>;

impl SessionCache {
    /// A cache of about so many bytes, whose sessions may be used for `lifetime`.
    #[must_use]
    pub fn new(bytes: usize, lifetime: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            room: bytes / SHARDS,
            lifetime,
            clock,
        }
    }

    /// Keeps a session.
    pub fn insert(&self, id: &SessionId, encoded: Vec<u8>) {
        let now = self.clock.now();
        let encoded = Zeroizing::new(encoded);
        let encoded: Encoded = Arc::new(Zeroizing::new(encoded.as_slice().into()));
        let takes = encoded.len() + OVERHEAD;
        if takes > self.room {
            return;
        }
        let mut gone = Vec::new();
        let mut shard = self.shard(id);
        // Ids are random: one that is there already is the same session.
        if shard.sessions.contains_key(id) {
            return;
        }
        while let Some((end, _)) = shard.ends.front()
            && (*end <= now || shard.bytes + takes > self.room)
        {
            gone.extend(shard.pop());
        }
        shard.sessions.insert(*id, encoded);
        shard.ends.push_back((now + self.lifetime, *id));
        shard.bytes += takes;
        // What goes is wiped after the lock.
        drop(shard);
    }

    /// The session of that id. OpenSSL looks whether its time is over, and whose it is.
    #[must_use]
    pub fn find(&self, id: &[u8]) -> Option<Arc<Zeroizing<Box<[u8]>>>> {
        let id: &SessionId = id.try_into().ok()?;
        self.shard(id).sessions.get(id).cloned()
    }

    /// What it holds.
    #[must_use]
    pub fn report(&self) -> SessionReport {
        let mut report = SessionReport::default();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            report.sessions += shard.sessions.len();
            report.bytes += shard.bytes;
        }
        report
    }

    fn shard(&self, id: &SessionId) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::from(id[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Takes out the oldest.
    fn pop(&mut self) -> Option<Encoded> {
        let (_, id) = self.ends.pop_front()?;
        let encoded = self.sessions.remove(&id)?;
        self.bytes -= encoded.len() + OVERHEAD;
        Some(encoded)
    }
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionCache({:?})", self.report())
    }
}

/// So many handshakes may store a session at once.
const SHARDS: usize = 64;

/// Bytes that a session takes beside its own: its places in map and queue, and the allocation.
const OVERHEAD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn cache(per_shard: usize) -> (Arc<ManualClock>, SessionCache) {
        let clock = Arc::new(ManualClock::new());
        let cache = SessionCache::new(per_shard * SHARDS, LIFETIME, clock.clone());
        (clock, cache)
    }

    fn id(shard: u8, number: u8) -> SessionId {
        let mut id = [number; 32];
        id[0] = shard;
        id
    }

    #[test]
    fn a_session_is_found_by_its_id_alone() {
        let (_, cache) = cache(1000);
        cache.insert(&id(1, 1), b"one".to_vec());
        let found = |id: &[u8]| cache.find(id).map(|found| found.to_vec());
        assert_eq!(found(&id(1, 1)).as_deref(), Some(&b"one"[..]));
        for other in [&id(1, 2)[..], &id(2, 1), &id(1, 1)[..31], &[]] {
            assert_eq!(found(other), None);
        }
    }

    #[test]
    fn the_oldest_make_room_and_what_is_counted_is_what_is_there() {
        let (_, cache) = cache(3 * (OVERHEAD + 100));
        for number in 0..10 {
            cache.insert(&id(1, number), vec![number; 100]);
        }
        let held: Vec<_> = (0..10)
            .filter(|number| cache.find(&id(1, *number)).is_some())
            .collect();
        assert_eq!(held, [7, 8, 9]);
        let bytes = 3 * (OVERHEAD + 100);
        assert_eq!(cache.report(), SessionReport { sessions: 3, bytes });
        // One that is as large as two takes the place of two.
        cache.insert(&id(1, 10), vec![0; 200 + OVERHEAD]);
        assert_eq!(cache.report(), SessionReport { sessions: 2, bytes });
        // One that fits nowhere is not kept, and drives nobody out.
        cache.insert(&id(1, 11), vec![0; 5000]);
        assert_eq!(cache.report(), SessionReport { sessions: 2, bytes });
        // The same again takes nothing more.
        cache.insert(&id(1, 10), vec![0; 200 + OVERHEAD]);
        assert_eq!(cache.report().sessions, 2);
    }

    #[test]
    fn those_whose_time_is_over_go_with_the_next_that_comes() {
        let (clock, cache) = cache(100_000);
        cache.insert(&id(1, 1), vec![0; 100]);
        clock.advance(LIFETIME / 2);
        cache.insert(&id(1, 2), vec![0; 100]);
        clock.advance(LIFETIME / 2);
        cache.insert(&id(1, 3), vec![0; 100]);
        assert!(cache.find(&id(1, 1)).is_none());
        assert!(cache.find(&id(1, 2)).is_some());
        assert_eq!(cache.report().sessions, 2);
        assert_eq!(format!("{cache:?}").matches("sessions: 2").count(), 1);
    }
}
