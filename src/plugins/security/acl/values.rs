//! The values a label holds: one text may be several, in one of three ways of writing them.

use regex::Regex;
use serde_json::Value;

use super::Names;
use crate::expr::pattern::{self, PatternError};

/// How the values of an external user's label are written.
pub(super) enum Parser {
    /// Whatever it looks like: a list, a text of JSON's or with commas, or one value.
    ByLooks,
    /// A text, split by this.
    Segments(Regex),
    /// A text that is a list in JSON.
    Json,
    /// A list.
    Table,
}

impl Parser {
    /// Values separated by what the pattern matches, and blanks around it.
    pub(super) fn segments(separator: &str) -> Result<Self, PatternError> {
        pattern::compile(&format!("\\s*(?:{separator})\\s*"), false).map(Self::Segments)
    }

    /// Whether one of the value's values is wanted; `None` where it has another shape.
    pub(super) fn holds(&self, value: &Value, wanted: &Names) -> Option<bool> {
        match (self, value) {
            (Self::ByLooks | Self::Table, Value::Array(values)) => any(values, wanted),
            (Self::ByLooks, Value::String(text)) => text_holds(text, wanted),
            (Self::Segments(separator), Value::String(text)) => {
                Some(separator.split(text).any(|value| wanted.contains(value)))
            }
            (_, Value::Null) => Some(false),
            (Self::Json, Value::String(text)) => json_holds(text, wanted),
            _ => None,
        }
    }
}

/// Whether one of a text's values is wanted, told by its looks, as labels of consumers are; `None`
/// where it begins as a list and is none.
pub(super) fn text_holds(text: &str, wanted: &Names) -> Option<bool> {
    if text.starts_with('[') {
        return json_holds(text, wanted);
    }
    let mut segments = text.split(',').peekable();
    let mut first = true;
    // Blanks around a comma go; those at the two ends are the value's own, as in APISIX.
    while let Some(segment) = segments.next() {
        let segment = if first { segment } else { segment.trim_start() };
        first = false;
        let segment = match segments.peek() {
            Some(_) => segment.trim_end(),
            None => segment,
        };
        if wanted.contains(segment) {
            return Some(true);
        }
    }
    Some(false)
}

fn json_holds(text: &str, wanted: &Names) -> Option<bool> {
    if !text.starts_with('[') {
        return None;
    }
    match serde_json::from_str::<Vec<Value>>(text) {
        Ok(values) => any(&values, wanted),
        Err(_) => {
            log::debug!("acl: a label begins as a list in JSON and is none");
            None
        }
    }
}

/// A list of lists or maps cannot be read, unless a text in it is wanted.
fn any(values: &[Value], wanted: &Names) -> Option<bool> {
    let mut texts = values.iter().filter_map(Value::as_str);
    if texts.any(|value| wanted.contains(value)) {
        return Some(true);
    }
    let nests = |value: &Value| value.is_array() || value.is_object();
    (!values.iter().any(nests)).then_some(false)
}
