//! The token in force: who gets it, when it is renewed, how it is replaced. Logins are single
//! flight and run on a task of their own, so that a read that gives up waiting ends none half-way;
//! each is bounded by the manager's time limit. A token serves on until another one was accepted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tokio::sync::Notify;
use vaultrs::api::token::requests::RenewTokenSelfRequest;

use super::answer;
use super::api::{Api, Call};
use super::auth::Method;
use super::login::{Standing, look_up};
use super::token::{Grant, Lease, Need, Token};
use super::watch::{Signature, Watch};
use crate::secrets::manager::http::Answer;
use crate::secrets::manager::{FetchError, Login};
use crate::secrets::refresh;
use crate::secrets::settings::{Event, Observer};

pub(super) struct Session {
    pub(super) id: Arc<str>,
    pub(super) api: Api,
    pub(super) method: Method,
    pub(super) observer: Arc<dyn Observer>,
    /// How the file a login depends on looked before anything was read from it.
    file_seen: Option<Signature>,
    state: Mutex<State>,
    /// The token, or why there is none, changed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// Why the last login or renewal did not succeed; none is tried again before its time.
    refusal: Option<Refusal>,
    flying: bool,
    /// Start of the lease whose end was warned of.
    warned: Option<Instant>,
}

struct Refusal {
    error: FetchError,
    failures: u32,
    retry_at: Instant,
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
    pub(super) fn discard(&self, token: &Arc<Token>) {
        let mut state = self.state();
        if state
            .token
            .as_ref()
            .is_some_and(|one| Arc::ptr_eq(one, token))
        {
            state.token = None;
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Renews the token, replaces it before it ends, and follows the file it comes from.
    pub(super) async fn tend(self: &Arc<Self>) {
        let file = self.method.file();
        let mut watch = file.map(|file| Watch::start(file, self.file_seen));
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let need = self.need();
            let pause = match need {
                Need::Nothing => Duration::MAX,
                Need::Renewal(at) | Need::Replacement(at) | Need::Warning(at) => {
                    at.saturating_duration_since(self.now())
                }
            };
            tokio::select! {
                () = &mut changed => continue,
                () = file_changed(&mut watch) => {
                    self.file_changed();
                    continue;
                }
                () = tokio::time::sleep(pause) => {}
            }
            match need {
                Need::Nothing => {}
                Need::Renewal(_) => self.renew().await,
                Need::Replacement(_) => self.replace(),
                Need::Warning(_) => self.warn(),
            }
        }
    }

    /// What is to be done next, and when.
    fn need(&self) -> Need {
        let now = self.now();
        let state = self.state();
        if state.flying {
            return Need::Nothing;
        }
        let retry_at = state
            .refusal
            .as_ref()
            .map_or(now, |refusal| refusal.retry_at);
        let lease = state.token.as_ref().map(|token| token.lease);
        match lease {
            // No token; or one that was given, of which nothing is known yet.
            None | Some(None) => Need::Replacement(retry_at),
            Some(Some(lease)) => {
                let replaceable = self.method.makes_tokens();
                match lease.need(replaceable, rand::random()) {
                    Need::Renewal(at) => Need::Renewal(at.max(retry_at)),
                    Need::Replacement(at) => Need::Replacement(at.max(retry_at)),
                    Need::Warning(_) if state.warned == Some(lease.since) => match lease.ends() {
                        // Whether it really ended is asked once more, for the log.
                        Some(end) => Need::Replacement(retry_at.max(end + AFTER_END)),
                        None => Need::Nothing,
                    },
                    other => other,
                }
            }
        }
    }

    async fn renew(self: &Arc<Self>) {
        let Some(token) = self.state().token.clone() else {
            return;
        };
        let Some(lease) = token.lease else { return };
        let since = self.now();
        let renewed = match self.ask_for_more(&token).await {
            Ok((StatusCode::OK, body)) => {
                Grant::parse(&body).map(|grant| lease.renewed(since, &grant))
            }
            Ok((status, body)) if status.is_client_error() && answer::speaks_vault(&body) => {
                self.not_renewed(&token, lease).await;
                return;
            }
            Ok((status, _)) => Err(answer::of_status(status)),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(lease) => {
                self.put(&token, Token::new(token.header.clone(), Some(lease)));
                let method = self.method.name();
                self.observer.event(&self.id, Event::Renewed { method });
            }
            Err(error) => {
                let soon = lease.ttl.unwrap_or(LONGEST_OUTAGE_PAUSE) / 8;
                self.failed(error, Some(soon));
            }
        }
    }

    async fn ask_for_more(&self, token: &Token) -> Result<Answer, FetchError> {
        let call = Call::of(&RenewTokenSelfRequest { increment: None })?;
        let deadline = self.api.deadline();
        self.api.call(Some(&token.header), &call, deadline).await
    }

    /// It may not be renewed, or it is dead.
    async fn not_renewed(&self, token: &Arc<Token>, mut lease: Lease) {
        if self.lives(token, self.api.deadline()).await == Ok(false) {
            return self.discard(token);
        }
        lease.renewable = false;
        self.put(token, Token::new(token.header.clone(), Some(lease)));
    }

    /// Puts another lease of the same token in force.
    fn put(&self, old: &Arc<Token>, new: Token) {
        let mut state = self.state();
        if state
            .token
            .as_ref()
            .is_some_and(|one| Arc::ptr_eq(one, old))
        {
            state.token = Some(Arc::new(new));
            state.refusal = None;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn warn(&self) {
        let now = self.now();
        let mut state = self.state();
        let lease = state.token.as_ref().and_then(|token| token.lease);
        state.warned = lease.map(|lease| lease.since);
        drop(state);
        let Some(end) = lease.and_then(|lease| lease.ends()) else {
            return;
        };
        let left = end.saturating_duration_since(now).as_secs();
        let why = format!("token ends in {left} s and cannot be renewed");
        log::warn!("secret manager {}: {why}", self.id);
        let method = self.method.name();
        let event = Event::LoginFailed { method, why };
        self.observer.event(&self.id, event);
    }

    fn file_changed(self: &Arc<Self>) {
        let mut state = self.state();
        state.refusal = None;
        // Only a token is in itself a reason to log in; what logs in is read when that is due.
        if matches!(self.method, Method::TokenFile(_)) || state.token.is_none() {
            self.fly(&mut state);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn replace(self: &Arc<Self>) {
        self.fly(&mut self.state());
    }

    /// Starts a login unless one is under way.
    fn fly(self: &Arc<Self>, state: &mut State) {
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

    /// `at_most` bounds the pause, where a token's end is near.
    fn failed(&self, error: FetchError, at_most: Option<Duration>) {
        let method = self.method.name();
        let why = error.to_string();
        log::warn!("secret manager {}: login by {method}: {why}", self.id);
        let mut state = self.state();
        let failures = state.refusal.as_ref().map_or(0, |refusal| refusal.failures) + 1;
        let pause = back_off(&error, failures, rand::random());
        let pause = pause.min(at_most.unwrap_or(pause)).max(SHORTEST_PAUSE);
        state.refusal = Some(Refusal {
            error,
            failures,
            retry_at: self.now() + pause,
        });
        drop(state);
        self.observer
            .event(&self.id, Event::LoginFailed { method, why });
        self.changed.notify_waiters();
    }

    fn now(&self) -> Instant {
        self.api.clock.now()
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
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

async fn file_changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// A wrong credential must not hammer the server; a server that is away is to be noticed soon
/// when it comes back.
fn back_off(error: &FetchError, failures: u32, jitter: f64) -> Duration {
    let longest = match error {
        FetchError::TokenRefused | FetchError::LoginFailed(_) => LONGEST_REFUSAL_PAUSE,
        _ => LONGEST_OUTAGE_PAUSE,
    };
    refresh::back_off(FIRST_PAUSE, failures, longest, jitter)
}

/// How long a looked-up token is taken to live or be dead on, while many documents ask.
const LOOKUP_VALID: Duration = Duration::from_secs(2);
const AFTER_END: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_REFUSAL_PAUSE: Duration = Duration::from_secs(30);
