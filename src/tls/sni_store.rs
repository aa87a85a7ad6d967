//! Which identity serves a name (`spec/04` §1): exact, then wildcard, then `*`. Lookup is two hash
//! probes however many names there are, and allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::identity::TlsIdentity;
use super::sni::{MAX_NAME, lower_case};

/// An identity and the names it is for.
pub struct SniEntry {
    /// Exact names, `*.suffix` or `*`; case and one trailing dot do not matter.
    pub patterns: Vec<Box<str>>,
    /// What they present.
    pub identity: Arc<TlsIdentity>,
}

/// A pattern that can never be chosen, because an earlier item has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadowed {
    /// The pattern.
    pub pattern: Box<str>,
    /// The item it stands in.
    pub id: Arc<str>,
    /// The earlier item that serves it.
    pub by: Arc<str>,
}

/// All names of a snapshot, and who serves them. A store with some identities replaced shares all
/// the rest with the one it was made of.
#[derive(Clone, Default)]
pub struct SniStore {
    names: Arc<Names>,
    identities: Identities,
}

/// Which identity a name leads to, by position.
#[derive(Default)]
struct Names {
    exact: Positions,
    /// By what follows the first label: `*.a.test` stands under `a.test`.
    wildcard: Positions,
    any: Option<u32>,
    shadowed: Vec<Shadowed>,
}

type Positions = HashMap<Box<str>, u32, ahash::RandomState>;

/// Identities in file order, in blocks, so that one is replaced by copying its block and the list of
/// blocks.
#[derive(Clone, Default)]
struct Identities {
    blocks: Arc<Vec<Block>>,
    len: usize,
}

type Block = Arc<Vec<Arc<TlsIdentity>>>;

impl SniStore {
    /// A store of these entries, in file order: of two with the same pattern the first wins.
    #[must_use]
    pub fn build(entries: Vec<SniEntry>) -> Self {
        let mut names = Names::default();
        let identities: Vec<_> = entries
            .iter()
            .map(|entry| Arc::clone(&entry.identity))
            .collect();
        for (position, entry) in (0..).zip(entries) {
            for pattern in entry.patterns {
                names.insert(pattern, position, &identities);
            }
        }
        Self {
            names: Arc::new(names),
            identities: Identities::of(&identities),
        }
    }

    /// The same names with other identities at these positions. Costs in proportion to how many they
    /// are; positions that do not exist are passed over.
    #[must_use]
    pub fn with(&self, changed: impl IntoIterator<Item = (usize, Arc<TlsIdentity>)>) -> Self {
        let mut store = self.clone();
        for (position, identity) in changed {
            store.identities.replace(position, identity);
        }
        store
    }

    /// The identity that serves this name; `None` where no item does. Case does not matter; a
    /// trailing dot must be gone already.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<TlsIdentity>> {
        let mut buffer = [0; MAX_NAME];
        let name = lower_case(name, &mut buffer)?;
        self.find_lower_case(name)
    }

    /// [`Self::find`] for a name that is lower case already.
    #[must_use]
    pub fn find_lower_case(&self, name: &str) -> Option<&Arc<TlsIdentity>> {
        self.identities.at(self.names.find(name)?)
    }

    /// For a name that no item serves: the closest of the guarded wildcards above it. No handshake can
    /// be for such a name, but a request can, and routes take `*.suffix` for names of any depth.
    #[must_use]
    pub fn guard_above(&self, name: &str) -> Option<&Arc<TlsIdentity>> {
        let mut buffer = [0; MAX_NAME];
        let name = lower_case(name, &mut buffer)?;
        let wildcard = &self.names.wildcard;
        let dots = memchr::memchr_iter(b'.', name.as_bytes()).filter(|_| !wildcard.is_empty());
        let above = dots.filter_map(|dot| wildcard.get(&name[dot + 1..]));
        let mut above = above.filter_map(|position| self.identities.at(*position));
        above.find(|identity| identity.guards_clients)
    }

    /// Patterns that can never be chosen.
    #[must_use]
    pub fn shadowed(&self) -> &[Shadowed] {
        &self.names.shadowed
    }

    /// All identities, in file order.
    pub fn identities(&self) -> impl ExactSizeIterator<Item = &Arc<TlsIdentity>> {
        let count = self.identities.len;
        let all = self.identities.blocks.iter().flat_map(|block| block.iter());
        Counted { all, left: count }
    }
}

