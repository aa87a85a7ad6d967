//! Where secrets are kept. A manager is one file behind [`Manager`] and one entry in
//! [`MANAGERS`]; it reads one document when asked and keeps no value. Caching, retries, bounds on
//! concurrency and the circuit are not its business.

mod aws;
pub mod document;
pub mod env;
pub mod file;
pub mod gcp;
mod http;
mod url;
pub mod vault;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroize as _;

pub use document::{Document, FieldValue};

use super::reference::{Key, ReferenceError};
use super::settings::Observer;
use super::value::Secret;
use crate::clock::Clock;
use crate::diagnostic::without_values;

/// A kind of manager.
pub struct ManagerDef {
    /// First part of an item's id.
    pub name: &'static str,
    /// Makes a manager of an item's fields.
    pub build: Build,
    /// Fields, as dotted paths, that say how the manager is reached and who we are to it, and not
    /// which secrets it means: when an item changes in nothing else, values already read serve on
    /// until it answers. All fields not named here are taken for the place's identity.
    pub access: &'static [&'static str],
}

/// See [`ManagerDef::build`].
pub type Build = fn(&Fields, &BuildCtx<'_>) -> Result<Box<dyn Manager>, BuildError>;

/// Every kind there is.
pub const MANAGERS: &[&ManagerDef] = &[&aws::DEF, &file::DEF, &gcp::DEF, &url::DEF, &vault::DEF];

/// Whether each manager of this kind keeps a single document.
pub(super) fn has_one_document(kind: &str) -> bool {
    kind == url::DEF.name
}

/// Something that keeps secrets.
#[async_trait]
pub trait Manager: Send + Sync {
    /// Which document a key stands in, and under which field. Pure.
    ///
    /// # Errors
    /// The key cannot mean anything to this manager.
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError>;

    /// Reads one document now. The answer may hold more fields than were asked for.
    ///
    /// # Errors
    /// See [`FetchError`]; what is authoritative ends a value, the rest does not.
    ///
    /// # Cancel safety
    /// May be dropped at any await.
    async fn fetch(&self, read: Read<'_>) -> Result<Document, FetchError>;

    /// Whether a document is there and which fields it has, without reading a value where the
    /// manager can answer that; for `check --resolve`. Default: reads it and forgets the values.
    ///
    /// # Errors
    /// As [`Manager::fetch`].
    ///
    /// # Cancel safety
    /// May be dropped at any await.
    async fn probe(&self, read: Read<'_>) -> Result<Presence, FetchError> {
        Ok(self.fetch(read).await?.presence())
    }

    /// Where to look next for a value whose document was authoritatively not to be had for this
    /// reason; `None` when there is no other place. Asked until a document was found once. Pure.
    fn elsewhere(&self, tried: &Location, why: &FetchError) -> Option<Location> {
        let _ = (tried, why);
        None
    }

    /// Work beside the reads, such as renewing a login. Runs as long as the manager is in force,
    /// and is dropped then; returns when there is nothing to do. Default: nothing.
    async fn tend(&self) {}

    /// The login in force, where the manager has one that can end.
    fn login(&self) -> Option<Login> {
        None
    }

    /// How long one [`Manager::fetch`] may take. Default 5 s.
    fn time_limit(&self) -> Duration {
        DEFAULT_TIME_LIMIT
    }

    /// Calls back whenever something may have changed, until the returned guard is dropped.
    /// Default: no watch, the ttl is all there is.
    fn watch(&self, on_change: OnChange) -> Option<Box<dyn Any + Send>> {
        drop(on_change);
        None
    }
}

/// See [`Manager::watch`].
pub type OnChange = Box<dyn Fn() + Send + Sync>;

/// Place of a value inside a manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Path of the document.
    pub path: Arc<str>,
    /// Field inside it.
    pub field: Arc<str>,
}

impl Location {
    /// As APISIX splits for Vault: field behind the last slash (or `#`).
    #[must_use]
    pub fn split_last(key: &Key) -> Self {
        let (path, field) = key.split_last();
        Self {
            path: path.into(),
            field: field.into(),
        }
    }
}

/// What is there, without its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Each field, and what keeps it from being a value if something does (`value is null`).
    /// `None` where the manager cannot tell without reading the value.
    pub fields: Option<HashMap<Box<str>, Option<&'static str>>>,
    /// The manager's own name for the version.
    pub version: Option<Arc<str>>,
}

