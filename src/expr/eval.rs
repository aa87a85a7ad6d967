//! Evaluates a parsed [`Expr`] for one request. Compares and looks up; never parses a pattern.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::parse::{Expr, Node, Operand, Order, Test, text_number};
use super::var::{VarSource, Variable};

impl Expr {
    /// Whether the request fits.
    #[must_use]
    pub fn matches(&self, source: &dyn VarSource) -> bool {
        self.0.holds(source)
    }
}

impl Node {
    fn holds(&self, source: &dyn VarSource) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(source)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(source)),
            Self::Not(node) => !node.holds(source),
            Self::Test { variable, test } => test.holds(variable, source),
        }
    }
}

impl Test {
    fn holds(&self, variable: &Variable, source: &dyn VarSource) -> bool {
        if let Self::Has(member) = self {
            return source
                .list(variable)
                .is_some_and(|list| list.iter().any(|item| member.equals(Some(item))));
        }
        let value = source.var(variable);
        let value = value.as_deref();
        if let Self::Equal(operand) = self {
            return operand.equals(value);
        }
        let Some(value) = value else { return false };
        match self {
            Self::Equal(_) | Self::Has(_) => false,
            Self::Order(order, right) => right
                .zip(text_number(value))
                .is_some_and(|(right, left)| order.holds(left, right)),
            Self::Matches(regex) => regex.is_match(value),
            Self::In(members) => members.iter().any(|member| **member == *value),
            Self::Network(networks) => value
                .parse::<IpAddr>()
                .is_ok_and(|address| networks.contains(address)),
        }
    }
}

impl Operand {
    fn equals(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Missing, value) => value.is_none(),
            (Self::Never, _) | (_, None) => false,
            (Self::Text(text), Some(value)) => **text == *value,
            (Self::Number(number), Some(value)) => {
                text_number(value).is_some_and(|value| Order::same(value, *number))
            }
        }
    }
}

impl Order {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }

    /// Equality of two finite numbers, as Lua's `==` has it.
    fn same(left: f64, right: f64) -> bool {
        left.partial_cmp(&right) == Some(Ordering::Equal)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;

    use super::*;

    struct Fixed;

    impl VarSource for Fixed {
        fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            let Variable::Named(name) = variable else {
                return None;
            };
            Some(Cow::Borrowed(match &**name {
                "one" => "1",
                "ten" => "10.0",
                "name" => "Alice",
                "empty" => "",
                "ip" => "10.1.2.3",
                "ip6" => "2001:db8::1",
                "mapped" => "::ffff:10.1.2.3",
                _ => return None,
            }))
        }

        fn list(&self, variable: &Variable) -> Option<Vec<Cow<'_, str>>> {
            (*variable == Variable::parse("fields")).then(|| vec!["a".into(), "7".into()])
        }
    }

    #[test]
    fn operators_do_what_the_table_says() {
        for (condition, expected) in [
            (json!(["name", "Alice"]), true),
            (json!(["name", "==", "Alice"]), true),
            (json!(["name", "==", "alice"]), false),
            (json!(["one", "==", 1]), true),
            (json!(["one", "==", "1"]), true),
            (json!(["ten", "==", 10]), true),
            (json!(["ten", "==", "10"]), false),
            (json!(["name", "==", 1]), false),
            (json!(["name", "==", true]), false),
            (json!(["empty", "==", ""]), true),
            (json!(["none", "==", ""]), false),
            (json!(["none", "==", null]), true),
            (json!(["name", "==", null]), false),
            (json!(["name", "~=", "bob"]), true),
            (json!(["one", "~=", 1]), false),
            (json!(["none", "~=", "x"]), true),
            (json!(["none", "~=", null]), false),
            (json!(["ten", ">", 9]), true),
            (json!(["ten", ">", "9"]), true),
            (json!(["ten", ">", 10]), false),
            (json!(["ten", ">=", 10]), true),
            (json!(["one", "<", 2]), true),
            (json!(["one", "<=", 1]), true),
            (json!(["name", ">", 0]), false),
            (json!(["name", "<", 0]), false),
            (json!(["one", "<", "x"]), false),
            (json!(["none", "<", 5]), false),
            (json!(["name", "~~", "^A"]), true),
            (json!(["name", "~~", "^a"]), false),
            (json!(["name", "~*", "^a"]), true),
            (json!(["none", "~~", ".*"]), false),
            (json!(["none", "!", "~~", ".*"]), true),
            (json!(["one", "in", ["0", "1"]]), true),
            (json!(["one", "in", [1]]), false),
            (json!(["one", "in", []]), false),
            (json!(["one", "in", "1"]), false),
            (json!(["one", "!", "in", ["2"]]), true),
            (json!(["none", "in", ["1"]]), false),
            (json!(["fields", "has", "a"]), true),
            (json!(["fields", "has", 7]), true),
            (json!(["fields", "has", "b"]), false),
            (json!(["name", "has", "A"]), false),
            (json!(["none", "has", null]), false),
            (json!(["ip", "ipmatch", "10.1.2.3"]), true),
            (
                json!(["ip", "ipmatch", ["192.168.0.0/16", "10.0.0.0/8"]]),
                true,
            ),
            (json!(["ip", "ipmatch", ["10.1.2.4"]]), false),
            (json!(["mapped", "ipmatch", ["10.0.0.0/8"]]), true),
            (json!(["ip6", "ipmatch", ["2001:db8::/32"]]), true),
            (json!(["ip6", "ipmatch", ["0.0.0.0/0"]]), false),
            (json!(["name", "ipmatch", ["0.0.0.0/0"]]), false),
            (json!(["none", "ipmatch", ["0.0.0.0/0"]]), false),
            (json!(["name", "!", "~=", "Alice"]), true),
        ] {
            let expr = Expr::parse(&json!([condition])).expect("expression is valid");
            assert_eq!(expr.matches(&Fixed), expected, "{condition}");
        }
    }

    #[test]
    fn logic_combines_and_nests() {
        let yes = json!(["one", "1"]);
        let no = json!(["one", "2"]);
        for (expr, expected) in [
            (json!([]), true),
            (json!([yes, yes]), true),
            (json!([yes, no]), false),
            (json!(["AND", yes, no]), false),
            (json!(["or", yes, no]), true),
            (json!(["OR", no, no]), false),
            (json!(["!AND", yes, no]), true),
            (json!(["!AND", yes, yes]), false),
            (json!(["!or", no, no]), true),
            (json!(["!OR", yes, no]), false),
            (json!([["OR", no, yes], ["AND", yes, yes, yes]]), true),
            (json!(["AND", ["OR", no, ["!OR", no, no]], yes]), true),
        ] {
            let parsed = Expr::parse(&expr).expect("expression is valid");
            assert_eq!(parsed.matches(&Fixed), expected, "{expr}");
        }
    }
}
