//! Makes the reads: single flight per document (the cache hands out a document once), bounded
//! concurrency and a circuit per manager, a time limit on each read.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Secrets;
use super::cache::{Answer, Job};
use super::manager::{FetchError, Manager, Read};
use super::refresh::{Schedule, back_off};
use super::report::CircuitState;
use super::settings::Event;

/// A manager that was accepted, and what its reads share.
pub(super) struct Runner {
    pub(super) id: Arc<str>,
    pub(super) manager: Box<dyn Manager>,
    pub(super) schedule: Schedule,
    pub(super) permits: Semaphore,
    circuit: Mutex<Circuit>,
    last_error: Mutex<Option<&'static str>>,
    /// The manager's watch saw a change.
    pub(super) touched: AtomicBool,
}

impl Runner {
    pub(super) fn new(
        id: Arc<str>,
        manager: Box<dyn Manager>,
        schedule: Schedule,
        concurrency: usize,
    ) -> Self {
        Self {
            id,
            manager,
            schedule,
            permits: Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            circuit: Mutex::default(),
            last_error: Mutex::default(),
            touched: AtomicBool::new(false),
        }
    }

    pub(super) fn circuit_state(&self) -> CircuitState {
        self.circuit().state()
    }

    /// Kind of the newest error of a read.
    pub(super) fn last_error(&self) -> Option<&'static str> {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, error: &FetchError) {
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.kind());
    }

    /// Why it does not answer, when it does not.
    pub(super) fn silence(&self) -> Option<Arc<str>> {
        let circuit = self.circuit();
        circuit.open_until?;
        circuit.reason.clone()
    }

    /// Starts the manager's work beside the reads, on the runtime of the caller. It ends when the
    /// guard is dropped.
    pub(super) fn tend(self: &Arc<Self>) -> Tending {
        let runner = Arc::clone(self);
        Tending(tokio::spawn(async move { runner.manager.tend().await }))
    }

    /// Starts the manager's own watch, if it has one. It ends when the guard is dropped.
    pub(super) fn watch(self: &Arc<Self>, secrets: &Arc<Secrets>) -> Option<Box<dyn Any + Send>> {
        let (runner, secrets) = (Arc::downgrade(self), Arc::downgrade(secrets));
        self.manager.watch(Box::new(move || {
            if let (Some(runner), Some(secrets)) = (runner.upgrade(), secrets.upgrade()) {
                runner.touched.store(true, Ordering::Release);
                secrets.wake();
            }
        }))
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A manager's work beside its reads; aborted when dropped.
pub(super) struct Tending(tokio::task::JoinHandle<()>);

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes one read and gives its answer to the cache. When the task is dropped half-way, the cache
/// is told so, and the document is read again.
pub(super) async fn fetch(secrets: Arc<Secrets>, runner: Arc<Runner>, job: Job) {
    let mut flight = Flight {
        secrets,
        runner,
        job,
        landed: false,
        probing: false,
    };
    let secrets = Arc::clone(&flight.secrets);
    let runner = Arc::clone(&flight.runner);
    let Ok(_permit) = runner.permits.acquire().await else {
        return;
    };
    let started = secrets.clock().now();
    let admitted = runner.circuit().admit(started);
    match admitted {
        Ok(probing) => flight.probing = probing,
        Err((until, reason)) => {
            return flight.land(started, Answer::Postponed(until, reason));
        }
    }

    let read = Read {
        path: &flight.job.key.path,
        version: flight.job.key.version.as_deref(),
        fields: &flight.job.fields,
    };
    let limit = runner.manager.time_limit();
    let result = match tokio::time::timeout(limit, runner.manager.fetch(read)).await {
        Ok(result) => result,
        Err(_) => Err(FetchError::TimedOut),
    };

    let now = secrets.clock().now();
    let took = now.saturating_duration_since(started);
    let outcome = result.as_ref().map(drop);
    secrets.observer().fetch(&runner.id, outcome, took);
    let answer = match result {
        Ok(document) => Answer::Found(document),
        Err(error) => {
            runner.note_error(&error);
            let reason: Arc<str> = error.to_string().into();
            log::debug!(
                "secret manager {}: {}: {reason}",
                runner.id,
                flight.job.key.path
            );
            if error.blames_manager() {
                flight.probing = false;
                if runner.circuit().fail(now, &reason, rand::random()) {
                    log::warn!(
                        "secret manager {} does not answer, values already read serve on: {reason}",
                        runner.id
                    );
                    let why = Arc::clone(&reason);
                    secrets.note(&runner.id, Event::WentSilent { why });
                }
                return flight.land(started, Answer::Failed(reason));
            }
            if error.is_authoritative() {
                Answer::Denied(error)
            } else {
                Answer::Failed(reason)
            }
        }
    };
    flight.probing = false;
    let closed = runner.circuit().succeed();
    flight.land(started, answer);
    if closed {
        log::info!("secret manager {} answers again", runner.id);
        secrets.manager_answers_again(&runner.id);
    }
}

struct Flight {
    secrets: Arc<Secrets>,
    runner: Arc<Runner>,
    job: Job,
    landed: bool,
    probing: bool,
}

impl Flight {
    fn land(mut self, started: Instant, answer: Answer) {
        self.landed = true;
        self.secrets
            .take_answer(started, &self.runner, &self.job, answer);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        if self.probing {
            self.runner.circuit().probing = false;
        }
        let now = self.secrets.clock().now();
        let answer = Answer::Failed("fetch was interrupted".into());
        self.secrets
            .take_answer(now, &self.runner, &self.job, answer);
    }
}

/// Keeps a manager that does not answer from being asked for every document. It opens after
/// [`TRIES`] failures in a row; then one read at a time probes.
#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    open_until: Option<Instant>,
    probing: bool,
    reason: Option<Arc<str>>,
}

