//! The labels of the request metrics, in APISIX's order, as text.

use std::fmt::Write;

use serde_json::Value;

use super::config::FamilyConfig;
use super::http::Exchange;
use super::page::push_label;
use crate::expr::Variable;

/// Labels that a snapshot's `plugin_metadata` empties, per family (`spec/05` §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Disabled([u16; 3]);

impl Disabled {
    /// Reads `disabled_labels` of the plugin's metadata. Unknown metrics and labels are passed
    /// over; `code` and `type` cannot be disabled.
    #[must_use]
    pub fn parse(disabled_labels: &Value) -> Self {
        let mut masks = [0; 3];
        for (mask, (family, names)) in masks.iter_mut().zip(FAMILIES) {
            let list = disabled_labels.get(family).and_then(Value::as_array);
            for label in list.into_iter().flatten().filter_map(Value::as_str) {
                if let Some(index) = names.iter().position(|name| *name == label)
                    && label != "code"
                {
                    *mask |= 1 << index;
                }
            }
        }
        Self(masks)
    }
}

/// Extra labels of each family.
pub(super) struct Labels {
    extra: [Vec<(Box<str>, Variable)>; 3],
}

impl Labels {
    pub(super) fn new(
        status: &FamilyConfig,
        latency: &FamilyConfig,
        bandwidth: &FamilyConfig,
    ) -> Self {
        Self {
            extra: [status, latency, bandwidth].map(extra),
        }
    }

    pub(super) fn has_extra(&self) -> bool {
        self.extra.iter().any(|extra| !extra.is_empty())
    }

    /// Label texts of status, latency and bandwidth. With `overflow` the labels that clients or
    /// the surroundings choose all read the same.
    pub(super) fn render(&self, exchange: &Exchange<'_>, overflow: bool) -> [String; 3] {
        let mut texts = [const { String::new() }; 3];
        for (family, text) in texts.iter_mut().enumerate() {
            let (_, names) = FAMILIES[family];
            for (index, name) in names.iter().enumerate() {
                let disabled = exchange.disabled.0[family] & (1 << index) != 0;
                if disabled {
                    push_label(text, name, "");
                } else {
                    push(text, name, exchange, overflow);
                }
            }
            for (name, variable) in &self.extra[family] {
                let value = exchange.vars.and_then(|vars| vars.var(variable));
                let value = if overflow {
                    OVERFLOW
                } else {
                    value.as_deref().unwrap_or_default()
                };
                push_label(text, name, value);
            }
        }
        texts
    }
}

fn push(text: &mut String, name: &str, exchange: &Exchange<'_>, overflow: bool) {
    let value = match name {
        "code" => {
            let mut digits = itoa::Buffer::new();
            return push_label(text, name, digits.format(exchange.code));
        }
        "route" => exchange.route.map(AsRef::as_ref),
        "matched_uri" => exchange.matched_uri.map(AsRef::as_ref),
        "matched_host" => exchange.matched_host.map(AsRef::as_ref),
        "service" => exchange.service.map(AsRef::as_ref),
        "consumer" | "node" if overflow => Some(OVERFLOW),
        "consumer" => exchange.consumer.map(AsRef::as_ref),
        "node" => {
            let mut address = String::new();
            if let Some(node) = exchange.node {
                // Writing into a string cannot fail.
                let _ = write!(address, "{node}");
            }
            return push_label(text, name, &address);
        }
        "request_type" => Some("traditional_http"),
        "response_source" => Some(exchange.response_source),
        _ => None,
    };
    push_label(text, name, value.unwrap_or_default());
}

fn extra(config: &FamilyConfig) -> Vec<(Box<str>, Variable)> {
    let pairs = config.extra_labels.iter().flatten();
    let parse = |(name, variable): (&String, &String)| {
        let variable = variable.strip_prefix('$').unwrap_or(variable);
        (name.as_str().into(), Variable::parse(variable))
    };
    pairs.map(parse).collect()
}

const OVERFLOW: &str = "overflow";

const STATUS: &[&str] = &[
    "code",
    "route",
    "matched_uri",
    "matched_host",
    "service",
    "consumer",
    "node",
    "request_type",
    "request_llm_model",
    "llm_model",
    "response_source",
];

/// Behind `type`, which is written with each sample.
const TRAFFIC: &[&str] = &[
    "route",
    "service",
    "consumer",
    "node",
    "request_type",
    "request_llm_model",
    "llm_model",
];

const FAMILIES: [(&str, &[&str]); 3] = [
    ("http_status", STATUS),
    ("http_latency", TRAFFIC),
    ("bandwidth", TRAFFIC),
];
