//! References that no configuration holds: those of a name that a client asked for. They are fetched,
//! shared, bounded and retried as all others are, and differ in three things: they stand in no
//! [`View`](super::View), they are read again only while somebody uses them, and whoever asked is
//! told when they have an answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::Secrets;
use super::view::Resolved;

/// Keeps some references in use; they go when it is dropped.
pub struct Demand {
    id: DemandId,
    interest: Arc<Interest>,
    secrets: Weak<Secrets>,
}

/// Number of a demand; never used twice.
pub type DemandId = u64;

/// Whether the values of a demand are used. Asking and telling waits for nothing.
#[derive(Debug, Default)]
pub struct Interest {
    used: AtomicBool,
    resting: AtomicBool,
}

/// All references of a demand were answered, or one was again.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Whose.
    pub demand: DemandId,
    /// What each reference is worth, in the order they were given.
    pub outcomes: Vec<Result<Resolved, Lack>>,
}

/// Why a reference of a demand has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Its manager says that there is none for us.
    Denied(Arc<str>),
    /// Its manager cannot be asked, does not answer, or has not for too long.
    Failed(Arc<str>),
    /// Its manager was replaced by one that may mean other secrets: to be demanded anew.
    Void(Arc<str>),
}

impl Lack {
    /// The reason; never a value.
    #[must_use]
    pub fn reason(&self) -> &Arc<str> {
        match self {
            Self::Denied(reason) | Self::Failed(reason) | Self::Void(reason) => reason,
        }
    }
}

impl Interest {
    /// The values were used just now, so they are read again when they are due.
    pub fn note(&self) {
        // Looked at first, so that many cores do not write to one place for nothing.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the values were due, and were not read since nobody used them: they may be older
    /// than their ttl, and [`Secrets::revive`] reads them.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.resting.load(Ordering::Acquire)
    }

    /// Whether they were used since this was asked last.
    pub(super) fn take(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    pub(super) fn set_resting(&self, resting: bool) {
        self.resting.store(resting, Ordering::Release);
    }
}

impl Demand {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> DemandId {
        self.id
    }

    /// Where its use is noted.
    #[must_use]
    pub fn interest(&self) -> &Arc<Interest> {
        &self.interest
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        if let Some(secrets) = self.secrets.upgrade() {
            secrets.state().forget_demand(self.id);
        }
    }
}

impl Secrets {
    /// Puts these references in use and has them fetched, on the runtime of the caller. What
    /// becomes of them [`Secrets::answered`] says.
    #[must_use]
    pub fn demand(self: &Arc<Self>, references: Vec<Arc<str>>) -> Demand {
        let interest = Arc::new(Interest::default());
        interest.note();
        let now = self.clock.now();
        let id = self
            .state()
            .add_demand(now, references, Arc::clone(&interest));
        self.pump();
        self.answers.notify_one();
        Demand {
            id,
            interest,
            secrets: Arc::downgrade(self),
        }
    }

    /// Reads the demand's values again now where they rest; [`Secrets::answered`] tells of it in
    /// any case.
    pub fn revive(self: &Arc<Self>, demand: &Demand) {
        demand.interest.note();
        let now = self.clock.now();
        self.state().revive(now, demand.id);
        self.pump();
        self.answers.notify_one();
    }

    /// Waits until there are answers, and takes them. One caller at a time.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn answered(&self) -> Vec<Answered> {
        loop {
            let answered = self.state().take_answered();
            if !answered.is_empty() {
                return answered;
            }
            self.answers.notified().await;
        }
    }
}
