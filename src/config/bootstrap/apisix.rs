//! `apisix:` and `deployment:` of `config.yaml`: listeners, TLS, routing switches.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::listen::{Listen, listen, resolver, socket};
use super::proxy_protocol::{ProxyProtocol, ProxyProtocolExtras};
use super::units::duration;
use super::{entries, net, set, strings};
use crate::config::check::Check;
use crate::config::node::{Node, Tree};

/// `deployment:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// `data_plane`, `traditional` or `control_plane`. Default `data_plane`.
    pub role: String,
    /// Where resources come from: `yaml` or `json` (a file), from the role's own section.
    pub config_provider: String,
    /// `admin:` as it stands, for the admin room.
    pub admin: serde_json::Value,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            role: "data_plane".into(),
            config_provider: "yaml".into(),
            admin: serde_json::Value::Null,
        }
    }
}

impl Deployment {
    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        let mut providers = Vec::new();
        entries(check, node, |check, key, node| match key {
            "role" => set(
                &mut self.role,
                check.word(node, &["traditional", "data_plane", "control_plane"]),
            ),
            "role_data_plane" | "role_traditional" | "role_control_plane" => {
                let role = key["role_".len()..].to_owned();
                entries(check, node, |check, key, node| {
                    if key == "config_provider" {
                        let at = node.at;
                        providers.extend(
                            check
                                .text(node)
                                .map(|provider| (role.clone(), provider, at)),
                        );
                    }
                });
            }
            "admin" => set(&mut self.admin, check.object(node)),
            _ => {}
        });
        if let Some((role, provider, at)) =
            providers.into_iter().find(|(role, ..)| *role == self.role)
        {
            if !matches!(&*provider, "yaml" | "json") {
                check.within(&format!("role_{role}.config_provider"), |check| {
                    check.warn(
                        at,
                        "unsupported",
                        "expected yaml or json; resources are read from a yaml file",
                    );
                });
            } else {
                self.config_provider = provider;
            }
        }
    }
}

/// `apisix.ssl`.
#[derive(Debug, Clone, PartialEq)]
pub struct SslSettings {
    /// Whether TLS is listened for at all. Default true.
    pub enable: bool,
    /// Where. Default port 9443.
    pub listen: Vec<Listen>,
    /// Trust store of outgoing TLS: `system`, or a file. Default `system`.
    pub ssl_trusted_certificate: String,
    /// Protocols of names that say nothing. Default TLSv1.2 and TLSv1.3.
    pub ssl_protocols: Vec<String>,
    /// OpenSSL cipher list up to TLS 1.2, `:`-joined.
    pub ssl_ciphers: String,
    /// Session tickets. Default false.
    pub ssl_session_tickets: bool,
    /// Name assumed for clients that send none; `None` refuses them.
    pub fallback_sni: Option<String>,
}

impl Default for SslSettings {
    fn default() -> Self {
        Self {
            enable: true,
            listen: vec![Listen::all(9443)],
            ssl_trusted_certificate: "system".into(),
            ssl_protocols: vec!["TLSv1.2".into(), "TLSv1.3".into()],
            ssl_ciphers: CIPHERS.into(),
            ssl_session_tickets: false,
            fallback_sni: None,
        }
    }
}

impl SslSettings {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "enable" => set(&mut self.enable, check.boolean(&node)),
            "listen" => set(&mut self.listen, listen(check, node)),
            "ssl_trusted_certificate" => set(&mut self.ssl_trusted_certificate, check.text(node)),
            "ssl_protocols" => set(&mut self.ssl_protocols, protocols(check, node)),
            "ssl_ciphers" => set(&mut self.ssl_ciphers, check.text(node)),
            "ssl_session_tickets" => set(&mut self.ssl_session_tickets, check.boolean(&node)),
            "fallback_sni" => {
                self.fallback_sni = check.text(node).map(|name| name.to_ascii_lowercase())
            }
            _ => {}
        });
    }
}

/// `apisix.lru.secret`: cache of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretCacheSettings {
    /// How long a value is fresh. Default 300 s.
    pub ttl: Duration,
    /// Values kept, in APISIX. Accepted without effect: exactly what a configuration refers to is
    /// held, and a value thrown out would be missing on a request's path. Default 512.
    pub count: u64,
    /// How long a failure is remembered. Default 60 s.
    pub neg_ttl: Duration,
    /// Failures kept, in APISIX. Without effect as `count` is. Default 512.
    pub neg_count: u64,
}

