//! From a request to a node: which one, under which name, over which kind of connection, and
//! whether to try again. Built once per snapshot; a pick neither locks nor allocates.
//! Resolves no name and reads no secret: `dns` does the former in the background, and TLS
//! material comes in resolved.

pub mod balancer;
pub mod dns;
mod node;
mod peer;
mod proof;
pub mod retry;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;

use crate::config::resource::upstream::KeepalivePoolConfig;
use crate::config::resource::{NodeConfig, PassHost, Scheme, TimeoutConfig, UpstreamConfig};
use crate::kept::Kept;

pub use balancer::{BALANCERS, Balancer, PickCtx};
pub use dns::{DnsConfig, DnsError, Resolver};
pub use node::Node;
pub use peer::{PeerError, UpstreamTls, Wish};
pub use proof::AddressProof;
pub use retry::{Failure, RetryPolicy};

use balancer::BalancerParts;
use peer::PeerTemplate;

/// Why an upstream was refused. Names no value.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `type` names a balancer that is not built yet.
    #[error("this balancer is not supported yet, expected `roundrobin`")]
    UnknownBalancer,
    /// A node's host.
    #[error("expected a node host that is an address or a name")]
    NodeHost,
    /// `pass_host: rewrite` without a usable `upstream_host`.
    #[error("`upstream_host` can't be empty when `pass_host` is `rewrite`")]
    UpstreamHost,
    /// Nodes from discovery.
    #[error("service discovery is not supported yet, expected `nodes`")]
    Discovery,
    /// A certificate that OpenSSL cannot digest.
    #[error("certificate is not usable")]
    Certificate(#[source] openssl::error::ErrorStack),
}

impl BuildError {
    /// The field that was refused.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::UnknownBalancer => "type",
            Self::NodeHost => "nodes",
            Self::UpstreamHost => "upstream_host",
            Self::Discovery => "discovery_type",
            Self::Certificate(_) => "tls",
        }
    }
}

/// What an upstream is built from besides its declaration.
pub struct UpstreamParts<'a> {
    /// Stable and unique: `upstreams/1`, `routes/7/upstream`.
    pub id: &'a str,
    /// Resolved TLS material; not looked at for `http` and `grpc`.
    pub tls: UpstreamTls,
    /// For upstreams without a `keepalive_pool` of their own.
    pub keepalive: KeepalivePoolConfig,
    /// Resolves named nodes.
    pub resolver: &'a Resolver,
    /// State that outlives snapshots.
    pub kept: &'a Kept,
}

/// A running upstream. Variants for routes share nodes and balancer.
pub struct Upstream {
    shared: Arc<Shared>,
    template: PeerTemplate,
}

struct Shared {
    id: Box<str>,
    scheme: Scheme,
    host: HostRule,
    retry: RetryPolicy,
    timeout: TimeoutConfig,
    /// Highest priority first; no level is empty.
    levels: Box<[Level]>,
}

struct Level {
    nodes: Box<[Arc<Node>]>,
    weights: Box<[u32]>,
    balancer: Box<dyn Balancer>,
}

enum HostRule {
    Client,
    Node,
    Rewrite(HeaderValue),
}

/// A picked node and the address to use.
#[derive(Debug, Clone)]
pub struct Picked {
    /// Where to connect.
    pub addr: SocketAddr,
    /// The node it belongs to.
    pub node: Arc<Node>,
}

impl Upstream {
    /// Builds an upstream. Named nodes are made known to the resolver, which must settle before
    /// the snapshot is published. Of `keepalive_pool`, `idle_timeout` holds per connection (zero
    /// keeps none); `size` is Pingora's global pool's, set by the server; `requests` has no
    /// counterpart in Pingora and is not enforced.
    ///
    /// # Errors
    /// The declaration asks for what cannot be run; see [`BuildError::field`].
    pub fn build(config: &UpstreamConfig, parts: &UpstreamParts<'_>) -> Result<Self, BuildError> {
        if config.service_name.is_some() || config.discovery_type.is_some() {
            return Err(BuildError::Discovery);
        }
        let host = match (config.pass_host, &config.upstream_host) {
            (PassHost::Pass, _) => HostRule::Client,
            (PassHost::Node, _) => HostRule::Node,
            (PassHost::Rewrite, Some(host)) if !host.is_empty() => {
                HostRule::Rewrite(host.parse().map_err(|_| BuildError::UpstreamHost)?)
            }
            (PassHost::Rewrite, _) => return Err(BuildError::UpstreamHost),
        };
        let keepalive = config.keepalive_pool.unwrap_or(parts.keepalive);
        let timeout = config.timeout.unwrap_or_default();
        let template =
            PeerTemplate::build(parts.id, config.scheme, &parts.tls, &keepalive, &timeout)?;
        let nodes = u32::try_from(config.nodes.len()).unwrap_or(u32::MAX);
        let shared = Shared {
            id: parts.id.into(),
            scheme: config.scheme,
            host,
            retry: RetryPolicy {
                retries: config.retries.unwrap_or(nodes.saturating_sub(1)),
                timeout: config.retry_timeout.filter(|timeout| !timeout.is_zero()),
            },
            timeout,
            levels: levels(config, parts)?,
        };
        Ok(Self {
            shared: Arc::new(shared),
            template,
        })
    }

