//! Normalisation of request paths (RFC 3986 §6.2.2), as nginx does it: what routes and plugins
//! see is percent-decoded, with slashes merged and dot segments resolved *after* decoding, so no
//! spelling of `..` gets past a route. Never guesses: what cannot be read is refused.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// The bootstrap's switches over paths (`spec/06` §3). All off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathRules {
    /// `match_uri_encoded_slash`: `%2F` stays encoded, and is no separator.
    pub keep_encoded_slash: bool,
    /// `delete_uri_tail_slash`: `/a/` is matched as `/a`. Matching only; the upstream gets the slash.
    pub delete_tail_slash: bool,
    /// `normalize_uri_like_servlet`: `;params` of each segment are cut off. Matching only; the
    /// upstream gets them.
    pub servlet: bool,
}

/// A path that is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Neither `/…` nor `*`.
    #[error("path does not start with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("invalid percent encoding")]
    Encoding,
    /// NUL or another control character, encoded or not.
    #[error("control character in path")]
    Control,
    /// `..` that leads above the root.
    #[error("path leads above the root")]
    AboveRoot,
    /// A dot segment next to a slash that stays encoded: upstreams would resolve it differently.
    #[error("dot segment beside an encoded slash")]
    EncodedDots,
    /// With `servlet`: a segment that is empty or a dot segment without its parameters (`/..;x/`).
    #[error("path parameter hides a dot segment")]
    ServletDots,
}

/// A path fit for matching.
#[derive(Debug, PartialEq, Eq)]
pub struct Normalized<'a> {
    /// Decoded, slashes merged, dot segments resolved. Bytes that are not UTF-8 after decoding
    /// stay percent-encoded (`%FF`), so nothing is lost and nothing refused for old encodings.
    pub decoded: Cow<'a, str>,
    /// What to send upstream instead of the raw path: the same path, encoded again. Set exactly
    /// where segments were removed; where only the encoding differs the raw path may go on as it
    /// is.
    pub forward: Option<String>,
}

/// Normalises the path of a request target (without query). A path that is normal already
/// allocates nothing.
///
/// # Errors
/// The request is to be refused with 400.
pub fn normalize<'a>(raw: &'a str, rules: &PathRules) -> Result<Normalized<'a>, BadPath> {
    if is_normal(raw.as_bytes(), *rules) {
        return Ok(Normalized {
            decoded: Cow::Borrowed(raw),
            forward: None,
        });
    }
    match raw {
        "" => {
            return Ok(Normalized {
                decoded: Cow::Borrowed("/"),
                forward: None,
            });
        }
        // RFC 9112 §3.2.4: asterisk-form, for `OPTIONS` on the server as a whole.
        "*" => {
            return Ok(Normalized {
                decoded: Cow::Borrowed("*"),
                forward: None,
            });
        }
        _ if !raw.starts_with('/') => return Err(BadPath::NotAbsolute),
        _ => {}
    }
    let decoded = decode(raw.as_bytes(), rules.keep_encoded_slash)?;
    let (mut resolved, changed) = resolve(&decoded)?;
    let forward = changed.then(|| encode(&resolved));
    if rules.servlet && resolved.contains(&b';') {
        resolved = without_parameters(&resolved)?;
    }
    if rules.delete_tail_slash && resolved.len() > 1 && resolved.ends_with(b"/") {
        resolved.pop();
    }
    Ok(Normalized {
        decoded: Cow::Owned(text(resolved)),
        forward,
    })
}

/// A matched path as a URL spells it, for programs that decide by it: one spelling for all that
/// mean the same. `raw` is the path as it goes upstream, `normal` what it was matched as.
#[must_use]
pub fn spelled(raw: &str, normal: &str) -> String {
    let as_matched = |keep_encoded_slash| {
        let decoded = decode(raw.as_bytes(), keep_encoded_slash).ok()?;
        let (resolved, _) = resolve(&decoded).ok()?;
        (text(resolved.clone()) == normal).then(|| encode(&resolved))
    };
    // `text` does not tell `%2F` that was kept from `%252F` that was decoded; the raw path does.
    as_matched(false)
        .or_else(|| as_matched(true))
        .unwrap_or_else(|| encode(normal.as_bytes()))
}

/// Stands for a slash that stays encoded; NUL cannot come out of decoding.
const KEPT_SLASH: u8 = 0;

/// RFC 3986 §3.3: what a path may hold unencoded, besides letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

