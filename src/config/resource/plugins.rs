//! Plugin maps, and the objects that are little more than one: plugin_config, consumer_group,
//! global_rule.

use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use super::shape::{Head, Labels, Shared, fields, is_reference};
use crate::config::check::Check;
use crate::config::node::{At, Entry, Node, Tree};
use crate::sealed::Sealed;

/// `plugins`: plugin name → its settings, in file order. References unresolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginMap(Box<[(Box<str>, Settings)]>);

impl PluginMap {
    /// Names and settings in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Settings)> {
        self.0.iter().map(|(name, settings)| (&**name, settings))
    }

    /// The settings of one plugin.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Settings> {
        let (_, settings) = self.0.iter().find(|(plugin, _)| &**plugin == name)?;
        Some(settings)
    }

    /// How many plugins there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A plugin's settings: an object, kept as compact JSON text, since a tree of maps costs several
/// times as much and most settings are looked at once.
#[derive(Clone)]
pub struct Settings(Kept);

#[derive(Clone)]
enum Kept {
    Plain(Box<str>),
    /// Boxed, so that the others are no larger for it.
    Sealed(Box<Closed>),
}

#[derive(Clone)]
struct Closed {
    text: Sealed,
    /// Whether a string in it begins with `$`, so that it is opened for those who look for
    /// references.
    dollars: bool,
}

impl Settings {
    fn of(object: &Value) -> Self {
        Self(Kept::Plain(object.to_string().into_boxed_str()))
    }

    /// The settings of something that belongs to a consumer: sealed, unless every text and number
    /// in it is a reference.
    fn of_consumer(object: &Value) -> Self {
        if !holds_literals(object) {
            return Self::of(object);
        }
        let text = Zeroizing::new(object.to_string());
        Self(Kept::Sealed(Box::new(Closed {
            text: Sealed::new(text.as_bytes()),
            dollars: text.contains("\"$"),
        })))
    }

    /// Calls `with` with the settings as compact JSON. May hold literal secrets: never print it.
    pub fn with_text<T>(&self, with: impl FnOnce(&str) -> T) -> T {
        match &self.0 {
            Kept::Plain(text) => with(text),
            Kept::Sealed(closed) => {
                let opened = closed.text.open();
                with(opened.as_str().expect("it was sealed as text"))
            }
        }
    }

    /// The settings as a tree. May hold literal secrets.
    #[must_use]
    pub fn json(&self) -> Value {
        self.with_text(|text| serde_json::from_str(text).expect("it was written from JSON"))
    }

    /// Calls `each` with every string among the values that begins with `$` and may therefore be
    /// a reference. Costs one scan of the text where there is none.
    pub fn dollar_strings(&self, each: impl FnMut(&str)) {
        match &self.0 {
            Kept::Sealed(closed) if !closed.dollars => {}
            _ => self.with_text(|text| dollar_strings(text, each)),
        }
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.with_text(|text| other.with_text(|other| text == other))
    }
}

impl Eq for Settings {}

fn dollar_strings(json: &str, mut each: impl FnMut(&str)) {
    for (at, _) in json.match_indices("\"$") {
        // In compact JSON an opening quote follows `{`, `[`, `,` or `:`; inside a string a quote
        // follows its backslash.
        if json[..at].ends_with('\\') {
            continue;
        }
        let text = &json[at + 1..];
        let Some(end) = text.find(['"', '\\']) else {
            continue;
        };
        match &text[end..] {
            rest if rest.starts_with("\":") => {}
            rest if rest.starts_with('"') => each(&text[..end]),
            _ => {
                let mut texts = serde_json::Deserializer::from_str(&json[at..]).into_iter();
                if let Some(Ok(text)) = texts.next() {
                    let text: String = text;
                    each(&text);
                }
            }
        }
    }
}

/// Whether any text or number in it is more than a reference.
fn holds_literals(json: &Value) -> bool {
    match json {
        Value::Null | Value::Bool(_) => false,
        Value::Number(_) => true,
        Value::String(text) => !is_reference(text),
        Value::Array(items) => items.iter().any(holds_literals),
        Value::Object(members) => members.values().any(holds_literals),
    }
}