    /// The same upstream as a route uses it: with the route's timeouts, if it has any, and with
    /// WebSocket upgrades passed on or not. Made at load; a route that changes nothing shares it.
    #[must_use]
    pub fn for_route(
        self: &Arc<Self>,
        timeout: Option<&TimeoutConfig>,
        websocket: bool,
    ) -> Arc<Self> {
        if timeout.is_none() && !websocket {
            return Arc::clone(self);
        }
        let timeout = timeout.unwrap_or(&self.shared.timeout);
        Arc::new(Self {
            shared: self.shared.clone(),
            template: self.template.with(timeout, websocket),
        })
    }

    /// The id it was built under.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Protocol spoken to the nodes.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.shared.scheme
    }

    /// Bounds on tries.
    #[must_use]
    pub fn retries(&self) -> &RetryPolicy {
        &self.shared.retry
    }

    /// All nodes, highest priority first.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.shared.levels.iter().flat_map(|level| &level.nodes)
    }

    /// A node that was not tried yet. `None` without any try means that there is no usable node
    /// (503); after a try, that all were tried (the last failure decides).
    #[must_use]
    pub fn pick(&self, tried: &[SocketAddr], ctx: &PickCtx<'_>) -> Option<Picked> {
        self.shared.levels.iter().find_map(|level| {
            let usable =
                |node: usize| level.weights[node] > 0 && level.nodes[node].is_untried(tried);
            let node = &level.nodes[level.balancer.pick(ctx, &usable)?];
            // An answer of DNS may change between the two looks; then this level is passed over.
            let addr = node.untried(tried)?;
            Some(Picked {
                addr,
                node: node.clone(),
            })
        })
    }

    /// The `Host` to send to that node; `None` leaves the client's as received.
    #[must_use]
    pub fn host_for<'a>(&'a self, node: &'a Node) -> Option<&'a HeaderValue> {
        match &self.shared.host {
            HostRule::Client => None,
            HostRule::Node => Some(&node.host_header),
            HostRule::Rewrite(host) => Some(host),
        }
    }

    /// How to connect to a picked node. `host` is the `Host` that will be sent, whoever chose it:
    /// TLS asks the node for that name.
    ///
    /// # Errors
    /// The node is to be verified, but `host` is no name.
    pub fn peer(
        &self,
        picked: &Picked,
        host: &str,
        wish: Wish,
    ) -> Result<Box<HttpPeer>, PeerError> {
        self.template.peer(picked.addr, host, wish)
    }
}

fn levels(config: &UpstreamConfig, parts: &UpstreamParts<'_>) -> Result<Box<[Level]>, BuildError> {
    let balancer = balancer::find(&config.balancer)?;
    let mut by_priority: BTreeMap<Reverse<i32>, Vec<&NodeConfig>> = BTreeMap::new();
    for node in &config.nodes {
        by_priority
            .entry(Reverse(node.priority))
            .or_default()
            .push(node);
    }
    let levels = by_priority.into_iter().map(|(Reverse(priority), configs)| {
        let weights: Box<[u32]> = configs.iter().map(|node| node.weight).collect();
        let mut key = format!("upstream/{}/{priority}", parts.id);
        for node in &configs {
            write!(key, "/{}:{:?}={}", node.host, node.port, node.weight)
                .expect("writing into a string cannot fail");
        }
        let nodes: Result<Box<[_]>, _> = configs
            .iter()
            .map(|node| Node::build(node, config.scheme, parts.resolver, parts.kept).map(Arc::new))
            .collect();
        Ok(Level {
            nodes: nodes?,
            balancer: (balancer.build)(&BalancerParts {
                weights: &weights,
                key: &key,
                kept: parts.kept,
            }),
            weights,
        })
    });
    levels.collect()
}
