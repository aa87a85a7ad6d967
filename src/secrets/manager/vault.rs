//! `vault`: `HashiCorp` Vault and `OpenBao`, KV version 1 and 2, static token. The endpoints are
//! `vaultrs`'; they are sent by our own client, so that an answer is bounded and its status and body are
//! seen by us alone. Never follows a redirect.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use rustify::endpoint::Endpoint;
use serde::Deserialize;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use super::document::{Document, FieldMap};
use super::http::{self, HttpClient, TlsConfig};
use super::{
    BuildCtx, BuildError, DEFAULT_TIME_LIMIT, FetchError, Location, Manager, ManagerDef, Read,
    seconds, secret_text,
};
use crate::clock::Clock;
use crate::secrets::reference::{Key, Reference, ReferenceError};
use crate::secrets::value::Secret;

pub(in crate::secrets) const DEF: ManagerDef = ManagerDef {
    name: "vault",
    build: |fields, ctx| build(fields.parse()?, ctx),
    access: &["token", "auth", "tls", "timeout"],
};

#[derive(Deserialize)]
struct VaultConfig {
    /// `http(s)://host[:port]`.
    uri: String,
    /// Mount and leading path.
    prefix: String,
    /// Static token.
    #[serde(default, deserialize_with = "secret_text")]
    token: Option<Secret>,
    namespace: Option<String>,
    /// Seconds for one read, all its requests together. Default 5 (APISIX).
    #[serde(default, deserialize_with = "seconds")]
    timeout: Option<Duration>,
    /// `auto` (default), 1 or 2.
    kv_version: Option<KvVersion>,
    auth: Option<AuthConfig>,
    #[serde(default)]
    tls: TlsConfig,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KvVersion {
    Number(u8),
    Word(String),
}

#[derive(Deserialize)]
struct AuthConfig {
    method: Option<String>,
}

fn build(config: VaultConfig, ctx: &BuildCtx<'_>) -> Result<Box<dyn Manager>, BuildError> {
    if let Some(method) = config.auth.and_then(|auth| auth.method)
        && method != "token"
    {
        return Err(BuildError::new("auth.method", "expected token"));
    }
    let missing = || BuildError::new("token", "expected a token");
    let token = header("token", config.token.ok_or_else(missing)?.expose())?;
    let namespace = match &config.namespace {
        Some(name) if !name.trim().is_empty() => Some(header("namespace", name.as_bytes())?),
        _ => None,
    };
    let timeout = config.timeout.unwrap_or(DEFAULT_TIME_LIMIT);
    if timeout.is_zero() {
        return Err(BuildError::new("timeout", "expected more than 0 seconds"));
    }
    let prefix = parse_prefix(&config.prefix)?;
    let engine = match config.kv_version {
        None => None,
        Some(KvVersion::Number(1)) => Some(Engine::V1),
        // The mount is asked for; until it can be, its first segment is taken for it.
        Some(KvVersion::Number(2)) => Some(Engine::V2 { mount_len: 1 }),
        Some(KvVersion::Word(word)) if word == "auto" => None,
        Some(KvVersion::Word(word)) if word == "1" => Some(Engine::V1),
        Some(KvVersion::Word(word)) if word == "2" => Some(Engine::V2 { mount_len: 1 }),
        Some(_) => return Err(BuildError::new("kv_version", "expected auto, 1 or 2")),
    };
    Ok(Box::new(Vault {
        http: HttpClient::build(&config.uri, &config.tls, timeout, ctx)?,
        token,
        namespace,
        prefix,
        declared: engine,
        known: Mutex::new(None),
        asking: tokio::sync::Mutex::default(),
        token_lives: tokio::sync::Mutex::new(None),
        timeout,
        clock: Arc::clone(ctx.clock),
    }))
}

/// A header's value out of a configuration: trimmed, visible ASCII, and hidden from debug output.
fn header(field: &str, text: &[u8]) -> Result<HeaderValue, BuildError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(BuildError::new(field, "must not be empty"));
    }
    if !text.iter().all(u8::is_ascii_graphic) {
        let message = "expected visible ASCII characters only";
        return Err(BuildError::new(field, message));
    }
    let mut value = HeaderValue::from_bytes(text)
        .map_err(|_| BuildError::new(field, "expected visible ASCII characters only"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Leading and doubled slashes are normalised, as by APISIX; segments pass the same check as
/// those of a reference.
fn parse_prefix(prefix: &str) -> Result<Vec<String>, BuildError> {
    let segments: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
    let as_reference = format!("$secret://vault/prefix/{}", segments.join("/"));
    let unsafe_for_us = prefix.contains(['?', '#']) || Reference::parse(&as_reference).is_err();
    if segments.is_empty() || unsafe_for_us {
        let message = "expected a mount and maybe a path, such as kv/apisix";
        return Err(BuildError::new("prefix", message));
    }
    Ok(segments.iter().copied().map(encode).collect())
}

struct Vault {
    http: HttpClient,
    token: HeaderValue,
    namespace: Option<HeaderValue>,
    /// Encoded segments.
    prefix: Vec<String>,
    declared: Option<Engine>,
    /// What the mount turned out to be, until a read says otherwise.
    known: Mutex<Option<Engine>>,
    /// Held while the mount is asked for, so that a load of many documents asks once.
    asking: tokio::sync::Mutex<()>,
    /// When the token was last looked up, and whether it lived.
    token_lives: tokio::sync::Mutex<Option<(Instant, bool)>>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    V1,
    V2 {
        /// Segments of the prefix that are the mount's path.
        mount_len: usize,
    },
}

#[async_trait]
impl Manager for Vault {
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        let location = Location::split_last(key);
        if location.path.is_empty() {
            return Err(ReferenceError::KeyFormat(key.path.clone()));
        }
        let number = |version: &Arc<str>| version.parse::<u64>().is_ok_and(|number| number > 0);
        if key.version.as_ref().is_some_and(|version| !number(version)) {
            return Err(ReferenceError::Query(
                "version of a vault secret is a number",
            ));
        }
        Ok(location)
    }

    async fn fetch(&self, read: Read<'_>) -> Result<Document, FetchError> {
        let engine = self.engine().await?;
        if engine == Engine::V1 && read.version.is_some() {
            return Err(FetchError::Unsupported("KV version 1 keeps no versions"));
        }
        let (status, body) = self.read_document(engine, read).await?;
        match (status, engine) {
            (StatusCode::OK, Engine::V1) => from_v1(&body),
            (StatusCode::OK, Engine::V2 { .. }) => from_v2(&body),
            (StatusCode::NOT_FOUND, _) => {
                // The mount may have been replaced or upgraded.
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(not_found(&body))
            }
            (StatusCode::FORBIDDEN, _) => Err(self.forbidden(&body).await),
            (status, _) => Err(of_status(status)),
        }
    }

    fn time_limit(&self) -> Duration {
        self.timeout
    }
}

impl Vault {
    /// The document where the engine keeps it. `vaultrs` knows the endpoints; the request is sent
    /// by our own client, and the answer read by us: `vaultrs` takes bodies of any size, puts them
    /// into its errors, and does not wipe them.
    async fn read_document(
        &self,
        engine: Engine,
        read: Read<'_>,
    ) -> Result<http::Answer, FetchError> {
        let wanted = read.path.split('/').map(encode);
        let mut segments: Vec<String> = self.prefix.iter().cloned().chain(wanted).collect();
        let mount_len = match engine {
            Engine::V1 => 1,
            Engine::V2 { mount_len } => mount_len,
        };
        let path = segments.split_off(mount_len).join("/");
        let mount = segments.join("/");
        match engine {
            Engine::V1 => self.ask(&GetSecretRequest { mount, path }).await,
            Engine::V2 { .. } => {
                let version = read.version.and_then(|version| version.parse().ok());
                let endpoint = ReadSecretRequest {
                    mount,
                    path,
                    version,
                };
                self.ask(&endpoint).await
            }
        }
    }

    async fn ask(&self, endpoint: &impl Endpoint) -> Result<http::Answer, FetchError> {
        let mut path = format!("/v1/{}", endpoint.path().trim_start_matches('/'));
        if let Ok(Some(query)) = endpoint.query()
            && !query.is_empty()
        {
            path.push('?');
            path.push_str(&query);
        }
        self.get(&path).await
    }

    async fn get(&self, path: &str) -> Result<http::Answer, FetchError> {
        let mut request = self
            .http
            .get(path)
            .header("X-Vault-Token", self.token.clone());
        // Vault's own protection against being reached through someone else's redirect.
        request = request.header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace.clone());
        }
        http::send(request).await
    }

    fn known(&self) -> Option<Engine> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the prefix is mounted as. Asked once; a token that may not ask means version 1, as in
    /// APISIX, unless version 2 was declared.
    async fn engine(&self) -> Result<Engine, FetchError> {
        if self.declared == Some(Engine::V1) {
            return Ok(Engine::V1);
        }
        if let Some(engine) = self.known() {
            return Ok(engine);
        }
        let _asking = self.asking.lock().await;
        if let Some(engine) = self.known() {
            return Ok(engine);
        }
        let path = format!("/v1/sys/internal/ui/mounts/{}", self.prefix.join("/"));
        let (status, body) = self.get(&path).await?;
        let engine = match status {
            StatusCode::OK => of_mount(&body, self.prefix.len(), self.declared)?,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
                if status == StatusCode::FORBIDDEN
                    && self.forbidden(&body).await != FetchError::Forbidden
                {
                    return Err(FetchError::TokenRefused);
                }
                self.declared.unwrap_or(Engine::V1)
            }
            status => return Err(of_status(status)),
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
        Ok(engine)
    }

    /// What a 403 means: our token is dead (nothing is known about the document), or it lives and
    /// may not read this one (the document's owner said no).
    async fn forbidden(&self, body: &[u8]) -> FetchError {
        if !speaks_vault(body) {
            return FetchError::UnexpectedStatus(403);
        }
        let mut looked_up = self.token_lives.lock().await;
        let now = self.clock.now();
        let recent = looked_up.filter(|(at, _)| now < *at + LOOKUP_VALID);
        let lives = match recent {
            Some((_, lives)) => lives,
            None => match self.ask(&LookupTokenSelfRequest {}).await {
                Ok((StatusCode::OK, _)) => true,
                Ok((StatusCode::FORBIDDEN, _)) => false,
                Ok((status, _)) => return of_status(status),
                Err(error) => return error,
            },
        };
        *looked_up = Some((now, lives));
        if lives {
            FetchError::Forbidden
        } else {
            FetchError::TokenRefused
        }
    }
}

