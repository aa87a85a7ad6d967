//! The names of one item, as handshakes find them: one atomic load and one search, no lock. Written
//! by the keeper alone. Lives on while the item's templates stay the same, over reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::counts::{Counts, Tally};
use super::{Refusal, Served};
use crate::clock::Clock;
use crate::secrets::Interest;
use crate::secrets::reference::Template;
use crate::sharded::Sharded;

/// See the file's docs.
pub struct Names {
    /// Id of the item.
    pub(super) id: Arc<str>,
    /// Cert and key of each pair.
    pub(super) templates: Box<[(Template, Template)]>,
    pub(super) counts: Counts,
    known: ArcSwap<Known>,
    waiting: AtomicUsize,
    /// Seeded at random: clients choose names.
    hasher: ahash::RandomState,
}

type Known = Sharded<u64, Arc<Name>>;

/// A name and what is known of it.
pub(super) struct Name {
    pub text: Box<str>,
    pub standing: Standing,
}

pub(super) enum Standing {
    Serving {
        served: Arc<Served>,
        interest: Arc<Interest>,
        last_use: Arc<LastUse>,
    },
    Refused {
        until: Instant,
    },
}

/// When a name was used last, in whole seconds since it came into use.
pub(super) struct LastUse {
    began: Instant,
    secs: AtomicUsize,
}

/// What is known of a name.
pub enum Found {
    /// It is served.
    Serving(Arc<Served>),
    /// It is not.
    Refused(Refusal),
    /// Nothing, or nothing that may be trusted without a look: [`super::OnDemand::obtain`] asks.
    Ask,
}

/// A handshake's place in the line of those that wait.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LastUse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            secs: AtomicUsize::new(0),
        }
    }

    fn note(&self, now: Instant) {
        let secs = now.saturating_duration_since(self.began).as_secs();
        let secs = usize::try_from(secs).unwrap_or(usize::MAX);
        if self.secs.load(Ordering::Relaxed) < secs {
            self.secs.store(secs, Ordering::Relaxed);
        }
    }

    pub(super) fn at(&self) -> Instant {
        let secs = self.secs.load(Ordering::Relaxed) as u64;
        self.began + std::time::Duration::from_secs(secs)
    }
}

impl Names {
    /// No names yet, of the item `id` whose pairs stand there.
    #[must_use]
    pub fn new(id: Arc<str>, templates: Box<[(Template, Template)]>) -> Self {
        Self {
            id,
            templates,
            counts: Counts::default(),
            known: ArcSwap::default(),
            waiting: AtomicUsize::new(0),
            hasher: ahash::RandomState::new(),
        }
    }

    pub(super) fn find(&self, name: &str, clock: &dyn Clock) -> Found {
        let known = self.known.load();
        let Some(known) = self.at(&known, name) else {
            return Found::Ask;
        };
        match &known.standing {
            Standing::Refused { until } if clock.now() < *until => {
                Counts::add(&self.counts.negative);
                Found::Refused(Refusal::Unknown)
            }
            Standing::Refused { .. } => Found::Ask,
            Standing::Serving {
                served,
                interest,
                last_use,
            } => {
                interest.note();
                last_use.note(clock.now());
                if interest.rests() {
                    Found::Ask
                } else if served.not_after <= clock.wall() {
                    // Its successor is looked for as long as somebody asks for it.
                    Counts::add(&self.counts.expired);
                    Found::Refused(Refusal::Unknown)
                } else {
                    Found::Serving(Arc::clone(served))
                }
            }
        }
    }

    /// What serves the name, however long ago it was read.
    pub(super) fn stale(&self, name: &str, clock: &dyn Clock) -> Option<Arc<Served>> {
        let known = self.known.load();
        match &self.at(&known, name)?.standing {
            Standing::Serving { served, .. } if clock.wall() < served.not_after => {
                Some(Arc::clone(served))
            }
            _ => None,
        }
    }

    /// A place in the line, where there is one left.
    pub(super) fn wait_in_line(&self, most: usize) -> Option<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.waiting);
        (before < most).then_some(place)
    }

    pub(super) fn tally(&self) -> Tally {
        let known = self.known.load();
        let mut tally = Tally {
            waiting: self.waiting.load(Ordering::Relaxed),
            fetches: self.counts.fetches(),
            refusals: self.counts.refusals(),
            changed: self.counts.changed.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            ..Tally::default()
        };
        for (_, name) in known.iter() {
            match &name.standing {
                Standing::Serving { served, .. } => {
                    tally.names += 1;
                    let ends = tally.not_after.get_or_insert(served.not_after);
                    *ends = served.not_after.min(*ends);
                }
                Standing::Refused { .. } => tally.refused += 1,
            }
        }
        tally
    }

    /// Says something else of a name. Called by the keeper alone.
    pub(super) fn put(&self, name: &str, standing: Standing) {
        let key = self.hasher.hash_one(name);
        let mut known = Known::clone(&self.known.load());
        let entry = Arc::new(Name {
            text: name.into(),
            standing,
        });
        if let Err(entry) = known.replace(&key, entry, |other| *other.text == *name) {
            known.insert(key, entry, |_| true);
        }
        self.known.store(Arc::new(known));
    }

    /// Whether the name is refused now.
    pub(super) fn refuses(&self, name: &str, now: Instant) -> bool {
        let known = self.known.load();
        let known = self.at(&known, name);
        known.is_some_and(
            |known| matches!(known.standing, Standing::Refused { until } if now < until),
        )
    }

    /// Forgets refusals that end then. Called by the keeper alone.
    pub(super) fn remove_refused<'a>(&self, over: impl IntoIterator<Item = (Instant, &'a str)>) {
        let mut known = Known::clone(&self.known.load());
        for (end, name) in over {
            let key = self.hasher.hash_one(name);
            known.remove(&key, |other| {
                let same = matches!(other.standing, Standing::Refused { until } if until == end);
                same && *other.text == *name
            });
        }
        self.known.store(Arc::new(known));
    }

    /// Forgets names. Called by the keeper alone.
    pub(super) fn remove<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut known = Known::clone(&self.known.load());
        for name in names {
            let key = self.hasher.hash_one(name);
            known.remove(&key, |other| *other.text == *name);
        }
        self.known.store(Arc::new(known));
    }

    /// Forgets all. Called by the keeper alone.
    pub(super) fn clear(&self) {
        self.known.store(Arc::default());
    }

    fn at<'a>(&self, known: &'a Known, name: &str) -> Option<&'a Arc<Name>> {
        let key = self.hasher.hash_one(name);
        let mut entries = known.at(&key).iter().map(|(_, entry)| entry);
        entries.find(|entry| *entry.text == *name)
    }
}
