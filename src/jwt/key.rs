//! Keys as OpenSSL has them, parsed and checked once, and what they do: sign and verify in the
//! forms of RFC 7518 §3 and RFC 8037 §3.1. Nothing here panics on a key or signature of any shape.

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};
use openssl::x509::X509;

use super::KeyError;

/// A key that signs. OpenSSL wipes it when it is dropped.
pub(super) struct Private(PKey<openssl::pkey::Private>);

/// A key that verifies.
pub(super) enum Public {
    /// The shared secret.
    Secret(Private),
    Key(PKey<openssl::pkey::Public>),
}

impl Private {
    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        if algorithm.family() != AlgorithmFamily::Hmac {
            return Err(KeyError::Expected(expectation(algorithm)));
        }
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let expected = |_: ErrorStack| KeyError::Expected("a secret");
        Ok(Self(PKey::hmac(secret).map_err(expected)?))
    }

    pub(super) fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let expected = |_: ErrorStack| KeyError::Expected(expectation(algorithm));
        // An empty passphrase keeps OpenSSL from asking for one on the terminal.
        let key = PKey::private_key_from_pem_passphrase(pem, b"").map_err(expected)?;
        check(algorithm, &key)?;
        Ok(Self(key))
    }

    /// The crate keeps RSA keys as PKCS#1 and the others as PKCS#8, both DER.
    pub(super) fn from_crate(algorithm: Algorithm, key: &EncodingKey) -> Result<Self, KeyError> {
        if key.family() != algorithm.family() {
            return Err(KeyError::Expected(expectation(algorithm)));
        }
        if key.family() == AlgorithmFamily::Hmac {
            return Self::from_secret(algorithm, key.as_bytes());
        }
        let expected = |_: ErrorStack| KeyError::Expected(expectation(algorithm));
        let key = PKey::private_key_from_der(key.as_bytes()).map_err(expected)?;
        check(algorithm, &key)?;
        Ok(Self(key))
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        self.try_sign(algorithm, message).ok().flatten()
    }

    fn try_sign(
        &self,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, ErrorStack> {
        let mut signer = match digest(algorithm) {
            Some(digest) => Signer::new(digest, &self.0)?,
            None => Signer::new_without_digest(&self.0)?,
        };
        if is_pss(algorithm) {
            signer.set_rsa_padding(Padding::PKCS1_PSS)?;
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
        }
        let signature = signer.sign_oneshot_to_vec(message)?;
        match curve(algorithm) {
            Some((_, size)) => raw_of_der(&signature, size).map(Some),
            None => Ok(Some(signature)),
        }
    }
}

impl Public {
    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        Private::from_secret(algorithm, secret).map(Self::Secret)
    }

    pub(super) fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let expected = |_: ErrorStack| KeyError::Expected(expectation(algorithm));
        let key = PKey::public_key_from_pem(pem)
            .or_else(|_| PKey::from_rsa(Rsa::public_key_from_pem_pkcs1(pem)?))
            .or_else(|_| X509::from_pem(pem)?.public_key())
            .map_err(expected)?;
        check(algorithm, &key)?;
        Ok(Self::Key(key))
    }

    /// The crate keeps RSA keys as PKCS#1 DER or components, EC keys as SEC 1 points, Ed25519
    /// keys as they are.
    pub(super) fn from_crate(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, KeyError> {
        if key.family() != algorithm.family() {
            return Err(KeyError::Expected(expectation(algorithm)));
        }
        let expected = |_: ErrorStack| KeyError::Expected(expectation(algorithm));
        let key = match (key.family(), key.kind()) {
            (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
                return Self::from_secret(algorithm, secret);
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
                Rsa::public_key_from_der_pkcs1(der).and_then(PKey::from_rsa)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                rsa_of_components(n, e)
            }
            (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
                ec_of_point(algorithm, point)
            }
            (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(bytes)) => {
                PKey::public_key_from_raw_bytes(bytes, Id::ED25519)
            }
            (_, DecodingKeyKind::RsaModulusExponent { .. }) => {
                return Err(KeyError::Expected(expectation(algorithm)));
            }
        };
        let key = key.map_err(expected)?;
        check(algorithm, &key)?;
        Ok(Self::Key(key))
    }

    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => key.sign(algorithm, message).is_some_and(|own| {
                own.len() == signature.len() && openssl::memcmp::eq(&own, signature)
            }),
            Self::Key(key) => try_verify(key, algorithm, message, signature).unwrap_or(false),
        }
    }
}

