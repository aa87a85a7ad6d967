//! `headers` of proxy-rewrite and response-rewrite: add, then set, then remove.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use crate::expr::{Template, VarSource};
use crate::plugins::def::BuildError;

/// Parsed edits. Every template sees the headers as they were before the first edit.
#[derive(Default)]
pub(super) struct HeaderEdits {
    edits: Box<[Edit]>,
    uses_captures: bool,
}

struct Edit {
    name: HeaderName,
    /// The name as the configuration writes it, for HTTP/1.
    case: Bytes,
    action: Action,
}

enum Action {
    Add(Text),
    Set(Text),
    Remove,
}

enum Text {
    Ready(HeaderValue),
    Template(Template),
}

/// Edits with their values for one message: `None` removes.
pub(super) struct Planned<'a>(SmallVec<[(&'a Edit, Option<HeaderValue>); 8]>);

/// A head whose headers can be edited.
pub(super) trait Head {
    fn append(&mut self, name: Bytes, value: HeaderValue);
    fn insert(&mut self, name: Bytes, value: HeaderValue);
    fn remove(&mut self, name: &HeaderName);
}

impl HeaderEdits {
    /// Reads `{add, set, remove}`, or a flat map, which sets.
    pub(super) fn parse(json: &Value) -> Result<Self, BuildError> {
        let Some(map) = json.as_object() else {
            return Err(BuildError::invalid("headers", "expected a map"));
        };
        let grouped = ["add", "set", "remove"].iter().any(|group| {
            map.get(*group)
                .is_some_and(|group| group.is_object() || group.is_array())
        });
        let mut edits = Vec::new();
        if grouped {
            if let Some(add) = map.get("add") {
                read_add(add, &mut edits)?;
            }
            if let Some(set) = map.get("set") {
                let set = set.as_object();
                let set =
                    set.ok_or_else(|| BuildError::invalid("headers.set", "expected a map"))?;
                read_set("headers.set", set, &mut edits)?;
            }
            if let Some(remove) = map.get("remove") {
                read_remove(remove, &mut edits)?;
            }
        } else {
            read_set("headers", map, &mut edits)?;
        }
        let uses_captures = edits.iter().any(|edit| match &edit.action {
            Action::Add(Text::Template(template)) | Action::Set(Text::Template(template)) => {
                template.uses_captures()
            }
            _ => false,
        });
        Ok(Self {
            edits: edits.into(),
            uses_captures,
        })
    }

    /// Whether a template names a capture of the plugin's regex.
    pub(super) const fn uses_captures(&self) -> bool {
        self.uses_captures
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Renders the values. One that cannot stand in a header (a line break, say) is left out; a
    /// header that was to be set to it is removed, so that a client's own never takes its place.
    pub(super) fn plan(&self, source: &dyn VarSource) -> Planned<'_> {
        let value = |text: &Text| match text {
            Text::Ready(value) => Some(value.clone()),
            Text::Template(template) => HeaderValue::from_str(&template.text(source)).ok(),
        };
        let edits = self.edits.iter().filter_map(|edit| match &edit.action {
            Action::Add(text) => Some((edit, Some(value(text)?))),
            Action::Set(text) => Some((edit, value(text))),
            Action::Remove => Some((edit, None)),
        });
        Planned(edits.collect())
    }
}

impl Planned<'_> {
    /// Carries the edits out, in order.
    pub(super) fn apply(self, head: &mut impl Head) {
        for (edit, value) in self.0 {
            match (&edit.action, value) {
                (Action::Add(_), Some(value)) => head.append(edit.case.clone(), value),
                (Action::Set(_), Some(value)) => head.insert(edit.case.clone(), value),
                _ => head.remove(&edit.name),
            }
        }
    }
}

macro_rules! head {
    ($type:ty) => {
        impl Head for $type {
            fn append(&mut self, name: Bytes, value: HeaderValue) {
                let done = self.append_header(name, value);
                debug_assert!(done.is_ok(), "name was checked at load");
            }

            fn insert(&mut self, name: Bytes, value: HeaderValue) {
                let done = self.insert_header(name, value);
                debug_assert!(done.is_ok(), "name was checked at load");
            }

            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
        }
    };
}

head!(RequestHeader);
head!(ResponseHeader);

/// `add` is a map (proxy-rewrite) or a list of header lines (response-rewrite).
fn read_add(json: &Value, edits: &mut Vec<Edit>) -> Result<(), BuildError> {
    match json {
        Value::Object(map) => {
            for (name, value) in map {
                let field = format!("headers.add.{name}");
                for text in texts(&field, value)? {
                    edits.push(edit(&field, name, Action::Add(text))?);
                }
            }
        }
        Value::Array(lines) => {
            for (index, line) in lines.iter().enumerate() {
                let field = format!("headers.add[{index}]");
                let line = line.as_str().and_then(|line| line.split_once(':'));
                let (name, value) =
                    line.ok_or_else(|| BuildError::invalid(&field, "must be 'Name: value'"))?;
                let text = text(&field, value.trim())?;
                edits.push(edit(&field, name.trim(), Action::Add(text))?);
            }
        }
        _ => {
            return Err(BuildError::invalid(
                "headers.add",
                "expected a map or a list",
            ));
        }
    }
    Ok(())
}

fn read_set(
    field: &str,
    map: &Map<String, Value>,
    edits: &mut Vec<Edit>,
) -> Result<(), BuildError> {
    for (name, value) in map {
        let field = format!("{field}.{name}");
        for (index, text) in texts(&field, value)?.into_iter().enumerate() {
            let action = if index == 0 {
                Action::Set(text)
            } else {
                Action::Add(text)
            };
            edits.push(edit(&field, name, action)?);
        }
    }
    Ok(())
}

