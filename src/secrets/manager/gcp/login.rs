//! The login in force: one at a time is asked for, kept until a minute before its end, and replaced
//! ahead of that while it still serves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Client;

use super::account::Look;
use super::exchange::{Session, Source};
use crate::clock::Clock;
use crate::secrets::manager::{BuildCtx, FetchError, Login};
use crate::secrets::refresh::back_off;
use crate::secrets::settings::{Event, Observer};

/// What a manager's reads share.
pub(super) struct Logins {
    source: Source,
    http: Client,
    id: Arc<str>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
    /// Held while one logs in, so that others wait for what comes of it.
    door: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    number: u64,
    /// Logins that ended, well or not.
    attempts: u64,
    failure: Option<FetchError>,
    failures: u32,
    /// Not to be renewed again before.
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There is none that serves, or it was refused.
    Needed,
    /// The one there is ends soon.
    EndsSoon,
}

impl Logins {
    pub(super) fn new(source: Source, http: Client, ctx: &BuildCtx<'_>) -> Self {
        Self {
            source,
            http,
            id: Arc::clone(ctx.id),
            clock: Arc::clone(ctx.clock),
            observer: Arc::clone(ctx.observer),
            state: Mutex::default(),
            door: tokio::sync::Mutex::default(),
        }
    }

    /// The login in force, or a new one; never the one of that number, which was refused.
    ///
    /// # Cancel safety
    /// May be dropped: a login under way is lost, and the next who waits makes another.
    pub(super) async fn session(&self, refused: Option<u64>) -> Result<Arc<Session>, FetchError> {
        let seen = self.lock().attempts;
        if let Some(session) = self.usable(refused) {
            return Ok(session);
        }
        let _door = self.door.lock().await;
        if let Some(session) = self.usable(refused) {
            return Ok(session);
        }
        // Whoever went before us failed while we waited: that is our answer too.
        let failed = {
            let state = self.lock();
            (state.attempts != seen).then(|| state.failure.clone())
        };
        if let Some(error) = failed.flatten() {
            return Err(error);
        }
        self.log_in(Why::Needed).await
    }

    pub(super) fn login(&self) -> Option<Login> {
        let method = self.source.method();
        let ends = self.lock().session.as_ref().map(|session| session.ends);
        ends.map(|ends| Login {
            method,
            ends: Some(ends),
        })
    }

    /// Renews ahead of the end, and follows a file that changes.
    pub(super) async fn tend(&self) {
        loop {
            let now = self.clock.now();
            let due = self.due().map(|due| due.saturating_duration_since(now));
            tokio::time::sleep(due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)).await;
            if self.file_changed().await {
                let _door = self.door.lock().await;
                // The old login serves on if there is no new one to be had.
                let _ = self.log_in(Why::Needed).await;
            } else if self.is_due() {
                let _door = self.door.lock().await;
                if self.is_due() {
                    let _ = self.log_in(Why::EndsSoon).await;
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let state = self.lock();
        let due = state.session.as_ref()?.renew_at;
        Some(state.retry_at.map_or(due, |retry| retry.max(due)))
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= self.clock.now())
    }

    /// Whether the key file has a new account in it, and somebody is logged in.
    async fn file_changed(&self) -> bool {
        let Source::File(file) = &self.source else {
            return false;
        };
        let look = {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || file.look()).await
        };
        match look {
            Ok(Look::Changed) => self.lock().session.is_some(),
            Ok(Look::Bad(error)) => {
                let why = format!("auth_file: {error}");
                self.tell(&FetchError::LoginFailed(why.into()));
                false
            }
            Ok(Look::Same) | Err(_) => false,
        }
    }

    fn usable(&self, refused: Option<u64>) -> Option<Arc<Session>> {
        let state = self.lock();
        let session = state.session.as_ref()?;
        let serves = self.clock.now() < session.kept_until && refused != Some(session.number);
        serves.then(|| Arc::clone(session))
    }

    /// One login. The door is held.
    async fn log_in(&self, why: Why) -> Result<Arc<Session>, FetchError> {
        self.file_changed().await;
        let session = match self.source.log_in(&self.http, &*self.clock).await {
            Ok(session) => session,
            Err(error) => {
                let error = of_login(error);
                self.failed(&error);
                return Err(error);
            }
        };
        Ok(self.succeeded(session, why))
    }

    fn succeeded(&self, mut session: Session, why: Why) -> Arc<Session> {
        let session = {
            let mut state = self.lock();
            let number = state.number + 1;
            session.number = number;
            let session = Arc::new(session);
            *state = State {
                session: Some(Arc::clone(&session)),
                number,
                attempts: state.attempts + 1,
                ..State::default()
            };
            session
        };
        let method = self.source.method();
        let event = match why {
            Why::Needed => Event::LoggedIn { method },
            Why::EndsSoon => Event::Renewed { method },
        };
        self.observer.event(&self.id, event);
        session
    }

    fn failed(&self, error: &FetchError) {
        let news = {
            let mut state = self.lock();
            state.attempts += 1;
            state.failures = state.failures.saturating_add(1);
            let pause = back_off(FIRST_RETRY, state.failures, LONGEST_RETRY, rand::random());
            state.retry_at = Some(self.clock.now() + pause);
            state.failure.replace(error.clone()).as_ref() != Some(error)
        };
        // Not again for each try while nothing else happens.
        if news {
            self.tell(error);
        }
    }

    fn tell(&self, error: &FetchError) {
        let event = Event::LoginFailed {
            method: self.source.method(),
            why: error.to_string(),
        };
        self.observer.event(&self.id, event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No document can be read without a login, whatever kept us from it.
fn of_login(error: FetchError) -> FetchError {
    if error.blames_manager() {
        return error;
    }
    FetchError::LoginFailed(error.to_string().into())
}

/// A changed key file is noticed within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