impl Names {
    fn find(&self, name: &str) -> Option<u32> {
        if let Some(position) = self.exact.get(name) {
            return Some(*position);
        }
        // Exactly one label may stand for the star, so exactly one suffix can match.
        if !self.wildcard.is_empty()
            && let Some((label, suffix)) = name.split_once('.')
            && !label.is_empty()
            && let Some(position) = self.wildcard.get(suffix)
        {
            return Some(*position);
        }
        self.any
    }

    fn insert(&mut self, pattern: Box<str>, position: u32, identities: &[Arc<TlsIdentity>]) {
        let mut name = pattern.to_ascii_lowercase();
        if name.ends_with('.') {
            name.pop();
        }
        let first = if name == "*" {
            *self.any.get_or_insert(position)
        } else {
            let (names, key) = match name.strip_prefix("*.") {
                Some(suffix) => (&mut self.wildcard, suffix.into()),
                None => (&mut self.exact, name.into_boxed_str()),
            };
            *names.entry(key).or_insert(position)
        };
        let id = |position: u32| {
            let identity = identities.get(position as usize);
            identity.map(|identity| Arc::clone(&identity.id))
        };
        if first != position
            && let (Some(id), Some(by)) = (id(position), id(first))
        {
            self.shadowed.push(Shadowed { pattern, id, by });
        }
    }
}

impl Identities {
    fn of(identities: &[Arc<TlsIdentity>]) -> Self {
        let blocks = identities
            .chunks(BLOCK)
            .map(|block| Arc::new(block.to_vec()));
        Self {
            blocks: Arc::new(blocks.collect()),
            len: identities.len(),
        }
    }

    fn at(&self, position: u32) -> Option<&Arc<TlsIdentity>> {
        let position = position as usize;
        self.blocks.get(position / BLOCK)?.get(position % BLOCK)
    }

    fn replace(&mut self, position: usize, identity: Arc<TlsIdentity>) {
        if position >= self.len {
            return;
        }
        let block = &mut Arc::make_mut(&mut self.blocks)[position / BLOCK];
        Arc::make_mut(block)[position % BLOCK] = identity;
    }
}

