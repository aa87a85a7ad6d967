//! An `upstream:` object to its declaration.

use super::super::health;
use super::super::shape::{self, Head, Pem, Shared, fields, inner_fields, pem};
use super::{
    KeepalivePoolConfig, NodeConfig, PassHost, Scheme, UpstreamAlpn, UpstreamConfig,
    UpstreamTlsConfig,
};
use crate::config::check::Check;
use crate::config::node::{At, Entry, Node, Tree};

/// Reads `upstream:` of a route or service.
pub(in crate::config::resource) fn parse_inline(
    check: &mut Check,
    node: Node,
) -> Option<UpstreamConfig> {
    let at = node.at;
    let entries = check.map(node)?;
    Some(parse(check, entries, at).1)
}

pub(in crate::config::resource) fn parse(
    check: &mut Check,
    entries: Vec<Entry>,
    at: At,
) -> (Head, UpstreamConfig) {
    let (mut head, mut upstream) = (
        Head::default(),
        UpstreamConfig {
            balancer: "roundrobin".into(),
            ..Default::default()
        },
    );
    let mut has_nodes = false;
    fields(check, entries, |check, key, mut node| {
        has_nodes |= key == "nodes";
        head.take(check, Shared::All, key, &mut node) || field(&mut upstream, check, key, node)
    });
    match (&upstream.service_name, &upstream.discovery_type) {
        (None, None) if !has_nodes => {
            check.error(
                at,
                "missing-field",
                "expected nodes, or service_name and discovery_type",
            );
        }
        (Some(_), None) | (None, Some(_)) => {
            check.error(
                at,
                "missing-field",
                "service_name and discovery_type are required together",
            );
        }
        (Some(_), Some(_)) => {
            check.warn(
                at,
                "unsupported",
                "service discovery is not supported yet; requests answer 503",
            );
        }
        _ => {}
    }
    if upstream.balancer == "chash" {
        hash_key(check, &upstream, at);
    }
    if upstream.pass_host == PassHost::Rewrite && upstream.upstream_host.is_none() {
        check.error(
            at,
            "missing-field",
            "`upstream_host` can't be empty when `pass_host` is `rewrite`",
        );
    }
    let alpn = upstream.tls.as_ref().and_then(|tls| tls.alpn);
    if upstream.scheme == Scheme::Grpcs && alpn == Some(UpstreamAlpn::Http1) {
        check.error(at, "conflict", "grpcs needs h2 in tls.alpn");
    }
    upstream.name = head.name.take();
    upstream.desc = head.desc.take();
    upstream.labels = std::mem::take(&mut head.labels);
    (head, upstream)
}

fn field(upstream: &mut UpstreamConfig, check: &mut Check, key: &str, node: Node) -> bool {
    match key {
        "type" => {
            let words = ["roundrobin", "chash", "least_conn", "ewma"];
            if let Some(balancer) = check.word(node, &words) {
                upstream.balancer = balancer;
            }
        }
        "nodes" => upstream.nodes = nodes(check, node),
        "hash_on" => {
            let words = ["vars", "header", "cookie", "consumer", "vars_combinations"];
            upstream.hash_on = check.word(node, &words);
        }
        "key" => upstream.key = check.text(node),
        "retries" => upstream.retries = check.small(&node, 0..=i64::from(u32::MAX)),
        "retry_timeout" => {
            upstream.retry_timeout =
                shape::seconds(check, &node, true).filter(|limit| !limit.is_zero());
        }
        "timeout" => upstream.timeout = shape::timeout(check, node),
        "scheme" => upstream.scheme = scheme(check, node),
        "pass_host" => {
            upstream.pass_host = match check.word(node, &["pass", "node", "rewrite"]).as_deref() {
                Some("node") => PassHost::Node,
                Some("rewrite") => PassHost::Rewrite,
                _ => PassHost::Pass,
            }
        }
        "upstream_host" => upstream.upstream_host = shape::host(check, node),
        "tls" => upstream.tls = tls(check, node),
        "keepalive_pool" => upstream.keepalive_pool = Some(keepalive_pool(check, node)),
        "checks" => {
            health::check(check, node.clone());
            upstream.checks = Some(node.into());
        }
        "service_name" => upstream.service_name = check.text_of(node, 1..=256),
        "discovery_type" => upstream.discovery_type = check.text(node),
        "discovery_args" => inner_fields(check, node, |check, key, node| {
            check.text(node);
            matches!(key, "namespace_id" | "group_name")
        }),
        _ => return false,
    }
    true
}

