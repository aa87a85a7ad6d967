//! `Authorization: Basic …` to name and password, by RFC 7617 and RFC 9110 §11.4; also under the
//! name of another scheme.

use base64::Engine as _;
use http::{HeaderMap, HeaderName};
use zeroize::Zeroizing;

use crate::http::loose_base64;
use crate::telemetry::metrics::AuthFailure;

/// Name and password as the client sent them: bytes, neither empty. Wiped when dropped.
pub(super) struct Presented {
    decoded: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Presented {
    /// Out of the header of this name.
    ///
    /// # Errors
    /// The header is [missing](AuthFailure::Missing), or no such credential of this scheme
    /// ([malformed](AuthFailure::Malformed)).
    pub(super) fn of(
        headers: &HeaderMap,
        name: &HeaderName,
        scheme: &str,
    ) -> Result<Self, AuthFailure> {
        let mut values = headers.get_all(name).iter();
        let value = values.next().ok_or(AuthFailure::Missing)?;
        // Of two, the upstream might read the other (RFC 9110 §11.6.2 knows one).
        let alone = values.next().is_none();
        let parsed = alone.then(|| Self::parse(value.as_bytes(), scheme));
        parsed.flatten().ok_or(AuthFailure::Malformed)
    }

    /// `None` where the header is no such credential of this scheme.
    ///
    /// The scheme in any case, one or more spaces, base64 (padded or not) and nothing else; in it
    /// a name, the first colon, and a password that may hold further ones.
    fn parse(value: &[u8], scheme: &str) -> Option<Self> {
        let value = value.trim_ascii();
        let (found, rest) = value.split_at_checked(scheme.len())?;
        if !found.eq_ignore_ascii_case(scheme.as_bytes()) || rest.first() != Some(&b' ') {
            return None;
        }
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        let token = &rest[spaces..];
        // Room for all of it, so that nothing is left behind in a smaller piece of memory.
        let mut decoded = Zeroizing::new(Vec::with_capacity(token.len() + 3));
        loose_base64::STANDARD
            .decode_vec(token, &mut decoded)
            .ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let presented = Self { decoded, colon };
        let (name, password) = (presented.username(), presented.password());
        let parts = [name, password];
        let refused = parts
            .iter()
            .any(|part| part.is_empty() || has_controls(part));
        (!refused).then_some(presented)
    }

    pub(super) fn username(&self) -> &[u8] {
        &self.decoded[..self.colon]
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.decoded[self.colon + 1..]
    }
}

/// Whether a control character is in it: RFC 7617 §2 allows none.
pub(super) fn has_controls(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_control)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD as PADDED;

    use super::*;

    fn parsed(value: impl AsRef<[u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
        let presented = Presented::parse(value.as_ref(), "Basic")?;
        Some((presented.username().into(), presented.password().into()))
    }

    fn basic(pair: impl AsRef<[u8]>) -> String {
        format!("Basic {}", PADDED.encode(pair))
    }

    #[test]
    fn the_password_is_all_behind_the_first_colon() {
        for (pair, name, password) in [
            (
                &b"Aladdin:open sesame"[..],
                &b"Aladdin"[..],
                &b"open sesame"[..],
            ),
            (b"test:123\xc2\xa3", b"test", b"123\xc2\xa3"),
            (b"a:b:c::", b"a", b"b:c::"),
            (b"a::", b"a", b":"),
            (b" a : b ", b" a ", b" b "),
            (b"\xff\xfe:\xfd", b"\xff\xfe", b"\xfd"),
        ] {
            let expected = Some((name.to_vec(), password.to_vec()));
            assert_eq!(parsed(basic(pair)), expected, "{}", pair.escape_ascii());
        }
        // The examples of RFC 7617 §2 and §2.1, letter for letter.
        assert!(parsed("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").is_some());
        let pound = parsed("Basic dGVzdDoxMjPCow==");
        assert_eq!(pound, Some((b"test".to_vec(), "123£".into())));
    }

    #[test]
    fn the_scheme_may_be_in_any_case_and_spaces_any_number() {
        for value in ["Basic YTpi", "basic YTpi", "BASIC    YTpi", "bAsIc YTpi "] {
            assert!(parsed(value).is_some(), "{value:?}");
        }
        // Padding may be left out; nginx's decoder, which APISIX uses, reads both.
        assert_eq!(parsed("Basic YTpiYg").map(|(_, b)| b), Some(b"bb".to_vec()));
        assert_eq!(
            parsed("Basic YTpiYg==").map(|(_, b)| b),
            Some(b"bb".to_vec())
        );
    }

    #[test]
    fn what_is_no_such_credential_is_none() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "BasicYTpi",
            "Basic\tYTpi",
            "Bearer YTpi",
            "Basic YTpi YTpi",
            "Basic YTpi, Basic YTpi",
            "Bearer x, Basic YTpi",
            "xBasic YTpi",
            "Basic realm=\"a\"",
            "Basic YT pi",
            "Basic YTpi=",
            "Basic YTpiY",
            "Basic YTpiYh==",
            "Basic Y!pi",
            "Basic =",
            "\"Basic YTpi\"",
        ] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
        for pair in [
            "nocolon", ":b", "a:", ":", "", "a\n:b", "a:b\0", "a:b\x7f", "a:b\r\n",
        ] {
            assert_eq!(parsed(basic(pair)), None, "{pair:?}");
        }
    }
}
