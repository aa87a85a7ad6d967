//! Private keys: every PEM form of the kinds that servers use, and clear words for all others.

use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private};

use super::certificate::CertificateError;
use super::{ffi, pem};
use crate::secrets::Secret;

/// What kind of key a certificate has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// RSA.
    Rsa {
        /// Size of the modulus.
        bits: u32,
    },
    /// RSA whose certificate allows PSS signatures only.
    RsaPss {
        /// Size of the modulus.
        bits: u32,
    },
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
}

/// OpenSSL keeps one certificate for each of these, and picks among them by what the client can
/// verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlot {
    /// RSA.
    Rsa,
    /// RSA-PSS.
    RsaPss,
    /// ECDSA on any curve.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

impl KeyAlgorithm {
    /// The kind of a key that may serve.
    ///
    /// # Errors
    /// It is another kind of key, or too short or too long.
    pub fn of<T: HasPublic>(key: &PKeyRef<T>) -> Result<Self, CertificateError> {
        let bits = key.bits();
        let rsa = || match bits {
            ..MIN_RSA_BITS => Err(CertificateError::WeakKey { bits }),
            MIN_RSA_BITS..=MAX_RSA_BITS => Ok(bits),
            _ => Err(CertificateError::HugeKey { bits }),
        };
        match key.id() {
            Id::RSA => Ok(Self::Rsa { bits: rsa()? }),
            Id::RSA_PSS => Ok(Self::RsaPss { bits: rsa()? }),
            Id::ED25519 => Ok(Self::Ed25519),
            // Asked for its `EcKey`, OpenSSL would keep a second copy of the key.
            Id::EC => ffi::with_curve(key, |curve| match curve {
                b"prime256v1" => Ok(Self::EcdsaP256),
                b"secp384r1" => Ok(Self::EcdsaP384),
                _ => Err(CertificateError::UnsupportedKey),
            }),
            _ => Err(CertificateError::UnsupportedKey),
        }
    }

    /// Where OpenSSL keeps it.
    #[must_use]
    pub const fn slot(self) -> KeySlot {
        match self {
            Self::Rsa { .. } => KeySlot::Rsa,
            Self::RsaPss { .. } => KeySlot::RsaPss,
            Self::EcdsaP256 | Self::EcdsaP384 => KeySlot::Ecdsa,
            Self::Ed25519 => KeySlot::Ed25519,
        }
    }

    /// Size of the modulus, where a handshake's cost grows with it.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<u32> {
        match self {
            Self::Rsa { bits } | Self::RsaPss { bits } => Some(bits),
            _ => None,
        }
    }
}

impl std::fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::RsaPss { bits } => write!(f, "RSA-PSS {bits}"),
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

impl std::fmt::Display for KeySlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::RsaPss => "RSA-PSS",
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// The keys of a PEM text, in order; never none. They stay inside OpenSSL, which wipes them.
///
/// # Errors
/// There is none, or one cannot serve.
pub(super) fn parse_keys(text: &Secret) -> Result<Vec<PKey<Private>>, CertificateError> {
    let mut keys = Vec::with_capacity(1);
    let mut certificates = false;
    for block in pem::blocks(text.expose()) {
        let block = block.map_err(|pem::Torn| CertificateError::BadKey)?;
        certificates |= block.is_certificate();
        // Others are parameters of the key that follows, which names them again.
        if !block.is_private_key() {
            continue;
        }
        if block.is_encrypted() {
            return Err(CertificateError::EncryptedKey);
        }
        // Without a callback OpenSSL would ask for a pass phrase on the terminal.
        let key = PKey::private_key_from_pem_callback(block.whole, |_| Ok(0));
        keys.push(key.map_err(|_| CertificateError::BadKey)?);
    }
    match keys.is_empty() {
        false => Ok(keys),
        true if certificates => Err(CertificateError::CertificateForKey),
        true => Err(CertificateError::no_block(
            text.expose(),
            CertificateError::NoKey,
        )),
    }
}

/// OpenSSL's security level 2 refuses shorter ones.
const MIN_RSA_BITS: u32 = 2048;
/// A signature of a longer one takes tens of milliseconds of a core.
const MAX_RSA_BITS: u32 = 8192;