#[derive(Deserialize)]
struct V1Answer {
    data: Option<FieldMap>,
}

#[derive(Deserialize)]
struct V2Answer {
    data: Option<V2Data>,
}

#[derive(Deserialize)]
struct V2Data {
    data: Option<FieldMap>,
    metadata: Option<V2Metadata>,
}

#[derive(Deserialize)]
struct V2Metadata {
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

#[derive(Deserialize)]
struct MountAnswer {
    data: Mount,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    version: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    errors: Vec<serde::de::IgnoredAny>,
}

fn from_v1(body: &[u8]) -> Result<Document, FetchError> {
    let answer: V1Answer = parse_body(body)?;
    let fields = answer.data.ok_or(FetchError::Garbage("no data in it"))?;
    Ok(Document::new(fields, None))
}

fn from_v2(body: &[u8]) -> Result<Document, FetchError> {
    let answer: V2Answer = parse_body(body)?;
    let outer = answer.data.ok_or(FetchError::Garbage("no data in it"))?;
    let version = outer.metadata.map(|metadata| metadata.version.to_string());
    // `data: null` is how some versions show a deleted one.
    let fields = match (outer.data, &version) {
        (Some(fields), _) => fields,
        (None, Some(_)) => return Err(FetchError::Deleted),
        (None, None) => return Err(FetchError::Garbage("no data in it")),
    };
    Ok(Document::new(fields, version.map(Into::into)))
}

/// Vault says 404 in two shapes: with the metadata of a deleted version, and with errors (none
/// for an absent path). Any other body comes from something in between and proves nothing.
fn not_found(body: &[u8]) -> FetchError {
    let deleted = serde_json::from_slice::<V2Answer>(body)
        .ok()
        .and_then(|answer| answer.data)
        .and_then(|data| data.metadata);
    match deleted {
        Some(metadata) if metadata.destroyed || !metadata.deletion_time.is_empty() => {
            FetchError::Deleted
        }
        _ if speaks_vault(body) => FetchError::NotFound,
        _ => FetchError::UnexpectedStatus(404),
    }
}

fn speaks_vault(body: &[u8]) -> bool {
    serde_json::from_slice::<ErrorAnswer>(body).is_ok_and(|answer| answer.errors.len() < usize::MAX)
}

fn of_mount(
    body: &[u8],
    prefix_len: usize,
    declared: Option<Engine>,
) -> Result<Engine, FetchError> {
    let mount = parse_body::<MountAnswer>(body)?.data;
    let mount_len = mount
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .count();
    if mount_len == 0 || mount_len > prefix_len {
        return Err(FetchError::Garbage("mount is not a part of the prefix"));
    }
    let version = mount.options.and_then(|options| options.version);
    if declared.is_some() || version.as_deref() == Some("2") {
        return Ok(Engine::V2 { mount_len });
    }
    Ok(Engine::V1)
}

fn of_status(status: StatusCode) -> FetchError {
    match status.as_u16() {
        503 => FetchError::Sealed,
        429 => FetchError::Throttled,
        status @ 500.. => FetchError::ServerError(status),
        status => FetchError::UnexpectedStatus(status),
    }
}

fn parse_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchError> {
    serde_json::from_slice(body).map_err(|_| FetchError::Garbage("not the JSON Vault speaks"))
}

fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, UNSAFE).to_string()
}

/// Everything but RFC 3986 §2.3's unreserved characters.
const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// How long a looked-up token is taken to live or be dead on, while many documents ask.
const LOOKUP_VALID: Duration = Duration::from_secs(2);
