//! bcrypt hashes: `$2b$12$<22 characters of salt><31 of hash>`.

use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

use super::Unusable;

/// A bcrypt hash. `$2a$`, `$2b$` and `$2y$` name the same function.
pub(super) struct Bcrypt {
    cost: u32,
    salt: [u8; 16],
    tag: [u8; 23],
}

const ALPHABET: GeneralPurpose = GeneralPurpose::new(&BCRYPT, NO_PAD);
const MALFORMED: Unusable =
    "is no bcrypt hash: expected $2b$, a cost of two digits, $ and 53 characters";

impl Bcrypt {
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let mut parts = text.split('$').skip(2);
        let (Some(cost), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        let two_digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
        let cost: u32 = cost.parse().map_err(|_| MALFORMED)?;
        if !two_digits || cost < LEAST_COST || rest.len() != SALT + TAG || !rest.is_ascii() {
            return Err(MALFORMED);
        }
        if cost > MOST_COST {
            return Err("would cost too much: bcrypt is limited to cost 16");
        }
        let (salt, tag) = rest.split_at(SALT);
        let decoded = |text: &str| ALPHABET.decode(text).map_err(|_| MALFORMED);
        Ok(Self {
            cost,
            salt: decoded(salt)?.try_into().map_err(|_| MALFORMED)?,
            tag: decoded(tag)?.try_into().map_err(|_| MALFORMED)?,
        })
    }

    /// The function reads no further than 72 bytes, and programs disagree on a zero byte: a
    /// password that has either would not be the only one with its hash.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        if password.len() > LONGEST || password.contains(&0) {
            return false;
        }
        // The zero byte that ends a string in C belongs to the password, where there is room.
        let mut ended = Zeroizing::new([0; LONGEST]);
        ended[..password.len()].copy_from_slice(password);
        let ended = &ended[..LONGEST.min(password.len() + 1)];
        let made = Zeroizing::new(bcrypt::bcrypt(self.cost, self.salt, ended));
        openssl::memcmp::eq(&made[..self.tag.len()], &self.tag)
    }
}

const LEAST_COST: u32 = 4;
const MOST_COST: u32 = 16;
/// Bytes that count.
const LONGEST: usize = 72;
/// Characters of the salt.
const SALT: usize = 22;
/// Characters of the hash.
const TAG: usize = 31;
