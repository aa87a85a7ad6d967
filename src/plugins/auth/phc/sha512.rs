//! sha512-crypt hashes as glibc and libxcrypt write them: `$6$<salt>$<hash>` and
//! `$6$rounds=<rounds>$<salt>$<hash>`.

use sha_crypt::Params;
use zeroize::Zeroizing;

use super::{Unusable, decimal};

/// A sha512-crypt hash.
pub(super) struct Sha512Crypt {
    params: Params,
    salt: Box<[u8]>,
    /// In the characters of crypt(3).
    tag: [u8; TAG],
}

const MALFORMED: Unusable =
    "is no sha512-crypt hash: expected $6$, perhaps rounds=<number>$, a salt, $ and 86 characters";

impl Sha512Crypt {
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let parts: Vec<&str> = text.split('$').skip(2).collect();
        let (rounds, salt, tag) = match *parts {
            [salt, tag] => (Params::RECOMMENDED_ROUNDS, salt, tag),
            [rounds, salt, tag] => {
                let rounds = rounds.strip_prefix("rounds=").and_then(decimal);
                (rounds.ok_or(MALFORMED)?, salt, tag)
            }
            _ => return Err(MALFORMED),
        };
        let encoded = |text: &str| text.bytes().all(|byte| CHARACTERS.contains(&byte));
        let sized = (1..=16).contains(&salt.len()) && rounds >= Params::ROUNDS_MIN;
        if !sized || !encoded(salt) || !encoded(tag) {
            return Err(MALFORMED);
        }
        if rounds > MOST_ROUNDS {
            return Err("would cost too much: sha512-crypt is limited to rounds=2000000");
        }
        Ok(Self {
            params: Params::new(rounds).map_err(|_| MALFORMED)?,
            salt: salt.as_bytes().into(),
            tag: tag.as_bytes().try_into().map_err(|_| MALFORMED)?,
        })
    }

    /// Programs in C cannot say a password with a zero byte.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        if password.contains(&0) {
            return false;
        }
        let made = sha_crypt::sha512_crypt(password, &self.salt, self.params);
        let made = Zeroizing::new(made);
        openssl::memcmp::eq(&*encode(&made), &self.tag)
    }
}

/// Four characters for three bytes, the least significant bits first; which three bytes is a
/// matter of its own: 0, 21, 42, then 22, 43, 1, then 44, 2, 23 and so on.
fn encode(digest: &[u8; 64]) -> Zeroizing<[u8; TAG]> {
    let mut text = Zeroizing::new([0; TAG]);
    let mut put = text.iter_mut();
    let mut spell = |bits: u32, characters: u32| {
        for (character, place) in (0..characters).zip(&mut put) {
            let index = (bits >> (6 * character)) & 63;
            *place = CHARACTERS[index as usize];
        }
    };
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        let [high, middle, low] = [a, b, c].map(|at: usize| u32::from(digest[at]));
        spell((high << 16) | (middle << 8) | low, 4);
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    spell(u32::from(digest[63]), 2);
    text
}

const CHARACTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const TAG: usize = 86;
const MOST_ROUNDS: u32 = 2_000_000;
