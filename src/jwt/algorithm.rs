//! The names of RFC 7518 §3.1 and RFC 8037 §3.1, and what each asks of a key.

use openssl::hash::MessageDigest;
use openssl::nid::Nid;

/// How a token is signed. There is no `none`.
#[expect(missing_docs, reason = "the names are the registry's own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// What a key of an algorithm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A shared secret.
    Hmac,
    /// An RSA key, `PKCS#1` v1.5 or PSS.
    Rsa,
    /// A key on the curve the algorithm names.
    Ec,
    /// An Ed25519 or Ed448 key.
    Ed,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The algorithm of that name, which is compared with case (RFC 7515 §4.1.1).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.name() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// What its keys are.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Hmac,
            Self::RS256 | Self::RS384 | Self::RS512 => Family::Rsa,
            Self::PS256 | Self::PS384 | Self::PS512 => Family::Rsa,
            Self::ES256 | Self::ES384 | Self::ES512 => Family::Ec,
            Self::EdDSA => Family::Ed,
        }
    }

    /// Bytes of its digest: a shared secret must not be shorter (RFC 7518 §3.2).
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::HS256 | Self::RS256 | Self::PS256 | Self::ES256 => 32,
            Self::HS384 | Self::RS384 | Self::PS384 | Self::ES384 => 48,
            Self::HS512 | Self::RS512 | Self::PS512 | Self::ES512 | Self::EdDSA => 64,
        }
    }

    pub(super) fn digest(self) -> MessageDigest {
        match self.digest_bytes() {
            32 => MessageDigest::sha256(),
            48 => MessageDigest::sha384(),
            _ => MessageDigest::sha512(),
        }
    }

    pub(super) const fn is_pss(self) -> bool {
        matches!(self, Self::PS256 | Self::PS384 | Self::PS512)
    }

    /// The curve, and the bytes of a number in a signature.
    pub(super) const fn curve(self) -> Option<(Nid, usize)> {
        match self {
            Self::ES256 => Some((Nid::X9_62_PRIME256V1, 32)),
            Self::ES384 => Some((Nid::SECP384R1, 48)),
            Self::ES512 => Some((Nid::SECP521R1, 66)),
            _ => None,
        }
    }

    pub(super) const fn expectation(self) -> &'static str {
        match self {
            Self::ES256 => "an EC key on P-256",
            Self::ES384 => "an EC key on P-384",
            Self::ES512 => "an EC key on P-521",
            Self::EdDSA => "an Ed25519 or Ed448 key",
            _ => match self.family() {
                Family::Hmac => "a secret",
                _ => "an RSA key",
            },
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
