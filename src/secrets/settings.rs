//! What the room is told from outside: settings, the managers a configuration declares, and who
//! counts its fetches.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::value::Secret;

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
    pub env: Vec<(String, Secret)>,
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

/// How a read ended, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchKind {
    /// The document was read.
    Found,
    /// The manager said no: not found, deleted, forbidden.
    Denied,
    /// The manager could not be read, or not understood.
    Failed,
    /// No answer within the manager's time limit.
    TimedOut,
}

impl FetchKind {
    /// Word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Who is told about reads. Called on the fetching task: it must not block.
pub trait Observer: Send + Sync {
    /// A read of one document ended.
    fn fetch(&self, manager: &str, kind: FetchKind, took: Duration);
}

/// Tells nobody.
impl Observer for () {
    fn fetch(&self, _manager: &str, _kind: FetchKind, _took: Duration) {}
}