impl Circuit {
    /// Whether a read may be made, and whether it is the probe.
    fn admit(&mut self, now: Instant) -> Result<bool, (Instant, Arc<str>)> {
        let Some(until) = self.open_until else {
            return Ok(false);
        };
        if now >= until && !self.probing {
            self.probing = true;
            return Ok(true);
        }
        let reason = self.reason.clone();
        Err((
            until.max(now + FIRST_PAUSE / 2),
            reason.unwrap_or_else(|| "manager unreachable".into()),
        ))
    }

    fn state(&self) -> CircuitState {
        match self.open_until {
            None => CircuitState::Closed,
            Some(_) if self.probing => CircuitState::Probing,
            Some(_) => CircuitState::Open,
        }
    }

    /// Says whether the circuit opened just now.
    fn fail(&mut self, now: Instant, reason: &Arc<str>, jitter: f64) -> bool {
        // Reads that were under way when it opened say nothing new.
        if self.open_until.is_some_and(|until| now < until) {
            return false;
        }
        let was_closed = self.open_until.is_none();
        self.probing = false;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= TRIES {
            let pause = back_off(
                FIRST_PAUSE,
                self.failures - TRIES + 1,
                LONGEST_PAUSE,
                jitter,
            );
            self.open_until = Some(now + pause);
            self.reason = Some(Arc::clone(reason));
        }
        was_closed && self.open_until.is_some()
    }

    /// The manager answered. Says whether the circuit was open.
    fn succeed(&mut self) -> bool {
        let was_open = self.open_until.is_some();
        *self = Self::default();
        was_open
    }
}

