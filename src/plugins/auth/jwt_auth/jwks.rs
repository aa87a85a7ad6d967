//! Key sets of a credential (ours): `jwks`, the set itself or its text, and `jwks_uri`. For the latter
//! `config` put a reference in the address's place, so that here too the set's text arrives.

use serde_json::Value;

use super::credential::NamedKey;
use crate::jwt::{Algorithm, JwkFault, JwkRules, JwkSet, VerifyingKey};
use crate::plugins::def::{BuildError, CredentialCtx};

/// The keys of a credential's set: the one without a name, and those with.
#[derive(Default)]
pub(super) struct SetKeys {
    pub(super) plain: Option<VerifyingKey>,
    pub(super) named: Vec<NamedKey>,
}

/// Reads the set of these settings, where they hold one. `algorithm` is the credential's.
pub(super) fn read(
    settings: &Value,
    algorithm: Option<Algorithm>,
    ctx: &CredentialCtx<'_>,
) -> Result<Option<SetKeys>, BuildError> {
    let (field, set) = match FIELDS.map(|field| settings.get(field)) {
        [None, None] => return Ok(None),
        [Some(_), Some(_)] => {
            let message = "expected one of jwks and jwks_uri, not both";
            return Err(BuildError::invalid(BY_ADDRESS, message));
        }
        [Some(set), None] => (IN_PLACE, set),
        [None, Some(set)] => (BY_ADDRESS, set),
    };
    let rules = JwkRules {
        algorithm,
        // What an address gives, others can read too: a secret in it is none.
        secrets: field == IN_PLACE,
    };
    let set = match set {
        Value::String(text) => JwkSet::parse(text.as_bytes(), rules),
        set => JwkSet::from_value(set, rules),
    };
    let set = set.map_err(|error| BuildError::invalid(field, error.to_string()))?;
    for (place, fault) in &set.ignored {
        // Keys for other purposes are usual.
        if *fault != JwkFault::Purpose {
            ctx.warn(field, format!("key {place} is passed over: {fault}"));
        }
    }
    let mut keys = SetKeys::default();
    for key in set.keys {
        match key.kid {
            Some(kid) => keys.named.push((kid, key.key)),
            None if keys.plain.is_none() => keys.plain = Some(key.key),
            None => ctx.warn(field, "of several keys without kid only the first counts"),
        }
    }
    Ok(Some(keys))
}

const IN_PLACE: &str = "jwks";
const BY_ADDRESS: &str = "jwks_uri";
const FIELDS: [&str; 2] = [IN_PLACE, BY_ADDRESS];
