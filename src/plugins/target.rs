//! Writing request targets and locations: what may stand in them unencoded, and regex rewriting.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use regex::Regex;
use smallvec::SmallVec;

use super::def::BuildError;
use crate::expr::{Captured, Template, VarSource, pattern};

/// What cannot stand in a request target or a `Location` at all.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'\\');

/// What must be encoded in a path that was decoded.
const PATH: &AsciiSet = &UNSAFE
    .add(b'#')
    .add(b'%')
    .add(b'?')
    .add(b'^')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Encodes a decoded path.
pub(super) fn encode_path(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, PATH).into()
}

/// Encodes only what would break the line or end the target; `%` stays.
pub(super) fn encode_unsafe(target: &str) -> Cow<'_, str> {
    utf8_percent_encode(target, UNSAFE).into()
}

/// What a match captured; group 0 is the whole match, a group that took no part is empty.
pub(super) type Groups = SmallVec<[Cow<'static, str>; 4]>;

/// A regex and what its first match becomes.
pub(super) struct Rewriting {
    regex: Regex,
    template: Template,
}

impl Rewriting {
    /// # Errors
    /// `field` where the pattern cannot be used.
    pub(super) fn build(field: &str, regex: &str, template: &str) -> Result<Self, BuildError> {
        let regex = pattern::compile(regex, false)
            .map_err(|error| BuildError::invalid(field, error.to_string()))?;
        Ok(Self {
            regex,
            template: Template::parse(template),
        })
    }

    /// `text` with its first match replaced, and what was captured; `None` without a match.
    pub(super) fn rewrite(&self, text: &str, source: &dyn VarSource) -> Option<(String, Groups)> {
        let captures = self.regex.captures(text)?;
        let whole = captures.get(0)?.range();
        let group = |group: Option<regex::Match<'_>>| {
            Cow::Owned(group.map_or_else(String::new, |group| group.as_str().to_owned()))
        };
        let groups: Groups = captures.iter().map(group).collect();
        let mut rewritten = String::with_capacity(text.len() + 16);
        rewritten.push_str(&text[..whole.start]);
        let source = Captured {
            source,
            groups: &groups,
        };
        self.template.render_into(&source, &mut rewritten);
        rewritten.push_str(&text[whole.end..]);
        Some((rewritten, groups))
    }
}

/// Appends a query, behind `?` or behind `&` where the target already has one.
pub(super) fn append_query(target: &mut String, query: Option<&str>) {
    let Some(query) = query else { return };
    target.push(if target.contains('?') { '&' } else { '?' });
    target.push_str(query);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;

    #[test]
    fn only_what_must_be_is_encoded() {
        for (text, path, line) in [
            (
                "/a-b_c~d!$&'()*+,;=:@",
                "/a-b_c~d!$&'()*+,;=:@",
                "/a-b_c~d!$&'()*+,;=:@",
            ),
            ("/a b", "/a%20b", "/a%20b"),
            ("/%41?#", "/%2541%3F%23", "/%41?#"),
            ("/\r\n\0\x7f", "/%0D%0A%00%7F", "/%0D%0A%00%7F"),
            ("/ü", "/%C3%BC", "/%C3%BC"),
        ] {
            assert_eq!(encode_path(text), path);
            assert_eq!(encode_unsafe(text), line);
        }
    }

    #[test]
    fn the_first_match_is_replaced_and_the_rest_stays() {
        let mut exchange = Exchange::get("/");
        let ctx = exchange.ctx();
        for (regex, template, text, expected) in [
            ("^/a/(.*)$", "/b/$1", "/a/x/y", Some("/b/x/y")),
            ("/(a)(z)?", "/$1${2}!", "/a/a", Some("/a!/a")),
            ("b", "c", "/abab", Some("/acab")),
            ("^/x", "/y", "/a", None),
        ] {
            let rewriting = Rewriting::build("f", regex, template).expect("regex is valid");
            let rewritten = rewriting.rewrite(text, &ctx).map(|(text, _)| text);
            assert_eq!(rewritten.as_deref(), expected, "{regex}");
        }
    }

    #[test]
    fn a_query_is_appended_behind_the_right_sign() {
        for (target, query, expected) in [
            ("/a", None, "/a"),
            ("/a", Some("b"), "/a?b"),
            ("/a?c", Some("b"), "/a?c&b"),
        ] {
            let mut target = target.to_owned();
            append_query(&mut target, query);
            assert_eq!(target, expected);
        }
    }
}
