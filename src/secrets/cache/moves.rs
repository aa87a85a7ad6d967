//! References that go from one document to another, until one is found that is there.

use std::collections::hash_map;
use std::sync::Arc;
use std::time::Instant;

use super::places::{Elsewhere, Next};
use super::{Cache, DocumentKey, EntryId, News, Selector, Told, reschedule, settle};
use crate::secrets::manager::{FetchError, Location};

impl Cache {
    /// The document is there: references that were on their way have arrived.
    pub(super) fn remember(&mut self, id: EntryId) {
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
    pub(super) fn send_on(
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
            hash_map::Entry::Vacant(place) => {
                mover.users.push(user);
                place.insert(mover)
            }
            hash_map::Entry::Occupied(place) => {
                let slot = place.into_mut();
                slot.users.push(Arc::clone(&user));
                if slot.has_shown() && !slot.shows_as(&mover) {
                    let outcome = slot.outcome(now, &schedule, entry.failure.as_ref());
                    news.push(Told {
                        reference: user,
                        denied: outcome.is_err() && slot.is_denied(),
                        outcome,
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
}