const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::secrets::manager::{Document, Location, Step};
    use crate::secrets::reference::{Key, ReferenceError};

    /// Tends until it is dropped, and says when that happens.
    struct Tended(
        Mutex<Option<tokio::sync::oneshot::Sender<()>>>,
        Arc<Semaphore>,
    );

    #[async_trait::async_trait]
    impl Manager for Tended {
        fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
            Ok(Location::split_last(key))
        }

        async fn fetch(&self, _: Read<'_>) -> Result<Document, FetchError> {
            Err(FetchError::NotFound)
        }

        async fn tend(&self) {
            let _alive = self.0.lock().expect("not poisoned").take();
            self.1.add_permits(1);
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_manager_is_tended_while_it_is_in_force_and_no_longer() {
        let (alive, ended) = tokio::sync::oneshot::channel();
        let begun = Arc::new(Semaphore::new(0));
        let manager = Tended(Mutex::new(Some(alive)), Arc::clone(&begun));
        let schedule = Schedule {
            ttl: Duration::ZERO,
            neg_ttl: Duration::ZERO,
            max_stale: Duration::ZERO,
        };
        let runner = Arc::new(Runner::new("x/y".into(), Box::new(manager), schedule, 1));
        let tending = runner.tend();
        begun.acquire().await.expect("not closed").forget();
        drop(tending);
        ended.await.expect_err("what tends must be dropped");
        assert_eq!(Arc::strong_count(&runner), 1, "and hold nothing");
    }

    /// What ends a value, and what opens the circuit; no error does both.
    #[test]
    fn only_the_managers_own_word_about_a_document_is_an_answer() {
        let (answers, outages, others) = (
            [
                FetchError::NotFound,
                FetchError::Deleted,
                FetchError::Forbidden,
                FetchError::Unsupported("x"),
            ],
            [
                FetchError::Unreachable(Step::Dns, "x".into()),
                FetchError::Unreachable(Step::Tcp, "x".into()),
                FetchError::Unreachable(Step::Tls, "x".into()),
                FetchError::TimedOut,
                FetchError::Sealed,
                FetchError::Throttled,
                FetchError::ServerError(500),
                FetchError::TokenRefused,
                FetchError::Redirected(302),
            ],
            [
                FetchError::UnexpectedStatus(404),
                FetchError::Garbage("x"),
                FetchError::Unreadable("x".into()),
                FetchError::TooLarge(1),
                FetchError::Insecure("x"),
            ],
        );
        for (errors, authoritative, blames) in [
            (&answers[..], true, false),
            (&outages[..], false, true),
            (&others[..], false, false),
        ] {
            for error in errors {
                assert_eq!(error.is_authoritative(), authoritative, "{error}");
                assert_eq!(error.blames_manager(), blames, "{error}");
            }
        }
    }

    #[test]
    fn a_circuit_says_what_it_is() {
        let clock = ManualClock::new();
        let mut circuit = Circuit::default();
        assert_eq!(circuit.state(), CircuitState::Closed);
        for _ in 0..TRIES {
            circuit.fail(clock.now(), &"down".into(), 1.0);
        }
        assert_eq!(circuit.state(), CircuitState::Open);
        clock.advance(FIRST_PAUSE);
        assert!(circuit.admit(clock.now()).is_ok());
        assert_eq!(circuit.state(), CircuitState::Probing);
        circuit.succeed();
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    fn open(clock: &ManualClock) -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..TRIES {
            assert_eq!(circuit.admit(clock.now()).ok(), Some(false));
            circuit.fail(clock.now(), &"down".into(), 1.0);
        }
        circuit
    }

    #[test]
    fn a_circuit_opens_after_some_failures_and_lets_one_probe_through() {
        let clock = ManualClock::new();
        let mut circuit = open(&clock);
        let (until, reason) = circuit
            .admit(clock.now())
            .expect_err("circuit must be open");
        assert_eq!((until, &*reason), (clock.now() + FIRST_PAUSE, "down"));

        clock.advance(FIRST_PAUSE);
        assert_eq!(circuit.admit(clock.now()).ok(), Some(true));
        assert!(circuit.admit(clock.now()).is_err(), "one probe at a time");
        assert!(circuit.succeed(), "the circuit was open");
        assert_eq!(circuit.admit(clock.now()).ok(), Some(false));
    }

    #[test]
    fn a_failed_probe_waits_longer_up_to_a_bound() {
        let clock = ManualClock::new();
        let mut circuit = open(&clock);
        for seconds in [2, 4, 8, 8, 8] {
            clock.advance(LONGEST_PAUSE);
            assert_eq!(circuit.admit(clock.now()).ok(), Some(true));
            circuit.fail(clock.now(), &"down".into(), 1.0);
            let until = circuit.open_until.expect("circuit must stay open");
            assert_eq!(until - clock.now(), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn one_answer_forgets_the_failures_before_it() {
        let clock = ManualClock::new();
        let mut circuit = Circuit::default();
        for _ in 0..10 {
            for _ in 1..TRIES {
                circuit.fail(clock.now(), &"down".into(), 0.0);
            }
            assert!(!circuit.succeed());
        }
        assert!(circuit.admit(clock.now()).is_ok());
    }
}
