//! Consumers with their credentials and groups: the index auth plugins ask, and the plugins that
//! are merged into a route once a consumer is known. After a rotation only those are built anew
//! that hold a reference whose value changed.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::IndexMap;

use super::Snapshot;
use super::compile::{Compilation, Scope};
use super::plugins::{self, BuiltCredential, PluginSet};
use super::rest::AllUnits;
use super::roster::{Change, ConsumerPiece, Roster};
use super::unit;
use crate::config::Documents;
use crate::config::resource::{ConsumerConfig, CredentialConfig, Item};
use crate::consumer::{Consumer, Consumers, CredentialEntry, CredentialIndex, GroupLink};
use crate::diagnostic::Diagnostic;
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

/// All units, and what requests ask.
pub(super) struct Compiled {
    pub(super) roster: Roster,
    pub(super) consumers: Arc<Consumers>,
    /// How many units were built, not reused.
    pub(super) built: usize,
}

/// Looks at every consumer and credential, and builds what changed.
pub(super) fn compile(
    documents: &Documents,
    previous: Option<&Snapshot>,
    units: &AllUnits,
    run: &Compilation<'_>,
) -> Compiled {
    let before = previous.map(|snapshot| by_id(&snapshot.roster));
    let before = |username, id| Some(*before.as_ref()?.get(&(username, id))?);
    let count = documents.consumers.len() + documents.credentials.len();
    let mut pieces: Vec<(u32, ConsumerPiece)> = Vec::with_capacity(count);
    let mut built = 0;
    for item in &documents.consumers {
        let (unit, reused) = consumer_unit(item, before(&*item.id, ""), units, run);
        built += usize::from(!reused);
        pieces.push((place(item.index), unit));
    }
    let owners = owners(documents, &pieces);
    for item in &documents.credentials {
        let config = &item.value;
        // A credential without a consumer is none of the documents'.
        let Some(owner) = owners.get(&*config.username) else {
            continue;
        };
        let before = before(&*config.username, &*config.credential_id);
        let (unit, reused) = credential_unit(item, before, owner, run);
        built += usize::from(!reused);
        pieces.push((place(item.index), unit));
    }
    let roster = Roster::of(&pieces);
    let standing = previous.filter(|previous| roster.is_laid_out_as(&previous.roster));
    let consumers = standing.map_or_else(
        || Arc::new(index(documents, &roster, run)),
        |previous| Arc::clone(&previous.consumers),
    );
    Compiled {
        roster,
        consumers,
        built,
    }
}

/// Looks at these rows only: the documents are those `previous` was made of, and no other row
/// holds a reference whose value changed.
pub(super) fn compile_rows(
    documents: &Documents,
    previous: &Snapshot,
    rows: &[usize],
    units: &AllUnits,
    run: &Compilation<'_>,
) -> Compiled {
    let mut changes: Vec<Change> = Vec::with_capacity(rows.len());
    let mut renewed: HashMap<&str, Arc<Consumer>> = HashMap::new();
    let count = documents.consumers.len();
    let (consumers, credentials) = rows.split_at(rows.partition_point(|row| *row < count));
    for row in consumers {
        let (Some(item), Some(before)) = (documents.consumers.get(*row), previous.roster.get(*row))
        else {
            continue;
        };
        let (unit, reused) = consumer_unit(item, Some(before), units, run);
        if !Arc::ptr_eq(&unit.value.consumer, &before.value.consumer) {
            renewed.insert(&item.id, Arc::clone(&unit.value.consumer));
        }
        if !reused {
            changes.push(Change {
                row: *row,
                place: place(item.index),
                unit,
            });
        }
    }
    let mut credentials = credentials.to_vec();
    if !renewed.is_empty() {
        // A credential leads to its consumer, so it goes with it.
        let items = documents.credentials.iter().enumerate();
        let theirs = items.filter(|(_, item)| renewed.contains_key(&*item.value.username));
        credentials.extend(theirs.map(|(place, _)| count + place));
        credentials.sort_unstable();
        credentials.dedup();
    }
    for row in credentials {
        let item = documents.credentials.get(row - count);
        let (Some(item), Some(before)) = (item, previous.roster.get(row)) else {
            continue;
        };
        let owner = renewed.get(&*item.value.username);
        let owner = owner.unwrap_or(&before.value.consumer);
        let (unit, reused) = credential_unit(item, Some(before), owner, run);
        if !reused {
            changes.push(Change {
                row,
                place: place(item.index),
                unit,
            });
        }
    }
    let roster = previous.roster.with(&changes);
    Compiled {
        consumers: reindex(documents, previous, &changes, &roster, run),
        roster,
        built: changes.len(),
    }
}

/// Brings the index up to date with units that changed.
fn reindex(
    documents: &Documents,
    previous: &Snapshot,
    changes: &[Change],
    roster: &Roster,
    run: &Compilation<'_>,
) -> Arc<Consumers> {
    if changes.is_empty() {
        return Arc::clone(&previous.consumers);
    }
    let mut consumers = Consumers::clone(&previous.consumers);
    for Change { row, place, unit } in changes {
        let Some(before) = previous.roster.get(*row) else {
            continue;
        };
        // What begins or ceases to refuse takes its credentials along, wherever they stand.
        if unit.value.refused != before.value.refused {
            return Arc::new(index(documents, roster, run));
        }
        let in_force = consumers.named(&before.value.consumer.username).is_some();
        if unit.value.refused || !in_force {
            continue;
        }
        for credential in &before.value.credentials {
            if let Some(index) = consumers.by_plugin.get_mut(credential.plugin.name) {
                index.remove_digest(&credential.digest, *place);
            }
        }
        for credential in &unit.value.credentials {
            let plugin = credential.plugin.name;
            let index = consumers.by_plugin.of_plugin(plugin, run.env.index_key);
            index.insert_digest(credential.digest, entry(&unit.value, credential, *place));
        }
        if *row < documents.consumers.len()
            && !Arc::ptr_eq(&unit.value.consumer, &before.value.consumer)
        {
            consumers.replace(&unit.value.consumer);
        }
    }
    Arc::new(consumers)
}

