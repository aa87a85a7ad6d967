//! A document as managers give it: fields with values. JSON and YAML are read straight into
//! [`Secret`]s, so that what nobody asked for is wiped too. (Not wiped: the parser's own scratch
//! space for strings with escapes.)

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Presence;
use crate::secrets::value::Secret;

/// One document.
#[derive(Debug, Default)]
pub struct Document {
    fields: FieldMap,
    /// The manager's own name for the version that was read.
    pub version: Option<Arc<str>>,
}

/// Fields by name.
pub type FieldMap = HashMap<Box<str>, FieldValue>;

/// What stands in a field.
#[derive(Debug, Clone)]
pub enum FieldValue {
    /// A text, or a number as text; may be empty.
    Text(Secret),
    /// Something that is no secret value; the words say what.
    Other(&'static str),
}

impl Document {
    /// A document of these fields.
    #[must_use]
    pub fn new(fields: FieldMap, version: Option<Arc<str>>) -> Self {
        Self { fields, version }
    }

    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<FieldValue> {
        self.fields.get(name).cloned()
    }

    /// Which fields it has, without their values.
    #[must_use]
    pub fn presence(&self) -> Presence {
        let fault = |value: &FieldValue| match value {
            FieldValue::Text(secret) if secret.is_empty() => Some("value is empty"),
            FieldValue::Text(_) => None,
            FieldValue::Other(what) => Some(*what),
        };
        let fields = self.fields.iter();
        Presence {
            fields: Some(
                fields
                    .map(|(name, value)| (name.clone(), fault(value)))
                    .collect(),
            ),
            version: self.version.clone(),
        }
    }

    /// The value of a field, which the document has no longer then.
    pub(in crate::secrets) fn take(&mut self, name: &str) -> Option<FieldValue> {
        self.fields.remove(name)
    }
}

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl FieldVisitor {
    fn number(text: impl ToString) -> FieldValue {
        FieldValue::Text(Secret::from(text.to_string()))
    }
}

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<FieldValue, E> {
        Ok(FieldValue::Text(Secret::new(text.as_bytes().to_vec())))
    }

    fn visit_string<E>(self, text: String) -> Result<FieldValue, E> {
        Ok(FieldValue::Text(Secret::from(text)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<FieldValue, E> {
        Ok(Self::number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<FieldValue, E> {
        Ok(Self::number(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<FieldValue, E> {
        Ok(Self::number(number))
    }

    fn visit_i128<E>(self, number: i128) -> Result<FieldValue, E> {
        Ok(Self::number(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<FieldValue, E> {
        // A long row of digits arrives here rounded: a value, but not the one that was kept.
        if number.is_finite() && number.abs() < EXACT_BELOW {
            return Ok(Self::number(number));
        }
        Ok(FieldValue::Other(
            "value is a number too large to keep exact",
        ))
    }

    fn visit_bool<E>(self, _: bool) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("value is a boolean"))
    }

    fn visit_unit<E>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("value is null"))
    }

    fn visit_none<E>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("value is null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FieldValue, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other("value is an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<FieldValue, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other("value is an object"))
    }
}

/// 2^53: whole numbers below are exact in an `f64`.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fields: &FieldMap, name: &str) -> String {
        match fields.get(name).expect("field must be there") {
            FieldValue::Text(secret) => secret.expose_str().expect("UTF-8").to_owned(),
            FieldValue::Other(what) => (*what).to_owned(),
        }
    }

    #[test]
    fn numbers_become_text_and_the_rest_is_no_value() {
        let json = r#"{"s":"a\nb","n":1,"neg":-2,"f":1.5,"big":18446744073709551615,
            "huge":123456789012345678901234567890,"t":true,"z":null,"a":[1,{"x":2}],"o":{"k":"v"},"e":""}"#;
        let from_json: FieldMap = serde_json::from_str(json).expect("JSON must parse");
        let from_yaml: FieldMap = serde_yaml::from_str(json).expect("YAML must parse");
        for fields in [from_json, from_yaml] {
            for (name, expected) in [
                ("s", "a\nb"),
                ("n", "1"),
                ("neg", "-2"),
                ("f", "1.5"),
                ("big", "18446744073709551615"),
                ("t", "value is a boolean"),
                ("z", "value is null"),
                ("a", "value is an array"),
                ("o", "value is an object"),
                ("e", ""),
            ] {
                assert_eq!(text(&fields, name), expected, "{name}");
            }
            let huge = text(&fields, "huge");
            let exact = huge == "123456789012345678901234567890";
            assert!(exact || huge.contains("too large"), "{huge}");
        }
    }
}
