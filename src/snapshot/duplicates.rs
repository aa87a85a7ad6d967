//! Credentials that claim one lookup key, however it came: written out, or out of a reference. The
//! later one is in force, and the earlier one lets nobody in.

use std::collections::HashMap;
use std::sync::Arc;

use super::Snapshot;
use super::compile::Compilation;
use crate::config::Documents;
use crate::consumer::{Consumers, CredentialEntry, CredentialIndex, MOST_CANDIDATES};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::plugins;

/// Two credentials with one lookup key, told at the later one. The place of a finding that
/// `previous` made of the same documents is not looked for again.
pub(super) fn duplicates(
    documents: &Documents,
    consumers: &Consumers,
    previous: Option<&Snapshot>,
    run: &Compilation<'_>,
) -> Vec<Diagnostic> {
    let previous = previous.filter(|previous| previous.of.is(&documents.identity));
    let standing = previous.map_or(&[][..], |previous| &previous.diagnostics);
    let standing = standing.iter().filter(|found| found.code == DUPLICATE);
    let standing: HashMap<_, _> = standing
        .map(|found| ((&*found.object, &*found.message), found))
        .collect();
    let mut found = Vec::new();
    for (plugin, index) in consumers.by_plugin.iter() {
        let side = plugins::find(plugin).and_then(|(_, def)| def.credential);
        let Some(attribute) = side.map(|side| side.lookup_field) else {
            continue;
        };
        found.extend(crowded_out(documents, plugin, index, run));
        for (earlier, later) in index.contests() {
            let Some((id, place)) = item_at(documents, later.order) else {
                continue;
            };
            let object = format!("consumers/{id}");
            let message = told(attribute, plugin, earlier);
            if let Some(known) = standing.get(&(&*object, &*message)) {
                found.push(Diagnostic::clone(known));
                continue;
            }
            let field = format!("plugins.{plugin}.{attribute}");
            found.push(Diagnostic {
                severity: Severity::Error,
                code: DUPLICATE,
                place: run.places.locate(place, &field),
                object,
                field,
                message,
            });
        }
    }
    found
}

/// The consumer or credential at a place of the list `consumers`.
fn item_at(documents: &Documents, order: u32) -> Option<(&Arc<str>, &Place)> {
    let index = usize::try_from(order).ok()?;
    let consumer = documents
        .consumers
        .binary_search_by_key(&index, |item| item.index);
    if let Ok(at) = consumer {
        let item = documents.consumers.get(at)?;
        return Some((&item.id, &item.place));
    }
    let at = documents
        .credentials
        .binary_search_by_key(&index, |item| item.index);
    let item = documents.credentials.get(at.ok()?)?;
    Some((&item.id, &item.place))
}

/// APISIX's text for duplicates (`spec/02` §1).
fn told(attribute: &str, plugin: &str, earlier: &CredentialEntry) -> String {
    let owner = &earlier.consumer.username;
    let first = format!("duplicate {attribute} of plugin {plugin} found with");
    match earlier.credential_id() {
        None => format!("{first} consumer: {owner}"),
        Some(id) => format!("{first} credential: {id} of consumer: {owner}"),
    }
}

const DUPLICATE: &str = "duplicate-credential";

/// Hashed secrets that nobody can authenticate with, since too many others come before them.
fn crowded_out(
    documents: &Documents,
    plugin: &str,
    index: &CredentialIndex,
    run: &Compilation<'_>,
) -> Vec<Diagnostic> {
    let crowded = index.crowded_out().into_iter();
    let told = crowded.filter_map(|entry| {
        let (id, place) = item_at(documents, entry.order)?;
        let field = format!("plugins.{plugin}.key_prefix");
        let without = entry.by_prefix()?.prefix.is_empty();
        let message = if without {
            format!(
                "more than {MOST_CANDIDATES} hashed keys without key_prefix: set it to the first characters of the key"
            )
        } else {
            format!(
                "more than {MOST_CANDIDATES} hashed keys may begin with this key_prefix: make it longer"
            )
        };
        Some(Diagnostic {
            severity: Severity::Error,
            code: "hashed-keys",
            place: run.places.locate(place, &field),
            object: format!("consumers/{id}"),
            field,
            message,
        })
    });
    told.collect()
}
