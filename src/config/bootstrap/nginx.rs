//! `nginx_config:` as far as it has a meaning here.

use std::time::Duration;

use ipnet::IpNet;

use super::units::{duration, size};
use super::{entries, net, set};
use crate::config::check::Check;
use crate::config::node::{Node, Tree};

/// `nginx_config:`.
#[derive(Debug, Clone, PartialEq)]
pub struct NginxConfig {
    /// Traffic threads; `None` (`auto`) is one per core.
    pub worker_processes: Option<usize>,
    /// Wanted limit of open files; `None` leaves it. Default 20480.
    pub worker_rlimit_nofile: Option<u64>,
    /// Connections per worker (`event.worker_connections`). Default 10620.
    pub worker_connections: u64,
    /// How long requests may go on after a graceful stop. Default 240 s.
    pub worker_shutdown_timeout: Duration,
    /// File, `/dev/stderr` or `stderr`. Default `logs/error.log`.
    pub error_log: String,
    /// `debug` `info` `notice` `warn` `error` `crit` `alert` `emerg`. Default `warn`.
    pub error_log_level: String,
    /// Variables that `$env://` sees besides the process's own: (name, value).
    pub envs: Vec<(String, String)>,
    /// `http:`.
    pub http: NginxHttp,
}

impl Default for NginxConfig {
    fn default() -> Self {
        Self {
            worker_processes: None,
            worker_rlimit_nofile: Some(20480),
            worker_connections: 10620,
            worker_shutdown_timeout: Duration::from_secs(240),
            error_log: "logs/error.log".into(),
            error_log_level: "warn".into(),
            envs: Vec::new(),
            http: NginxHttp::default(),
        }
    }
}

impl NginxConfig {
    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "worker_processes" => set(&mut self.worker_processes, threads(check, node)),
            "worker_rlimit_nofile" => self.worker_rlimit_nofile = check.small(&node, 1..=i64::MAX),
            "event" => entries(check, node, |check, key, node| {
                if key == "worker_connections" {
                    set(
                        &mut self.worker_connections,
                        check.small(&node, 1..=i64::MAX),
                    );
                }
            }),
            "worker_shutdown_timeout" => {
                set(&mut self.worker_shutdown_timeout, duration(check, &node))
            }
            "error_log" => set(&mut self.error_log, check.text(node)),
            "error_log_level" => set(&mut self.error_log_level, check.word(node, LEVELS)),
            "envs" => {
                let envs = check.list(node).map(|nodes| check.each(nodes, Check::text));
                let pairs = envs.into_iter().flatten().filter_map(|env| {
                    env.split_once('=')
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                });
                self.envs = pairs.collect();
            }
            "http" => self.http.decode(check, node),
            _ => {}
        });
    }
}

/// `nginx_config.http`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch nginx names"
)]
#[derive(Debug, Clone, PartialEq)]
pub struct NginxHttp {
    /// Idle time of a client's connection; zero closes after each request. Default 60 s.
    pub keepalive_timeout: Duration,
    /// From accepted (or idle) to the end of the header. Default 60 s.
    pub client_header_timeout: Duration,
    /// Between two reads of a body. Default 60 s.
    pub client_body_timeout: Duration,
    /// Bytes; 0 is no limit (default).
    pub client_max_body_size: u64,
    /// Between two writes to a client. Default 10 s.
    pub send_timeout: Duration,
    /// Headers with `_` in the name are kept. Default true.
    pub underscores_in_headers: bool,
    /// Header the client's address is taken from. Default `X-Real-IP`.
    pub real_ip_header: String,
    /// Skip trusted addresses from the right. Default false.
    pub real_ip_recursive: bool,
    /// Peers whose header is believed. Default 127.0.0.1 (`unix:` is dropped).
    pub real_ip_from: Vec<IpNet>,
    /// Keep-alive towards upstreams that say nothing.
    pub upstream: NginxUpstream,
    /// SNI towards upstreams. Default true.
    pub proxy_ssl_server_name: bool,
    /// Default true.
    pub enable_access_log: bool,
    /// File or `/dev/stdout`. Default `logs/access.log`.
    pub access_log: String,
    /// Template; default `spec/05` §2.
    pub access_log_format: String,
    /// `default`, `json` or `none`.
    pub access_log_format_escape: String,
    /// Bytes gathered before a write. Default 16384.
    pub access_log_buffer: u64,
}

