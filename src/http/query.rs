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

/// Whether an argument stands in the query more than once: whoever reads the first must mind that
/// others read the last.
#[must_use]
pub fn is_repeated(query: &str, name: &str) -> bool {
    pairs(query)
        .filter(|(found, _)| is_name(found, name))
        .nth(1)
        .is_some()
}

/// The query without that argument, however often it stands there; `None` where it does not.
/// The rest stays as it was written.
#[must_use]
pub fn without(query: &str, name: &str) -> Option<String> {
    let is_other =
        |part: &&str| !is_name(part.split_once('=').map_or(*part, |(found, _)| found), name);
    if query.split('&').all(|part| is_other(&part)) {
        return None;
    }
    let mut rest = String::with_capacity(query.len());
    for (position, part) in query.split('&').filter(is_other).enumerate() {
        if position > 0 {
            rest.push('&');
        }
        rest.push_str(part);
    }
    Some(rest)
}

/// All arguments in order, decoded.
pub fn all(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    pairs(query).map(|(name, value)| (decoded(name), decoded(value)))
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn is_name(found: &str, name: &str) -> bool {
    found == name || found.contains(['%', '+']) && decoded(found) == name
}

/// Decodes one name or value. What is no valid percent encoding stays as it is.
#[must_use]
pub fn decoded(text: &str) -> Cow<'_, str> {
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
    fn repetition_is_seen_through_encoding() {
        assert!(is_repeated("a=1&%61=2", "a"));
        assert!(!is_repeated("a=1&b=2", "a"));
    }

    #[test]
    fn an_argument_can_be_taken_out() {
        assert_eq!(without("a=1&b=%20&%61&c", "a").as_deref(), Some("b=%20&c"));
        assert_eq!(without("a=1", "a").as_deref(), Some(""));
        assert_eq!(without("b=1", "a"), None);
    }
}
