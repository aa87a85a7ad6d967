//! One document in use: the values wanted of it, and when it is read again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slot::{Selector, Slot, value_of};
use super::{Answer, DocumentKey, Jitter, News, Told};
use crate::secrets::manager::Location;
use crate::secrets::refresh::Schedule;

pub(super) struct Entry {
    pub(super) key: DocumentKey,
    pub(super) schedule: Schedule,
    /// Boxed: a table keeps up to half its places free.
    pub(super) slots: HashMap<Selector, Box<Slot>>,
    pub(super) due_at: Instant,
    pub(super) lapses_at: Option<Instant>,
    /// A read is under way, or none is to be made.
    pub(super) in_flight: bool,
    /// Grows when reads that are under way have nothing to say any more.
    pub(super) epoch: u32,
    /// Asked to be read again while a read was under way.
    pub(super) touched: bool,
    /// Counted in `Cache::unsettled`: some slot was never asked for.
    pub(super) unsettled: bool,
    pub(super) failures: u32,
    pub(super) failure: Option<Arc<str>>,
    pub(super) manager_version: Option<Arc<str>>,
}

impl Entry {
    pub(super) fn new(now: Instant, key: DocumentKey, schedule: Schedule) -> Self {
        Self {
            key,
            schedule,
            slots: HashMap::new(),
            due_at: now,
            lapses_at: None,
            in_flight: false,
            epoch: 0,
            touched: false,
            unsettled: false,
            failures: 0,
            failure: None,
            manager_version: None,
        }
    }

    /// Takes the answer in and says when to ask next.
    pub(super) fn learn(
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
            Answer::Denied(error) => {
                let reason = error.to_string().into();
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
                            Ok(value) => slot.found(&value, started, versions),
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

    /// The manager's item was replaced: what is under way is void, values are stale.
    pub(super) fn doubt(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.in_flight = false;
        self.touched = false;
        self.failures = 0;
        self.failure = None;
        for slot in self.slots.values_mut() {
            slot.doubt();
        }
    }

    /// The references into it.
    pub(super) fn users(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slots.values().flat_map(|slot| &slot.users)
    }

    pub(super) fn location(&self, selector: &Selector) -> Location {
        Location {
            path: Arc::clone(&self.key.path),
            field: Arc::clone(&selector.field),
        }
    }

    /// Whether nothing in it waits for a first answer.
    pub(super) fn is_settled(&self) -> bool {
        let mut slots = self.slots.values();
        slots.all(|slot| slot.asked || slot.has_shown())
    }

    /// Adds what the users do not know yet.
    pub(super) fn tell(&mut self, now: Instant, news: &mut News) {
        let known = |slot: &&mut Box<Slot>| slot.asked || slot.has_shown();
        for slot in self.slots.values_mut().filter(known) {
            if let Some(outcome) = slot.news(now, &self.schedule, self.failure.as_ref()) {
                let denied = outcome.is_err() && self.failure.is_none() && slot.is_denied();
                news.extend(slot.users.iter().map(|user| Told {
                    reference: Arc::clone(user),
                    outcome: outcome.clone(),
                    denied,
                    manager: Arc::clone(&self.key.manager),
                    manager_version: self.manager_version.clone(),
                }));
            }
        }
    }
}
