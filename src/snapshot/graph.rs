//! Who uses which reference, and what refuses without it: the reference graph, for `check`,
//! `explain` and readiness. Knows texts, never a value; costs a walk over the whole configuration,
//! so it is made when somebody asks or something is wrong.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::certificates::pair_fields;
use super::references::{self, Holder, Owner};
use super::substitute::{Fault, Missing};
use crate::config::Documents;
use crate::config::resource::{PluginMap, SslKind};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::plugins::{self, PluginKind};
use crate::secrets::{Unresolved, View};

/// One place a reference stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The object, such as `consumers/jack`.
    pub object: Arc<str>,
    /// Dotted path inside the object.
    pub field: String,
    /// As written.
    pub reference: Arc<str>,
    /// Where the object starts.
    pub place: Place,
    /// Traffic can reach the object: it is switched on, and something leads to it.
    pub required: bool,
    /// What happens while the reference has no value.
    pub consequence: &'static str,
}

impl Use {
    /// The finding that the reference would not resolve here; `why` begins with the step it got
    /// to.
    #[must_use]
    pub fn finding(&self, why: &str, documents: &Documents) -> Diagnostic {
        let missing = Missing {
            field: self.field.clone(),
            reference: Arc::clone(&self.reference),
            why: Unresolved::because(why),
            fault: Fault::NoValue,
        };
        let (_, code, message) = references::unresolved(&missing, documents);
        Diagnostic {
            severity: Severity::Error,
            code,
            place: documents.places.locate(&self.place, &self.field),
            object: self.object.to_string(),
            field: self.field.clone(),
            message: match code {
                references::UNRESOLVED => format!("reference {}: {why}", self.reference),
                _ => message,
            },
        }
    }
}

/// Every use of every reference, in the order of the documents' lists.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The uses.
    pub uses: Vec<Use>,
}

impl Graph {
    /// The graph of these documents, managers' own fields included.
    #[must_use]
    pub fn of(documents: &Documents) -> Self {
        Self::of_those(documents, |_| true)
    }

    /// The uses of references that have no value in `view`. Cheap where all have one.
    #[must_use]
    pub fn unresolved(documents: &Documents, view: &View) -> Self {
        let missing = view.iter().filter(|(_, outcome)| outcome.is_err());
        let missing: HashSet<&str> = missing.map(|(reference, _)| &**reference).collect();
        if missing.is_empty() {
            return Self::default();
        }
        Self::of_those(documents, |reference| missing.contains(reference))
    }

    fn of_those(documents: &Documents, wanted: impl Fn(&str) -> bool) -> Self {
        let reach = Reach::of(documents);
        let mut uses = Vec::new();
        let mut add = |owner: Owner<'_>, holder: Holder<'_>| {
            let mut any = false;
            holder.references(&mut |reference| any |= wanted(reference));
            if !any {
                return;
            }
            holder.fields(&mut |field, reference| {
                if wanted(reference) {
                    uses.push(Use {
                        object: format!("{}/{}", owner.kind, owner.id).into(),
                        field: field.to_owned(),
                        reference: reference.into(),
                        place: owner.place.clone(),
                        required: reach.reaches(owner, holder),
                        consequence: consequence(owner, holder, &reach),
                    });
                }
            });
        };
        references::holders(documents, &mut add);
        references::manager_holders(documents, &mut add);
        Self { uses }
    }

    /// The uses by reference.
    #[must_use]
    pub fn by_reference(&self) -> BTreeMap<&Arc<str>, Vec<&Use>> {
        let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in &self.uses {
            map.entry(&one.reference).or_default().push(one);
        }
        map
    }

    /// The uses by manager (`env` for `$env://`); references that name none are left out.
    #[must_use]
    pub fn by_manager(&self) -> BTreeMap<&str, Vec<&Use>> {
        let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in &self.uses {
            if let Some(manager) = manager_of(&one.reference) {
                map.entry(manager).or_default().push(one);
            }
        }
        map
    }
}

/// References of items whose certificates are fetched on demand: one for each name that a client asks
/// for, so that none of them can be asked about before.
#[must_use]
pub fn on_demand(documents: &Documents) -> Vec<Use> {
    let items = documents.ssls.iter();
    let items = items.filter(|item| item.value.on_demand.is_some());
    let uses = items.flat_map(|item| {
        let pairs = item.value.pairs.iter().enumerate();
        let halves =
            pairs.flat_map(|(index, (cert, key))| pair_fields(index).into_iter().zip([cert, key]));
        halves.map(|(field, reference)| Use {
            object: format!("ssls/{}", item.id).into(),
            field,
            reference: reference.as_str().into(),
            place: item.place.clone(),
            required: item.value.enabled,
            consequence: "the name is refused",
        })
    });
    uses.collect()
}

