//! What `explain`, readiness and metrics may know: states and ages, never a value.

use std::sync::Arc;
use std::time::Duration;

/// How much a reference is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReferenceState {
    /// Read within its ttl.
    Fresh,
    /// Older than its ttl, or its manager just said no and has to confirm it; still served.
    Stale,
    /// No value; its users refuse.
    Refused,
}

/// One reference in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceReport {
    /// As written.
    pub reference: Arc<str>,
    /// Id of the manager, `env` for `$env://`, empty where the reference is malformed.
    pub manager: Arc<str>,
    /// Path of the document inside its manager; the variable's name for `$env://`.
    pub path: Arc<str>,
    /// Whether it has a value.
    pub state: ReferenceState,
    /// Since the value was last confirmed. `None` without a value, and for `$env://`.
    pub age: Option<Duration>,
    /// Our number for the value; changes exactly when it does.
    pub version: Option<u64>,
    /// The manager's name for the document's version, where it has one.
    pub manager_version: Option<Arc<str>>,
    /// Why it is not fresh.
    pub reason: Option<Arc<str>>,
}

/// Whether a manager is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum CircuitState {
    /// It answers, or has not failed often enough.
    #[default]
    Closed,
    /// It failed several times in a row and is left alone for a moment, or it cannot be asked at
    /// all: its fields are refused, or wait for values.
    Open,
    /// One read is under way to see whether it answers again.
    Probing,
}

impl CircuitState {
    /// Word for people and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Probing => "probing",
        }
    }
}

/// A login in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginReport {
    /// Such as `approle`.
    pub method: &'static str,
    /// Until it ends unless it is renewed; zero when it has ended. `None` when it does not end, or
    /// is not known to.
    pub left: Option<Duration>,
}

/// One declared manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerReport {
    /// Id.
    pub id: Arc<str>,
    /// Why it refuses, or why its last reads failed.
    pub reason: Option<Arc<str>>,
    /// Whether its fields were accepted and its circuit is closed.
    pub healthy: bool,
    /// Whether it is asked.
    pub circuit: CircuitState,
    /// Kind of the newest error of a read ([`FetchError::kind`]), also when later reads went well.
    ///
    /// [`FetchError::kind`]: super::manager::FetchError::kind
    pub last_error: Option<&'static str>,
    /// The login in force, for managers that have logins.
    pub login: Option<LoginReport>,
    /// Documents in use.
    pub documents: usize,
    /// References in use, by state.
    pub fresh: usize,
    /// As `fresh`.
    pub stale: usize,
    /// As `fresh`.
    pub refused: usize,
    /// Age of the value confirmed longest ago.
    pub oldest: Option<Duration>,
}
