//! How the secret of a credential is kept: as a keyed digest, or as the hash that was configured.

use std::sync::Arc;

use super::phc::Hash;
use super::verifier::Hashed;
use crate::consumer::{Digest, digest};
use crate::plugins::def::{BuildError, CredentialCtx};
use crate::secrets::{Reference, Secret};

/// A secret nobody can read out.
pub(super) enum Stored {
    /// Digest of a secret that was configured as it is.
    Plain(Digest),
    /// The hash that was configured in its place.
    Hashed(Arc<Hashed>),
}

impl Stored {
    /// Keeps what `field` holds.
    pub(super) fn new(
        field: &str,
        secret: &Secret,
        ctx: &CredentialCtx<'_>,
    ) -> Result<Self, BuildError> {
        let refused = |message| Err(BuildError::invalid(field, message));
        if secret.is_empty() {
            return refused("must not be empty");
        }
        let text = secret.expose_str().unwrap_or_default();
        if Reference::is_reference(text) {
            return refused("reference has no value");
        }
        match Hash::parse(text) {
            None => Ok(Self::Plain(digest(ctx.digest_key, secret.expose()))),
            Some(Ok(hash)) => {
                let hashed = Hashed::new(hash, text, ctx.digest_key, ctx.kept);
                Ok(Self::Hashed(Arc::new(hashed)))
            }
            Some(Err(message)) => refused(message),
        }
    }
}
