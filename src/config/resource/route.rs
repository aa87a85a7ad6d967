//! Routes and services.

use std::collections::HashMap;

use serde_json::Value;

use super::plugins::PluginMap;
use super::upstream::{TimeoutConfig, UpstreamConfig};

/// A route (`spec/00` §2). `host`/`uri`/`remote_addr` singular forms are folded into the lists
/// by the parser; ids are strings.
#[derive(Debug, Clone, Default)]
pub struct RouteConfig {
    /// Path patterns: exact, or prefix ending in `*`, or with parameters.
    pub uris: Vec<String>,
    /// Decides between routes with the same path; higher first.
    pub priority: i64,
    /// Accepted methods; empty accepts all.
    pub methods: Vec<String>,
    /// Host patterns, lower-cased; empty accepts any host.
    pub hosts: Vec<String>,
    /// Accepted client addresses (IP or CIDR); empty accepts all.
    pub remote_addrs: Vec<String>,
    /// Conditions over request variables.
    pub vars: Option<Value>,
    /// Plugins on the route itself.
    pub plugins: PluginMap,
    /// Shared plugin set.
    pub plugin_config_id: Option<String>,
    /// Inline upstream.
    pub upstream: Option<UpstreamConfig>,
    /// Upstream by id; wins over the inline one.
    pub upstream_id: Option<String>,
    /// Service it belongs to.
    pub service_id: Option<String>,
    /// Overrides the upstream's timeouts.
    pub timeout: Option<TimeoutConfig>,
    /// Whether `Upgrade: websocket` is passed on; `None` takes the service's word.
    pub enable_websocket: Option<bool>,
    /// False keeps the route out of the table (`status: 0`).
    pub enabled: bool,
    /// Name shown to people and, on request, in metrics.
    pub name: Option<String>,
    /// Labels.
    pub labels: HashMap<String, String>,
}

/// A service: what several routes share.
#[derive(Debug, Clone, Default)]
pub struct ServiceConfig {
    /// Name shown to people and, on request, in metrics.
    pub name: Option<String>,
    /// Plugins every route of the service gets unless it has its own of that name.
    pub plugins: PluginMap,
    /// Inline upstream.
    pub upstream: Option<UpstreamConfig>,
    /// Upstream by id.
    pub upstream_id: Option<String>,
    /// Hosts for routes that name none.
    pub hosts: Vec<String>,
    /// Whether routes pass WebSocket upgrades on unless they say otherwise.
    pub enable_websocket: Option<bool>,
    /// Labels.
    pub labels: HashMap<String, String>,
}
