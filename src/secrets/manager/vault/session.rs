//! The token in force: who gets it, how it is replaced. Logins are single flight and run on a task
//! of their own, so that a read that gives up waiting ends none half-way; each is bounded by the
//! manager's time limit. A token serves on until another one was accepted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::api::Api;
use super::auth::Method;
use super::login::{Standing, look_up};
use super::token::Token;
use super::watch::Signature;
use crate::secrets::manager::{FetchError, Login, Step};
use crate::secrets::settings::{Event, Observer};

pub(super) struct Session {
    pub(super) id: Arc<str>,
    pub(super) api: Api,
    pub(super) method: Method,
    pub(super) observer: Arc<dyn Observer>,
    /// How the file a login depends on looked before anything was read from it.
    pub(super) file_seen: Option<Signature>,
    state: Mutex<State>,
    /// The token, or why there is none, changed.
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) token: Option<Arc<Token>>,
    /// Why the last login or renewal did not succeed; none is tried again before its time.
    pub(super) refusal: Option<Refusal>,
    /// A login is under way.
    pub(super) flying: bool,
    /// Start of the lease whose end was warned of.
    pub(super) warned: Option<Instant>,
}

pub(super) struct Refusal {
    error: FetchError,
    failures: u32,
    pub(super) retry_at: Instant,
}

impl State {
    /// Whether it is this token that is in force, whatever its lease is by now.
    pub(super) fn holds(&self, token: &Token) -> bool {
        self.token.as_ref().is_some_and(|one| one.is(token))
    }
}

impl Session {
    pub(super) fn new(
        id: Arc<str>,
        api: Api,
        method: Method,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        // A token that was given needs no login to be read with.
        let token = match &method {
            Method::Token(header) => Some(Arc::new(Token::new(header.clone(), None))),
            _ => None,
        };
        Arc::new(Self {
            file_seen: method.file().and_then(Signature::of),
            id,
            api,
            method,
            observer,
            state: Mutex::new(State {
                token,
                ..State::default()
            }),
            changed: Notify::new(),
        })
    }

    pub(super) fn login(&self) -> Option<Login> {
        let token = self.state().token.clone()?;
        Some(Login {
            method: self.method.name(),
            ends: token.lease.and_then(|lease| lease.ends()),
        })
    }

    /// The token in force; waits for a login where there is none, at most until `deadline`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn token(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<Arc<Token>, FetchError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(outcome) = self.token_now() {
                return outcome;
            }
            let left = deadline.saturating_duration_since(self.now());
            if tokio::time::timeout(left, changed).await.is_err() {
                return Err(FetchError::TimedOut);
            }
        }
    }

    /// The token, or why there is none; `None` while a login is under way.
    fn token_now(self: &Arc<Self>) -> Option<Result<Arc<Token>, FetchError>> {
        let now = self.now();
        let mut state = self.state();
        if let Some(token) = &state.token {
            return Some(Ok(Arc::clone(token)));
        }
        match &state.refusal {
            Some(refusal) if now < refusal.retry_at => Some(Err(refusal.error.clone())),
            _ => {
                self.fly(&mut state);
                None
            }
        }
    }

    /// Whether the server still knows a token that was answered 403. Asked at most once in
    /// [`LOOKUP_VALID`], while many documents want to know.
    ///
    /// # Errors
    /// The server could not be asked.
    pub(super) async fn lives(&self, token: &Token, deadline: Instant) -> Result<bool, FetchError> {
        let mut looked_up = token.looked_up.lock().await;
        let now = self.now();
        if let Some((at, lives)) = *looked_up
            && now < at + LOOKUP_VALID
        {
            return Ok(lives);
        }
        let standing = look_up(&self.api, &token.header, deadline).await?;
        let lives = !matches!(standing, Standing::Dead);
        *looked_up = Some((now, lives));
        Ok(lives)
    }

    /// Takes a dead token out of force, unless it was replaced meanwhile.
    pub(super) fn discard(&self, token: &Token) {
        let mut state = self.state();
        if state.holds(token) {
            state.token = None;
            // The server answers, and says something new: it is asked for another token at once.
            state.refusal = None;
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Starts a login unless one is under way.
    pub(super) fn fly(self: &Arc<Self>, state: &mut State) {
        if state.flying {
            return;
        }
        state.flying = true;
        let flight = Flight(Arc::clone(self));
        tokio::spawn(async move {
            let session = &flight.0;
            let deadline = session.api.deadline();
            let login = session.method.log_in(&session.api, deadline);
            let outcome = match tokio::time::timeout(session.api.timeout, login).await {
                Ok(outcome) => outcome,
                Err(_) => Err(FetchError::TimedOut),
            };
            match outcome {
                Ok(token) => session.logged_in(token),
                Err(error) => session.failed(error, None),
            }
        });
    }

    fn logged_in(&self, token: Token) {
        let mut state = self.state();
        state.token = Some(Arc::new(token));
        state.refusal = None;
        state.warned = None;
        drop(state);
        let method = self.method.name();
        log::info!("secret manager {}: logged in by {method}", self.id);
        self.observer.event(&self.id, Event::LoggedIn { method });
    }

    /// Tells why, unless it was the last thing told. `at_most` bounds the pause, where a token's end
    /// is near.
    pub(super) fn failed(&self, error: FetchError, at_most: Option<Duration>) {
        let method = self.method.name();
        let why = error.to_string();
        let mut state = self.state();
        // Not again for each try while nothing else happens.
        let last = state.refusal.as_ref().map(|last| &last.error);
        let is_news = last != Some(&error);
        // A server that refuses after an outage refuses for the first time.
        let failures = match &state.refusal {
            Some(last) if is_refusal(&last.error) == is_refusal(&error) => last.failures + 1,
            _ => 1,
        };
        let pause = self.method.pause(&error, failures, rand::random());
        let pause = pause.min(at_most.unwrap_or(pause)).max(SHORTEST_PAUSE);
        state.refusal = Some(Refusal {
            error,
            failures,
            retry_at: self.now() + pause,
        });
        drop(state);
        if is_news {
            log::warn!("secret manager {}: login by {method}: {why}", self.id);
            self.observer
                .event(&self.id, Event::LoginFailed { method, why });
        }
        self.changed.notify_waiters();
    }

    pub(super) fn now(&self) -> Instant {
        self.api.clock.now()
    }

    /// Never held across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A login under way. It lands when dropped, also when its task is.
struct Flight(Arc<Session>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.state().flying = false;
        self.0.changed.notify_waiters();
    }
}

fn is_refusal(error: &FetchError) -> bool {
    error.step() == Step::Login
}

/// How long a looked-up token is taken to live or be dead on, while many documents ask.
const LOOKUP_VALID: Duration = Duration::from_secs(2);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
