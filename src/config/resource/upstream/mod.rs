//! Upstreams (`spec/00` §4), inline or standing alone.

mod parse;

use std::time::Duration;

use serde_json::Value;

use super::shape::Labels;

pub(super) use parse::{parse, parse_inline};

/// Connect, send and read timeouts. Each bounds one operation, not the whole request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeoutConfig {
    /// TCP and TLS connect. Default 60 s.
    pub connect: Duration,
    /// One write. Default 60 s.
    pub send: Duration,
    /// One read. Default 60 s.
    pub read: Duration,
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            connect: minute,
            send: minute,
            read: minute,
        }
    }
}

/// Protocol spoken to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 in the clear.
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
}

impl Scheme {
    /// Port a node gets that names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }

    /// Whether connections to the nodes are encrypted.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }
}

/// Which `Host` goes upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PassHost {
    /// The client's.
    #[default]
    Pass,
    /// The node's configured name.
    Node,
    /// `upstream_host`.
    Rewrite,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// IP address (IPv6 without brackets) or domain name.
    pub host: String,
    /// Port; `None` takes the scheme's.
    pub port: Option<u16>,
    /// Share of requests; 0 is never picked.
    pub weight: u32,
    /// Higher levels are used first. Default 0.
    pub priority: i32,
}

/// Keep-alive towards the nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeepalivePoolConfig {
    /// Idle connections kept. Default 320.
    pub size: u32,
    /// How long an idle connection is kept; zero keeps none. Default 60 s.
    pub idle_timeout: Duration,
    /// Requests per connection. Default 1000.
    pub requests: u32,
}

impl Default for KeepalivePoolConfig {
    fn default() -> Self {
        Self {
            size: 320,
            idle_timeout: Duration::from_secs(60),
            requests: 1000,
        }
    }
}

/// TLS towards the nodes. Strings may be references.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamTlsConfig {
    /// An `ssls` item of `type: client`; excludes the next two.
    pub client_cert_id: Option<String>,
    /// PEM or reference.
    pub client_cert: Option<String>,
    /// PEM or reference.
    pub client_key: Option<String>,
    /// Whether the node's certificate is verified; `None` is off with a warning (APISIX).
    pub verify: Option<bool>,
    /// Trusted CAs (PEM or reference) in place of the system's; absent means the system's.
    pub ca_certs: Option<String>,
    /// Protocols offered in the handshake (ours); `None` is the scheme's: both for `https`,
    /// HTTP/2 for `grpcs`.
    pub alpn: Option<UpstreamAlpn>,
}

/// HTTP versions offered to a node, which chooses (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamAlpn {
    /// `http/1.1` alone.
    Http1,
    /// `h2` alone: a node that does not choose it is not spoken to.
    Http2,
    /// `h2`, else `http/1.1`; also what a node without ALPN gets.
    Both,
}

/// An upstream as declared. Deserialised by hand (`config::resource` parser), since nodes come
/// in two forms and durations are bare numbers in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamConfig {
    /// Name shown to people.
    pub name: Option<String>,
    /// Balancer: `roundrobin` `chash` `least_conn` `ewma`.
    pub balancer: String,
    /// Nodes in file order; empty answers 503.
    pub nodes: Vec<NodeConfig>,
    /// Set when nodes come from discovery instead (not built yet: such an upstream answers 503).
    pub service_name: Option<String>,
    /// Kind of discovery.
    pub discovery_type: Option<String>,
    /// chash: what `key` names. Default `vars`.
    pub hash_on: Option<String>,
    /// chash: the variable, header, cookie or template.
    pub key: Option<String>,
    /// Further attempts after the first; `None` is nodes − 1.
    pub retries: Option<u32>,
    /// No further attempt once elapsed; `None` is no limit.
    pub retry_timeout: Option<Duration>,
    /// Timeouts; `None` is 60 s each.
    pub timeout: Option<TimeoutConfig>,
    /// Protocol.
    pub scheme: Scheme,
    /// Which `Host` is sent.
    pub pass_host: PassHost,
    /// With `pass_host: rewrite`.
    pub upstream_host: Option<String>,
    /// TLS.
    pub tls: Option<UpstreamTlsConfig>,
    /// Connection reuse; `None` is `nginx_config.http.upstream`'s.
    pub keepalive_pool: Option<KeepalivePoolConfig>,
    /// Health checks, checked for shape and kept for the health room.
    pub checks: Option<Value>,
    /// Free text.
    pub desc: Option<String>,
    /// Labels.
    pub labels: Labels,
}
