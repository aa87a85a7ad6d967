//! Consumers, and the index from a credential's lookup key to its consumer (`spec/02` §1).
//! Keys are kept as keyed digests only; the plaintext is wiped once the index is built.

mod index;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

pub use index::{CredentialEntry, CredentialIndex, IndexBuilder, digest};

/// Which consumer group a consumer belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupLink {
    /// None.
    Alone,
    /// An existing group.
    Member(Arc<str>),
    /// A group that does not exist or refused: requests of this consumer answer 503.
    Missing(Arc<str>),
}

/// A consumer as requests see it.
pub struct Consumer {
    /// Its username, which is also its id.
    pub username: Arc<str>,
    /// The chain of its own and its group's plugins, merged into the route's after
    /// authentication. Opaque here, since chains live in a room above.
    pub plugins: Option<Arc<dyn Any + Send + Sync>>,
    /// Its group.
    pub group: GroupLink,
    /// `labels.custom_id`, sent upstream.
    pub custom_id: Option<Box<str>>,
    /// Labels, shared with their declaration; most consumers have none.
    pub labels: Option<Arc<HashMap<String, String>>>,
}

/// All consumers of a snapshot: by name, and per auth plugin by lookup key.
#[derive(Default)]
pub struct Consumers {
    /// By username, for `anonymous_consumer`.
    pub by_name: HashMap<Arc<str>, Arc<Consumer>, ahash::RandomState>,
    /// Per auth plugin.
    pub by_plugin: HashMap<&'static str, CredentialIndex, ahash::RandomState>,
}

impl Consumers {
    /// The credential of `plugin` whose lookup key is `presented`.
    #[must_use]
    pub fn find(&self, plugin: &str, presented: &[u8]) -> Option<&CredentialEntry> {
        self.by_plugin.get(plugin)?.find(presented)
    }
}
