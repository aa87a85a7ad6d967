//! What `subkeys` of KV version 2 tells about a document: which fields it has, never their values.
//! A token may be allowed this and nothing else.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::answer;
use super::kv::Metadata;
use crate::secrets::manager::{FetchError, Presence};

#[derive(Deserialize)]
struct Answer {
    data: Option<Subkeys>,
}

#[derive(Deserialize)]
struct Subkeys {
    /// Names; the leaves are null, whatever stands there.
    subkeys: Option<HashMap<Box<str>, Value>>,
    metadata: Option<Metadata>,
}

pub(super) fn presence(body: &[u8]) -> Result<Presence, FetchError> {
    let answer: Answer = answer::parse(body)?;
    let found = answer.data.ok_or(FetchError::Garbage("no data in it"))?;
    let version = found.metadata.map(|metadata| metadata.version.to_string());
    let subkeys = found.subkeys.ok_or(FetchError::Deleted)?;
    let fault = |value: Value| match value {
        // A text, a number, a boolean, a list: it is not told which.
        Value::Null => None,
        _ => Some("value is an object"),
    };
    let fields = subkeys.into_iter();
    Ok(Presence {
        fields: Some(fields.map(|(name, value)| (name, fault(value))).collect()),
        version: version.map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_and_objects_are_no_values() {
        let body = br#"{"data":{"metadata":{"version":3},"subkeys":{"a":null,"o":{"x":null}}}}"#;
        let presence = presence(body).expect("must be understood");
        assert_eq!(presence.version.as_deref(), Some("3"));
        let fields = presence.fields.expect("must be told");
        assert_eq!(fields["a"], None);
        assert_eq!(fields["o"], Some("value is an object"));
    }

    #[test]
    fn what_is_no_answer_of_vault_proves_nothing() {
        for body in ["<html>", "{}", r#"{"data":null}"#] {
            assert!(matches!(
                presence(body.as_bytes()),
                Err(FetchError::Garbage(_))
            ));
        }
    }
}
