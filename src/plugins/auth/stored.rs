//! How the secret of a credential is kept: as a keyed digest, or as the hash that was configured.

use std::sync::Arc;

use super::given::given;
use super::phc::Hash;
use super::verifier::Hashed;
use crate::consumer::{Digest, digest};
use crate::plugins::def::{BuildError, CredentialCtx};
use crate::secrets::Secret;

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
        given(field, secret)?;
        let text = secret.expose_str().unwrap_or_default();
        match Hash::parse(text) {
            None => Ok(Self::Plain(digest(ctx.digest_key, secret.expose()))),
            Some(Ok(hash)) => {
                let hashed = Hashed::new(hash, text, ctx.digest_key, ctx.kept);
                Ok(Self::Hashed(Arc::new(hashed)))
            }
            Some(Err(message)) => Err(BuildError::invalid(field, message)),
        }
    }
}
