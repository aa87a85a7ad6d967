//! Demands: references of names that clients asked for. They have a cache of their own, so that
//! nothing a client chooses stands in a configuration's view, reports or counts; managers, their
//! circuits and bounds are the same. Pure but for the flags of [`Interest`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::ledger::Ledger;
use super::{Put, Settled, State};
use crate::secrets::cache::{Answer, Cache, DocumentKey, Elsewhere, Job, News, Selector};
use crate::secrets::demand::{Answered, DemandId, Interest, Lack};
use crate::secrets::refresh::Schedule;
use crate::secrets::view::{Outcome, Resolved};

pub(super) struct Demands {
    pub(super) cache: Cache,
    wanted: HashMap<Arc<str>, Wanted>,
    demands: HashMap<DemandId, Asked>,
    /// Demands whose references have answers that were not taken yet.
    answered: Vec<DemandId>,
    last: DemandId,
}

/// A reference that some demand holds.
struct Wanted {
    /// Where it was put into the cache; `None` where it could not be.
    place: Option<(DocumentKey, Selector)>,
    /// `None` until a first answer.
    outcome: Option<Result<Resolved, Lack>>,
    /// A read is under way that its demands wait for.
    awaited: bool,
    /// Its document was due, and was not read since nobody used it.
    rests: bool,
    demands: SmallVec<[DemandId; 1]>,
}

struct Asked {
    references: Box<[Arc<str>]>,
    interest: Arc<Interest>,
    /// When it was found to be in use last.
    used: Instant,
    /// How long that holds: the documents of a demand are not due at the same moment.
    holds: Duration,
    /// Stands in [`Demands::answered`].
    is_told: bool,
}

impl Asked {
    /// Whether somebody used it lately.
    fn is_used(&mut self, now: Instant) -> bool {
        if self.interest.take() {
            self.used = now;
        }
        now < self.used + self.holds
    }
}

impl Demands {
    pub(super) fn new(cache: Cache) -> Self {
        Self {
            cache,
            wanted: HashMap::new(),
            demands: HashMap::new(),
            answered: Vec::new(),
            last: 0,
        }
    }

