//! `ssls[].ocsp_stapling`, the field of the plugin `ocsp-stapling`.

use std::time::Duration;

use super::shape::inner_fields;
use super::ssl::{SslConfig, SslKind};
use crate::config::check::Check;
use crate::config::node::{At, Node};

/// How responses about an item's certificates are fetched and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OcspStaplingConfig {
    /// Whether responses are taken whatever their signature. Default false.
    pub skip_verify: bool,
    /// How long a response is used at most. Default 3600 s, at least 60 s.
    pub cache_ttl: Duration,
}

/// What is asked for; `None` where `enabled` is false, as it is by default.
pub(super) fn parse(check: &mut Check, node: Node) -> Option<OcspStaplingConfig> {
    let mut enabled = false;
    let mut config = OcspStaplingConfig {
        skip_verify: false,
        cache_ttl: Duration::from_secs(3600),
    };
    inner_fields(check, node, |check, key, node| {
        match key {
            "enabled" => enabled = check.boolean(&node).unwrap_or_default(),
            "skip_verify" => config.skip_verify = check.boolean(&node).unwrap_or_default(),
            "cache_ttl" => {
                if let Some(seconds) = check.small(&node, LEAST_TTL..=i64::from(u32::MAX)) {
                    config.cache_ttl = Duration::from_secs(seconds);
                }
            }
            _ => return false,
        }
        true
    });
    enabled.then_some(config)
}

/// What the item as a whole must be like, once all of it is known. Where nothing can be stapled
/// nothing is asked for.
pub(super) fn check_item(check: &mut Check, ssl: &mut SslConfig, at: At) {
    if ssl.ocsp_stapling.is_none() {
        return;
    }
    let message = if ssl.kind == SslKind::Client {
        "ocsp_stapling is for certificates that clients are shown, not for type client: it has no \
         effect"
    } else if ssl.on_demand.is_some() {
        "ocsp_stapling has no effect together with on_demand: nothing is stapled"
    } else {
        return;
    };
    check.warn(at, "unsupported", message);
    ssl.ocsp_stapling = None;
}

/// As APISIX has it.
const LEAST_TTL: i64 = 60;
