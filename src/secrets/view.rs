//! What the references of a configuration are worth at one moment. Immutable; a newer view shares
//! every part that did not change with the older one.

use std::collections::HashMap;
use std::sync::Arc;

use super::again::{Again, Wishes};
use super::manager::has_one_document;
use super::value::Secret;
use crate::sealed::{Opened, Sealed};
use crate::sharded::{Sharded, Unshared};

/// A resolved reference.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The value; never empty. Sealed: views are kept for as long as a configuration is in force.
    pub value: Arc<Sealed>,
    /// Changes exactly when the value does; unique within the process.
    pub version: u64,
}

impl Resolved {
    /// This value under this version.
    #[must_use]
    pub fn new(value: &Secret, version: u64) -> Self {
        let value = value.seal();
        Self { value, version }
    }

    /// The value, for the moment of its use.
    #[must_use]
    pub fn open(&self) -> Opened {
        self.value.open()
    }
}

/// Why a reference has no value. Names the step, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unresolved {
    /// Such as `field not found`, `manager unreachable`, `no secret conf`.
    pub reason: Arc<str>,
}

impl Unresolved {
    /// Unresolved for this reason.
    pub fn because(reason: impl Into<Arc<str>>) -> Self {
        let reason = reason.into();
        Self { reason }
    }
}

/// What became of one reference.
pub type Outcome = Result<Resolved, Unresolved>;

/// A reference's text and what became of it, by the text's hash.
type Outcomes = Sharded<u64, (Arc<str>, Outcome)>;

/// Values of references at one moment. Cheap to clone, immutable.
#[derive(Debug, Clone, Default)]
pub struct View {
    outcomes: Outcomes,
    wishes: Arc<Wishes>,
}

impl View {
    /// A view of these outcomes, by reference text.
    #[must_use]
    pub fn new(outcomes: HashMap<Box<str>, Outcome>) -> Self {
        let entries = outcomes.into_iter().map(|(reference, outcome)| {
            let reference: Arc<str> = reference.into();
            (hash(&reference), (reference, outcome))
        });
        Self {
            outcomes: Sharded::of(entries.collect()),
            wishes: Arc::default(),
        }
    }

    /// The same with other outcomes of some references. Shares the rest.
    #[must_use]
    pub fn with(&self, outcomes: impl IntoIterator<Item = (Box<str>, Outcome)>) -> Self {
        let mut builder = ViewBuilder(self.clone());
        for (reference, outcome) in outcomes {
            builder.set(reference.into(), outcome);
        }
        builder.view()
    }

    /// What the reference is worth.
    ///
    /// # Errors
    /// It is not a value now; whoever needs it must refuse.
    pub fn resolve(&self, reference: &str) -> Result<&Resolved, Unresolved> {
        match find(&self.outcomes, reference) {
            Some((_, Ok(resolved))) => Ok(resolved),
            Some((_, Err(unresolved))) => Err(unresolved.clone()),
            None => Err(Unresolved::because("reference was not asked for")),
        }
    }

    /// References whose value or state differs from `older`, in no order. Costs in proportion to
    /// what changed when both come from one [`crate::secrets::Secrets`].
    #[must_use]
    pub fn changed_since(&self, older: &Self) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        for Unshared { new, old } in self.outcomes.unshared(&older.outcomes) {
            let differs = new.iter().filter(|(_, (reference, outcome))| {
                let before =
                    find(&older.outcomes, reference).map(|(_, outcome)| fingerprint(outcome));
                before != Some(fingerprint(outcome))
            });
            let gone = old
                .iter()
                .filter(|(_, (reference, _))| find(&self.outcomes, reference).is_none());
            let both = differs.chain(gone);
            changed.extend(both.map(|(_, (reference, _))| Arc::clone(reference)));
        }
        changed
    }

    /// Every reference and its outcome, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Outcome)> {
        self.outcomes
            .iter()
            .map(|(_, (reference, outcome))| (reference, outcome))
    }

    /// A way to have this reference's document read ahead of time. `None` where that would read
    /// others too: only managers of a single document can be asked so.
    #[must_use]
    pub fn again(&self, reference: &str) -> Option<Again> {
        let rest = reference.strip_prefix("$secret://")?;
        let (kind, rest) = rest.split_once('/')?;
        let (name, _) = rest.split_once('/')?;
        has_one_document(kind).then(|| self.wishes.again(&format!("{kind}/{name}")))
    }
}