fn scheme(check: &mut Check, node: Node) -> Scheme {
    let at = node.at;
    match check.text(node).as_deref() {
        None | Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some("grpc") => Scheme::Grpc,
        Some("grpcs") => Scheme::Grpcs,
        Some("tcp" | "tls" | "udp" | "kafka") => {
            check.error(
                at,
                "unsupported",
                "expected http, https, grpc or grpcs; other schemes are not supported",
            );
            Scheme::Http
        }
        Some(_) => {
            check.error(
                at,
                "invalid-value",
                "expected one of http, https, grpc, grpcs",
            );
            Scheme::Http
        }
    }
}

fn nodes(check: &mut Check, node: Node) -> Vec<NodeConfig> {
    match node.tree {
        Tree::Map(entries) => {
            let mut nodes = Vec::with_capacity(entries.len());
            for entry in entries {
                let (key, at) = (entry.key, entry.at);
                nodes
                    .extend(check.within(&key, |check| node_of_pair(check, &key, at, &entry.node)));
            }
            nodes
        }
        Tree::List(list) => check.each(list, node_of_object),
        _ => {
            check.wrong::<()>(
                &node,
                "a list of nodes, or a map of \"host:port\" to weight",
            );
            Vec::new()
        }
    }
}

fn node_of_pair(check: &mut Check, address: &str, at: At, weight: &Node) -> Option<NodeConfig> {
    let weight = check.small(weight, WEIGHTS);
    let parsed = split_address(address);
    if parsed.is_none() {
        check.error(
            at,
            "invalid-value",
            "expected host or host:port with a port from 1 to 65535",
        );
    }
    let (host, port) = parsed?;
    Some(NodeConfig {
        host,
        port,
        weight: weight?,
        priority: 0,
    })
}

/// `host`, `host:port`, `[v6]:port`, or an IPv6 address without brackets.
fn split_address(address: &str) -> Option<(String, Option<u16>)> {
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((address.to_owned(), None));
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (
            host,
            Some(port.parse().ok().filter(|port: &u16| *port > 0)?),
        ),
        _ => (address, None),
    };
    host_name(host).map(|host| (host, port))
}

fn host_name(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner
            .parse::<std::net::Ipv6Addr>()
            .is_ok()
            .then(|| inner.to_owned());
    }
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(host.to_owned());
    }
    let character = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (!host.is_empty() && host.len() <= 256 && host.bytes().all(character)).then(|| host.to_owned())
}

fn node_of_object(check: &mut Check, node: Node) -> Option<NodeConfig> {
    let at = node.at;
    let (mut host, mut port, mut weight, mut priority) = (None, None, None, 0);
    let mut given = (false, false);
    inner_fields(check, node, |check, key, node| {
        match key {
            "host" => {
                given.0 = true;
                let at = node.at;
                host = check.text(node).and_then(|text| {
                    let name = host_name(&text);
                    if name.is_none() {
                        check.error(at, "invalid-value", "expected an IP address or host name");
                    }
                    name
                });
            }
            "port" => port = check.small(&node, 1..=65535),
            "weight" => {
                given.1 = true;
                weight = check.small(&node, WEIGHTS);
            }
            "priority" => {
                priority = check
                    .small(&node, i64::from(i32::MIN)..=i64::from(i32::MAX))
                    .unwrap_or(0);
            }
            "metadata" => {
                check.object(node);
            }
            _ => return false,
        }
        true
    });
    for (given, field) in [(given.0, "host"), (given.1, "weight")] {
        if !given {
            check.error(
                at,
                "missing-field",
                format!("property \"{field}\" is required"),
            );
        }
    }
    Some(NodeConfig {
        host: host?,
        port,
        weight: weight?,
        priority,
    })
}

