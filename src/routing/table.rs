//! One table of paths (`spec/00` §9.2): exact paths by hash, prefixes by a trie, and within one
//! pattern priority, then the file's order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::params::{self, ParamTree};
use super::path::{Shape, UriPattern};
use super::trie::{Found, Trie};

/// One way to reach a route: the route's number and the pattern that leads to it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) route: u32,
    pub(super) pattern: UriPattern,
}

type Candidates = SmallVec<[Candidate; 1]>;

/// The read-only table. Small tables, which most hosts have, are searched from end to end.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: Exact,
    prefixes: Prefixes,
}

#[derive(Debug)]
#[expect(clippy::box_collection, reason = "keeps the table of each host small")]
enum Exact {
    Few(Box<[Candidates]>),
    Many(Box<HashMap<Arc<str>, Candidates, ahash::RandomState>>),
}

#[derive(Debug)]
enum Prefixes {
    /// Longest first.
    Few(Box<[Group]>),
    Many(Box<ManyPrefixes>),
}

/// Prefixes that end at a segment's end are found by hash, one question per slash of the path;
/// the others, which are rare, by a trie. Both answer longest first.
#[derive(Debug)]
struct ManyPrefixes {
    at_slash: HashMap<Box<str>, Group, ahash::RandomState>,
    /// Longest key of `at_slash`: what is longer in a path is not asked for.
    longest: usize,
    others: Trie<Group>,
}

/// Up to so many keys are compared one by one.
const FEW: usize = 8;

impl Default for Exact {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Default for Prefixes {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

/// All patterns with one literal prefix, in order.
#[derive(Debug)]
struct Group {
    candidates: Candidates,
    params: Option<Box<ParamGroup>>,
}

/// Set where at least one pattern of the group has parameters.
#[derive(Debug)]
struct ParamGroup {
    /// Ranks of plain prefixes: they match whatever comes behind.
    plain: Vec<u32>,
    tree: ParamTree,
}

impl PathTable {
    /// The first candidate in order that `accepts`.
    pub(super) fn find<'t>(
        &'t self,
        path: &str,
        mut accepts: impl FnMut(&'t Candidate) -> bool,
    ) -> Option<&'t Candidate> {
        if let Some(candidates) = self.exact.find(path)
            && let Some(candidate) = candidates.iter().find(|candidate| accepts(candidate))
        {
            return Some(candidate);
        }
        match &self.prefixes {
            Prefixes::Few(groups) => groups
                .iter()
                .filter(|group| path.starts_with(group.prefix()))
                .find_map(|group| group.find(path, &mut accepts)),
            Prefixes::Many(many) => many.find(path, &mut accepts),
        }
    }
}

impl Exact {
    fn build(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|left, right| left.text().cmp(right.text()));
        let runs = runs(entries, |entry| entry.text());
        if runs.len() <= FEW {
            return Self::Few(runs.into_iter().map(ordered).collect());
        }
        let keyed = runs
            .into_iter()
            .map(|run| (run[0].text().clone(), ordered(run)));
        Self::Many(Box::new(keyed.collect()))
    }

    fn find(&self, path: &str) -> Option<&Candidates> {
        match self {
            Self::Few(all) => all.iter().find(|candidates| {
                let first = candidates.first();
                first.is_some_and(|candidate| &**candidate.pattern.text() == path)
            }),
            Self::Many(all) => all.get(path),
        }
    }
}

impl Prefixes {
    fn build(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|left, right| left.prefix().cmp(right.prefix()));
        let runs = runs(entries, |entry| entry.prefix());
        if runs.len() <= FEW {
            let mut groups: Vec<_> = runs.into_iter().map(group).collect();
            groups.sort_by_key(|group| Reverse(group.prefix().len()));
            return Self::Few(groups.into_boxed_slice());
        }
        let mut at_slash = HashMap::with_capacity_and_hasher(runs.len(), ahash::RandomState::new());
        let mut others = Vec::new();
        for group in runs.into_iter().map(group) {
            let prefix: Box<str> = group.prefix().into();
            if prefix.ends_with('/') {
                at_slash.insert(prefix, group);
            } else {
                others.push((prefix.into_boxed_bytes(), group));
            }
        }
        Self::Many(Box::new(ManyPrefixes {
            longest: at_slash
                .keys()
                .map(|prefix| prefix.len())
                .max()
                .unwrap_or(0),
            at_slash,
            others: Trie::build(others),
        }))
    }
}

