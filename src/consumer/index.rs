//! One auth plugin's credentials by keyed digest of their lookup key.

use std::any::Any;
use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::Consumer;
use crate::secrets::Secret;

/// What a lookup key leads to.
#[derive(Clone)]
pub struct CredentialEntry {
    /// The consumer it authenticates.
    pub consumer: Arc<Consumer>,
    /// Set where it stands on a credential of its own.
    pub credential_id: Option<Arc<str>>,
    /// The plugin's own data.
    pub data: Arc<dyn Any + Send + Sync>,
}

/// Lookup key → credential. Immutable once built.
///
/// SipHash-2-4 with a random 128-bit key and 128-bit output is a pseudo-random function: whoever
/// does not know the key can neither aim at an entry nor learn one from how long a lookup takes.
pub struct CredentialIndex {
    key: [u8; 16],
    /// By the digest's bytes: a `u128` would align every entry to 16.
    entries: HashMap<[u8; 16], CredentialEntry, ahash::RandomState>,
}

impl CredentialIndex {
    /// The credential `presented` names.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<&CredentialEntry> {
        self.entries
            .get(&digest(&self.key, presented).to_ne_bytes())
    }

    /// How many credentials there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Collects credentials into a [`CredentialIndex`].
pub struct IndexBuilder(CredentialIndex);

impl IndexBuilder {
    /// An empty index under `key`, which is random per process.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self(CredentialIndex {
            key,
            entries: HashMap::default(),
        })
    }

    /// Makes room for `count` more credentials at once.
    pub fn reserve(&mut self, count: usize) {
        self.0.entries.reserve(count);
    }

    /// Adds a credential. A duplicate keeps the later one, as APISIX does with files, and returns
    /// the earlier for a diagnostic.
    pub fn insert(
        &mut self,
        lookup_key: &Secret,
        entry: CredentialEntry,
    ) -> Option<CredentialEntry> {
        self.insert_digest(digest(&self.0.key, lookup_key.expose()), entry)
    }

    /// Adds a credential whose digest under this index's key is already known.
    pub fn insert_digest(
        &mut self,
        digest: u128,
        entry: CredentialEntry,
    ) -> Option<CredentialEntry> {
        self.0.entries.insert(digest.to_ne_bytes(), entry)
    }

    /// The finished index.
    #[must_use]
    pub fn build(mut self) -> CredentialIndex {
        self.0.entries.shrink_to_fit();
        self.0
    }
}

/// The digest of a lookup key under a process's random key.
#[must_use]
pub fn digest(key: &[u8; 16], lookup_key: &[u8]) -> u128 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(lookup_key);
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::GroupLink;

    fn entry(name: &str) -> CredentialEntry {
        CredentialEntry {
            consumer: Arc::new(Consumer {
                username: name.into(),
                plugins: None,
                group: GroupLink::Alone,
                custom_id: None,
                labels: None,
            }),
            credential_id: None,
            data: Arc::new(()),
        }
    }

    #[test]
    fn a_key_finds_its_consumer_and_nothing_else_does() {
        let mut builder = IndexBuilder::new([7; 16]);
        builder.insert(&Secret::from("alice-key".to_owned()), entry("alice"));
        let index = builder.build();
        let found = index.find(b"alice-key").expect("key is in the index");
        assert_eq!(&*found.consumer.username, "alice");
        assert!(index.find(b"alice-keY").is_none());
        assert!(index.find(b"").is_none());
    }

    #[test]
    fn a_duplicate_key_is_reported() {
        let mut builder = IndexBuilder::new([7; 16]);
        builder.insert(&Secret::from("k".to_owned()), entry("alice"));
        let earlier = builder.insert(&Secret::from("k".to_owned()), entry("bob"));
        assert_eq!(&*earlier.expect("alice had it").consumer.username, "alice");
    }
}
