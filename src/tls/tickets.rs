//! Keys of session tickets: those a fleet shares, out of a reference, or random ones of this process.
//! The newest seals, up to three open. Handshakes take the set by one atomic load; it is replaced
//! whole, and a key that leaves it is wiped with the last handshake that uses it.
//!
//! A ticket that no key opens costs a full handshake and nothing else: gateways of a fleet learn of a
//! new key at different moments.

mod keys;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
pub use keys::{KEY_NAME, SharedKeys, SharedKeysError, TicketKey, TicketMaterial};

/// What OpenSSL asks for a handshake's sake.
pub trait TicketKeySource: Send + Sync + 'static {
    /// The key to seal a new ticket with; `None` issues none.
    fn seal(&self) -> Option<TicketMaterial>;

    /// The key of this name, and whether it is the one that seals; `None` where a ticket of that
    /// key is not accepted.
    fn open(&self, name: &[u8; KEY_NAME]) -> Option<(TicketMaterial, bool)>;
}

/// The keys in force.
pub struct TicketKeys {
    window: ArcSwap<Window>,
    /// Held while the window is replaced; handshakes never ask for it.
    writing: Mutex<()>,
    clock: Arc<dyn Clock>,
    /// How long a random key seals; `None` where keys come out of a reference.
    rotate: Option<Duration>,
    /// How long a ticket may be used.
    lifetime: Duration,
    /// The window has another end than before.
    moved: Notify,
    counts: TicketCounts,
}

/// How tickets fared.
#[derive(Debug, Default)]
pub struct TicketCounts {
    /// Issued.
    pub sealed: AtomicU64,
    /// Presented, of the key that seals.
    pub newest: AtomicU64,
    /// Presented, of another key of the window.
    pub older: AtomicU64,
    /// Presented, of no key at hand: a full handshake followed.
    pub unknown: AtomicU64,
}

/// The keys at one moment, newest first; at most [`WINDOW`].
#[derive(Default)]
struct Window {
    keys: Vec<Held>,
    /// When the newest began to seal.
    since: Option<Instant>,
    /// How many keys have sealed so far.
    generation: u64,
}

#[derive(Clone)]
struct Held {
    key: Arc<TicketKey>,
    /// When it goes; `None` while it is in force.
    until: Option<Instant>,
}

/// What is known of the keys, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketReport {
    /// Keys that open tickets.
    pub keys: usize,
    /// How long the newest has sealed in this process; `None` where there is none.
    pub age: Option<Duration>,
    /// How many keys have sealed in this process.
    pub generation: u64,
}

impl TicketKeys {
    /// Random keys: each seals for `rotate`, and opens for as long as its tickets may be used. They
    /// change while [`Self::run`] runs.
    ///
    /// # Errors
    /// There are no random bytes.
    pub fn random(
        rotate: Duration,
        lifetime: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, openssl::error::ErrorStack> {
        let keys = Self::empty(Some(rotate), lifetime, clock);
        keys.begin(Arc::new(TicketKey::random()?));
        Ok(keys)
    }

    /// Keys out of a reference; none before [`Self::adopt`].
    #[must_use]
    pub fn shared(lifetime: Duration, clock: Arc<dyn Clock>) -> Self {
        Self::empty(None, lifetime, clock)
    }

    fn empty(rotate: Option<Duration>, lifetime: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            window: ArcSwap::default(),
            writing: Mutex::default(),
            clock,
            rotate,
            lifetime,
            moved: Notify::new(),
            counts: TicketCounts::default(),
        }
    }

    /// The reference's value is this now. A single key is joined by the two before it, for as long as
    /// tickets of theirs may come; two or three keys are all there is. Without a value no ticket is
    /// issued or accepted.
    pub fn adopt(&self, value: Option<&SharedKeys>) {
        if self.rotate.is_some() {
            return;
        }
        let now = self.clock.now();
        let _turn = self.write();
        let before = self.window.load_full();
        let Some(value) = value else {
            self.replace(Window {
                generation: before.generation,
                ..Window::default()
            });
            return;
        };
        let listed = value.keys();
        let mut keys: Vec<_> = listed.iter().map(Held::in_force).collect();
        if let [only] = listed {
            let others = before
                .keys
                .iter()
                .filter(|held| held.key.name() != only.name());
            keys.extend(others.map(|held| held.until(now + self.lifetime + LATECOMERS)));
            keys.truncate(WINDOW);
        }
        let same = before.newest_name() == listed.first().map(|key| key.name());
        self.replace(Window {
            since: before.since.filter(|_| same).or(Some(now)),
            generation: before.generation + u64::from(!same),
            keys,
        });
    }

