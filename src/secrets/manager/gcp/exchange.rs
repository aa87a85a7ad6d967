//! Asking for a token: by an assertion signed with the account's key, or at the metadata server. A
//! token goes into the header that carries it and nowhere else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::account::{Account, ENTRIES_URI, KeyFile, Overrides, is_project, secrets_uri};
use crate::clock::Clock;
use crate::secrets::manager::http::{self, base, wiped_body};
use crate::secrets::manager::{BuildError, FetchError, secret_text};
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
    /// No longer used from then on.
    pub(super) kept_until: Instant,
    /// When Google lets it end.
    pub(super) ends: Instant,
    /// When to ask for the next.
    pub(super) renew_at: Instant,
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

impl Source {
    /// Word for events and reports.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Account(_) | Self::File(_) => "service_account",
            Self::Metadata(_) => "metadata",
        }
    }

    /// One login.
    ///
    /// # Cancel safety
    /// May be dropped; nothing is kept then.
    pub(super) async fn log_in(
        &self,
        http: &Client,
        clock: &dyn Clock,
    ) -> Result<Session, FetchError> {
        let asked = clock.now();
        let account = match self {
            Self::Account(account) => Arc::clone(account),
            Self::File(file) => file.account(),
            Self::Metadata(metadata) => {
                let answer = metadata.token(http).await?;
                return answer.session(asked, metadata.secrets_uri(http).await?);
            }
        };
        let answer = by_assertion(&account, http, clock).await?;
        answer.session(asked, account.secrets_uri.clone())
    }
}

impl Metadata {
    async fn token(&self, http: &Client) -> Result<TokenAnswer, FetchError> {
        let (status, body) = self.ask(http, METADATA_TOKEN).await?;
        match status.as_u16() {
            200 => parse(&body),
            404 => Err(FetchError::LoginFailed(
                "no service account is attached to this machine".into(),
            )),
            _ => Err(of_status(status)),
        }
    }

    async fn secrets_uri(&self, http: &Client) -> Result<String, FetchError> {
        let known = self.project().clone();
        let project = match known {
            Some(project) => project,
            None => {
                let (status, body) = self.ask(http, METADATA_PROJECT).await?;
                if status != StatusCode::OK {
                    return Err(of_status(status));
                }
                let project = std::str::from_utf8(&body).unwrap_or_default().trim();
                if !is_project(project) {
                    return Err(FetchError::Garbage("metadata server names no project"));
                }
                self.project().insert(project.to_owned()).clone()
            }
        };
        let entries_uri = self.overrides.entries_uri.as_deref();
        Ok(secrets_uri(entries_uri.unwrap_or(ENTRIES_URI), &project))
    }

    async fn ask(&self, http: &Client, path: &str) -> Result<http::Answer, FetchError> {
        let request = http.get(format!("{}{path}", self.base));
        let response = http::open(request.header(FLAVOR, "Google")).await;
        let response = response.map_err(|error| of_endpoint("metadata server", error))?;
        // Anybody may answer under that name in a network that is not Google's.
        let flavor = response.headers().get(FLAVOR);
        if flavor.is_none_or(|flavor| flavor != "Google") {
            return Err(FetchError::Garbage("not Google's metadata server"));
        }
        Ok((response.status(), http::read(response).await?))
    }

    fn project(&self) -> MutexGuard<'_, Option<String>> {
        self.project.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token for who holds the account's key.
async fn by_assertion(
    account: &Account,
    http: &Client,
    clock: &dyn Clock,
) -> Result<TokenAnswer, FetchError> {
    let now = clock.wall().duration_since(UNIX_EPOCH);
    let iat = now.map_or(0, |since| since.as_secs());
    let claims = Claims {
        iss: &account.client_email,
        aud: &account.token_uri,
        scope: &account.scope,
        iat,
        exp: iat + ASSERTION_SECS,
    };
    let assertion = account.key.encode(&claims).map(Zeroizing::new);
    let assertion =
        assertion.map_err(|_| FetchError::LoginFailed("assertion could not be signed".into()))?;
    // The assertion's alphabet needs no encoding.
    let mut form = Zeroizing::new(Vec::with_capacity(GRANT.len() + assertion.len()));
    form.extend_from_slice(GRANT);
    form.extend_from_slice(assertion.as_bytes());
    let request = http
        .post(account.token_uri.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(wiped_body(form));
    let answer = http::send(request).await;
    let (status, body) = answer.map_err(|error| of_endpoint("token endpoint", error))?;
    match status.as_u16() {
        200 => parse(&body),
        // RFC 6749 §5.2: 400 is how a grant is refused.
        400 | 401 | 403 => Err(FetchError::LoginFailed(
            "token endpoint does not accept the service account's key".into(),
        )),
        _ => Err(of_status(status)),
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
const SOONEST: Duration = Duration::from_secs(1);
/// Taken for the life of a token that does not tell.
const UNKNOWN_SECS: f64 = 300.0;
const LONGEST_SECS: f64 = 86_400.0;
