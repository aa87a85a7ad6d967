//! What holds for every text of a credential: it is not empty, and the text of a reference is none,
//! neither where it is declared nor where a client presents it.

use crate::plugins::def::BuildError;
use crate::secrets::{Reference, Secret};

/// Refuses what `field` declares where it is empty, or a reference that nothing stands behind.
pub(super) fn given(field: &str, text: &Secret) -> Result<(), BuildError> {
    if text.is_empty() {
        return Err(BuildError::invalid(field, "must not be empty"));
    }
    resolved(field, text)
}

/// Refuses what `field` declares where it is a reference that nothing stands behind.
pub(super) fn resolved(field: &str, text: &Secret) -> Result<(), BuildError> {
    if is_reference(text.expose()) {
        return Err(BuildError::invalid(field, "reference has no value"));
    }
    Ok(())
}

/// Whether what a client presents is the text of a reference: what could not be resolved must not
/// become a password.
pub(super) fn is_reference(presented: &[u8]) -> bool {
    std::str::from_utf8(presented).is_ok_and(Reference::is_reference)
}
