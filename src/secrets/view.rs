//! What the references of a configuration are worth at one moment. Immutable; a newer view shares
//! every part that did not change with the older one.

use std::collections::HashMap;
use std::sync::Arc;

use super::value::Secret;

/// A resolved reference.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The value; never empty.
    pub value: Arc<Secret>,
    /// Changes exactly when the value does; unique within the process.
    pub version: u64,
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

type Shard = HashMap<Arc<str>, Outcome, ahash::RandomState>;

/// Values of references at one moment. Cheap to clone, immutable.
#[derive(Debug, Clone)]
pub struct View {
    shards: Arc<[Arc<Shard>]>,
    hasher: ahash::RandomState,
}

impl View {
    /// A view of these outcomes, by reference text.
    #[must_use]
    pub fn new(outcomes: HashMap<Box<str>, Outcome>) -> Self {
        let mut builder = ViewBuilder::new();
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
        match self.find(reference) {
            Some(Ok(resolved)) => Ok(resolved),
            Some(Err(unresolved)) => Err(unresolved.clone()),
            None => Err(Unresolved::because("reference was not asked for")),
        }
    }

    /// References whose value or state differs from `older`, in no order. Costs in proportion to
    /// what changed when both come from one [`crate::secrets::Secrets`].
    #[must_use]
    pub fn changed_since(&self, older: &Self) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            if older
                .shards
                .get(index)
                .is_some_and(|old| Arc::ptr_eq(old, shard))
            {
                continue;
            }
            let differs = |(reference, outcome): &(&Arc<str>, &Outcome)| {
                older.find(reference).map(fingerprint) != Some(fingerprint(outcome))
            };
            changed.extend(
                shard
                    .iter()
                    .filter(differs)
                    .map(|(text, _)| Arc::clone(text)),
            );
        }
        for (index, shard) in older.shards.iter().enumerate() {
            if self
                .shards
                .get(index)
                .is_some_and(|new| Arc::ptr_eq(new, shard))
            {
                continue;
            }
            let gone = |text: &&Arc<str>| self.find(text).is_none();
            changed.extend(shard.keys().filter(gone).map(Arc::clone));
        }
        changed
    }

    /// Every reference and its outcome, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Outcome)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    fn find(&self, reference: &str) -> Option<&Outcome> {
        self.shards
            .get(shard_of(&self.hasher, reference))?
            .get(reference)
    }
}

impl Default for View {
    fn default() -> Self {
        Self {
            shards: Arc::default(),
            hasher: ahash::RandomState::with_seed(0),
        }
    }
}

/// Makes views that share what did not change in between.
#[derive(Debug)]
pub(super) struct ViewBuilder {
    shards: Vec<Arc<Shard>>,
    hasher: ahash::RandomState,
}

impl ViewBuilder {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            hasher: ahash::RandomState::new(),
        }
    }

    pub(super) fn set(&mut self, reference: Arc<str>, outcome: Outcome) {
        Arc::make_mut(&mut self.shards[shard_of(&self.hasher, &reference)])
            .insert(reference, outcome);
    }

    pub(super) fn find(&self, reference: &str) -> Option<&Outcome> {
        self.shards[shard_of(&self.hasher, reference)].get(reference)
    }

    pub(super) fn remove(&mut self, reference: &str) {
        Arc::make_mut(&mut self.shards[shard_of(&self.hasher, reference)]).remove(reference);
    }

    pub(super) fn view(&self) -> View {
        View {
            shards: self.shards.as_slice().into(),
            hasher: self.hasher.clone(),
        }
    }
}

fn shard_of(hasher: &ahash::RandomState, reference: &str) -> usize {
    usize::try_from(hasher.hash_one(reference) % SHARDS).unwrap_or_default()
}

fn fingerprint(outcome: &Outcome) -> Result<u64, &str> {
    match outcome {
        Ok(resolved) => Ok(resolved.version),
        Err(unresolved) => Err(&unresolved.reason),
    }
}

/// Among 100 000 references one change copies about 400 entries.
const SHARDS: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, version: u64) -> Outcome {
        Ok(Resolved {
            value: Arc::new(Secret::from(text.to_owned())),
            version,
        })
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
    fn views_of_different_makers_compare_by_version() {
        let of = |version| View::new([("$env://A".into(), resolved("1", version))].into());
        assert!(of(1).changed_since(&of(1)).is_empty());
        assert_eq!(of(2).changed_since(&of(1)).len(), 1);
    }
}
