//! Fields of a request's body (`spec/00` §9.4: `post_arg_<field>`, `post_arg.<json path>`).

use std::borrow::Cow;

use http::header;
use pingora_http::RequestHeader;
use serde_json::Value;

use crate::http::query;

/// A field of a form (`application/x-www-form-urlencoded`).
pub(super) fn form_field<'a>(
    head: &RequestHeader,
    body: &'a [u8],
    name: &str,
) -> Option<Cow<'a, str>> {
    if !has_type(head, "application/x-www-form-urlencoded") {
        return None;
    }
    query::first(std::str::from_utf8(body).ok()?, name)
}

/// A member of a JSON document, as text: `a.b.0` is the first element of member `b` of `a`.
pub(super) fn json_member<'a>(
    head: &RequestHeader,
    body: &[u8],
    path: &str,
) -> Option<Cow<'a, str>> {
    if !has_type(head, "application/json") {
        return None;
    }
    let document: Value = serde_json::from_slice(body).ok()?;
    Some(Cow::Owned(match member(&document, path)? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }))
}

/// A member by dotted path; a number picks from an array.
pub(in crate::plugins) fn member<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.')
        .try_fold(document, |value, step| match value {
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            value => value.get(step),
        })
}

fn has_type(head: &RequestHeader, wanted: &str) -> bool {
    let value = head.headers.get(header::CONTENT_TYPE);
    let text = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(content_type: &str) -> RequestHeader {
        let mut head = RequestHeader::build("POST", b"/", None).expect("a valid head");
        head.insert_header(header::CONTENT_TYPE, content_type)
            .expect("a valid value");
        head
    }

    #[test]
    fn a_form_field_is_decoded_and_needs_a_form() {
        let form = head("application/x-www-form-urlencoded; charset=utf-8");
        let body = b"a=1&name=J%20D+x&a=2";
        assert_eq!(form_field(&form, body, "a").as_deref(), Some("1"));
        assert_eq!(form_field(&form, body, "name").as_deref(), Some("J D x"));
        assert_eq!(form_field(&form, body, "b"), None);
        assert_eq!(form_field(&form, b"a=\xff", "a"), None, "not UTF-8");
        assert_eq!(form_field(&head("text/plain"), body, "a"), None);
    }

    #[test]
    fn a_json_member_is_found_by_its_path() {
        let json = head("application/json");
        let body = br#"{"a": {"b": ["x", 7]}, "n": null, "t": true}"#;
        for (path, expected) in [
            ("a.b.0", Some("x")),
            ("a.b.1", Some("7")),
            ("a.b.2", None),
            ("a.b", Some("[\"x\",7]")),
            ("n", None),
            ("t", Some("true")),
            ("x", None),
        ] {
            assert_eq!(
                json_member(&json, body, path).as_deref(),
                expected,
                "{path}"
            );
        }
        assert_eq!(
            json_member(&json, b"{", "a"),
            None,
            "broken JSON has no members"
        );
    }
}
