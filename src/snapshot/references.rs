//! The references a configuration holds, who uses each, and how one without value is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::substitute::{Fault, Missing};
use super::{certificates, substitute, upstreams};
use crate::config::Documents;
use crate::config::resource::{Item, PluginMap, Settings, UpstreamConfig};
use crate::diagnostic::{Place, Severity};
use crate::secrets::Reference;
use crate::secrets::reference::Target;

/// How a reference without value is told.
pub(super) fn unresolved(
    missing: &Missing,
    documents: &Documents,
) -> (Severity, &'static str, String) {
    match Reference::parse(&missing.reference) {
        _ if missing.fault == Fault::Name => {
            let message = missing.why.to_string();
            (Severity::Error, "misplaced-reference", message)
        }
        _ if missing.fault == Fault::Misfit => {
            (Severity::Error, "secret-value", missing.why.to_string())
        }
        Err(error) => (Severity::Error, "bad-reference", error.to_string()),
        Ok(reference) => match reference.target() {
            Target::Managed(key)
                if !documents.secrets.iter().any(|item| item.id == key.manager) =>
            {
                let message = format!(
                    "expected a reference into a declared manager; there is no valid item secrets/{}",
                    key.manager
                );
                (Severity::Error, MISSING_MANAGER, message)
            }
            _ => (Severity::Warning, UNRESOLVED, missing.to_string()),
        },
    }
}

/// Code of the finding that a reference has no value at present.
pub const UNRESOLVED: &str = "unresolved-reference";

/// Code of the finding that a reference names a manager that is not declared.
pub const MISSING_MANAGER: &str = "missing-manager";

/// Whether findings of this code are about references without value.
#[must_use]
pub fn is_about_value(code: &str) -> bool {
    WITHOUT_VALUE.contains(&code)
}

/// Codes of all findings about references without value.
const WITHOUT_VALUE: &[&str] = &[UNRESOLVED, "bad-reference", MISSING_MANAGER];

/// Every reference the documents hold, those of managers' own fields aside.
#[must_use]
pub fn references(documents: &Documents) -> BTreeSet<Arc<str>> {
    let mut found = BTreeSet::new();
    holders(documents, &mut |_, holder| {
        holder.references(&mut |reference| {
            if !found.contains(reference) {
                found.insert(reference.into());
            }
        });
    });
    found
}

/// The object a reference stands in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// Its list, such as `routes`.
    pub kind: &'static str,
    /// Its id.
    pub id: &'a str,
    /// Where it starts.
    pub place: &'a Place,
}

/// A part of an object that may hold references.
#[derive(Clone, Copy)]
pub(super) enum Holder<'a> {
    /// A plugin of this name.
    Plugin(&'a str, &'a Settings),
    /// One text under this field.
    Text(&'a str, &'a str),
    /// A tree.
    Json(&'a Value),
}

impl Holder<'_> {
    /// Calls `found` with each reference.
    pub(super) fn references(&self, found: &mut dyn FnMut(&str)) {
        match self {
            Self::Plugin(_, settings) => substitute::visit_settings(settings, found),
            Self::Text(_, text) if Reference::is_reference(text) => found(text),
            Self::Text(..) => {}
            Self::Json(json) => substitute::visit(json, found),
        }
    }

    /// Calls `found` with the dotted path of each reference and itself. Dearer: for people who
    /// ask, and for what went wrong.
    pub(super) fn fields(&self, found: &mut dyn FnMut(&str, &str)) {
        match self {
            Self::Plugin(name, settings) => {
                let mut any = false;
                substitute::visit_settings(settings, &mut |_| any = true);
                if any {
                    fields_of(&settings.json(), &mut format!("plugins.{name}"), found);
                }
            }
            Self::Text(field, text) if Reference::is_reference(text) => found(field, text),
            Self::Text(..) => {}
            Self::Json(json) => fields_of(json, &mut String::new(), found),
        }
    }
}

