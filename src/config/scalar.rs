//! What an unquoted scalar of YAML is: null, boolean, number or text.

use saphyr_parser::{ScalarStyle, Tag};

use super::node::Tree;

/// Types a scalar the way APISIX's users expect it: YAML 1.2's core schema, without octal, and
/// with numbers that lead with a zero left as text.
pub(super) fn typed(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Tree {
    if let Some(tag) = tag {
        if tag.is_yaml_core_schema() && tag.suffix != "str" {
            return plain(text);
        }
        return Tree::Text(text);
    }
    if style == ScalarStyle::Plain {
        plain(text)
    } else {
        Tree::Text(text)
    }
}

/// Types an unquoted scalar.
pub(super) fn plain(text: String) -> Tree {
    if is_null(&text) {
        return Tree::Null;
    }
    match text.as_bytes()[0] {
        b't' | b'T' if matches!(&*text, "true" | "True" | "TRUE") => return Tree::Bool(true),
        b'f' | b'F' if matches!(&*text, "false" | "False" | "FALSE") => return Tree::Bool(false),
        b'0'..=b'9' | b'-' | b'+' | b'.' => {}
        _ => return Tree::Text(text),
    }
    number(&text).unwrap_or(Tree::Text(text))
}

/// The ways to write nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn number(text: &str) -> Option<Tree> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Tree::Int);
    }
    let bytes = digits.as_bytes();
    let first = *bytes.first()?;
    if first == b'0' && bytes.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    if bytes.iter().all(u8::is_ascii_digit) {
        return text.parse().map(Tree::Int).ok().or_else(|| finite(text));
    }
    let numeric = bytes
        .iter()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    if numeric && bytes.iter().any(u8::is_ascii_digit) {
        finite(text)
    } else {
        None
    }
}

fn finite(text: &str) -> Option<Tree> {
    text.parse::<f64>()
        .ok()
        .filter(|n| n.is_finite())
        .map(Tree::Float)
}
