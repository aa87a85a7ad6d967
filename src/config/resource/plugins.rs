//! Plugin maps, and the objects that are little more than one: plugin_config, consumer_group,
//! global_rule.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::Value;

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
