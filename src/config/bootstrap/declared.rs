//! What `config.yaml` gives to the road of the resources: secret managers, and settings that hold
//! references. A reference anywhere else in the file is an error, since nobody would resolve it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use siphasher::sip::SipHasher13;

use super::Bootstrap;
use crate::config::Documents;
use crate::config::check::Check;
use crate::config::node::{At, Node, Tree};
use crate::config::resource::{Item, SecretConfig, is_reference, parse_secret};
use crate::diagnostic::{Diagnostic, Place, Severity};

/// Id of the setting that names the trust store of outgoing TLS.
pub const TRUSTED_CERTIFICATE: &str = "apisix.ssl.ssl_trusted_certificate";

/// Id of the setting that holds the key of the audit log.
pub const AUDIT_KEY: &str = "claviger.audit.key";

/// Id of the setting that holds the keys of session tickets.
pub const TICKET_KEYS: &str = "claviger.tls.session_tickets.keys";

/// Start of the id of a plugin's static settings; the plugin's name follows.
pub const PLUGIN_ATTR: &str = "plugin_attr.";

/// Managers and settings of `config.yaml` that resources share.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// `claviger.secrets.managers`. Resources may refer to them too.
    pub managers: Vec<Item<SecretConfig>>,
    /// Settings that hold references, by dotted path: [`TRUSTED_CERTIFICATE`], [`AUDIT_KEY`],
    /// [`TICKET_KEYS`] where tickets are on, one per plugin in `plugin_attr`, and
    /// `deployment.admin`.
    pub settings: Vec<Item<Value>>,
}

impl Declared {
    /// The setting of that path, where it holds a reference.
    #[must_use]
    pub fn setting(&self, id: &str) -> Option<&Item<Value>> {
        self.settings.iter().find(|item| &*item.id == id)
    }

    /// Puts this beside what the resource files declare. Of two managers with one id the one of
    /// `config.yaml` is in force.
    pub(in crate::config) fn join(&self, documents: &mut Documents) {
        let diagnostics = &mut documents.diagnostics;
        let mut replaced = 0;
        documents.secrets.retain(|item| {
            let Some(ours) = self.managers.iter().find(|ours| ours.id == item.id) else {
                return true;
            };
            replaced += 1;
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                code: "duplicate-id",
                place: item.place.clone(),
                object: format!("secrets/{}", item.id),
                field: "id".to_owned(),
                message: format!(
                    "the manager is declared at {} too, under claviger.secrets.managers; that one is in force",
                    ours.place
                ),
            });
            false
        });
        if replaced > 0 {
            *documents.refused.entry("secrets").or_default() += replaced;
        }
        documents.secrets.extend(self.managers.iter().cloned());
        documents.settings.clone_from(&self.settings);
    }
}

/// A manager of `claviger.secrets.managers`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredManager {
    id: Arc<str>,
    at: At,
    fingerprint: u64,
    config: Arc<SecretConfig>,
}

impl Bootstrap {
    /// What resources share of this file.
    #[must_use]
    pub fn declared(&self) -> Declared {
        let file: Arc<str> = self.path.to_string_lossy().into();
        let place = |at: At| Place {
            file: Some(Arc::clone(&file)),
            line: at.line,
            column: at.column,
        };
        let managers = self.claviger.secrets.managers.iter().enumerate();
        let managers = managers.map(|(index, manager)| Item {
            id: Arc::clone(&manager.id),
            index,
            place: place(manager.at),
            fingerprint: manager.fingerprint,
            value: Arc::clone(&manager.config),
        });
        let settings = settings_with_references(self);
        let settings = settings.enumerate().map(|(index, (id, value))| Item {
            place: place(self.at_of(&id)),
            index,
            fingerprint: fingerprint(&value),
            id: id.into(),
            value: Arc::new(value),
        });
        Declared {
            managers: managers.collect(),
            settings: settings.collect(),
        }
    }

    /// Where the first reference below that path stands.
    fn at_of(&self, id: &str) -> At {
        let found = self.references.iter().find(|(path, _)| is_below(path, id));
        found.map_or_else(At::default, |(_, at)| *at)
    }
}

