//! Signed tokens (RFC 7519) and their keys. Signatures and hashes are OpenSSL's, the one TLS
//! library in the program. Never fetches a key, never reads a claim.
//!
//! A key is bound to one algorithm when it is made, so that a token cannot choose how it is
//! verified (RFC 8725 §3.1). `alg: none` does not exist here.

mod algorithm;
mod compact;
mod hmac;
mod json;
mod jwk;
mod key;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::error::ErrorStack;
use serde::Serialize;

pub use algorithm::{Algorithm, Family};
pub use compact::{Compact, Decoded, LONGEST_TOKEN, decode_base64url};
pub use json::{Member, members};
pub use jwk::{Jwk, JwkFault, JwkRules, JwkSet, JwkSetError, MOST_KEYS};
use key::{Signs, Verifies};

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

/// Why a token was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The claims are no JSON.
    #[error("claims cannot be written as JSON")]
    Claims(#[source] serde_json::Error),
    /// OpenSSL failed.
    #[error("OpenSSL could not sign")]
    Openssl(#[source] ErrorStack),
}

/// A private key or shared secret, and the one algorithm it signs with. Wiped when the last copy
/// is dropped.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    key: Arc<Signs>,
}

impl SigningKey {
    /// A shared secret, for HS256, HS384, HS512.
    ///
    /// # Errors
    /// The secret is empty, or the algorithm needs a private key.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        let key = Arc::new(Signs::Secret(key::secret(algorithm, secret)?));
        Ok(Self { algorithm, key })
    }

    /// An unencrypted private key in PEM (`PKCS#8`, `PKCS#1` or SEC 1), for all other algorithms.
    ///
    /// # Errors
    /// It is not such a key, or not one for this algorithm.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let key = Arc::new(Signs::from_pem(algorithm, pem)?);
        Ok(Self { algorithm, key })
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
    pub fn encode(&self, claims: &impl Serialize) -> Result<String, SignError> {
        let header = format!("{{\"typ\":\"JWT\",\"alg\":\"{}\"}}", self.algorithm);
        let claims = serde_json::to_vec(claims).map_err(SignError::Claims)?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The signature of a message, in the form JWS has it.
    ///
    /// # Errors
    /// OpenSSL failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.key.sign(self.algorithm, message);
        signature.map_err(SignError::Openssl)
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
    identity: [u8; 16],
    key: Arc<Verifies>,
}

impl VerifyingKey {
    /// A shared secret, for HS256, HS384, HS512.
    ///
    /// # Errors
    /// The secret is empty, or the algorithm needs a public key.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        let key = Verifies::Secret(key::secret(algorithm, secret)?);
        Ok(Self::of(algorithm, key))
    }

    /// A public key in PEM (`PUBLIC KEY`, `RSA PUBLIC KEY`) or that of a `CERTIFICATE`, for all
    /// other algorithms.
    ///
    /// # Errors
    /// It is not such a key, or not one for this algorithm.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Verifies::from_pem(algorithm, pem)?))
    }

    /// An RSA key by its modulus and exponent, big-endian (RFC 7518 §6.3.1).
    ///
    /// # Errors
    /// It is not one for this algorithm.
    pub fn from_rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Verifies::from_rsa(algorithm, n, e)?))
    }

    /// A point on the algorithm's curve, each coordinate at its full length (RFC 7518 §6.2.1).
    ///
    /// # Errors
    /// It is not one for this algorithm.
    pub fn from_ec(algorithm: Algorithm, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Verifies::from_ec(algorithm, x, y)?))
    }

    /// An Ed25519 or Ed448 key by its 32 or 57 bytes (RFC 8037 §2).
    ///
    /// # Errors
    /// It is not one, or the algorithm is not `EdDSA`.
    pub fn from_ed(algorithm: Algorithm, x: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::of(algorithm, Verifies::from_ed(algorithm, x)?))
    }

    fn of(algorithm: Algorithm, key: Verifies) -> Self {
        Self {
            algorithm,
            identity: key.identity(),
            key: Arc::new(key),
        }
    }

    /// What it verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature, in the form JWS has it, is this key's of the message.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify(self.algorithm, message, signature)
    }

    /// Equal exactly for equal keys of one algorithm, and says nothing about a secret to whoever
    /// does not have it.
    #[must_use]
    pub fn identity(&self) -> (Algorithm, [u8; 16]) {
        (self.algorithm, self.identity)
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({:?}, …)", self.algorithm)
    }
}
