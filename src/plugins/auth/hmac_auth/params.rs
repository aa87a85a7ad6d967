//! What a client says about its signature: the parameters of `Authorization: Signature`
//! (RFC 9110 §11.4), and the values of `Digest`. Checks nothing but the form.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Most names in `headers`.
const MAX_NAMES: usize = 256;

/// Why the header is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is of another scheme.
    OtherScheme,
    /// Its parameters cannot be read, or one that must be there is not.
    Malformed,
}

/// The parameters, as the client wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Params {
    pub(super) key_id: String,
    pub(super) algorithm: String,
    /// Names of what was signed, in order; each once.
    pub(super) headers: Vec<String>,
    /// The signature itself.
    pub(super) signature: Vec<u8>,
}

impl Params {
    pub(super) fn parse(value: &[u8]) -> Result<Self, Unusable> {
        let text = std::str::from_utf8(value).map_err(|_| Unusable::OtherScheme)?;
        let rest = scheme(text).ok_or(Unusable::OtherScheme)?;
        Self::parse_list(rest).ok_or(Unusable::Malformed)
    }

    fn parse_list(list: &str) -> Option<Self> {
        let (mut key_id, mut algorithm, mut headers, mut signature) = (None, None, None, None);
        let mut rest = list;
        loop {
            // RFC 9110 §5.6.1: empty elements count for nothing.
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, value, after) = parameter(rest)?;
            let places = [
                ("keyId", &mut key_id),
                ("algorithm", &mut algorithm),
                ("headers", &mut headers),
                ("signature", &mut signature),
            ];
            let mut places = places.into_iter();
            let place = places.find(|(known, _)| name.eq_ignore_ascii_case(known));
            // RFC 9110 §11.2: a parameter occurs once.
            if let Some((_, place)) = place
                && place.replace(value).is_some()
            {
                return None;
            }
            rest = after;
        }
        Some(Self {
            key_id: key_id.filter(|id| !id.is_empty())?,
            algorithm: algorithm?,
            headers: names(&headers.unwrap_or_default())?,
            signature: BASE64_STANDARD.decode(signature?).ok()?,
        })
    }
}

/// What stands behind `Signature` and a space; RFC 9110 §11.1: in any case of letters.
fn scheme(text: &str) -> Option<&str> {
    let (name, rest) = text.split_once([' ', '\t'])?;
    name.eq_ignore_ascii_case("Signature").then_some(rest)
}

/// `name = token` or `name = "quoted"`, and what follows its comma.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let blank = [' ', '\t'];
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end_matches(blank);
    let rest = rest.trim_start_matches(blank);
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => quoted(rest)?,
        None => {
            let end = rest.find(',').unwrap_or(rest.len());
            let value = rest[..end].trim_end_matches(blank);
            if value.contains(['"', ' ', '\t']) {
                return None;
            }
            (value.to_owned(), &rest[end..])
        }
    };
    let rest = rest.trim_start_matches(blank);
    let ended = rest.is_empty() || rest.starts_with(',');
    ended.then_some((name, value, rest))
}

/// RFC 9110 §5.6.4, from behind the opening quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            char => value.push(char),
        }
    }
    None
}

/// A name that stands twice would be signed twice: no client does that, and the text to sign
/// could grow far beyond the request.
fn names(list: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in list.split(' ').filter(|name| !name.is_empty()) {
        let again = names.iter().any(|other| other.eq_ignore_ascii_case(name));
        if again || names.len() == MAX_NAMES {
            return None;
        }
        names.push(name.to_owned());
    }
    Some(names)
}

/// The SHA-256 of `Digest` (RFC 3230 §4.3.2); `None` where there is none, or several differ.
pub(super) fn sha256_of(digest: &[u8]) -> Option<[u8; 32]> {
    let mut found = None;
    for element in std::str::from_utf8(digest).ok()?.split(',') {
        let Some((name, value)) = element.trim().split_once('=') else {
            continue;
        };
        if !name.eq_ignore_ascii_case("SHA-256") {
            continue;
        }
        let value: [u8; 32] = BASE64_STANDARD.decode(value).ok()?.try_into().ok()?;
        if found.replace(value).is_some_and(|other| other != value) {
            return None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Result<Params, Unusable> {
        Params::parse(value.as_bytes())
    }

    #[test]
    fn parameters_are_read_in_any_order_and_spacing() {
        let expected = Params {
            key_id: "alice".to_owned(),
            algorithm: "hmac-sha256".to_owned(),
            headers: vec!["@request-target".to_owned(), "date".to_owned()],
            signature: b"foob".to_vec(),
        };
        for text in [
            r#"Signature keyId="alice",algorithm="hmac-sha256",headers="@request-target date",signature="Zm9vYg==""#,
            r#"Signature  signature="Zm9vYg==" , headers="@request-target  date" ,keyId="alice", algorithm="hmac-sha256""#,
            r#"signature keyid=alice, algorithm=hmac-sha256,, Headers = "@request-target date", signature="Zm9vYg==","#,
            r#"Signature created="1,2=3", keyId="al\ice",algorithm="hmac-sha256",headers="@request-target date",signature="Zm9vYg==""#,
        ] {
            assert_eq!(parsed(text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn without_headers_only_the_key_id_is_signed() {
        let params = parsed(r#"Signature keyId="a",algorithm="x",signature="""#);
        let params = params.expect("is well-formed");
        assert!(params.headers.is_empty() && params.signature.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        for text in [
            "",
            "Signature",
            "Basic YTpi",
            "Signatures keyId=a",
            "\u{e9} x",
        ] {
            assert_eq!(parsed(text), Err(Unusable::OtherScheme), "{text}");
        }
        for text in [
            "Signature ",
            r#"Signature keyId="a",algorithm="x""#,
            r#"Signature keyId="a",signature="""#,
            r#"Signature algorithm="x",signature="""#,
            r#"Signature keyId="",algorithm="x",signature="""#,
            r#"Signature keyId="a",keyId="b",algorithm="x",signature="""#,
            r#"Signature keyId="a",algorithm="x",signature="%%""#,
            r#"Signature keyId="a",algorithm="x",signature="a"#,
            r#"Signature keyId="a" algorithm="x",signature="""#,
            r#"Signature keyId=a b,algorithm="x",signature="""#,
            r#"Signature keyId="a",algorithm="x",signature="",headers="date Date""#,
            r#"Signature keyId="a",algorithm="x",signature="",junk"#,
        ] {
            assert_eq!(parsed(text), Err(Unusable::Malformed), "{text}");
        }
        let many: String = (0..257).map(|n| format!("h{n} ")).collect();
        let text = format!(r#"Signature keyId="a",algorithm="x",signature="",headers="{many}""#);
        assert_eq!(parsed(&text), Err(Unusable::Malformed));
    }

    #[test]
    fn a_digest_is_found_among_others() {
        let empty = openssl::sha::sha256(b"");
        let text = BASE64_STANDARD.encode(empty);
        for (value, found) in [
            (format!("SHA-256={text}"), true),
            (format!("MD5=abc=, sha-256={text}"), true),
            (format!("SHA-256={text},SHA-256={text}"), true),
            (format!("SHA-512={text}"), false),
            (text.clone(), false),
            ("SHA-256=".to_owned(), false),
            (
                format!("SHA-256={text},SHA-256={}", text.replace('4', "5")),
                false,
            ),
        ] {
            let expected = found.then_some(empty);
            assert_eq!(sha256_of(value.as_bytes()), expected, "{value}");
        }
    }
}
