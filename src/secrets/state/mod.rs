//! What the room knows, behind one lock: managers in force, references in use, the cache, the
//! view. No I/O but the building of managers.

mod demands;
mod ledger;
mod reports;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Answer, Cache, DocumentKey, Job, News, Selector, Told, UNREAD};
use super::fetch::Runner;
use super::install::Workbench;
use super::manager::env::Env;
use super::managers::{self, Announced, Installed, Managers, Standing, Turn};
use super::reference::{Key, Reference, Target};
use super::refresh::Schedule;
use super::settings::{Event, Observer, SecretsSettings};
use super::view::{Outcome, Resolved, Unresolved, View, ViewBuilder};
use crate::clock::Clock;
use demands::Demands;
use ledger::Ledger;

pub(super) struct State {
    workbench: Workbench,
    cache: Cache,
    /// References that no configuration holds.
    demands: Demands,
    managers: Managers,
    /// Declared, not yet in force.
    staged: Option<Managers>,
    announced: Announced,
    /// References in use that stand in no document; all others are found in the cache.
    settled: HashMap<Arc<str>, Settled>,
    /// References in fields of managers.
    fields: HashSet<Arc<str>>,
    /// Those whose worth changed and whose managers have not been told.
    fields_changed: Vec<Arc<str>>,
    view: ViewBuilder,
    published: View,
    /// The view differs from the published one.
    dirty: bool,
    /// How many `ensure`s are under way; nothing is published meanwhile.
    holds: usize,
    /// What the observer has to be told.
    ledger: Ledger,
    /// Somebody is telling the observer.
    pub(super) delivering: bool,
}

/// What was decided without a manager, for as long as the manager stays as it is.
struct Settled {
    /// Id of the manager, where one is named.
    manager: Option<Arc<str>>,
    outcome: Outcome,
}

/// Where a reference goes in a cache.
struct Put {
    key: DocumentKey,
    schedule: Schedule,
    selector: Selector,
}

