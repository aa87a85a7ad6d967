//! What the bootstrap configuration says about serving requests, ready to use.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::held::HeldBytes;
use crate::http::client_addr::{ClientAddr, ForwardedPolicy};
use crate::http::path::PathRules;
use crate::http::request_guard::GuardRules;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// Settings of the proxy; fixed for the life of the process.
pub struct ProxySettings {
    /// Value of the `Server` header.
    pub server: HeaderValue,
    /// How paths are normalised before they are matched.
    pub path_rules: PathRules,
    /// Limits on heads and strictness of framing.
    pub guard: GuardRules,
    /// `underscores_in_headers: off`: fields with an underscore in their name are left out.
    pub drop_underscored: bool,
    /// Who may say who the client is.
    pub client_addr: ClientAddr,
    /// What becomes of forwarding headers.
    pub forwarded: ForwardedPolicy,
    /// How long an idle client connection is kept.
    pub keepalive: Duration,
    /// Longest wait for one read of a request body.
    pub body_timeout: Duration,
    /// Longest wait for one write to the client.
    pub send_timeout: Duration,
    /// Largest request body; 0 is no limit.
    pub max_body_bytes: u64,
    /// Room for request bodies that are held, of all requests together.
    pub held_bytes: Arc<HeldBytes>,
    /// `apisix.show_upstream_status_in_response_header`.
    pub show_upstream_status: bool,
    /// Access log; `None` where it is off.
    pub access_log: Option<AccessLog>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}
