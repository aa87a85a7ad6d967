//! One auth plugin's credentials by keyed digest of their lookup key.

use std::any::Any;
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::Consumer;
use super::prefixes::Prefixes;
use crate::secrets::Secret;
use crate::sharded::Sharded;

/// Digest of a lookup key under a process's random key.
pub type Digest = [u8; 16];

/// What a lookup key leads to.
#[derive(Clone)]
pub struct CredentialEntry {
    /// The consumer it authenticates.
    pub consumer: Arc<Consumer>,
    /// Its place in the list `consumers`: of equal lookup keys the last one is in force.
    pub order: u32,
    /// What most credentials have nothing of.
    more: Option<Arc<More>>,
}

struct More {
    credential_id: Option<Arc<str>>,
    data: Option<Arc<dyn Any + Send + Sync>>,
}

impl CredentialEntry {
    /// The entry at that place. `credential_id` is set where it stands on a credential of its
    /// own, `data` where the plugin keeps something.
    #[must_use]
    pub fn new(
        consumer: Arc<Consumer>,
        order: u32,
        credential_id: Option<Arc<str>>,
        data: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        let more = (credential_id.is_some() || data.is_some()).then(|| {
            Arc::new(More {
                credential_id,
                data,
            })
        });
        Self {
            consumer,
            order,
            more,
        }
    }

    /// Set where it stands on a credential of its own.
    #[must_use]
    pub fn credential_id(&self) -> Option<&Arc<str>> {
        self.more.as_ref()?.credential_id.as_ref()
    }

    /// The plugin's own data, where it keeps some.
    #[must_use]
    pub fn data(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.more.as_ref()?.data.as_ref()
    }
}

/// Lookup key → credential. A copy shares what does not change afterwards.
///
/// SipHash-2-4 with a random 128-bit key and 128-bit output is a pseudo-random function: whoever
/// does not know the key can neither aim at an entry nor learn one from how long a lookup takes.
#[derive(Clone)]
pub struct CredentialIndex {
    key: [u8; 16],
    /// Of one digest: by their order, so that the last one is in force.
    entries: Sharded<Digest, CredentialEntry>,
    /// Digests that several entries claim.
    contested: BTreeSet<Digest>,
    /// Those whose secret is kept as a hash, so that nothing can be looked up by it.
    hashed: Prefixes,
}

impl CredentialIndex {
    /// An empty index under `key`, which is random per process.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self::of(key, Vec::new())
    }

    /// An index of these credentials, whose digests were made under `key`.
    #[must_use]
    pub fn of(key: [u8; 16], mut entries: Vec<(Digest, CredentialEntry)>) -> Self {
        entries.sort_by_key(|(_, entry)| entry.order);
        let hashed = Prefixes::take_out_of(&mut entries);
        let entries = Sharded::of(entries);
        let mut contested = BTreeSet::new();
        let mut last = None;
        for (digest, _) in entries.iter() {
            if last.replace(digest) == Some(digest) {
                contested.insert(*digest);
            }
        }
        Self {
            key,
            entries,
            contested,
            hashed,
        }
    }

    /// The digest of what a client presents under this index's key.
    #[must_use]
    pub fn digest(&self, presented: &[u8]) -> Digest {
        digest(&self.key, presented)
    }

    /// Another's credential, to spend on an unknown lookup key the work that a known one costs.
    /// For one lookup key always the same while nothing changes, so that nobody can tell by
    /// asking twice. It must let nobody in.
    #[must_use]
    pub fn decoy(&self, presented: &[u8]) -> Option<&CredentialEntry> {
        let entry = self.entries.near(&self.digest(presented));
        entry.map(|(_, entry)| entry)
    }

    /// The credentials [`super::ByPrefix`] that `presented` may be the secret of: no more than
    /// [`super::MOST_CANDIDATES`].
    pub fn candidates<'a>(
        &'a self,
        presented: &'a [u8],
    ) -> impl Iterator<Item = &'a CredentialEntry> {
        self.hashed.candidates(&self.key, presented)
    }

    /// Credentials [`super::ByPrefix`] that are never among the candidates, since too many others are.
    #[must_use]
    pub fn crowded_out(&self) -> Vec<&CredentialEntry> {
        self.hashed.crowded_out(&self.key)
    }

    /// The credential `presented` names.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<&CredentialEntry> {
        self.find_digest(&self.digest(presented))
    }

    /// The credential whose lookup key has this digest.
    #[must_use]
    pub fn find_digest(&self, digest: &Digest) -> Option<&CredentialEntry> {
        let entries = self.entries.at(digest);
        entries.last().map(|(_, entry)| entry)
    }

    /// Adds a credential under its lookup key.
    pub fn insert(&mut self, lookup_key: &Secret, entry: CredentialEntry) {
        self.insert_digest(digest(&self.key, lookup_key.expose()), entry);
    }

    /// Adds a credential whose digest under this index's key is already known.
    pub fn insert_digest(&mut self, digest: Digest, entry: CredentialEntry) {
        let Some(entry) = self.hashed.insert(digest, entry) else {
            return;
        };
        let order = entry.order;
        self.entries
            .insert(digest, entry, |other| other.order < order);
        if self.entries.at(&digest).len() > 1 {
            self.contested.insert(digest);
        }
    }

    /// Takes a credential out.
    pub fn remove_digest(&mut self, digest: &Digest, order: u32) {
        if !self.entries.remove(digest, |entry| entry.order == order) {
            self.hashed.remove(digest, order);
        }
        if self.entries.at(digest).len() < 2 {
            self.contested.remove(digest);
        }
    }

    /// Credentials that claim a lookup key which an earlier one claims too: the earlier, the later.
    pub fn contests(&self) -> impl Iterator<Item = (&CredentialEntry, &CredentialEntry)> {
        let contested = self.contested.iter();
        contested.flat_map(|digest| {
            let entries = self.entries.at(digest).windows(2);
            entries.filter_map(|pair| match pair {
                [(_, earlier), (_, later)] => Some((earlier, later)),
                _ => None,
            })
        })
    }

    /// How many credentials there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len() + self.hashed.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The digest of a lookup key under a process's random key.
