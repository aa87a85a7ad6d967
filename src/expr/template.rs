//! Texts with variables in them (`spec/00` §8.5), cut into segments at load.

use std::borrow::Cow;

use super::var::{VarSource, Variable};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text as it is.
    Literal(Box<str>),
    /// A variable, and what stands for it where the request has none.
    Var {
        /// Which.
        variable: Variable,
        /// Text behind `??`; empty where none was given.
        default: Box<str>,
    },
}

/// A parsed template: `$name`, `${name}`, `${name ?? default}`; `\$` is a dollar sign.
///
/// A `$` that starts no variable stands for itself. A name of digits is a capture and ends with
/// the last digit, so `$1x` is capture 1 and `x`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    segments: Box<[Segment]>,
}

impl Template {
    /// Cuts the text into segments. Every text is a template.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '\\']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("\\$") {
                literal.push('$');
                rest = after;
            } else if let Some((variable, after)) = reference(rest) {
                push_literal(&mut segments, &mut literal);
                segments.push(variable);
                rest = after;
            } else {
                literal.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        push_literal(&mut segments, &mut literal);
        Self {
            segments: segments.into(),
        }
    }

    /// The whole text where it holds no variable.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match &*self.segments {
            [] => Some(""),
            [Segment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The pieces, for sinks that escape values on their way.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether any variable is a capture of the plugin's own regex.
    #[must_use]
    pub fn uses_captures(&self) -> bool {
        self.segments.iter().any(|segment| {
            matches!(
                segment,
                Segment::Var {
                    variable: Variable::Capture(_),
                    ..
                }
            )
        })
    }

    /// The text with variables replaced; a missing one is its default, else empty.
    #[must_use]
    pub fn render(&self, source: &dyn VarSource) -> String {
        let mut text = String::new();
        self.render_into(source, &mut text);
        text
    }

    /// As [`Template::render`], but borrows where there is nothing to replace or only one value.
    #[must_use]
    pub fn text<'a>(&'a self, source: &'a dyn VarSource) -> Cow<'a, str> {
        match &*self.segments {
            [] => Cow::Borrowed(""),
            [Segment::Literal(text)] => Cow::Borrowed(text),
            [Segment::Var { variable, default }] => source
                .var(variable)
                .unwrap_or(Cow::Borrowed(default.as_ref())),
            _ => Cow::Owned(self.render(source)),
        }
    }

    /// Appends the rendered text to `out`.
    pub fn render_into(&self, source: &dyn VarSource, out: &mut String) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Var { variable, default } => match source.var(variable) {
                    Some(value) => out.push_str(&value),
                    None => out.push_str(default),
                },
            }
        }
    }
}

/// A source with the captures of a plugin's own regex in front of it.
pub struct Captured<'a> {
    /// Everything but captures.
    pub source: &'a dyn VarSource,
    /// Group 0 is the whole match.
    pub groups: &'a [Cow<'a, str>],
}

impl VarSource for Captured<'_> {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::Capture(number) => {
                let group = self.groups.get(*number)?;
                Some(Cow::Borrowed(group.as_ref()))
            }
            _ => self.source.var(variable),
        }
    }

    fn list(&self, variable: &Variable) -> Option<Vec<Cow<'_, str>>> {
        self.source.list(variable)
    }
}

