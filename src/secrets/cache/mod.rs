//! What is known about documents, and when each is read again. Pure: no socket, no clock, no
//! lock; time and answers are handed in. The unit is the *document*: references into one path
//! share one read.

mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use slot::Selector;
use slot::{Slot, value_of};

use super::manager::Document;
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
    Denied(Arc<str>),
    /// Nothing is known about the document.
    Failed(Arc<str>),
    /// Not tried: the circuit is open until then.
    Postponed(Instant, Arc<str>),
}

/// References whose users have to be told, and what.
pub(super) type News = Vec<(Arc<str>, Outcome)>;

/// Source of jitter in `[0, 1)`.
pub(super) type Jitter = Box<dyn FnMut() -> f64 + Send>;

pub(super) struct Cache {
    entries: HashMap<EntryId, Entry>,
    ids: HashMap<DocumentKey, EntryId>,
    due: BTreeSet<(Instant, EntryId)>,
    lapses: BTreeSet<(Instant, EntryId)>,
    unsettled: usize,
    last_entry: EntryId,
    last_version: u64,
    jitter: Jitter,
    /// Why a value that was never asked for is none.
    unread: Arc<str>,
}

struct Entry {
    key: DocumentKey,
    schedule: Schedule,
    /// Boxed: a table keeps up to half its places free.
    slots: HashMap<Selector, Box<Slot>>,
    due_at: Instant,
    lapses_at: Option<Instant>,
    in_flight: bool,
    /// Asked to be read again while a read was under way.
    touched: bool,
    /// Counted in `Cache::unsettled`: some slot was never asked for.
    unsettled: bool,
    failures: u32,
    failure: Option<Arc<str>>,
    manager_version: Option<Arc<str>>,
}

impl Cache {
    pub(super) fn new(jitter: Jitter) -> Self {
        Self {
            entries: HashMap::new(),
            ids: HashMap::new(),
            due: BTreeSet::new(),
            lapses: BTreeSet::new(),
            unsettled: 0,
            last_entry: 0,
            last_version: 0,
            jitter,
            unread: "not fetched yet".into(),
        }
    }

    /// A version number for a value that is kept elsewhere.
    pub(super) fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    /// Puts a reference in use. A value never asked for makes its document due at once. Returns
    /// where the reference went and what it is worth now.
    pub(super) fn add(
        &mut self,
        now: Instant,
        key: DocumentKey,
        schedule: Schedule,
        selector: Selector,
        reference: Arc<str>,
    ) -> (EntryId, Outcome) {
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
            if !entry.unsettled {
                entry.unsettled = true;
                self.unsettled += 1;
            }
            entry.touched |= entry.in_flight;
            reschedule(&mut self.due, id, entry, now);
        }
        (id, outcome)
    }

    /// Takes a reference out of use. A document nobody refers to is forgotten at once; its values
    /// live as long as snapshots hold them.
    pub(super) fn remove(&mut self, id: EntryId, selector: &Selector, reference: &str) {
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

    /// Every reference in use, and where it went.
    pub(super) fn uses(&self) -> impl Iterator<Item = (EntryId, &Selector, &Arc<str>)> {
        let slots = self
            .entries
            .iter()
            .flat_map(|(id, entry)| entry.slots.iter().map(move |slot| (*id, slot)));
        slots.flat_map(|(id, (selector, slot))| {
            slot.users.iter().map(move |user| (id, selector, user))
        })
    }

    /// Whether a document is still referred to.
    pub(super) fn holds(&self, id: EntryId) -> bool {
        self.entries.contains_key(&id)
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
        id: EntryId,
        fields: &[Arc<str>],
        answer: Answer,
    ) -> News {
        let Some(entry) = self.entries.get_mut(&id) else {
            return News::new();
        };
        entry.in_flight = false;
        let next = entry.learn(
            now,
            started,
            fields,
            answer,
            &mut self.last_version,
            &mut self.jitter,
        );
        settle(&mut self.unsettled, entry);
        let again = std::mem::take(&mut entry.touched) || entry.unsettled;
        reschedule(&mut self.due, id, entry, if again { now } else { next });
        tell(&mut self.lapses, now, id, entry)
    }

    /// Values that grew too old. Returns whose users have to be told.
    pub(super) fn expire(&mut self, now: Instant) -> News {
        let mut news = News::new();
        while let Some((at, id)) = self.lapses.first().copied().filter(|(at, _)| *at <= now) {
            self.lapses.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.lapses_at = None;
                news.extend(tell(&mut self.lapses, now, id, entry));
            }
        }
        news
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

    /// Documents in use per manager, and why the last read of one of them failed.
    pub(super) fn documents(&self, manager: &str) -> (usize, Option<Arc<str>>) {
        let mut count = 0;
        let mut failure = None;
        for entry in self.entries.values() {
            if &*entry.key.manager == manager {
                count += 1;
                failure = failure.or_else(|| entry.failure.clone());
            }
        }
        (count, failure)
    }

    fn entry_id(&mut self, now: Instant, key: DocumentKey, schedule: Schedule) -> EntryId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        self.last_entry += 1;
        let id = self.last_entry;
        self.ids.insert(key.clone(), id);
        let entry = Entry {
            key,
            schedule,
            slots: HashMap::new(),
            due_at: now,
            lapses_at: None,
            in_flight: false,
            touched: false,
            unsettled: false,
            failures: 0,
            failure: None,
            manager_version: None,
        };
        self.entries.insert(id, entry);
        id
    }
}

