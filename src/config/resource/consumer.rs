//! Consumers and their credentials, which share the list `consumers` (`spec/00` §1.1, §3).

use super::jwks;
use super::plugins::{PluginMap, sealed_plugins};
use super::shape::{self, Head, Labels, Shared, fields};
use crate::config::check::Check;
use crate::config::node::{At, Entry};

/// A consumer. Its id is its `username`.
#[derive(Debug, Clone, Default)]
pub struct ConsumerConfig {
    /// Consumer group.
    pub group_id: Option<Box<str>>,
    /// Auth plugins (its credentials) and others (merged into the route after authentication).
    pub plugins: PluginMap,
    /// Labels; `custom_id` is sent upstream.
    pub labels: Labels,
    /// Free text.
    pub desc: Option<Box<str>>,
}

/// A credential. Its id is `<username>/credentials/<cred-id>`.
#[derive(Debug, Clone, Default)]
pub struct CredentialConfig {
    /// The consumer it belongs to.
    pub username: Box<str>,
    /// Last part of the id.
    pub credential_id: Box<str>,
    /// At most one, and an auth plugin.
    pub plugins: PluginMap,
    /// Name shown to people.
    pub name: Option<Box<str>>,
    /// Free text.
    pub desc: Option<Box<str>>,
    /// Labels.
    pub labels: Labels,
}

/// Splits `<username>/credentials/<cred-id>`.
pub(super) fn credential_id(id: &str) -> Option<(&str, &str)> {
    let (username, rest) = id.split_once('/')?;
    let credential = rest.strip_prefix("credentials/")?;
    (is_username(username) && shape::is_id(credential)).then_some((username, credential))
}

pub(super) fn parse_consumer(
    check: &mut Check,
    entries: Vec<Entry>,
    at: At,
) -> (Head, ConsumerConfig) {
    let (mut head, mut consumer) = (Head::default(), ConsumerConfig::default());
    let (mut username, mut id) = (None, None);
    let mut named = false;
    fields(check, entries, |check, key, mut node| {
        match key {
            "username" => {
                named = true;
                let at = node.at;
                username = check.text(node).filter(|name| {
                    let valid = is_username(name);
                    if !valid {
                        let message = "expected 1 to 256 letters, digits, '-' or '_'";
                        check.error(at, "invalid-id", message);
                    }
                    valid
                });
            }
            "id" => id = Some(shape::id(check, node)),
            "group_id" => consumer.group_id = shape::id(check, node).map(Into::into),
            "plugins" => {
                head.manager = jwks::take(check, &mut node);
                consumer.plugins = sealed_plugins(check, node);
            }
            _ => return head.take(check, Shared::NoName, key, &mut node),
        }
        true
    });
    if !named {
        check.error(at, "missing-field", "property \"username\" is required");
    }
    // APISIX knows no `id` of a consumer. One that repeats the username does no harm.
    if id.is_some_and(|id| id.is_none() || id != username) {
        check.error(
            at,
            "unknown-field",
            "additional properties forbidden, found id",
        );
    }
    consumer.labels = std::mem::take(&mut head.labels);
    consumer.desc = head.desc.take().map(Into::into);
    head.id = username;
    (head, consumer)
}

pub(super) fn parse_credential(
    check: &mut Check,
    id: &str,
    entries: Vec<Entry>,
    at: At,
) -> (Head, CredentialConfig) {
    let (mut head, mut credential) = (Head::default(), CredentialConfig::default());
    if let Some((username, last)) = credential_id(id) {
        credential.username = username.into();
        credential.credential_id = last.into();
    } else {
        let message = "expected <username>/credentials/<credential id>";
        check.within("id", |check| check.error(at, "invalid-id", message));
    }
    fields(check, entries, |check, key, mut node| match key {
        "id" => true,
        "plugins" => {
            let at = node.at;
            head.manager = jwks::take(check, &mut node);
            credential.plugins = sealed_plugins(check, node);
            if credential.plugins.len() > 1 {
                check.error(at, "invalid-value", "expected at most one plugin");
            }
            if !credential
                .plugins
                .iter()
                .all(|(name, _)| AUTH_PLUGINS.contains(&name))
            {
                let message = "only supports auth type plugins in consumer credential";
                check.error(at, "invalid-value", message);
            }
            true
        }
        _ => head.take(check, Shared::All, key, &mut node),
    });
    credential.name = head.name.take().map(Into::into);
    credential.desc = head.desc.take().map(Into::into);
    credential.labels = std::mem::take(&mut head.labels);
    head.id = Some(id.to_owned());
    (head, credential)
}

fn is_username(name: &str) -> bool {
    let character = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=256).contains(&name.len()) && name.bytes().all(character)
}

/// Plugins that tell who a client is; only these may stand in a credential.
const AUTH_PLUGINS: &[&str] = &[
    "key-auth",
    "basic-auth",
    "jwt-auth",
    "hmac-auth",
    "ldap-auth",
    "ldap-auth-advanced",
    "wolf-rbac",
    "jwe-decrypt",
    "openid-connect",
    "saml-auth",
    "cas-auth",
];