fn is_normal(raw: &[u8], rules: PathRules) -> bool {
    if raw.first() != Some(&b'/') {
        return false;
    }
    if rules.delete_tail_slash && raw.len() > 1 && raw.ends_with(b"/") {
        return false;
    }
    let mut before = 0;
    for &byte in raw {
        let suspicious = match byte {
            b'%' => true,
            b';' => rules.servlet,
            // Any segment that starts with a dot takes the long way.
            b'/' | b'.' => before == b'/',
            _ => byte.is_ascii_control(),
        };
        if suspicious {
            return false;
        }
        before = byte;
    }
    true
}

fn decode(raw: &[u8], keep_encoded_slash: bool) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        let encoded = byte == b'%';
        let byte = if encoded {
            let mut digit = || {
                let digit = char::from(*bytes.next()?).to_digit(16)?;
                u8::try_from(digit).ok()
            };
            let high = digit().ok_or(BadPath::Encoding)?;
            high << 4 | digit().ok_or(BadPath::Encoding)?
        } else {
            byte
        };
        if byte.is_ascii_control() {
            return Err(BadPath::Control);
        }
        let kept = encoded && keep_encoded_slash && byte == b'/';
        decoded.push(if kept { KEPT_SLASH } else { byte });
    }
    Ok(decoded)
}

/// Removes empty and dot segments (RFC 3986 §5.2.4), and says whether there were any.
fn resolve(path: &[u8]) -> Result<(Vec<u8>, bool), BadPath> {
    let mut resolved = Vec::with_capacity(path.len());
    let mut changed = false;
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" if last => resolved.push(b'/'),
            b"" => changed = true,
            b"." | b".." => {
                changed = true;
                if segment == b".." {
                    let parent = resolved.iter().rposition(|&byte| byte == b'/');
                    resolved.truncate(parent.ok_or(BadPath::AboveRoot)?);
                }
                if last {
                    resolved.push(b'/');
                }
            }
            _ => {
                let dots = |part: &[u8]| matches!(part, b"." | b"..");
                if segment.contains(&KEPT_SLASH)
                    && segment.split(|&byte| byte == KEPT_SLASH).any(dots)
                {
                    return Err(BadPath::EncodedDots);
                }
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
    }
    Ok((resolved, changed))
}

fn without_parameters(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut stripped = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let name = segment
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default();
        let hides = match name {
            b"" => segments.peek().is_some(),
            b"." | b".." => true,
            _ => false,
        };
        if hides {
            return Err(BadPath::ServletDots);
        }
        stripped.push(b'/');
        stripped.extend_from_slice(name);
    }
    Ok(stripped)
}

fn encode(path: &[u8]) -> String {
    let mut encoded = String::with_capacity(path.len());
    for (position, part) in path.split(|&byte| byte == KEPT_SLASH).enumerate() {
        if position > 0 {
            encoded.push_str("%2F");
        }
        encoded.extend(percent_encode(part, ENCODED));
    }
    encoded
}

