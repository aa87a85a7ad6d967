//! Cookies of a request (RFC 6265 §4.2).

use ::http::{HeaderMap, header};

/// The value of the first cookie of that name in one `Cookie` field. Names are compared with
/// case. Quotes around a value are part of it, as the RFC has it. Nothing is decoded.
#[must_use]
pub fn find<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    all(field, name).next()
}

/// The values of all cookies of that name in all `Cookie` fields, in order; otherwise as
/// [`find_in`]. A value that is not UTF-8 is none.
pub fn all_in<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields
        .flat_map(move |field| all(field.as_bytes(), name))
        .filter_map(|value| std::str::from_utf8(value).ok())
}

fn all<'a>(field: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    field.split(|byte| *byte == b';').filter_map(move |pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (found, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
        (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The same over all `Cookie` fields (HTTP/2 may send several, RFC 9113 §8.2.3); `None` where the
/// value is not UTF-8. What other cookies are does not matter.
#[must_use]
pub fn find_in<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).iter();
    let value = fields
        .map(|field| field.as_bytes())
        .find_map(|field| find(field, name))?;
    std::str::from_utf8(value).ok()
}

/// One `Cookie` field without the cookies of that name; the rest stays as it was written. `None`
/// where nothing is left.
#[must_use]
pub fn without(field: &[u8], name: &str) -> Option<Vec<u8>> {
    let other = |pair: &&[u8]| {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let found = equals.and_then(|equals| pair.get(..equals));
        !pair.trim_ascii().is_empty()
            && found.is_none_or(|found| found.trim_ascii() != name.as_bytes())
    };
    let kept: Vec<&[u8]> = field.split(|byte| *byte == b';').filter(other).collect();
    let kept = kept.join(&b";"[..]);
    let kept = kept.trim_ascii();
    (!kept.is_empty()).then(|| kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cookie_of_the_name_counts() {
        let field = "a=1; b=x=y;c = \"q\" ; A=2; a=3; empty=; bare";
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("x=y")),
            ("c", Some("\"q\"")),
            ("A", Some("2")),
            ("empty", Some("")),
            ("bare", None),
            ("d", None),
        ] {
            let expected = expected.map(str::as_bytes);
            assert_eq!(find(field.as_bytes(), name), expected, "{name}");
        }
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_rest_stays() {
        for (field, left) in [
            ("a=1; jwt=x; b=2", Some("a=1; b=2")),
            ("jwt=x; b=2; jwt=y", Some("b=2")),
            ("jwt = x;b=2;", Some("b=2")),
            ("a=\"q\";c;jwtx=1; JWT=2", Some("a=\"q\";c;jwtx=1; JWT=2")),
            ("jwt=x", None),
            ("jwt=", None),
            ("jwt", Some("jwt")),
        ] {
            let left = left.map(str::as_bytes);
            assert_eq!(without(field.as_bytes(), "jwt").as_deref(), left, "{field}");
        }
    }

    #[test]
    fn all_fields_are_searched() {
        let mut headers = HeaderMap::new();
        for field in ["a=1", "b=2"] {
            headers.append(header::COOKIE, header::HeaderValue::from_static(field));
        }
        assert_eq!(find_in(&headers, "b"), Some("2"));
        headers.append(header::COOKIE, header::HeaderValue::from_static("b=3; b=4"));
        assert!(all_in(&headers, "b").eq(["2", "3", "4"]));
    }

    #[test]
    fn a_cookie_that_is_no_text_hides_no_other() {
        let mut headers = HeaderMap::new();
        let field = header::HeaderValue::from_bytes(b"x=\xff; a=1; b=\xfe; b=2");
        headers.append(header::COOKIE, field.expect("it fits into a header"));
        assert_eq!(find_in(&headers, "a"), Some("1"));
        assert_eq!(find_in(&headers, "b"), None, "the first one counts");
        let left = without(b"x=\xff; a=1; b=\xfe", "a");
        assert_eq!(left.as_deref(), Some(&b"x=\xff; b=\xfe"[..]));
    }
}
