//! What the room knows, behind one lock: managers in force, references in use, the cache, the
//! view. No I/O but the building of managers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Answer, Cache, DocumentKey, EntryId, Job, News, Selector};
use super::fetch::Runner;
use super::install;
use super::manager::MANAGERS;
use super::manager::env::Env;
use super::reference::{Key, Reference, Target};
use super::report::{CircuitState, LoginReport, ManagerReport, ReferenceReport, ReferenceState};
use super::settings::{ManagerProblem, ManagerSpec, Observer, SecretsSettings};
use super::view::{Outcome, Resolved, Unresolved, View, ViewBuilder};
use crate::clock::Clock;

pub(super) struct State {
    settings: SecretsSettings,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    env: Env,
    cache: Cache,
    managers: HashMap<Arc<str>, Installed>,
    /// Declared, not yet in force.
    staged: Option<HashMap<Arc<str>, Installed>>,
    /// Who reads each document of the cache.
    runners_in_use: HashMap<EntryId, Arc<Runner>>,
    /// References in use that stand in no document; all others are found in the cache.
    settled: HashMap<Arc<str>, Settled>,
    view: ViewBuilder,
    published: View,
    /// The view differs from the published one.
    dirty: bool,
    /// How many `ensure`s are under way; nothing is published meanwhile.
    holds: usize,
}

/// A declared manager.
#[derive(Clone)]
struct Installed {
    /// Digest of kind and fields: the fields themselves may hold a token.
    fingerprint: [u8; 32],
    runner: Result<Arc<Runner>, ManagerProblem>,
}

/// What was decided without a manager, for as long as the manager stays undeclared.
struct Settled {
    /// Id of the manager, where one is named.
    manager: Option<Arc<str>>,
    outcome: Outcome,
}

