//! Decoding of [`Node`]s with all findings collected. A decoder returns what it could read and
//! reports what it could not; it never reports a value, since a value may be a secret.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::node::{At, Entry, Node, Tree};
use crate::diagnostic::Severity;

/// One finding inside an item or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Whether the item refuses.
    pub severity: Severity,
    /// Stable word for the kind.
    pub code: &'static str,
    /// Dotted path inside the item.
    pub field: String,
    /// Where.
    pub at: At,
    /// What was expected.
    pub message: String,
}

/// Collects findings and knows the path being decoded.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// Findings so far.
    pub(crate) findings: Vec<Finding>,
    path: String,
}

impl Check {
    /// Whether an error was found.
    pub(crate) fn refused(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error)
    }

    /// Decodes something under `segment`.
    pub(crate) fn within<T>(&mut self, segment: &str, decode: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(segment);
        let result = decode(self);
        self.path.truncate(length);
        result
    }

    /// Decodes each entry of a list under its zero-based position.
    pub(crate) fn each<T>(
        &mut self,
        nodes: Vec<Node>,
        mut decode: impl FnMut(&mut Self, Node) -> Option<T>,
    ) -> Vec<T> {
        let mut decoded = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let item = self.within(itoa::Buffer::new().format(index), |check| {
                decode(check, node)
            });
            decoded.extend(item);
        }
        decoded
    }

    /// Reports an error here.
    pub(crate) fn error(&mut self, at: At, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Error, at, code, message.into());
    }

    /// Reports a warning here.
    pub(crate) fn warn(&mut self, at: At, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Warning, at, code, message.into());
    }

    fn push(&mut self, severity: Severity, at: At, code: &'static str, message: String) {
        let field = self.path.clone();
        self.findings.push(Finding {
            severity,
            code,
            field,
            at,
            message,
        });
    }

    /// Reports a value of the wrong kind.
    pub(crate) fn wrong<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        let message = format!("expected {expected}, found {}", node.kind());
        self.error(node.at, "wrong-type", message);
        None
    }

    /// A map's entries.
    pub(crate) fn map(&mut self, node: Node) -> Option<Vec<Entry>> {
        match node.tree {
            Tree::Map(entries) => Some(entries),
            _ => self.wrong(&node, "an object"),
        }
    }

    /// A list's entries.
    pub(crate) fn list(&mut self, node: Node) -> Option<Vec<Node>> {
        match node.tree {
            Tree::List(nodes) => Some(nodes),
            _ => self.wrong(&node, "a list"),
        }
    }

    /// Text of any length.
    pub(crate) fn text(&mut self, node: Node) -> Option<String> {
        match node.tree {
            Tree::Text(text) => Some(text),
            _ => self.wrong(&node, "a string"),
        }
    }

    /// Text of this many characters.
    pub(crate) fn text_of(&mut self, node: Node, chars: RangeInclusive<usize>) -> Option<String> {
        let at = node.at;
        let text = self.text(node)?;
        let (min, max) = (*chars.start(), *chars.end());
        // Bytes are never fewer than characters, so most texts need no count.
        if text.len() < min || text.len() > max && text.chars().count() > max {
            let message = format!("expected {min} to {max} characters");
            self.error(at, "invalid-value", message);
            return None;
        }
        Some(text)
    }

    /// One of these words.
    pub(crate) fn word(&mut self, node: Node, words: &[&str]) -> Option<String> {
        let at = node.at;
        let text = self.text(node)?;
        if !words.contains(&&*text) {
            self.error(
                at,
                "invalid-value",
                format!("expected one of {}", words.join(", ")),
            );
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.tree {
            Tree::Bool(value) => Some(value),
            _ => self.wrong(node, "true or false"),
        }
    }

    /// A whole number within bounds; `1.0` is one, as in JSON Schema.
    pub(crate) fn int(&mut self, node: &Node, bounds: RangeInclusive<i64>) -> Option<i64> {
        let number = match node.tree {
            Tree::Int(number) => number,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "checked to be whole and small"
            )]
            Tree::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => number as i64,
            _ => return self.wrong(node, "an integer"),
        };
        if !bounds.contains(&number) {
            let message = match (*bounds.start(), *bounds.end()) {
                (min, i64::MAX) => format!("expected an integer of at least {min}"),
                (min, max) => format!("expected an integer from {min} to {max}"),
            };
            self.error(node.at, "invalid-value", message);
            return None;
        }
        Some(number)
    }

    /// A whole number that fits the type asked for.
    pub(crate) fn small<T: TryFrom<i64>>(
        &mut self,
        node: &Node,
        bounds: RangeInclusive<i64>,
    ) -> Option<T> {
        let number = self.int(node, bounds)?;
        T::try_from(number).ok().or_else(|| {
            self.error(node.at, "invalid-value", "number is out of range");
            None
        })
    }

    /// Any finite number.
    pub(crate) fn number(&mut self, node: &Node) -> Option<f64> {
        match node.tree {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds and factors stay far below 2^52"
            )]
            Tree::Int(number) => Some(number as f64),
            Tree::Float(number) => Some(number),
            _ => self.wrong(node, "a number"),
        }
    }

    /// An object, kept as JSON.
    pub(crate) fn object(&mut self, node: Node) -> Option<Value> {
        match node.tree {
            Tree::Map(_) => Some(node.into()),
            _ => self.wrong(&node, "an object"),
        }
    }
}