/// An iterator that knows how many items are left.
struct Counted<I> {
    all: I,
    left: usize,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let next = self.all.next()?;
        self.left -= 1;
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

/// About the root of the number of identities there may be, so that block and list of blocks are of
/// one size.
const BLOCK: usize = 256;

/// Whether a certificate's `name` covers the configured `pattern`: the same, or a wildcard for
/// exactly its first label. Case does not matter.
pub(super) fn covers(name: &str, pattern: &str) -> bool {
    if name.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let (Some(suffix), Some((label, rest))) = (name.strip_prefix("*."), pattern.split_once('.'))
    else {
        return false;
    };
    label != "*" && suffix.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::policy::{Protocols, TlsPolicy};

    fn store(entries: &[(&str, &[&str])]) -> SniStore {
        let entry = |(id, patterns): &(&str, &[&str])| SniEntry {
            patterns: patterns.iter().map(|&pattern| pattern.into()).collect(),
            identity: Arc::new(TlsIdentity::refused(
                (*id).into(),
                "test",
                TlsPolicy::new(id, Protocols::default(), None, 0),
            )),
        };
        SniStore::build(entries.iter().map(entry).collect())
    }

    fn found<'s>(store: &'s SniStore, name: &str) -> Option<&'s str> {
        store.find(name).map(|identity| &*identity.id)
    }

    #[test]
    fn exact_beats_wildcard_beats_star() {
        let store = store(&[
            ("any", &["*"]),
            ("wild", &["*.a.test"]),
            ("deeper", &["*.b.a.test"]),
            ("exact", &["x.a.test"]),
        ]);
        assert_eq!(found(&store, "X.A.test"), Some("exact"));
        assert_eq!(found(&store, "y.a.test"), Some("wild"));
        assert_eq!(found(&store, "y.b.a.test"), Some("deeper"));
        assert_eq!(found(&store, "a.test"), Some("any"));
        assert_eq!(found(&store, "z.y.b.a.test"), Some("any"));
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let store = store(&[("wild", &["*.a.test"])]);
        assert_eq!(found(&store, "b.a.test"), Some("wild"));
        assert_eq!(found(&store, "c.b.a.test"), None);
        assert_eq!(found(&store, "a.test"), None);
        assert_eq!(found(&store, ".a.test"), None);
    }

    #[test]
    fn names_that_nobody_serves_are_guarded_by_the_wildcards_above_them() {
        let identity = |id: &str, guards_clients| {
            let policy = TlsPolicy::new(id, Protocols::default(), None, 0);
            let mut identity = TlsIdentity::refused(id.into(), "test", policy);
            identity.guards_clients = guards_clients;
            Arc::new(identity)
        };
        let entry = |pattern: &str, guards_clients| SniEntry {
            patterns: vec![pattern.into()],
            identity: identity(pattern, guards_clients),
        };
        let store = SniStore::build(vec![
            entry("*.w.test", true),
            entry("*.open.w.test", false),
            entry("*.o.test", false),
            entry("m.test", true),
        ]);
        let above = |name| store.guard_above(name).map(|identity| &*identity.id);
        for name in ["a.b.w.test", "A.B.C.W.test", "a.b.open.w.test"] {
            assert_eq!(found(&store, name), None);
            assert_eq!(above(name), Some("*.w.test"), "{name}");
        }
        for name in [
            "w.test",
            "a.b.o.test",
            "a.m.test",
            "a.b.w.test.",
            "test",
            "",
        ] {
            assert_eq!(above(name), None, "{name}");
        }
        assert_eq!(above(&"a.".repeat(200)), None);
    }

    #[test]
    fn the_first_of_two_equal_patterns_wins_and_the_other_is_reported() {
        let store = store(&[
            ("1", &["A.test.", "*", "*.a.test"]),
            ("2", &["a.test", "*", "*.A.test"]),
        ]);
        assert_eq!(found(&store, "a.test"), Some("1"));
        assert_eq!(found(&store, "b.a.test"), Some("1"));
        assert_eq!(found(&store, "other"), Some("1"));
        let patterns: Vec<_> = store.shadowed().iter().map(|one| &*one.pattern).collect();
        assert_eq!(patterns, ["a.test", "*", "*.A.test"]);
    }

    #[test]
    fn a_replaced_identity_serves_the_names_of_the_one_before_and_changes_nothing_else() {
        let names: Vec<_> = (0..1000).map(|n| format!("{n}.test")).collect();
        let entries: Vec<_> = names.iter().map(|name| (&**name, [&**name])).collect();
        let entries: Vec<(&str, &[&str])> =
            entries.iter().map(|(id, all)| (*id, &all[..])).collect();
        let older = store(&entries);
        let other = |id: &str| {
            let policy = TlsPolicy::new(id, Protocols::default(), None, 0);
            Arc::new(TlsIdentity::refused(id.into(), "test", policy))
        };
        let newer = older.with([
            (0, other("new 0")),
            (999, other("new 999")),
            (1000, other("none")),
        ]);
        let expected = |n: usize| match n {
            0 => "new 0".to_owned(),
            999 => "new 999".to_owned(),
            n => format!("{n}.test"),
        };
        for (n, name) in names.iter().enumerate() {
            assert_eq!(found(&older, name), Some(&**name));
            assert_eq!(found(&newer, name), Some(&*expected(n)));
        }
        assert_eq!(newer.identities().len(), 1000);
        let ids: Vec<_> = newer
            .identities()
            .map(|identity| identity.id.to_string())
            .collect();
        assert_eq!(ids, (0..1000).map(expected).collect::<Vec<_>>());
        let shared = older
            .identities
            .blocks
            .iter()
            .zip(newer.identities.blocks.iter());
        let shared = shared
            .filter(|(older, newer)| Arc::ptr_eq(older, newer))
            .count();
        assert_eq!(shared, 2, "of four blocks the first and the last changed");
        assert!(Arc::ptr_eq(&older.names, &newer.names));
    }

    #[test]
    fn names_too_long_for_any_certificate_are_not_found() {
        let store = store(&[("any", &["*"])]);
        assert_eq!(found(&store, &"a".repeat(256)), None);
    }
}
