//! One key of session tickets, and the text in which a fleet shares up to three.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use openssl::error::ErrorStack;
use openssl::kdf::{HkdfMode, hkdf};
use openssl::md::Md;
use openssl::rand::rand_bytes;
use zeroize::Zeroizing;

use crate::sealed::Sealed;

/// Bytes of a key's name, with which every ticket begins.
pub const KEY_NAME: usize = 16;

/// A key, kept sealed.
pub struct TicketKey {
    name: [u8; KEY_NAME],
    material: Sealed,
}

/// A key, for the moment of its use.
pub struct TicketMaterial {
    /// Stands in the clear in every ticket; tells nothing of the rest.
    pub name: [u8; KEY_NAME],
    /// For AES-256-CBC.
    pub cipher: Zeroizing<[u8; 32]>,
    /// For HMAC-SHA256.
    pub mac: Zeroizing<[u8; 32]>,
}

impl TicketKey {
    /// A key of this process.
    pub(super) fn random() -> Result<Self, ErrorStack> {
        let mut secret = Zeroizing::new([0; 32]);
        rand_bytes(&mut *secret)?;
        Self::derive(&*secret)
    }

    /// The key a secret stands for: always the same, so that gateways need to share nothing else.
    pub(super) fn derive(secret: &[u8]) -> Result<Self, ErrorStack> {
        let expand = |what: &[u8], into: &mut [u8]| {
            let mode = HkdfMode::ExtractAndExpand;
            hkdf(
                Md::sha256(),
                secret,
                Some(SALT),
                Some(what),
                mode,
                None,
                into,
            )
        };
        let mut name = [0; KEY_NAME];
        expand(b"name", &mut name)?;
        let mut material = Zeroizing::new([0; 64]);
        expand(b"aes-256-cbc hmac-sha256", &mut *material)?;
        Ok(Self {
            name,
            material: Sealed::new(&*material),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8; KEY_NAME] {
        &self.name
    }

    /// The key itself.
    pub(super) fn open(&self) -> Option<TicketMaterial> {
        let material = self.material.open();
        let (cipher, mac) = material.split_first_chunk()?;
        Some(TicketMaterial {
            name: self.name,
            cipher: Zeroizing::new(*cipher),
            mac: Zeroizing::new(mac.try_into().ok()?),
        })
    }
}

/// The keys of a value, newest first: one to three.
pub struct SharedKeys(Vec<Arc<TicketKey>>);

/// A value that holds no keys. Says what was expected, never what there was.
#[derive(Debug, thiserror::Error)]
pub enum SharedKeysError {
    /// None, or more than three.
    #[error("expected one to three keys for session tickets, one a line, the newest first")]
    Count,
    /// Neither hexadecimal nor base64, too short or too long.
    #[error(
        "expected key {0} for session tickets to be 32 to 256 random bytes in base64 or hexadecimal"
    )]
    Key(usize),
    /// OpenSSL derived nothing.
    #[error("openssl derived no key for session tickets")]
    OpenSsl(#[from] ErrorStack),
}

impl SharedKeys {
    /// Keys of one line each (or with commas or blanks between them), the newest first, each in
    /// base64 or hexadecimal.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Self, SharedKeysError> {
        let between = |c: char| c == ',' || c.is_ascii_whitespace();
        let texts = text.split(between).filter(|text| !text.is_empty());
        let mut keys: Vec<Arc<TicketKey>> = Vec::with_capacity(MOST_KEYS);
        for (index, text) in texts.enumerate() {
            if index == MOST_KEYS {
                return Err(SharedKeysError::Count);
            }
            let secret = decode(text).ok_or(SharedKeysError::Key(index + 1))?;
            let key = TicketKey::derive(&secret)?;
            // The same twice is one.
            if keys.iter().all(|other| other.name != key.name) {
                keys.push(Arc::new(key));
            }
        }
        if keys.is_empty() {
            return Err(SharedKeysError::Count);
        }
        Ok(Self(keys))
    }

    /// The keys, newest first.
    #[must_use]
    pub fn keys(&self) -> &[Arc<TicketKey>] {
        &self.0
    }
}

/// The bytes of a key's text. What could be both is hexadecimal: 64 digits of it are hardly ever
/// meant as base64.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = if is_hex {
        // As much as there will be, so that nothing is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
        for pair in text.as_bytes().chunks_exact(2) {
            bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
        }
        bytes
    } else {
        let mut bytes = Zeroizing::new(vec![0; text.len()]);
        let engine = match text.contains(['-', '_']) {
            true => URL_SAFE,
            false => STANDARD,
        };
        let length = engine.decode_slice(text, &mut bytes).ok()?;
        bytes.truncate(length);
        bytes
    };
    (32..=256).contains(&bytes.len()).then_some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

const MOST_KEYS: usize = 3;

/// Sets these keys apart from whatever else might be derived of the same secret.
const SALT: &[u8] = b"claviger session tickets 1";

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, ANY_PADDING);
