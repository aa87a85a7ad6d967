//! What the room is told from outside: settings, the managers a configuration declares, and who
//! counts its fetches.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::manager::FetchError;
use crate::sealed::Sealed;

/// Settings of the room; a manager's own fields go before them.
#[derive(Debug, Clone)]
pub struct SecretsSettings {
    /// How long a value is fresh. Default 300 s (APISIX `lru.secret.ttl`). A value changed in its
    /// manager is in force within this time plus one second.
    pub ttl: Duration,
    /// How long a "no" is remembered, and how long a manager has to insist on it before a value
    /// already known is given up. Default 60 s (APISIX `lru.secret.neg_ttl`). Zero asks again at once.
    pub neg_ttl: Duration,
    /// How old a value may grow while its manager cannot be read; then it is refused. Default
    /// 24 h. Less than `ttl` means `ttl`.
    pub max_stale: Duration,
    /// Reads at the same time, per manager. Default 32; zero means one.
    pub concurrency: usize,
    /// Variables of `nginx_config.envs` that carry a value; they go before the process's own.
    pub env: Vec<(String, Arc<Sealed>)>,
    /// PEM bundle that managers trust which name no `tls.ca`. Default: the system's store.
    pub trusted_ca: Option<Arc<[u8]>>,
}

impl Default for SecretsSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            neg_ttl: Duration::from_secs(60),
            max_stale: Duration::from_secs(24 * 3600),
            concurrency: 32,
            env: Vec::new(),
            trusted_ca: None,
        }
    }
}

/// A manager as a configuration declares it.
#[derive(Clone)]
pub struct ManagerSpec {
    /// `<kind>/<name>`, as references name it.
    pub id: Arc<str>,
    /// A name of [`crate::secrets::manager::MANAGERS`].
    pub kind: String,
    /// All other fields of the item. May hold literal tokens: never print it.
    pub fields: Value,
}

impl std::fmt::Debug for ManagerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagerSpec")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Why a declared manager refuses. Its references are unresolved until it is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerProblem {
    /// The manager.
    pub id: Arc<str>,
    /// Dotted path inside the item; empty for the item as a whole.
    pub field: String,
    /// What was expected; never a value.
    pub message: String,
}

/// Something an auditor wants to know. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A manager came into force.
    ManagerAdded,
    /// A manager's fields, or values they refer to, changed.
    ManagerChanged,
    /// A manager is declared no longer.
    ManagerRemoved,
    /// A manager's fields were not accepted.
    ManagerRefused {
        /// Dotted path of the field; empty for the item as a whole.
        field: String,
        /// What was expected.
        why: String,
    },
    /// A manager accepted our credentials.
    LoggedIn {
        /// Such as `approle`.
        method: &'static str,
    },
    /// A login in force was prolonged.
    Renewed {
        /// As for `LoggedIn`.
        method: &'static str,
    },
    /// A manager did not accept our credentials, or could not be asked to.
    LoginFailed {
        /// As for `LoggedIn`.
        method: &'static str,
        /// The error's words.
        why: String,
    },
    /// A manager stopped answering; its values serve on.
    WentSilent {
        /// The error's words.
        why: Arc<str>,
    },
    /// A manager answers again.
    AnswersAgain,
    /// A new value of a reference is in use.
    Adopted {
        /// As written.
        reference: Arc<str>,
        /// Our number of the value.
        version: u64,
        /// The manager's name for the document's version.
        manager_version: Option<Arc<str>>,
    },
    /// A reference has no value (any more); its users refuse.
    Refused {
        /// As written.
        reference: Arc<str>,
        /// Why.
        why: Arc<str>,
    },
    /// As `Refused`, of references beyond those that were told of singly within some seconds.
    RefusedMany {
        /// How many.
        count: u64,
        /// The first of them, as written.
        first: Vec<Arc<str>>,
        /// Why.
        why: Arc<str>,
    },
    /// References that `RefusedMany` counted have a value.
    AdoptedMany {
        /// How many.
        count: u64,
        /// The first of them, as written.
        first: Vec<Arc<str>>,
    },
}

/// Who is told about reads and events. Called on the room's own tasks: it must not block.
pub trait Observer: Send + Sync {
    /// A read of one document ended.
    fn fetch(&self, manager: &str, outcome: Result<(), &FetchError>, took: Duration);

    /// Something happened to this manager or a reference into it (`env` for `$env://`).
    fn event(&self, manager: &str, event: Event) {
        let _ = (manager, event);
    }
}

/// Tells nobody.
impl Observer for () {
    fn fetch(&self, _manager: &str, _outcome: Result<(), &FetchError>, _took: Duration) {}
}
