//! Lines of the audit log and what links them: each names its number and the hash of the line
//! before it, and ends with its own hash (or HMAC, where there is a key).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde::Deserialize;

use super::super::escape::json_inside;
use super::super::logging::timestamp;

/// SHA-256, plain or keyed.
pub(super) type Digest = [u8; 32];

/// The newest line of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Its number; 0 before the first line.
    pub seq: u64,
    /// Its hash; zeros before the first line.
    pub(super) hash: Digest,
}

impl Head {
    /// The hash in hex.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&self.hash)
    }

    /// Reads what [`Head::to_text`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.trim_end().split_once(' ')?;
        let (seq, hash) = (seq.parse().ok()?, unhex(hash)?);
        Some(Self { seq, hash })
    }

    pub(super) fn to_text(self) -> String {
        format!("{} {}\n", self.seq, self.hash())
    }
}

/// How lines are hashed. With a key, whoever may write the file but does not know the key cannot
/// make a chain that holds.
#[derive(Clone, Default)]
pub enum Seal {
    /// SHA-256 (`hash`).
    #[default]
    Plain,
    /// HMAC-SHA-256 (`hmac`).
    Keyed(Arc<PKey<Private>>),
}

/// The key cannot be used for an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a key of at least 16 bytes")]
pub struct BadKey;

impl Seal {
    /// HMAC-SHA-256 with this key.
    ///
    /// # Errors
    /// It is shorter than 16 bytes.
    pub fn keyed(key: &[u8]) -> Result<Self, BadKey> {
        if key.len() < SHORTEST_KEY {
            return Err(BadKey);
        }
        let key = PKey::hmac(key).map_err(|_| BadKey)?;
        Ok(Self::Keyed(Arc::new(key)))
    }

    pub(super) fn is_keyed(&self) -> bool {
        matches!(self, Self::Keyed(_))
    }

    fn member(&self) -> &'static str {
        if self.is_keyed() { HMAC } else { HASH }
    }

    pub(super) fn digest(&self, content: &[u8]) -> Digest {
        match self {
            Self::Plain => openssl::sha::sha256(content),
            Self::Keyed(key) => hmac(key, content)
                .expect("SHA-256 and HMAC are built into the OpenSSL that is linked"),
        }
    }
}

fn hmac(key: &PKey<Private>, content: &[u8]) -> Result<Digest, openssl::error::ErrorStack> {
    let mut digest = Digest::default();
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    signer.sign_oneshot(&mut digest, content)?;
    Ok(digest)
}

/// What happened, before it is a line.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) time: SystemTime,
    pub(super) event: &'static str,
    pub(super) fields: Vec<(&'static str, Text)>,
}

/// What a field holds. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A text that others hold too.
    Shared(Arc<str>),
    /// A text.
    Owned(String),
    /// A word of ours.
    Word(&'static str),
    /// A number.
    Number(u64),
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self::Shared(Arc::clone(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Owned(text)
    }
}

impl From<&'static str> for Text {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<u64> for Text {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Appends the line that follows `head`, with its line feed, and returns the new head.
pub(super) fn write_line(out: &mut Vec<u8>, head: Head, entry: &Entry, seal: &Seal) -> Head {
    let seq = head.seq + 1;
    let mut line = format!(
        "{{\"time\":\"{}\",\"seq\":{seq},\"event\":\"{}\",\"pid\":{}",
        timestamp(entry.time),
        entry.event,
        std::process::id()
    );
    for (name, text) in &entry.fields {
        // Writing into a string cannot fail.
        let _ = match text {
            Text::Number(number) => write!(line, ",\"{name}\":{number}"),
            Text::Shared(text) => write!(line, ",\"{name}\":\"{}\"", json_inside(text)),
            Text::Owned(text) => write!(line, ",\"{name}\":\"{}\"", json_inside(text)),
            Text::Word(text) => write!(line, ",\"{name}\":\"{}\"", json_inside(text)),
        };
    }
    let _ = write!(line, ",\"prev\":\"{}\"", head.hash());
    let hash = seal.digest(line.as_bytes());
    let _ = writeln!(line, ",\"{}\":\"{}\"}}", seal.member(), hex(&hash));
    out.extend_from_slice(line.as_bytes());
    Head { seq, hash }
}

/// A line as it was read, its hash not checked yet.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) time: String,
    pub(super) event: String,
    pub(super) prev: Digest,
    pub(super) head: Head,
    pub(super) keyed: bool,
    pub(super) count: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<Digest>,
    pub(super) expected: Option<u64>,
    content: &'a [u8],
}

