//! What is known about documents, and when each is read again. Pure: no socket, no clock, no
//! lock; time and answers are handed in. The unit is the *document*: references into one path
//! share one read.

mod entry;
mod moves;
mod places;
mod reports;
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
use places::Places;
pub(super) use slot::Selector;

use super::manager::{Document, FetchError, Location};
use super::refresh::Schedule;
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
    /// For names that clients asked for, and not for the configuration.
    pub(super) on_demand: bool,
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
    /// Without a value: its manager said so last, and did not fail.
    pub(super) denied: bool,
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
        self.take_due_of(now, &mut |_| true)
    }

    /// The same of documents one of whose references is still `wanted`; those asked for for the
    /// first time always are. The others rest until [`Cache::awaken`].
    pub(super) fn take_due_of(
        &mut self,
        now: Instant,
        wanted: &mut dyn FnMut(&Arc<str>) -> bool,
    ) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let mut any = entry.unsettled;
            // Each is asked, since asking may note the answer.
            entry.users().for_each(|user| any |= wanted(user));
            if !any {
                reschedule(&mut self.due, id, entry, now + REST);
                continue;
            }
            entry.in_flight = true;
            let mut fields: Vec<_> = entry
                .slots
                .keys()
                .map(|selector| Arc::clone(&selector.field))
                .collect();
            fields.sort();
            fields.dedup();
            jobs.push(Job {
                on_demand: false,
                entry: id,
                epoch: entry.epoch,
                key: entry.key.clone(),
                fields,
            });
        }
        jobs
    }

    /// The document that a reference stands in; `likely` is where it was put in.
    pub(super) fn find(
        &self,
        likely: &DocumentKey,
        selector: &Selector,
        reference: &str,
    ) -> Option<(EntryId, Selector)> {
        let find_in = |key: &DocumentKey, selector: &Selector| {
            let id = self.ids.get(key)?;
            let slot = self.entries.get(id)?.slots.get(selector)?;
            let is_there = slot.users.iter().any(|user| **user == *reference);
            is_there.then(|| (*id, selector.clone()))
        };
        if let Some(found) = find_in(likely, selector) {
            return Some(found);
        }
        // It was sent on, and has arrived in most cases.
        if let Some(Location { path, field }) = self.places.found_in(reference) {
            let key = DocumentKey {
                path: Arc::clone(path),
                ..likely.clone()
            };
            let selector = Selector {
                field: Arc::clone(field),
                decode: selector.decode,
            };
            if let Some(found) = find_in(&key, &selector) {
                return Some(found);
            }
        }
        let mut uses = self.uses();
        let found = uses.find(|(_, _, _, user)| ***user == *reference);
        found.map(|(id, _, selector, _)| (id, selector.clone()))
    }

    /// The references into the document.
    pub(super) fn users(&self, id: EntryId) -> Vec<Arc<str>> {
        let entry = self.entries.get(&id);
        let users = entry.map(|entry| entry.users().cloned().collect());
        users.unwrap_or_default()
    }

    /// Makes one document that rests due now. Whether it will be read: not while it is parked.
    pub(super) fn awaken(&mut self, now: Instant, id: EntryId) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        reschedule(&mut self.due, id, entry, now);
        !entry.in_flight
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

/// How long a document rests that nobody wants.
const REST: Duration = Duration::from_secs(365 * 24 * 3600);

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
