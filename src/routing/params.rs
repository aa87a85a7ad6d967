//! The tree of patterns that share a literal prefix and have parameters behind it: finds all that
//! match a path without looking at those that do not.

use std::collections::HashMap;

use super::path::Segment;
use super::trie::{Found, Trie};

/// One segment's choices. Numbers are ranks in the group's order.
#[derive(Debug, Default)]
pub(super) struct ParamTree {
    literals: HashMap<Box<str>, ParamTree, ahash::RandomState>,
    param: Option<Box<ParamTree>>,
    /// Patterns that end here.
    ends: Vec<u32>,
    /// Patterns that take the rest of the path from here, by the literal before their asterisk.
    rests: Trie<Vec<u32>>,
}

/// Collects patterns before the tree is read-only.
#[derive(Default)]
pub(super) struct Builder {
    literals: HashMap<Box<str>, Builder, ahash::RandomState>,
    param: Option<Box<Builder>>,
    ends: Vec<u32>,
    rests: HashMap<Box<str>, Vec<u32>, ahash::RandomState>,
}

impl Builder {
    /// Adds the segments of the pattern of that rank.
    pub(super) fn add(&mut self, segments: &[Segment], rank: u32) {
        let Some((segment, after)) = segments.split_first() else {
            self.ends.push(rank);
            return;
        };
        match segment {
            Segment::Literal(text) => {
                self.literals
                    .entry(text.clone())
                    .or_default()
                    .add(after, rank);
            }
            Segment::Param(_) => self.param.get_or_insert_default().add(after, rank),
            Segment::Rest(literal, _) => {
                self.rests.entry(literal.clone()).or_default().push(rank);
            }
        }
    }

    /// The finished tree.
    pub(super) fn finish(self) -> ParamTree {
        let rests = self.rests.into_iter();
        ParamTree {
            literals: self
                .literals
                .into_iter()
                .map(|(text, below)| (text, below.finish()))
                .collect(),
            param: self.param.map(|below| Box::new(below.finish())),
            ends: self.ends,
            rests: Trie::build(
                rests
                    .map(|(text, ranks)| (text.into_boxed_bytes(), ranks))
                    .collect(),
            ),
        }
    }
}

impl ParamTree {
    /// Adds the ranks of all patterns that match `rest`, the path behind the literal prefix;
    /// `None` where the path has ended. Depth is bounded by the patterns' own.
    pub(super) fn collect(&self, rest: Option<&str>, ranks: &mut Found) {
        let Some(rest) = rest else {
            ranks.extend_from_slice(&self.ends);
            return;
        };
        if !self.rests.is_empty() {
            let mut found = Found::new();
            self.rests.prefixes_of(rest.as_bytes(), &mut found);
            for position in found {
                ranks.extend_from_slice(self.rests.value(position));
            }
        }
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        if let Some(below) = self.literals.get(segment) {
            below.collect(after, ranks);
        }
        if !segment.is_empty()
            && let Some(below) = &self.param
        {
            below.collect(after, ranks);
        }
    }
}
