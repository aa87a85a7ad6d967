//! What the references of a configuration are worth at one moment.

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

/// Values of references at one moment. Cheap to clone, immutable.
#[derive(Debug, Clone, Default)]
pub struct View(Arc<HashMap<Box<str>, Result<Resolved, Unresolved>>>);

impl View {
    /// A view of these outcomes, by reference text.
    #[must_use]
    pub fn new(outcomes: HashMap<Box<str>, Result<Resolved, Unresolved>>) -> Self {
        Self(Arc::new(outcomes))
    }

    /// What the reference is worth.
    ///
    /// # Errors
    /// It is not a value now; whoever needs it must refuse.
    pub fn resolve(&self, reference: &str) -> Result<&Resolved, Unresolved> {
        match self.0.get(reference) {
            Some(Ok(resolved)) => Ok(resolved),
            Some(Err(unresolved)) => Err(unresolved.clone()),
            None => Err(Unresolved {
                reason: "reference was not asked for".into(),
            }),
        }
    }
}
