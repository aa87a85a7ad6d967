//! Formats of log lines: nginx's templates, and JSON objects. Parsed once; a line is rendered
//! into the caller's buffer. One record is one line, whatever a client sent.

use std::io::Write;
use std::time::SystemTime;

use serde_json::Value;
use time::OffsetDateTime;

use super::escape::{Escape, json_inside};
use super::redact::Sensitivity;
use crate::expr::{VarSource, Variable};

/// A parsed format.
#[derive(Debug, Clone)]
pub struct LogFormat {
    segments: Vec<Segment>,
    escape: Escape,
}

/// A JSON format that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Neither a text nor an object.
    #[error("expected a text or an object")]
    NotAnObject,
    /// APISIX's bound (`spec/05` §3).
    #[error("expected at most 5 levels of nesting")]
    TooDeep,
}

#[derive(Debug, Clone)]
enum Segment {
    Literal(Box<str>),
    Variable(Variable, Sensitivity),
    TimeLocal,
    TimeIso8601,
    Milliseconds,
}

impl LogFormat {
    /// Reads a template of `$name` and `${name}`. A `$` that starts no name stands for itself;
    /// trailing line feeds (of a YAML block) are cut.
    #[must_use]
    pub fn parse(template: &str, escape: Escape) -> Self {
        let mut format = Self {
            segments: Vec::new(),
            escape,
        };
        format.push_template(template.trim_end_matches(['\n', '\r']), str::to_owned);
        format
    }

    /// Reads an object whose texts are templates; the line is that object as JSON, every rendered
    /// value a JSON string. What is absent is an empty string.
    ///
    /// # Errors
    /// The value is no object, or is nested too deep.
    pub fn object(fields: &Value) -> Result<Self, FormatError> {
        if !fields.is_object() {
            return Err(FormatError::NotAnObject);
        }
        let mut format = Self {
            segments: Vec::new(),
            escape: Escape::Json,
        };
        format.push_json(fields, 1)?;
        Ok(format)
    }

    /// Reads what `access_log_format` may be: a text, or (ours) an object.
    ///
    /// # Errors
    /// It is neither, or an object nested too deep.
    pub fn from_value(value: &Value, escape: Escape) -> Result<Self, FormatError> {
        match value {
            Value::Null => Ok(Self::parse(DEFAULT_FORMAT, escape)),
            Value::String(template) => Ok(Self::parse(template, escape)),
            other => Self::object(other),
        }
    }

    /// The variables it asks for, so that what only a log needs is kept only where one asks.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(variable, _) => Some(variable),
            _ => None,
        })
    }

    /// Appends the line, without a line feed. `names` are the route's redacted parameters.
    pub fn render(
        &self,
        vars: &dyn VarSource,
        names: &[Box<str>],
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Segment::TimeLocal => out.extend_from_slice(stamp.local.as_bytes()),
                Segment::TimeIso8601 => out.extend_from_slice(stamp.iso8601.as_bytes()),
                Segment::Milliseconds => stamp.write_milliseconds(out),
                Segment::Variable(variable, sensitivity) => match vars.var(variable) {
                    None => out.extend_from_slice(self.escape.absent()),
                    Some(value) => {
                        let value = sensitivity.redact(variable, value, names);
                        self.escape.write(&value, out);
                    }
                },
            }
        }
    }

    fn push_json(&mut self, value: &Value, depth: usize) -> Result<(), FormatError> {
        match value {
            Value::String(template) => {
                self.push_literal("\"");
                self.push_template(template, json_inside);
                self.push_literal("\"");
            }
            Value::Object(fields) => {
                if depth > MAX_DEPTH {
                    return Err(FormatError::TooDeep);
                }
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "{" } else { "," };
                    self.push_literal(&format!("{comma}\"{}\":", json_inside(name)));
                    self.push_json(value, depth + 1)?;
                }
                self.push_literal(if fields.is_empty() { "{}" } else { "}" });
            }
            other => self.push_literal(&other.to_string()),
        }
        Ok(())
    }

    fn push_template(&mut self, template: &str, literal: impl Fn(&str) -> String) {
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            let Some((name, behind)) = name_at(&rest[at + 1..]) else {
                self.push_literal(&literal(&rest[..=at]));
                rest = &rest[at + 1..];
                continue;
            };
            self.push_literal(&literal(&rest[..at]));
            self.segments.push(Segment::of(name));
            rest = behind;
        }
        self.push_literal(&literal(rest));
    }

    fn push_literal(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Segment::Literal(last)) = self.segments.last_mut() {
            *last = [last, text].concat().into();
        } else {
            self.segments.push(Segment::Literal(text.into()));
        }
    }
}

