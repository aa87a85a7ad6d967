//! The payload of a verified token, kept for variables (`$jwt_auth_payload`).

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::Value;

/// A payload. A plugin keeps one in the request's state, and [`super::vars`] answers from it.
#[derive(Default)]
pub struct TokenPayload {
    text: Box<str>,
    /// Parsed when a claim is first asked for.
    json: OnceLock<Value>,
}

impl TokenPayload {
    /// Keeps the JSON of a payload.
    #[must_use]
    pub fn new(payload: &[u8]) -> Self {
        Self {
            text: String::from_utf8_lossy(payload).into(),
            json: OnceLock::new(),
        }
    }

    /// The payload as it stands in the token.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'_, str>> {
        (!self.text.is_empty()).then_some(Cow::Borrowed(&*self.text))
    }

    /// A claim as text: one of that very name, or else by dotted path, where a number picks from
    /// an array. What is no string is JSON; `null` is absent.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<Cow<'_, str>> {
        let json = self
            .json
            .get_or_init(|| serde_json::from_str(&self.text).unwrap_or_default());
        match json.get(path).or_else(|| super::vars::member(json, path))? {
            Value::Null => None,
            Value::String(text) => Some(Cow::Borrowed(text)),
            other => Some(Cow::Owned(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_by_name_or_path() {
        let payload = br#"{"sub":"alice","n":1.5,"roles":["a",{"b":"c"}],"https://x.test/role":"r",
            "none":null,"a.b":1,"a":{"b":2}}"#;
        let payload = TokenPayload::new(payload);
        for (path, expected) in [
            ("sub", Some("alice")),
            ("n", Some("1.5")),
            ("roles", Some("[\"a\",{\"b\":\"c\"}]")),
            ("roles.1.b", Some("c")),
            ("roles.2", None),
            ("https://x.test/role", Some("r")),
            ("none", None),
            ("a.b", Some("1")),
            ("", None),
        ] {
            assert_eq!(payload.claim(path).as_deref(), expected, "{path}");
        }
        assert!(
            payload
                .text()
                .is_some_and(|text| text.starts_with("{\"sub\""))
        );
        let nothing = TokenPayload::default();
        assert_eq!((nothing.text(), nothing.claim("sub")), (None, None));
    }
}