    /// Whether some demand holds it.
    pub(super) fn wants(&self, reference: &str) -> bool {
        self.wanted.contains_key(reference)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Job> {
        let mut concerned = Vec::new();
        let (wanted, demands) = (&mut self.wanted, &mut self.demands);
        let mut is_used = |reference: &Arc<str>| {
            let Some(wanted) = wanted.get_mut(reference) else {
                return false;
            };
            let mut used = wanted.awaited;
            for id in &wanted.demands {
                used |= demands.get_mut(id).is_some_and(|asked| asked.is_used(now));
            }
            wanted.rests = !used;
            concerned.push(Arc::clone(reference));
            used
        };
        let mut jobs = self.cache.take_due_of(now, &mut is_used);
        for job in &mut jobs {
            job.on_demand = true;
            // One that nobody uses may share a document with one that somebody does.
            for user in self.cache.users(job.entry) {
                if let Some(wanted) = self.wanted.get_mut(&user) {
                    wanted.rests = false;
                }
            }
        }
        for reference in concerned {
            self.note_rest(&reference);
        }
        jobs
    }

    pub(super) fn complete(
        &mut self,
        now: Instant,
        started: Instant,
        job: &Job,
        answer: Answer,
        elsewhere: Elsewhere<'_>,
        ledger: &mut Ledger,
    ) {
        let users = self.cache.users(job.entry);
        let news = self.cache.complete(now, started, job, answer, elsewhere);
        self.tell(now, news, ledger);
        for user in users {
            if let Some(wanted) = self.wanted.get_mut(&user) {
                wanted.awaited = false;
                wanted.rests = false;
                self.note_rest(&user);
                self.mark(&user);
            }
        }
    }

    /// Values that grew too old.
    pub(super) fn expire(&mut self, now: Instant, ledger: &mut Ledger) {
        let news = self.cache.expire(now);
        self.tell(now, news, ledger);
    }

    /// The manager's item was replaced by one that means the same secrets.
    pub(super) fn rehome(
        &mut self,
        now: Instant,
        manager: &str,
        schedule: Schedule,
        ledger: &mut Ledger,
    ) {
        let news = self.cache.rehome(now, manager, schedule);
        self.tell(now, news, ledger);
    }

    /// The manager cannot be asked for now; what has no value yet is answered so.
    pub(super) fn park(&mut self, manager: &str, why: &Arc<str>) {
        self.cache.park(manager, why);
        let lack = Lack::Failed(Arc::clone(why));
        let missing = |wanted: &Wanted| !matches!(wanted.outcome, Some(Ok(_)));
        self.fail(manager, &lack, missing);
    }

    /// Nothing the manager said holds any longer.
    pub(super) fn drop_values(&mut self, manager: &str) {
        self.cache.forget_places(manager);
        let lack = Lack::Void("the secret manager was replaced".into());
        self.fail(manager, &lack, |_| true);
    }

    /// Answers what is waited for, and gives up the values for which `goes` holds.
    fn fail(&mut self, manager: &str, lack: &Lack, goes: impl Fn(&Wanted) -> bool) {
        let of = |wanted: &Wanted| {
            let place = wanted.place.as_ref();
            place.is_some_and(|(key, _)| &*key.manager == manager)
        };
        let mut concerned = Vec::new();
        for (reference, wanted) in &mut self.wanted {
            if of(wanted) {
                if goes(wanted) {
                    wanted.outcome = Some(Err(lack.clone()));
                }
                wanted.awaited = false;
                concerned.push(Arc::clone(reference));
            }
        }
        for reference in concerned {
            self.mark(&reference);
        }
    }

    /// Takes in what changed. Of values that served, the ledger is told as of all others; a name
    /// that never had one is whatever a client made up, and nobody's news.
    fn tell(&mut self, now: Instant, news: News, ledger: &mut Ledger) {
        for told in news {
            let Some(wanted) = self.wanted.get_mut(&told.reference) else {
                continue;
            };
            if let Some(Ok(was)) = &wanted.outcome {
                let was: Outcome = Ok(was.clone());
                ledger.enter(now, &told, Some(&was));
            }
            let lack = |reason: &Arc<str>| match told.denied {
                true => Lack::Denied(Arc::clone(reason)),
                false => Lack::Failed(Arc::clone(reason)),
            };
            let outcome = told.outcome.clone();
            wanted.outcome = Some(outcome.map_err(|why| lack(&why.reason)));
            wanted.awaited = false;
            self.mark(&told.reference);
        }
    }

    /// Has those told that hold the reference, where all of theirs have an answer.
    fn mark(&mut self, reference: &str) {
        let Some(wanted) = self.wanted.get(reference) else {
            return;
        };
        for id in &wanted.demands {
            let Some(asked) = self.demands.get_mut(id) else {
                continue;
            };
            let references = asked.references.iter();
            let references = references.filter_map(|reference| self.wanted.get(reference));
            let known = |wanted: &Wanted| wanted.outcome.is_some();
            let done = |wanted: &Wanted| known(wanted) && !wanted.awaited;
            let lost = |wanted: &Wanted| done(wanted) && matches!(wanted.outcome, Some(Err(_)));
            // One that is lost ends a pair at once, however long the other takes to be read again.
            let ready = references.clone().all(done)
                || references.clone().all(known) && { references }.any(lost);
            if ready && !asked.is_told {
                asked.is_told = true;
                self.answered.push(*id);
            }
        }
    }

    /// Has documents read that rest, and its values told in any case.
    fn revive(&mut self, now: Instant, id: DemandId) {
        let Some(asked) = self.demands.get(&id) else {
            return;
        };
        if asked.interest.rests() {
            for reference in &asked.references {
                let Some(wanted) = self.wanted.get_mut(reference) else {
                    continue;
                };
                if !wanted.rests {
                    continue;
                }
                let place = wanted.place.as_ref();
                let entry =
                    place.and_then(|(key, selector)| self.cache.find(key, selector, reference));
                if let Some((entry, _)) = entry {
                    // Nobody waits for a manager that cannot be asked.
                    wanted.awaited = self.cache.awaken(now, entry);
                }
            }
        }
        if let Some(first) = asked.references.first().cloned() {
            self.mark(&first);
        }
    }

    /// Lets users of the reference know whether one of theirs rests.
    fn note_rest(&self, reference: &str) {
        let demands = self.wanted.get(reference).map(|wanted| &wanted.demands);
        for id in demands.into_iter().flatten() {
            if let Some(asked) = self.demands.get(id) {
                let references = asked.references.iter();
                let mut references = references.filter_map(|reference| self.wanted.get(reference));
                asked
                    .interest
                    .set_resting(references.any(|wanted| wanted.rests));
            }
        }
    }

    fn take_answered(&mut self) -> Vec<Answered> {
        let ids = std::mem::take(&mut self.answered);
        let answered = ids.into_iter().filter_map(|id| {
            let asked = self.demands.get_mut(&id)?;
            asked.is_told = false;
            let references = asked.references.iter();
            let outcome = |reference| self.wanted.get(reference)?.outcome.clone();
            Some(Answered {
                demand: id,
                outcomes: references.map(outcome).collect::<Option<_>>()?,
            })
        });
        answered.collect()
    }
}

impl State {
    /// See [`crate::secrets::Secrets::demand`].
    pub(in crate::secrets) fn add_demand(
        &mut self,
        now: Instant,
        references: Vec<Arc<str>>,
        interest: Arc<Interest>,
    ) -> DemandId {
        self.demands.last += 1;
        let id = self.demands.last;
        let mut shortest = Duration::MAX;
        for reference in &references {
            if let Some(wanted) = self.demands.wanted.get_mut(reference) {
                wanted.demands.push(id);
                continue;
            }
            let (place, outcome) = match self.place(reference) {
                Ok(Put {
                    key,
                    schedule,
                    selector,
                }) => {
                    let place = (key.clone(), selector.clone());
                    shortest = shortest.min(schedule.ttl);
                    let cache = &mut self.demands.cache;
                    // What it is worth now is nothing: it is in no other demand.
                    let _ = cache.add(now, key, schedule, selector, Arc::clone(reference));
                    (Some(place), None)
                }
                Err(Settled { outcome, .. }) => {
                    let failed = outcome.map_err(|why| Lack::Failed(why.reason));
                    (None, Some(failed))
                }
            };
            let wanted = Wanted {
                place,
                awaited: outcome.is_none(),
                rests: false,
                outcome,
                demands: [id].into_iter().collect(),
            };
            self.demands.wanted.insert(Arc::clone(reference), wanted);
        }
        let asked = Asked {
            references: references.into(),
            interest,
            used: now,
            holds: shortest.min(LONGEST_HOLD) / 2,
            is_told: false,
        };
        let first = asked.references.first().cloned();
        self.demands.demands.insert(id, asked);
        if let Some(first) = first {
            self.demands.mark(&first);
        }
        id
    }

