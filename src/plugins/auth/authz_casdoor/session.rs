//! What the browser carries for us: a login under way, or a session, sealed into one cookie. No
//! server remembers anything, so any instance with the same client secret can read it.
//!
//! AES-256-GCM under a key made of the client secret by HKDF-SHA256 (RFC 5869). The client and the
//! server it belongs to are part of the key, so that no cookie passes for another application's;
//! a rotated client secret ends all sessions.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::error::ErrorStack;
use openssl::kdf::{HkdfMode, hkdf};
use openssl::md::Md;
use openssl::rand::rand_bytes;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use zeroize::Zeroizing;

use crate::clock::unix_secs;

/// What a cookie says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cookie {
    /// The browser was sent to log in.
    Login {
        /// What it has to bring back.
        state: String,
        /// Path and query it was on its way to.
        target: String,
    },
    /// It has logged in.
    Session,
}

/// Seals cookies and opens them.
pub(super) struct Sealer(Zeroizing<[u8; 32]>);

const NONCE: usize = 12;
const TAG: usize = 16;
/// Changes with the layout, so that no cookie is read as what it is not.
const LAYOUT: &[u8] = b"claviger authz-casdoor cookie 1";

impl Sealer {
    /// `owner` tells applications apart that have the same secret.
    pub(super) fn new(secret: &[u8], owner: &[&str]) -> Result<Self, ErrorStack> {
        let mut info = LAYOUT.to_vec();
        for part in owner {
            info.push(0);
            info.extend_from_slice(part.as_bytes());
        }
        let mut key = Zeroizing::new([0; 32]);
        let mode = HkdfMode::ExtractAndExpand;
        hkdf(
            Md::sha256(),
            secret,
            None,
            Some(&info),
            mode,
            None,
            &mut *key,
        )?;
        Ok(Self(key))
    }

    /// The cookie's value; it holds until `end`.
    pub(super) fn seal(&self, cookie: &Cookie, end: SystemTime) -> Result<String, ErrorStack> {
        let mut plain = unix_secs(end).to_be_bytes().to_vec();
        match cookie {
            Cookie::Session => plain.push(b'S'),
            Cookie::Login { state, target } => {
                plain.push(b'L');
                plain.extend_from_slice(state.as_bytes());
                plain.push(b' ');
                plain.extend_from_slice(target.as_bytes());
            }
        }
        let mut sealed = vec![0; NONCE];
        rand_bytes(&mut sealed)?;
        let mut tag = [0; TAG];
        let cipher = Cipher::aes_256_gcm();
        let text = encrypt_aead(cipher, &*self.0, Some(&sealed), LAYOUT, &plain, &mut tag)?;
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(&tag);
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What the value says, if we sealed it and its time is not over.
    pub(super) fn open(&self, value: &str, now: SystemTime) -> Option<Cookie> {
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (nonce, rest) = sealed.split_at_checked(NONCE)?;
        let (text, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
        let cipher = Cipher::aes_256_gcm();
        let plain = decrypt_aead(cipher, &*self.0, Some(nonce), LAYOUT, text, tag).ok()?;
        let (end, rest) = plain.split_first_chunk()?;
        if u64::from_be_bytes(*end) <= unix_secs(now) {
            return None;
        }
        match rest.split_first()? {
            (b'S', []) => Some(Cookie::Session),
            (b'L', login) => {
                let (state, target) = std::str::from_utf8(login).ok()?.split_once(' ')?;
                Some(Cookie::Login {
                    state: state.to_owned(),
                    target: target.to_owned(),
                })
            }
            _ => None,
        }
    }
}

/// A value nobody can guess.
pub(super) fn fresh_state() -> Result<String, ErrorStack> {
    let mut bytes = [0; 24];
    rand_bytes(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const SECRET: &[u8] = b"a client secret of this length";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn sealer(secret: &[u8], owner: &[&str]) -> Sealer {
        Sealer::new(secret, owner).expect("a key can be made")
    }

    #[test]
    fn what_was_sealed_opens_until_its_end() {
        let sealer = sealer(SECRET, &["client"]);
        let login = Cookie::Login {
            state: fresh_state().expect("there is randomness"),
            target: "/a b?x=1 2".to_owned(),
        };
        for cookie in [Cookie::Session, login] {
            let value = sealer.seal(&cookie, at(1000)).expect("it can be sealed");
            assert_eq!(sealer.open(&value, at(999)), Some(cookie));
            assert_eq!(sealer.open(&value, at(1000)), None, "its time is over");
        }
    }

    #[test]
    fn no_value_is_sealed_twice_alike() {
        let sealer = sealer(SECRET, &["client"]);
        let seal = || {
            sealer
                .seal(&Cookie::Session, at(1000))
                .expect("it can be sealed")
        };
        assert_ne!(seal(), seal());
        let state = || fresh_state().expect("there is randomness");
        assert_ne!(state(), state());
    }

    #[test]
    fn a_changed_value_opens_never() {
        let sealer = sealer(SECRET, &["client"]);
        let value = sealer.seal(&Cookie::Session, at(1000)).expect("sealed");
        let bytes = URL_SAFE_NO_PAD.decode(&value).expect("base64");
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[position] ^= 1 << bit;
                let changed = URL_SAFE_NO_PAD.encode(changed);
                assert_eq!(sealer.open(&changed, at(1)), None, "{position}.{bit}");
            }
        }
        for length in 0..bytes.len() {
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..length]);
            assert_eq!(sealer.open(&cut, at(1)), None, "cut to {length}");
        }
        for value in ["", "=", "nonsense", "ü"] {
            assert_eq!(sealer.open(value, at(1)), None, "{value}");
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        let sealed = sealer(SECRET, &["client", "server"]);
        let value = sealed.seal(&Cookie::Session, at(1000)).expect("sealed");
        for other in [
            sealer(b"another secret of this length.", &["client", "server"]),
            sealer(SECRET, &["other", "server"]),
            sealer(SECRET, &["client", "other"]),
            sealer(SECRET, &["clients", "erver"]),
        ] {
            assert_eq!(other.open(&value, at(1)), None);
        }
        // Another instance of the fleet.
        let same = sealer(SECRET, &["client", "server"]);
        assert_eq!(same.open(&value, at(1)), Some(Cookie::Session));
    }
}