impl Default for SecretCacheSettings {
    fn default() -> Self {
        let (ttl, neg_ttl) = (Duration::from_secs(300), Duration::from_secs(60));
        Self {
            ttl,
            count: 512,
            neg_ttl,
            neg_count: 512,
        }
    }
}

/// How routes are matched (`spec/00` §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpRouter {
    /// `radixtree_host_uri`: host first, then path.
    #[default]
    HostUri,
    /// `radixtree_uri`: path, host is a predicate.
    Uri,
    /// `radixtree_uri_with_parameter`: path with `:name` and `*name`.
    UriWithParameter,
}

/// `apisix:`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch APISIX names"
)]
#[derive(Debug, Clone, PartialEq)]
pub struct Apisix {
    /// Plain HTTP listeners. Default port 9080.
    pub node_listen: Vec<Listen>,
    /// Whether a listener without an address also binds `[::]`. Default true.
    pub enable_ipv6: bool,
    /// `SO_REUSEPORT`. Default true.
    pub enable_reuseport: bool,
    /// HTTP/2 by ALPN and by prior knowledge. Default true.
    pub enable_http2: bool,
    /// PROXY protocol listeners. Default none.
    pub proxy_protocol: ProxyProtocol,
    /// TLS.
    pub ssl: SslSettings,
    /// Version in the `Server` header. Default true.
    pub enable_server_tokens: bool,
    /// `X-APISIX-Upstream-Status` on every response, not only 5xx. Default false.
    pub show_upstream_status_in_response_header: bool,
    /// `/a/` matches as `/a`. Default false.
    pub delete_uri_tail_slash: bool,
    /// Strip `;params` of each segment before matching. Default false.
    pub normalize_uri_like_servlet: bool,
    /// Keep `%2F` encoded while matching. Default false.
    pub match_uri_encoded_slash: bool,
    /// Bound for `post_arg_*`, in bytes; 0 is none. Default 64 MiB.
    pub max_post_args_readable_bytes: u64,
    /// `router.http`.
    pub router_http: HttpRouter,
    /// Resolvers, `ip` or `ip:port`; empty takes `/etc/resolv.conf`.
    pub dns_resolver: Vec<SocketAddr>,
    /// Replaces the records' TTL; `None` keeps it.
    pub dns_resolver_valid: Option<Duration>,
    /// One lookup's limit. Default 5 s.
    pub resolver_timeout: Duration,
    /// Whether `search` of resolv.conf is used. Default true.
    pub enable_resolv_search_opt: bool,
    /// Status listener; `None` is off.
    pub status: Option<SocketAddr>,
    /// Whether the control API is on. Default true.
    pub enable_control: bool,
    /// Control API. Default 127.0.0.1:9090.
    pub control: SocketAddr,
    /// Whether the admin API is on, where the role allows it. Default true.
    pub enable_admin: bool,
    /// Peers whose forwarding headers are believed; `None` is unset (`spec/06` §6).
    pub trusted_addresses: Option<Vec<IpNet>>,
    /// Secret cache.
    pub lru_secret: SecretCacheSettings,
    /// Turns health checks off everywhere. Default false.
    pub disable_upstream_healthcheck: bool,
}

impl Default for Apisix {
    fn default() -> Self {
        Self {
            node_listen: vec![Listen::all(9080)],
            enable_ipv6: true,
            enable_reuseport: true,
            enable_http2: true,
            proxy_protocol: ProxyProtocol::default(),
            ssl: SslSettings::default(),
            enable_server_tokens: true,
            show_upstream_status_in_response_header: false,
            delete_uri_tail_slash: false,
            normalize_uri_like_servlet: false,
            match_uri_encoded_slash: false,
            max_post_args_readable_bytes: 64 << 20,
            router_http: HttpRouter::default(),
            dns_resolver: Vec::new(),
            dns_resolver_valid: None,
            resolver_timeout: Duration::from_secs(5),
            enable_resolv_search_opt: true,
            status: None,
            enable_control: true,
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            enable_admin: true,
            trusted_addresses: None,
            lru_secret: SecretCacheSettings::default(),
            disable_upstream_healthcheck: false,
        }
    }
}