/// A login to a manager, as metrics and the audit log may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// Such as `approle`.
    pub method: &'static str,
    /// When it ends unless it is renewed; `None` when it does not end, or is not known to.
    pub ends: Option<Instant>,
}

/// How far a read got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// The name of the manager's host was not found.
    Dns,
    /// No connection, or it broke.
    Tcp,
    /// The server's certificate was not trusted, or ours not accepted.
    Tls,
    /// Our credentials were not accepted.
    Login,
    /// We are known and may not read this.
    Policy,
    /// There is no such document.
    Path,
    /// The document has no such field.
    Field,
    /// What stands there is no value.
    Shape,
    /// The manager answered, and not as it should: sealed, overloaded, failing, not understood.
    Answer,
}

impl Step {
    /// Word for people and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Policy => "policy",
            Self::Path => "path",
            Self::Field => "field",
            Self::Shape => "shape",
            Self::Answer => "answer",
        }
    }
}

/// One read of one document.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// Path of the document; its segments passed `secrets::reference`.
    pub path: &'a str,
    /// An older version; `None` is the newest.
    pub version: Option<&'a str>,
    /// Fields wanted, sorted.
    pub fields: &'a [Arc<str>],
}

/// Why a document could not be had. Never holds a part of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no such document.
    #[error("document not found")]
    NotFound,
    /// It was there, and was deleted or destroyed.
    #[error("document version is deleted")]
    Deleted,
    /// The manager knows us and refuses.
    #[error("forbidden by the manager")]
    Forbidden,
    /// The same, where the manager's policies go by path: this one.
    #[error("forbidden by the manager: no policy of our token lets it read {0}")]
    ForbiddenPath(Box<str>),
    /// What the document stands in is not there; the word says what that is.
    #[error("{0} not found")]
    NoPlace(&'static str),
    /// The reference asks for what this manager or this document cannot do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// No connection, or it broke. The step is one of dns, tcp, tls.
    #[error("manager unreachable: {1}")]
    Unreachable(Step, Box<str>),
    /// No answer in time.
    #[error("manager did not answer in time")]
    TimedOut,
    /// Vault is sealed or not initialised.
    #[error("manager is sealed or unavailable")]
    Sealed,
    /// Asked too often.
    #[error("manager refuses more requests for now")]
    Throttled,
    /// A status of 500 or above.
    #[error("manager failed with status {0}")]
    ServerError(u16),
    /// Our own credentials are not (any more) valid.
    #[error("manager does not accept our token")]
    TokenRefused,
    /// We could not log in; the words say by which method and what was expected.
    #[error("login failed: {0}")]
    LoginFailed(Box<str>),
    /// A redirect, which is never followed: it would carry the token elsewhere.
    #[error("manager redirects with status {0}, which is not followed")]
    Redirected(u16),
    /// A status that says nothing about the document.
    #[error("manager answered status {0}")]
    UnexpectedStatus(u16),
    /// Not what a manager of this kind says.
    #[error("answer not understood: {0}")]
    Garbage(&'static str),
    /// This document cannot be read, while others may be.
    #[error("cannot be read: {0}")]
    Unreadable(Box<str>),
    /// Longer than a document may be.
    #[error("document is larger than {0} bytes")]
    TooLarge(usize),
    /// Someone else may write it.
    #[error("not trusted: {0}")]
    Insecure(&'static str),
}

impl FetchError {
    /// How far it got.
    #[must_use]
    pub fn step(&self) -> Step {
        match self {
            Self::Unreachable(step, _) => *step,
            Self::TimedOut => Step::Tcp,
            Self::TokenRefused | Self::LoginFailed(_) => Step::Login,
            Self::Forbidden | Self::ForbiddenPath(_) => Step::Policy,
            Self::NotFound | Self::NoPlace(_) | Self::Deleted | Self::Unsupported(_) => Step::Path,
            Self::Unreadable(_) | Self::TooLarge(_) | Self::Insecure(_) => Step::Shape,
            Self::Sealed
            | Self::Throttled
            | Self::ServerError(_)
            | Self::Redirected(_)
            | Self::UnexpectedStatus(_)
            | Self::Garbage(_) => Step::Answer,
        }
    }

    /// Word for a metric's label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound | Self::NoPlace(_) => "not_found",
            Self::Deleted => "deleted",
            Self::Forbidden | Self::ForbiddenPath(_) => "forbidden",
            Self::Unsupported(_) => "unsupported",
            Self::Unreachable(Step::Dns, _) => "dns",
            Self::Unreachable(Step::Tls, _) => "tls",
            Self::Unreachable(..) => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Sealed => "sealed",
            Self::Throttled => "throttled",
            Self::ServerError(_) => "server_error",
            Self::TokenRefused | Self::LoginFailed(_) => "login",
            Self::Redirected(_) => "redirected",
            Self::UnexpectedStatus(_) => "unexpected_status",
            Self::Garbage(_) => "garbage",
            Self::Unreadable(_) => "unreadable",
            Self::TooLarge(_) => "too_large",
            Self::Insecure(_) => "insecure",
        }
    }

    /// Whether the manager itself said that there is no such value for us. Only such an answer
    /// ends a known value before it is too old.
    #[must_use]
    pub fn is_authoritative(&self) -> bool {
        matches!(
            self,
            Self::NotFound
                | Self::NoPlace(_)
                | Self::Deleted
                | Self::Forbidden
                | Self::ForbiddenPath(_)
                | Self::Unsupported(_)
        )
    }

    /// Whether it tells more of a reference that was looked for in several places: a name that was
    /// only tried is rightly not found.
    pub(super) fn tells_more_than(&self, other: &Self) -> bool {
        let rank = |error: &Self| match error {
            Self::NotFound => 0,
            Self::Unsupported(_) => 1,
            error => 2 + u8::from(error.step() == Step::Policy),
        };
        rank(self) > rank(other)
    }

    /// Whether other documents of the same manager can be expected to fail too.
    #[must_use]
    pub fn blames_manager(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(..)
                | Self::TimedOut
                | Self::Sealed
                | Self::Throttled
                | Self::ServerError(_)
                | Self::TokenRefused
                | Self::LoginFailed(_)
                | Self::Redirected(_)
        )
    }
}

