//! The keys of one consumer or credential, and which of them a token is held to.

use crate::jwt::{Algorithm, VerifyingKey};
use crate::telemetry::metrics::AuthFailure;

/// Keys by name, each bound to one algorithm. Never changes: other keys are another set.
pub(in crate::plugins::auth) struct KeySet {
    /// The key of APISIX's fields, which has no name.
    plain: Option<VerifyingKey>,
    /// Keys by `kid`. Several may have one name where their algorithms differ (RFC 7517 §4.5).
    named: Box<[(Box<str>, VerifyingKey)]>,
    identity: KeySetId,
}

/// Equal exactly for sets of equal keys, names and algorithms.
pub(in crate::plugins::auth) type KeySetId = [u8; 16];

impl KeySet {
    /// A set of these keys.
    pub(in crate::plugins::auth) fn new(
        plain: Option<VerifyingKey>,
        named: Vec<(Box<str>, VerifyingKey)>,
    ) -> Self {
        let mut hash = openssl::sha::Sha256::new();
        let mut add = |kid: Option<&str>, key: &VerifyingKey| {
            let (algorithm, identity) = key.identity();
            hash.update(algorithm.name().as_bytes());
            hash.update(&identity);
            // The length keeps one name's end apart from what follows.
            let length = kid.map_or(u64::MAX, |kid| kid.len() as u64);
            hash.update(&length.to_be_bytes());
            hash.update(kid.unwrap_or_default().as_bytes());
        };
        plain.iter().for_each(|key| add(None, key));
        named.iter().for_each(|(kid, key)| add(Some(kid), key));
        let mut identity = KeySetId::default();
        identity.copy_from_slice(&hash.finish()[..16]);
        Self {
            plain,
            named: named.into(),
            identity,
        }
    }

    /// What a remembered token names the set by.
    pub(in crate::plugins::auth) const fn identity(&self) -> KeySetId {
        self.identity
    }

    /// The one key a token of this algorithm and `kid` is held to.
    ///
    /// Where the set has names, a `kid` must be one of them. A token without `kid`, or any token
    /// where no key has a name, is held to the plain key; or, where that has another algorithm or
    /// is none, to the only named key of its algorithm.
    pub(in crate::plugins::auth) fn choose(
        &self,
        algorithm: Option<Algorithm>,
        kid: Option<&str>,
    ) -> Result<&VerifyingKey, AuthFailure> {
        let algorithm = algorithm.ok_or(AuthFailure::Algorithm)?;
        let fits = |key: &&VerifyingKey| key.algorithm() == algorithm;
        let named = || self.named.iter();
        if let Some(kid) = kid.filter(|_| !self.named.is_empty()) {
            let mut keys = named().filter(|(name, _)| **name == *kid).peekable();
            if keys.peek().is_none() {
                return Err(AuthFailure::Unknown);
            }
            let mut keys = keys.map(|(_, key)| key);
            return keys.find(fits).ok_or(AuthFailure::Algorithm);
        }
        if let Some(key) = self.plain.as_ref().filter(fits) {
            return Ok(key);
        }
        let mut keys = named().map(|(_, key)| key).filter(fits);
        match (keys.next(), keys.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(AuthFailure::Unknown),
            (None, _) => Err(AuthFailure::Algorithm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: Algorithm, secret: &str) -> VerifyingKey {
        VerifyingKey::from_secret(algorithm, secret.as_bytes()).expect("secret fits")
    }

    fn named(kid: &str, algorithm: Algorithm, secret: &str) -> (Box<str>, VerifyingKey) {
        (kid.into(), key(algorithm, secret))
    }

    use Algorithm::{ES256, HS256, HS384, HS512};

    #[test]
    fn a_token_is_held_to_one_key() {
        let plain = KeySet::new(Some(key(HS256, "p")), Vec::new());
        let several = KeySet::new(
            Some(key(HS256, "p")),
            vec![
                named("a", HS256, "a"),
                named("b", HS384, "b"),
                named("c", HS512, "c"),
                named("d", HS512, "d"),
                named("d", HS384, "d"),
            ],
        );
        let only_named = KeySet::new(None, vec![named("a", HS256, "a"), named("b", HS256, "b")]);
        let (algorithm, unknown) = (Err(AuthFailure::Algorithm), Err(AuthFailure::Unknown));
        for (case, set, alg, kid, expected) in [
            ("plain", &plain, HS256, None, Ok("p")),
            ("APISIX knows no kid", &plain, HS256, Some("x"), Ok("p")),
            ("another algorithm", &plain, HS384, None, algorithm),
            ("by kid", &several, HS256, Some("a"), Ok("a")),
            ("plain before named", &several, HS256, None, Ok("p")),
            (
                "kid of another algorithm",
                &several,
                HS256,
                Some("b"),
                algorithm,
            ),
            ("unknown kid", &several, HS256, Some("x"), unknown),
            ("empty kid", &several, HS256, Some(""), unknown),
            ("two of an algorithm", &several, HS512, None, unknown),
            ("no key of it", &several, ES256, None, algorithm),
            (
                "one kid, two algorithms",
                &several,
                HS512,
                Some("d"),
                Ok("d"),
            ),
            ("two fit", &only_named, HS256, None, unknown),
        ] {
            let found = set.choose(Some(alg), kid).map(VerifyingKey::identity);
            let expected = expected.map(|secret| key(alg, secret).identity());
            assert_eq!(found, expected, "{case}");
        }
        let only = KeySet::new(None, vec![named("a", HS256, "a"), named("b", HS384, "b")]);
        assert!(
            only.choose(Some(HS256), None).is_ok(),
            "the only one of its algorithm"
        );
        assert!(
            only.choose(None, None).is_err(),
            "no algorithm that is known"
        );
    }

    #[test]
    fn every_change_of_a_set_changes_its_identity() {
        let sets = [
            KeySet::new(None, Vec::new()),
            KeySet::new(Some(key(HS256, "a")), Vec::new()),
            KeySet::new(Some(key(HS256, "b")), Vec::new()),
            KeySet::new(Some(key(HS384, "a")), Vec::new()),
            KeySet::new(None, vec![named("a", HS256, "a")]),
            KeySet::new(None, vec![named("b", HS256, "a")]),
            KeySet::new(None, vec![named("", HS256, "a")]),
            KeySet::new(Some(key(HS256, "a")), vec![named("a", HS256, "a")]),
            KeySet::new(None, vec![named("a", HS256, "a"), named("b", HS256, "a")]),
        ];
        for (one, set) in sets.iter().enumerate() {
            for (other, another) in sets.iter().enumerate() {
                assert_eq!(set.identity() == another.identity(), one == other);
            }
        }
    }
}
