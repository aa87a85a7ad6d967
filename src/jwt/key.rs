//! Keys as OpenSSL has them, parsed and checked once, and what they do: sign and verify in the
//! forms of RFC 7518 §3 and RFC 8037 §3.1. Nothing here panics on a key or signature of any shape.

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};
use openssl::x509::X509;

use super::hmac::Hmac;
use super::{Algorithm, Family, KeyError};

/// A key that signs. OpenSSL wipes it when it is dropped.
pub(super) enum Signs {
    Secret(Hmac),
    Key(PKey<Private>),
}

/// A key that verifies.
pub(super) enum Verifies {
    Secret(Hmac),
    Key(PKey<Public>),
}

pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Hmac, KeyError> {
    if algorithm.family() != Family::Hmac {
        return Err(KeyError::Expected(algorithm.expectation()));
    }
    if secret.is_empty() {
        return Err(KeyError::Empty);
    }
    Ok(Hmac::new(algorithm, secret))
}

impl Signs {
    pub(super) fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        // An empty passphrase keeps OpenSSL from asking for one on the terminal.
        let key = PKey::private_key_from_pem_passphrase(pem, b"")
            .map_err(|_| KeyError::Expected(algorithm.expectation()))?;
        check(algorithm, &key)?;
        Ok(Self::Key(key))
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let key = match self {
            Self::Secret(hmac) => return Ok(hmac.tag(message).as_slice().to_vec()),
            Self::Key(key) => key,
        };
        let mut signer = match algorithm.family() {
            Family::Ed => Signer::new_without_digest(key)?,
            _ => Signer::new(algorithm.digest(), key)?,
        };
        if algorithm.is_pss() {
            signer.set_rsa_padding(Padding::PKCS1_PSS)?;
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
        }
        let signature = signer.sign_oneshot_to_vec(message)?;
        match algorithm.curve() {
            Some((_, size)) => raw_of_der(&signature, size),
            None => Ok(signature),
        }
    }
}

impl Verifies {
    pub(super) fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let key = PKey::public_key_from_pem(pem)
            .or_else(|_| PKey::from_rsa(Rsa::public_key_from_pem_pkcs1(pem)?))
            .or_else(|_| X509::from_pem(pem)?.public_key());
        Self::of(algorithm, key)
    }

    pub(super) fn from_rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let number = BigNum::from_slice;
        let key = number(n).and_then(|n| Rsa::from_public_components(n, number(e)?));
        Self::of(algorithm, key.and_then(PKey::from_rsa))
    }

    pub(super) fn from_ec(algorithm: Algorithm, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let (nid, size) = algorithm.curve().unwrap_or((Nid::UNDEF, 0));
        // RFC 7518 §6.2.1.2: each as long as the curve's numbers.
        if x.len() != size || y.len() != size {
            return Err(KeyError::Expected(algorithm.expectation()));
        }
        let point = [&[4], x, y].concat();
        Self::of(algorithm, ec_of_point(nid, &point))
    }

    pub(super) fn from_ed(algorithm: Algorithm, x: &[u8]) -> Result<Self, KeyError> {
        let kind = if x.len() == 32 {
            Id::ED25519
        } else {
            Id::ED448
        };
        Self::of(algorithm, PKey::public_key_from_raw_bytes(x, kind))
    }

    fn of(algorithm: Algorithm, key: Result<PKey<Public>, ErrorStack>) -> Result<Self, KeyError> {
        let key = key.map_err(|_| KeyError::Expected(algorithm.expectation()))?;
        check(algorithm, &key)?;
        Ok(Self::Key(key))
    }

    /// What tells this key from all others.
    pub(super) fn identity(&self) -> [u8; 16] {
        let digest = match self {
            // No token: it has no dot.
            Self::Secret(hmac) => openssl::sha::sha256(hmac.tag(b"identity").as_slice()),
            Self::Key(key) => openssl::sha::sha256(&key.public_key_to_der().unwrap_or_default()),
        };
        let mut identity = [0; 16];
        identity.copy_from_slice(&digest[..16]);
        identity
    }

    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(hmac) => {
                let tag = hmac.tag(message);
                let tag = tag.as_slice();
                tag.len() == signature.len() && openssl::memcmp::eq(tag, signature)
            }
            Self::Key(key) => verify(key, algorithm, message, signature).unwrap_or(false),
        }
    }
}

fn verify(
    key: &PKeyRef<Public>,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, ErrorStack> {
    let mut verifier = match algorithm.family() {
        Family::Ed => Verifier::new_without_digest(key)?,
        _ => Verifier::new(algorithm.digest(), key)?,
    };
    if algorithm.is_pss() {
        verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    }
    match algorithm.curve() {
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

fn ec_of_point(nid: Nid, point: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let group = EcGroup::from_curve_name(nid)?;
    let mut scratch = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, point, &mut scratch)?;
    let key = EcKey::from_public_key(&group, &point)?;
    key.check_key()?;
    PKey::from_ec_key(key)
}

/// Whether the key is of the algorithm's kind, curve and strength.
fn check<T: HasPublic>(algorithm: Algorithm, key: &PKeyRef<T>) -> Result<(), KeyError> {
    let fits = match algorithm.family() {
        Family::Hmac => false,
        Family::Rsa if key.id() != Id::RSA => false,
        Family::Rsa if key.bits() < 2048 => return Err(KeyError::TooShort),
        Family::Rsa if key.bits() > 16384 => return Err(KeyError::TooLong),
        Family::Rsa => true,
        Family::Ec => {
            let named = key.ec_key().ok().and_then(|key| key.group().curve_name());
            named.is_some() && named == algorithm.curve().map(|(nid, _)| nid)
        }
        Family::Ed => matches!(key.id(), Id::ED25519 | Id::ED448),
    };
    if fits {
        Ok(())
    } else {
        Err(KeyError::Expected(algorithm.expectation()))
    }
}