#[derive(Deserialize)]
struct Members {
    time: String,
    seq: u64,
    event: String,
    prev: String,
    count: Option<u64>,
    bytes: Option<u64>,
    sha256: Option<String>,
    expected_seq: Option<u64>,
}

impl<'a> Line<'a> {
    /// Reads a line without its line feed; `None` where it is no line of an audit log.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let (content, end) = line.split_at_checked(line.len().checked_sub(END)?)?;
        let end = std::str::from_utf8(end).ok()?;
        let (member, hash) = end
            .strip_prefix(",\"")?
            .strip_suffix("\"}")?
            .split_once("\":\"")?;
        let keyed = match member {
            HASH => false,
            HMAC => true,
            _ => return None,
        };
        let members: Members = serde_json::from_slice(line).ok()?;
        Some(Self {
            prev: unhex(&members.prev)?,
            head: Head {
                seq: members.seq,
                hash: unhex(hash)?,
            },
            time: members.time,
            event: members.event,
            keyed,
            count: members.count,
            bytes: members.bytes,
            sha256: members.sha256.as_deref().and_then(unhex),
            expected: members.expected_seq,
            content,
        })
    }

    /// Whether the content fits the hash; `None` where it cannot be told without the key.
    pub(super) fn holds(&self, seal: &Seal) -> Option<bool> {
        match (self.keyed, seal) {
            (false, _) => Some(Seal::Plain.digest(self.content) == self.head.hash),
            (true, Seal::Keyed(_)) => Some(seal.digest(self.content) == self.head.hash),
            (true, Seal::Plain) => None,
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(super) fn unhex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    let digits = text.as_bytes();
    if digits.len() != 2 * digest.len() {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(digest)
}

const HASH: &str = "hash";
const HMAC: &str = "hmac";
/// Length of `,"hash":"<64 digits>"}`.
const END: usize = 9 + 64 + 2;
const SHORTEST_KEY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(head: Head, why: &str, seal: &Seal) -> (Vec<u8>, Head) {
        let entry = Entry {
            time: SystemTime::UNIX_EPOCH,
            event: "refused",
            fields: vec![("why", why.to_owned().into()), ("count", 7.into())],
        };
        let mut out = Vec::new();
        let head = write_line(&mut out, head, &entry, seal);
        assert_eq!(out.pop(), Some(b'\n'));
        (out, head)
    }

    #[test]
    fn a_line_is_json_and_names_the_one_before_it() {
        let (first, head) = line(Head::default(), "a \"b\"\n{", &Seal::Plain);
        let json: serde_json::Value = serde_json::from_slice(&first).expect("JSON");
        assert_eq!(json["time"], "1970-01-01T00:00:00.000000Z");
        assert_eq!((&json["seq"], &json["count"]), (&1.into(), &7.into()));
        assert_eq!(json["why"], "a \"b\"\n{");
        assert_eq!(json["prev"], "0".repeat(64));
        assert_eq!(json["hash"], head.hash());
        let (second, _) = line(head, "", &Seal::Plain);
        let second = Line::parse(&second).expect("a line");
        assert_eq!((second.prev, second.head.seq), (head.hash, 2));
        assert_eq!(Head::parse(&head.to_text()), Some(head));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        for seal in [
            Seal::Plain,
            Seal::keyed(b"sixteen bytes at least").expect("long"),
        ] {
            let (text, _) = line(Head::default(), "why", &seal);
            let holds = |text: &[u8]| Line::parse(text).and_then(|line| line.holds(&seal));
            assert_eq!(holds(&text), Some(true));
            for at in 0..text.len() {
                let mut changed = text.clone();
                changed[at] ^= 1;
                assert_ne!(holds(&changed), Some(true), "byte {at} of {}", text.len());
            }
        }
    }

    #[test]
    fn a_keyed_line_cannot_be_made_or_checked_without_the_key() {
        let seal = Seal::keyed(b"sixteen bytes at least").expect("long");
        let (text, _) = line(Head::default(), "why", &seal);
        let parsed = Line::parse(&text).expect("a line");
        assert_eq!(parsed.holds(&Seal::Plain), None);
        let other = Seal::keyed(b"sixteen bytes of another").expect("long");
        assert_eq!(parsed.holds(&other), Some(false));
        assert!(Seal::keyed(b"short").is_err());
    }
}
