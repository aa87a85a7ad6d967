//! `acl`: lets requests through by labels of their consumer, or by what an auth plugin knows of a
//! user who is no consumer (`spec/02` §12).

mod path;
mod values;

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::rejection;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Hooks, Step};
use crate::plugins::respond::Response;
use path::LabelPath;
use values::Parser;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "acl",
    priority: 2410,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct AclConfig {
    /// Label → values; one of them lets in, and without one nobody gets in.
    allow_labels: Option<BTreeMap<String, Vec<String>>>,
    /// Label → values; one of them refuses, whatever is allowed.
    deny_labels: Option<BTreeMap<String, Vec<String>>>,
    /// Where the label of an external user stands: a field, or a JSONPath.
    #[serde(default = "default_field")]
    external_user_label_field: String,
    /// Name of that label in the two maps; absent: the field as it is written.
    external_user_label_field_key: Option<String>,
    /// How several values stand in it; absent: told by its looks.
    external_user_label_field_parser: Option<ParserName>,
    /// What stands between values, a regular expression; for `segmented_text`.
    external_user_label_field_separator: Option<String>,
    /// Status of the refusal.
    #[serde(default = "super::default_rejected_code")]
    rejected_code: u16,
    /// Text of the refusal.
    rejected_msg: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum ParserName {
    SegmentedText,
    Json,
    Table,
}

fn default_field() -> String {
    "groups".to_owned()
}

struct Acl {
    deny: Option<Rules>,
    allow: Option<Rules>,
    field: LabelPath,
    key: Box<str>,
    parser: Parser,
    missing: Response,
    refusal: Response,
}

/// Labels and the values of each that count.
struct Rules(Box<[(Box<str>, Names)]>);

type Names = HashSet<Box<str>, ahash::RandomState>;

fn build(config: AclConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    if config.allow_labels.is_none() && config.deny_labels.is_none() {
        let message = "at least one of allow_labels and deny_labels is required";
        return Err(BuildError::invalid("", message));
    }
    let field = LabelPath::parse(&config.external_user_label_field)
        .map_err(|error| BuildError::invalid("external_user_label_field", error.to_string()))?;
    let key = match config.external_user_label_field_key {
        Some(key) if key.is_empty() => {
            let field = "external_user_label_field_key";
            return Err(BuildError::invalid(field, "must not be empty"));
        }
        key => key.unwrap_or(config.external_user_label_field),
    };
    let message = config.rejected_msg.as_deref();
    let plugin = Acl {
        deny: rules("deny_labels", config.deny_labels)?,
        allow: rules("allow_labels", config.allow_labels)?,
        field,
        key: key.into(),
        parser: parser(
            config.external_user_label_field_parser,
            config.external_user_label_field_separator.as_deref(),
        )?,
        missing: Response::message(401, "Missing authentication."),
        refusal: rejection(
            config.rejected_code,
            message.unwrap_or("The consumer is forbidden."),
        )?,
    };
    Ok(Hooks::of(plugin).access().done())
}

fn rules(
    field: &str,
    labels: Option<BTreeMap<String, Vec<String>>>,
) -> Result<Option<Rules>, BuildError> {
    let Some(labels) = labels else {
        return Ok(None);
    };
    if labels.is_empty() {
        return Err(BuildError::invalid(field, "must not be empty"));
    }
    let rule = |(label, values): (String, Vec<String>)| {
        if values.is_empty() {
            let field = format!("{field}.{label}");
            return Err(BuildError::invalid(field, "must not be empty"));
        }
        let values = values.into_iter().map(Into::into).collect();
        Ok((label.into(), values))
    };
    let rules: Result<_, _> = labels.into_iter().map(rule).collect();
    rules.map(|rules| Some(Rules(rules)))
}

fn parser(name: Option<ParserName>, separator: Option<&str>) -> Result<Parser, BuildError> {
    let field = "external_user_label_field_separator";
    if separator == Some("") {
        return Err(BuildError::invalid(field, "must not be empty"));
    }
    match (name, separator) {
        (None, _) => Ok(Parser::ByLooks),
        (Some(ParserName::Json), _) => Ok(Parser::Json),
        (Some(ParserName::Table), _) => Ok(Parser::Table),
        (Some(ParserName::SegmentedText), Some(separator)) => Parser::segments(separator)
            .map_err(|error| BuildError::invalid(field, error.to_string())),
        (Some(ParserName::SegmentedText), None) => {
            let message = "is required by the parser segmented_text";
            Err(BuildError::invalid(field, message))
        }
    }
}

impl Access for Acl {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let lets_in = if let Some(attached) = &req.state.consumer {
            let labels = attached.consumer.labels.as_deref();
            self.lets_in(|label, wanted| {
                let text = labels.and_then(|labels| labels.get(label));
                text.map_or(Some(false), |text| values::text_holds(text, wanted))
            })
        } else if let Some(user) = req.external_user() {
            let found = self.field.first(user);
            self.lets_in(|label, wanted| match found {
                Some(value) if *label == *self.key => self.parser.holds(value, wanted),
                _ => Some(false),
            })
        } else {
            return self.missing.clone().into();
        };
        if lets_in {
            Step::CONTINUE
        } else {
            self.refusal.clone().into()
        }
    }
}

impl Acl {
    /// Decides by a test whether a label has one of these values, which is `None` where the label
    /// cannot be read: it may hold what is denied, and nothing says that it holds what is allowed.
    fn lets_in(&self, has: impl Fn(&str, &Names) -> Option<bool>) -> bool {
        let denied = |rules: &Rules| {
            let mut rules = rules.0.iter();
            rules.any(|(label, wanted)| has(label, wanted) != Some(false))
        };
        let allowed = |rules: &Rules| {
            let mut rules = rules.0.iter();
            rules.any(|(label, wanted)| has(label, wanted) == Some(true))
        };
        !self.deny.as_ref().is_some_and(denied) && self.allow.as_ref().is_none_or(allowed)
    }
}

#[cfg(test)]
mod tests;