fn hash_key(check: &mut Check, upstream: &UpstreamConfig, at: At) {
    let hash_on = upstream.hash_on.as_deref().unwrap_or("vars");
    let Some(key) = upstream.key.as_deref() else {
        if hash_on != "consumer" {
            check.error(at, "missing-field", "missing key");
        }
        return;
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let (valid, expected) = match hash_on {
        "vars" => (
            HASH_VARS.contains(&key) || key.strip_prefix("arg_").is_some_and(word),
            "expected a request variable that chash knows, or arg_<name>",
        ),
        "header" | "cookie" => (word(key), "expected letters, digits, '-' or '_'"),
        _ => (true, ""),
    };
    if !valid {
        check.within("key", |check| check.error(at, "invalid-value", expected));
    }
}

fn tls(check: &mut Check, node: Node) -> Option<UpstreamTlsConfig> {
    let at = node.at;
    let mut tls = UpstreamTlsConfig::default();
    let mut given = Vec::new();
    inner_fields(check, node, |check, key, node| {
        given.extend(
            ["client_cert_id", "client_cert", "client_key"]
                .into_iter()
                .find(|name| *name == key),
        );
        match key {
            "client_cert_id" => tls.client_cert_id = shape::id(check, node),
            "client_cert" => tls.client_cert = pem(check, node, Pem::Certificate),
            "client_key" => tls.client_key = pem(check, node, Pem::Key),
            "verify" => tls.verify = check.boolean(&node),
            "ca_certs" => tls.ca_certs = pem(check, node, Pem::Certificate),
            "alpn" => tls.alpn = alpn(check, node),
            _ => return false,
        }
        true
    });
    let (cert, key) = (
        given.contains(&"client_cert"),
        given.contains(&"client_key"),
    );
    if cert != key {
        check.error(
            at,
            "missing-field",
            "client_cert and client_key are required together",
        );
    }
    if given.contains(&"client_cert_id") && (cert || key) {
        check.error(
            at,
            "conflict",
            "client_cert_id excludes client_cert and client_key",
        );
    }
    Some(tls)
}

/// `h2`, `http/1.1`, or a list of them in any order: HTTP/2 is preferred wherever it is offered.
fn alpn(check: &mut Check, node: Node) -> Option<UpstreamAlpn> {
    let at = node.at;
    let word = |check: &mut Check, node| check.word(node, &["h2", "http/1.1"]);
    let offered = match node.tree {
        Tree::List(nodes) if nodes.is_empty() => {
            check.error(at, "invalid-value", "expected h2, http/1.1 or both");
            return None;
        }
        Tree::List(nodes) => check.each(nodes, word),
        _ => word(check, node).into_iter().collect(),
    };
    let offers = |protocol: &str| offered.iter().any(|offered| offered == protocol);
    match (offers("h2"), offers("http/1.1")) {
        (true, true) => Some(UpstreamAlpn::Both),
        (true, false) => Some(UpstreamAlpn::Http2),
        (false, true) => Some(UpstreamAlpn::Http1),
        (false, false) => None,
    }
}

fn keepalive_pool(check: &mut Check, node: Node) -> KeepalivePoolConfig {
    let mut pool = KeepalivePoolConfig::default();
    inner_fields(check, node, |check, key, node| {
        match key {
            "size" => {
                pool.size = check
                    .small(&node, 1..=i64::from(u32::MAX))
                    .unwrap_or(pool.size)
            }
            "idle_timeout" => {
                pool.idle_timeout = shape::seconds(check, &node, true).unwrap_or(pool.idle_timeout);
            }
            "requests" => {
                pool.requests = check
                    .small(&node, 1..=i64::from(u32::MAX))
                    .unwrap_or(pool.requests);
            }
            _ => return false,
        }
        true
    });
    pool
}

const WEIGHTS: std::ops::RangeInclusive<i64> = 0..=u32::MAX as i64;

const HASH_VARS: &[&str] = &[
    "uri",
    "server_name",
    "server_addr",
    "request_uri",
    "remote_port",
    "remote_addr",
    "query_string",
    "host",
    "hostname",
];
