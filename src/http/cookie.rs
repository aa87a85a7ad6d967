//! Cookies of a request (RFC 6265 §4.2).

use ::http::{HeaderMap, header};

/// The value of the first cookie of that name in one `Cookie` field. Names are compared with
/// case. Quotes around a value are part of it, as the RFC has it. Nothing is decoded.
#[must_use]
pub fn find<'a>(field: &'a str, name: &str) -> Option<&'a str> {
    all(field, name).next()
}

/// The values of all cookies of that name in all `Cookie` fields, in order; otherwise as
/// [`find_in`].
pub fn all_in<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields
        .filter_map(|field| std::str::from_utf8(field.as_bytes()).ok())
        .flat_map(move |field| all(field, name))
}

fn all<'a>(field: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    field.split(';').filter_map(move |pair| {
        let (found, value) = pair.split_once('=')?;
        (found.trim_matches(BLANK) == name).then(|| value.trim_matches(BLANK))
    })
}

/// The same over all `Cookie` fields (HTTP/2 may send several, RFC 9113 §8.2.3). A field that is
/// not UTF-8 is passed over.
#[must_use]
pub fn find_in<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    all_in(headers, name).next()
}

/// One `Cookie` field without the cookies of that name; the rest stays as it was written. `None`
/// where nothing is left.
#[must_use]
pub fn without(field: &str, name: &str) -> Option<String> {
    let other = |pair: &&str| {
        let found = pair.split_once('=').map(|(found, _)| found);
        !pair.trim_matches(BLANK).is_empty()
            && found.is_none_or(|found| found.trim_matches(BLANK) != name)
    };
    let kept: Vec<&str> = field.split(';').filter(other).collect();
    let kept = kept.join(";");
    let kept = kept.trim_matches(BLANK);
    (!kept.is_empty()).then(|| kept.to_owned())
}

const BLANK: [char; 2] = [' ', '\t'];

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
            assert_eq!(find(field, name), expected, "{name}");
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
            assert_eq!(without(field, "jwt").as_deref(), left, "{field}");
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
}