fn read_remove(json: &Value, edits: &mut Vec<Edit>) -> Result<(), BuildError> {
    let names = json.as_array();
    let names = names.ok_or_else(|| BuildError::invalid("headers.remove", "expected a list"))?;
    for (index, name) in names.iter().enumerate() {
        let field = format!("headers.remove[{index}]");
        edits.push(edit(
            &field,
            name.as_str().unwrap_or_default(),
            Action::Remove,
        )?);
    }
    Ok(())
}

fn edit(field: &str, name: &str, action: Action) -> Result<Edit, BuildError> {
    let parsed = HeaderName::try_from(name)
        .map_err(|_| BuildError::invalid(field, "must be a header name"))?;
    Ok(Edit {
        name: parsed,
        case: Bytes::copy_from_slice(name.as_bytes()),
        action,
    })
}

/// One text per value: a string, a number, or a list of them.
fn texts(field: &str, json: &Value) -> Result<Vec<Text>, BuildError> {
    match json {
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| scalar(field, item)).collect()
        }
        single => Ok(vec![scalar(field, single)?]),
    }
}

fn scalar(field: &str, json: &Value) -> Result<Text, BuildError> {
    match json {
        Value::String(value) => text(field, value),
        Value::Number(number) => text(field, &number.to_string()),
        _ => Err(BuildError::invalid(
            field,
            "expected a string, a number, or a list of them",
        )),
    }
}

fn text(field: &str, value: &str) -> Result<Text, BuildError> {
    let template = Template::parse(value);
    let Some(literal) = template.literal() else {
        return Ok(Text::Template(template));
    };
    let value = HeaderValue::from_str(literal)
        .map_err(|_| BuildError::invalid(field, "must be a header value"))?;
    Ok(Text::Ready(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::Exchange;

    fn edited(json: &Value) -> Vec<(String, String)> {
        let edits = HeaderEdits::parse(json).expect("edits are valid");
        let mut exchange = Exchange::get("/u?q=a%0d%0ab")
            .header("X-Keep", "k")
            .header("X-Old", "o1")
            .header("X-Old", "o2");
        let ctx = exchange.ctx();
        let planned = edits.plan(&ctx);
        planned.apply(ctx.head);
        let headers = exchange.head.case_header_iter();
        let mut headers: Vec<_> = headers
            .map(|(name, value)| {
                let name = String::from_utf8_lossy(name.as_slice()).into_owned();
                (name, String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        headers.sort();
        headers
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn headers_are_added_set_and_removed_in_that_order() {
        let keep = ("X-Keep", "k");
        let old = [("X-Old", "o1"), ("X-Old", "o2")];
        for (json, expected) in [
            (json!({"x-OLD": "n"}), vec![keep, ("x-OLD", "n")]),
            (
                json!({"X-Old": 5, "X-Keep": "$uri"}),
                vec![("X-Keep", "/u"), ("X-Old", "5")],
            ),
            (json!({"X-Old": ""}), vec![keep, ("X-Old", "")]),
            (
                json!({"X-Old": ["a", 1.5]}),
                vec![keep, ("X-Old", "1.5"), ("X-Old", "a")],
            ),
            (
                json!({"add": {"X-Old": "n"}}),
                vec![keep, ("X-Old", "n"), old[0], old[1]],
            ),
            (
                json!({"add": ["X-N: a: b"]}),
                vec![keep, ("X-N", "a: b"), old[0], old[1]],
            ),
            (
                json!({"set": {"X-N": "$http_x_old"}, "remove": ["x-old"]}),
                vec![keep, ("X-N", "o1")],
            ),
            (
                json!({"add": {"X-N": "1"}, "remove": ["X-N", "X-Old"]}),
                vec![keep],
            ),
            (
                json!({"add": {"X-N": "1"}, "set": {"X-N": "2"}, "remove": ["X-Old"]}),
                vec![keep, ("X-N", "2")],
            ),
            // A line break never reaches the wire, nor does the value it was to replace.
            (
                json!({"set": {"X-Old": "$arg_q"}, "add": {"X-Q": "$arg_q"}}),
                vec![keep],
            ),
            // A flat map may name a header `set`.
            (
                json!({"set": "1", "X-Old": "n"}),
                vec![keep, ("X-Old", "n"), ("set", "1")],
            ),
        ] {
            assert_eq!(edited(&json), pairs(&expected), "{json}");
        }
    }

    #[test]
    fn wrong_edits_name_their_field() {
        for (json, field) in [
            (json!("x"), "headers"),
            (json!({"a:b": "1"}), "headers.a:b"),
            (json!({"": "1"}), "headers."),
            (json!({"a": true}), "headers.a"),
            (json!({"a": []}), "headers.a"),
            (json!({"a": "x\ny"}), "headers.a"),
            (json!({"set": {"a b": "x"}}), "headers.set.a b"),
            (json!({"set": ["a: b"]}), "headers.set"),
            (json!({"add": ["nocolon"]}), "headers.add[0]"),
            (json!({"add": [], "remove": "x"}), "headers.remove"),
            (json!({"add": ["a: b", 5]}), "headers.add[1]"),
            (json!({"remove": [1]}), "headers.remove[0]"),
            (json!({"remove": ["x:y"]}), "headers.remove[0]"),
        ] {
            let error = HeaderEdits::parse(&json).err().expect("edits are refused");
            assert_eq!(error.field, field, "{json}");
        }
    }
}
