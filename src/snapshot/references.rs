//! The references a configuration holds, who uses each, and how one without value is told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::substitute::Missing;
use super::{Snapshot, certificates, substitute, upstreams};
use crate::config::Documents;
use crate::config::resource::PluginMap;
use crate::diagnostic::Severity;
use crate::secrets::Reference;
use crate::secrets::reference::Target;

/// How a reference without value is told.
pub(super) fn unresolved(
    missing: &Missing,
    documents: &Documents,
) -> (Severity, &'static str, String) {
    match Reference::parse(&missing.reference) {
        Err(error) => (Severity::Error, "bad-reference", error.to_string()),
        Ok(reference) => match reference.target() {
            Target::Managed(key)
                if !documents.secrets.iter().any(|item| item.id == key.manager) =>
            {
                let message = format!(
                    "expected a reference into a declared manager; there is no valid item secrets/{}",
                    key.manager
                );
                (Severity::Error, "missing-manager", message)
            }
            _ => (Severity::Warning, UNRESOLVED, missing.to_string()),
        },
    }
}

/// Code of the finding that a reference has no value at present.
pub const UNRESOLVED: &str = "unresolved-reference";

/// Codes of all findings about references without value.
const WITHOUT_VALUE: &[&str] = &[UNRESOLVED, "bad-reference", "missing-manager"];

impl Snapshot {
    /// How many references have no value.
    #[must_use]
    pub fn unresolved(&self) -> usize {
        let codes = self.diagnostics.iter().map(|found| found.code);
        codes.filter(|code| WITHOUT_VALUE.contains(code)).count()
    }
}

/// Every reference the documents hold.
#[must_use]
pub fn references(documents: &Documents) -> BTreeSet<Arc<str>> {
    let mut found = BTreeSet::new();
    visit(documents, &mut |_, _, reference| {
        if !found.contains(reference) {
            found.insert(reference.into());
        }
    });
    found
}

/// Every reference the documents hold, and who uses it. For people who ask.
#[must_use]
pub fn users(documents: &Documents) -> HashMap<Arc<str>, Vec<Arc<str>>> {
    let mut users: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::new();
    visit(documents, &mut |kind, id, reference| {
        let user: Arc<str> = format!("{kind}/{id}").into();
        let known = users.entry(reference.into()).or_default();
        if !known.contains(&user) {
            known.push(user);
        }
    });
    users
}

/// Calls `found` with kind, id and reference, for every reference.
fn visit(documents: &Documents, found: &mut dyn FnMut(&str, &str, &str)) {
    visit_consumers(documents, &mut |_, id, reference| {
        found("consumers", id, reference);
    });
    visit_rest(documents, found);
}

/// Calls `found` with row, id and reference, for every reference of consumers and, in the rows
/// behind them, of credentials.
pub(super) fn visit_consumers(documents: &Documents, found: &mut dyn FnMut(usize, &str, &str)) {
    let consumers = documents.consumers.iter();
    let consumers = consumers.map(|item| (&item.id, &item.value.plugins));
    let credentials = documents.credentials.iter();
    let credentials = credentials.map(|item| (&item.id, &item.value.plugins));
    for (row, (id, plugins)) in consumers.chain(credentials).enumerate() {
        for (_, settings) in plugins.iter() {
            substitute::visit_settings(settings, &mut |reference| found(row, id, reference));
        }
    }
}

/// Calls `found` with kind, id and reference, for every reference elsewhere.
pub(super) fn visit_rest(documents: &Documents, found: &mut dyn FnMut(&str, &str, &str)) {
    let maps = |kind: &str, id: &str, map: &PluginMap, found: &mut dyn FnMut(&str, &str, &str)| {
        for (_, settings) in map.iter() {
            substitute::visit_settings(settings, &mut |reference| found(kind, id, reference));
        }
    };
    for item in &documents.routes {
        maps("routes", &item.id, &item.value.plugins, found);
        upstreams::visit(item.value.upstream.as_ref(), &mut |reference| {
            found("routes", &item.id, reference);
        });
    }
    for item in &documents.services {
        maps("services", &item.id, &item.value.plugins, found);
        upstreams::visit(item.value.upstream.as_ref(), &mut |reference| {
            found("services", &item.id, reference);
        });
    }
    for item in &documents.upstreams {
        upstreams::visit(Some(&item.value), &mut |reference| {
            found("upstreams", &item.id, reference);
        });
    }
    let sets = [
        ("plugin_configs", &documents.plugin_configs),
        ("consumer_groups", &documents.consumer_groups),
        ("global_rules", &documents.global_rules),
    ];
    for (kind, items) in sets {
        for item in items {
            maps(kind, &item.id, &item.value.plugins, found);
        }
    }
    for item in &documents.ssls {
        certificates::visit(&item.value, &mut |reference| {
            found("ssls", &item.id, reference)
        });
    }
    for item in &documents.plugin_metadata {
        substitute::visit(&item.value, &mut |reference| {
            found("plugin_metadata", &item.id, reference);
        });
    }
}
