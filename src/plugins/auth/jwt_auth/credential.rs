//! What a consumer or credential says about its tokens: its name in them, and its keys.

use std::any::Any;
use std::sync::Arc;

use base64::Engine as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

use super::jwks;
use super::keys::KeySet;
use crate::consumer::CredentialEntry;
use crate::http::loose_base64::WITH_UNUSED_BITS;
use crate::jwt::{Algorithm, Family, VerifyingKey};
use crate::plugins::auth::given::given;
use crate::plugins::def::{BuildError, Credential, CredentialCtx};
use crate::secrets::{Again, Secret};

/// Credential side.
#[derive(Deserialize)]
pub(super) struct CredentialConfig {
    /// The consumer's name in a token's claim `key_claim_name`.
    key: Text,
    #[serde(default = "default_algorithm")]
    algorithm: String,
    secret: Option<Text>,
    public_key: Option<Text>,
    #[serde(default)]
    base64_secret: bool,
    /// Further keys by name, for rotation without a gap.
    #[serde(default)]
    keys: Vec<NamedConfig>,
    /// What APISIX once signed with; checked, and without effect.
    exp: Option<i64>,
    /// Leeway for `exp` and `nbf`.
    #[serde(default)]
    lifetime_grace_period: i64,
}

#[derive(Deserialize)]
struct NamedConfig {
    kid: String,
    #[serde(default = "default_algorithm")]
    algorithm: String,
    secret: Option<Text>,
    public_key: Option<Text>,
    #[serde(default)]
    base64_secret: bool,
}

/// The fields of one key.
struct KeyConfig {
    algorithm: String,
    secret: Option<Text>,
    public_key: Option<Text>,
    base64_secret: bool,
}

fn default_algorithm() -> String {
    "HS256".to_owned()
}

/// A string that may be a secret.
struct Text(Secret);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::from(text)))
    }
}

/// What a token of the consumer is held to.
pub(in crate::plugins::auth) struct Verification {
    pub(in crate::plugins::auth) keys: KeySet,
    /// Leeway in seconds.
    pub(in crate::plugins::auth) grace: f64,
    /// Has a set of keys read again that may hold a new one by now.
    pub(in crate::plugins::auth) again: Option<Again>,
}

impl Verification {
    /// That of an entry which [`build`] made.
    pub(super) fn of(entry: &CredentialEntry) -> Option<&Self> {
        entry.data()?.downcast_ref()
    }
}

/// A key and its name in tokens.
pub(super) type NamedKey = (Box<str>, VerifyingKey);

/// `settings` is what `config` was read from.
pub(super) fn build(
    config: CredentialConfig,
    settings: &Value,
    ctx: &CredentialCtx<'_>,
) -> Result<Credential, BuildError> {
    given("key", &config.key.0)?;
    if config.exp.is_some_and(|exp| exp < 1) {
        return Err(BuildError::invalid("exp", "must be at least 1"));
    }
    let grace = u32::try_from(config.lifetime_grace_period)
        .map_err(|_| BuildError::invalid("lifetime_grace_period", "must be 0 to 4294967295"))?;
    let plain = KeyConfig {
        algorithm: config.algorithm,
        secret: config.secret,
        public_key: config.public_key,
        base64_secret: config.base64_secret,
    };
    let set = jwks::read(settings, Algorithm::named(&plain.algorithm), ctx)?;
    let only_others = !config.keys.is_empty() || set.is_some();
    let mut plain = if !only_others || plain.has_key() {
        Some(plain.build("", ctx)?)
    } else {
        None
    };
    let mut named: Vec<NamedKey> = Vec::with_capacity(config.keys.len());
    for (place, config) in config.keys.into_iter().enumerate() {
        let field = format!("keys[{place}].");
        let kid = config.kid;
        let key = KeyConfig {
            algorithm: config.algorithm,
            secret: config.secret,
            public_key: config.public_key,
            base64_secret: config.base64_secret,
        };
        if kid.is_empty() {
            return Err(BuildError::invalid(field + "kid", "must not be empty"));
        }
        if named.iter().any(|(other, _)| **other == *kid) {
            return Err(BuildError::invalid(field + "kid", "stands twice"));
        }
        named.push((kid.into(), key.build(&field, ctx)?));
    }
    if let Some(set) = set {
        plain = plain.or(set.plain);
        for (kid, key) in set.named {
            let stands =
                |(name, known): &NamedKey| *name == kid && known.algorithm() == key.algorithm();
            if named.iter().any(stands) {
                let message = "a kid of the set stands in keys, too, with the same algorithm";
                return Err(BuildError::invalid("keys", message));
            }
            named.push((kid, key));
        }
    }
    let data: Arc<dyn Any + Send + Sync> = Arc::new(Verification {
        keys: KeySet::new(plain, named),
        grace: grace.into(),
        again: ctx.again.clone(),
    });
    let lookup_key = config.key.0;
    Ok(Credential { lookup_key, data })
}

impl KeyConfig {
    const fn has_key(&self) -> bool {
        self.secret.is_some() || self.public_key.is_some()
    }

    /// `at` is where the fields stand: empty, or the path of their object with a dot.
    fn build(self, at: &str, ctx: &CredentialCtx<'_>) -> Result<VerifyingKey, BuildError> {
        let Some(algorithm) = Algorithm::named(&self.algorithm) else {
            let names = Algorithm::ALL.map(Algorithm::name).join(", ");
            let message = format!("must be one of {names}");
            return Err(BuildError::invalid(format!("{at}algorithm"), message));
        };
        if algorithm.family() == Family::Hmac {
            self.secret(algorithm, &format!("{at}secret"), ctx)
        } else {
            self.public_key(algorithm, &format!("{at}public_key"))
        }
    }

    fn secret(
        self,
        algorithm: Algorithm,
        field: &str,
        ctx: &CredentialCtx<'_>,
    ) -> Result<VerifyingKey, BuildError> {
        let invalid = |message: &str| BuildError::invalid(field, message);
        let Some(secret) = self.secret else {
            let message = "property \"secret\" is required when using HS based algorithms";
            return Err(invalid(message));
        };
        given(field, &secret.0)?;
        let decoded;
        let secret = if self.base64_secret {
            let message = "base64_secret required but the secret is not in base64 format";
            decoded = Zeroizing::new(
                WITH_UNUSED_BITS
                    .decode(secret.0.expose())
                    .map_err(|_| invalid(message))?,
            );
            &decoded[..]
        } else {
            secret.0.expose()
        };
        if secret.len() < algorithm.digest_bytes() {
            let bytes = algorithm.digest_bytes();
            let message = format!(
                "key shorter than its algorithm: {algorithm} asks for {bytes} bytes (RFC 7518 §3.2)"
            );
            ctx.warn(field, message);
        }
        VerifyingKey::from_secret(algorithm, secret).map_err(|error| invalid(&error.to_string()))
    }

    fn public_key(self, algorithm: Algorithm, field: &str) -> Result<VerifyingKey, BuildError> {
        let Some(key) = self.public_key else {
            return Err(BuildError::invalid(field, "missing valid public key"));
        };
        given(field, &key.0)?;
        VerifyingKey::from_pem(algorithm, key.0.expose()).map_err(|error| {
            BuildError::invalid(field, format!("does not fit {algorithm}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests;
