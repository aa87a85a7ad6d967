//! JWK Sets (RFC 7517): the keys of a set that verify tokens, each bound to one algorithm. What a
//! set holds for other purposes is passed over (§5); what must not be in one refuses it whole.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Algorithm, Family, KeyError, VerifyingKey};

/// The keys of a set that can verify tokens.
#[derive(Debug, Clone)]
pub struct JwkSet {
    /// In the set's order.
    pub keys: Vec<Jwk>,
    /// Keys that were passed over: their zero-based position, and why.
    pub ignored: Vec<(usize, JwkFault)>,
}

/// A key of a set.
#[derive(Debug, Clone)]
pub struct Jwk {
    /// What tokens name it by (`kid`). Another key of the set may have it where its algorithm is
    /// another (RFC 7517 §4.5).
    pub kid: Option<Box<str>>,
    /// The key, bound to its algorithm.
    pub key: VerifyingKey,
}

/// What holds for a set beside what it says itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwkRules {
    /// Algorithm of RSA keys and of shared secrets that name none and are of its kind. Those of
    /// another kind have RS256 and HS256. A key on a curve has that curve's.
    pub algorithm: Option<Algorithm>,
    /// Whether shared secrets (`oct`) are keys. False for a set that anyone may read: whoever can
    /// read such a key can sign.
    pub secrets: bool,
}

/// Why a set was refused. Never holds a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkSetError {
    /// No JSON object with a list `keys`.
    #[error("expected a JWK Set: an object with a list \"keys\" of objects")]
    NotASet,
    /// More keys than [`MOST_KEYS`].
    #[error("expected at most {MOST_KEYS} keys")]
    TooMany,
    /// A private key: whoever reads the set can sign.
    #[error("key {0} holds the private member \"{1}\": expected public keys only")]
    Private(usize, &'static str),
    /// Two keys that verify have one `kid` and one algorithm, so that a token could mean either.
    #[error("key {1} has the kid and the algorithm of key {0}")]
    DuplicateKid(usize, usize),
    /// A set of nothing.
    #[error("set has no keys")]
    Empty,
    /// None that can verify tokens; why the first cannot.
    #[error("no key of the set can verify tokens; key 0: {0}")]
    NoneUsable(JwkFault),
}

/// Why a key was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkFault {
    /// `kty` missing or none of RSA, EC, OKP, oct.
    #[error("kty is not RSA, EC, OKP or oct")]
    Kind,
    /// `use` or `key_ops` say so.
    #[error("is not for verifying signatures")]
    Purpose,
    /// `alg` is not one of JWS that this kind of key has.
    #[error("alg does not fit the key or is not known")]
    Algorithm,
    /// `crv` missing or not one for signatures.
    #[error("crv is not one that signs tokens")]
    Curve,
    /// Missing, of the wrong type, or not base64url; the word names it.
    #[error("member \"{0}\" is missing or malformed")]
    Member(&'static str),
    /// OpenSSL or our bounds say no.
    #[error("{0}")]
    Key(KeyError),
    /// RFC 7518 §3.2.
    #[error("shared secret is shorter than its algorithm's hash")]
    Short,
    /// An `oct` key in a set that has none.
    #[error("a shared secret does not belong into a set that others can read")]
    Secret,
}

impl JwkSet {
    /// Reads a set.
    ///
    /// # Errors
    /// It is none, holds what it must not, or has no key that verifies tokens.
    pub fn parse(json: &[u8], rules: JwkRules) -> Result<Self, JwkSetError> {
        let set = serde_json::from_slice(json).map_err(|_| JwkSetError::NotASet)?;
        Self::of(set, rules)
    }

    /// The same of a set that is parsed already.
    ///
    /// # Errors
    /// As [`JwkSet::parse`].
    pub fn from_value(json: &Value, rules: JwkRules) -> Result<Self, JwkSetError> {
        let set = RawSet::deserialize(json).map_err(|_| JwkSetError::NotASet)?;
        Self::of(set, rules)
    }

