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
    pub by_plugin: Indexes,
}

impl Consumers {
    /// These consumers, without any credential.
    #[must_use]
    pub fn of(consumers: impl Iterator<Item = Arc<Consumer>>) -> Self {
        let keyed = consumers.map(|consumer| (name_key(&consumer.username), consumer));
        Self {
            names: Sharded::of(keyed.collect()),
            by_plugin: Indexes::default(),
        }
    }

    /// The credential of `plugin` whose lookup key is `presented`.
    #[must_use]
    pub fn find(&self, plugin: &str, presented: &[u8]) -> Option<&CredentialEntry> {
        self.index(plugin)?.find(presented)
    }

    /// The index of `plugin`'s credentials, where there are any.
    #[must_use]
    pub fn index(&self, plugin: &str) -> Option<&CredentialIndex> {
        self.by_plugin.get(plugin)
    }

    /// Whether anybody has a credential of `plugin`.
    #[must_use]
    pub fn has_any(&self, plugin: &str) -> bool {
        self.index(plugin).is_some_and(|index| !index.is_empty())
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

/// The index of each auth plugin that has credentials. They are few: to compare some short names
/// costs a request less than to hash one.
#[derive(Default, Clone)]
pub struct Indexes(Vec<(&'static str, CredentialIndex)>);

impl Indexes {
    /// The index of that plugin; `None` where it has no credential.
    #[must_use]
    pub fn get(&self, plugin: &str) -> Option<&CredentialIndex> {
        let (_, index) = self.0.iter().find(|(name, _)| *name == plugin)?;
        Some(index)
    }

    /// The same to change it.
    pub fn get_mut(&mut self, plugin: &str) -> Option<&mut CredentialIndex> {
        let (_, index) = self.0.iter_mut().find(|(name, _)| *name == plugin)?;
        Some(index)
    }

    /// The index of that plugin; an empty one under `key` where there is none yet.
    pub fn of_plugin(&mut self, plugin: &'static str, key: [u8; 16]) -> &mut CredentialIndex {
        let at = self.0.iter().position(|(name, _)| *name == plugin);
        let at = at.unwrap_or_else(|| {
            self.0.push((plugin, CredentialIndex::new(key)));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Puts an index in the place of the plugin's, if it has one.
    pub fn insert(&mut self, plugin: &'static str, index: CredentialIndex) {
        match self.get_mut(plugin) {
            Some(old) => *old = index,
            None => self.0.push((plugin, index)),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &CredentialIndex)> {
        self.0.iter().map(|(plugin, index)| (*plugin, index))
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
    fn each_plugin_has_its_own_index() {
        let mut indexes = Indexes::default();
        assert!(indexes.get("key-auth").is_none());
        for (plugin, name) in [("key-auth", "alice"), ("jwt-auth", "bob")] {
            let entry = CredentialEntry::new(consumer(name), 0, None, None);
            let index = indexes.of_plugin(plugin, [1; 16]);
            index.insert_digest(digest(&[1; 16], b"k"), entry);
        }
        let who = |indexes: &Indexes, plugin| {
            let entry = indexes.get(plugin).and_then(|index| index.find(b"k"));
            entry.map(|entry| entry.consumer.username.to_string())
        };
        assert_eq!(who(&indexes, "key-auth").as_deref(), Some("alice"));
        assert_eq!(who(&indexes, "jwt-auth").as_deref(), Some("bob"));
        indexes.insert("key-auth", CredentialIndex::new([1; 16]));
        assert_eq!(who(&indexes, "key-auth"), None);
        assert_eq!(indexes.iter().count(), 2);
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
