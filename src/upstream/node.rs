//! One node of an upstream: its name, and the addresses behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::HeaderValue;

use super::BuildError;
use super::dns::{HostAddresses, Resolver};
use crate::config::resource::{NodeConfig, Scheme};
use crate::kept::Kept;

/// A node as requests see it.
pub struct Node {
    /// Name or address as configured; IPv6 without brackets.
    pub host: Box<str>,
    /// Port, the scheme's where the configuration names none.
    pub port: u16,
    pub(super) host_header: HeaderValue,
    addresses: Addresses,
    /// Next address to use, of a name that has several.
    turn: AtomicUsize,
}

enum Addresses {
    Fixed(IpAddr),
    Named(Arc<HostAddresses>),
}

impl Node {
    pub(super) fn build(
        config: &NodeConfig,
        scheme: Scheme,
        resolver: &Resolver,
        kept: &Kept,
    ) -> Result<Self, BuildError> {
        let host = config.host.trim_start_matches('[').trim_end_matches(']');
        let port = config.port.unwrap_or(scheme.default_port());
        let fixed = host.parse::<IpAddr>().ok();
        let name = match fixed {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => host.to_owned(),
        };
        // `:port` only where it is not the scheme's own (`spec/00` §4.1).
        let header = if port == scheme.default_port() {
            HeaderValue::try_from(name)
        } else {
            HeaderValue::try_from(format!("{name}:{port}"))
        };
        let addresses = match fixed {
            Some(address) => Addresses::Fixed(address),
            None if is_name(host) => {
                Addresses::Named(resolver.host(kept, &host.to_ascii_lowercase()))
            }
            None => return Err(BuildError::NodeHost),
        };
        Ok(Self {
            host: host.into(),
            port,
            host_header: header.map_err(|_| BuildError::NodeHost)?,
            addresses,
            turn: AtomicUsize::new(0),
        })
    }

    /// What `pass_host: node` sends.
    #[must_use]
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// An address that was not tried yet; names with several addresses take turns.
    pub(super) fn untried(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let free = |address: SocketAddr| (!tried.contains(&address)).then_some(address);
        match &self.addresses {
            Addresses::Fixed(address) => free(SocketAddr::new(*address, self.port)),
            Addresses::Named(host) => {
                let addresses = host.current();
                let turn = match addresses.len() {
                    0 | 1 => 0,
                    _ => self.turn.fetch_add(1, Ordering::Relaxed),
                };
                (0..addresses.len()).find_map(|step| {
                    let address = addresses[turn.wrapping_add(step) % addresses.len()];
                    free(SocketAddr::new(address, self.port))
                })
            }
        }
    }

    /// Whether there is an address that was not tried yet.
    pub(super) fn is_untried(&self, tried: &[SocketAddr]) -> bool {
        let free = |address: &IpAddr| !tried.contains(&SocketAddr::new(*address, self.port));
        match &self.addresses {
            Addresses::Fixed(address) => free(address),
            Addresses::Named(host) => host.current().iter().any(free),
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({}:{})", self.host, self.port)
    }
}

/// RFC 1123 §2.1, and underscores, which many networks use.
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.len() < 254 && host.bytes().all(allowed)
}
