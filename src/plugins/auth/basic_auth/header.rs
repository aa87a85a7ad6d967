//! `Authorization: Basic …` to name and password, by RFC 7617 and RFC 9110 §11.4.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::has_controls;

/// Name and password as the client sent them: bytes, neither empty. Wiped when dropped.
pub(super) struct Presented {
    decoded: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Presented {
    /// `None` where the header is no such credential.
    ///
    /// The scheme in any case, one or more spaces, base64 (padded or not) and nothing else; in it
    /// a name, the first colon, and a password that may hold further ones.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) || rest.first() != Some(&b' ') {
            return None;
        }
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        let token = &rest[spaces..];
        // Room for all of it, so that nothing is left behind in a smaller piece of memory.
        let mut decoded = Zeroizing::new(Vec::with_capacity(token.len() + 3));
        BASE64.decode_vec(token, &mut decoded).ok()?;
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

const SCHEME: &[u8] = b"basic";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD as PADDED;

    use super::*;

    fn parsed(value: impl AsRef<[u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
        let presented = Presented::parse(value.as_ref())?;
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
