//! Credentials whose secret is kept as a slow hash. Nothing can be looked up by it, so they are
//! found by the secret's first characters, which are no secret; and only so many of them, since
//! each costs a computation.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::{CredentialEntry, Digest, digest};
use crate::sharded::Sharded;

/// The data of a credential that is found by its secret's first characters. Its lookup key is
/// `prefix`.
pub struct ByPrefix {
    /// How the secret begins; may be empty.
    pub prefix: Box<str>,
    /// The plugin's own data.
    pub secret: Arc<dyn Any + Send + Sync>,
}

impl CredentialEntry {
    /// Its data, where it is found by prefix.
    #[must_use]
    pub fn by_prefix(&self) -> Option<&ByPrefix> {
        self.data()?.downcast_ref()
    }
}

/// No secret is held against more credentials than this.
pub const MOST_CANDIDATES: usize = 16;

/// Credentials by the digest of their prefix.
#[derive(Clone, Default)]
pub(super) struct Prefixes {
    /// Of one prefix: by their order.
    entries: Sharded<Digest, CredentialEntry>,
    /// How many prefixes are that long, in bytes.
    lengths: BTreeMap<usize, usize>,
}

impl Prefixes {
    /// Takes the credentials that belong here out of a list in order.
    pub(super) fn take_out_of(entries: &mut Vec<(Digest, CredentialEntry)>) -> Self {
        let mut prefixes = Self::default();
        let hashed = entries.extract_if(.., |(_, entry)| entry.by_prefix().is_some());
        let hashed: Vec<_> = hashed.collect();
        for (_, entry) in &hashed {
            *prefixes.lengths.entry(length(entry)).or_default() += 1;
        }
        prefixes.entries = Sharded::of(hashed);
        prefixes
    }

    /// Adds a credential; one that does not belong here comes back.
    pub(super) fn insert(
        &mut self,
        digest: Digest,
        entry: CredentialEntry,
    ) -> Option<CredentialEntry> {
        if entry.by_prefix().is_none() {
            return Some(entry);
        }
        *self.lengths.entry(length(&entry)).or_default() += 1;
        let order = entry.order;
        self.entries
            .insert(digest, entry, |other| other.order < order);
        None
    }

    pub(super) fn remove(&mut self, digest: &Digest, order: u32) {
        let entries = self.entries.at(digest).iter();
        let mut entries = entries.filter(|(_, entry)| entry.order == order);
        let Some(length) = entries.next().map(|(_, entry)| length(entry)) else {
            return;
        };
        self.entries.remove(digest, |entry| entry.order == order);
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// What `presented` may be the secret of: of shorter prefixes first, of equal ones in order.
    pub(super) fn candidates<'a>(
        &'a self,
        key: &'a [u8; 16],
        presented: &'a [u8],
    ) -> impl Iterator<Item = &'a CredentialEntry> {
        let lengths = self.lengths.keys();
        let beginnings = lengths.map_while(|length| presented.get(..*length));
        let groups = beginnings.map(|beginning| self.entries.at(&digest(key, beginning)));
        let entries = groups.flat_map(|group| group.iter().map(|(_, entry)| entry));
        entries.take(MOST_CANDIDATES)
    }

    /// Entries that no secret has among its candidates. An entry's place among those does not
    /// depend on how a secret goes on.
    pub(super) fn crowded_out(&self, key: &[u8; 16]) -> Vec<&CredentialEntry> {
        if self.entries.len() <= MOST_CANDIDATES {
            return Vec::new();
        }
        let entries = self.entries.iter().map(|(_, entry)| entry);
        entries
            .filter(|entry| {
                let prefix = entry.by_prefix().map_or("", |found| &found.prefix);
                let mut candidates = self.candidates(key, prefix.as_bytes());
                !candidates.any(|candidate| candidate.order == entry.order)
            })
            .collect()
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }
}

fn length(entry: &CredentialEntry) -> usize {
    entry.by_prefix().map_or(0, |found| found.prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::{Consumer, CredentialIndex, GroupLink};

    const KEY: [u8; 16] = [7; 16];

    fn entry(prefix: &str, order: u32) -> (Digest, CredentialEntry) {
        let consumer = Arc::new(Consumer {
            username: format!("{prefix}{order}").into(),
            plugins: None,
            group: GroupLink::Alone,
            labels: None,
        });
        let data = ByPrefix {
            prefix: prefix.into(),
            secret: Arc::new(()),
        };
        let entry = CredentialEntry::new(consumer, order, None, Some(Arc::new(data)));
        (digest(&KEY, prefix.as_bytes()), entry)
    }

    fn orders(index: &CredentialIndex, presented: &str) -> Vec<u32> {
        let candidates = index.candidates(presented.as_bytes());
        candidates.map(|entry| entry.order).collect()
    }

    #[test]
    fn candidates_are_those_whose_prefix_begins_the_secret() {
        let (whole, mut grown) = {
            let entries = [
                ("", 4),
                ("abcd", 2),
                ("abcd", 1),
                ("abcdef", 3),
                ("xyzw", 0),
            ];
            let entries = entries.map(|(prefix, order)| entry(prefix, order));
            let mut grown = CredentialIndex::new(KEY);
            for (digest, entry) in entries.clone() {
                grown.insert_digest(digest, entry);
            }
            (CredentialIndex::of(KEY, entries.into()), grown)
        };
        for index in [&whole, &grown] {
            assert_eq!(orders(index, "abcdefgh"), [4, 1, 2, 3]);
            assert_eq!(orders(index, "abcd"), [4, 1, 2]);
            assert_eq!(orders(index, "abc"), [4]);
            assert_eq!(orders(index, "xyzw-"), [4, 0]);
            assert_eq!(index.len(), 5);
            assert!(index.find(b"abcd").is_none(), "a prefix is no secret");
            assert_eq!(index.contests().count(), 0, "prefixes may be shared");
            assert!(index.decoy(b"abcd").is_none());
        }
        grown.remove_digest(&digest(&KEY, b"abcd"), 1);
        grown.remove_digest(&digest(&KEY, b""), 4);
        grown.remove_digest(&digest(&KEY, b""), 4);
        assert_eq!(orders(&grown, "abcdefgh"), [2, 3]);
        assert_eq!(orders(&grown, "x"), [0; 0]);
        assert_eq!(grown.len(), 3);
        assert_eq!(orders(&whole, "abcd"), [4, 1, 2], "copies are apart");
    }

    #[test]
    fn no_secret_has_more_candidates_than_that_and_the_rest_is_told() {
        let mut entries: Vec<_> = (0..10).map(|order| entry("", order)).collect();
        entries.extend((10..30).map(|order| entry("abcd", order)));
        entries.push(entry("wxyz", 30));
        let index = CredentialIndex::of(KEY, entries);
        assert_eq!(orders(&index, "abcd!"), (0..16).collect::<Vec<_>>());
        assert_eq!(orders(&index, "wxyz!").len(), 11);
        let mut crowded: Vec<_> = index.crowded_out().iter().map(|e| e.order).collect();
        crowded.sort_unstable();
        assert_eq!(crowded, (16..30).collect::<Vec<_>>());

        let few = CredentialIndex::of(KEY, (0..16).map(|order| entry("", order)).collect());
        assert!(few.crowded_out().is_empty());
    }
}
