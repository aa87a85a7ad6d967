//! Reuse: a compiled piece is kept while its declaration and the secrets it read are unchanged,
//! so that its counters, pools and parsed objects survive and one changed route costs one route.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diagnostic::Diagnostic;

/// A compiled piece and what it was made from.
pub(super) struct Unit<T> {
    /// Hash of the declaration, of the versions of the secrets it read, and of the pieces it
    /// was built upon.
    pub stamp: u64,
    /// The piece.
    pub value: T,
    /// What was found while building it; repeated in every snapshot that reuses it. Mostly
    /// nothing, which takes one word.
    #[expect(
        clippy::box_collection,
        reason = "a boxed slice takes two words in every piece"
    )]
    pub diagnostics: Option<Box<Vec<Diagnostic>>>,
}

/// One kind's pieces by id.
pub(super) struct Units<T>(HashMap<Arc<str>, Arc<Unit<T>>, ahash::RandomState>);

impl<T> Default for Units<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T> Units<T> {
    /// Room for `count` pieces.
    #[must_use]
    pub(super) fn with_capacity(count: usize) -> Self {
        Self(HashMap::with_capacity_and_hasher(
            count,
            ahash::RandomState::default(),
        ))
    }

    /// The piece of that id.
    #[must_use]
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Unit<T>>> {
        self.0.get(id)
    }

    /// All pieces.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Unit<T>>)> {
        self.0.iter()
    }

    /// Takes this piece.
    pub(super) fn insert(&mut self, id: &Arc<str>, unit: Arc<Unit<T>>) {
        self.0.insert(Arc::clone(id), unit);
    }

    /// Takes over `previous`' piece where its stamp is still right, else builds it.
    /// Returns the piece and whether it was reused.
    pub(super) fn reuse_or_build(
        &mut self,
        previous: Option<&Self>,
        id: &Arc<str>,
        stamp: u64,
        build: impl FnOnce(Option<&T>, &mut Vec<Diagnostic>) -> T,
    ) -> (Arc<Unit<T>>, bool) {
        let before = previous.and_then(|units| units.get(id));
        let (unit, reused) = reuse_or_build(before, stamp, build);
        self.0.insert(Arc::clone(id), Arc::clone(&unit));
        (unit, reused)
    }
}

/// The piece of before where its stamp is still right, else a new one; and whether it was reused.
pub(super) fn reuse_or_build<T>(
    before: Option<&Arc<Unit<T>>>,
    stamp: u64,
    build: impl FnOnce(Option<&T>, &mut Vec<Diagnostic>) -> T,
) -> (Arc<Unit<T>>, bool) {
    if let Some(unit) = before
        && unit.stamp == stamp
    {
        return (Arc::clone(unit), true);
    }
    let build = |diagnostics: &mut Vec<_>| build(before.map(|unit| &unit.value), diagnostics);
    (self::build(stamp, build), false)
}

/// A new piece.
pub(super) fn build<T>(stamp: u64, build: impl FnOnce(&mut Vec<Diagnostic>) -> T) -> Arc<Unit<T>> {
    let mut diagnostics = Vec::new();
    let value = build(&mut diagnostics);
    diagnostics.shrink_to_fit();
    Arc::new(Unit {
        stamp,
        value,
        diagnostics: (!diagnostics.is_empty()).then(|| Box::new(diagnostics)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_piece_is_the_same_piece() {
        let id: Arc<str> = "1".into();
        let mut first = Units::default();
        let (before, _) = first.reuse_or_build(None, &id, 7, |_, _| "made once");
        let mut second = Units::default();
        let (after, reused) = second.reuse_or_build(Some(&first), &id, 7, |_, _| "made again");
        assert!(reused && Arc::ptr_eq(&before, &after));
        let mut third = Units::default();
        let (changed, reused) = third.reuse_or_build(Some(&second), &id, 8, |_, _| "made again");
        assert!(!reused);
        assert_eq!(changed.value, "made again");
    }
}
