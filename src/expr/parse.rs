//! Condition lists (`vars`, `_meta.filter`, `case`) from JSON to [`Expr`].

use regex::Regex;
use serde_json::Value;

use super::pattern;
use super::var::Variable;
use crate::ip_set::IpSet;

/// How deep logic may nest. A document that deep is an accident or an attack on the stack.
const MAX_DEPTH: usize = 64;

/// A parsed condition list.
#[derive(Debug, Clone)]
pub struct Expr(pub(super) Node);

/// Conditions and how they combine.
#[derive(Debug, Clone)]
pub(super) enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Test { variable: Variable, test: Test },
}

impl Node {
    fn asks_body(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().any(Self::asks_body),
            Self::Not(node) => node.asks_body(),
            Self::Test { variable, .. } => variable.is_of_body(),
        }
    }
}

/// What a variable is held against.
#[derive(Debug, Clone)]
pub(super) enum Test {
    /// `==`; `~=` is its negation.
    Equal(Operand),
    /// `>`, `>=`, `<`, `<=` against a number; `None` where the right side is none, which is false.
    Order(Order, Option<f64>),
    /// `~~` and `~*`.
    Matches(Regex),
    /// `in`: the strings of the array; others can equal no variable.
    In(Box<[Box<str>]>),
    /// `has`.
    Has(Operand),
    /// `ipmatch`.
    Network(IpSet),
}

/// Right side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Text(Box<str>),
    Number(f64),
    /// `null`: equals a missing variable.
    Missing,
    /// A boolean, array or object, which no variable equals.
    Never,
}

/// An order relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Why an expression was refused. Quotes at most a short operator, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// A condition, or the whole, is not an array of the right shape.
    #[error("failed to validate the 'vars' expression: rule should be wrapped inside brackets")]
    NotWrapped,
    /// A condition without a value, or logic over fewer than two conditions.
    #[error("failed to validate the 'vars' expression: rule too short")]
    TooShort,
    /// No such operator.
    #[error("failed to validate the 'vars' expression: invalid operator '{0}'")]
    Operator(Box<str>),
    /// `!` at the wrong place.
    #[error("failed to validate the 'vars' expression: bad 'not' expression")]
    BadNot,
    /// `ipmatch` against something else than addresses and networks.
    #[error("failed to validate the 'vars' expression: invalid ip address")]
    Address,
    /// A condition that does not start with a variable's name.
    #[error("failed to validate the 'vars' expression: variable name must be a string")]
    VariableName,
    /// `~~` or `~*` against something that is no usable pattern.
    #[error("failed to validate the 'vars' expression: {0}")]
    Pattern(#[from] pattern::PatternError),
    /// Logic nested beyond reason.
    #[error("failed to validate the 'vars' expression: nested too deeply")]
    TooDeep,
}

impl Expr {
    /// Whether it holds anything against a field of the request's body.
    #[must_use]
    pub fn asks_body(&self) -> bool {
        self.0.asks_body()
    }

    /// Parses a list of conditions (all must hold; an empty one holds), or one logic form.
    ///
    /// # Errors
    /// The shape is wrong, or an operand does not fit its operator.
    pub fn parse(json: &Value) -> Result<Self, ExprError> {
        let items = json.as_array().ok_or(ExprError::NotWrapped)?;
        if items.first().is_some_and(Value::is_string) {
            let logic = logic(items, 0)?;
            return Ok(Self(logic.ok_or(ExprError::NotWrapped)?));
        }
        Ok(Self(Node::All(conditions(items, 0)?)))
    }
}

fn conditions(items: &[Value], depth: usize) -> Result<Box<[Node]>, ExprError> {
    items.iter().map(|item| condition(item, depth)).collect()
}

fn condition(json: &Value, depth: usize) -> Result<Node, ExprError> {
    if depth > MAX_DEPTH {
        return Err(ExprError::TooDeep);
    }
    let items = json.as_array().ok_or(ExprError::NotWrapped)?;
    if let Some(logic) = logic(items, depth)? {
        return Ok(logic);
    }
    let (name, operator, value, negated) = match items.as_slice() {
        [] | [_] => return Err(ExprError::TooShort),
        [name, value] => (name, "==", value, false),
        [name, operator, value] => (name, operator_text(operator)?, value, false),
        [name, not, operator, value] if not == "!" => (name, operator_text(operator)?, value, true),
        _ => return Err(ExprError::BadNot),
    };
    let variable = Variable::parse(name.as_str().ok_or(ExprError::VariableName)?);
    let (test, inverse) = test(operator, value)?;
    let node = Node::Test { variable, test };
    Ok(if inverse == negated {
        node
    } else {
        Node::Not(Box::new(node))
    })
}

/// The logic form, where the array starts with a logic word.
fn logic(items: &[Value], depth: usize) -> Result<Option<Node>, ExprError> {
    let Some((Value::String(word), rest)) = items.split_first() else {
        return Ok(None);
    };
    let (word, negated) = word
        .strip_prefix('!')
        .map_or((word.as_str(), false), |word| (word, true));
    let combine = if word.eq_ignore_ascii_case("AND") {
        Node::All
    } else if word.eq_ignore_ascii_case("OR") {
        Node::Any
    } else {
        return Ok(None);
    };
    if rest.len() < 2 {
        return Err(ExprError::TooShort);
    }
    let node = combine(conditions(rest, depth + 1)?);
    Ok(Some(if negated {
        Node::Not(Box::new(node))
    } else {
        node
    }))
}

