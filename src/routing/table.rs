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

/// The read-only table.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: HashMap<Arc<str>, Candidates, ahash::RandomState>,
    prefixes: Trie<Group>,
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
        if let Some(candidates) = self.exact.get(path)
            && let Some(candidate) = candidates.iter().find(|candidate| accepts(candidate))
        {
            return Some(candidate);
        }
        let mut prefixes = Found::new();
        self.prefixes.prefixes_of(path.as_bytes(), &mut prefixes);
        let mut longest_first = prefixes.into_iter().rev();
        longest_first.find_map(|position| self.prefixes.value(position).find(path, &mut accepts))
    }
}

impl Group {
    fn find<'t>(
        &'t self,
        path: &str,
        accepts: &mut impl FnMut(&'t Candidate) -> bool,
    ) -> Option<&'t Candidate> {
        let Some(params) = &self.params else {
            return self.candidates.iter().find(|candidate| accepts(candidate));
        };
        let prefix = self.candidates.first()?.pattern.literal_prefix().len();
        let mut ranks = Found::from_slice(&params.plain);
        params.tree.collect(path.get(prefix..), &mut ranks);
        ranks.sort_unstable();
        let ranked = ranks.iter().map(|&rank| &self.candidates[rank as usize]);
        ranked.into_iter().find(|candidate| accepts(candidate))
    }
}

/// Collects candidates before the table is read-only.
#[derive(Default)]
pub(super) struct Builder {
    exact: HashMap<Arc<str>, Vec<Entry>, ahash::RandomState>,
    prefixes: HashMap<Box<str>, Vec<Entry>, ahash::RandomState>,
}

struct Entry {
    priority: i64,
    candidate: Candidate,
}

impl Builder {
    /// Adds a route under each of its patterns. Routes come in file order.
    pub(super) fn add(&mut self, route: u32, uris: &[UriPattern], priority: i64) {
        for pattern in uris {
            let entry = Entry {
                priority,
                candidate: Candidate {
                    route,
                    pattern: pattern.clone(),
                },
            };
            let entries = match pattern.shape() {
                Shape::Exact => self.exact.entry(pattern.text().clone()).or_default(),
                Shape::Prefix | Shape::Params(_) => {
                    let prefix = pattern.literal_prefix();
                    if !self.prefixes.contains_key(prefix) {
                        self.prefixes.insert(prefix.into(), Vec::new());
                    }
                    self.prefixes
                        .get_mut(prefix)
                        .expect("it was just put there")
                }
            };
            entries.push(entry);
        }
    }

    /// The finished table.
    pub(super) fn finish(self) -> PathTable {
        let hasher = self.exact.hasher().clone();
        let mut exact = HashMap::with_capacity_and_hasher(self.exact.len(), hasher);
        for (path, entries) in self.exact {
            exact.insert(path, ordered(entries));
        }
        let prefixes = self.prefixes.into_iter();
        PathTable {
            exact,
            prefixes: Trie::build(
                prefixes
                    .map(|(prefix, entries)| (prefix.into_boxed_bytes(), group(entries)))
                    .collect(),
            ),
        }
    }
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