impl ManyPrefixes {
    fn find<'t>(
        &'t self,
        path: &str,
        accepts: &mut impl FnMut(&'t Candidate) -> bool,
    ) -> Option<&'t Candidate> {
        let mut others = Found::new();
        self.others.prefixes_of(path.as_bytes(), &mut others);
        let mut others = others
            .iter()
            .rev()
            .map(|&position| self.others.value(position))
            .peekable();
        let bytes = &path.as_bytes()[..path.len().min(self.longest)];
        for slash in memchr::memrchr_iter(b'/', bytes) {
            let Some(group) = self.at_slash.get(&path[..=slash]) else {
                continue;
            };
            while let Some(longer) = others.next_if(|other| other.prefix().len() > slash + 1) {
                if let Some(found) = longer.find(path, accepts) {
                    return Some(found);
                }
            }
            if let Some(found) = group.find(path, accepts) {
                return Some(found);
            }
        }
        others.find_map(|group| group.find(path, accepts))
    }
}

impl Group {
    fn prefix(&self) -> &str {
        let first = self.candidates.first();
        first.map_or("", |candidate| candidate.pattern.literal_prefix())
    }

    fn find<'t>(
        &'t self,
        path: &str,
        accepts: &mut impl FnMut(&'t Candidate) -> bool,
    ) -> Option<&'t Candidate> {
        let Some(params) = &self.params else {
            return self.candidates.iter().find(|candidate| accepts(candidate));
        };
        let mut ranks = Found::from_slice(&params.plain);
        params
            .tree
            .collect(path.get(self.prefix().len()..), &mut ranks);
        ranks.sort_unstable();
        let ranked = ranks.iter().map(|&rank| &self.candidates[rank as usize]);
        ranked.into_iter().find(|candidate| accepts(candidate))
    }
}

/// Collects candidates before the table is read-only.
#[derive(Default)]
pub(super) struct Builder {
    exact: Vec<Entry>,
    prefixes: Vec<Entry>,
}

struct Entry {
    priority: i64,
    candidate: Candidate,
}

impl Entry {
    fn text(&self) -> &Arc<str> {
        self.candidate.pattern.text()
    }

    fn prefix(&self) -> &str {
        self.candidate.pattern.literal_prefix()
    }
}

impl Builder {
    /// Adds a route under each of its patterns. Routes come in file order.
    pub(super) fn add(&mut self, route: u32, uris: &[UriPattern], priority: i64) {
        for pattern in uris {
            let entries = match pattern.shape() {
                Shape::Exact => &mut self.exact,
                Shape::Prefix | Shape::Params(_) => &mut self.prefixes,
            };
            let pattern = pattern.clone();
            entries.push(Entry {
                priority,
                candidate: Candidate { route, pattern },
            });
        }
    }

    /// The finished table.
    pub(super) fn finish(self) -> PathTable {
        PathTable {
            exact: Exact::build(self.exact),
            prefixes: Prefixes::build(self.prefixes),
        }
    }
}

/// Splits sorted entries where the key changes.
fn runs<K: PartialEq + ?Sized>(entries: Vec<Entry>, key: impl Fn(&Entry) -> &K) -> Vec<Vec<Entry>> {
    let mut runs: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        match runs.last_mut() {
            Some(run) if key(&run[0]) == key(&entry) => run.push(entry),
            _ => runs.push(vec![entry]),
        }
    }
    runs
}

/// Priority first, then the longer pattern as written, then the file's order (the sort is stable).
fn ordered(mut entries: Vec<Entry>) -> Candidates {
    entries.sort_by_key(|entry| {
        (
            Reverse(entry.priority),
            Reverse(entry.candidate.pattern.text().len()),
        )
    });
    entries.into_iter().map(|entry| entry.candidate).collect()
}

fn group(entries: Vec<Entry>) -> Group {
    let candidates = ordered(entries);
    let mut plain = Vec::new();
    let mut tree = params::Builder::default();
    for (rank, candidate) in (0_u32..).zip(&candidates) {
        match candidate.pattern.shape() {
            Shape::Params(params) => tree.add(&params.segments, rank),
            Shape::Exact | Shape::Prefix => plain.push(rank),
        }
    }
    let params = (plain.len() < candidates.len()).then(|| {
        Box::new(ParamGroup {
            plain,
            tree: tree.finish(),
        })
    });
    Group { candidates, params }
}
