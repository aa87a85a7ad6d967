//! Listeners that expect the PROXY protocol: `apisix.proxy_protocol`, and whom they believe
//! (`claviger.proxy_protocol`).

use ipnet::IpNet;

use super::claviger::unknown;
use super::listen::port;
use super::{entries, net};
use crate::config::check::Check;
use crate::config::node::{At, Node};

/// `apisix.proxy_protocol`: further listeners that expect the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProxyProtocol {
    /// Plain HTTP behind the PROXY protocol.
    pub listen_http_port: Option<u16>,
    /// HTTPS behind the PROXY protocol. Without effect where `apisix.ssl.enable` is off.
    pub listen_https_port: Option<u16>,
    /// Where it stands.
    pub(super) at: Option<At>,
}

/// `claviger.proxy_protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyProtocolExtras {
    /// Who may say whom a connection is from; others are closed. `None` (the default, APISIX) is
    /// whoever reaches the ports, an empty list nobody.
    pub trusted: Option<Vec<IpNet>>,
}

impl ProxyProtocol {
    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        self.at = Some(node.at);
        entries(check, node, |check, key, node| match key {
            "listen_http_port" => self.listen_http_port = port(check, &node),
            "listen_https_port" => self.listen_https_port = port(check, &node),
            "enable_tcp_pp" | "enable_tcp_pp_to_upstream" if check.boolean(&node) == Some(true) => {
                check.warn(node.at, "unsupported", "stream proxying is not supported");
            }
            _ => {}
        });
    }

    /// Findings that only the whole file can tell. `tls` is `apisix.ssl.enable`.
    pub(super) fn check(&self, check: &mut Check, tls: bool, own: &ProxyProtocolExtras) {
        let Some(at) = self.at else {
            return;
        };
        if self.listen_https_port.is_some() && !tls {
            let message = "no effect where apisix.ssl.enable is off";
            check.within("listen_https_port", |check| {
                check.warn(at, "no-effect", message);
            });
        }
        let listens = self.listen_http_port.is_some() || self.listen_https_port.is_some();
        if listens && own.trusted.is_none() {
            check.warn(
                at,
                "proxy-protocol-open",
                "whoever reaches these ports says which address its requests come from; name the \
                 senders in claviger.proxy_protocol.trusted",
            );
        }
    }
}

impl ProxyProtocolExtras {
    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "trusted" => {
                let nodes = check.list(node);
                // Where it cannot be read, nobody: the file is refused anyway.
                self.trusted = Some(
                    nodes
                        .map(|nodes| check.each(nodes, net))
                        .unwrap_or_default(),
                );
            }
            _ => unknown(check, node.at),
        });
    }
}
