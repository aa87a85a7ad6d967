//! What is known about documents, and when each is read again. Pure: no socket, no clock, no
//! lock; time and answers are handed in. The unit is the *document*: references into one path
//! share one read.

mod entry;
mod places;
#[cfg(test)]
mod search_tests;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use entry::Entry;
pub(super) use places::Elsewhere;
use places::{Next, Places};
pub(super) use slot::Selector;

use super::manager::{Document, FetchError, Location};
use super::refresh::Schedule;
use super::report::{ReferenceReport, ReferenceState};
use super::view::Outcome;

/// Identity of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DocumentKey {
    /// Id of the manager's item.
    pub(super) manager: Arc<str>,
    /// Path inside the manager.
    pub(super) path: Arc<str>,
    /// `None` is the newest.
    pub(super) version: Option<Arc<str>>,
}

/// Number of an entry; never used twice, so that an answer for a forgotten entry finds nobody.
pub(super) type EntryId = u64;

/// A read to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) entry: EntryId,
    epoch: u32,
    pub(super) key: DocumentKey,
    /// Fields wanted of it.
    pub(super) fields: Vec<Arc<str>>,
}

/// How a read ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// The document as it is.
    Found(Document),
    /// Authoritative: there is no such document for us.
    Denied(FetchError),
    /// Nothing is known about the document.
    Failed(Arc<str>),
    /// Not tried: the circuit is open until then.
    Postponed(Instant, Arc<str>),
}

/// What the users of a reference have to be told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) reference: Arc<str>,
    pub(super) outcome: Outcome,
    /// Who keeps it.
    pub(super) manager: Arc<str>,
    pub(super) manager_version: Option<Arc<str>>,
}

/// References whose users have to be told, and what.
pub(super) type News = Vec<Told>;

/// Source of jitter in `[0, 1)`.
pub(super) type Jitter = Box<dyn FnMut() -> f64 + Send>;

pub(super) struct Cache {
    entries: HashMap<EntryId, Entry>,
    ids: HashMap<DocumentKey, EntryId>,
    due: BTreeSet<(Instant, EntryId)>,
    lapses: BTreeSet<(Instant, EntryId)>,
    places: Places,
    unsettled: usize,
    last_entry: EntryId,
    last_version: u64,
    jitter: Jitter,
    /// Why a value that was never asked for is none.
    unread: Arc<str>,
}

/// What one manager's documents and references are worth now.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) documents: usize,
    /// Why the last read of one of them failed.
    pub(super) failure: Option<Arc<str>>,
    pub(super) fresh: usize,
    pub(super) stale: usize,
    pub(super) refused: usize,
    /// Age of the value confirmed longest ago.
    pub(super) oldest: Option<Duration>,
}

impl Cache {
    pub(super) fn new(jitter: Jitter) -> Self {
        Self {
            entries: HashMap::new(),
            ids: HashMap::new(),
            due: BTreeSet::new(),
            lapses: BTreeSet::new(),
            places: Places::default(),
            unsettled: 0,
            last_entry: 0,
            last_version: 0,
            jitter,
            unread: UNREAD.into(),
        }
    }

    /// A version number for a value that is kept elsewhere.
    pub(super) fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    /// Whether the reason is that a value was never asked for: this one's own, or one that stands
    /// in a field of its manager.
    pub(super) fn is_unread(reason: &str) -> bool {
        reason.ends_with(UNREAD)
    }

    /// Puts a reference in use, in this place unless another is remembered for it. A value never
    /// asked for makes its document due at once. Returns what the reference is worth now.
    pub(super) fn add(
        &mut self,
        now: Instant,
        key: DocumentKey,
        schedule: Schedule,
        selector: Selector,
        reference: Arc<str>,
    ) -> Outcome {
        let first = Location {
            path: key.path,
            field: selector.field,
        };
        let Location { path, field } = self.places.enter(&reference, first);
        let key = DocumentKey { path, ..key };
        let selector = Selector { field, ..selector };
        let id = self.entry_id(now, key, schedule);
        let entry = self
            .entries
            .get_mut(&id)
            .expect("entry_id gives a live entry");
        let slot = entry.slots.entry(selector).or_default();
        slot.users.push(reference);
        let unread = (!slot.asked).then_some(&self.unread);
        let why = entry.failure.as_ref().or(unread);
        let outcome = slot.outcome(now, &entry.schedule, why);
        if !slot.asked {
            entry.touched |= entry.in_flight;
            reschedule(&mut self.due, id, entry, now);
        }
        settle(&mut self.unsettled, entry);
        outcome
    }

