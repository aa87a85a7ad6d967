//! `filters` of response-rewrite: regex replacements in a body.

use regex::bytes::{Captures, Regex};
use serde::Deserialize;

use crate::expr::pattern::{self, Options};
use crate::expr::{Segment, Template, Variable};
use crate::plugins::def::BuildError;

#[derive(Deserialize)]
pub(super) struct FilterConfig {
    /// What is replaced.
    regex: String,
    /// What it becomes; `$1` and `${1}` are captures.
    replace: String,
    /// The first match, or every one.
    #[serde(default)]
    scope: Scope,
    /// Letters of nginx's regex options; `i`, `m`, `s`, `x` count.
    #[serde(default = "default_options")]
    options: String,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Scope {
    #[default]
    Once,
    Global,
}

fn default_options() -> String {
    "jo".to_owned()
}

/// A built replacement.
pub(super) struct Filter {
    regex: Regex,
    replace: Box<[Part]>,
    scope: Scope,
}

enum Part {
    Text(Box<[u8]>),
    Group(usize),
}

impl Filter {
    /// Builds the filter at this position of the list.
    pub(super) fn build(index: usize, config: &FilterConfig) -> Result<Self, BuildError> {
        let invalid = |field: &str, message: String| {
            BuildError::invalid(format!("filters[{index}].{field}"), message)
        };
        let mut options = Options::default();
        for letter in config.options.chars() {
            match letter {
                'i' => options.ignore_case = true,
                'm' => options.multi_line = true,
                's' => options.dot_all = true,
                'x' => options.extended = true,
                // About nginx's compiling and caching, or always so here.
                'j' | 'o' | 'u' | 'U' | 'd' | 'D' | 'J' => {}
                _ => {
                    let message = "must consist of the letters i, m, s, x, j, o, u";
                    return Err(invalid("options", message.to_owned()));
                }
            }
        }
        if config.regex.is_empty() {
            return Err(invalid("regex", "must not be empty".to_owned()));
        }
        let regex = pattern::compile_bytes(&config.regex, options)
            .map_err(|error| invalid("regex", error.to_string()))?;
        let replace = parts(&config.replace).ok_or_else(|| {
            let message = "may name captures ($1) only; write \\$ for a dollar sign";
            invalid("replace", message.to_owned())
        })?;
        Ok(Self {
            regex,
            replace,
            scope: config.scope,
        })
    }

    /// The body with its matches replaced; `None` where there is none.
    pub(super) fn apply(&self, body: &[u8]) -> Option<Vec<u8>> {
        let limit = match self.scope {
            Scope::Once => 1,
            Scope::Global => usize::MAX,
        };
        let mut changed = Vec::new();
        let mut kept = 0;
        for captures in self.regex.captures_iter(body).take(limit) {
            let whole = captures.get(0).expect("group 0 is the match itself");
            changed.extend_from_slice(&body[kept..whole.start()]);
            self.push_replacement(&captures, &mut changed);
            kept = whole.end();
        }
        if kept == 0 && changed.is_empty() {
            // Nothing matched, or an empty match became nothing.
            return None;
        }
        changed.extend_from_slice(&body[kept..]);
        Some(changed)
    }

    fn push_replacement(&self, captures: &Captures<'_>, out: &mut Vec<u8>) {
        for part in &self.replace {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(number) => {
                    let group = captures.get(*number);
                    out.extend_from_slice(group.map_or(&[][..], |group| group.as_bytes()));
                }
            }
        }
    }
}

/// The pieces of a replacement; `None` where it names something else than a capture.
fn parts(replace: &str) -> Option<Box<[Part]>> {
    let template = Template::parse(replace);
    let segments = template.segments().iter();
    segments
        .map(|segment| match segment {
            Segment::Literal(text) => Some(Part::Text(text.as_bytes().into())),
            Segment::Var {
                variable: Variable::Capture(number),
                ..
            } => Some(Part::Group(*number)),
            Segment::Var { .. } => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn filter(json: &Value) -> Result<Filter, BuildError> {
        let config = serde_json::from_value(json.clone()).expect("shape is right");
        Filter::build(0, &config)
    }

    #[test]
    fn matches_are_replaced_in_their_scope() {
        for (config, body, expected) in [
            (json!({"regex": "a", "replace": "b"}), "aaa", Some("baa")),
            (
                json!({"regex": "a", "replace": "b", "scope": "global"}),
                "aca",
                Some("bcb"),
            ),
            (
                json!({"regex": "a", "replace": "", "scope": "global"}),
                "aa",
                Some(""),
            ),
            (json!({"regex": "x", "replace": "b"}), "aaa", None),
            (
                json!({"regex": "(a)(b)?", "replace": "[$1${2}0\\$1]"}),
                "xac",
                Some("x[a0$1]c"),
            ),
            (json!({"regex": "A", "replace": "b"}), "a", None),
            (
                json!({"regex": "A", "replace": "b", "options": "ijo"}),
                "a",
                Some("b"),
            ),
            (
                json!({"regex": "^b", "replace": "c", "options": "m"}),
                "a\nb",
                Some("a\nc"),
            ),
            (
                json!({"regex": "a.b", "replace": "c", "options": "s"}),
                "a\nb",
                Some("c"),
            ),
            (json!({"regex": "^", "replace": "<"}), "a", Some("<a")),
        ] {
            let changed = filter(&config)
                .expect("filter is valid")
                .apply(body.as_bytes());
            assert_eq!(changed.as_deref(), expected.map(str::as_bytes), "{config}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass() {
        let filter = filter(&json!({"regex": "a", "replace": "b"})).expect("filter is valid");
        assert_eq!(
            filter.apply(b"\xff\x00a").as_deref(),
            Some(&b"\xff\x00b"[..])
        );
    }

    #[test]
    fn wrong_filters_name_their_field() {
        for (config, field) in [
            (json!({"regex": "(", "replace": ""}), "filters[0].regex"),
            (json!({"regex": "", "replace": ""}), "filters[0].regex"),
            (
                json!({"regex": "a", "replace": "$uri"}),
                "filters[0].replace",
            ),
            (
                json!({"regex": "a", "replace": "", "options": "q"}),
                "filters[0].options",
            ),
        ] {
            let error = filter(&config).err().expect("filter is refused");
            assert_eq!(error.field, field);
        }
    }
}