impl Segment {
    fn of(name: &str) -> Self {
        match name {
            "time_local" => Self::TimeLocal,
            "time_iso8601" => Self::TimeIso8601,
            "msec" => Self::Milliseconds,
            _ => {
                let variable = Variable::parse(name);
                let sensitivity = Sensitivity::of(&variable);
                Self::Variable(variable, sensitivity)
            }
        }
    }
}

/// The time of a line as text. Kept by whoever writes, since it changes once a second. UTC: a
/// process with several threads cannot ask for the local offset safely.
#[derive(Debug, Clone)]
pub struct Stamp {
    second: i64,
    millis: u16,
    local: String,
    iso8601: String,
}

impl Default for Stamp {
    fn default() -> Self {
        let mut stamp = Self {
            second: i64::MIN,
            millis: 0,
            local: String::new(),
            iso8601: String::new(),
        };
        stamp.set(SystemTime::UNIX_EPOCH);
        stamp
    }
}

impl Stamp {
    /// Moves it to `now`.
    pub fn set(&mut self, now: SystemTime) {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or_default();
        self.millis = u16::try_from(since.subsec_millis()).unwrap_or_default();
        if second == self.second {
            return;
        }
        self.second = second;
        let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.to_hms();
        let name = &month.to_string()[..3];
        let number = u8::from(month);
        self.local = format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000");
        self.iso8601 =
            format!("{year}-{number:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00");
    }

    fn write_milliseconds(&self, out: &mut Vec<u8>) {
        // Writing into a vector cannot fail.
        let _ = write!(out, "{}.{:03}", self.second, self.millis);
    }
}

/// The name behind a `$` and what follows it.
fn name_at(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        let (name, behind) = braced.split_once('}')?;
        let valid = !name.is_empty() && name.bytes().all(is_name);
        return valid.then_some((name, behind));
    }
    let end = text.bytes().position(|c| !is_name(c));
    let end = end.unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// APISIX 3.18: `access_log_format` of `config.yaml` (`spec/05` §2).
pub const DEFAULT_FORMAT: &str = "$remote_addr - $remote_user [$time_local] $http_host \
    \"$request\" $status $body_bytes_sent $request_time \"$http_referer\" \"$http_user_agent\" \
    $upstream_addr $upstream_status $upstream_response_time \
    \"$upstream_scheme://$upstream_host$upstream_uri\" \"$apisix_request_id\"";

