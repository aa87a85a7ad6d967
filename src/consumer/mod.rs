//! Consumers, and the index from a credential's lookup key to its consumer (`spec/02` §1).
//! Keys are kept as keyed digests only; the plaintext is wiped once the index is built.

mod index;
mod prefixes;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use crate::sharded::{Key, Sharded};

pub use index::{CredentialEntry, CredentialIndex, Digest, digest};
pub use prefixes::{ByPrefix, MOST_CANDIDATES};

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
    /// Labels, shared with their declaration; most consumers have none.
    pub labels: Option<Arc<HashMap<String, String>>>,
}

impl Consumer {
    /// `labels.custom_id`, sent upstream.
    #[must_use]
    pub fn custom_id(&self) -> Option<&str> {
        let id = self.labels.as_ref()?.get("custom_id")?;
        Some(id)
    }
}

/// All consumers of a snapshot: by name, and per auth plugin by lookup key. A copy shares what
/// does not change afterwards.
#[derive(Default, Clone)]
pub struct Consumers {
    /// By a hash of the username.
    names: Sharded<u64, Arc<Consumer>>,
    /// Per auth plugin.
    pub by_plugin: HashMap<&'static str, CredentialIndex, ahash::RandomState>,
}

impl Consumers {
    /// These consumers, without any credential.
    #[must_use]
    pub fn of(consumers: impl Iterator<Item = Arc<Consumer>>) -> Self {
        let keyed = consumers.map(|consumer| (name_key(&consumer.username), consumer));
        Self {
            names: Sharded::of(keyed.collect()),
            by_plugin: HashMap::default(),
        }
    }

    /// The credential of `plugin` whose lookup key is `presented`.
    #[must_use]
    pub fn find(&self, plugin: &str, presented: &[u8]) -> Option<&CredentialEntry> {
        self.by_plugin.get(plugin)?.find(presented)
    }

    /// The index of `plugin`'s credentials, where there are any.
    #[must_use]
    pub fn index(&self, plugin: &str) -> Option<&CredentialIndex> {
        self.by_plugin.get(plugin)
    }

    /// The consumer of that username, for `anonymous_consumer`.
    #[must_use]
    pub fn named(&self, username: &str) -> Option<&Arc<Consumer>> {
        let named = self.names.at(&name_key(username)).iter();
        let mut named = named.map(|(_, consumer)| consumer);
        named.find(|consumer| *consumer.username == *username)
    }

    /// Puts a consumer in the place of the one of its name, if there is one.
    pub fn replace(&mut self, consumer: &Arc<Consumer>) {
        let key = name_key(&consumer.username);
        let same = |other: &Arc<Consumer>| other.username == consumer.username;
        drop(self.names.replace(&key, Arc::clone(consumer), same));
    }
}

fn name_key(username: &str) -> u64 {
    digest(&[0; 16], username.as_bytes()).head()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(name: &str) -> Arc<Consumer> {
        Arc::new(Consumer {
            username: name.into(),
            plugins: None,
            group: GroupLink::Alone,
            labels: None,
        })
    }

    #[test]
    fn consumers_are_found_by_name_and_replaced() {
        let mut consumers = Consumers::of(["alice", "bob"].into_iter().map(consumer));
        let before = consumers.clone();
        let newer = consumer("alice");
        consumers.replace(&newer);
        let alice = |consumers: &Consumers| Arc::clone(consumers.named("alice").expect("is there"));
        assert!(Arc::ptr_eq(&alice(&consumers), &newer));
        assert!(!Arc::ptr_eq(&alice(&before), &newer));
        assert!(consumers.named("carol").is_none());
    }
}
