//! The swap cell: one atomic store publishes a snapshot, one atomic load takes it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::snapshot::Snapshot;

/// Where requests and handshakes take the newest snapshot from. Empty before the first one.
#[derive(Default)]
pub struct SnapshotCell(ArcSwapOption<Snapshot>);

impl SnapshotCell {
    /// An empty cell.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }

    /// Replaces it. Requests under way keep the one they took.
    pub(super) fn publish(&self, snapshot: Arc<Snapshot>) {
        self.0.store(Some(snapshot));
    }
}