/// Reads the variable at the start of `text`, which may begin with `$`; the rest comes back too.
fn reference(text: &str) -> Option<(Segment, &str)> {
    let text = text.strip_prefix('$')?;
    if let Some(inner) = text.strip_prefix('{') {
        let (inner, after) = inner.split_once('}')?;
        let (name, default) = match inner.split_once("??") {
            Some((name, default)) => (name.trim(), default.trim()),
            None => (inner.trim(), ""),
        };
        let valid = !name.is_empty() && name.bytes().all(|byte| is_name(byte) || byte == b'.');
        return valid.then(|| (segment(name, default), after));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let end = if digits > 0 {
        digits
    } else {
        text.bytes().take_while(|byte| is_name(*byte)).count()
    };
    let end = end + json_path(&text[..end], &text[end..]);
    let (name, after) = text.split_at(end);
    (end > 0).then(|| (segment(name, ""), after))
}

/// Length of the path behind `post_arg`, the one name that goes on behind a dot without braces:
/// `$post_arg.user.id`. A dot at the end is the text's.
fn json_path(name: &str, after: &str) -> usize {
    if name != "post_arg" || !after.starts_with('.') {
        return 0;
    }
    let path = after
        .bytes()
        .take_while(|byte| is_name(*byte) || *byte == b'.');
    after[..path.count()].trim_end_matches('.').len()
}

fn segment(name: &str, default: &str) -> Segment {
    Segment::Var {
        variable: Variable::parse(name),
        default: default.into(),
    }
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn push_literal(segments: &mut Vec<Segment>, literal: &mut String) {
    if !literal.is_empty() {
        segments.push(Segment::Literal(std::mem::take(literal).into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Name;

    struct Fixed;

    impl VarSource for Fixed {
        fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            match variable {
                Variable::Known(Name::Uri) => Some("/a".into()),
                Variable::Header(name) if name == "x-one" => Some("1".into()),
                Variable::Arg(name) if &**name == "q" => Some("v".into()),
                Variable::PostJson(path) => Some(format!("<{path}>").into()),
                _ => None,
            }
        }
    }

    #[test]
    fn variables_are_replaced_and_missing_ones_are_empty() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$uri", "/a"),
            ("${uri}", "/a"),
            ("${ uri }", "/a"),
            ("x$uri/y", "x/a/y"),
            ("$uri$arg_q", "/av"),
            ("$http_x_one", "1"),
            ("$missing", ""),
            ("a${missing}b", "ab"),
            ("${missing ?? none}", "none"),
            ("${missing??a b}", "a b"),
            ("${uri ?? none}", "/a"),
            ("${missing ?? }", ""),
            (r"\$uri", "$uri"),
            (r"\\$uri", r"\$uri"),
            (r"a\b", r"a\b"),
            (r"\", r"\"),
            ("$", "$"),
            ("$$uri", "$/a"),
            ("$-", "$-"),
            ("5$", "5$"),
            ("${", "${"),
            ("${uri", "${uri"),
            ("${}", "${}"),
            ("${a b}", "${a b}"),
            ("${?? x}", "${?? x}"),
            ("ü$uri€", "ü/a€"),
            ("$uriü", "/aü"),
            ("$uri.x", "/a.x"),
            ("$post_arg.a.0.b-c", "<a.0.b>-c"),
            ("$post_arg.a.", "<a>."),
            ("${post_arg.a}.b", "<a>.b"),
            ("$post_arg.", "."),
        ] {
            assert_eq!(
                Template::parse(template).render(&Fixed),
                expected,
                "{template}"
            );
            assert_eq!(
                Template::parse(template).text(&Fixed),
                expected,
                "{template}"
            );
        }
    }

    #[test]
    fn captures_end_with_their_digits() {
        let groups = ["all".into(), "one".into(), "two".into()];
        let source = Captured {
            source: &Fixed,
            groups: &groups,
        };
        for (template, expected) in [
            ("$1x", "onex"),
            ("$1_$2", "one_two"),
            ("${2}0", "two0"),
            ("$20", ""),
            ("$0$uri", "all/a"),
            ("${9 ?? no}", "no"),
        ] {
            let template = Template::parse(template);
            assert!(template.uses_captures(), "{template:?} names a capture");
            assert_eq!(template.render(&source), expected, "{template:?}");
        }
        assert_eq!(Template::parse("[$1]").render(&Fixed), "[]");
    }

    #[test]
    fn only_texts_without_variables_are_literal() {
        assert_eq!(Template::parse("").literal(), Some(""));
        assert_eq!(Template::parse(r"a\$b").literal(), Some("a$b"));
        assert_eq!(Template::parse("a$b").literal(), None);
    }
}