impl State {
    pub(super) fn new(
        settings: SecretsSettings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            env: Env::of_process(&settings.env),
            settings,
            clock,
            observer,
            cache: Cache::new(Box::new(rand::random)),
            managers: HashMap::new(),
            staged: None,
            runners_in_use: HashMap::new(),
            settled: HashMap::new(),
            view: ViewBuilder::new(),
            published: View::default(),
            dirty: false,
            holds: 0,
        }
    }

    pub(super) fn configure(&mut self, specs: &[ManagerSpec]) -> Vec<ManagerProblem> {
        let mut staged: HashMap<Arc<str>, Installed> = HashMap::new();
        for spec in specs {
            let fingerprint = install::fingerprint(spec);
            let installed = match self.managers.get(&spec.id) {
                Some(same) if same.fingerprint == fingerprint && same.runner.is_ok() => {
                    same.clone()
                }
                _ => Installed {
                    fingerprint,
                    runner: install::build(
                        spec,
                        &self.settings,
                        &self.env,
                        &self.clock,
                        &self.observer,
                    )
                    .map(Arc::new)
                    .map_err(|error| ManagerProblem {
                        id: Arc::clone(&spec.id),
                        field: error.field,
                        message: error.message,
                    }),
                },
            };
            staged.insert(Arc::clone(&spec.id), installed);
        }
        let problems = specs
            .iter()
            .filter_map(|spec| staged.get(&spec.id)?.runner.as_ref().err());
        let problems = problems.cloned().collect();
        self.staged = Some(staged);
        problems
    }

    /// Puts staged managers in force and these references in use, and stops publishing.
    pub(super) fn hold(&mut self, now: Instant, references: &BTreeSet<Arc<str>>) {
        self.holds += 1;
        if let Some(staged) = self.staged.take() {
            self.managers = staged;
        }
        // Entries of replaced managers go first, so that nothing new joins them; what merely fell
        // out of use goes last, so that a document still referred to is kept.
        self.take_out(|state, entry, _| !state.is_current(entry));
        self.take_out_settled(|settled, _| settled.manager.is_some());
        for reference in references {
            if !self.view.contains(reference) {
                let outcome = self.put_in(now, reference);
                self.view.set(Arc::clone(reference), outcome);
            }
        }
        self.take_out(|_, _, text| !references.contains(text));
        self.take_out_settled(|_, text| !references.contains(text));
        self.dirty = true;
    }

    /// Takes those references out of the cache and of use.
    fn take_out(&mut self, goes: impl Fn(&Self, EntryId, &str) -> bool) {
        let uses = self.cache.uses();
        let gone: Vec<_> = uses
            .filter(|(entry, _, text)| goes(self, *entry, text))
            .map(|(entry, selector, text)| (entry, selector.clone(), Arc::clone(text)))
            .collect();
        for (entry, selector, text) in gone {
            self.cache.remove(entry, &selector, &text);
            self.view.remove(&text);
        }
        let cache = &self.cache;
        self.runners_in_use.retain(|entry, _| cache.holds(*entry));
    }

    fn take_out_settled(&mut self, goes: impl Fn(&Settled, &str) -> bool) {
        let view = &mut self.view;
        self.settled.retain(|text, settled| {
            let goes = goes(settled, text);
            if goes {
                view.remove(text);
            }
            !goes
        });
    }

    /// Whether the document is still read where the managers in force would read it.
    fn is_current(&self, entry: EntryId) -> bool {
        let Some(runner) = self.runners_in_use.get(&entry) else {
            return false;
        };
        self.managers
            .get(&runner.id)
            .and_then(|installed| installed.runner.as_ref().ok())
            .is_some_and(|current| Arc::ptr_eq(runner, current))
    }

    fn put_in(&mut self, now: Instant, text: &Arc<str>) -> Outcome {
        match self.locate(now, text) {
            Ok(outcome) => outcome,
            Err(settled) => {
                let outcome = settled.outcome.clone();
                self.settled.insert(Arc::clone(text), settled);
                outcome
            }
        }
    }

    /// Puts the reference into the cache, unless what it is worth is settled without.
    fn locate(&mut self, now: Instant, text: &Arc<str>) -> Result<Outcome, Settled> {
        let settled = |manager, outcome| Err(Settled { manager, outcome });
        let reference = match Reference::parse_shared(text) {
            Ok(reference) => reference,
            Err(error) => return settled(None, Err(Unresolved::because(error.to_string()))),
        };
        let key = match reference.target() {
            Target::Env { name, json_key } => {
                let value = self.env.resolve(name, json_key.as_deref());
                let outcome = value.map_err(Unresolved::because).map(|value| Resolved {
                    value,
                    version: self.cache.next_version(),
                });
                return settled(None, outcome);
            }
            Target::Managed(key) => key,
        };
        let located = self.runner_of(key, text).and_then(|runner| {
            let location = runner.manager.locate(key);
            let location = location.map_err(|error| Unresolved::because(error.to_string()))?;
            Ok((runner, location))
        });
        let (runner, location) = match located {
            Ok(located) => located,
            Err(unresolved) => return settled(Some(Arc::clone(&key.manager)), Err(unresolved)),
        };
        let document = DocumentKey {
            manager: Arc::clone(&runner.id),
            path: location.path,
            version: key.version.clone(),
        };
        let selector = Selector {
            field: location.field,
            decode: key.decode,
        };
        let (entry, outcome) =
            self.cache
                .add(now, document, runner.schedule, selector, Arc::clone(text));
        self.runners_in_use.insert(entry, runner);
        Ok(outcome)
    }

    /// The environment as it was at start.
    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// Who reads this key's documents.
    pub(super) fn runner_of(&self, key: &Key, text: &str) -> Result<Arc<Runner>, Unresolved> {
        match self
            .managers
            .get(&key.manager)
            .map(|installed| &installed.runner)
        {
            Some(Ok(runner)) => Ok(Arc::clone(runner)),
            Some(Err(problem)) => Err(Unresolved::because(format!(
                "secret manager {} refused: {}: {}",
                problem.id, problem.field, problem.message
            ))),
            None => {
                let kind = key.manager.split('/').next().unwrap_or_default();
                Err(Unresolved::because(
                    if MANAGERS.iter().any(|def| def.name == kind) {
                        format!("no secret conf, secret_uri: {text}")
                    } else {
                        format!("no secret manager: {kind}")
                    },
                ))
            }
        }
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Arc<Runner>, Job)> {
        let jobs = self.cache.take_due(now);
        let with_runner = |job: Job| {
            let installed = self.managers.get(&job.key.manager)?;
            Some((Arc::clone(installed.runner.as_ref().ok()?), job))
        };
        jobs.into_iter().filter_map(with_runner).collect()
    }

    pub(super) fn complete(&mut self, now: Instant, started: Instant, job: &Job, answer: Answer) {
        let news = self
            .cache
            .complete(now, started, job.entry, &job.fields, answer);
        self.show(news);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let news = self.cache.expire(now);
        self.show(news);
    }

    fn show(&mut self, news: News) {
        for (reference, outcome) in news {
            self.view.set(reference, outcome);
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
        self.cache.next_event()
    }

    pub(super) fn hasten(&mut self, now: Instant, manager: &str) {
        self.cache.hasten(now, manager);
    }

    pub(super) fn touch(&mut self, at: Instant, manager: &str) {
        self.cache.touch(at, Some(manager));
    }

    pub(super) fn touch_all(&mut self, at: Instant) {
        self.cache.touch(at, None);
    }

    pub(super) fn runners(&self) -> Vec<Arc<Runner>> {
        let running = self
            .managers
            .values()
            .filter_map(|installed| installed.runner.as_ref().ok());
        running.cloned().collect()
    }

    pub(super) fn report(&self, now: Instant) -> Vec<ReferenceReport> {
        let uses = self.cache.uses();
        let cached = uses
            .filter_map(|(entry, selector, text)| self.cache.report(now, entry, selector, text));
        let settled = self.settled.iter();
        let settled = settled.map(|(text, settled)| settled_report(text, settled));
        let mut reports: Vec<_> = cached.chain(settled).collect();
        reports.sort_by(|a, b| a.reference.cmp(&b.reference));
        reports
    }

    pub(super) fn manager_report(&self, now: Instant) -> Vec<ManagerReport> {
        let mut reports: HashMap<&Arc<str>, ManagerReport> = HashMap::new();
        for (id, installed) in &self.managers {
            let (documents, failure) = self.cache.documents(id);
            let runner = installed.runner.as_ref();
            let circuit = runner.map_or(CircuitState::Open, |runner| runner.circuit_state());
            let reason = match runner {
                Ok(_) => failure,
                Err(problem) => Some(format!("{}: {}", problem.field, problem.message).into()),
            };
            let login = runner.ok().and_then(|runner| runner.manager.login());
            let report = ManagerReport {
                id: Arc::clone(id),
                reason,
                healthy: circuit == CircuitState::Closed,
                circuit,
                last_error: runner.ok().and_then(|runner| runner.last_error()),
                login: login.map(|login| LoginReport {
                    method: login.method,
                    left: login.ends.map(|at| at.saturating_duration_since(now)),
                }),
                documents,
                fresh: 0,
                stale: 0,
                refused: 0,
                oldest: None,
            };
            reports.insert(id, report);
        }
        for reference in self.report(now) {
            let Some(report) = reports.get_mut(&reference.manager) else {
                continue;
            };
            match reference.state {
                ReferenceState::Fresh => report.fresh += 1,
                ReferenceState::Stale => report.stale += 1,
                ReferenceState::Refused => report.refused += 1,
            }
            report.oldest = report.oldest.max(reference.age);
        }
        let mut reports: Vec<_> = reports.into_values().collect();
        reports.sort_by(|a, b| a.id.cmp(&b.id));
        reports
    }
}

fn settled_report(text: &Arc<str>, settled: &Settled) -> ReferenceReport {
    let outcome = &settled.outcome;
    let (manager, path) = match Reference::parse_shared(text)
        .as_ref()
        .map(Reference::target)
    {
        Ok(Target::Env { name, .. }) => ("env".into(), (&**name).into()),
        _ => (settled.manager.clone().unwrap_or_default(), Arc::default()),
    };
    ReferenceReport {
        reference: Arc::clone(text),
        manager,
        path,
        state: match outcome {
            Ok(_) => ReferenceState::Fresh,
            Err(_) => ReferenceState::Refused,
        },
        age: None,
        version: outcome.as_ref().ok().map(|resolved| resolved.version),
        manager_version: None,
        reason: outcome
            .as_ref()
            .err()
            .map(|unresolved| Arc::clone(&unresolved.reason)),
    }
}
