//! How one of several nodes is picked. A balancer is one file and one entry in [`BALANCERS`].

pub mod round_robin;

use std::net::IpAddr;

use crate::expr::VarSource;
use crate::kept::Kept;

use super::BuildError;

/// What a balancer may look at of the request.
pub struct PickCtx<'a> {
    /// Client address.
    pub client: IpAddr,
    /// Variables, for balancers that hash one.
    pub vars: &'a dyn VarSource,
}

/// Picks among the nodes of one priority level, by their positions in it. Called per attempt, from
/// many threads at once: it must not lock.
pub trait Balancer: Send + Sync {
    /// A node that `usable` accepts; `None` where there is none. Nodes of weight 0 are never
    /// picked.
    fn pick(&self, ctx: &PickCtx<'_>, usable: &dyn Fn(usize) -> bool) -> Option<usize>;
}

/// What a balancer is built from.
pub struct BalancerParts<'a> {
    /// Weight of each node of the level, in order.
    pub weights: &'a [u32],
    /// Changes when the nodes do: part of the key of kept state.
    pub key: &'a str,
    /// State that outlives snapshots.
    pub kept: &'a Kept,
}

/// A balancer's entry in the list.
pub struct BalancerDef {
    /// APISIX's `type`.
    pub name: &'static str,
    /// Builds it.
    pub build: fn(&BalancerParts<'_>) -> Box<dyn Balancer>,
}

/// All balancers.
pub const BALANCERS: &[BalancerDef] = &[round_robin::DEF];

/// The balancer of that name; the empty name is APISIX's default, `roundrobin`.
///
/// # Errors
/// There is none of that name yet.
pub(super) fn find(name: &str) -> Result<&'static BalancerDef, BuildError> {
    let name = if name.is_empty() { "roundrobin" } else { name };
    let found = BALANCERS.iter().find(|balancer| balancer.name == name);
    found.ok_or(BuildError::UnknownBalancer)
}
