//! Files' items to one [`Documents`]: ids, duplicates, credentials without a consumer. Shares the
//! declarations with the parsed files, so that an unchanged file costs next to nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::check::Finding;
use super::node::At;
use super::parse::ParsedFile;
use super::places::Places;
use super::resource::{Declared, Item, Kind, ParsedItem, SslKind};
use super::{Documents, RefusedRoute};
use crate::diagnostic::{Diagnostic, Place, Severity};

/// An item in its place in the joined lists.
struct Slot<'files> {
    item: &'files ParsedItem,
    file: &'files Arc<str>,
    id: Arc<str>,
    index: usize,
}

impl Slot<'_> {
    fn place(&self) -> Place {
        place(self.file, self.item.at)
    }

    fn object(&self) -> String {
        format!("{}/{}", self.item.kind.key(), self.id)
    }

    fn of<T>(&self, value: &Arc<T>) -> Item<T> {
        Item {
            id: self.id.clone(),
            index: self.index,
            place: self.place(),
            fingerprint: self.item.fingerprint,
            value: value.clone(),
        }
    }
}

/// Joins files in their order.
pub(super) fn assemble(files: &[Arc<ParsedFile>], places: Places) -> Documents {
    let mut documents = Documents {
        places,
        ..Documents::default()
    };
    for file in files {
        for finding in &file.findings {
            documents
                .diagnostics
                .push(diagnostic(finding, &file.file, String::new()));
        }
        if let Some(plugins) = &file.plugins {
            documents
                .plugins
                .get_or_insert_default()
                .extend(plugins.iter().cloned());
        }
    }
    for slot in slots(files, &mut documents.diagnostics) {
        for finding in &slot.item.findings {
            documents
                .diagnostics
                .push(diagnostic(finding, slot.file, slot.object()));
        }
        if slot.item.refused {
            refuse(&mut documents, &slot);
        } else {
            declare(&mut documents, &slot);
        }
    }
    drop_orphans(&mut documents);
    declare_managers(files, &mut documents);
    let reading_order = |a: &Diagnostic, b: &Diagnostic| {
        let key = |found: &Diagnostic| (found.place.line, found.place.column);
        a.place
            .file
            .cmp(&b.place.file)
            .then_with(|| key(a).cmp(&key(b)))
    };
    documents.diagnostics.sort_by(reading_order);
    documents
}

/// Every item under its id. A later item takes the earlier one's position (`spec/00` §1.2), also
/// when it is invalid: what was meant to be replaced must not live on.
fn slots<'files>(
    files: &'files [Arc<ParsedFile>],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Slot<'files>> {
    let count = files.iter().map(|file| file.items.len()).sum();
    let mut slots: Vec<Slot<'_>> = Vec::with_capacity(count);
    let mut positions: HashMap<(Kind, Arc<str>), usize> = HashMap::with_capacity(count);
    let mut lengths: HashMap<Kind, usize> = HashMap::new();
    for file in files {
        for item in &file.items {
            let length = lengths.entry(item.kind).or_default();
            let index = *length;
            *length += 1;
            let id = item
                .id
                .clone()
                .unwrap_or_else(|| format!("arr_{}", index + 1).into());
            let mut slot = Slot {
                item,
                file: &file.file,
                id,
                index,
            };
            match positions.get(&(item.kind, slot.id.clone())) {
                Some(earlier) => {
                    diagnostics.push(duplicate(&slot, &slots[*earlier]));
                    slot.index = slots[*earlier].index;
                    slots[*earlier] = slot;
                }
                None => {
                    positions.insert((item.kind, slot.id.clone()), slots.len());
                    slots.push(slot);
                }
            }
        }
    }
    slots
}

fn duplicate(later: &Slot<'_>, earlier: &Slot<'_>) -> Diagnostic {
    let earlier = earlier.place();
    Diagnostic {
        severity: Severity::Warning,
        code: "duplicate-id",
        place: later.place(),
        object: later.object(),
        field: String::new(),
        message: format!("the id stands already at {earlier}; this later item is taken"),
    }
}

