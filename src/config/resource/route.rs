//! Routes and services.

use serde_json::Value;

use super::plugins::{PluginMap, plugins};
use super::shape::{self, Head, Labels, Shared, fields, unique};
use super::upstream::{self, TimeoutConfig, UpstreamConfig};
use crate::config::check::Check;
use crate::config::node::{At, Entry, Node, Tree};

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
    /// Free text.
    pub desc: Option<String>,
    /// Labels.
    pub labels: Labels,
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
    /// Free text.
    pub desc: Option<String>,
    /// Labels.
    pub labels: Labels,
}

pub(super) fn parse(check: &mut Check, entries: Vec<Entry>, at: At) -> (Head, RouteConfig) {
    let (mut head, mut route) = (
        Head::default(),
        RouteConfig {
            enabled: true,
            ..Default::default()
        },
    );
    let mut given = Given::default();
    fields(check, entries, |check, key, mut node| {
        head.take(check, Shared::All, key, &mut node)
            || field(&mut route, &mut given, check, key, node)
    });
    for (one, many) in [
        ("uri", "uris"),
        ("host", "hosts"),
        ("remote_addr", "remote_addrs"),
    ] {
        if given.has(one) && given.has(many) {
            check.error(
                at,
                "conflict",
                format!("{one} and {many} exclude each other"),
            );
        }
    }
    if !given.has("uri") && !given.has("uris") {
        check.error(at, "missing-field", "expected uri or uris");
    }
    if !["plugins", "upstream", "upstream_id", "service_id", "script"]
        .iter()
        .any(|key| given.has(key))
    {
        let message = "expected at least one of plugins, upstream, upstream_id, service_id";
        check.error(at, "missing-field", message);
    }
    route.name = head.name.take();
    route.desc = head.desc.take();
    route.labels = std::mem::take(&mut head.labels);
    (head, route)
}

/// Which fields were written, readable or not.
#[derive(Default)]
struct Given(Vec<&'static str>);

impl Given {
    fn has(&self, key: &str) -> bool {
        self.0.contains(&key)
    }
}

fn field(
    route: &mut RouteConfig,
    given: &mut Given,
    check: &mut Check,
    key: &str,
    node: Node,
) -> bool {
    let Some(name) = FIELDS.iter().find(|name| **name == key) else {
        return false;
    };
    given.0.push(name);
    match key {
        "uri" => route.uris.extend(check.text_of(node, 1..=4096)),
        "uris" => route.uris.extend(unique(check, node, 1, |check, node| {
            check.text_of(node, 1..=4096)
        })),
        // One that cannot be read refuses ahead of whatever it might have stood before.
        "priority" => {
            route.priority = check.int(&node, i64::MIN..=i64::MAX).unwrap_or(i64::MAX);
        }
        "methods" => {
            route.methods = unique(check, node, 0, |check, node| check.word(node, METHODS))
        }
        "host" => route
            .hosts
            .extend(shape::one_or_many(check, node, shape::host)),
        "hosts" => route.hosts.extend(unique(check, node, 1, shape::host)),
        "remote_addr" => route
            .remote_addrs
            .extend(shape::one_or_many(check, node, shape::ip)),
        "remote_addrs" => route.remote_addrs.extend(unique(check, node, 1, shape::ip)),
        "vars" => {
            route.vars = match node.tree {
                Tree::List(_) => Some(node.into()),
                _ => check.wrong(&node, "a list of conditions"),
            }
        }
        "plugins" => route.plugins = plugins(check, node),
        "plugin_config_id" => route.plugin_config_id = shape::id(check, node),
        "upstream" => route.upstream = upstream::parse_inline(check, node),
        "upstream_id" => route.upstream_id = shape::id(check, node),
        "service_id" => route.service_id = shape::id(check, node),
        "timeout" => route.timeout = shape::timeout(check, node),
        "enable_websocket" => route.enable_websocket = check.boolean(&node),
        "status" => set(
            &mut route.enabled,
            check.int(&node, 0..=1).map(|status| status == 1),
        ),
        "filter_func" => lua(
            check,
            node.at,
            "filter_func",
            "; vars can express most conditions",
        ),
        _ => lua(check, node.at, key, "; use plugins"),
    }
    true
}

fn lua(check: &mut Check, at: At, field: &str, instead: &str) {
    check.error(
        at,
        "unsupported",
        format!("{field} is not supported, since it runs Lua{instead}"),
    );
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

pub(super) fn parse_service(check: &mut Check, entries: Vec<Entry>) -> (Head, ServiceConfig) {
    let (mut head, mut service) = (Head::default(), ServiceConfig::default());
    fields(check, entries, |check, key, mut node| {
        if head.take(check, Shared::All, key, &mut node) {
            return true;
        }
        match key {
            "plugins" => service.plugins = plugins(check, node),
            "upstream" => service.upstream = upstream::parse_inline(check, node),
            "upstream_id" => service.upstream_id = shape::id(check, node),
            "hosts" => service.hosts = unique(check, node, 1, shape::host),
            "enable_websocket" => service.enable_websocket = check.boolean(&node),
            "script" => lua(check, node.at, key, "; use plugins"),
            _ => return false,
        }
        true
    });
    service.name = head.name.take();
    service.desc = head.desc.take();
    service.labels = std::mem::take(&mut head.labels);
    (head, service)
}

const METHODS: &[&str] = &[
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE",
];

const FIELDS: &[&str] = &[
    "uri",
    "uris",
    "priority",
    "methods",
    "host",
    "hosts",
    "remote_addr",
    "remote_addrs",
    "vars",
    "plugins",
    "plugin_config_id",
    "upstream",
    "upstream_id",
    "service_id",
    "timeout",
    "enable_websocket",
    "status",
    "filter_func",
    "script",
    "script_id",
];