/// Id of the manager a reference names; `env` for `$env://`.
#[must_use]
pub fn manager_of(reference: &str) -> Option<&str> {
    let Some(rest) = reference.strip_prefix("$secret://") else {
        return Some("env").filter(|_| !reference.starts_with("$secret:"));
    };
    let (end, _) = rest.match_indices('/').nth(1)?;
    Some(&rest[..end])
}

/// Whether a reference gained or lost its value between two views. Costs in proportion to what
/// changed.
#[must_use]
pub fn moved(newer: &View, older: &View) -> bool {
    let is_there = |view: &View, reference: &str| view.resolve(reference).is_ok();
    let changed = newer.changed_since(older);
    let mut changed = changed.iter();
    changed.any(|reference| is_there(newer, reference) != is_there(older, reference))
}

/// Whether two views differ in nothing but why references have no value: what is compiled of the
/// newer refuses and serves the same. Costs as [`moved`] does.
#[must_use]
pub fn differ_in_reasons(newer: &View, older: &View) -> bool {
    let changed = newer.changed_since(older);
    let is_there = |view: &View, reference: &str| view.resolve(reference).is_ok();
    let mut both = changed
        .iter()
        .flat_map(|reference| [newer, older].map(|view| is_there(view, reference)));
    !changed.is_empty() && !both.any(|is_there| is_there)
}

/// One finding for each manager that is referred to and not declared, naming its users. `before`
/// is the configuration in force until now: a manager that stood in it was removed or renamed.
#[must_use]
pub fn undeclared_managers(documents: &Documents, before: Option<&Documents>) -> Vec<Diagnostic> {
    let declared: HashSet<&str> = documents.secrets.iter().map(|item| &*item.id).collect();
    let references = references::references(documents);
    let missing: HashSet<&str> = references
        .iter()
        .filter_map(|reference| manager_of(reference))
        .filter(|manager| *manager != "env" && !declared.contains(manager))
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let wanted = |text: &str| manager_of(text).is_some_and(|manager| missing.contains(manager));
    let graph = Graph::of_those(documents, wanted);
    let finding = |(manager, uses): (&str, Vec<&Use>)| Diagnostic {
        severity: Severity::Error,
        code: MANAGER_IN_USE,
        place: uses.first().map_or_else(Place::default, |first| {
            documents.places.locate(&first.place, &first.field)
        }),
        object: format!("secrets/{manager}"),
        field: String::new(),
        message: format!(
            "is used by {} and {}",
            users(&uses),
            absence(manager, documents, before)
        ),
    };
    graph.by_manager().into_iter().map(finding).collect()
}

/// What became of a manager that is not declared.
fn absence(manager: &str, documents: &Documents, before: Option<&Documents>) -> String {
    let declares = |documents: &Documents, id: &str| documents.secrets.iter().any(|m| &*m.id == id);
    let Some(before) = before.filter(|before| declares(before, manager)) else {
        return "is not declared, or not as it must be".to_owned();
    };
    let kind = |id: &str| id.split('/').next().map(str::to_owned);
    let new = documents.secrets.iter().map(|item| &item.id);
    let mut new = new.filter(|id| !declares(before, id) && kind(id) == kind(manager));
    match (new.next(), new.next()) {
        (Some(id), None) => format!("was removed; secrets/{id} is new: was it renamed?"),
        _ => "was removed".to_owned(),
    }
}

/// The objects of these uses for people: how many, and the first of them.
#[must_use]
pub fn users(uses: &[&Use]) -> String {
    let mut objects: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    objects.extend(
        uses.iter()
            .map(|one| &*one.object)
            .filter(|object| seen.insert(*object)),
    );
    let shown = objects.len().min(MOST_NAMED);
    let mut text = match objects.len() {
        1 => "1 object".to_owned(),
        count => format!("{count} objects"),
    };
    text.push_str(" (");
    text.push_str(&objects[..shown].join(", "));
    if shown < objects.len() {
        text.push_str(", …");
    }
    text.push(')');
    text
}

/// What traffic can reach.
struct Reach<'a> {
    off_routes: HashSet<&'a str>,
    services: HashSet<&'a str>,
    upstreams: HashSet<&'a str>,
    plugin_configs: HashSet<&'a str>,
    groups: HashSet<&'a str>,
    off_ssls: HashSet<&'a str>,
    /// Certificates for clients that no upstream in use presents are off, too.
    client_ssls: HashSet<&'a str>,
    plugins: HashSet<&'a str>,
}

