//! Handshakes that ended before any certificate was chosen, counted by reason.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::telemetry::LineBudget;

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
    /// Bounds the lines about them.
    pub lines: Arc<LineBudget>,
}

impl RefusedHandshakes {
    /// One line about a refusal, unless there were too many of late.
    pub(super) fn say(&self, what: fmt::Arguments<'_>) {
        if log::log_enabled!(log::Level::Warn)
            && let Some(held_back) = self.lines.admit()
        {
            log::warn!("{what}{held_back}");
        }
    }
}
