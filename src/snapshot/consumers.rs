//! Consumers with their credentials and groups: the index auth plugins ask, and the plugins that
//! are merged into a route once a consumer is known.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::IndexMap;

use super::Snapshot;
use super::compile::{AllUnits, Compilation, Scope};
use super::plugins::{self, BuiltCredential, PluginSet};
use crate::config::Documents;
use crate::config::resource::{ConsumerConfig, CredentialConfig, Item};
use crate::consumer::{Consumer, Consumers, CredentialEntry, GroupLink, IndexBuilder};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::plugins::Chain;

/// What one entry of the list `consumers` gives.
pub(super) struct ConsumerUnit {
    /// The consumer; for a credential, the consumer it belongs to.
    pub consumer: Arc<Consumer>,
    /// Credentials standing on it.
    pub credentials: Box<[BuiltCredential]>,
    /// Set for a credential.
    pub credential_id: Option<Arc<str>>,
    /// It is invalid and authenticates nobody.
    pub refused: bool,
}

/// Builds what changed, and the indexes where anything did.
pub(super) fn compile(
    documents: &Documents,
    previous: Option<&Snapshot>,
    units: &mut AllUnits,
    run: &Compilation<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Arc<Consumers> {
    let before = previous.map(|snapshot| &snapshot.units.consumers);
    let mut built =
        super::unit::Units::with_capacity(documents.consumers.len() + documents.credentials.len());
    let mut all_reused = true;
    for item in &documents.consumers {
        let mut stamp = run.hasher();
        plugins::stamp(item.fingerprint, &item.value.plugins, run).hash(&mut stamp);
        let group = item
            .value
            .group_id
            .as_deref()
            .map(|id| (id, units.consumer_groups.get(id)));
        // A group's unit is a new object exactly when it was rebuilt.
        group
            .map(|(_, unit)| unit.map(|unit| Arc::as_ptr(unit).addr()))
            .hash(&mut stamp);
        let (_, reused) =
            built.reuse_or_build(before, &item.id, stamp.finish(), |_, diagnostics| {
                let group = group.map(|(id, unit)| (id, unit.map(|unit| &unit.value)));
                consumer(item, group, run, diagnostics)
            });
        all_reused &= reused;
    }
    for item in &documents.credentials {
        let Some(owner) = built
            .get(&item.value.username)
            .map(|unit| Arc::clone(&unit.value.consumer))
        else {
            continue;
        };
        let mut stamp = run.hasher();
        plugins::stamp(item.fingerprint, &item.value.plugins, run).hash(&mut stamp);
        Arc::as_ptr(&owner).addr().hash(&mut stamp);
        let (_, reused) =
            built.reuse_or_build(before, &item.id, stamp.finish(), |_, diagnostics| {
                credential(item, owner, run, diagnostics)
            });
        all_reused &= reused;
    }
    let unchanged = all_reused && before.is_some_and(|before| before.len() == built.len());
    units.consumers = built;
    match previous {
        Some(previous) if unchanged => {
            // Duplicates are found while an index is built: they stand as long as it does.
            let standing = previous.diagnostics.iter();
            diagnostics.extend(standing.filter(|found| found.code == DUPLICATE).cloned());
            Arc::clone(&previous.consumers)
        }
        _ => Arc::new(index(documents, units, run, diagnostics)),
    }
}

fn consumer(
    item: &Item<ConsumerConfig>,
    group: Option<(&str, Option<&PluginSet>)>,
    run: &Compilation<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> ConsumerUnit {
    let owner = format!("consumers/{}", item.id);
    let mut scope = Scope {
        run,
        owner: &owner,
        place: &item.place,
        diagnostics,
    };
    let (set, credentials) = plugins::build_consumer(&item.value.plugins, &mut scope);
    let (group, group_plugins) = match group {
        None => (GroupLink::Alone, None),
        Some((id, Some(group))) if !group.refused => {
            (GroupLink::Member(id.into()), Some(&group.plugins))
        }
        Some((id, _)) => {
            scope.error("missing-group", "group_id", "this consumer group does not exist or is invalid; requests of this consumer answer 503");
            (GroupLink::Missing(id.into()), None)
        }
    };
    let mut merged: IndexMap<_, _> = group_plugins.cloned().unwrap_or_default();
    merged.extend(
        set.plugins
            .iter()
            .map(|(name, plugin)| (*name, Arc::clone(plugin))),
    );
    let chain = (!merged.is_empty()).then(|| {
        let plugins: Vec<_> = merged.into_values().collect();
        Arc::new(Chain::build(&plugins)) as Arc<dyn Any + Send + Sync>
    });
    ConsumerUnit {
        consumer: Arc::new(Consumer {
            username: Arc::clone(&item.id),
            plugins: chain,
            group,
            custom_id: item
                .value
                .labels
                .as_ref()
                .and_then(|labels| labels.get("custom_id"))
                .map(|id| id.as_str().into()),
            labels: item.value.labels.clone(),
        }),
        credentials: credentials.into(),
        credential_id: None,
        refused: set.refused,
    }
}

fn credential(
    item: &Item<CredentialConfig>,
    consumer: Arc<Consumer>,
    run: &Compilation<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> ConsumerUnit {
    let owner = format!("consumers/{}", item.id);
    let mut scope = Scope {
        run,
        owner: &owner,
        place: &item.place,
        diagnostics,
    };
    let (set, credentials) = plugins::build_consumer(&item.value.plugins, &mut scope);
    ConsumerUnit {
        consumer,
        credentials: credentials.into(),
        credential_id: Some(item.value.credential_id.clone().into()),
        refused: set.refused,
    }
}

fn index(
    documents: &Documents,
    units: &AllUnits,
    run: &Compilation<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Consumers {
    let mut builders: HashMap<&'static str, IndexBuilder> = HashMap::new();
    let mut consumers = Consumers::default();
    consumers.by_name.reserve(documents.consumers.len());
    let mut room = credentials_by_plugin(units);
    for item in &documents.consumers {
        if let Some(unit) = units
            .consumers
            .get(&item.id)
            .filter(|unit| !unit.value.refused)
        {
            let consumer = Arc::clone(&unit.value.consumer);
            consumers.by_name.insert(Arc::clone(&item.id), consumer);
        }
    }
    for (_, id, place) in in_file_order(documents) {
        let Some(unit) = units.consumers.get(id).map(|unit| &unit.value) else {
            continue;
        };
        // Nothing stands on a consumer that was refused.
        if unit.refused || !consumers.by_name.contains_key(&unit.consumer.username) {
            continue;
        }
        for credential in &unit.credentials {
            let builder = builders.entry(credential.plugin).or_insert_with(|| {
                let mut builder = IndexBuilder::new(run.env.index_key);
                builder.reserve(room.remove(credential.plugin).unwrap_or_default());
                builder
            });
            let entry = CredentialEntry {
                consumer: Arc::clone(&unit.consumer),
                credential_id: unit.credential_id.clone(),
                data: Arc::clone(&credential.data),
            };
            if let Some(earlier) = builder.insert_digest(credential.digest, entry) {
                let field = format!("plugins.{}", credential.plugin);
                diagnostics.push(Diagnostic {
                    severity: Severity::Error,
                    code: DUPLICATE,
                    place: run.places.locate(place, &field),
                    object: format!("consumers/{id}"),
                    field,
                    message: duplicate(credential.plugin, &earlier),
                });
            }
        }
    }
    consumers.by_plugin = builders
        .into_iter()
        .map(|(plugin, builder)| (plugin, builder.build()))
        .collect();
    consumers
}

/// How many credentials each plugin has, so that its index does not grow step by step.
fn credentials_by_plugin(units: &AllUnits) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::new();
    for (_, unit) in units.consumers.iter() {
        for credential in &unit.value.credentials {
            *counts.entry(credential.plugin).or_default() += 1;
        }
    }
    counts
}

/// Consumers and credentials as the file lists them: of two equal keys the later one wins.
fn in_file_order(documents: &Documents) -> Vec<(usize, &Arc<str>, &Place)> {
    let consumers = documents.consumers.iter();
    let consumers = consumers.map(|item| (item.index, &item.id, &item.place));
    let credentials = documents.credentials.iter();
    let credentials = credentials.map(|item| (item.index, &item.id, &item.place));
    let mut all: Vec<_> = consumers.chain(credentials).collect();
    // Two sorted runs, so this is one merge.
    all.sort_by_key(|(index, _, _)| *index);
    all
}

/// APISIX's text for duplicates (`spec/02` §1).
fn duplicate(plugin: &str, earlier: &CredentialEntry) -> String {
    let owner = &earlier.consumer.username;
    match &earlier.credential_id {
        None => format!("duplicate key of plugin {plugin} found with consumer: {owner}"),
        Some(id) => format!(
            "duplicate key of plugin {plugin} found with credential: {id} of consumer: {owner}"
        ),
    }
}

const DUPLICATE: &str = "duplicate-credential";