fn settings_with_references(bootstrap: &Bootstrap) -> impl Iterator<Item = (String, Value)> {
    let trusted = &bootstrap.apisix.ssl.ssl_trusted_certificate;
    let trusted = (
        TRUSTED_CERTIFICATE.to_owned(),
        Value::String(trusted.clone()),
    );
    let admin = (
        "deployment.admin".to_owned(),
        bootstrap.deployment.admin.clone(),
    );
    let key = bootstrap.claviger.audit.key.clone();
    let key = key.map(|key| (AUDIT_KEY.to_owned(), Value::String(key)));
    let tickets = bootstrap.ticket_keys();
    let tickets = tickets.map(|keys| (TICKET_KEYS.to_owned(), Value::String(keys.to_owned())));
    let attrs = bootstrap.plugin_attr.as_map().iter();
    let attrs = attrs.map(|(plugin, attr)| (format!("{PLUGIN_ATTR}{plugin}"), attr.clone()));
    let own = key.into_iter().chain(tickets);
    let all = [trusted, admin].into_iter().chain(own).chain(attrs);
    all.filter(|(_, value)| holds_reference(value))
}

fn holds_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().any(holds_reference),
        Value::Object(members) => members.values().any(holds_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn fingerprint(value: &Value) -> u64 {
    let mut hasher = SipHasher13::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Decodes `claviger.secrets.managers`.
pub(super) fn managers(check: &mut Check, node: Node) -> Option<Vec<DeclaredManager>> {
    let nodes = check.list(node)?;
    let mut managers: Vec<DeclaredManager> = Vec::with_capacity(nodes.len());
    let decoded = check.each(nodes, |check, node| {
        let (at, fingerprint) = (node.at, node.fingerprint());
        let entries = check.map(node)?;
        let (id, config) = parse_secret(check, entries, at);
        Some(DeclaredManager {
            id: id?.into(),
            at,
            fingerprint,
            config: Arc::new(config),
        })
    });
    for manager in decoded {
        if let Some(earlier) = managers.iter().find(|earlier| earlier.id == manager.id) {
            let message = format!(
                "manager {} stands twice, also in line {}",
                manager.id, earlier.at.line
            );
            check.error(manager.at, "duplicate-id", message);
        } else {
            managers.push(manager);
        }
    }
    Some(managers)
}

/// Every reference of the file with its dotted path. One where nobody resolves it is an error.
pub(super) fn references(check: &mut Check, node: &Node) -> Vec<(String, At)> {
    let mut found = Vec::new();
    collect(node, &mut String::new(), &mut found);
    for (path, at) in &found {
        if !may_stand(path) {
            check.within(path, |check| {
                let message = "a reference is not resolved here; ${{NAME}} takes the value of an environment variable";
                check.error(*at, "bad-reference", message);
            });
        }
    }
    found
}

fn may_stand(path: &str) -> bool {
    let below = |sections: &[&str]| sections.iter().any(|section| is_below(path, section));
    below(RESOLVED) || !below(READ)
}

fn is_below(path: &str, section: &str) -> bool {
    path.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn collect(node: &Node, path: &mut String, found: &mut Vec<(String, At)>) {
    let length = path.len();
    let mut enter = |path: &mut String, segment: &str, node: &Node| {
        if length > 0 {
            path.push('.');
        }
        path.push_str(segment);
        collect(node, path, found);
        path.truncate(length);
    };
    match &node.tree {
        Tree::Text(text) if is_reference(text) => found.push((path.clone(), node.at)),
        Tree::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                enter(path, itoa::Buffer::new().format(index), node);
            }
        }
        Tree::Map(entries) => {
            for entry in entries {
                enter(path, &entry.key, &entry.node);
            }
        }
        _ => {}
    }
}

/// Where references are resolved.
const RESOLVED: &[&str] = &[
    TRUSTED_CERTIFICATE,
    "plugin_attr",
    "deployment.admin",
    "claviger.secrets.managers",
    AUDIT_KEY,
    TICKET_KEYS,
];

/// Sections whose other texts are used as they stand; what nobody reads may hold anything.
const READ: &[&str] = &[
    "apisix.ssl",
    "apisix.node_listen",
    "apisix.status",
    "apisix.control",
    "apisix.dns_resolver",
    "apisix.trusted_addresses",
    "nginx_config",
    "plugins",
    "claviger",
];