/// The path as text: kept slashes, and bytes that are not UTF-8, percent-encoded.
fn text(path: Vec<u8>) -> String {
    let path = match String::from_utf8(path) {
        Ok(text) if !text.as_bytes().contains(&KEPT_SLASH) => return text,
        Ok(text) => text.into_bytes(),
        Err(not_utf8) => not_utf8.into_bytes(),
    };
    let mut text = String::with_capacity(path.len() + 8);
    for chunk in path.utf8_chunks() {
        for (position, part) in chunk.valid().split('\0').enumerate() {
            if position > 0 {
                text.push_str("%2F");
            }
            text.push_str(part);
        }
        text.extend(percent_encode(chunk.invalid(), NON_ALPHANUMERIC));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_paths_are_spelled_alike() {
        for (raw, keep_encoded_slash, expected) in [
            ("/%61dmin", false, "/admin"),
            ("/a%20b%3Fc", false, "/a%20b%3Fc"),
            ("//a/./b", false, "/a/b"),
            ("/a%2Fb", false, "/a/b"),
            ("/a%2Fb", true, "/a%2Fb"),
            ("/a%252Fb", false, "/a%252Fb"),
            ("/a%252Fb", true, "/a%252Fb"),
            ("/%FF%c3%bc", false, "/%FF%C3%BC"),
        ] {
            let rules = PathRules {
                keep_encoded_slash,
                ..PathRules::default()
            };
            let normal = normalize(raw, &rules).expect("path is right");
            assert_eq!(spelled(raw, &normal.decoded), expected, "{raw}");
        }
        assert_eq!(spelled("/a;x/b/", "/a/b"), "/a/b", "what no rule explains");
    }

    const PLAIN: PathRules = PathRules {
        keep_encoded_slash: false,
        delete_tail_slash: false,
        servlet: false,
    };

    fn check(rules: PathRules, raw: &str, decoded: &str, forward: Option<&str>) {
        let normalized = normalize(raw, &rules).expect("the path is good");
        assert_eq!(normalized.decoded, decoded, "{raw}");
        assert_eq!(normalized.forward.as_deref(), forward, "{raw}");
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for raw in ["/", "/a", "/a/b.c/", "/a;b=1/c", "/a:b@c", "/a..b/c.", "/é"] {
            let normalized = normalize(raw, &PLAIN).expect("the path is good");
            assert!(
                matches!(normalized.decoded, Cow::Borrowed(text) if text == raw),
                "{raw}"
            );
            assert_eq!(normalized.forward, None, "{raw}");
        }
    }

    #[test]
    fn encoding_alone_is_decoded_for_matching_only() {
        check(PLAIN, "/%61%2Fb", "/a/b", None);
        check(PLAIN, "/a%20b%3Fc", "/a b?c", None);
        check(PLAIN, "/%E2%82%AC", "/€", None);
        check(PLAIN, "/.well-known/x", "/.well-known/x", None);
        check(PLAIN, "/...", "/...", None);
        check(PLAIN, "", "/", None);
        check(PLAIN, "*", "*", None);
    }

    #[test]
    fn segments_are_resolved_after_decoding_and_forwarded_resolved() {
        for (raw, expected) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("//a//b", "/a/b"),
            ("/a//", "/a/"),
            ("//", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%2F..%2Fb", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/a/b/../../c/", "/c/"),
        ] {
            check(PLAIN, raw, expected, Some(expected));
        }
        check(
            PLAIN,
            "/x/../a%20b%3Fc%25",
            "/a b?c%",
            Some("/a%20b%3Fc%25"),
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_encoded() {
        check(PLAIN, "/caf%e9", "/caf%E9", None);
        check(PLAIN, "/./caf%e9/%FF", "/caf%E9/%FF", Some("/caf%E9/%FF"));
    }

    #[test]
    fn bad_paths_are_refused() {
        for (raw, expected) in [
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%2e%2e/b", BadPath::AboveRoot),
            ("/%2F../b", BadPath::AboveRoot),
            ("/%00", BadPath::Control),
            ("/a%0d%0ab", BadPath::Control),
            ("/a\tb", BadPath::Control),
            ("/%7f", BadPath::Control),
            ("/%", BadPath::Encoding),
            ("/%4", BadPath::Encoding),
            ("/%zz", BadPath::Encoding),
            ("/%+1", BadPath::Encoding),
            ("a/b", BadPath::NotAbsolute),
        ] {
            assert_eq!(normalize(raw, &PLAIN), Err(expected), "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_can_be_kept() {
        let keep = PathRules {
            keep_encoded_slash: true,
            ..PLAIN
        };
        check(keep, "/a%2fb/%63", "/a%2Fb/c", None);
        check(keep, "/./a%2fb%25", "/a%2Fb%", Some("/a%2Fb%25"));
        check(keep, "/%e9%2F", "/%E9%2F", None);
        for raw in ["/a%2F../b", "/..%2fb", "/a/%2e%2E%2Fb", "/a%2F."] {
            assert_eq!(normalize(raw, &keep), Err(BadPath::EncodedDots), "{raw}");
        }
    }

    #[test]
    fn the_tail_slash_can_be_ignored_for_matching() {
        let delete = PathRules {
            delete_tail_slash: true,
            ..PLAIN
        };
        check(delete, "/a/", "/a", None);
        check(delete, "/", "/", None);
        check(delete, "/a/b/..", "/a", Some("/a/"));
    }

    #[test]
    fn servlet_parameters_can_be_ignored_for_matching() {
        let servlet = PathRules {
            servlet: true,
            ..PLAIN
        };
        check(servlet, "/a;x=1/b;y", "/a/b", None);
        check(servlet, "/a/../b;x/c", "/b/c", Some("/b;x/c"));
        check(servlet, "/a/;x", "/a/", None);
        for raw in ["/a/..;x/b", "/a/.;/b", "/a/;x/b", "/%2e%2e%3bx/b"] {
            assert_eq!(normalize(raw, &servlet), Err(BadPath::ServletDots), "{raw}");
        }
    }
}