impl State {
    pub(super) fn new(
        settings: SecretsSettings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            workbench: Workbench {
                env: Arc::new(Env::of_process(&settings.env)),
                settings: Arc::new(settings),
                clock,
                observer,
            },
            cache: Cache::new(Box::new(rand::random)),
            demands: Demands::new(Cache::new(Box::new(rand::random))),
            managers: Managers::new(),
            staged: None,
            announced: Announced::default(),
            settled: HashMap::new(),
            fields: HashSet::new(),
            fields_changed: Vec::new(),
            view: ViewBuilder::new(),
            published: View::default(),
            dirty: false,
            holds: 0,
            ledger: Ledger::default(),
            delivering: false,
        }
    }

    /// What reading declarations takes; it may read files, so it is not done under the lock.
    pub(super) fn workbench(&self) -> (Managers, Workbench) {
        (self.managers.clone(), self.workbench.clone())
    }

    /// Takes what was read; it comes into force with the next [`State::hold`].
    pub(super) fn stage(&mut self, staged: Managers) {
        self.staged = Some(staged);
    }

    /// Puts staged managers in force and these references in use, and stops publishing.
    pub(super) fn hold(&mut self, now: Instant, references: &BTreeSet<Arc<str>>) {
        self.holds += 1;
        self.dirty = true;
        let staged = self.staged.take();
        if let Some(staged) = &staged {
            let fields = staged.values().flat_map(Installed::references);
            self.fields = fields.cloned().collect();
        }
        let (view, fields) = (&mut self.view, &self.fields);
        self.settled.retain(|text, _| {
            let stays = references.contains(text) || fields.contains(text);
            if !stays {
                view.remove(text);
            }
            stays
        });
        if let Some(staged) = staged {
            self.replace_managers(now, staged);
            self.announce();
        }
        let fields: Vec<_> = self.fields.iter().cloned().collect();
        self.put_in_missing(now, &fields);
        self.fields_changed = fields;
        self.settle_managers(now);
        self.put_in_missing(now, references);
        self.settle_managers(now);
        // Last, so that a document still referred to is kept.
        self.take_out(|state, _, text| !references.contains(text) && !state.fields.contains(text));
        let (view, demands) = (&self.view, &self.demands);
        self.ledger
            .retain(|text| view.find(text).is_some() || demands.wants(text));
    }

    /// Puts `next` in the place of the managers in force. Values of one that means the same
    /// secrets as before are kept. Those of any other are dropped: what its references mean may
    /// be something else now, and a value from elsewhere must not be taken for theirs.
    fn replace_managers(&mut self, now: Instant, next: Managers) {
        let before = std::mem::replace(&mut self.managers, next);
        let added = self.managers.keys().filter(|id| !before.contains_key(*id));
        let mut renewed: Vec<_> = added.cloned().collect();
        for (id, was) in &before {
            let is = self.managers.get(id);
            if let (Some(was), Some(is)) = (was.runner(), is.and_then(Installed::runner))
                && Arc::ptr_eq(was, is)
            {
                continue;
            }
            match is
                .filter(|is| is.is_same_place(was))
                .map(|is| is.standing.clone())
            {
                Some(Standing::Running(runner)) => self.move_in(now, &runner),
                Some(Standing::Waiting(why)) => drop(self.park(id, &why)),
                Some(Standing::Refused(_)) | None => drop(self.drop_values(id)),
            }
            renewed.push(Arc::clone(id));
        }
        for id in renewed {
            self.put_in_again(now, &id);
        }
    }

    /// The new runner takes over the documents of the one before.
    fn move_in(&mut self, now: Instant, runner: &Runner) {
        let (id, schedule) = (&runner.id, runner.schedule);
        let news = self.cache.rehome(now, id, schedule);
        self.show(news);
        self.demands.rehome(now, id, schedule, &mut self.ledger);
    }

    /// Keeps a manager's values while nobody can ask for them. Returns the references without.
    fn park(&mut self, id: &str, why: &Arc<str>) -> Vec<Arc<str>> {
        let without = self.take_out(|state, manager, text| {
            manager == id && state.view.find(text).is_none_or(Result::is_err)
        });
        self.cache.park(id, why);
        self.demands.park(id, why);
        without
    }

    /// Forgets all that a manager said. Returns its references.
    fn drop_values(&mut self, id: &str) -> Vec<Arc<str>> {
        self.cache.forget_places(id);
        self.demands.drop_values(id);
        self.take_out(|_, manager, _| manager == id)
    }

    /// Brings managers into line with the values of their fields.
    fn settle_managers(&mut self, now: Instant) {
        let mut turned = false;
        while let Some(reference) = self.fields_changed.pop() {
            let concerned = self.managers.iter();
            let concerned = concerned.filter(|(_, installed)| installed.needs(&reference));
            let mut ids: Vec<_> = concerned.map(|(id, _)| Arc::clone(id)).collect();
            ids.sort();
            for id in ids {
                turned |= self.settle_manager(now, &id);
            }
        }
        if turned {
            self.announce();
        }
    }

    fn settle_manager(&mut self, now: Instant, id: &Arc<str>) -> bool {
        let shop = self.workbench.shop();
        let Some(installed) = self.managers.get_mut(id) else {
            return false;
        };
        let view = &self.view;
        let unread = || Err(Unresolved::because(UNREAD));
        let outcome_of = |reference: &str| view.find(reference).cloned().unwrap_or_else(unread);
        let turn = installed.settle(&outcome_of, shop);
        let keeps_place = installed.is_same_place(installed);
        let homeless = match (turn, installed.standing.clone()) {
            (None, _) => return false,
            (Some(Turn::Runs), Standing::Running(runner)) if keeps_place => {
                self.move_in(now, &runner);
                Vec::new()
            }
            (Some(Turn::Refused(problem)), Standing::Running(_)) => {
                let (field, why) = (&problem.field, &problem.message);
                log::error!(
                    "secret manager {id} goes on with its old fields, the new value is refused: {field}: {why}"
                );
                self.ledger
                    .push(Arc::clone(id), managers::refused(&problem));
                return false;
            }
            (Some(Turn::WaitsOn), Standing::Waiting(why)) => self.park(id, &why),
            _ => self.drop_values(id),
        };
        self.put_in_missing(now, &homeless);
        self.put_in_again(now, id);
        true
    }

    fn announce(&mut self) {
        self.ledger.extend(self.announced.news(&self.managers));
    }

    /// Takes those references, by manager and text, out of the cache and of use.
    fn take_out(&mut self, goes: impl Fn(&Self, &str, &str) -> bool) -> Vec<Arc<str>> {
        let uses = self.cache.uses();
        let gone: Vec<_> = uses
            .filter(|(_, manager, _, text)| goes(self, manager, text))
            .map(|(entry, _, selector, text)| (entry, selector.clone(), Arc::clone(text)))
            .collect();
        let take = |(entry, selector, text): (_, Selector, Arc<str>)| {
            self.cache.remove(entry, &selector, &text);
            self.view.remove(&text);
            text
        };
        gone.into_iter().map(take).collect()
    }

    /// Puts in use what is not.
    fn put_in_missing<'a>(
        &mut self,
        now: Instant,
        references: impl IntoIterator<Item = &'a Arc<str>>,
    ) {
        for reference in references {
            if self.view.find(reference).is_none() {
                self.put_in(now, reference);
            }
        }
    }

    /// Looks again at what was decided without this manager.
    fn put_in_again(&mut self, now: Instant, id: &str) {
        let of = |settled: &Settled| settled.manager.as_deref() == Some(id);
        let again = self.settled.extract_if(|_, settled| of(settled));
        let again: Vec<_> = again.map(|(text, _)| text).collect();
        for text in again {
            self.put_in(now, &text);
        }
    }

    fn put_in(&mut self, now: Instant, text: &Arc<str>) {
        let (manager, outcome) = match self.locate(now, text) {
            Ok(located) => located,
            Err(settled) => {
                let manager = settled.manager.clone();
                let outcome = settled.outcome.clone();
                self.settled.insert(Arc::clone(text), settled);
                (manager.unwrap_or_else(|| unmanaged(text)), outcome)
            }
        };
        self.show(vec![Told {
            reference: Arc::clone(text),
            outcome,
            denied: false,
            manager,
            manager_version: None,
        }]);
    }

    /// Puts the reference into the cache, unless what it is worth is settled without.
    fn locate(&mut self, now: Instant, text: &Arc<str>) -> Result<(Arc<str>, Outcome), Settled> {
        let Put {
            key,
            schedule,
            selector,
        } = self.place(text)?;
        let manager = Arc::clone(&key.manager);
        let outcome = self
            .cache
            .add(now, key, schedule, selector, Arc::clone(text));
        Ok((manager, outcome))
    }

    /// Where the reference stands, unless what it is worth is settled without.
    fn place(&mut self, text: &Arc<str>) -> Result<Put, Settled> {
        let settled = |manager, outcome| Err(Settled { manager, outcome });
        let reference = match Reference::parse_shared(text) {
            Ok(reference) => reference,
            Err(error) => return settled(None, Err(Unresolved::because(error.to_string()))),
        };
        let key = match reference.target() {
            Target::Env { name, json_key } => {
                let value = self.workbench.env.resolve(name, json_key.as_deref());
                let outcome = value.map_err(Unresolved::because).map(|value| Resolved {
                    value,
                    version: self.cache.next_version(),
                });
                return settled(None, outcome);
            }
            Target::Managed(key) => key,
        };
        let runner = managers::runner_of(&self.managers, &key.manager, text);
        let located = runner.and_then(|runner| {
            let location = runner.manager.locate(key);
            let location = location.map_err(|error| Unresolved::because(error.to_string()))?;
            Ok((runner, location))
        });
        let (runner, location) = match located {
            Ok(located) => located,
            Err(unresolved) => return settled(Some(Arc::clone(&key.manager)), Err(unresolved)),
        };
        Ok(Put {
            key: DocumentKey {
                manager: Arc::clone(&runner.id),
                path: location.path,
                version: key.version.clone(),
            },
            schedule: runner.schedule,
            selector: Selector {
                field: location.field,
                decode: key.decode,
            },
        })
    }

    /// The environment as it was at start.
    pub(super) fn env(&self) -> &Env {
        &self.workbench.env
    }

    /// Who reads this key's documents.
    pub(super) fn runner_of(&self, key: &Key, text: &str) -> Result<Arc<Runner>, Unresolved> {
        managers::runner_of(&self.managers, &key.manager, text).cloned()
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Arc<Runner>, Job)> {
        let mut jobs = self.cache.take_due(now);
        jobs.extend(self.demands.take_due(now));
        let with_runner = |job: Job| {
            let runner = self.managers.get(&job.key.manager)?.runner()?;
            Some((Arc::clone(runner), job))
        };
        jobs.into_iter().filter_map(with_runner).collect()
    }

    pub(super) fn complete(
        &mut self,
        now: Instant,
        started: Instant,
        runner: &Runner,
        job: &Job,
        answer: Answer,
    ) {
        let elsewhere = |tried: &_, why: &_| runner.manager.elsewhere(tried, why);
        if job.on_demand {
            let (demands, ledger) = (&mut self.demands, &mut self.ledger);
            return demands.complete(now, started, job, answer, &elsewhere, ledger);
        }
        let news = self.cache.complete(now, started, job, answer, &elsewhere);
        self.show(news);
        self.settle_managers(now);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let news = self.cache.expire(now);
        self.show(news);
        self.settle_managers(now);
        self.demands.expire(now, &mut self.ledger);
        self.ledger.close(now, false);
    }

    fn show(&mut self, news: News) {
        let now = self.workbench.clock.now();
        for told in news {
            let was = self.view.find(&told.reference);
            self.ledger.enter(now, &told, was);
            if self.fields.contains(&told.reference) {
                self.fields_changed.push(Arc::clone(&told.reference));
            }
            self.view.set(told.reference, told.outcome);
            self.dirty = true;
        }
    }

    /// Whether there was something new to publish.
    pub(super) fn publish(&mut self) -> bool {
        if self.holds > 0 || !self.dirty {
            return false;
        }
        self.published = self.view.view();
        self.dirty = false;
        true
    }

    pub(super) fn published(&self) -> View {
        self.published.clone()
    }

    /// Ends a [`State::hold`].
    pub(super) fn release(&mut self) -> View {
        self.holds = self.holds.saturating_sub(1);
        self.ledger.close(self.workbench.clock.now(), true);
        self.publish();
        if self.holds > 0 {
            return self.view.view();
        }
        self.published()
    }

    pub(super) fn unsettled(&self) -> usize {
        self.cache.unsettled()
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        let events = [self.cache.next_event(), self.demands.cache.next_event()];
        events.into_iter().flatten().min()
    }

    pub(super) fn hasten(&mut self, now: Instant, manager: &str) {
        self.cache.hasten(now, manager);
        self.demands.cache.hasten(now, manager);
    }

    pub(super) fn touch(&mut self, at: Instant, manager: &str) {
        self.cache.touch(at, Some(manager));
        self.demands.cache.touch(at, Some(manager));
    }

    /// Managers whose users ask for them to be read now.
    pub(super) fn wishes(&self, now: Instant) -> Vec<Arc<str>> {
        self.view.wishes().take(now)
    }

    pub(super) fn touch_all(&mut self, at: Instant) {
        self.cache.touch(at, None);
        self.demands.cache.touch(at, None);
    }

    pub(super) fn runners(&self) -> Vec<Arc<Runner>> {
        let running = self.managers.values().filter_map(Installed::runner);
        running.cloned().collect()
    }

    /// Something for the observer, behind all that is to be told already.
    pub(super) fn note(&mut self, manager: &Arc<str>, event: Event) {
        self.ledger.push(Arc::clone(manager), event);
    }

    pub(super) fn take_events(&mut self) -> Vec<(Arc<str>, Event)> {
        self.ledger.take()
    }
}

/// What stands for the manager of a reference that names none.
fn unmanaged(text: &str) -> Arc<str> {
    match Reference::parse(text).as_ref().map(Reference::target) {
        Ok(Target::Env { .. }) => "env".into(),
        _ => Arc::default(),
    }
}