impl<'a> Reach<'a> {
    fn of(documents: &'a Documents) -> Self {
        let routes = || documents.routes.iter().filter(|item| item.value.enabled);
        let services: HashSet<&str> = routes()
            .filter_map(|item| item.value.service_id.as_deref())
            .collect();
        let used_services = || {
            let all = documents.services.iter();
            all.filter(|item| services.contains(&*item.id))
        };
        let of_services = used_services().filter_map(|item| item.value.upstream_id.as_deref());
        let of_routes = routes().filter_map(|item| item.value.upstream_id.as_deref());
        let upstreams: HashSet<&str> = of_routes.chain(of_services).collect();
        let alone = documents.upstreams.iter();
        let alone = alone.filter(|item| upstreams.contains(&*item.id));
        let all_upstreams = routes()
            .filter_map(|item| item.value.upstream.as_ref())
            .chain(used_services().filter_map(|item| item.value.upstream.as_ref()))
            .chain(alone.map(|item| &*item.value));
        let presented: HashSet<&str> = all_upstreams
            .filter_map(|upstream| upstream.tls.as_ref()?.client_cert_id.as_deref())
            .collect();
        let ssls = || documents.ssls.iter();
        let is_client = |kind: SslKind| kind == SslKind::Client;
        Self {
            off_routes: documents
                .routes
                .iter()
                .filter(|item| !item.value.enabled)
                .map(|item| &*item.id)
                .collect(),
            plugin_configs: routes()
                .filter_map(|item| item.value.plugin_config_id.as_deref())
                .collect(),
            groups: documents
                .consumers
                .iter()
                .filter_map(|item| item.value.group_id.as_deref())
                .collect(),
            off_ssls: ssls()
                .filter(|item| {
                    let unused = is_client(item.value.kind) && !presented.contains(&*item.id);
                    unused || (!item.value.enabled && !is_client(item.value.kind))
                })
                .map(|item| &*item.id)
                .collect(),
            client_ssls: ssls()
                .filter(|item| is_client(item.value.kind))
                .map(|item| &*item.id)
                .collect(),
            plugins: plugin_names(documents),
            services,
            upstreams,
        }
    }

    fn reaches(&self, owner: Owner<'_>, holder: Holder<'_>) -> bool {
        let id = owner.id;
        let reached = match owner.kind {
            "routes" => !self.off_routes.contains(id),
            "services" => self.services.contains(id),
            "upstreams" => self.upstreams.contains(id),
            "plugin_configs" => self.plugin_configs.contains(id),
            "consumer_groups" => self.groups.contains(id),
            "ssls" => !self.off_ssls.contains(id),
            "plugin_metadata" => self.plugins.contains(id),
            _ => true,
        };
        let disabled = match holder {
            Holder::Plugin(_, settings) => {
                // Nearly no plugin has `_meta`: the text is looked at before a tree is made.
                settings.with_text(|text| text.contains("\"_meta\""))
                    && settings.json()["_meta"]["disable"] == serde_json::Value::Bool(true)
            }
            _ => false,
        };
        reached && !disabled
    }
}

fn plugin_names(documents: &Documents) -> HashSet<&str> {
    let sets = [
        &documents.plugin_configs,
        &documents.consumer_groups,
        &documents.global_rules,
    ];
    let sets = sets.into_iter().flatten().map(|item| &item.value.plugins);
    let maps = sets
        .chain(documents.routes.iter().map(|item| &item.value.plugins))
        .chain(documents.services.iter().map(|item| &item.value.plugins))
        .chain(documents.consumers.iter().map(|item| &item.value.plugins))
        .chain(documents.credentials.iter().map(|item| &item.value.plugins));
    maps.flat_map(PluginMap::iter)
        .map(|(name, _)| name)
        .collect()
}

/// What the user of a reference gets while it has no value (`design.md` §4).
fn consequence(owner: Owner<'_>, holder: Holder<'_>, reach: &Reach<'_>) -> &'static str {
    let is_auth = |name: &str| {
        plugins::find(name).is_some_and(|(_, def)| matches!(def.kind, PluginKind::Auth))
    };
    match (owner.kind, holder) {
        ("consumers", Holder::Plugin(name, _)) if is_auth(name) => {
            "401, as for an unknown credential"
        }
        ("consumers" | "consumer_groups", _) => "503 for requests of these consumers",
        ("config.yaml", _) => "the start is refused, or what the setting is for",
        ("global_rules", _) => "503 for every request",
        ("ssls", _) if reach.client_ssls.contains(owner.id) => {
            "503 where an upstream presents this certificate"
        }
        ("ssls", _) => "the handshake for these names is refused",
        ("secrets", _) => "every reference into this manager has no value",
        ("plugin_metadata", _) => "503 wherever the plugin runs",
        ("upstreams", _) | (_, Holder::Text(..)) => "503 where the upstream is used",
        _ => "503 from the plugin",
    }
}

/// Code of the finding that a manager is used and not declared.
pub const MANAGER_IN_USE: &str = "manager-in-use";

/// How many objects a finding names.
const MOST_NAMED: usize = 10;

#[cfg(test)]
mod tests;
