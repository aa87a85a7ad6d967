//! `claviger:` of `config.yaml`: what is ours. APISIX ignores it; unknown keys here are findings.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::declared::{self, DeclaredManager};
use super::nginx::{LEVELS, threads};
use super::proxy_protocol::ProxyProtocolExtras;
use super::tls::TlsExtras;
use super::units::{duration, size};
use super::{entries, net, set, strings};
use crate::config::check::Check;
use crate::config::node::{At, Node};
use crate::config::resource::is_reference;

/// `claviger:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Claviger {
    /// Where the process id is written. Default `logs/claviger.pid`.
    pub pid_file: PathBuf,
    /// Resource file or folder; `None` is `apisix.yaml` (or `.json`) beside `config.yaml`.
    pub resources: Option<PathBuf>,
    /// Socket over which listeners go to a new process. Default `logs/claviger-upgrade.sock`.
    pub upgrade_sock: PathBuf,
    /// Traffic threads; `None` takes `nginx_config.worker_processes`.
    pub threads: Option<usize>,
    /// The resource files together may be no larger, in bytes. Default 64 MiB.
    pub max_resource_bytes: u64,
    /// Whether the process may be dumped or traced by its own user. Default false.
    pub allow_core_dump: bool,
    /// Whether clients that ask for an unknown name are served as `apisix.ssl.fallback_sni` too.
    /// Default false: they get an alert.
    pub fallback_for_unknown: bool,
    /// Secrets.
    pub secrets: SecretSettings,
    /// TLS.
    pub tls: TlsExtras,
    /// PROXY protocol.
    pub proxy_protocol: ProxyProtocolExtras,
    /// Bounds on what clients can grow.
    pub limits: Limits,
    /// Logs.
    pub log: LogSettings,
    /// The audit log.
    pub audit: AuditSettings,
    /// Addresses that fail to authenticate too often. `None` (the default) refuses none.
    pub throttle: Option<ThrottleConfig>,
}

impl Default for Claviger {
    fn default() -> Self {
        Self {
            pid_file: "logs/claviger.pid".into(),
            resources: None,
            upgrade_sock: "logs/claviger-upgrade.sock".into(),
            threads: None,
            max_resource_bytes: 64 << 20,
            allow_core_dump: false,
            fallback_for_unknown: false,
            secrets: SecretSettings::default(),
            tls: TlsExtras::default(),
            proxy_protocol: ProxyProtocolExtras::default(),
            limits: Limits::default(),
            log: LogSettings::default(),
            audit: AuditSettings::default(),
            throttle: None,
        }
    }
}

impl Claviger {
    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "pid_file" => set(&mut self.pid_file, check.text(node).map(PathBuf::from)),
            "resources" => self.resources = check.text(node).map(PathBuf::from),
            "upgrade_sock" => set(&mut self.upgrade_sock, check.text(node).map(PathBuf::from)),
            "threads" => set(&mut self.threads, threads(check, node)),
            "max_resource_bytes" => set(&mut self.max_resource_bytes, size(check, &node)),
            "fallback_for_unknown" => {
                set(&mut self.fallback_for_unknown, check.boolean(&node));
            }
            "allow_core_dump" => set(&mut self.allow_core_dump, check.boolean(&node)),
            "secrets" => self.secrets.decode(check, node),
            "tls" => self.tls.decode(check, node),
            "proxy_protocol" => self.proxy_protocol.decode(check, node),
            "limits" => self.limits.decode(check, node),
            "log" => self.log.decode(check, node),
            "audit" => self.audit.decode(check, node),
            "auth" => entries(check, node, |check, key, node| match key {
                "throttle" => self.throttle = Some(ThrottleConfig::decode(check, node)),
                _ => unknown(check, node.at),
            }),
            _ => unknown(check, node.at),
        });
    }
}

/// `claviger.secrets`. A manager's own fields win.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretSettings {
    /// How long a load waits for values before it publishes with the missing ones refusing.
    /// Default 5 s; zero does not wait.
    pub load_wait: Duration,
    /// Calls in flight per manager. Default 16.
    pub concurrency: usize,
    /// How long a value is served while its manager does not answer. Default 24 h.
    pub max_stale: Duration,
    /// What readiness asks for. Default [`ReadyWhen::Resolved`].
    pub ready: ReadyWhen,
    /// Managers that settings of `config.yaml` and all resources may refer to.
    pub managers: Vec<DeclaredManager>,
}

impl Default for SecretSettings {
    fn default() -> Self {
        let (load_wait, max_stale) = (Duration::from_secs(5), Duration::from_secs(24 * 3600));
        Self {
            load_wait,
            concurrency: 16,
            max_stale,
            ready: ReadyWhen::default(),
            managers: Vec::new(),
        }
    }
}

impl SecretSettings {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "load_wait" => set(&mut self.load_wait, duration(check, &node)),
            "concurrency" => set(&mut self.concurrency, check.small(&node, 1..=1024)),
            "max_stale" => set(&mut self.max_stale, duration(check, &node)),
            "ready" => set(&mut self.ready, ready_when(check, node)),
            "managers" => set(&mut self.managers, declared::managers(check, node)),
            _ => unknown(check, node.at),
        });
    }
}

/// `claviger.secrets.ready`: what references without value mean to `/status/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadyWhen {
    /// `resolved`: not ready while a reference that is in use has no value.
    #[default]
    Resolved,
    /// `started`: not ready before each had a value once; then a warning beside a 200, so that one
    /// mistaken reference does not take every gateway out of service at once.
    Started,
}

