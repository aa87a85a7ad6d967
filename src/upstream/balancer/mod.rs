//! Balancers: which node is next. Tables are immutable; only positions move.

mod round_robin;

use std::sync::Arc;

use round_robin::RoundRobin;

use super::node::Node;
use crate::kept::Kept;

/// Chooses among the nodes of one priority level.
pub trait Balancer: Send + Sync {
    /// Index of the node for the next request; `None` where no node has weight.
    fn next(&self) -> Option<usize>;
}

/// A balancer's entry in [`BALANCERS`].
pub struct BalancerDef {
    /// APISIX's name (`upstream.type`).
    pub name: &'static str,
    /// Builds it for one level. The key is stable while the nodes are, for kept positions.
    pub build: fn(nodes: &[&Node], key: &str, kept: &Kept) -> Arc<dyn Balancer>,
}

/// Every balancer there is.
pub const BALANCERS: &[BalancerDef] = &[BalancerDef {
    name: "roundrobin",
    build: |nodes, key, kept| {
        let weights: Vec<u32> = nodes.iter().map(|node| node.weight).collect();
        Arc::new(RoundRobin::build(
            &weights,
            kept.entry(key, round_robin::start),
        ))
    },
}];
