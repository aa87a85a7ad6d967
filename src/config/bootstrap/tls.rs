//! `claviger.tls` of `config.yaml`: what APISIX has no setting for.

use std::time::Duration;

use super::claviger::unknown;
use super::units::duration;
use super::{entries, set};
use crate::config::check::Check;
use crate::config::node::{At, Node};
use crate::config::resource::is_reference;

/// `claviger.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsExtras {
    /// For a whole handshake, from the connection's first moment. Default 10 s.
    pub handshake_timeout: Duration,
    /// Handshakes in flight of one client address; the next one is closed. Default 256; 0 is no
    /// limit.
    pub handshakes_per_address: usize,
    /// A certificate that ends sooner is warned about. Default 14 days.
    pub expiry_notice: Duration,
    /// Whether certificates are presented past their end, for want of better. Default false.
    pub serve_expired: bool,
    /// Keys of session tickets.
    pub session_tickets: TicketSettings,
}

impl Default for TlsExtras {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_per_address: 256,
            expiry_notice: Duration::from_secs(14 * 24 * 3600),
            serve_expired: false,
            session_tickets: TicketSettings::default(),
        }
    }
}

/// `claviger.tls.session_tickets`. Tickets themselves are switched by
/// `apisix.ssl.ssl_session_tickets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketSettings {
    /// Reference to the keys that a fleet shares; `None` makes random ones per process.
    pub keys: Option<String>,
    /// How long a random key makes tickets before the next one does. Default 12 h; at least 1 s.
    pub rotate: Duration,
    /// Where `keys` stands.
    pub(super) keys_at: At,
}

impl Default for TicketSettings {
    fn default() -> Self {
        Self {
            keys: None,
            rotate: Duration::from_secs(12 * 3600),
            keys_at: At::default(),
        }
    }
}

impl TlsExtras {
    pub(super) fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "handshake_timeout" => set(&mut self.handshake_timeout, duration(check, &node)),
            "handshakes_per_address" => set(
                &mut self.handshakes_per_address,
                check.small(&node, 0..=i64::MAX),
            ),
            "expiry_notice" => set(&mut self.expiry_notice, duration(check, &node)),
            "serve_expired" => set(&mut self.serve_expired, check.boolean(&node)),
            "session_tickets" => self.session_tickets.decode(check, node),
            _ => unknown(check, node.at),
        });
    }
}

impl TicketSettings {
    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "keys" => {
                self.keys_at = node.at;
                self.keys = check.text(node);
                if self.keys.as_deref().is_some_and(|keys| !is_reference(keys)) {
                    let message =
                        "expected a reference, such as $secret://vault/main/edge/tickets/keys";
                    check.error(self.keys_at, "invalid-value", message);
                }
            }
            "rotate" => {
                let at = node.at;
                let rotate = duration(check, &node);
                if rotate.is_some_and(|rotate| rotate < SHORTEST_ROTATION) {
                    check.error(at, "invalid-value", "expected at least 1s");
                }
                set(&mut self.rotate, rotate);
            }
            _ => unknown(check, node.at),
        });
    }
}

const SHORTEST_ROTATION: Duration = Duration::from_secs(1);
