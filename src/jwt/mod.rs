//! Signed tokens (RFC 7519). The crate `jsonwebtoken` reads and writes them; keys and signatures
//! are OpenSSL's, the one TLS library in the program. Never fetches a key, never reads a claim.
//!
//! A key is bound to one algorithm when it is made, so that a token cannot choose how it is
//! verified (RFC 8725 §3.1). `alg: none` does not exist here; neither does ES512, which the crate
//! does not know.

mod key;
mod provider;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use jsonwebtoken::errors::{Error, ErrorKind};
pub use jsonwebtoken::{Algorithm, AlgorithmFamily, Header, TokenData, Validation, decode_header};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use key::{Private, Public};
pub use provider::install;

/// Why a text is not a key for an algorithm. Never holds a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// An empty key would verify what anyone can sign.
    #[error("key is empty")]
    Empty,
    /// Not read as what was expected, which the words say.
    #[error("expected {0}")]
    Expected(&'static str),
    /// RFC 7518 §3.3.
    #[error("RSA key is shorter than 2048 bits")]
    TooShort,
    /// Longer than anyone uses; each check would cost a multiple.
    #[error("RSA key is longer than 16384 bits")]
    TooLong,
}

/// A private key or shared secret, and the one algorithm it signs with. Wiped when the last copy
/// is dropped.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    key: Arc<Private>,
    /// What the crate is told: the family alone, the key is lent.
    family: EncodingKey,
}

impl SigningKey {
    /// A shared secret, for HS256, HS384, HS512.
    ///
    /// # Errors
    /// The secret is empty, or the algorithm needs a private key.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        let key = Private::from_secret(algorithm, secret)?;
        Ok(Self::of(algorithm, key))
    }

    /// An unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC 1), for all other algorithms.
    ///
    /// # Errors
    /// It is not such a key, or not one for this algorithm.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let key = Private::from_pem(algorithm, pem)?;
        Ok(Self::of(algorithm, key))
    }

    fn of(algorithm: Algorithm, key: Private) -> Self {
        install();
        let family = match algorithm.family() {
            AlgorithmFamily::Hmac => EncodingKey::from_secret(&[]),
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_der(&[]),
            AlgorithmFamily::Ec => EncodingKey::from_ec_der(&[]),
            AlgorithmFamily::Ed => EncodingKey::from_ed_der(&[]),
        };
        let key = Arc::new(key);
        Self {
            algorithm,
            key,
            family,
        }
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A signed token of these claims, with the header `{"typ":"JWT","alg":…}`.
    ///
    /// # Errors
    /// The claims are no JSON, or OpenSSL failed.
    pub fn encode(&self, claims: &impl Serialize) -> Result<String, Error> {
        self.encode_with(&Header::new(self.algorithm), claims)
    }

    /// The same with a header of the caller's; its `alg` must be this key's.
    ///
    /// # Errors
    /// As [`SigningKey::encode`], and when the header names another algorithm.
    pub fn encode_with(&self, header: &Header, claims: &impl Serialize) -> Result<String, Error> {
        if header.alg != self.algorithm {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        provider::lend_private(&self.key, || {
            jsonwebtoken::encode(header, claims, &self.family)
        })
    }

    /// The signature of a message, in the form JWS has it.
    ///
    /// # Errors
    /// OpenSSL failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.key
            .sign(self.algorithm, message)
            .ok_or_else(|| ErrorKind::Signing("refused by OpenSSL".to_owned()).into())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?}, …)", self.algorithm)
    }
}

/// A public key or shared secret, and the one algorithm it verifies. Parsed once; a check costs
/// the signature alone.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: Arc<Public>,
}

impl VerifyingKey {
    /// A shared secret, for HS256, HS384, HS512.
    ///
    /// # Errors
    /// The secret is empty, or the algorithm needs a public key.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Public::from_secret(algorithm, secret)?))
    }

    /// A public key in PEM (`PUBLIC KEY`, `RSA PUBLIC KEY`) or that of a `CERTIFICATE`, for all
    /// other algorithms.
    ///
    /// # Errors
    /// It is not such a key, or not one for this algorithm.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Public::from_pem(algorithm, pem)?))
    }

    /// A key as the crate has it: out of a JWK, by components.
    ///
    /// # Errors
    /// It is not one for this algorithm.
    pub fn from_crate(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Public::from_crate(algorithm, key)?))
    }

    fn of(algorithm: Algorithm, key: Public) -> Self {
        install();
        let key = Arc::new(key);
        Self { algorithm, key }
    }

    /// What it verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Reads a token that this key signed and `validation` lets pass. Which algorithms
    /// `validation` names does not matter: it is this key's, or the token is refused.
    ///
    /// # Errors
    /// Not a token, not signed by this key, or its claims are not as asked.
    pub fn decode<T: DeserializeOwned>(
        &self,
        token: impl AsRef<[u8]>,
        validation: &Validation,
    ) -> Result<TokenData<T>, Error> {
        // The crate passes this through to the provider, where the lent key stands in for it; by
        // itself it verifies nothing.
        let nothing = DecodingKey::from_secret(&[]);
        provider::lend_public(&self.key, self.algorithm, || {
            if validation.algorithms == [self.algorithm] {
                return jsonwebtoken::decode(token, &nothing, validation);
            }
            let mut validation = validation.clone();
            validation.algorithms = vec![self.algorithm];
            jsonwebtoken::decode(token, &nothing, &validation)
        })
    }

    /// Whether the signature, in the form JWS has it, is this key's of the message.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify(self.algorithm, message, signature)
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({:?}, …)", self.algorithm)
    }
}
