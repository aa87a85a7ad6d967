//! One node: its address or name, and the `Host` it is asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

use super::dns::{HostAddrs, Resolver};
use crate::config::resource::{NodeConfig, Scheme};

/// A node, ready to be picked.
pub struct Node {
    /// Configured host without brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Share of requests.
    pub weight: u32,
    /// Level; higher first.
    pub priority: i32,
    /// What `pass_host: node` sends: the name, and the port where it is not the scheme's own.
    pub host_header: Option<HeaderValue>,
    address: Address,
}

enum Address {
    Fixed(IpAddr),
    Named(Arc<HostAddrs>),
}

impl Node {
    pub(super) fn build(config: &NodeConfig, scheme: Scheme, resolver: &Resolver) -> Self {
        let port = config.port.unwrap_or(scheme.default_port());
        let host = config.host.trim_start_matches('[').trim_end_matches(']');
        let address = match host.parse() {
            Ok(ip) => Address::Fixed(ip),
            Err(_) => Address::Named(resolver.host(host)),
        };
        let shown = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let shown = if port == scheme.default_port() {
            shown
        } else {
            format!("{shown}:{port}")
        };
        Self {
            host: host.into(),
            port,
            weight: config.weight,
            priority: config.priority,
            host_header: HeaderValue::try_from(shown).ok(),
            address,
        }
    }

    /// The address to connect to; `None` while its name has none.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let ip = match &self.address {
            Address::Fixed(ip) => *ip,
            Address::Named(host) => host.next()?,
        };
        Some(SocketAddr::new(ip, self.port))
    }
}
