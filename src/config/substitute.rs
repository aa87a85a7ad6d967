//! `${{NAME}}` and `${{NAME:=default}}`: values of the environment put into a file when it is
//! read. Not to be confused with `$env://NAME`, a reference resolved later.

use std::borrow::Cow;

use super::node::{At, Node, Tree};
use super::yaml::{at_offset, plain};

/// Answers environment variables; the process's own in `run`, a map in tests.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable that is not set and has no default.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't find environment variable {name}")]
pub struct UnsetVariable {
    /// Its name.
    pub name: String,
    /// Where the placeholder starts; not known inside a decoded value.
    pub at: At,
}

/// Puts variables into raw text, before it is parsed: in values, keys and comments alike.
///
/// # Errors
/// A variable is not set and its placeholder has no default.
pub fn substitute<'text>(text: &'text str, env: Env<'_>) -> Result<Cow<'text, str>, UnsetVariable> {
    let mut result = String::new();
    let mut copied = 0;
    for start in memchr::memmem::find_iter(text.as_bytes(), "${{") {
        if start < copied {
            continue;
        }
        let Some(placeholder) = Placeholder::parse(&text[start..]) else {
            continue;
        };
        let value = placeholder.value(env).ok_or_else(|| UnsetVariable {
            name: placeholder.name.to_owned(),
            at: at_offset(text.as_bytes(), start),
        })?;
        result.push_str(&text[copied..start]);
        result.push_str(&value);
        copied = start + placeholder.length;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(text));
    }
    result.push_str(&text[copied..]);
    Ok(Cow::Owned(result))
}

/// Puts variables into the string values of a parsed file. A result that reads as a number or a
/// boolean becomes one, even where the placeholder was quoted (`spec/06` §1).
///
/// # Errors
/// As [`substitute`], with the place of the value.
pub fn substitute_values(node: &mut Node, env: Env<'_>) -> Result<(), UnsetVariable> {
    match &mut node.tree {
        Tree::List(nodes) => nodes
            .iter_mut()
            .try_for_each(|node| substitute_values(node, env)),
        Tree::Map(entries) => entries
            .iter_mut()
            .try_for_each(|entry| substitute_values(&mut entry.node, env)),
        Tree::Text(text) => {
            let replaced = substitute(text, env).map_err(|unset| UnsetVariable {
                at: node.at,
                ..unset
            })?;
            if let Cow::Owned(text) = replaced {
                node.tree = match plain(text.clone()) {
                    typed @ (Tree::Bool(_) | Tree::Int(_) | Tree::Float(_)) => typed,
                    _ => Tree::Text(text),
                };
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

struct Placeholder<'text> {
    name: &'text str,
    default: Option<&'text str>,
    length: usize,
}

impl<'text> Placeholder<'text> {
    /// Reads a placeholder at the start of the text; anything of another shape is left as it is.
    fn parse(text: &'text str) -> Option<Self> {
        let end = text.find("}}")?;
        let inner = text.get(3..end)?;
        if inner.contains('\n') {
            return None;
        }
        let (name, default) = match inner.split_once(":=") {
            Some((name, default)) => (name.trim(), Some(default.trim())),
            None => (inner.trim(), None),
        };
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_name.then_some(Self {
            name,
            default,
            length: end + 2,
        })
    }

    fn value(&self, env: Env<'_>) -> Option<String> {
        env(self.name).or_else(|| self.default.map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("a.test".into()),
            "PORT" => Some("8080".into()),
            "ON" => Some("true".into()),
            _ => None,
        }
    }

    #[test]
    fn placeholders_are_replaced_anywhere() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a: ${{HOST}}", "a: a.test"),
            ("${{ HOST }}: ${{PORT}}", "a.test: 8080"),
            ("x: ${{NONE:= d e }}!", "x: d e!"),
            ("x: ${{NONE:=}}", "x: "),
            ("x: ${{not a name}} ${{", "x: ${{not a name}} ${{"),
        ] {
            assert_eq!(substitute(text, &env).expect("all are set"), expected);
        }
    }

    #[test]
    fn an_unset_variable_is_named_with_its_place() {
        let unset = substitute("a: 1\nb: ${{NONE}}", &env).expect_err("not set");
        assert_eq!(unset.to_string(), "can't find environment variable NONE");
        assert_eq!((unset.at.line, unset.at.column), (2, 4));
    }

    #[test]
    fn decoded_values_are_typed_after_substitution() {
        let (mut node, _) =
            super::super::yaml::parse("a: \"${{PORT}}\"\nb: ${{ON}}\nc: \"80\"\nd: x${{PORT}}")
                .expect("is YAML");
        substitute_values(&mut node, &env).expect("all are set");
        assert_eq!(node.find("a").map(|n| &n.tree), Some(&Tree::Int(8080)));
        assert_eq!(node.find("b").map(|n| &n.tree), Some(&Tree::Bool(true)));
        assert_eq!(
            node.find("c").map(|n| &n.tree),
            Some(&Tree::Text("80".into()))
        );
        assert_eq!(
            node.find("d").map(|n| &n.tree),
            Some(&Tree::Text("x8080".into()))
        );
    }
}