fn try_verify(
    key: &PKeyRef<openssl::pkey::Public>,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, ErrorStack> {
    let mut verifier = match digest(algorithm) {
        Some(digest) => Verifier::new(digest, key)?,
        None => Verifier::new_without_digest(key)?,
    };
    if is_pss(algorithm) {
        verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    }
    match curve(algorithm) {
        // RFC 7518 §3.4: exactly r and s, each as long as the curve's order.
        Some((_, size)) if signature.len() != 2 * size => Ok(false),
        Some((_, size)) => verifier.verify_oneshot(&der_of_raw(signature, size)?, message),
        None => verifier.verify_oneshot(signature, message),
    }
}

fn der_of_raw(signature: &[u8], size: usize) -> Result<Vec<u8>, ErrorStack> {
    let (r, s) = signature.split_at(size);
    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()
}

fn raw_of_der(signature: &[u8], size: usize) -> Result<Vec<u8>, ErrorStack> {
    let signature = EcdsaSig::from_der(signature)?;
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    let mut raw = signature.r().to_vec_padded(size)?;
    raw.extend(signature.s().to_vec_padded(size)?);
    Ok(raw)
}

fn rsa_of_components(n: &[u8], e: &[u8]) -> Result<PKey<openssl::pkey::Public>, ErrorStack> {
    let (n, e) = (BigNum::from_slice(n)?, BigNum::from_slice(e)?);
    PKey::from_rsa(Rsa::from_public_components(n, e)?)
}

fn ec_of_point(
    algorithm: Algorithm,
    point: &[u8],
) -> Result<PKey<openssl::pkey::Public>, ErrorStack> {
    let nid = curve(algorithm).map_or(Nid::UNDEF, |(nid, _)| nid);
    let group = EcGroup::from_curve_name(nid)?;
    let mut scratch = openssl::bn::BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, point, &mut scratch)?;
    let key = EcKey::from_public_key(&group, &point)?;
    key.check_key()?;
    PKey::from_ec_key(key)
}

/// Whether the key is of the algorithm's kind, curve and strength.
fn check<T: HasPublic>(algorithm: Algorithm, key: &PKeyRef<T>) -> Result<(), KeyError> {
    let wrong = KeyError::Expected(expectation(algorithm));
    match algorithm.family() {
        AlgorithmFamily::Hmac => Err(wrong),
        AlgorithmFamily::Rsa if key.id() != Id::RSA => Err(wrong),
        AlgorithmFamily::Rsa if key.bits() < 2048 => Err(KeyError::TooShort),
        AlgorithmFamily::Rsa if key.bits() > 16384 => Err(KeyError::TooLong),
        AlgorithmFamily::Rsa => Ok(()),
        AlgorithmFamily::Ec => {
            let named = key.ec_key().ok().and_then(|key| key.group().curve_name());
            let wanted = curve(algorithm).map(|(nid, _)| nid);
            if named.is_some() && named == wanted {
                Ok(())
            } else {
                Err(wrong)
            }
        }
        AlgorithmFamily::Ed if key.id() == Id::ED25519 => Ok(()),
        AlgorithmFamily::Ed => Err(wrong),
    }
}

fn digest(algorithm: Algorithm) -> Option<MessageDigest> {
    match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => {
            Some(MessageDigest::sha256())
        }
        Algorithm::HS384 | Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => {
            Some(MessageDigest::sha384())
        }
        Algorithm::HS512 | Algorithm::RS512 | Algorithm::PS512 => Some(MessageDigest::sha512()),
        _ => None,
    }
}

/// The algorithm's curve and the bytes of a number in its signatures.
fn curve(algorithm: Algorithm) -> Option<(Nid, usize)> {
    match algorithm {
        Algorithm::ES256 => Some((Nid::X9_62_PRIME256V1, 32)),
        Algorithm::ES384 => Some((Nid::SECP384R1, 48)),
        _ => None,
    }
}

fn is_pss(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512
    )
}

fn expectation(algorithm: Algorithm) -> &'static str {
    match algorithm.family() {
        AlgorithmFamily::Hmac => "a secret",
        AlgorithmFamily::Rsa => "an RSA key",
        AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => "an EC key on P-384",
        AlgorithmFamily::Ec => "an EC key on P-256",
        AlgorithmFamily::Ed => "an Ed25519 key",
    }
}
