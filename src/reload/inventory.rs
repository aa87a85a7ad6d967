//! Which versions of documents came into use without being adopted: the first values of a
//! process, and those of references that a configuration adds.

use std::collections::HashSet;
use std::sync::Arc;

use crate::secrets::Secrets;
use crate::telemetry::Audit;

/// What the audit log was told of, by manager, path and version.
#[derive(Default)]
pub(super) struct Inventory(HashSet<(Arc<str>, Arc<str>, Arc<str>)>);

impl Inventory {
    /// Tells the log of documents in use that it does not know yet. Those of managers that keep no
    /// versions are left out.
    pub(super) fn tell(&mut self, audit: &Audit, secrets: &Secrets) {
        let mut in_use = HashSet::new();
        for reference in secrets.report() {
            let Some(version) = reference.manager_version else {
                continue;
            };
            if reference.version.is_some() {
                in_use.insert((reference.manager, reference.path, version));
            }
        }
        let mut new: Vec<_> = in_use.difference(&self.0).cloned().collect();
        new.sort();
        for (manager, path, version) in new {
            let fields = vec![
                ("manager", manager.into()),
                ("path", path.into()),
                ("manager_version", version.into()),
            ];
            audit.record("in_use", fields);
        }
        self.0 = in_use;
    }
}