impl Apisix {
    pub(super) fn check_proxied(&self, check: &mut Check, own: &ProxyProtocolExtras) {
        check.within("apisix.proxy_protocol", |check| {
            self.proxy_protocol.check(check, self.ssl.enable, own);
        });
    }

    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "node_listen" => set(&mut self.node_listen, listen(check, node)),
            "ssl" => self.ssl.decode(check, node),
            "proxy_protocol" => self.proxy_protocol.decode(check, node),
            "proxy_mode" => {
                let at = node.at;
                if check.text(node).is_some_and(|mode| mode != "http") {
                    check.warn(
                        at,
                        "unsupported",
                        "expected http; stream proxying is not supported",
                    );
                }
            }
            "max_post_args_readable_size" => {
                let bytes = check
                    .int(&node, 0..=1 << 20)
                    .map(|megabytes| megabytes.unsigned_abs() << 20);
                set(&mut self.max_post_args_readable_bytes, bytes);
            }
            "router" => entries(check, node, |check, key, node| {
                if key == "http" {
                    set(&mut self.router_http, router(check, node));
                }
            }),
            "dns_resolver" => {
                let resolvers = check.list(node).map(|nodes| check.each(nodes, resolver));
                set(&mut self.dns_resolver, resolvers);
            }
            "dns_resolver_valid" => self.dns_resolver_valid = duration(check, &node),
            "resolver_timeout" => set(&mut self.resolver_timeout, duration(check, &node)),
            "status" => {
                let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7085));
                socket(check, node, &mut address);
                self.status = Some(address);
            }
            "control" => socket(check, node, &mut self.control),
            "trusted_addresses" => {
                self.trusted_addresses = check.list(node).map(|nodes| check.each(nodes, net));
            }
            "lru" => entries(check, node, |check, key, node| {
                if key == "secret" {
                    self.lru_secret.decode(check, node);
                }
            }),
            _ => {
                if let Some(switch) = self.switch(key) {
                    set(switch, check.boolean(&node));
                }
            }
        });
    }

    fn switch(&mut self, key: &str) -> Option<&mut bool> {
        Some(match key {
            "enable_ipv6" => &mut self.enable_ipv6,
            "enable_reuseport" => &mut self.enable_reuseport,
            "enable_http2" => &mut self.enable_http2,
            "enable_server_tokens" => &mut self.enable_server_tokens,
            "show_upstream_status_in_response_header" => {
                &mut self.show_upstream_status_in_response_header
            }
            "delete_uri_tail_slash" => &mut self.delete_uri_tail_slash,
            "normalize_uri_like_servlet" => &mut self.normalize_uri_like_servlet,
            "match_uri_encoded_slash" => &mut self.match_uri_encoded_slash,
            "enable_resolv_search_opt" => &mut self.enable_resolv_search_opt,
            "enable_control" => &mut self.enable_control,
            "enable_admin" => &mut self.enable_admin,
            "disable_upstream_healthcheck" => &mut self.disable_upstream_healthcheck,
            _ => return None,
        })
    }
}

impl SecretCacheSettings {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "ttl" => set(&mut self.ttl, duration(check, &node)),
            "neg_ttl" => set(&mut self.neg_ttl, duration(check, &node)),
            "count" => set(&mut self.count, check.small(&node, 1..=i64::MAX)),
            "neg_count" => set(&mut self.neg_count, check.small(&node, 1..=i64::MAX)),
            _ => {}
        });
    }
}

fn router(check: &mut Check, node: Node) -> Option<HttpRouter> {
    let words = [
        "radixtree_host_uri",
        "radixtree_uri",
        "radixtree_uri_with_parameter",
    ];
    Some(match &*check.word(node, &words)? {
        "radixtree_uri" => HttpRouter::Uri,
        "radixtree_uri_with_parameter" => HttpRouter::UriWithParameter,
        _ => HttpRouter::HostUri,
    })
}

/// `TLSv1.2 TLSv1.3`, or a list of these.
fn protocols(check: &mut Check, node: Node) -> Option<Vec<String>> {
    let at = node.at;
    let protocols = match node.tree {
        Tree::Text(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        _ => strings(check, node)?,
    };
    let known = |name: &String| matches!(&**name, "TLSv1" | "TLSv1.1" | "TLSv1.2" | "TLSv1.3");
    if protocols.is_empty() || !protocols.iter().all(known) {
        check.error(at, "invalid-value", "expected TLSv1.1, TLSv1.2, TLSv1.3");
        return None;
    }
    Some(protocols)
}

const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384";
