//! Passwords kept as hashes: `$argon2id$…`, bcrypt (`$2a$`, `$2b$`, `$2y$`) and sha512-crypt
//! (`$6$…`). What looks like a hash is one or is refused at load; it is never taken for the
//! password itself.

mod bcrypt;
mod sha512;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use self::bcrypt::Bcrypt;
use self::sha512::Sha512Crypt;

/// A hash that passwords are held against. Its own text is never accepted as one.
pub(super) struct Hash(Scheme);

enum Scheme {
    Argon2id(Argon2id),
    Bcrypt(Bcrypt),
    Sha512Crypt(Sha512Crypt),
}

/// `$argon2id$v=19$m=65536,t=3,p=4$<salt>$<tag>`.
struct Argon2id {
    version: Version,
    params: Params,
    salt: Box<[u8]>,
    tag: Box<[u8]>,
}

/// Why a text that looks like a hash is none that can be used.
pub(super) type Unusable = &'static str;

impl Hash {
    /// The hash a text is; `None` where the text is a password.
    ///
    /// # Errors
    /// It has the form of a hash, but is of another kind, damaged, or would cost too much.
    pub(super) fn parse(text: &str) -> Option<Result<Self, Unusable>> {
        let kind = kind_of(text)?;
        Some(match kind {
            "argon2id" => Argon2id::parse(text).map(Scheme::Argon2id).map(Self),
            "2a" | "2b" | "2y" => Bcrypt::parse(text).map(Scheme::Bcrypt).map(Self),
            "6" => Sha512Crypt::parse(text).map(Scheme::Sha512Crypt).map(Self),
            _ => Err(UNSUPPORTED),
        })
    }

    /// Whether the password has this hash. Slow by design: never called on a traffic thread.
    /// A password that is longer than [`LONGEST_PASSWORD`] has none.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        if password.is_empty() || password.len() > LONGEST_PASSWORD {
            return false;
        }
        match &self.0 {
            Scheme::Argon2id(hash) => hash.is_of(password),
            Scheme::Bcrypt(hash) => hash.is_of(password),
            Scheme::Sha512Crypt(hash) => hash.is_of(password),
        }
    }
}

impl Argon2id {
    fn parse(text: &str) -> Result<Self, Unusable> {
        const MALFORMED: Unusable =
            "is no argon2id hash of the form $argon2id$v=19$m=65536,t=3,p=4$<salt>$<hash>";
        let mut parts = text.split('$').skip(2);
        let (Some(version), Some(costs), Some(salt), Some(tag), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(MALFORMED);
        };
        let version = match version {
            "v=19" => Version::V0x13,
            "v=16" => Version::V0x10,
            _ => return Err(MALFORMED),
        };
        let mut costs = costs.split(',');
        let mut cost = |name: &str| decimal(costs.next()?.strip_prefix(name)?);
        let (Some(memory), Some(passes), Some(lanes)) = (cost("m="), cost("t="), cost("p=")) else {
            return Err(MALFORMED);
        };
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).map(Vec::into_boxed_slice);
        let (Ok(salt), Ok(tag)) = (decode(salt), decode(tag)) else {
            return Err(MALFORMED);
        };
        let sized = (8..=64).contains(&salt.len()) && (16..=64).contains(&tag.len());
        if costs.next().is_some() || !sized {
            return Err(MALFORMED);
        }
        let work = u64::from(memory) * u64::from(passes);
        if memory > MOST_MEMORY || lanes > MOST_LANES || work > MOST_WORK {
            return Err(
                "would cost too much: argon2id is limited to m=1048576 (1 GiB), p=16 and m*t=4194304",
            );
        }
        let params = Params::new(memory, passes, lanes, Some(tag.len())).map_err(|_| MALFORMED)?;
        Ok(Self {
            version,
            params,
            salt,
            tag,
        })
    }

    fn is_of(&self, password: &[u8]) -> bool {
        let argon2 = Argon2::new(Algorithm::Argon2id, self.version, self.params.clone());
        let mut memory: Vec<Block> = Vec::new();
        let blocks = self.params.block_count();
        if memory.try_reserve_exact(blocks).is_err() {
            log::error!("there is no memory to verify a password by argon2id");
            return false;
        }
        memory.resize(blocks, Block::default());
        let mut tag = Zeroizing::new(vec![0; self.tag.len()]);
        let made =
            argon2.hash_password_into_with_memory(password, &self.salt, &mut tag, &mut memory);
        memory.iter_mut().for_each(Zeroize::zeroize);
        made.is_ok() && openssl::memcmp::eq(&tag, &self.tag)
    }
}

/// What stands between the first two `$` of a text that is a hash.
fn kind_of(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('$')?;
    let name = rest.to_ascii_lowercase();
    let family = FAMILIES.iter().any(|family| name.starts_with(family));
    let Some((kind, rest)) = rest.split_once('$') else {
        return family.then_some(rest);
    };
    let name = name.split(['$', ',']).next().unwrap_or_default();
    (family || KINDS.contains(&name) || has_form(kind, rest)).then_some(kind)
}

/// Whether it has the form of the PHC string format, whatever its kind: parameters, salt and
/// hash, each of few kinds of characters.
fn has_form(kind: &str, rest: &str) -> bool {
    let named = (1..=32).contains(&kind.len())
        && kind
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let parts: Vec<&str> = rest.split('$').collect();
    let last = parts.last().map_or(0, |part| part.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/+.=,-_".contains(&byte);
    named && parts.len() >= 2 && last >= 22 && parts.iter().all(|part| part.bytes().all(plain))
}

/// A number as the formats write it: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading = text.len() > 1 && text.starts_with('0');
    (plain && !leading).then(|| text.parse().ok()).flatten()
}

const UNSUPPORTED: Unusable = "is a hash of a kind that is not supported: use argon2id, bcrypt ($2a$, $2b$, $2y$) or sha512-crypt ($6$)";

/// Names of hashes as crypt(5) and passlib write them, in lower case.
const KINDS: &[&str] = &[
    "1",
    "2",
    "2a",
    "2b",
    "2x",
    "2y",
    "3",
    "5",
    "6",
    "7",
    "8",
    "9",
    "14",
    "apr1",
    "p",
    "h",
    "s",
    "y",
    "gy",
    "sm3",
    "sm3-yescrypt",
    "md4",
    "md5",
    "sha1",
    "sha256",
    "sha512",
    "nt",
];
/// Beginnings of such names.
const FAMILIES: &[&str] = &[
    "argon2", "bcrypt", "pbkdf2", "scrypt", "yescrypt", "balloon", "md5-", "sha256-", "sha512-",
];

/// The longest password a hash is computed of, in bytes. What sha512-crypt costs grows with the
/// square of it.
pub(super) const LONGEST_PASSWORD: usize = 1024;
/// KiB.
const MOST_MEMORY: u32 = 1 << 20;
const MOST_LANES: u32 = 16;
/// KiB written in all passes together.
const MOST_WORK: u64 = 4 << 20;

#[cfg(test)]
mod tests;
