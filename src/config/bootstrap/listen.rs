//! Addresses in `config.yaml`.

use std::net::{IpAddr, SocketAddr};

use super::entries;
use crate::config::check::Check;
use crate::config::node::{Node, Tree};

/// One address to listen on. `None` as address is every address, IPv6 too with `enable_ipv6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address; `None` is all.
    pub ip: Option<IpAddr>,
    /// Port.
    pub port: u16,
}

impl Listen {
    pub(super) const fn all(port: u16) -> Self {
        Self { ip: None, port }
    }
}

/// A number, or a list of ports and `{ip, port}`.
pub(super) fn listen(check: &mut Check, node: Node) -> Option<Vec<Listen>> {
    match node.tree {
        Tree::Int(_) => port(check, &node).map(|port| vec![Listen::all(port)]),
        Tree::List(nodes) => Some(check.each(nodes, |check, node| {
            if matches!(node.tree, Tree::Int(_)) {
                return port(check, &node).map(Listen::all);
            }
            let at = node.at;
            let (mut address, mut number) = (None, None);
            entries(check, node, |check, key, node| match key {
                "ip" => address = ip(check, node),
                "port" => number = port(check, &node),
                "enable_http3" if check.boolean(&node) == Some(true) => {
                    check.warn(node.at, "unsupported", "HTTP/3 is not supported");
                }
                _ => {}
            });
            if number.is_none() {
                check.error(at, "missing-field", "expected a port");
            }
            Some(Listen {
                ip: address,
                port: number?,
            })
        })),
        _ => check.wrong(&node, "a number or a list"),
    }
}

/// A TCP port.
pub(super) fn port(check: &mut Check, node: &Node) -> Option<u16> {
    check.small(node, 1..=65535)
}

fn ip(check: &mut Check, node: Node) -> Option<IpAddr> {
    let at = node.at;
    let text = check.text(node)?;
    let parsed = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok();
    if parsed.is_none() {
        check.error(at, "invalid-value", "expected an IP address");
    }
    parsed
}

/// A DNS server, on port 53 unless it names another.
pub(super) fn resolver(check: &mut Check, node: Node) -> Option<SocketAddr> {
    let at = node.at;
    let text = check.text(node)?;
    let with_port = || {
        text.trim_matches(['[', ']'])
            .parse()
            .ok()
            .map(|ip| SocketAddr::new(ip, 53))
    };
    let parsed = text.parse().ok().or_else(with_port);
    if parsed.is_none() {
        check.error(
            at,
            "invalid-value",
            "expected an IP address, with or without a port",
        );
    }
    parsed
}

/// `{ip, port}` over a default.
pub(super) fn socket(check: &mut Check, node: Node, address: &mut SocketAddr) {
    entries(check, node, |check, key, node| match key {
        "ip" => {
            if let Some(ip) = ip(check, node) {
                address.set_ip(ip);
            }
        }
        "port" => {
            if let Some(port) = port(check, &node) {
                address.set_port(port);
            }
        }
        _ => {}
    });
}
