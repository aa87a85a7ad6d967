//! Resolves references to secrets, keeps the values in memory, refreshes them in the background.
//! Never hands out a value that did not come from its manager; in particular never the text of a
//! reference. Nothing here is awaited on a request's or a handshake's path: those read a [`View`].
//! (Handshakes for names on demand wait for a task that waits for a [`Demand`], and not for long.)

mod again;
mod cache;
mod demand;
mod fetch;
mod install;
pub mod manager;
mod managers;
mod probe;
pub mod reference;
mod refresh;
pub mod report;
pub mod settings;
mod state;
pub mod value;
pub mod view;
mod wiring;

use std::any::Any;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use cache::{Answer, Job};
use fetch::{Runner, Tending};
use state::State;

pub use again::Again;
pub use demand::{Answered, Demand, DemandId, Interest, Lack};
pub use probe::{Presumed, ProbeFault, ProbeReport};
pub use reference::Reference;
pub use report::{CircuitState, LoginReport, ManagerReport, ReferenceReport, ReferenceState};
pub use settings::{Event, ManagerProblem, ManagerSpec, Observer, SecretsSettings};
pub use value::Secret;
pub use view::{Outcome, Resolved, Unresolved, View};

/// The room's one entrance. Calls in order for a new configuration: [`Secrets::configure`], then
/// [`Secrets::ensure`]; [`Secrets::run`] keeps the values current in between.
pub struct Secrets {
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Documents were read for the first time.
    settled: Notify,
    /// Something is due earlier than the loop expects.
    wake: Notify,
    /// Demands have answers.
    answers: Notify,
}

/// The guard of a manager's watch, once there is one. Both end when it is dropped.
type Watching = tokio::task::JoinHandle<Option<Box<dyn Any + Send>>>;

/// What runs beside a manager's reads, so that it is started once. It ends when dropped.
pub(crate) struct Beside {
    runner: Arc<Runner>,
    _watch: Watching,
    _tending: Tending,
}

impl Secrets {
    /// An empty room. Takes its snapshot of the environment now.
    #[must_use]
    pub fn new(
        settings: SecretsSettings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let state = State::new(settings, Arc::clone(&clock), Arc::clone(&observer));
        Arc::new(Self {
            clock,
            observer,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            settled: Notify::new(),
            wake: Notify::new(),
            answers: Notify::new(),
        })
    }

    /// Declares the managers of the newest configuration; [`Secrets::ensure`] puts them in force.
    /// One whose fields did not change keeps its values. So does one that changed in how it is
    /// reached (`ManagerDef::access`): they serve on, as stale ones, until it answers. One that may
    /// mean other secrets now loses them; one that is refused makes its references unresolved.
    ///
    /// Fields may be references into other managers. The room reads those by itself, also when
    /// `ensure` is not told of them; until they have values the manager waits, and so do its
    /// references.
    ///
    /// Reads files that fields name (`tls.ca`), so it may block for a moment; nothing else of the
    /// room waits for it.
    #[must_use]
    pub fn configure(&self, specs: &[ManagerSpec]) -> Vec<ManagerProblem> {
        let (current, workbench) = self.state().workbench();
        // What is replaced meanwhile is seen to when this comes into force.
        let staged = managers::read(specs, &current, workbench.shop());
        let problems = managers::problems(specs, &staged);
        self.state().stage(staged);
        problems
    }

    /// Makes these the references in use, fetches what is missing, and waits for it at most
    /// `wait`. What is missing then is unresolved in the view, and is fetched on in the background
    /// by [`Secrets::run`]. Until this ends, [`Secrets::view`] shows what it showed before.
    ///
    /// # Cancel safety
    /// When dropped, the references are in use nevertheless and are shown.
    pub async fn ensure(self: &Arc<Self>, references: &BTreeSet<Arc<str>>, wait: Duration) -> View {
        let hold = Hold::new(self, references);
        // Managers that were replaced answered for their demands.
        self.answers.notify_one();
        self.deliver();
        self.pump();
        // The loop starts what runs beside new managers.
        self.wake.notify_one();
        // A manager that is down is given up on after one try: a load must not wait for it.
        let settled = async {
            loop {
                let notified = self.settled.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.state().unsettled() == 0 {
                    return;
                }
                notified.await;
                // One answer may lead to the next question, also where no loop runs.
                self.pump();
            }
        };
        let _ = tokio::time::timeout(wait, settled).await;
        self.wake.notify_one();
        let view = hold.release();
        self.deliver();
        view
    }

    /// What the references in use are worth now.
    #[must_use]
    pub fn view(&self) -> View {
        let now = self.clock.now();
        let mut state = self.state();
        state.expire(now);
        self.publish(&mut state);
        let view = state.published();
        drop(state);
        self.deliver();
        view
    }