fn operator_text(json: &Value) -> Result<&str, ExprError> {
    match json.as_str() {
        Some("!") => Err(ExprError::BadNot),
        Some(operator) => Ok(operator),
        None => Err(ExprError::Operator("…".into())),
    }
}

/// The test an operator makes, and whether its outcome is to be inverted.
fn test(operator: &str, value: &Value) -> Result<(Test, bool), ExprError> {
    let test = match operator {
        "==" => Test::Equal(Operand::parse(value)),
        "~=" => return Ok((Test::Equal(Operand::parse(value)), true)),
        ">" => Test::Order(Order::Greater, number(value)),
        ">=" => Test::Order(Order::GreaterOrEqual, number(value)),
        "<" => Test::Order(Order::Less, number(value)),
        "<=" => Test::Order(Order::LessOrEqual, number(value)),
        "~~" => Test::Matches(regex(value, false)?),
        "~*" => Test::Matches(regex(value, true)?),
        "in" => Test::In(members(value)),
        "has" => Test::Has(Operand::parse(value)),
        "ipmatch" => Test::Network(networks(value)?),
        _ => return Err(ExprError::Operator(quotable(operator).into())),
    };
    Ok((test, false))
}

/// The operator as it may stand in a message: short, and of letters only or signs only. Anything
/// else could be a value that slipped one place.
fn quotable(operator: &str) -> &str {
    let letters = operator
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b' ');
    let signs = operator.bytes().all(|byte| byte.is_ascii_punctuation());
    if operator.len() <= 8 && (letters || signs) {
        operator
    } else {
        "…"
    }
}

impl Operand {
    fn parse(json: &Value) -> Self {
        match json {
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Number(number) => number.as_f64().map_or(Self::Never, Self::Number),
            Value::Null => Self::Missing,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => Self::Never,
        }
    }
}

fn number(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text_number(text),
        _ => None,
    }
}

/// The text as a decimal number. Words (`inf`, `nan`) are none.
pub(super) fn text_number(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    let decimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    if !decimal {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn regex(json: &Value, ignore_case: bool) -> Result<Regex, ExprError> {
    let pattern = json.as_str().ok_or(pattern::PatternError::Syntax)?;
    Ok(pattern::compile(pattern, ignore_case)?)
}

fn members(json: &Value) -> Box<[Box<str>]> {
    let items = json.as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

fn networks(json: &Value) -> Result<IpSet, ExprError> {
    let items = match json {
        Value::Array(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    // What is no text is no address either.
    let texts = items.iter().map(|item| item.as_str().unwrap_or_default());
    IpSet::parse(texts).map_err(|_| ExprError::Address)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_expressions_are_refused_with_their_reason() {
        let prefix = "failed to validate the 'vars' expression: ";
        for (expr, reason) in [
            (json!("x"), "rule should be wrapped inside brackets"),
            (json!({}), "rule should be wrapped inside brackets"),
            (json!(null), "rule should be wrapped inside brackets"),
            (
                json!(["a", "==", "b"]),
                "rule should be wrapped inside brackets",
            ),
            (
                json!([["a", "==", "b"], "c"]),
                "rule should be wrapped inside brackets",
            ),
            (json!([["a"]]), "rule too short"),
            (json!([[]]), "rule too short"),
            (json!(["OR"]), "rule too short"),
            (json!(["AND", ["a", "==", "b"]]), "rule too short"),
            (json!([["!or", ["a", "==", "b"]]]), "rule too short"),
            (json!([["a", "=", "b"]]), "invalid operator '='"),
            (json!([["a", "like", "b"]]), "invalid operator 'like'"),
            (json!([["a", "IN", ["b"]]]), "invalid operator '…'"),
            (json!([["a", "hunter2!", "b"]]), "invalid operator '…'"),
            (json!([["a", 1, "b"]]), "invalid operator '…'"),
            (json!([["a", "!", "b"]]), "bad 'not' expression"),
            (json!([["a", "==", "!", "b"]]), "bad 'not' expression"),
            (json!([["a", "!", "!", "b"]]), "bad 'not' expression"),
            (json!([["a", "!", "==", "b", "c"]]), "bad 'not' expression"),
            (json!([["a", "ipmatch", "nowhere"]]), "invalid ip address"),
            (
                json!([["a", "ipmatch", ["10.0.0.0/33"]]]),
                "invalid ip address",
            ),
            (json!([["a", "ipmatch", 5]]), "invalid ip address"),
            (json!([[1, "==", "b"]]), "variable name must be a string"),
            (
                json!([["a", "~~", "("]]),
                "must be a regular expression without look-around and back-references",
            ),
            (
                json!([["a", "~*", "\\w{1000}{1000}"]]),
                "regular expression is too large",
            ),
        ] {
            let error = Expr::parse(&expr).expect_err("expression is wrong");
            assert_eq!(error.to_string(), format!("{prefix}{reason}"), "{expr}");
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let mut expr = json!([["a", "b"], ["a", "b"]]);
        for _ in 0..100 {
            expr = json!(["and", ["a", "b"], expr]);
        }
        // The innermost list is no condition; depth is found first.
        assert_eq!(Expr::parse(&expr).err(), Some(ExprError::TooDeep));
    }

    #[test]
    fn words_are_no_numbers() {
        for (text, expected) in [
            ("1", Some(1.0)),
            (" 1.5 ", Some(1.5)),
            ("-2e3", Some(-2000.0)),
            ("", None),
            ("inf", None),
            ("nan", None),
            ("1e999", None),
            ("0x10", None),
            ("1,5", None),
        ] {
            assert_eq!(text_number(text), expected, "{text}");
        }
    }
}