/// Keeps of a broken item what is needed to refuse in its place, and tells where that is nothing.
fn refuse(documents: &mut Documents, slot: &Slot<'_>) {
    *documents.refused.entry(slot.item.kind.key()).or_default() += 1;
    let errors = || {
        let findings = slot.item.findings.iter();
        findings.filter(|finding| finding.severity == Severity::Error)
    };
    let wrong = |field: &str| errors().any(|finding| finding.field.starts_with(field));
    // A list where one text was expected, or the other way round, could be read all the same.
    let in_part = |field: &str| {
        errors().any(|finding| {
            let entry = finding.field.starts_with(field) && finding.field.contains('.');
            entry || finding.field == field && finding.code == "invalid-value"
        })
    };
    let lost = match (&slot.item.declared, slot.item.kind) {
        (Declared::Route(route), _) if !route.enabled => None,
        // A route whose hosts cannot be read could match no request, so it takes none either.
        (Declared::Route(route), _) if route.uris.is_empty() => Some(ROUTE_LOST),
        (Declared::Route(route), _) if route.hosts.is_empty() && wrong("host") => Some(ROUTE_LOST),
        (Declared::Route(route), _) => {
            documents.refused_routes.push(RefusedRoute {
                id: slot.id.clone(),
                index: slot.index,
                place: slot.place(),
                matches: route.clone(),
            });
            let of_service = route.hosts.is_empty() && wrong("service_id");
            (of_service || in_part("host") || in_part("uri")).then_some(ROUTE_IN_PART)
        }
        (_, Kind::Routes) => Some(ROUTE_LOST),
        (Declared::Service(service), _) => {
            documents.refused_services.push(slot.of(service));
            let lost = service.hosts.is_empty() && wrong("hosts");
            (lost || in_part("hosts")).then_some(SERVICE_LOST)
        }
        (Declared::Ssl(ssl), _) if ssl.kind == SslKind::Client || !ssl.enabled => None,
        (Declared::Ssl(ssl), _) if !ssl.snis.is_empty() => {
            documents.refused_ssls.push(slot.of(ssl));
            in_part("sni").then_some(NAMES_IN_PART)
        }
        (_, Kind::Ssls) => Some(NAMES_LOST),
        (_, Kind::GlobalRules) => {
            documents.refused_global_rules.push(slot.id.clone());
            None
        }
        (_, Kind::PluginMetadata) => Some(METADATA_LOST),
        _ => None,
    };
    documents.diagnostics.extend(lost.map(|message| Diagnostic {
        severity: Severity::Error,
        code: "guards-nothing",
        place: slot.place(),
        object: slot.object(),
        field: String::new(),
        message: message.to_owned(),
    }));
}

const ROUTE_LOST: &str = "its hosts or paths cannot be read, so it refuses nothing: a broader route may answer what it was written for";
const ROUTE_IN_PART: &str = "some of its hosts or paths cannot be read, and it refuses the others only: a broader route may answer the rest of what it was written for";
const SERVICE_LOST: &str =
    "not all of its hosts can be read: where its routes refuse, a route of such a host may answer";
const NAMES_LOST: &str = "its names cannot be read, so it guards none: an item with a wildcard may serve them, without this item's client certificates";
const NAMES_IN_PART: &str = "some of its names cannot be read, and it guards the others only: an item with a wildcard may serve the rest, without this item's client certificates";
const METADATA_LOST: &str =
    "which plugin it is for cannot be read: that plugin runs as if there were no metadata";

fn declare(documents: &mut Documents, slot: &Slot<'_>) {
    match &slot.item.declared {
        Declared::Route(route) => documents.routes.push(slot.of(route)),
        Declared::Service(service) => documents.services.push(slot.of(service)),
        Declared::Upstream(upstream) => documents.upstreams.push(slot.of(upstream)),
        Declared::PluginSet(set) => match slot.item.kind {
            Kind::PluginConfigs => documents.plugin_configs.push(slot.of(set)),
            Kind::ConsumerGroups => documents.consumer_groups.push(slot.of(set)),
            _ => documents.global_rules.push(slot.of(set)),
        },
        Declared::Consumer(consumer) => documents.consumers.push(slot.of(consumer)),
        Declared::Credential(credential) => documents.credentials.push(slot.of(credential)),
        Declared::Ssl(ssl) => documents.ssls.push(slot.of(ssl)),
        Declared::Secret(secret) => documents.secrets.push(slot.of(secret)),
        Declared::Metadata(metadata) => documents.plugin_metadata.push(slot.of(metadata)),
        Declared::Proto(proto) => documents.protos.push(slot.of(proto)),
        Declared::Nothing => {}
    }
}

/// Managers that fields of consumers and credentials are short for, behind the declared ones. One
/// that is declared under such an id is in force: its fields were chosen.
fn declare_managers(files: &[Arc<ParsedFile>], documents: &mut Documents) {
    let mut known: HashSet<Arc<str>> = HashSet::new();
    for file in files {
        for item in &file.items {
            let Some(manager) = &item.manager else {
                continue;
            };
            let id: Arc<str> = format!("{}/{}", manager.manager, manager.name).into();
            let declared = || documents.secrets.iter().any(|item| item.id == id);
            if known.contains(&id) || declared() {
                continue;
            }
            documents.secrets.push(Item {
                id: Arc::clone(&id),
                index: documents.secrets.len(),
                place: place(&file.file, item.at),
                fingerprint: item.fingerprint,
                value: Arc::clone(manager),
            });
            known.insert(id);
        }
    }
}

/// A credential counts only beside its valid consumer (`spec/00` §3).
fn drop_orphans(documents: &mut Documents) {
    if documents.credentials.is_empty() {
        return;
    }
    let consumers: HashSet<&str> = documents
        .consumers
        .iter()
        .map(|consumer| &*consumer.id)
        .collect();
    let diagnostics = &mut documents.diagnostics;
    documents.credentials.retain(|credential| {
        let exists = consumers.contains(&*credential.value.username);
        if !exists {
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                code: "missing-consumer",
                place: credential.place.clone(),
                object: format!("consumers/{}", credential.id),
                field: "id".into(),
                message: "expected a valid consumer of that username in the same document".into(),
            });
        }
        exists
    });
}

fn diagnostic(finding: &Finding, file: &Arc<str>, object: String) -> Diagnostic {
    Diagnostic {
        severity: finding.severity,
        code: finding.code,
        place: place(file, finding.at),
        object,
        field: finding.field.clone(),
        message: finding.message.clone(),
    }
}

fn place(file: &Arc<str>, at: At) -> Place {
    Place {
        file: Some(file.clone()),
        line: at.line,
        column: at.column,
    }
}
