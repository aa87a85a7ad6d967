//! Where in a user's description a label stands: the part of JSONPath that names a place. Filters,
//! scripts, slices and unions are refused at load.

use serde_json::Value;

/// A parsed path.
#[derive(Debug)]
pub(super) struct LabelPath(Box<[Segment]>);

#[derive(Debug, PartialEq, Eq)]
struct Segment {
    /// `..`: here, or anywhere below.
    descends: bool,
    selector: Selector,
}

#[derive(Debug, PartialEq, Eq)]
enum Selector {
    Field(Box<str>),
    Index(usize),
    Any,
}

/// A path that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a field or a JSONPath of $, .name, ..name, ['name'], [0] and *")]
pub(super) struct PathError;

impl LabelPath {
    /// Reads `groups`, `user.groups`, `$..groups`, `$.roles[0]['name']`.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        let mut segments = Vec::new();
        let mut rest = match text.strip_prefix('$') {
            Some(rest) => rest,
            None => {
                // Without `$` the first name stands by itself.
                let (selector, rest) = name(text)?;
                segments.push(Segment {
                    descends: false,
                    selector,
                });
                rest
            }
        };
        while !rest.is_empty() {
            let (descends, after) = match rest.strip_prefix("..") {
                Some(after) => (true, after),
                None => (false, rest),
            };
            let (selector, after) = if let Some(inner) = after.strip_prefix('[') {
                bracket(inner)?
            } else if descends {
                name(after)?
            } else {
                name(after.strip_prefix('.').ok_or(PathError)?)?
            };
            segments.push(Segment { descends, selector });
            rest = after;
        }
        Ok(Self(segments.into()))
    }

    /// The first place that fits, from above; a node's own before those below it.
    pub(super) fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        first(&self.0, value)
    }
}

fn first<'v>(path: &[Segment], value: &'v Value) -> Option<&'v Value> {
    let Some((segment, rest)) = path.split_first() else {
        return Some(value);
    };
    let own = match (&segment.selector, value) {
        (Selector::Field(name), Value::Object(map)) => {
            map.get(&**name).and_then(|value| first(rest, value))
        }
        (Selector::Index(index), Value::Array(list)) => {
            list.get(*index).and_then(|value| first(rest, value))
        }
        (Selector::Any, value) => children(value).find_map(|value| first(rest, value)),
        _ => None,
    };
    let below = || {
        let mut children = children(value).filter(|_| segment.descends);
        children.find_map(|value| first(path, value))
    };
    own.or_else(below)
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values()),
        Value::Array(list) => Box::new(list.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A bare name or `*`, and what follows it.
fn name(text: &str) -> Result<(Selector, &str), PathError> {
    if let Some(rest) = text.strip_prefix('*') {
        return Ok((Selector::Any, rest));
    }
    let stands = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let end = text.find(|c| !stands(c)).unwrap_or(text.len());
    match text.split_at(end) {
        ("", _) => Err(PathError),
        (name, rest) => Ok((Selector::Field(name.into()), rest)),
    }
}

/// What stands behind `[`, and what follows the `]`.
fn bracket(text: &str) -> Result<(Selector, &str), PathError> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    if let Some(quote) = quote {
        let (name, rest) = text[1..].split_once(quote).ok_or(PathError)?;
        let rest = rest.strip_prefix(']').ok_or(PathError)?;
        return Ok((Selector::Field(name.into()), rest));
    }
    let (inner, rest) = text.split_once(']').ok_or(PathError)?;
    let selector = match inner {
        "*" => Selector::Any,
        index => Selector::Index(index.parse().map_err(|_| PathError)?),
    };
    Ok((selector, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_the_first_place_that_fits() {
        let user = json!({
            "groups": "top",
            "user": {"groups": ["a", "b"], "x-role": "r", "odd name": 1},
            "list": [{"n": 1}, {"n": 2, "deep": {"n": 3}}],
        });
        for (path, expected) in [
            ("groups", Some(json!("top"))),
            ("$.groups", Some(json!("top"))),
            ("user.groups", Some(json!(["a", "b"]))),
            ("$.user.groups[1]", Some(json!("b"))),
            ("$..groups", Some(json!("top"))),
            ("$..deep.n", Some(json!(3))),
            ("$.list..deep", Some(json!({"n": 3}))),
            ("$.list[*].deep.n", Some(json!(3))),
            ("$.*.x-role", Some(json!("r"))),
            ("$['user']['odd name']", Some(json!(1))),
            ("$[\"user\"].x-role", Some(json!("r"))),
            ("$..[0].n", Some(json!(1))),
            ("$.user.groups[2]", None),
            ("$.groups.more", None),
            ("missing", None),
        ] {
            let parsed = LabelPath::parse(path).expect("the path is one");
            assert_eq!(parsed.first(&user), expected.as_ref(), "{path}");
        }
        let whole = LabelPath::parse("$").expect("the path is one");
        assert_eq!(whole.first(&user), Some(&user));
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for path in [
            "",
            "$.",
            "$..",
            "$groups",
            "a b",
            "$[",
            "$['a]",
            "$['a'",
            "$[-1]",
            "$[1:2]",
            "$[a]",
            "$.a[?(@.b)]",
            "$[0,1]",
            "..a.",
            ".a",
        ] {
            assert_eq!(LabelPath::parse(path).err(), Some(PathError), "{path}");
        }
    }
}
