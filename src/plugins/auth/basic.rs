//! User name and password as a header carries them (RFC 7617, RFC 9110 §11.4).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// A user name and a password, neither empty; wiped when dropped.
pub(super) struct Login {
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Login {
    /// Reads `<scheme> <base64>`, the scheme in any case. `None` where it is of another scheme,
    /// not base64, without a colon, has an empty part, or a control character (RFC 7617 §2).
    ///
    /// The name ends at the first colon, and nothing is stripped. Differs from APISIX, which cuts
    /// passwords at their first colon and takes spaces out of both parts.
    pub(super) fn parse(header: &[u8], scheme: &str) -> Option<Self> {
        let (found, rest) = header.split_at_checked(scheme.len())?;
        let token = rest.trim_ascii_start();
        if !found.eq_ignore_ascii_case(scheme.as_bytes()) || token.len() == rest.len() {
            return None;
        }
        let token = token.trim_ascii_end();
        let mut text = Zeroizing::new(vec![0; base64::decoded_len_estimate(token.len())]);
        let length = BASE64.decode_slice(token, &mut text).ok()?;
        text.truncate(length);
        let colon = text.iter().position(|byte| *byte == b':')?;
        let empty = colon == 0 || colon + 1 == text.len();
        if empty || text.iter().any(u8::is_ascii_control) {
            return None;
        }
        Some(Self { text, colon })
    }

    /// The user's name.
    pub(super) fn user(&self) -> &[u8] {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The password.
    pub(super) fn password(&self) -> &[u8] {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

/// As APISIX, padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Option<(String, String)> {
        let login = Login::parse(header.as_bytes(), "Basic")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(login.user()), text(login.password())))
    }

    #[test]
    fn names_end_at_the_first_colon_and_nothing_is_stripped() {
        for (header, user, password) in [
            (
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                "Aladdin",
                "open sesame",
            ),
            (
                "basic   QWxhZGRpbjpvcGVuIHNlc2FtZQ",
                "Aladdin",
                "open sesame",
            ),
            ("BASIC YTpiOmM=", "a", "b:c"),
            ("Basic IGEgOiBiIA==", " a ", " b "),
            ("Basic YTo6", "a", ":"),
            ("Basic dGVzdDoxMjPCow==", "test", "123£"),
        ] {
            let expected = Some((user.to_owned(), password.to_owned()));
            assert_eq!(parsed(header), expected, "{header}");
        }
    }

    #[test]
    fn what_is_no_login_is_none() {
        for header in [
            "",
            "Basic",
            "Basic ",
            "BasicYTpi",
            "Bearer YTpi",
            "x Basic YTpi",
            "Basic YTpi YTpi",
            "Basic !!!!",
            "Basic YWI=",
            "Basic OmI=",
            "Basic YTo=",
            "Basic Og==",
            "Basic YQA6Yg==",
            "Basic YTpiCg==",
            "Basic YTpi=",
            "Ba",
        ] {
            assert_eq!(parsed(header), None, "{header}");
        }
    }
}