/// Makes views that share what did not change in between.
#[derive(Debug, Default)]
pub(super) struct ViewBuilder(View);

impl ViewBuilder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn set(&mut self, reference: Arc<str>, outcome: Outcome) {
        let key = hash(&reference);
        let same = |(other, _): &(Arc<str>, Outcome)| *other == reference;
        let entry = (Arc::clone(&reference), outcome);
        if let Err(entry) = self.0.outcomes.replace(&key, entry, same) {
            self.0.outcomes.insert(key, entry, |_| true);
        }
    }

    pub(super) fn find(&self, reference: &str) -> Option<&Outcome> {
        find(&self.0.outcomes, reference).map(|(_, outcome)| outcome)
    }

    pub(super) fn remove(&mut self, reference: &str) {
        self.0
            .outcomes
            .remove(&hash(reference), |(other, _)| **other == *reference);
    }

    pub(super) fn view(&self) -> View {
        self.0.clone()
    }

    /// What users of values ask for.
    pub(super) fn wishes(&self) -> &Wishes {
        &self.0.wishes
    }
}

fn find<'a>(outcomes: &'a Outcomes, reference: &str) -> Option<&'a (Arc<str>, Outcome)> {
    let entries = outcomes.at(&hash(reference)).iter();
    let mut entries = entries.map(|(_, entry)| entry);
    entries.find(|(other, _)| **other == *reference)
}

/// Always the same for a text, so that views of different makers can be told apart shard by shard.
/// Texts come from whoever configures the gateway: nobody gains by making them collide.
fn hash(reference: &str) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(reference)
}

fn fingerprint(outcome: &Outcome) -> Result<u64, &str> {
    match outcome {
        Ok(resolved) => Ok(resolved.version),
        Err(unresolved) => Err(&unresolved.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, version: u64) -> Outcome {
        Ok(Resolved::new(&Secret::from(text.to_owned()), version))
    }

    #[test]
    fn a_reference_nobody_asked_for_is_unresolved() {
        assert!(View::default().resolve("$env://A").is_err());
        assert!(View::new(HashMap::new()).resolve("$env://A").is_err());
    }

    #[test]
    fn an_older_view_keeps_what_it_saw() {
        let mut builder = ViewBuilder::new();
        builder.set("$env://A".into(), resolved("1", 1));
        builder.set("$env://B".into(), resolved("1", 2));
        let older = builder.view();
        builder.set("$env://A".into(), resolved("2", 3));
        builder.remove("$env://B");
        builder.set("$env://C".into(), Err(Unresolved::because("gone")));
        let newer = builder.view();

        assert_eq!(older.resolve("$env://A").expect("resolved").version, 1);
        assert_eq!(newer.resolve("$env://A").expect("resolved").version, 3);
        let mut changed = newer.changed_since(&older);
        changed.sort();
        assert_eq!(changed, ["$env://A", "$env://B", "$env://C"].map(Arc::from));
        assert!(newer.changed_since(&newer).is_empty());
    }

    #[test]
    fn a_view_made_of_another_differs_by_what_was_given() {
        let outcomes = (0..1000_u64).map(|n| (format!("$env://A{n}").into(), resolved("1", n)));
        let older = View::new(outcomes.collect());
        let newer = older.with([("$env://A7".into(), resolved("2", 2000))]);
        assert_eq!(newer.changed_since(&older), ["$env://A7".into()]);
        assert_eq!(newer.iter().count(), 1000);
    }

    #[test]
    fn views_of_different_makers_compare_by_version() {
        let of = |version| View::new([("$env://A".into(), resolved("1", version))].into());
        assert!(of(1).changed_since(&of(1)).is_empty());
        assert_eq!(of(2).changed_since(&of(1)).len(), 1);
    }
}
