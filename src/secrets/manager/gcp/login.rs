//! Logging in: an assertion signed with the account's key, or a question to the metadata server.
//! One login at a time, kept until a minute before its end, and replaced ahead of that while it
//! still serves. A token goes into the header that carries it and nowhere else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::account::{Account, ENTRIES_URI, KeyFile, Look, Overrides, is_project, secrets_uri};
use crate::clock::Clock;
use crate::secrets::manager::http::{self, base, wiped_body};
use crate::secrets::manager::{BuildCtx, BuildError, FetchError, Login, secret_text};
use crate::secrets::refresh::back_off;
use crate::secrets::settings::{Event, Observer};
use crate::secrets::value::Secret;

/// Who logs in.
pub(super) enum Source {
    /// As the configuration says.
    Account(Arc<Account>),
    /// As a file says, at the time.
    File(Arc<KeyFile>),
    /// As the machine.
    Metadata(Metadata),
}

/// The server that every machine of Google's reaches.
pub(super) struct Metadata {
    base: String,
    overrides: Overrides,
    /// The project, once it was asked for.
    project: Mutex<Option<String>>,
}

impl Metadata {
    pub(super) fn new(uri: Option<&str>, overrides: Overrides) -> Result<Self, BuildError> {
        let base = match (uri, std::env::var("GCE_METADATA_HOST")) {
            (Some(uri), _) => base("metadata_uri", uri)?,
            (None, Ok(host)) => base("GCE_METADATA_HOST", &format!("http://{host}"))?,
            (None, Err(_)) => METADATA_URI.to_owned(),
        };
        let project = Mutex::new(overrides.project_id.clone());
        Ok(Self {
            base,
            overrides,
            project,
        })
    }
}