/// Units by username and credential id; a consumer's own has none.
fn by_id(roster: &Roster) -> HashMap<(&str, &str), &ConsumerPiece, ahash::RandomState> {
    let units = roster.iter().map(|piece| {
        let unit = &piece.value;
        let id = unit.credential_id.as_deref().unwrap_or_default();
        ((&*unit.consumer.username, id), piece)
    });
    units.collect()
}

/// Consumers by name, where there are credentials to look for theirs.
fn owners(
    documents: &Documents,
    pieces: &[(u32, ConsumerPiece)],
) -> HashMap<Arc<str>, Arc<Consumer>, ahash::RandomState> {
    if documents.credentials.is_empty() {
        return HashMap::default();
    }
    let consumers = pieces.iter().map(|(_, piece)| &piece.value.consumer);
    consumers
        .map(|consumer| (Arc::clone(&consumer.username), Arc::clone(consumer)))
        .collect()
}

fn consumer_unit(
    item: &Item<ConsumerConfig>,
    before: Option<&ConsumerPiece>,
    units: &AllUnits,
    run: &Compilation<'_>,
) -> (ConsumerPiece, bool) {
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
    unit::reuse_or_build(before, stamp.finish(), |before, diagnostics| {
        let group = group.map(|(id, unit)| (id, unit.map(|unit| &unit.value)));
        consumer(item, before, group, run, diagnostics)
    })
}

fn credential_unit(
    item: &Item<CredentialConfig>,
    before: Option<&ConsumerPiece>,
    owner: &Arc<Consumer>,
    run: &Compilation<'_>,
) -> (ConsumerPiece, bool) {
    let mut stamp = run.hasher();
    plugins::stamp(item.fingerprint, &item.value.plugins, run).hash(&mut stamp);
    Arc::as_ptr(owner).addr().hash(&mut stamp);
    unit::reuse_or_build(before, stamp.finish(), |_, diagnostics| {
        credential(item, Arc::clone(owner), run, diagnostics)
    })
}

fn consumer(
    item: &Item<ConsumerConfig>,
    before: Option<&ConsumerUnit>,
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
    let consumer = Consumer {
        username: Arc::clone(&item.id),
        plugins: chain,
        group,
        labels: item.value.labels.clone(),
    };
    // With other credentials it is still the same consumer to whoever holds it.
    let same = before.filter(|before| is_same(&before.consumer, &consumer));
    ConsumerUnit {
        consumer: same.map_or_else(|| Arc::new(consumer), |before| Arc::clone(&before.consumer)),
        credentials: credentials.into(),
        credential_id: None,
        refused: set.refused,
    }
}

fn is_same(one: &Consumer, other: &Consumer) -> bool {
    one.username == other.username
        && one.plugins.is_none()
        && other.plugins.is_none()
        && one.group == other.group
        && one.labels == other.labels
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

/// The index of all credentials that stand on a valid consumer.
fn index(documents: &Documents, roster: &Roster, run: &Compilation<'_>) -> Consumers {
    let count = documents.consumers.len();
    let valid = roster.iter().take(count).map(|piece| &piece.value);
    let valid = valid.filter(|unit| !unit.refused);
    let mut consumers = Consumers::of(valid.map(|unit| Arc::clone(&unit.consumer)));
    let mut entries: HashMap<&'static str, Vec<_>> = HashMap::new();
    for (row, piece) in roster.iter().enumerate() {
        let unit = &piece.value;
        // Nothing stands on a consumer that was refused.
        if unit.refused || row >= count && consumers.named(&unit.consumer.username).is_none() {
            continue;
        }
        let order = place_of(documents, row);
        for credential in &unit.credentials {
            let entries = entries.entry(credential.plugin.name);
            let entries = entries.or_insert_with(|| Vec::with_capacity(count));
            entries.push((credential.digest, entry(unit, credential, order)));
        }
    }
    for (plugin, entries) in entries {
        let index = CredentialIndex::of(run.env.index_key, entries);
        consumers.by_plugin.insert(plugin, index);
    }
    consumers
}

fn entry(unit: &ConsumerUnit, credential: &BuiltCredential, order: u32) -> CredentialEntry {
    CredentialEntry::new(
        Arc::clone(&unit.consumer),
        order,
        unit.credential_id.clone(),
        credential.data.clone(),
    )
}

/// The place of a row in the list `consumers`, which holds credentials too.
fn place_of(documents: &Documents, row: usize) -> u32 {
    let index = match row.checked_sub(documents.consumers.len()) {
        None => documents.consumers.get(row).map(|item| item.index),
        Some(row) => documents.credentials.get(row).map(|item| item.index),
    };
    place(index.unwrap_or_default())
}

fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
