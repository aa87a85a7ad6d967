//! The compact form of a signed token (RFC 7515 §7.1), taken apart without reading what is in it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;

/// Longest token that is looked at. A header line of usual servers holds no more.
pub const LONGEST_TOKEN: usize = 16 * 1024;

/// Bytes of a decoded part; those of usual tokens need no allocation.
pub type Decoded = SmallVec<[u8; 512]>;

/// Three parts between two dots.
#[derive(Debug, Clone, Copy)]
pub struct Compact<'t> {
    /// What is signed: the first two parts with their dot.
    pub message: &'t [u8],
    /// Encoded header.
    pub header: &'t [u8],
    /// Encoded payload.
    pub payload: &'t [u8],
    /// Encoded signature.
    pub signature: &'t [u8],
}

impl<'t> Compact<'t> {
    /// Takes a token apart; `None` where it has not exactly three parts or is too long.
    #[must_use]
    pub fn split(token: &'t [u8]) -> Option<Self> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let mut dots = memchr::memchr_iter(b'.', token);
        let (first, second) = (dots.next()?, dots.next()?);
        if dots.next().is_some() {
            return None;
        }
        Some(Self {
            message: &token[..second],
            header: &token[..first],
            payload: &token[first + 1..second],
            signature: &token[second + 1..],
        })
    }
}

/// Decodes base64url without padding, and only the one spelling that encoding gives: unused bits
/// are zero (RFC 7515 §2).
#[must_use]
pub fn decode_base64url(text: &[u8]) -> Option<Decoded> {
    let mut decoded = Decoded::new();
    decoded.resize(base64::decoded_len_estimate(text.len()), 0);
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut decoded).ok()?;
    decoded.truncate(len);
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts() {
        let compact = Compact::split(b"ab.c.def").expect("three parts");
        assert_eq!(compact.message, b"ab.c");
        assert_eq!((compact.header, compact.payload), (&b"ab"[..], &b"c"[..]));
        assert_eq!(compact.signature, b"def");
        for token in ["", ".", "a.b", "a.b.c.d", "a.b.c.d.e"] {
            assert!(Compact::split(token.as_bytes()).is_none(), "{token}");
        }
        let long = |len: usize| [&b"a.b."[..], &vec![b'x'; len - 4]].concat();
        assert!(Compact::split(&long(LONGEST_TOKEN)).is_some());
        assert!(Compact::split(&long(LONGEST_TOKEN + 1)).is_none());
    }

    #[test]
    fn base64url_has_one_spelling() {
        let decoded = |text: &str| decode_base64url(text.as_bytes()).map(|bytes| bytes.to_vec());
        assert_eq!(decoded("YWI"), Some(b"ab".to_vec()));
        assert_eq!(decoded("-_-_"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(decoded(""), Some(Vec::new()));
        for text in ["YWI=", "YWJ", "Y", "YW I", "YWI\n", "+/+/", "YWÖ", "YW=="] {
            assert_eq!(decoded(text), None, "{text}");
        }
        let long = "YWJj".repeat(1000);
        assert_eq!(decoded(&long).map(|bytes| bytes.len()), Some(3000));
    }
}