/// A login in force.
pub(super) struct Session {
    /// Counts logins.
    pub(super) number: u64,
    /// `Bearer` and the token.
    pub(super) authorization: HeaderValue,
    /// Where the secrets stand that it is for.
    pub(super) secrets_uri: String,
    kept_until: Instant,
    ends: Instant,
    renew_at: Instant,
}

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

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    scope: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, deserialize_with = "secret_text")]
    access_token: Option<Secret>,
    token_type: Option<String>,
    expires_in: Option<f64>,
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
        let method = self.method();
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
                self.failed(&FetchError::LoginFailed(
                    format!("auth_file: {error}").into(),
                ));
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
        let asked = self.clock.now();
        let result = match &self.source {
            Source::Account(account) => self.by_assertion(account).await,
            Source::File(file) => self.by_assertion(&file.account()).await,
            Source::Metadata(metadata) => self.by_metadata(metadata).await,
        };
        let (answer, secrets_uri) = match result {
            Ok(found) => found,
            Err(error) => {
                self.failed(&error);
                return Err(error);
            }
        };
        let session = match answer.session(asked, secrets_uri) {
            Ok(session) => session,
            Err(error) => {
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
        let method = self.method();
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
        if news {
            let event = Event::LoginFailed {
                method: self.method(),
                why: error.to_string(),
            };
            self.observer.event(&self.id, event);
        }
    }

    fn method(&self) -> &'static str {
        match self.source {
            Source::Account(_) | Source::File(_) => "service_account",
            Source::Metadata(_) => "metadata",
        }
    }

    async fn by_assertion(&self, account: &Account) -> Result<(TokenAnswer, String), FetchError> {
        let now = self.clock.wall().duration_since(UNIX_EPOCH);
        let iat = now.map_or(0, |since| since.as_secs());
        let claims = Claims {
            iss: &account.client_email,
            aud: &account.token_uri,
            scope: &account.scope,
            iat,
            exp: iat + ASSERTION_SECS,
        };
        let assertion = account.key.encode(&claims).map(Zeroizing::new);
        let assertion = assertion
            .map_err(|_| FetchError::LoginFailed("assertion could not be signed".into()))?;
        // The assertion's alphabet needs no encoding.
        let mut form = Zeroizing::new(Vec::with_capacity(GRANT.len() + assertion.len()));
        form.extend_from_slice(GRANT);
        form.extend_from_slice(assertion.as_bytes());
        let request = self
            .http
            .post(account.token_uri.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(wiped_body(form));
        let answer = http::send(request).await;
        let (status, body) = answer.map_err(|error| of_endpoint("token endpoint", error))?;
        match status.as_u16() {
            200 => Ok((parse(&body)?, account.secrets_uri.clone())),
            // RFC 6749 §5.2: 400 is how a grant is refused.
            400 | 401 | 403 => Err(FetchError::LoginFailed(
                "token endpoint does not accept the service account's key".into(),
            )),
            _ => Err(of_status(status)),
        }
    }

    async fn by_metadata(&self, metadata: &Metadata) -> Result<(TokenAnswer, String), FetchError> {
        let (status, body) = self.ask_metadata(metadata, METADATA_TOKEN).await?;
        match status.as_u16() {
            200 => {}
            404 => {
                let why = "no service account is attached to this machine";
                return Err(FetchError::LoginFailed(why.into()));
            }
            _ => return Err(of_status(status)),
        }
        let answer = parse(&body)?;
        let known = lock(&metadata.project).clone();
        let project = match known {
            Some(project) => project,
            None => {
                let (status, body) = self.ask_metadata(metadata, METADATA_PROJECT).await?;
                if status != StatusCode::OK {
                    return Err(of_status(status));
                }
                let project = std::str::from_utf8(&body)
                    .map(str::trim)
                    .unwrap_or_default();
                if !is_project(project) {
                    return Err(FetchError::Garbage("metadata server names no project"));
                }
                *lock(&metadata.project) = Some(project.to_owned());
                project.to_owned()
            }
        };
        let entries_uri = metadata.overrides.entries_uri.as_deref();
        let entries_uri = entries_uri.unwrap_or(ENTRIES_URI);
        Ok((answer, secrets_uri(entries_uri, &project)))
    }

    async fn ask_metadata(
        &self,
        metadata: &Metadata,
        path: &str,
    ) -> Result<http::Answer, FetchError> {
        let request = self.http.get(format!("{}{path}", metadata.base));
        let response = http::open(request.header(FLAVOR, "Google")).await;
        let response = response.map_err(|error| of_endpoint("metadata server", error))?;
        // Anybody may answer under that name in a network that is not Google's.
        if response
            .headers()
            .get(FLAVOR)
            .is_none_or(|flavor| flavor != "Google")
        {
            return Err(FetchError::Garbage("not Google's metadata server"));
        }
        Ok((response.status(), http::read(response).await?))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl TokenAnswer {
    fn session(self, asked: Instant, secrets_uri: String) -> Result<Session, FetchError> {
        let token = self
            .access_token
            .filter(|token| !token.is_empty())
            .ok_or(FetchError::Garbage("no access_token in it"))?;
        let kind = self.token_type.as_deref().unwrap_or("Bearer");
        let visible = |text: &[u8]| text.iter().all(u8::is_ascii_graphic);
        if !visible(token.expose()) || !visible(kind.as_bytes()) || kind.is_empty() {
            return Err(FetchError::Garbage("token cannot stand in a header"));
        }
        let mut line = Zeroizing::new(Vec::with_capacity(kind.len() + 1 + token.expose().len()));
        line.extend_from_slice(kind.as_bytes());
        line.push(b' ');
        line.extend_from_slice(token.expose());
        let mut authorization = HeaderValue::from_maybe_shared(Bytes::from_owner(line))
            .map_err(|_| FetchError::Garbage("token cannot stand in a header"))?;
        authorization.set_sensitive(true);

        let life = self
            .expires_in
            .unwrap_or(UNKNOWN_SECS)
            .clamp(0.0, LONGEST_SECS);
        let life = Duration::from_secs_f64(life);
        // One that lives no longer than the margin would never be kept.
        let kept = life.checked_sub(MARGIN).filter(|left| !left.is_zero());
        let kept = kept.unwrap_or(life / 2);
        let ahead = (kept / 4).min(AHEAD);
        Ok(Session {
            number: 0,
            authorization,
            secrets_uri,
            kept_until: asked + kept,
            ends: asked + life,
            renew_at: asked + (kept - ahead).max(SOONEST),
        })
    }
}

fn parse(body: &[u8]) -> Result<TokenAnswer, FetchError> {
    serde_json::from_slice(body).map_err(|_| FetchError::Garbage("login is not answered in JSON"))
}

/// Says which of our servers could not be reached.
fn of_endpoint(which: &str, error: FetchError) -> FetchError {
    match error {
        FetchError::Unreachable(step, why) => {
            FetchError::Unreachable(step, format!("{which}: {why}").into())
        }
        error => error,
    }
}

fn of_status(status: StatusCode) -> FetchError {
    match status.as_u16() {
        429 => FetchError::Throttled,
        status @ 500.. => FetchError::ServerError(status),
        status => FetchError::UnexpectedStatus(status),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 7523 §2.1.
const GRANT: &[u8] = b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
const ASSERTION_SECS: u64 = 3600;
const METADATA_URI: &str = "http://metadata.google.internal";
const METADATA_TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const METADATA_PROJECT: &str = "/computeMetadata/v1/project/project-id";
const FLAVOR: &str = "metadata-flavor";
/// `spec/01` §2.3.
const MARGIN: Duration = Duration::from_secs(60);
/// How long before its last use a login is replaced, at most.
const AHEAD: Duration = Duration::from_secs(300);
/// A login is not replaced sooner than this.
const SOONEST: Duration = Duration::from_millis(500);
/// Taken for the life of a token that does not tell.
const UNKNOWN_SECS: f64 = 300.0;
const LONGEST_SECS: f64 = 86_400.0;
/// A changed key file is noticed within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