impl Default for NginxHttp {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            keepalive_timeout: minute,
            client_header_timeout: minute,
            client_body_timeout: minute,
            client_max_body_size: 0,
            send_timeout: Duration::from_secs(10),
            underscores_in_headers: true,
            real_ip_header: "X-Real-IP".into(),
            real_ip_recursive: false,
            real_ip_from: vec![IpNet::from(std::net::IpAddr::from([127, 0, 0, 1]))],
            upstream: NginxUpstream::default(),
            proxy_ssl_server_name: true,
            enable_access_log: true,
            access_log: "logs/access.log".into(),
            access_log_format: ACCESS_LOG_FORMAT.into(),
            access_log_format_escape: "default".into(),
            access_log_buffer: 16384,
        }
    }
}

impl NginxHttp {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "keepalive_timeout" => set(&mut self.keepalive_timeout, duration(check, &node)),
            "client_header_timeout" => set(&mut self.client_header_timeout, duration(check, &node)),
            "client_body_timeout" => set(&mut self.client_body_timeout, duration(check, &node)),
            "client_max_body_size" => set(&mut self.client_max_body_size, size(check, &node)),
            "send_timeout" => set(&mut self.send_timeout, duration(check, &node)),
            "underscores_in_headers" => set(&mut self.underscores_in_headers, on_off(check, node)),
            "real_ip_header" => set(&mut self.real_ip_header, check.text(node)),
            "real_ip_recursive" => set(&mut self.real_ip_recursive, on_off(check, node)),
            "real_ip_from" => {
                let nets = check
                    .list(node)
                    .map(|nodes| check.each(nodes, real_ip_from));
                set(&mut self.real_ip_from, nets);
            }
            "upstream" => self.upstream.decode(check, node),
            "proxy_ssl_server_name" => set(&mut self.proxy_ssl_server_name, on_off(check, node)),
            "enable_access_log" => set(&mut self.enable_access_log, check.boolean(&node)),
            "access_log" => set(&mut self.access_log, check.text(node)),
            "access_log_format" => set(&mut self.access_log_format, check.text(node)),
            "access_log_format_escape" => {
                let word = check.word(node, &["default", "json", "none"]);
                set(&mut self.access_log_format_escape, word);
            }
            "access_log_buffer" => set(&mut self.access_log_buffer, size(check, &node)),
            _ => {}
        });
    }
}

/// `nginx_config.http.upstream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NginxUpstream {
    /// Idle connections kept. Default 320.
    pub keepalive: u32,
    /// Requests per connection. Default 1000.
    pub keepalive_requests: u32,
    /// Idle time. Default 60 s.
    pub keepalive_timeout: Duration,
}

impl Default for NginxUpstream {
    fn default() -> Self {
        Self {
            keepalive: 320,
            keepalive_requests: 1000,
            keepalive_timeout: Duration::from_secs(60),
        }
    }
}

impl NginxUpstream {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "keepalive" => set(
                &mut self.keepalive,
                check.small(&node, 0..=i64::from(u32::MAX)),
            ),
            "keepalive_requests" => set(
                &mut self.keepalive_requests,
                check.small(&node, 1..=i64::from(u32::MAX)),
            ),
            "keepalive_timeout" => set(&mut self.keepalive_timeout, duration(check, &node)),
            _ => {}
        });
    }
}

/// A number of threads, or `auto`.
pub(super) fn threads(check: &mut Check, node: Node) -> Option<Option<usize>> {
    match &node.tree {
        Tree::Text(text) if text == "auto" => Some(None),
        Tree::Int(_) => check.small(&node, 1..=1024).map(Some),
        _ => check.wrong(&node, "a number or auto"),
    }
}

fn on_off(check: &mut Check, node: Node) -> Option<bool> {
    match node.tree {
        Tree::Bool(value) => Some(value),
        _ => check.word(node, &["on", "off"]).map(|word| word == "on"),
    }
}

fn real_ip_from(check: &mut Check, node: Node) -> Option<IpNet> {
    if node.as_text() == Some("unix:") {
        return None;
    }
    net(check, node)
}

pub(super) const LEVELS: &[&str] = &[
    "debug", "info", "notice", "warn", "error", "crit", "alert", "emerg",
];

const ACCESS_LOG_FORMAT: &str = "$remote_addr - $remote_user [$time_local] $http_host \"$request\" \
$status $body_bytes_sent $request_time \"$http_referer\" \"$http_user_agent\" $upstream_addr \
$upstream_status $upstream_response_time \"$upstream_scheme://$upstream_host$upstream_uri\" \
\"$apisix_request_id\"";
