//! Upstreams: nodes, the choice among them, and the peer Pingora connects to.

pub mod balancer;
pub mod dns;
pub mod node;
mod peer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::config::resource::{
    KeepalivePoolConfig, PassHost, Scheme, TimeoutConfig, UpstreamConfig,
};
use crate::kept::Kept;
use balancer::{BALANCERS, Balancer};
use dns::Resolver;
use node::Node;
pub use peer::{PeerError, UpstreamTls};

/// Why an upstream cannot be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UpstreamError {
    /// `type` names a balancer that is not built yet.
    #[error("balancer {0} is not available; use roundrobin")]
    UnknownBalancer(String),
    /// Discovery is not built yet.
    #[error("discovery_type {0} is not available; list the nodes")]
    NoDiscovery(String),
    /// `upstream_host` cannot be sent.
    #[error("`upstream_host` is not a valid host")]
    BadHost,
}

/// A chosen node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Where to connect.
    pub addr: SocketAddr,
    node: usize,
}

struct Level {
    nodes: Box<[usize]>,
    balancer: Arc<dyn Balancer>,
}

/// An upstream, ready to be used by requests.
pub struct Upstream {
    nodes: Box<[Node]>,
    /// Highest priority first.
    levels: Box<[Level]>,
    scheme: Scheme,
    pass_host: PassHost,
    upstream_host: Option<HeaderValue>,
    retries: usize,
    retry_timeout: Option<Duration>,
    timeout: TimeoutConfig,
    template: peer::Template,
}

impl Upstream {
    /// Builds an upstream. `key` is stable while its id is (`upstreams/1`, `routes/1`).
    ///
    /// # Errors
    /// It uses something that is not there.
    pub fn build(
        key: &str,
        config: &UpstreamConfig,
        tls: UpstreamTls,
        keepalive: KeepalivePoolConfig,
        resolver: &Resolver,
        kept: &Kept,
    ) -> Result<Self, UpstreamError> {
        if let Some(kind) = &config.discovery_type {
            return Err(UpstreamError::NoDiscovery(kind.clone()));
        }
        let name = if config.balancer.is_empty() {
            "roundrobin"
        } else {
            &config.balancer
        };
        let balancer = BALANCERS
            .iter()
            .find(|balancer| balancer.name == name)
            .ok_or_else(|| UpstreamError::UnknownBalancer(name.to_owned()))?;
        let upstream_host = config.upstream_host.as_deref().map(HeaderValue::try_from);
        let upstream_host = upstream_host
            .transpose()
            .map_err(|_| UpstreamError::BadHost)?;

        let nodes: Box<[Node]> = config
            .nodes
            .iter()
            .map(|node| Node::build(node, config.scheme, resolver))
            .collect();
        let mut by_priority: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.weight > 0) {
            by_priority.entry(node.priority).or_default().push(index);
        }
        let levels = by_priority.into_iter().rev().map(|(priority, members)| {
            let level: Vec<&Node> = members.iter().map(|index| &nodes[*index]).collect();
            let identity: Vec<String> = level
                .iter()
                .map(|node| format!("{}:{}={}", node.host, node.port, node.weight))
                .collect();
            let key = format!("{key}/{name}/{priority}/{}", identity.join(","));
            Level {
                nodes: members.into(),
                balancer: (balancer.build)(&level, &key, kept),
            }
        });
        Ok(Self {
            levels: levels.collect(),
            retries: config
                .retries
                .map_or(nodes.len().saturating_sub(1), |retries| retries as usize),
            nodes,
            scheme: config.scheme,
            pass_host: config.pass_host,
            upstream_host,
            retry_timeout: config.retry_timeout.filter(|limit| !limit.is_zero()),
            timeout: config.timeout.unwrap_or_default(),
            template: peer::Template::build(
                config,
                tls,
                config.keepalive_pool.unwrap_or(keepalive),
            ),
        })
    }

    /// The node for the next attempt, given the addresses this request has tried. A lower level
    /// is used once every node of the higher ones was tried or has no address.
    #[must_use]
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Picked> {
        self.levels.iter().find_map(|level| {
            // In turn first: one turn for each node, so that a tried one is passed over.
            let turns = (0..level.nodes.len()).filter_map(|_| level.balancer.next());
            // Weights may have given all those turns to tried nodes.
            let rest = 0..level.nodes.len();
            turns.chain(rest).find_map(|turn| {
                let node = level.nodes[turn];
                let addr = self.nodes[node].address()?;
                (!tried.contains(&addr)).then_some(Picked { addr, node })
            })
        })
    }

    /// Whether another attempt is allowed after `attempts`, `elapsed` after the first began.
    #[must_use]
    pub fn may_retry(&self, attempts: usize, elapsed: Duration) -> bool {
        attempts <= self.retries && self.retry_timeout.is_none_or(|limit| elapsed < limit)
    }

    /// The `Host` to send; `None` leaves the client's.
    #[must_use]
    pub fn host_header<'a>(
        &'a self,
        picked: &Picked,
        override_host: Option<&'a HeaderValue>,
    ) -> Option<&'a HeaderValue> {
        override_host.or(match self.pass_host {
            PassHost::Pass => None,
            PassHost::Node => self.nodes[picked.node].host_header.as_ref(),
            PassHost::Rewrite => self.upstream_host.as_ref(),
        })
    }

    /// `http`, `https`, `grpc` or `grpcs`.
    #[must_use]
    pub const fn scheme_name(&self) -> &'static str {
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Grpc => "grpc",
            Scheme::Grpcs => "grpcs",
        }
    }
}