impl Entry {
    /// Takes the answer in and says when to ask next.
    fn learn(
        &mut self,
        now: Instant,
        started: Instant,
        fields: &[Arc<str>],
        answer: Answer,
        versions: &mut u64,
        jitter: &mut Jitter,
    ) -> Instant {
        let schedule = self.schedule;
        for (selector, slot) in &mut self.slots {
            slot.asked |= fields.binary_search(&selector.field).is_ok();
        }
        let asked = |slot: &&mut Box<Slot>| slot.asked;
        match answer {
            Answer::Postponed(until, reason) => {
                self.fail(reason);
                return until + Duration::from_millis(200).mul_f64(jitter());
            }
            Answer::Failed(reason) => {
                self.fail(reason);
                return now + schedule.after_failure(self.failures, jitter());
            }
            Answer::Denied(reason) => {
                for slot in self.slots.values_mut().filter(asked) {
                    slot.denied(&reason, now, &schedule);
                }
            }
            Answer::Found(mut document) => {
                self.manager_version = document.version.take();
                // Those that decode look first: the others take the field out of the document.
                for decodes in [true, false] {
                    let slots = self.slots.iter_mut().filter(|(selector, slot)| {
                        slot.asked && selector.decode.is_some() == decodes
                    });
                    for (selector, slot) in slots {
                        let field = if decodes {
                            document.field(&selector.field)
                        } else {
                            document.take(&selector.field)
                        };
                        match value_of(field, selector.decode) {
                            Ok(value) => slot.found(value, started, versions),
                            Err(reason) => slot.denied(&reason.into(), now, &schedule),
                        }
                    }
                }
            }
        }
        self.failures = 0;
        self.failure = None;
        self.after_answer(now, started, jitter())
    }

    fn fail(&mut self, reason: Arc<str>) {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(reason);
    }

    fn after_answer(&self, now: Instant, started: Instant, jitter: f64) -> Instant {
        let schedule = &self.schedule;
        let missing = self.slots.values().any(|slot| slot.is_missing());
        let retry = missing.then(|| now + schedule.after_denial(jitter));
        let confirm = self
            .slots
            .values()
            .filter_map(|slot| slot.confirm_at(schedule));
        let found = self.slots.values().any(|slot| !slot.is_missing());
        let refresh = found.then(|| started + schedule.after_success(jitter));
        let next = confirm.chain(retry).chain(refresh).min();
        next.unwrap_or_else(|| now + schedule.after_denial(jitter))
    }
}

fn reschedule(due: &mut BTreeSet<(Instant, EntryId)>, id: EntryId, entry: &mut Entry, at: Instant) {
    due.remove(&(entry.due_at, id));
    entry.due_at = at;
    if !entry.in_flight {
        due.insert((at, id));
    }
}

/// Keeps `Entry::unsettled` and the count of such entries true.
fn settle(count: &mut usize, entry: &mut Entry) {
    if entry.unsettled && entry.slots.values().all(|slot| slot.asked) {
        entry.unsettled = false;
        *count -= 1;
    }
}

/// Collects what the users of an entry do not know yet, and notes when to look again.
fn tell(
    lapses: &mut BTreeSet<(Instant, EntryId)>,
    now: Instant,
    id: EntryId,
    entry: &mut Entry,
) -> News {
    let mut news = News::new();
    for slot in entry.slots.values_mut().filter(|slot| slot.asked) {
        if let Some(outcome) = slot.news(now, &entry.schedule, entry.failure.as_ref()) {
            news.extend(
                slot.users
                    .iter()
                    .map(|user| (Arc::clone(user), outcome.clone())),
            );
        }
    }
    if let Some(at) = entry.lapses_at.take() {
        lapses.remove(&(at, id));
    }
    let slots = entry.slots.values();
    entry.lapses_at = slots
        .filter_map(|slot| slot.lapses_at(now, &entry.schedule))
        .min();
    if let Some(at) = entry.lapses_at {
        lapses.insert((at, id));
    }
    news
}