impl fmt::Debug for Settings {
    /// Settings may hold literal secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings(…)")
    }
}

/// A plugin_config, consumer_group or global_rule.
#[derive(Debug, Clone, Default)]
pub struct PluginSetConfig {
    /// The plugins it carries.
    pub plugins: PluginMap,
    /// Name shown to people.
    pub name: Option<String>,
    /// Free text.
    pub desc: Option<String>,
    /// Labels.
    pub labels: Labels,
}

/// Reads a `plugins` map. A plugin without settings (`key-auth:`) has an empty object.
pub(super) fn plugins(check: &mut Check, node: Node) -> PluginMap {
    read(check, node, Settings::of)
}

/// The same on a consumer or credential, whose literal credentials are kept sealed.
pub(super) fn sealed_plugins(check: &mut Check, node: Node) -> PluginMap {
    read(check, node, Settings::of_consumer)
}

fn read(check: &mut Check, node: Node, keep: fn(&Value) -> Settings) -> PluginMap {
    let entries = check.map(node).unwrap_or_default();
    let mut plugins = Vec::with_capacity(entries.len());
    for entry in entries {
        let settings = match entry.node.tree {
            Tree::Null => Some(Value::Object(serde_json::Map::new())),
            _ => check.within(&entry.key, |check| check.object(entry.node)),
        };
        if let Some(settings) = settings {
            plugins.push((entry.key, keep(&settings)));
        }
    }
    PluginMap(plugins.into())
}

pub(super) fn parse(
    check: &mut Check,
    entries: Vec<Entry>,
    at: At,
    shared: Shared,
) -> (Head, PluginSetConfig) {
    let (mut head, mut set) = (Head::default(), PluginSetConfig::default());
    let mut has_plugins = false;
    fields(check, entries, |check, key, mut node| {
        if head.take(check, shared, key, &mut node) {
            return true;
        }
        if key == "plugins" {
            set.plugins = plugins(check, node);
            has_plugins = true;
        }
        key == "plugins"
    });
    if !has_plugins {
        check.error(at, "missing-field", "property \"plugins\" is required");
    }
    if head.id.is_none() && !check.refused() {
        if shared == Shared::IdOnly {
            // Differs from APISIX: it drops a global rule without an id, and with it the protection.
            check.warn(
                at,
                "missing-field",
                "a global rule should have an id; it runs under its position",
            );
        } else {
            check.error(at, "missing-field", "property \"id\" is required");
        }
    }
    set.name = head.name.take();
    set.desc = head.desc.take();
    set.labels = std::mem::take(&mut head.labels);
    (head, set)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scan_finds_just_the_strings_that_begin_with_a_dollar() {
        let json = json!({
            "$key": "value", "a": "$one", "b": ["$two", "no $three", "say \"$four\""],
            "c": {"d": "$fi\"ve\\"}, "e": "$"
        });
        for settings in [Settings::of(&json), Settings::of_consumer(&json)] {
            let mut found = Vec::new();
            settings.dollar_strings(|text| found.push(text.to_owned()));
            assert_eq!(found, ["$one", "$two", "$fi\"ve\\", "$"]);
        }
    }

    #[test]
    fn what_a_consumer_holds_is_sealed_unless_it_is_a_reference() {
        for (json, sealed) in [
            (json!({"key": "literal"}), true),
            (json!({"key": 12_345_678}), true),
            (json!({"a": "$env://A", "b": {"c": ["$literal"]}}), true),
            (json!({"a": "$env://A", "b": {"c": [true, null]}}), false),
            (json!({}), false),
        ] {
            let settings = Settings::of_consumer(&json);
            let is_sealed = matches!(settings.0, Kept::Sealed(_));
            assert_eq!(is_sealed, sealed, "{json}");
            assert_eq!(settings.json(), json);
            assert!(settings == Settings::of(&json), "whatever they are kept in");
        }
        assert_eq!(size_of::<Settings>(), size_of::<Box<str>>());
    }
}
