//! `plugin_attr:` of `config.yaml`: static settings of plugins, kept as JSON for them to read.

use serde_json::{Map, Value, json};

use super::entries;
use crate::config::check::Check;
use crate::config::node::Node;

/// Settings by plugin name.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginAttr(Map<String, Value>);

impl Default for PluginAttr {
    fn default() -> Self {
        let mut attr = Map::new();
        let prometheus = json!({
            "enable_export_server": true,
            "export_uri": "/apisix/prometheus/metrics",
            "export_addr": {"ip": "127.0.0.1", "port": 9091},
            "metric_prefix": "apisix_",
            "refresh_interval": 15,
        });
        attr.insert("prometheus".into(), prometheus);
        Self(attr)
    }
}

impl PluginAttr {
    /// All settings, by plugin.
    #[must_use]
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The plugin's settings, an object; `None` where it has none.
    #[must_use]
    pub fn find(&self, plugin: &str) -> Option<&Value> {
        self.0.get(plugin)
    }

    /// Replaces the plugin's settings.
    pub fn put(&mut self, plugin: &str, settings: Value) {
        self.0.insert(plugin.to_owned(), settings);
    }

    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, plugin, node| {
            let at = node.at;
            let Some(settings) = check.object(node) else {
                return;
            };
            match self.0.get_mut(plugin) {
                Some(default) => {
                    if let Err(message) = merge(default, settings, &format!("plugin_attr.{plugin}"))
                    {
                        check.error(at, "merge", message);
                    }
                }
                None => {
                    self.0.insert(plugin.to_owned(), settings);
                }
            }
        });
    }
}

/// Merges maps deeply; lists and scalars replace. A change of type is refused.
fn merge(base: &mut Value, over: Value, path: &str) -> Result<(), String> {
    match (base, over) {
        (_, Value::Null) => Ok(()),
        (Value::Object(base), Value::Object(over)) => {
            over.into_iter()
                .try_for_each(|(key, value)| match base.get_mut(&key) {
                    Some(old) => merge(old, value, &format!("{path}.{key}")),
                    None => {
                        base.insert(key, value);
                        Ok(())
                    }
                })
        }
        (base, over) if kind(base) == kind(&over) => {
            *base = over;
            Ok(())
        }
        (base, over) => {
            let (expected, found) = (kind(base), kind(&over));
            Err(format!(
                "failed to merge, path[{path}] expect: {expected}, but got: {found}"
            ))
        }
    }
}

/// Lua's names of types, as in APISIX's message.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) | Value::Object(_) => "table",
    }
}
