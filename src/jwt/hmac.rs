//! HMAC (RFC 2104) whose two keyed blocks are hashed once: a message costs its own hashing and
//! one block, no allocation, and none of the look-ups that `EVP_MAC` makes for each message. The
//! hashing is OpenSSL's.

use openssl::sha::{Sha256, Sha384, Sha512};
use zeroize::{Zeroize as _, Zeroizing};

use super::Algorithm;

/// A key as the states of the hash after its inner and its outer block.
pub(super) enum Hmac {
    Sha256(Box<[Sha256; 2]>),
    Sha384(Box<[Sha384; 2]>),
    Sha512(Box<[Sha512; 2]>),
}

/// A tag of up to 64 bytes.
pub(super) struct Tag {
    bytes: [u8; 64],
    len: usize,
}

impl Tag {
    fn of(tag: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..tag.len()].copy_from_slice(tag);
        let len = tag.len();
        Self { bytes, len }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

macro_rules! states {
    ($hash:ident, $oneshot:path, $block:literal, $secret:expr) => {{
        let mut block = Zeroizing::new([0_u8; $block]);
        if $secret.len() > $block {
            let mut short = $oneshot($secret);
            block[..short.len()].copy_from_slice(&short);
            short.zeroize();
        } else {
            block[..$secret.len()].copy_from_slice($secret);
        }
        let state = |pad: u8| {
            let padded = Zeroizing::new(block.map(|byte| byte ^ pad));
            let mut hash = $hash::new();
            hash.update(&*padded);
            hash
        };
        Self::$hash(Box::new([state(0x36), state(0x5c)]))
    }};
}

macro_rules! tag {
    ($states:expr, $message:expr) => {{
        let [mut inner, mut outer] = <[_; 2]>::clone($states);
        inner.update($message);
        outer.update(&inner.finish());
        Tag::of(&outer.finish())
    }};
}

impl Hmac {
    pub(super) fn new(algorithm: Algorithm, secret: &[u8]) -> Self {
        match algorithm.digest_bytes() {
            32 => states!(Sha256, openssl::sha::sha256, 64, secret),
            48 => states!(Sha384, openssl::sha::sha384, 128, secret),
            _ => states!(Sha512, openssl::sha::sha512, 128, secret),
        }
    }

    pub(super) fn tag(&self, message: &[u8]) -> Tag {
        match self {
            Self::Sha256(states) => tag!(states, message),
            Self::Sha384(states) => tag!(states, message),
            Self::Sha512(states) => tag!(states, message),
        }
    }
}

/// Whoever knows the states can sign, so they are overwritten like the secret.
impl Drop for Hmac {
    fn drop(&mut self) {
        match self {
            Self::Sha256(states) => {
                *states.as_mut() = [Sha256::new(), Sha256::new()];
                std::hint::black_box(states);
            }
            Self::Sha384(states) => {
                *states.as_mut() = [Sha384::new(), Sha384::new()];
                std::hint::black_box(states);
            }
            Self::Sha512(states) => {
                *states.as_mut() = [Sha512::new(), Sha512::new()];
                std::hint::black_box(states);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;
    use openssl::sign::Signer;

    use super::*;

    #[test]
    fn tags_are_those_of_openssl_for_keys_and_messages_of_every_length() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            for key_len in [1, 31, 32, 63, 64, 65, 127, 128, 129, 300] {
                let secret: Vec<u8> = (0..key_len)
                    .map(|n: usize| n.to_le_bytes()[0] ^ 0x5a)
                    .collect();
                let hmac = Hmac::new(algorithm, &secret);
                let key = PKey::hmac(&secret).expect("key is made");
                for len in [0, 1, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129, 1000] {
                    let message = vec![7; len];
                    let mut signer = Signer::new(algorithm.digest(), &key).expect("signs");
                    let expected = signer.sign_oneshot_to_vec(&message).expect("signs");
                    let tag = hmac.tag(&message);
                    assert_eq!(tag.as_slice(), expected, "{algorithm} {key_len} {len}");
                }
            }
        }
    }

    #[test]
    fn rfc_4231_case_2() {
        let tag = Hmac::new(Algorithm::HS256, b"Jefe").tag(b"what do ya want for nothing?");
        let hex: String = tag
            .as_slice()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex, expected);
    }
}
