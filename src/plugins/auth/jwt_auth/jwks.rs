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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::DEF;
    use super::super::credential::Verification;
    use crate::jwt::Algorithm;
    use crate::plugins::testing;
    use crate::telemetry::metrics::AuthFailure;

    fn p256() -> serde_json::Value {
        json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
    }

    fn named(kid: &str) -> serde_json::Value {
        let mut key = p256();
        key["kid"] = json!(kid);
        key
    }

    fn secret() -> serde_json::Value {
        json!({"kty": "oct", "kid": "s", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"})
    }

    /// Which of these tokens, by algorithm and kid, find a key; or the refusal.
    fn finds(
        settings: &serde_json::Value,
        tokens: &[(Algorithm, Option<&str>)],
    ) -> Result<Vec<Result<(), AuthFailure>>, String> {
        let credential = testing::credential(&DEF, settings)
            .map_err(|error| format!("{}: {}", error.field, error.message))?;
        let data = credential.data.downcast_ref::<Verification>();
        let keys = &data.expect("credential of this plugin").keys;
        let find = |(algorithm, kid): &(Algorithm, Option<&str>)| {
            keys.choose(Some(*algorithm), *kid).map(drop)
        };
        Ok(tokens.iter().map(find).collect())
    }

    use Algorithm::{ES256, HS256};

    #[test]
    fn a_set_stands_in_place_as_text_or_beside_a_key() {
        let set = json!({"keys": [named("a"), named("b"), secret()]});
        let tokens = [
            (ES256, Some("a")),
            (ES256, Some("b")),
            (ES256, Some("c")),
            (ES256, None),
            (HS256, Some("s")),
        ];
        let unknown = Err(AuthFailure::Unknown);
        for jwks in [set.clone(), json!(set.to_string())] {
            let found = finds(&json!({"key": "k", "jwks": jwks}), &tokens);
            assert_eq!(found, Ok(vec![Ok(()), Ok(()), unknown, unknown, Ok(())]));
        }
        // What an address gives holds no secret.
        let found = finds(&json!({"key": "k", "jwks_uri": set.to_string()}), &tokens);
        assert_eq!(found, Ok(vec![Ok(()), Ok(()), unknown, unknown, unknown]));
        let beside = json!({"key": "k", "secret": "x".repeat(32), "jwks": {"keys": [named("a")]}});
        let tokens = [
            (HS256, None),
            (ES256, Some("a")),
            (ES256, None),
            (HS256, Some("x")),
        ];
        assert_eq!(
            finds(&beside, &tokens),
            Ok(vec![Ok(()), Ok(()), Ok(()), unknown])
        );
        let nameless = json!({"key": "k", "jwks": {"keys": [p256()]}});
        assert_eq!(
            finds(
                &nameless,
                &[(ES256, None), (ES256, Some("any")), (HS256, None)]
            ),
            Ok(vec![Ok(()), Ok(()), Err(AuthFailure::Algorithm)])
        );
    }

    #[test]
    fn what_is_no_set_names_its_field_and_no_value() {
        let private = json!({"keys": [{"kty": "EC", "crv": "P-256", "d": "hunter2"}]});
        let also = json!([{"kid": "a", "algorithm": "ES256", "public_key": P256_PEM}]);
        for (settings, expected) in [
            (json!({"jwks": "hunter2"}), "jwks: expected a JWK Set"),
            (json!({"jwks": ["hunter2"]}), "jwks: expected a JWK Set"),
            (json!({"jwks": null}), "jwks: expected a JWK Set"),
            (json!({"jwks": {"keys": []}}), "jwks: set has no keys"),
            (
                json!({"jwks_uri": "https://hunter2.test/"}),
                "jwks_uri: expected a JWK Set",
            ),
            (
                json!({"jwks": private}),
                "jwks: key 0 holds the private member",
            ),
            (
                json!({"jwks_uri": json!({"keys": [secret()]}).to_string()}),
                "jwks_uri: no key of the set can verify tokens; key 0: a shared secret",
            ),
            (
                json!({"jwks": {"keys": [p256()]}, "jwks_uri": "{}"}),
                "jwks_uri: expected one of",
            ),
            (
                json!({"jwks": {"keys": [named("a")]}, "keys": also}),
                "keys: a kid of the set stands in keys, too",
            ),
        ] {
            let mut settings = settings;
            settings["key"] = json!("k");
            let refused = finds(&settings, &[]).expect_err("must be refused");
            assert!(refused.starts_with(expected), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEppW8zHwgWiQuhjCDBxSZqC/jgfLK\n\
        WVxSRCBoXWHHZFfUmE00qLcPhRaCCr8FIrLeKAOJBtrEe6hEO2Q44CoS1g==\n\
        -----END PUBLIC KEY-----";
}