const MAX_DEPTH: usize = 5;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::HashMap;
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    struct Vars(HashMap<Variable, &'static str>);

    impl Vars {
        fn of(pairs: &[(&str, &'static str)]) -> Self {
            let parse = |(name, value): &(&str, &'static str)| (Variable::parse(name), *value);
            Self(pairs.iter().map(parse).collect())
        }
    }

    impl VarSource for Vars {
        fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            self.0.get(variable).copied().map(Cow::Borrowed)
        }
    }

    fn line(format: &LogFormat, vars: &Vars) -> String {
        let mut stamp = Stamp::default();
        stamp.set(SystemTime::UNIX_EPOCH + Duration::from_millis(1_785_586_496_007));
        let mut out = Vec::new();
        format.render(vars, &["sig".into()], &stamp, &mut out);
        String::from_utf8(out).expect("lines are text")
    }

    #[test]
    fn templates_are_rendered_as_nginx_does() {
        let vars = Vars::of(&[
            ("status", "200"),
            ("request", "GET /a?sig=s3cret HTTP/1.1"),
            ("http_user_agent", "a\"b\\c\nd\u{1}\u{7f}é"),
        ]);
        for (template, escape, expected) in [
            ("$status", Escape::Default, "200"),
            ("${status}ms", Escape::Default, "200ms"),
            ("a $ b $", Escape::Default, "a $ b $"),
            ("${ $status", Escape::Default, "${ 200"),
            ("$none|", Escape::Default, "-|"),
            ("$none|", Escape::Json, "|"),
            (
                "\"$request\"\n",
                Escape::Default,
                "\"GET /a?sig=*** HTTP/1.1\"",
            ),
            (
                "$http_user_agent",
                Escape::Default,
                "a\\x22b\\x5Cc\\x0Ad\\x01\\x7F\\xC3\\xA9",
            ),
            (
                "$http_user_agent",
                Escape::Json,
                "a\\\"b\\\\c\\nd\\u0001\u{7f}é",
            ),
            (
                "$http_user_agent",
                Escape::None,
                "a\"b\\c\\x0Ad\u{1}\u{7f}é",
            ),
            ("$time_local", Escape::Default, "01/Aug/2026:12:14:56 +0000"),
            (
                "$time_iso8601",
                Escape::Default,
                "2026-08-01T12:14:56+00:00",
            ),
            ("$msec", Escape::Default, "1785586496.007"),
        ] {
            let format = LogFormat::parse(template, escape);
            assert_eq!(line(&format, &vars), expected, "{template}");
        }
    }

    #[test]
    fn no_client_input_can_forge_a_line_or_a_field() {
        let nasty = "x\r\n1.2.3.4 - - \"GET / HTTP/1.1\" 200\u{0}\u{1b}[2J\\";
        let vars = Vars::of(&[("http_user_agent", nasty)]);
        for escape in [Escape::Default, Escape::Json, Escape::None] {
            let text = line(&LogFormat::parse("\"$http_user_agent\"", escape), &vars);
            assert!(!text.contains(['\n', '\r']), "{text:?}");
            if escape != Escape::None {
                let inside = &text[1..text.len() - 1];
                assert!(!inside.replace("\\\"", "").contains('"'), "{text:?}");
                assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
            }
        }
    }

    #[test]
    fn an_object_format_is_always_valid_json() {
        let nasty = "q\"\\\n\t\u{8}\u{c}\u{0}\u{1f}\u{7f}é\u{2028}";
        let vars = Vars::of(&[("uri", nasty), ("status", "200"), ("http_cookie", "s3cret")]);
        let format = LogFormat::object(&json!({
            "k\"ey": "$uri",
            "both": "a\"$status/$uri",
            "nested": {"cookie": "$http_cookie", "none": "$none"},
            "number": 7,
            "list": [true, null],
            "empty": {},
        }))
        .expect("a format");
        let text = line(&format, &vars);
        assert!(!text.contains('\n'));
        let parsed: Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(
            parsed,
            json!({
                "k\"ey": nasty,
                "both": format!("a\"200/{nasty}"),
                "nested": {"cookie": "***", "none": ""},
                "number": 7,
                "list": [true, null],
                "empty": {},
            })
        );
    }

    #[test]
    fn what_is_no_format_is_refused() {
        let refused = |value: Value| LogFormat::from_value(&value, Escape::Default).err();
        assert_eq!(refused(json!([])), Some(FormatError::NotAnObject));
        let deep = json!({"1": {"2": {"3": {"4": {"5": {"6": "x"}}}}}});
        assert_eq!(refused(deep), Some(FormatError::TooDeep));
        assert_eq!(refused(Value::Null), None, "the default format stands in");
    }

    #[test]
    fn the_default_format_asks_for_apisix_variables() {
        let vars = Vars::of(&[("remote_addr", "127.0.0.1"), ("upstream_scheme", "http")]);
        let text = line(&LogFormat::parse(DEFAULT_FORMAT, Escape::Default), &vars);
        assert_eq!(
            text,
            "127.0.0.1 - - [01/Aug/2026:12:14:56 +0000] - \"-\" - - - \"-\" \"-\" - - - \
             \"http://--\" \"-\""
        );
    }
}