#[must_use]
pub fn digest(key: &[u8; 16], lookup_key: &[u8]) -> Digest {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(lookup_key);
    hasher.finish128().as_u128().to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::GroupLink;

    fn entry(name: &str, order: u32) -> CredentialEntry {
        let consumer = Consumer {
            username: name.into(),
            plugins: None,
            group: GroupLink::Alone,
            labels: None,
        };
        CredentialEntry::new(Arc::new(consumer), order, None, None)
    }

    fn who<'a>(index: &'a CredentialIndex, key: &[u8]) -> Option<&'a str> {
        Some(&index.find(key)?.consumer.username)
    }

    #[test]
    fn a_key_finds_its_consumer_and_nothing_else_does() {
        let mut index = CredentialIndex::new([7; 16]);
        index.insert(&Secret::from("alice-key".to_owned()), entry("alice", 0));
        assert_eq!(who(&index, b"alice-key"), Some("alice"));
        assert_eq!(who(&index, b"alice-keY"), None);
        assert_eq!(who(&index, b""), None);
    }

    #[test]
    fn of_equal_keys_the_later_in_the_file_wins_until_it_goes() {
        let key = Secret::from("k".to_owned());
        let mut index = CredentialIndex::new([7; 16]);
        index.insert(&key, entry("bob", 2));
        index.insert(&key, entry("alice", 1));
        assert_eq!(who(&index, b"k"), Some("bob"));
        let contest = |index: &CredentialIndex| {
            let names = index.contests().map(|(earlier, later)| {
                [earlier, later].map(|entry| entry.consumer.username.to_string())
            });
            names.collect::<Vec<_>>()
        };
        assert_eq!(contest(&index), [["alice".to_owned(), "bob".to_owned()]]);

        let whole = CredentialIndex::of(
            [7; 16],
            vec![
                (digest(&[7; 16], b"k"), entry("bob", 2)),
                (digest(&[7; 16], b"k"), entry("alice", 1)),
            ],
        );
        assert_eq!(who(&whole, b"k"), Some("bob"));
        assert_eq!(contest(&whole), contest(&index));

        index.remove_digest(&digest(&[7; 16], b"k"), 2);
        assert_eq!(who(&index, b"k"), Some("alice"));
        assert!(contest(&index).is_empty());
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn a_decoy_is_anothers_and_stays_the_same() {
        let mut index = CredentialIndex::new([7; 16]);
        assert!(index.decoy(b"nobody").is_none());
        for (name, order) in [("alice", 0), ("bob", 1), ("carol", 2)] {
            index.insert(&Secret::from(name.to_owned()), entry(name, order));
        }
        let decoy = |name: &str| Some(&*index.decoy(name.as_bytes())?.consumer.username);
        let unknown: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        let first: Vec<_> = unknown.iter().map(|name| decoy(name)).collect();
        let again: Vec<_> = unknown.iter().map(|name| decoy(name)).collect();
        assert_eq!(first, again);
        for name in ["alice", "bob", "carol"] {
            assert!(first.contains(&Some(name)), "{name} is a decoy of some");
        }
    }

    #[test]
    fn an_entry_of_a_plain_consumer_is_small() {
        assert!(size_of::<(Digest, CredentialEntry)>() <= 40);
    }
}
