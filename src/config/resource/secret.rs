//! Secret managers (`spec/00` §6, `spec/01` §2). Their fields are checked by the manager's own
//! file in `secrets::manager`; here only the id's shape is.

use std::fmt;

use serde_json::{Map, Value};

use super::shape::{self, Head};
use crate::config::check::Check;
use crate::config::node::{At, Entry};

/// A `secrets` item: id `<kind>/<name>`, the rest as it stands.
#[derive(Clone, Default, PartialEq)]
pub struct SecretConfig {
    /// Kind of manager: `vault` `aws` `gcp` `file` `http`.
    pub manager: String,
    /// Name, second part of the id.
    pub name: String,
    /// All other fields.
    pub fields: Value,
}

impl fmt::Debug for SecretConfig {
    /// Fields may hold literal tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretConfig")
            .field("manager", &self.manager)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(super) fn parse(check: &mut Check, entries: Vec<Entry>, at: At) -> (Head, SecretConfig) {
    let (mut head, mut secret) = (Head::default(), SecretConfig::default());
    let mut fields = Map::with_capacity(entries.len());
    let mut given = false;
    for entry in entries {
        if &*entry.key != "id" {
            fields.insert(entry.key.into_string(), entry.node.into());
            continue;
        }
        given = true;
        check.within("id", |check| {
            let at = entry.node.at;
            let Some(id) = check.text(entry.node) else {
                return;
            };
            match id.split_once('/') {
                Some((manager, name)) if shape::is_id(manager) && shape::is_id(name) => {
                    secret.manager = manager.to_owned();
                    secret.name = name.to_owned();
                    head.id = Some(id);
                }
                _ => check.error(at, "invalid-id", "expected <manager>/<name>"),
            }
        });
    }
    if !given {
        check.error(at, "missing-field", "no secret id");
    }
    secret.fields = Value::Object(fields);
    (head, secret)
}

/// `plugin_metadata`: the id is the plugin's name, the rest its metadata.
pub(super) fn parse_metadata(check: &mut Check, entries: Vec<Entry>, at: At) -> (Head, Value) {
    let mut head = Head::default();
    let mut fields = Map::with_capacity(entries.len());
    for entry in entries {
        if &*entry.key == "id" {
            head.id = check.within("id", |check| shape::id(check, entry.node));
        } else {
            fields.insert(entry.key.into_string(), entry.node.into());
        }
    }
    if head.id.is_none() && !check.refused() {
        check.error(
            at,
            "missing-field",
            "property \"id\" is required: the plugin's name",
        );
    }
    (head, Value::Object(fields))
}