    /// Changes random keys when their time has come, and takes out those whose tickets are over;
    /// until shutdown.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let due = self
                .due()
                .map(|at| at.saturating_duration_since(self.clock.now()));
            tokio::select! {
                _ = shutdown.changed() => return,
                () = self.moved.notified() => {}
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => self.turn(),
            }
        }
    }

    /// What is known of the keys.
    #[must_use]
    pub fn report(&self) -> TicketReport {
        let window = self.window.load();
        let now = self.clock.now();
        TicketReport {
            keys: window.keys.len(),
            age: window
                .since
                .map(|since| now.saturating_duration_since(since)),
            generation: window.generation,
        }
    }

    /// How tickets fared.
    #[must_use]
    pub fn counts(&self) -> &TicketCounts {
        &self.counts
    }

    /// When [`Self::turn`] has something to do.
    fn due(&self) -> Option<Instant> {
        let window = self.window.load();
        let ends = window.keys.iter().filter_map(|held| held.until);
        let next = self
            .rotate
            .zip(window.since)
            .map(|(rotate, since)| since + rotate);
        ends.chain(next).min()
    }

    /// Does what is due.
    fn turn(&self) {
        let now = self.clock.now();
        let _turn = self.write();
        let window = self.window.load_full();
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let next = self
            .rotate
            .zip(window.since)
            .map(|(rotate, since)| since + rotate);
        if is_over(next) {
            match TicketKey::random() {
                Ok(key) => self.begin(Arc::new(key)),
                Err(error) => log::error!("no new key for session tickets: {error}"),
            }
        }
        let window = self.window.load_full();
        if window.keys.iter().any(|held| is_over(held.until)) {
            let keys = window.keys.iter().filter(|held| !is_over(held.until));
            self.replace(Window {
                keys: keys.cloned().collect(),
                ..*window
            });
        }
    }

    /// A new random key seals from now on.
    fn begin(&self, key: Arc<TicketKey>) {
        let now = self.clock.now();
        let before = self.window.load_full();
        let older = before
            .keys
            .iter()
            .map(|held| held.until(now + self.lifetime));
        let keys = std::iter::once(Held::in_force(&key)).chain(older);
        self.replace(Window {
            keys: keys.take(WINDOW).collect(),
            since: Some(now),
            generation: before.generation + 1,
        });
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, window: Window) {
        self.window.store(Arc::new(window));
        self.moved.notify_one();
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({:?})", self.report())
    }
}

impl TicketKeySource for TicketKeys {
    fn seal(&self) -> Option<TicketMaterial> {
        let material = self.window.load().keys.first()?.key.open()?;
        self.counts.sealed.fetch_add(1, Ordering::Relaxed);
        Some(material)
    }

    fn open(&self, name: &[u8; KEY_NAME]) -> Option<(TicketMaterial, bool)> {
        let window = self.window.load();
        let place = window.keys.iter().position(|held| held.key.name() == name);
        let found = place.and_then(|place| {
            let held = &window.keys[place];
            // It may be over before anything was done about it.
            if held.until.is_some_and(|until| until <= self.clock.now()) {
                return None;
            }
            Some((held.key.open()?, place == 0))
        });
        let count = match &found {
            Some((_, true)) => &self.counts.newest,
            Some((_, false)) => &self.counts.older,
            None => &self.counts.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }
}

impl Window {
    fn newest_name(&self) -> Option<&[u8; KEY_NAME]> {
        self.keys.first().map(|held| held.key.name())
    }
}

impl Held {
    fn in_force(key: &Arc<TicketKey>) -> Self {
        let key = Arc::clone(key);
        Self { key, until: None }
    }

    /// The same that goes then, or earlier where that was said before.
    fn until(&self, end: Instant) -> Self {
        Self {
            key: Arc::clone(&self.key),
            until: Some(self.until.map_or(end, |until| until.min(end))),
        }
    }
}

/// Keys that open tickets.
const WINDOW: usize = 3;

/// How much later than others a gateway of a fleet may learn that a key was replaced, and have its
/// tickets accepted all the same.
const LATECOMERS: Duration = Duration::from_secs(50 * 60);

#[cfg(test)]
mod tests;
