//! `ssls[].on_demand`, which APISIX does not have: certificates that are fetched when a client asks
//! for their name.

use std::time::Duration;

use super::shape::{inner_fields, seconds};
use super::ssl::{SslConfig, SslKind};
use crate::config::check::Check;
use crate::config::node::{At, Node, Tree};

/// How certificates of names are fetched and kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnDemandConfig {
    /// Names kept at most; the one used longest ago goes first. Default 10 000.
    pub max_names: usize,
    /// How long a handshake waits for a fetch. Default 3 s.
    pub timeout: Duration,
    /// How long a name without a certificate is refused without being asked for. Default 60 s.
    pub neg_ttl: Duration,
    /// How long a name is kept that no client asks for. Default 1 h.
    pub idle: Duration,
    /// Names without a certificate that are asked for per second, on average. Default 20.
    pub unknown_per_second: u32,
    /// Such names that may be asked for at once, after a pause. Default 100.
    pub unknown_burst: u32,
    /// Names fetched at the same time. Default 16.
    pub concurrency: usize,
    /// Handshakes that wait at the same time. Default 1024.
    pub waiting: usize,
}

impl Default for OnDemandConfig {
    fn default() -> Self {
        Self {
            max_names: 10_000,
            timeout: Duration::from_secs(3),
            neg_ttl: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
            unknown_per_second: 20,
            unknown_burst: 100,
            concurrency: 16,
            waiting: 1024,
        }
    }
}

/// `true`, or an object of what differs from the defaults; `false` is none.
pub(super) fn parse(check: &mut Check, node: Node) -> Option<OnDemandConfig> {
    let mut config = OnDemandConfig::default();
    match node.tree {
        Tree::Bool(on) => return on.then_some(config),
        Tree::Map(_) => {}
        _ => return check.wrong(&node, "true, false or an object"),
    }
    inner_fields(check, node, |check, key, node| {
        match key {
            "max_names" => set(&mut config.max_names, check.small(&node, 1..=MOST)),
            "timeout" => set(&mut config.timeout, seconds(check, &node, false)),
            "neg_ttl" => set(&mut config.neg_ttl, seconds(check, &node, false)),
            "idle" => set(&mut config.idle, seconds(check, &node, false)),
            "unknown_per_second" => {
                set(&mut config.unknown_per_second, check.small(&node, 1..=MOST));
            }
            "unknown_burst" => set(&mut config.unknown_burst, check.small(&node, 1..=MOST)),
            "concurrency" => set(&mut config.concurrency, check.small(&node, 1..=1000)),
            "waiting" => set(&mut config.waiting, check.small(&node, 1..=100_000)),
            _ => return false,
        }
        true
    });
    Some(config)
}

/// What the item as a whole must be like, once all of it is known.
pub(super) fn check_item(check: &mut Check, ssl: &SslConfig, at: At) {
    let halves = || ssl.pairs.iter().flat_map(|(cert, key)| [cert, key]);
    if ssl.on_demand.is_none() {
        if halves().any(|half| half.contains(NAME)) {
            let message = "{sni} in a reference needs on_demand";
            check.error(at, "conflict", message);
        }
        return;
    }
    if ssl.kind == SslKind::Client {
        let message = "on_demand is for certificates that clients are shown, not for type client";
        check.error(at, "conflict", message);
    }
    if !halves().all(|half| half.contains(NAME)) {
        let message = "with on_demand cert, key, certs and keys are references with {sni} in them";
        check.error(at, "conflict", message);
    }
    if !ssl.snis.iter().all(|name| name.starts_with('*')) {
        let message =
            "with on_demand every name is a wildcard; give other names an item of their own";
        check.error(at, "conflict", message);
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// What stands for the name in a reference (`secrets::reference::Template`).
const NAME: &str = "{sni}";
const MOST: i64 = 1_000_000;