    /// See [`crate::secrets::Secrets::revive`].
    pub(in crate::secrets) fn revive(&mut self, now: Instant, id: DemandId) {
        self.demands.revive(now, id);
    }

    /// See [`crate::secrets::Secrets::answered`].
    pub(in crate::secrets) fn take_answered(&mut self) -> Vec<Answered> {
        self.demands.take_answered()
    }

    /// Whether [`State::take_answered`] has something to take.
    pub(in crate::secrets) fn has_answered(&self) -> bool {
        !self.demands.answered.is_empty()
    }

    /// Takes a demand's references out of use where no other holds them.
    pub(in crate::secrets) fn forget_demand(&mut self, id: DemandId) {
        let demands = &mut self.demands;
        let Some(asked) = demands.demands.remove(&id) else {
            return;
        };
        for reference in &asked.references {
            let Some(wanted) = demands.wanted.get_mut(reference) else {
                continue;
            };
            wanted.demands.retain(|other| *other != id);
            if !wanted.demands.is_empty() {
                continue;
            }
            if let Some((key, selector)) = &wanted.place
                && let Some((entry, selector)) = demands.cache.find(key, selector, reference)
            {
                demands.cache.remove(entry, &selector, reference);
            }
            demands.wanted.remove(reference);
            self.ledger.forget(reference);
        }
    }
}

/// Half of it is how long a use holds at most, whatever the ttl.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::secrets::manager::{Document, FetchError, FieldValue};
    use crate::secrets::value::Secret;

    const SCHEDULE: Schedule = Schedule {
        ttl: Duration::from_secs(100),
        neg_ttl: Duration::from_secs(10),
        max_stale: Duration::from_secs(10_000),
    };

