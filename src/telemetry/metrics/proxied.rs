//! Connections of listeners that expect the PROXY protocol.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::page::{Collect, Kind, Page};

/// Label `result` of `claviger_proxy_protocol_connections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxiedOutcome {
    /// The header named the client.
    Relayed,
    /// The header named nobody: the sender speaks for itself, or for what has no IP address.
    Direct,
    /// The sender is none that may send a header.
    Untrusted,
    /// No valid header came.
    Malformed,
    /// The header did not come in time.
    Timeout,
    /// The sender went away before it was whole.
    Closed,
}

impl ProxiedOutcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Relayed,
        Self::Direct,
        Self::Untrusted,
        Self::Malformed,
        Self::Timeout,
        Self::Closed,
    ];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Direct => "direct",
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// Counts them. Share it in an `Arc`.
#[derive(Debug, Default)]
pub struct ProxiedCounts([AtomicU64; ProxiedOutcome::ALL.len()]);

impl ProxiedCounts {
    /// One connection's header was read, or not.
    pub fn count(&self, outcome: ProxiedOutcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }
}

impl Collect for ProxiedCounts {
    fn collect(&self, page: &mut Page) {
        page.family(
            "claviger_proxy_protocol_connections_total",
            "Connections of listeners that expect the PROXY protocol, by what became of its header.",
            Kind::Counter,
        );
        for (outcome, counter) in ProxiedOutcome::ALL.iter().zip(&self.0) {
            page.integer(&[("result", outcome.label())], counter.load(Relaxed));
        }
    }
}
