//! `$env://`: the environment as it was at start. Asked for values directly, without a cache:
//! nothing in it can change.

use std::collections::HashMap;
use std::sync::Arc;

use super::document::{FieldMap, FieldValue};
use crate::sealed::Sealed;
use crate::secrets::value::Secret;

/// A snapshot of the environment.
pub struct Env(HashMap<Box<str>, Arc<Sealed>>);

impl Env {
    /// The process's variables, with `extra` before them. Names that are not UTF-8 cannot be
    /// referred to.
    #[must_use]
    pub fn of_process(extra: &[(String, Arc<Sealed>)]) -> Self {
        use std::os::unix::ffi::OsStringExt as _;

        let mut variables: HashMap<Box<str>, Arc<Sealed>> = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = Secret::new(value.into_vec());
                Some((name.into(), value.seal()))
            })
            .collect();
        for (name, value) in extra {
            variables.insert(name.as_str().into(), Arc::clone(value));
        }
        Self(variables)
    }

    /// The value of a variable, or of one flat key of its JSON object (`spec/01` §1).
    ///
    /// # Errors
    /// Why there is none. Differs from APISIX: no message repeats the value.
    pub fn resolve(&self, name: &str, json_key: Option<&str>) -> Result<Arc<Sealed>, &'static str> {
        let value = self.0.get(name).ok_or("environment variable is not set")?;
        let value = match json_key {
            None => Arc::clone(value),
            Some(key) => {
                let mut object: FieldMap = serde_json::from_slice(&value.open())
                    .map_err(|_| "decode failed: environment variable is not a JSON object")?;
                match object.remove(key) {
                    Some(FieldValue::Text(secret)) => secret.seal(),
                    Some(FieldValue::Other(what)) => return Err(what),
                    None => return Err("field not found"),
                }
            }
        };
        if value.is_empty() {
            return Err("value is empty");
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_OBJECT: &str = "decode failed: environment variable is not a JSON object";

    fn env() -> Env {
        let pair = |name: &str, value: &str| {
            let value = Sealed::new(value.as_bytes());
            (name.to_owned(), Arc::new(value))
        };
        Env::of_process(&[
            pair("TOKEN", "t"),
            pair("TOKEN_FILE", "f"),
            pair("EMPTY", ""),
            pair(
                "JSON",
                r#"{"a":"1","b/c":"2","n":7,"t":true,"o":{"a":"x"},"e":""}"#,
            ),
            pair("PATH", "ours"),
            pair(
                "ODD",
                r#"{"k?version=1#f":"3","ключ":"4","":"5","f":1.5,"z":null,"s":"\u0041"}"#,
            ),
            pair("LIST", "[1]"),
            pair("CUT", r#"{"a":"hunter2"#),
        ])
    }

    #[test]
    fn names_and_keys_are_matched_exactly() {
        let env = env();
        for (name, key, expected) in [
            ("TOKEN", None, Ok("t")),
            ("TOKEN_FILE", None, Ok("f")),
            ("PATH", None, Ok("ours")),
            ("token", None, Err("environment variable is not set")),
            ("TOKE", None, Err("environment variable is not set")),
            ("EMPTY", None, Err("value is empty")),
            ("JSON", Some("a"), Ok("1")),
            ("JSON", Some("b/c"), Ok("2")),
            ("JSON", Some("n"), Ok("7")),
            ("JSON", Some("o/a"), Err("field not found")),
            ("JSON", Some("o"), Err("value is an object")),
            ("JSON", Some("t"), Err("value is a boolean")),
            ("JSON", Some("e"), Err("value is empty")),
            ("JSON", Some("A"), Err("field not found")),
            ("JSON", Some("b"), Err("field not found")),
            ("ODD", Some("k?version=1#f"), Ok("3")),
            ("ODD", Some("ключ"), Ok("4")),
            ("ODD", Some("f"), Ok("1.5")),
            ("ODD", Some("s"), Ok("A")),
            ("ODD", Some("z"), Err("value is null")),
            ("LIST", Some("0"), Err(NO_OBJECT)),
            ("CUT", Some("a"), Err(NO_OBJECT)),
            ("EMPTY", Some("a"), Err(NO_OBJECT)),
            ("TOKEN", Some("a"), Err(NO_OBJECT)),
        ] {
            let value = env.resolve(name, key);
            let value = value.map(|value| value.open());
            let value = value.as_ref().map(|value| value.as_str().expect("UTF-8"));
            assert_eq!(value.map_err(|error| *error), expected, "{name} {key:?}");
        }
    }
}