    fn of(raw: RawSet, rules: JwkRules) -> Result<Self, JwkSetError> {
        if raw.keys.len() > MOST_KEYS {
            return Err(JwkSetError::TooMany);
        }
        // Also in keys of no use to us: it is out in the world.
        for (place, key) in raw.keys.iter().enumerate() {
            if let Some(member) = key.private() {
                return Err(JwkSetError::Private(place, member));
            }
        }
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        let mut places: Vec<usize> = Vec::new();
        for (place, raw) in raw.keys.iter().enumerate() {
            let key = match raw.read(rules) {
                Ok(key) => key,
                Err(fault) => {
                    ignored.push((place, fault));
                    continue;
                }
            };
            let same =
                |known: &Jwk| known.kid == key.kid && known.key.algorithm() == key.key.algorithm();
            if key.kid.is_some()
                && let Some(earlier) = keys.iter().position(same)
            {
                return Err(JwkSetError::DuplicateKid(places[earlier], place));
            }
            keys.push(key);
            places.push(place);
        }
        match ignored.first() {
            _ if !keys.is_empty() => Ok(Self { keys, ignored }),
            None => Err(JwkSetError::Empty),
            Some((_, fault)) => Err(JwkSetError::NoneUsable(*fault)),
        }
    }
}

/// Most keys of one set, those that are passed over included.
pub const MOST_KEYS: usize = 100;

#[derive(serde::Deserialize)]
struct RawSet {
    keys: Vec<RawKey>,
}

/// A key as it stands there. Members may have any type: a key that is not understood is passed
/// over, and its neighbours serve. Those not named are skipped.
#[derive(Default)]
struct RawKey {
    kty: Member,
    purpose: Member,
    key_ops: Member,
    alg: Member,
    kid: Member,
    crv: Member,
    n: Member,
    e: Member,
    x: Member,
    y: Member,
    k: Member,
    private: Option<&'static str>,
}

/// What a member is.
#[derive(Default)]
enum Member {
    #[default]
    Absent,
    Text(Zeroizing<String>),
    /// A list; whether the text `verify` is in it.
    List {
        verify: bool,
    },
    Other,
}

