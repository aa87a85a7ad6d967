//! Sample data for a JSON schema, for `mocking`.

use rand::Rng;
use serde_json::{Map, Value, json};

use crate::plugins::def::BuildError;

/// How many values one sample may hold before arrays become short.
const BUDGET: usize = 1000;

/// How deep a schema may nest.
const MAX_DEPTH: usize = 32;

/// A schema, reduced to what a sample needs.
#[derive(Debug)]
pub(super) enum Sample {
    /// `example`: always this.
    Example(Value),
    /// `enum`: one of these.
    OneOf(Box<[Value]>),
    Object(Box<[(Box<str>, Sample)]>),
    Array(Box<Sample>),
    String,
    Number,
    Integer,
    Boolean,
}

impl Sample {
    /// Reads a schema.
    pub(super) fn parse(field: &str, schema: &Value) -> Result<Self, BuildError> {
        Self::parse_at(field, schema, 0)
    }

    fn parse_at(field: &str, schema: &Value, depth: usize) -> Result<Self, BuildError> {
        let invalid = |message: &str| BuildError::invalid(field, message);
        if depth > MAX_DEPTH {
            return Err(invalid("is nested too deeply"));
        }
        let schema = schema
            .as_object()
            .ok_or_else(|| invalid("expected a map"))?;
        if let Some(example) = schema.get("example") {
            return Ok(Self::Example(example.clone()));
        }
        if let Some(Value::Array(values)) = schema.get("enum")
            && !values.is_empty()
        {
            return Ok(Self::OneOf(values.clone().into()));
        }
        let implied = if schema.contains_key("items") {
            "array"
        } else {
            "object"
        };
        match schema
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or(implied)
        {
            "object" => {
                let none = Map::new();
                let properties = schema.get("properties").and_then(Value::as_object);
                let property = |(name, schema): (&String, &Value)| {
                    let field = format!("{field}.properties.{name}");
                    let sample = Self::parse_at(&field, schema, depth + 1)?;
                    Ok((name.as_str().into(), sample))
                };
                let properties = properties.unwrap_or(&none).iter().map(property);
                Ok(Self::Object(properties.collect::<Result<_, _>>()?))
            }
            "array" => {
                let items = schema
                    .get("items")
                    .ok_or_else(|| invalid("an array needs items"))?;
                let items = Self::parse_at(&format!("{field}.items"), items, depth + 1)?;
                Ok(Self::Array(Box::new(items)))
            }
            "string" => Ok(Self::String),
            "number" => Ok(Self::Number),
            "integer" => Ok(Self::Integer),
            "boolean" => Ok(Self::Boolean),
            _ => Err(invalid(
                "type must be object, array, string, number, integer or boolean",
            )),
        }
    }

    /// A value that fits.
    pub(super) fn generate(&self) -> Value {
        self.generate_within(&mut BUDGET.clone())
    }

    fn generate_within(&self, budget: &mut usize) -> Value {
        *budget = budget.saturating_sub(1);
        let mut random = rand::rng();
        match self {
            Self::Example(example) => example.clone(),
            Self::OneOf(values) => values[random.random_range(0..values.len())].clone(),
            Self::Object(properties) => properties
                .iter()
                .map(|(name, sample)| (name.to_string(), sample.generate_within(budget)))
                .collect::<Map<_, _>>()
                .into(),
            Self::Array(items) => {
                let length = if *budget == 0 {
                    1
                } else {
                    random.random_range(1..=3)
                };
                (0..length).map(|_| items.generate_within(budget)).collect()
            }
            Self::String => {
                let length = random.random_range(1..=10);
                let letters = (0..length).map(|_| char::from(random.random_range(b'a'..=b'z')));
                Value::String(letters.collect())
            }
            Self::Number => json!(f64::from(random.random_range(0..1_000_000_u32)) / 100.0),
            Self::Integer => json!(random.random_range(1..=10_000_u32)),
            Self::Boolean => json!(random.random::<bool>()),
        }
    }
}

/// A value as XML, in an element of that name.
pub(super) fn xml(name: &str, value: &Value, out: &mut String) {
    if let Value::Array(items) = value {
        for item in items {
            xml(name, item, out);
        }
        return;
    }
    let name: String = name
        .chars()
        .map(|sign| {
            if sign.is_alphanumeric() || "_-.".contains(sign) {
                sign
            } else {
                '_'
            }
        })
        .collect();
    out.extend(["<", &name, ">"]);
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| xml(name, value, out)),
        Value::String(text) => {
            for sign in text.chars() {
                match sign {
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '&' => out.push_str("&amp;"),
                    sign => out.push(sign),
                }
            }
        }
        Value::Null => {}
        scalar => out.push_str(&scalar.to_string()),
    }
    out.extend(["</", &name, ">"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(schema: &Value) -> Value {
        Sample::parse("s", schema)
            .expect("schema is valid")
            .generate()
    }

    #[test]
    fn samples_fit_their_schema() {
        let schema = json!({"type": "object", "properties": {
            "name": {"type": "string"},
            "fixed": {"type": "string", "example": "x"},
            "pick": {"type": "string", "enum": ["a", "b"]},
            "list": {"type": "array", "items": {"type": "integer"}},
            "deep": {"properties": {"yes": {"type": "boolean"}, "n": {"type": "number"}}},
            "shown": {"type": "array", "example": [1], "items": {"type": "integer"}},
        }});
        for _ in 0..20 {
            let value = generated(&schema);
            assert!(value["name"].as_str().is_some_and(|name| !name.is_empty()));
            assert_eq!(value["fixed"], "x");
            assert!(
                ["a", "b"].map(Value::from).contains(&value["pick"]),
                "{value}"
            );
            let list = value["list"].as_array().expect("list is an array");
            assert!((1..=3).contains(&list.len()) && list.iter().all(Value::is_u64));
            assert!(value["deep"]["yes"].is_boolean() && value["deep"]["n"].is_f64());
            assert_eq!(value["shown"], json!([1]));
        }
    }

    #[test]
    fn nested_arrays_stay_small() {
        let mut schema = json!({"type": "integer"});
        for _ in 0..30 {
            schema = json!({"type": "array", "items": schema});
        }
        assert!(generated(&schema).to_string().len() < 1_000_000);
        for _ in 0..30 {
            schema = json!({"type": "array", "items": schema});
        }
        let error = Sample::parse("s", &schema).expect_err("schema is refused");
        assert_eq!(error.message, "is nested too deeply");
    }

    #[test]
    fn wrong_schemas_name_their_field() {
        for (schema, field) in [
            (json!(5), "s"),
            (json!({"type": "file"}), "s"),
            (json!({"type": "array"}), "s"),
            (
                json!({"properties": {"a": {"type": "null"}}}),
                "s.properties.a",
            ),
            (json!({"type": "array", "items": []}), "s.items"),
        ] {
            let error = Sample::parse("s", &schema).expect_err("schema is refused");
            assert_eq!(error.field, field);
        }
    }

    #[test]
    fn xml_repeats_arrays_and_escapes_text() {
        let mut out = String::new();
        xml(
            "data",
            &json!({"a b": "<&>", "l": [1, true], "n": null}),
            &mut out,
        );
        assert_eq!(
            out,
            "<data><a_b>&lt;&amp;&gt;</a_b><l>1</l><l>true</l><n></n></data>"
        );
    }
}
