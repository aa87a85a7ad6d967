//! Query arguments and cookies, as far as variables and key-auth need them.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;
use percent_encoding::percent_decode_str;

/// The arguments of a query in order, decoded: `+` is a space, `%XX` a byte. An argument without
/// `=` has an empty value.
pub(in crate::plugins) fn args(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    pieces(query).map(|piece| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        (decode(name), decode(value))
    })
}

/// The query without the arguments that `unwanted` picks. `None` where nothing is left.
pub(in crate::plugins) fn without_args(
    query: &str,
    unwanted: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut kept = String::with_capacity(query.len());
    for piece in pieces(query) {
        let name = piece.split_once('=').map_or(piece, |(name, _)| name);
        if unwanted(&decode(name)) {
            continue;
        }
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(piece);
    }
    (!kept.is_empty()).then_some(kept)
}

/// First cookie of that name, as sent.
pub(in crate::plugins) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter();
    lines
        .filter_map(|line| std::str::from_utf8(line.as_bytes()).ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim())
}

fn pieces(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|piece| !piece.is_empty())
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn arguments_are_decoded() {
        let found: Vec<_> = args("a=1&b&&c=x%20y+z&%64=%C3%BC&e==&=f&g=%zz").collect();
        let expected = [
            ("a", "1"),
            ("b", ""),
            ("c", "x y z"),
            ("d", "ü"),
            ("e", "="),
            ("", "f"),
            ("g", "%zz"),
        ];
        let expected: Vec<_> = expected.map(|(a, b)| (a.into(), b.into())).into();
        assert_eq!(found, expected);
        assert_eq!(args("").count(), 0);
    }

    #[test]
    fn arguments_are_taken_out_by_their_decoded_name() {
        let key = |name: &str| name == "key";
        for (query, left) in [
            ("key=1", None),
            ("a=%20&key=1&b", Some("a=%20&b")),
            ("%6bey=1&a", Some("a")),
            ("keys=1", Some("keys=1")),
            ("key", None),
            ("", None),
        ] {
            assert_eq!(without_args(query, key).as_deref(), left, "{query}");
        }
    }

    #[test]
    fn cookies_are_found_on_every_line() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; b=2=3;c"));
        headers.append(COOKIE, HeaderValue::from_static("d=4; a=5"));
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("2=3")),
            ("c", None),
            ("d", Some("4")),
            ("A", None),
        ] {
            assert_eq!(cookie(&headers, name), expected, "{name}");
        }
    }
}
