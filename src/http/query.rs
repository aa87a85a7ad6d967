//! Arguments of a query (`application/x-www-form-urlencoded`: `+` is a blank). The same rules
//! serve form bodies.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The first value of an argument, decoded; `""` for an argument without `=`. Names are compared
/// decoded and with case. Bytes that are not UTF-8 become U+FFFD, so they equal no configured key.
#[must_use]
pub fn first<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut values = pairs(query).filter(|(found, _)| is_name(found, name));
    values.next().map(|(_, value)| decoded(value))
}

/// The value of an argument, decoded; `Some(None)` where it stands there more than once, since
/// nobody can tell which of them others read.
#[must_use]
pub fn single<'a>(query: &'a str, name: &str) -> Option<Option<Cow<'a, str>>> {
    let mut values = args(query).filter(|(found, _)| found == name);
    let (_, value) = values.next()?;
    Some(values.next().is_none().then_some(value))
}

/// All arguments in order, decoded.
pub fn args(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    pairs(query).map(|(name, value)| (decoded(name), decoded(value)))
}

/// The query without the arguments that `unwanted` picks by their decoded names; the rest stays as
/// it was written. `None` where nothing is left.
#[must_use]
pub fn without_args(query: &str, unwanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut kept = String::with_capacity(query.len());
    for part in parts(query) {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        if unwanted(&decoded(name)) {
            continue;
        }
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(part);
    }
    (!kept.is_empty()).then_some(kept)
}

fn parts(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|part| !part.is_empty())
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    parts(query).map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn is_name(found: &str, name: &str) -> bool {
    found == name || found.contains(['%', '+']) && decoded(found) == name
}

/// Decodes one name or value. What is no valid percent encoding stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let blanks = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&blanks).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_decoded() {
        let query = "a=1&b=x%20y+z&&a=2&bare&%63=%4&=n&d=%FF";
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("x y z")),
            ("bare", Some("")),
            ("c", Some("%4")),
            ("d", Some("\u{fffd}")),
            ("A", None),
        ] {
            assert_eq!(first(query, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn an_argument_that_stands_twice_has_no_single_value() {
        let query = "a=1&b=x%20y&%61=2&c";
        let value = |name| single(query, name).map(|value| value.map(Cow::into_owned));
        assert_eq!(value("a"), Some(None));
        assert_eq!(value("b"), Some(Some("x y".to_owned())));
        assert_eq!(value("c"), Some(Some(String::new())));
        assert_eq!(value("d"), None);
    }

    #[test]
    fn arguments_are_decoded_in_order() {
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
}
