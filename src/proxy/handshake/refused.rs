//! Handshakes that ended before any certificate was chosen, counted by reason.

use std::sync::atomic::AtomicU64;

/// How handshakes were refused before any certificate was chosen.
#[derive(Debug, Default)]
pub struct RefusedHandshakes {
    /// No name sent and no fallback.
    pub no_name: AtomicU64,
    /// A name that no item declares.
    pub unknown_name: AtomicU64,
    /// A name no certificate can have, or an extension that does not parse.
    pub bad_name: AtomicU64,
    /// A name whose item cannot serve.
    pub refused_item: AtomicU64,
    /// A name whose item has no certificate that is valid now.
    pub expired: AtomicU64,
}