impl RawKey {
    /// A member that only the owner of the key may know.
    fn private(&self) -> Option<&'static str> {
        let public = matches!(self.kty.text(), Some("RSA" | "EC" | "OKP"));
        self.private.filter(|_| public)
    }

    fn read(&self, rules: JwkRules) -> Result<Jwk, JwkFault> {
        if !self.verifies() {
            return Err(JwkFault::Purpose);
        }
        let kid = match &self.kid {
            Member::Absent => None,
            Member::Text(kid) => Some(kid.as_str().into()),
            _ => return Err(JwkFault::Member("kid")),
        };
        let key = match self.kty.text() {
            Some("RSA") => self.rsa(rules),
            Some("EC") => self.ec(),
            Some("OKP") => self.ed(),
            Some("oct") => self.secret(rules),
            _ => return Err(JwkFault::Kind),
        };
        Ok(Jwk { kid, key: key? })
    }

    /// RFC 7517 §4.2, §4.3: where they stand, both must allow it.
    fn verifies(&self) -> bool {
        let purpose = match &self.purpose {
            Member::Absent => true,
            purpose => purpose.text() == Some("sig"),
        };
        let operations = match &self.key_ops {
            Member::Absent => true,
            operations => matches!(operations, Member::List { verify: true }),
        };
        purpose && operations
    }

    fn rsa(&self, rules: JwkRules) -> Result<VerifyingKey, JwkFault> {
        let algorithm = self.algorithm(Family::Rsa, rules.algorithm, Algorithm::RS256)?;
        let (n, e) = (bytes("n", &self.n)?, bytes("e", &self.e)?);
        // An even number is no modulus and no exponent, and with 1 anyone signs.
        if !is_odd(&n) {
            return Err(JwkFault::Member("n"));
        }
        if !is_odd(&e) || e.iter().rev().skip(1).all(|byte| *byte == 0) && e.last() == Some(&1) {
            return Err(JwkFault::Member("e"));
        }
        VerifyingKey::from_rsa(algorithm, &n, &e).map_err(JwkFault::Key)
    }

    fn ec(&self) -> Result<VerifyingKey, JwkFault> {
        let algorithm = match self.crv.text() {
            Some("P-256") => Algorithm::ES256,
            Some("P-384") => Algorithm::ES384,
            Some("P-521") => Algorithm::ES512,
            _ => return Err(JwkFault::Curve),
        };
        self.only(algorithm)?;
        let (x, y) = (bytes("x", &self.x)?, bytes("y", &self.y)?);
        VerifyingKey::from_ec(algorithm, &x, &y).map_err(JwkFault::Key)
    }

    fn ed(&self) -> Result<VerifyingKey, JwkFault> {
        let size = match self.crv.text() {
            Some("Ed25519") => 32,
            Some("Ed448") => 57,
            _ => return Err(JwkFault::Curve),
        };
        // RFC 9864 names the curve in `alg` too.
        if self.alg.text() != self.crv.text() {
            self.only(Algorithm::EdDSA)?;
        }
        let x = bytes("x", &self.x)?;
        if x.len() != size {
            return Err(JwkFault::Member("x"));
        }
        VerifyingKey::from_ed(Algorithm::EdDSA, &x).map_err(JwkFault::Key)
    }

    fn secret(&self, rules: JwkRules) -> Result<VerifyingKey, JwkFault> {
        if !rules.secrets {
            return Err(JwkFault::Secret);
        }
        let algorithm = self.algorithm(Family::Hmac, rules.algorithm, Algorithm::HS256)?;
        let k = bytes("k", &self.k)?;
        if k.len() < algorithm.digest_bytes() {
            return Err(JwkFault::Short);
        }
        VerifyingKey::from_secret(algorithm, &k).map_err(JwkFault::Key)
    }

    /// The key's own algorithm, or what the rules say for its kind.
    fn algorithm(
        &self,
        family: Family,
        ruled: Option<Algorithm>,
        usual: Algorithm,
    ) -> Result<Algorithm, JwkFault> {
        let of_family = |algorithm: &Algorithm| algorithm.family() == family;
        match &self.alg {
            Member::Absent => Ok(ruled.filter(of_family).unwrap_or(usual)),
            alg => alg
                .text()
                .and_then(Algorithm::named)
                .filter(of_family)
                .ok_or(JwkFault::Algorithm),
        }
    }

    /// `alg` says nothing else than this.
    fn only(&self, algorithm: Algorithm) -> Result<(), JwkFault> {
        match &self.alg {
            Member::Absent => Ok(()),
            alg if alg.text() == Some(algorithm.name()) => Ok(()),
            _ => Err(JwkFault::Algorithm),
        }
    }
}

impl Member {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn bytes(name: &'static str, member: &Member) -> Result<Zeroizing<Vec<u8>>, JwkFault> {
    let text = member.text().filter(|text| !text.is_empty());
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.map(Zeroizing::new).ok_or(JwkFault::Member(name))
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte % 2 == 1)
}

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = RawKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<RawKey, A::Error> {
        let mut key = RawKey::default();
        while let Some(name) = members.next_key::<Box<str>>()? {
            let member = match &*name {
                "kty" => &mut key.kty,
                "use" => &mut key.purpose,
                "key_ops" => &mut key.key_ops,
                "alg" => &mut key.alg,
                "kid" => &mut key.kid,
                "crv" => &mut key.crv,
                "n" => &mut key.n,
                "e" => &mut key.e,
                "x" => &mut key.x,
                "y" => &mut key.y,
                "k" => &mut key.k,
                name => {
                    let mut private = PRIVATE.iter().copied();
                    key.private = key.private.or(private.find(|private| *private == name));
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            // Of two members with one name the last counts (RFC 7517 §4).
            *member = members.next_value()?;
        }
        Ok(key)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member of a JWK")
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Member, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
        let mut verify = false;
        while let Some(item) = items.next_element::<Member>()? {
            verify |= item.text() == Some("verify");
        }
        Ok(Member::List { verify })
    }
}

/// RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2.
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth"];

#[cfg(test)]
mod tests;