    /// Takes a reference out of use. A document nobody refers to is forgotten at once; its values
    /// live as long as snapshots hold them.
    pub(super) fn remove(&mut self, id: EntryId, selector: &Selector, reference: &str) {
        self.places.leave(reference);
        self.take_out(id, selector, reference);
    }

    fn take_out(&mut self, id: EntryId, selector: &Selector, reference: &str) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(slot) = entry.slots.get_mut(selector) {
            slot.users.retain(|user| &**user != reference);
            if slot.users.is_empty() {
                entry.slots.remove(selector);
            }
        }
        settle(&mut self.unsettled, entry);
        if entry.slots.is_empty() {
            self.due.remove(&(entry.due_at, id));
            if let Some(at) = entry.lapses_at {
                self.lapses.remove(&(at, id));
            }
            self.ids.remove(&entry.key);
            self.entries.remove(&id);
        }
    }

    /// Every reference in use with its manager, and where it went.
    pub(super) fn uses(&self) -> impl Iterator<Item = (EntryId, &Arc<str>, &Selector, &Arc<str>)> {
        self.entries.iter().flat_map(|(id, entry)| {
            let manager = &entry.key.manager;
            entry.slots.iter().flat_map(move |(selector, slot)| {
                let users = slot.users.iter();
                users.map(move |user| (*id, manager, selector, user))
            })
        })
    }

    /// The reads that are due. Each is under way until [`Cache::complete`] is told its answer.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            entry.in_flight = true;
            let mut fields: Vec<_> = entry
                .slots
                .keys()
                .map(|selector| Arc::clone(&selector.field))
                .collect();
            fields.sort();
            fields.dedup();
            jobs.push(Job {
                entry: id,
                epoch: entry.epoch,
                key: entry.key.clone(),
                fields,
            });
        }
        jobs
    }

    /// A read that began at `started` has ended. Returns whose value or state changed.
    pub(super) fn complete(
        &mut self,
        now: Instant,
        started: Instant,
        job: &Job,
        answer: Answer,
        elsewhere: Elsewhere<'_>,
    ) -> News {
        let id = job.entry;
        let entry = self.entries.get_mut(&id);
        let Some(entry) = entry.filter(|entry| entry.epoch == job.epoch) else {
            return News::new();
        };
        entry.in_flight = false;
        let denial = match &answer {
            Answer::Denied(error) => Some(error.clone()),
            _ => None,
        };
        let found = matches!(answer, Answer::Found(_));
        let next = entry.learn(
            now,
            started,
            &job.fields,
            answer,
            &mut self.last_version,
            &mut self.jitter,
        );
        settle(&mut self.unsettled, entry);
        let again = std::mem::take(&mut entry.touched) || entry.unsettled;
        reschedule(&mut self.due, id, entry, if again { now } else { next });
        if found && !self.places.is_empty() {
            self.remember(id);
        }
        let mut news = News::new();
        if let Some(error) = denial {
            self.send_on(now, id, &error, elsewhere, &mut news);
        }
        self.tell(now, id, &mut news);
        news
    }

    fn remember(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let slots = entry.slots.iter().filter(|(_, slot)| slot.asked);
        for (selector, slot) in slots {
            for user in &slot.users {
                self.places.found(user, || entry.location(selector));
            }
        }
    }

    /// The document was denied: sends references that have no value from here on to where their
    /// manager says they might be.
    fn send_on(
        &mut self,
        now: Instant,
        id: EntryId,
        why: &FetchError,
        elsewhere: Elsewhere<'_>,
        news: &mut News,
    ) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let manager = Arc::clone(&entry.key.manager);
        let slots = entry.slots.iter();
        let lost = slots.filter(|(_, slot)| slot.asked && slot.is_missing());
        let mut moves = Vec::new();
        for (selector, slot) in lost {
            let here = entry.location(selector);
            for user in &slot.users {
                let next = self.places.denied(user, &manager, &here, why, elsewhere);
                if next != Next::Stay {
                    moves.push((selector.clone(), Arc::clone(user), next));
                }
            }
        }
        for (selector, user, next) in moves {
            match next {
                Next::Stay => {}
                Next::Go(to) => self.relocate(now, id, &selector, user, to, None, news),
                Next::GiveUp(to, why) => {
                    self.relocate(now, id, &selector, user, to, Some(why), news);
                }
            }
        }
    }

    /// Moves one reference to another document. With `given_up` it is not looked for there before
    /// a "no" has been remembered for as long as it has to be.
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller; a struct would only rename them"
    )]
    fn relocate(
        &mut self,
        now: Instant,
        id: EntryId,
        selector: &Selector,
        user: Arc<str>,
        to: Location,
        given_up: Option<Arc<str>>,
        news: &mut News,
    ) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let mut mover = match entry.slots.get(selector) {
            Some(slot) => Box::new(slot.for_mover()),
            None => return,
        };
        let schedule = entry.schedule;
        let key = DocumentKey {
            path: to.path,
            ..entry.key.clone()
        };
        let selector_there = Selector {
            field: to.field,
            decode: selector.decode,
        };
        self.take_out(id, selector, &user);
        let is_new = !self.ids.contains_key(&key);
        let there = self.entry_id(now, key, schedule);
        let pause = schedule.after_denial((self.jitter)());
        let entry = self
            .entries
            .get_mut(&there)
            .expect("entry_id gives a live entry");
        let settled = given_up.is_some();
        if let Some(why) = given_up {
            mover.denied_before(why, now);
        }
        let slot = match entry.slots.entry(selector_there) {
            std::collections::hash_map::Entry::Vacant(place) => {
                mover.users.push(user);
                place.insert(mover)
            }
            std::collections::hash_map::Entry::Occupied(place) => {
                let slot = place.into_mut();
                slot.users.push(Arc::clone(&user));
                if slot.has_shown() && !slot.shows_as(&mover) {
                    news.push(Told {
                        reference: user,
                        outcome: slot.outcome(now, &schedule, entry.failure.as_ref()),
                        manager: Arc::clone(&entry.key.manager),
                        manager_version: entry.manager_version.clone(),
                    });
                }
                slot
            }
        };
        if settled && is_new {
            reschedule(&mut self.due, there, entry, now + pause);
        } else if !settled && (!slot.asked || slot.is_missing()) {
            entry.touched |= entry.in_flight;
            reschedule(&mut self.due, there, entry, now);
        }
        settle(&mut self.unsettled, entry);
        self.tell(now, there, news);
    }

    /// Values that grew too old. Returns whose users have to be told.
    pub(super) fn expire(&mut self, now: Instant) -> News {
        let mut news = News::new();
        while let Some((at, id)) = self.lapses.first().copied().filter(|(at, _)| *at <= now) {
            self.lapses.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.lapses_at = None;
            }
            self.tell(now, id, &mut news);
        }
        news
    }

    /// The manager's item was replaced by one that means the same secrets: everything is read
    /// again now, under the new clocks, and values already read are stale until then. Returns whose
    /// value or state changed.
    pub(super) fn rehome(&mut self, now: Instant, manager: &str, schedule: Schedule) -> News {
        let mut news = News::new();
        for id in self.of_manager(manager) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            entry.schedule = schedule;
            entry.doubt();
            reschedule(&mut self.due, id, entry, now);
            settle(&mut self.unsettled, entry);
            self.tell(now, id, &mut news);
        }
        news
    }

    /// The manager cannot be asked before it is [`Cache::rehome`]d; for `reason`.
    pub(super) fn park(&mut self, manager: &str, reason: &Arc<str>) {
        for id in self.of_manager(manager) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            entry.doubt();
            self.due.remove(&(entry.due_at, id));
            // A read that nobody makes: nothing else is begun, and nothing ends it.
            entry.in_flight = true;
            entry.failure = Some(Arc::clone(reason));
            settle(&mut self.unsettled, entry);
        }
    }

    /// Nothing known about where this manager's secrets stand holds any longer.
    pub(super) fn forget_places(&mut self, manager: &str) {
        self.places.forget(manager);
    }

    fn of_manager(&self, manager: &str) -> Vec<EntryId> {
        let entries = self.entries.iter();
        let of = entries.filter(|(_, entry)| &*entry.key.manager == manager);
        of.map(|(id, _)| *id).collect()
    }

    /// The manager answers again: documents that wait out a failure are read within a second.
    pub(super) fn hasten(&mut self, now: Instant, manager: &str) {
        let (jitter, due) = (&mut self.jitter, &mut self.due);
        for (id, entry) in &mut self.entries {
            if entry.failures > 0 && !entry.in_flight && &*entry.key.manager == manager {
                let soon = now + Duration::from_secs(1).mul_f64(jitter());
                if soon < entry.due_at {
                    reschedule(due, *id, entry, soon);
                }
            }
        }
    }

    /// Makes documents due by then: those of one manager, or all.
    pub(super) fn touch(&mut self, at: Instant, manager: Option<&str>) {
        for (id, entry) in &mut self.entries {
            if manager.is_none_or(|manager| &*entry.key.manager == manager) {
                entry.touched |= entry.in_flight;
                let at = at.min(entry.due_at);
                reschedule(&mut self.due, *id, entry, at);
            }
        }
    }

    /// Documents with a value that no ended read has asked for yet.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// When something is to be read or lapses next.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        let lapse = self.lapses.first().map(|(at, _)| *at);
        due.into_iter().chain(lapse).min()
    }

    /// What may be told about a reference in use.
    pub(super) fn report(
        &self,
        now: Instant,
        id: EntryId,
        selector: &Selector,
        reference: &Arc<str>,
    ) -> Option<ReferenceReport> {
        let entry = self.entries.get(&id)?;
        let slot = entry.slots.get(selector)?;
        let (state, age) = slot.state(now, &entry.schedule);
        let failure = entry.failure.as_ref();
        let outcome = slot.outcome(now, &entry.schedule, failure);
        let reason = match (&outcome, state) {
            (Err(unresolved), _) => Some(&unresolved.reason),
            (Ok(_), ReferenceState::Fresh) => None,
            (Ok(_), _) => slot.reason(failure),
        };
        Some(ReferenceReport {
            reference: Arc::clone(reference),
            manager: Arc::clone(&entry.key.manager),
            path: Arc::clone(&entry.key.path),
            state,
            age,
            version: outcome.as_ref().ok().map(|resolved| resolved.version),
            manager_version: entry.manager_version.clone(),
            reason: reason.cloned(),
        })
    }

    /// What each manager's documents and references are worth now.
    pub(super) fn tallies(&self, now: Instant) -> HashMap<Arc<str>, Tally> {
        let mut tallies: HashMap<Arc<str>, Tally> = HashMap::new();
        for entry in self.entries.values() {
            let tally = tallies.entry(Arc::clone(&entry.key.manager)).or_default();
            tally.documents += 1;
            if tally.failure.is_none() {
                tally.failure.clone_from(&entry.failure);
            }
            for slot in entry.slots.values() {
                let (state, age) = slot.state(now, &entry.schedule);
                let count = match state {
                    ReferenceState::Fresh => &mut tally.fresh,
                    ReferenceState::Stale => &mut tally.stale,
                    ReferenceState::Refused => &mut tally.refused,
                };
                *count += slot.users.len();
                tally.oldest = tally.oldest.max(age);
            }
        }
        tallies
    }

    fn entry_id(&mut self, now: Instant, key: DocumentKey, schedule: Schedule) -> EntryId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        self.last_entry += 1;
        let id = self.last_entry;
        self.ids.insert(key.clone(), id);
        self.entries.insert(id, Entry::new(now, key, schedule));
        id
    }

    /// Collects what the users of an entry do not know yet, and notes when to look again.
    fn tell(&mut self, now: Instant, id: EntryId, news: &mut News) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.tell(now, news);
        if let Some(at) = entry.lapses_at.take() {
            self.lapses.remove(&(at, id));
        }
        let slots = entry.slots.values();
        entry.lapses_at = slots
            .filter_map(|slot| slot.lapses_at(now, &entry.schedule))
            .min();
        if let Some(at) = entry.lapses_at {
            self.lapses.insert((at, id));
        }
    }
}

/// Why a value that was never asked for is none.
pub(super) const UNREAD: &str = "not fetched yet";

fn reschedule(due: &mut BTreeSet<(Instant, EntryId)>, id: EntryId, entry: &mut Entry, at: Instant) {
    due.remove(&(entry.due_at, id));
    entry.due_at = at;
    if !entry.in_flight {
        due.insert((at, id));
    }
}

/// Keeps `Entry::unsettled` and the count of such entries true.
fn settle(count: &mut usize, entry: &mut Entry) {
    match (entry.unsettled, entry.is_settled()) {
        (true, true) => *count -= 1,
        (false, false) => *count += 1,
        _ => return,
    }
    entry.unsettled = !entry.unsettled;
}