fn ready_when(check: &mut Check, node: Node) -> Option<ReadyWhen> {
    match check.word(node, &["resolved", "started"])?.as_str() {
        "resolved" => Some(ReadyWhen::Resolved),
        _ => Some(ReadyWhen::Started),
    }
}

/// `claviger.limits`. Beyond them a client is refused, never queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers together, in bytes (431 beyond). Default 32 KiB.
    pub header_bytes: usize,
    /// Number of headers (431 beyond). Default 100.
    pub header_count: usize,
    /// Request target, in bytes (414 beyond). Default 8 KiB.
    pub uri_bytes: usize,
    /// Client connections of the process. Default 65536; 0 is no limit.
    pub connections: usize,
    /// Requests per client connection. Default 10000; 0 is no limit.
    pub keepalive_requests: u32,
    /// Request bodies held in memory for plugins, all together, in bytes (503 beyond). Default
    /// 1 GiB; 0 is no limit.
    pub held_body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            header_count: 100,
            uri_bytes: 8 << 10,
            connections: 65536,
            keepalive_requests: 10_000,
            held_body_bytes: 1 << 30,
        }
    }
}

impl Limits {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "header_bytes" => set(&mut self.header_bytes, bytes(check, &node)),
            "header_count" => set(&mut self.header_count, check.small(&node, 1..=65535)),
            "uri_bytes" => set(&mut self.uri_bytes, bytes(check, &node)),
            "connections" => set(&mut self.connections, check.small(&node, 0..=i64::MAX)),
            "keepalive_requests" => {
                set(
                    &mut self.keepalive_requests,
                    check.small(&node, 0..=i64::from(u32::MAX)),
                );
            }
            "held_body_bytes" => set(&mut self.held_body_bytes, size(check, &node)),
            _ => unknown(check, node.at),
        });
    }
}

/// `claviger.log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// One JSON object per line in the error log. Default false.
    pub json: bool,
    /// One JSON object per line in the access log, instead of its format. Default false.
    pub access_json: bool,
    /// Level; `None` takes `nginx_config.error_log_level`.
    pub level: Option<String>,
    /// Query arguments, headers and cookies hidden in the access log besides those of auth plugins.
    pub redact_args: Vec<String>,
}

impl LogSettings {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "json" => set(&mut self.json, check.boolean(&node)),
            "access_json" => set(&mut self.access_json, check.boolean(&node)),
            "level" => self.level = check.word(node, LEVELS),
            "redact_args" => set(&mut self.redact_args, strings(check, node)),
            _ => unknown(check, node.at),
        });
    }
}

/// `claviger.audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditSettings {
    /// File the audit log is appended to. `None` (the default) keeps none.
    pub path: Option<PathBuf>,
    /// Reference to the key its lines are sealed with. `None` hashes them without a key.
    pub key: Option<String>,
}

impl AuditSettings {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "path" => self.path = check.text(node).map(PathBuf::from),
            "key" => {
                let at = node.at;
                self.key = check.text(node);
                if self.key.as_deref().is_some_and(|key| !is_reference(key)) {
                    let message = "expected a reference, such as $env://CLAVIGER_AUDIT_KEY";
                    check.error(at, "invalid-value", message);
                }
            }
            _ => unknown(check, node.at),
        });
    }
}

/// `claviger.auth.throttle`.
#[derive(Debug, Clone, PartialEq)]
pub struct ThrottleConfig {
    /// Failed attempts within the window after which an address is refused. Default 20.
    pub failures: u32,
    /// How long failures of an address are added up. Default 60 s.
    pub window: Duration,
    /// How long the address is refused. Default 60 s.
    pub refuse_for: Duration,
    /// About how many addresses are remembered, 16 bytes each. Default 65536.
    pub addresses: usize,
    /// Addresses and networks that are never counted. Default none.
    pub trusted: Vec<IpNet>,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            failures: 20,
            window: Duration::from_mins(1),
            refuse_for: Duration::from_mins(1),
            addresses: 65536,
            trusted: Vec::new(),
        }
    }
}

impl ThrottleConfig {
    fn decode(check: &mut Check, node: Node) -> Self {
        let mut throttle = Self::default();
        entries(check, node, |check, key, node| match key {
            "failures" => set(&mut throttle.failures, check.small(&node, 1..=1_000_000)),
            "window" => set(&mut throttle.window, period(check, &node)),
            "refuse_for" => set(&mut throttle.refuse_for, period(check, &node)),
            "addresses" => set(&mut throttle.addresses, check.small(&node, 8..=16_777_216)),
            "trusted" => {
                let nodes = check.list(node);
                set(
                    &mut throttle.trusted,
                    nodes.map(|nodes| check.each(nodes, net)),
                );
            }
            _ => unknown(check, node.at),
        });
        throttle
    }
}

/// A duration that is some time.
fn period(check: &mut Check, node: &Node) -> Option<Duration> {
    let at = node.at;
    let period = duration(check, node)?;
    if period.is_zero() {
        check.error(at, "invalid-value", "expected a duration above zero");
        return None;
    }
    Some(period)
}

fn bytes(check: &mut Check, node: &Node) -> Option<usize> {
    let at = node.at;
    let bytes = size(check, node)?;
    let fits = usize::try_from(bytes)
        .ok()
        .filter(|bytes| (256..=16 << 20).contains(bytes));
    if fits.is_none() {
        check.error(at, "invalid-value", "expected a size from 256 to 16m");
    }
    fits
}

pub(super) fn unknown(check: &mut Check, at: At) {
    check.warn(at, "unknown-field", "no such setting under claviger");
}