/// What a manager may hold.
#[derive(Clone, Copy)]
pub struct BuildCtx<'a> {
    /// Id of the item.
    pub id: &'a Arc<str>,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// PEM bundle to trust where the item names none.
    pub trusted_ca: Option<&'a [u8]>,
    /// Who is told about logins.
    pub observer: &'a Arc<dyn Observer>,
}

/// Why a manager's fields were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct BuildError {
    /// Dotted path; empty for the item as a whole.
    pub field: String,
    /// What was expected; never a value.
    pub message: String,
}

impl BuildError {
    /// `field` is not as it must be.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// An item's fields with their `$env://` references replaced. Wiped when dropped.
pub struct Fields(Value);

impl Fields {
    /// Takes fields in which nothing is a reference any more.
    #[must_use]
    pub fn new(fields: Value) -> Self {
        Self(fields)
    }

    /// The fields as they are. Hold secrets.
    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    /// The fields as JSON text. Holds secrets: wipe it.
    pub(super) fn as_json(&self) -> String {
        self.0.to_string()
    }

    /// Reads the fields a manager knows; others are tolerated, as by APISIX.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, BuildError> {
        serde_path_to_error::deserialize(&self.0).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { String::new() } else { path };
            BuildError::new(field, without_values(&error.inner().to_string()))
        })
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A secret text among an item's fields: `#[serde(deserialize_with = "secret_text")]`.
fn secret_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    match FieldValue::deserialize(from)? {
        FieldValue::Text(secret) => Ok(Some(secret)),
        FieldValue::Other("value is null") => Ok(None),
        FieldValue::Other(_) => Err(serde::de::Error::custom("expected a string")),
    }
}

/// A number of seconds, fractions allowed: `#[serde(deserialize_with = "seconds")]`.
pub(super) fn seconds<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else {
        return Ok(None);
    };
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration <= LONGEST_TIME => Ok(Some(duration)),
        _ => Err(serde::de::Error::custom("expected 0 to 31536000 seconds")),
    }
}

/// Largest answer a manager may give: 1 MiB of value, and what quoting it costs.
pub const MAX_DOCUMENT_BYTES: usize = 2 * 1024 * 1024;

/// APISIX's `timeout` of Vault.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests;
