//! Plugin maps, and the objects that are little more than one: plugin_config, consumer_group,
//! global_rule.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::Value;

use super::shape::{Head, Shared, fields};
use crate::config::check::Check;
use crate::config::node::{At, Entry, Node, Tree};

/// `plugins`: plugin name → its configuration object, in file order. References unresolved.
pub type PluginMap = IndexMap<String, Value>;

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
    pub labels: HashMap<String, String>,
}

/// Reads a `plugins` map. A plugin without settings (`key-auth:`) has an empty object.
pub(super) fn plugins(check: &mut Check, node: Node) -> PluginMap {
    let entries = check.map(node).unwrap_or_default();
    let mut plugins = PluginMap::with_capacity(entries.len());
    for entry in entries {
        let settings = match entry.node.tree {
            Tree::Null => Some(Value::Object(serde_json::Map::new())),
            _ => check.within(&entry.key, |check| check.object(entry.node)),
        };
        if let Some(settings) = settings {
            plugins.insert(entry.key.into_string(), settings);
        }
    }
    plugins
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