fn fields_of(json: &Value, path: &mut String, found: &mut dyn FnMut(&str, &str)) {
    let mut below = |name: &str, member: &Value| {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        fields_of(member, path, found);
        path.truncate(length);
    };
    match json {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| below(&index.to_string(), item));
        }
        Value::Object(members) => members.iter().for_each(|(name, item)| below(name, item)),
        Value::String(text) if Reference::is_reference(text) => found(path, text),
        _ => {}
    }
}

/// Calls `found` with every part of the documents that may hold references to be resolved.
pub(super) fn holders(documents: &Documents, found: &mut dyn FnMut(Owner<'_>, Holder<'_>)) {
    consumer_holders(documents, &mut |_, owner, holder| found(owner, holder));
    other_holders(documents, found);
}

/// The same for consumers and, in the rows behind them, credentials; with the row.
pub(super) fn consumer_holders(
    documents: &Documents,
    found: &mut dyn FnMut(usize, Owner<'_>, Holder<'_>),
) {
    for (row, item) in documents.consumers.iter().enumerate() {
        let mut found = |owner: Owner<'_>, holder: Holder<'_>| found(row, owner, holder);
        plugins(owner("consumers", item), &item.value.plugins, &mut found);
    }
    let count = documents.consumers.len();
    for (place, item) in documents.credentials.iter().enumerate() {
        let mut found = |owner: Owner<'_>, holder: Holder<'_>| found(count + place, owner, holder);
        plugins(owner("consumers", item), &item.value.plugins, &mut found);
    }
}

/// The same for all the others.
pub(super) fn other_holders(documents: &Documents, found: &mut dyn FnMut(Owner<'_>, Holder<'_>)) {
    for item in &documents.routes {
        let owner = owner("routes", item);
        plugins(owner, &item.value.plugins, found);
        upstream(owner, item.value.upstream.as_ref(), "upstream.", found);
    }
    for item in &documents.services {
        let owner = owner("services", item);
        plugins(owner, &item.value.plugins, found);
        upstream(owner, item.value.upstream.as_ref(), "upstream.", found);
    }
    for item in &documents.upstreams {
        upstream(owner("upstreams", item), Some(&item.value), "", found);
    }
    let sets = [
        ("plugin_configs", &documents.plugin_configs),
        ("consumer_groups", &documents.consumer_groups),
        ("global_rules", &documents.global_rules),
    ];
    for (kind, items) in sets {
        for item in items {
            plugins(owner(kind, item), &item.value.plugins, found);
        }
    }
    for item in &documents.ssls {
        let owner = owner("ssls", item);
        certificates::visit(&item.value, &mut |field, text| {
            found(owner, Holder::Text(field, text));
        });
    }
    for item in &documents.settings {
        found(owner("config.yaml", item), Holder::Json(&item.value));
    }
    for item in &documents.plugin_metadata {
        found(owner("plugin_metadata", item), Holder::Json(&item.value));
    }
}

/// The same for the fields of secret managers.
pub(super) fn manager_holders(documents: &Documents, found: &mut dyn FnMut(Owner<'_>, Holder<'_>)) {
    for item in &documents.secrets {
        found(owner("secrets", item), Holder::Json(&item.value.fields));
    }
}

fn owner<'a, T>(kind: &'static str, item: &'a Item<T>) -> Owner<'a> {
    let (id, place) = (&item.id, &item.place);
    Owner { kind, id, place }
}

fn plugins(owner: Owner<'_>, map: &PluginMap, found: &mut dyn FnMut(Owner<'_>, Holder<'_>)) {
    for (name, settings) in map.iter() {
        found(owner, Holder::Plugin(name, settings));
    }
}

fn upstream(
    owner: Owner<'_>,
    config: Option<&UpstreamConfig>,
    prefix: &str,
    found: &mut dyn FnMut(Owner<'_>, Holder<'_>),
) {
    upstreams::visit(config, &mut |field, text| {
        found(owner, Holder::Text(&format!("{prefix}{field}"), text));
    });
}