    /// Bumped whenever a reference in use changes its value or state by itself. What
    /// [`Secrets::ensure`] returned is not announced again.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Keeps the values current until `shutdown` turns true. Call it once, on the runtime that
    /// outlives the others.
    pub async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        refresh::run(self, shutdown).await;
    }

    /// Reads everything in use again, as soon as [`Secrets::run`] gets to it.
    pub fn refresh_now(&self) {
        self.state().touch_all(self.clock.now());
        self.wake();
    }

    /// Every reference in use, sorted; never a value.
    #[must_use]
    pub fn report(&self) -> Vec<ReferenceReport> {
        self.state().report(self.clock.now())
    }

    /// The references in use that [`Secrets::manager_report`] does not count: those to the
    /// environment or to managers that are not declared, and malformed ones. In no order.
    #[must_use]
    pub fn unmanaged_report(&self) -> Vec<ReferenceReport> {
        self.state().unmanaged_report()
    }

    /// Every manager in force, sorted by id.
    #[must_use]
    pub fn manager_report(&self) -> Vec<ManagerReport> {
        self.state().manager_report(self.clock.now())
    }

    /// Managers that do not answer now, and why; sorted. Their values serve on until `max_stale`.
    #[must_use]
    pub fn silent_managers(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let runners = self.state().runners();
        let silent = runners
            .iter()
            .filter_map(|runner| Some((Arc::clone(&runner.id), runner.silence()?)));
        let mut silent: Vec<_> = silent.collect();
        silent.sort();
        silent
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.wake.notify_one();
    }

    fn woken(&self) -> impl Future<Output = ()> {
        self.wake.notified()
    }

    /// Starts the reads that are due.
    fn pump(self: &Arc<Self>) {
        let due = self.state().take_due(self.clock.now());
        for (runner, job) in due {
            tokio::spawn(fetch::fetch(Arc::clone(self), runner, job));
        }
    }

    fn take_answer(&self, started: Instant, runner: &Runner, job: &Job, answer: Answer) {
        let now = self.clock.now();
        let mut state = self.state();
        state.complete(now, started, runner, job, answer);
        self.publish(&mut state);
        drop(state);
        self.deliver();
        self.settled.notify_waiters();
        if job.on_demand {
            self.answers.notify_one();
        }
        self.wake();
    }

    fn manager_answers_again(&self, manager: &Arc<str>) {
        self.state().hasten(self.clock.now(), manager);
        self.note(manager, Event::AnswersAgain);
        self.wake();
    }

    fn note(&self, manager: &Arc<str>, event: Event) {
        self.state().note(manager, event);
        self.deliver();
    }

    /// Tells the observer what there is to tell, in order, and never under the lock.
    fn deliver(&self) {
        loop {
            let events = {
                let mut state = self.state();
                // Whoever is at it looks again before leaving.
                if state.delivering {
                    return;
                }
                let events = state.take_events();
                if events.is_empty() {
                    return;
                }
                state.delivering = true;
                events
            };
            let _turn = Delivering(self);
            for (manager, event) in events {
                self.observer.event(&manager, event);
            }
        }
    }

    fn publish(&self, state: &mut State) {
        if state.has_answered() {
            self.answers.notify_one();
        }
        if state.publish() {
            self.changed
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn until_next_due(&self) -> Duration {
        let now = self.clock.now();
        let mut state = self.state();
        state.expire(now);
        self.publish(&mut state);
        let next = state.next_event();
        drop(state);
        self.deliver();
        next.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }

    /// Starts the watches and the other work of managers that are new, ends those of managers that
    /// are gone.
    fn keep_beside(self: &Arc<Self>, beside: &mut Vec<Beside>) {
        let runners = self.state().runners();
        let runs = |one: &Beside| {
            let mut runners = runners.iter();
            runners.any(|runner| Arc::ptr_eq(runner, &one.runner))
        };
        beside.retain(runs);
        for runner in runners {
            let mut known = beside.iter();
            if known.any(|one| Arc::ptr_eq(&runner, &one.runner)) {
                continue;
            }
            let (watched, secrets) = (Arc::clone(&runner), Arc::clone(self));
            beside.push(Beside {
                // A folder may be large, or a mount that hangs: the loop must not wait for it.
                _watch: tokio::task::spawn_blocking(move || watched.watch(&secrets)),
                _tending: runner.tend(),
                runner,
            });
        }
    }

    /// Makes due what users of values ask for.
    fn grant_wishes(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        for manager in state.wishes(now) {
            state.touch(now, &manager);
        }
    }

    fn reread_touched(&self) {
        let mut state = self.state();
        // Writers need a moment between opening a file and closing it.
        let soon = self.clock.now() + WRITER_PAUSE;
        for runner in state.runners() {
            if runner.touched.swap(false, Ordering::AcqRel) {
                state.touch(soon, &runner.id);
            }
        }
    }
}

/// A turn at telling the observer; over when dropped, however it ends.
struct Delivering<'a>(&'a Secrets);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        self.0.state().delivering = false;
    }
}

/// Keeps the published view as it is while a configuration's references are being fetched.
struct Hold<'a> {
    secrets: &'a Secrets,
    released: bool,
}

impl<'a> Hold<'a> {
    fn new(secrets: &'a Secrets, references: &BTreeSet<Arc<str>>) -> Self {
        secrets.state().hold(secrets.clock.now(), references);
        Self {
            secrets,
            released: false,
        }
    }

    /// The view as it is now. Nobody else is told: the caller is the one who has to know.
    fn release(mut self) -> View {
        self.released = true;
        let mut state = self.secrets.state();
        state.expire(self.secrets.clock.now());
        state.release()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.released {
            self.secrets.state().release();
            self.secrets
                .changed
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

const WRITER_PAUSE: Duration = Duration::from_millis(150);