    /// One demand for a value of each of two managers, `a` and `b`.
    struct Bench {
        clock: ManualClock,
        demands: Demands,
        ledger: Ledger,
        interest: Arc<Interest>,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                clock: ManualClock::new(),
                demands: Demands::new(Cache::new(Box::new(|| 0.0))),
                ledger: Ledger::default(),
                interest: Arc::default(),
            };
            let now = bench.clock.now();
            let demands = &mut bench.demands;
            let references = ["a", "b"].map(Arc::<str>::from);
            for reference in &references {
                let key = DocumentKey {
                    manager: Arc::clone(reference),
                    path: "path".into(),
                    version: None,
                };
                let selector = Selector {
                    field: "x".into(),
                    decode: None,
                };
                let wanted = Wanted {
                    place: Some((key.clone(), selector.clone())),
                    outcome: None,
                    awaited: true,
                    rests: false,
                    demands: [1].into_iter().collect(),
                };
                let user = Arc::clone(reference);
                let _ = demands.cache.add(now, key, SCHEDULE, selector, user);
                demands.wanted.insert(Arc::clone(reference), wanted);
            }
            let asked = Asked {
                references: references.into(),
                interest: Arc::clone(&bench.interest),
                used: now,
                holds: SCHEDULE.ttl / 2,
                is_told: false,
            };
            demands.demands.insert(1, asked);
            bench
        }

        fn due(&mut self) -> Vec<Job> {
            self.demands.take_due(self.clock.now())
        }

        fn answer(&mut self, job: &Job, answer: Answer) {
            let now = self.clock.now();
            let (demands, ledger) = (&mut self.demands, &mut self.ledger);
            demands.complete(now, now, job, answer, &|_, _| None, ledger);
        }

        /// What was told: for each time, which of both have a value.
        fn told(&mut self) -> Vec<Vec<bool>> {
            let answered = self.demands.take_answered().into_iter();
            let has = |answered: Answered| answered.outcomes.iter().map(Result::is_ok).collect();
            answered.map(has).collect()
        }

        /// Both were read, and rest.
        fn resting() -> Self {
            let mut bench = Self::new();
            for job in bench.due() {
                bench.answer(&job, found());
            }
            assert_eq!(bench.told(), [[true, true]]);
            bench.clock.advance(SCHEDULE.ttl * 2);
            assert!(bench.due().is_empty() && bench.interest.rests());
            bench
        }

        fn revive(&mut self) {
            self.demands.revive(self.clock.now(), 1);
        }
    }

    fn found() -> Answer {
        let value = FieldValue::Text(Secret::from("value".to_owned()));
        Answer::Found(Document::new([(Box::from("x"), value)].into(), None))
    }

    #[test]
    fn values_that_rest_are_told_once_all_are_read_again() {
        let mut bench = Bench::resting();
        bench.revive();
        assert!(bench.told().is_empty(), "they are being read");
        let due = bench.due();
        assert_eq!(due.len(), 2);
        bench.answer(&due[0], found());
        assert!(bench.told().is_empty());
        bench.answer(&due[1], found());
        assert_eq!(bench.told(), [[true, true]]);
        assert!(!bench.interest.rests());
    }

    /// Each handshake waited its whole time for a read that nobody made.
    #[test]
    fn nobody_waits_for_a_manager_that_cannot_be_asked() {
        let mut bench = Bench::resting();
        bench.demands.park("a", &"it waits for a value".into());
        bench.told();
        bench.revive();
        let due = bench.due();
        assert_eq!(due.len(), 1, "b can be asked");
        bench.answer(&due[0], found());
        assert_eq!(bench.told(), [[true, true]]);
        bench.revive();
        assert_eq!(bench.told(), [[true, true]], "at once");
    }

    #[test]
    fn a_value_that_is_lost_is_told_though_the_other_is_not_read_yet() {
        let mut bench = Bench::resting();
        bench.revive();
        // The answer for the other is still to come.
        let gone = bench.due().swap_remove(0);
        bench.answer(&gone, Answer::Denied(FetchError::NotFound));
        assert!(bench.told().is_empty(), "it is not certain yet");
        bench.interest.note();
        bench.clock.advance(SCHEDULE.neg_ttl);
        let again = bench.due().pop().expect("the denial is to be confirmed");
        bench.answer(&again, Answer::Denied(FetchError::NotFound));
        let told = bench.told();
        assert_eq!(told.len(), 1, "however long the other takes");
        assert_eq!(told[0].iter().filter(|has| **has).count(), 1);
    }
}
