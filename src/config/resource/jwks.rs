//! `jwks_uri` of a `jwt-auth` credential (ours): short for a secret manager of kind `http` and a
//! reference to what it reads, so that a key set is fetched, kept and rotated as any other secret.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::json;
use siphasher::sip::SipHasher13;

use super::SecretConfig;
use super::shape::is_reference;
use crate::config::check::Check;
use crate::config::node::{Node, Tree};

/// Puts the reference in the place of the address, and gives the manager that it points into.
/// `plugins` is what stands on a consumer or credential.
pub(super) fn take(check: &mut Check, plugins: &mut Node) -> Option<Arc<SecretConfig>> {
    let settings = member(plugins, PLUGIN)?;
    let address = member(settings, FIELD)?;
    check.within(PLUGIN, |check| {
        check.within(FIELD, |check| of_address(check, address))
    })
}

fn of_address(check: &mut Check, node: &mut Node) -> Option<Arc<SecretConfig>> {
    let Tree::Text(address) = &node.tree else {
        return check.wrong(node, "a string");
    };
    let refused = if is_reference(address) {
        Some("expected an address; the key set that a reference stands for goes into jwks")
    } else if host(address).is_none() {
        Some("expected https://host[:port]/path")
    } else {
        None
    };
    if let Some(message) = refused {
        check.error(node.at, "invalid-value", message);
        return None;
    }
    let manager = manager(address.trim());
    node.tree = Tree::Text(format!("$secret://{MANAGER}/{}/body", manager.name));
    Some(Arc::new(manager))
}

/// The manager of an address: the same whoever names it.
fn manager(address: &str) -> SecretConfig {
    let host = host(address).unwrap_or_default();
    let shown = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let host: String = host.chars().map(shown).take(SHOWN_CHARS).collect();
    // Fixed keys: the name stands in logs and metrics, and must outlive the process.
    let mut hasher = SipHasher13::new_with_keys(0x6a77, 0x6b73);
    address.hash(&mut hasher);
    SecretConfig {
        manager: MANAGER.to_owned(),
        name: format!("jwks-{}-{:016x}", host.trim_matches('-'), hasher.finish()),
        fields: json!({ "uri": address, "format": "json" }),
    }
}

/// Host and port of an address.
fn host(address: &str) -> Option<&str> {
    let (scheme, rest) = address.trim().split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    let host = rest.split(['/', '?', '#']).next()?;
    (is_http && !host.is_empty() && !host.contains('@')).then_some(host)
}

fn member<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    let Tree::Map(entries) = &mut node.tree else {
        return None;
    };
    let entry = entries.iter_mut().find(|entry| &*entry.key == name)?;
    Some(&mut entry.node)
}

const PLUGIN: &str = "jwt-auth";
const FIELD: &str = "jwks_uri";
const MANAGER: &str = "http";
/// How much of the host the manager's name repeats; an id has 64 characters.
const SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(plugins: serde_json::Value) -> (Option<Arc<SecretConfig>>, Node, Check) {
        let (mut check, mut node) = (Check::default(), Node::from_json(plugins));
        (take(&mut check, &mut node), node, check)
    }

    #[test]
    fn an_address_becomes_a_manager_and_a_reference() {
        let address = "https://idp.test:8443/realms/a/certs?p=1";
        let plugins = json!({"key-auth": {}, "jwt-auth": {"key": "k", "jwks_uri": address}});
        let (manager, node, check) = taken(plugins);
        let manager = manager.expect("address is good");
        assert!(check.findings.is_empty());
        assert_eq!(manager.fields, json!({"uri": address, "format": "json"}));
        assert!(
            manager.name.starts_with("jwks-idp.test-8443-"),
            "{}",
            manager.name
        );
        let settings = node.find(PLUGIN).expect("plugin stays");
        let reference = format!("$secret://http/{}/body", manager.name);
        let written = settings.find(FIELD).and_then(Node::as_text);
        assert_eq!(written, Some(reference.as_str()));
        assert_eq!(settings.find("key").and_then(Node::as_text), Some("k"));
    }

    #[test]
    fn one_address_is_one_manager_and_names_are_ids() {
        let long = format!("https://{}.test/keys", "x".repeat(300));
        let addresses = [
            "https://idp.test/keys",
            "https://idp.test/keys?",
            "https://idp.test/Keys",
            "http://idp.test/keys",
            "https://[2001:db8::1]:8443/keys",
            long.as_str(),
        ];
        let names: std::collections::HashSet<_> = addresses
            .iter()
            .map(|address| manager(address).name)
            .collect();
        assert_eq!(names.len(), addresses.len());
        assert!(
            names.iter().all(|name| super::super::shape::is_id(name)),
            "{names:?}"
        );
        assert_eq!(manager(addresses[0]).name, "jwks-idp.test-531202cabfa181b2");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for address in [
            json!(""),
            json!("idp.test/hunter2"),
            json!("ftp://idp.test/hunter2"),
            json!("https:///hunter2"),
            json!("https://user:hunter2@idp.test/keys"),
            json!("$secret://vault/main/idp/hunter2"),
            json!("$ENV://hunter2"),
            json!(["https://idp.test/hunter2"]),
            json!(null),
        ] {
            let (manager, _, check) = taken(json!({"jwt-auth": {"jwks_uri": address}}));
            assert!(manager.is_none(), "{address}");
            let finding = &check.findings[0];
            assert_eq!(finding.field, "jwt-auth.jwks_uri");
            assert!(!finding.message.contains("hunter2"));
        }
        for plugins in [
            json!({}),
            json!({"jwt-auth": null}),
            json!([]),
            json!({"jwt-auth": {}}),
        ] {
            let (manager, _, check) = taken(plugins);
            assert!(manager.is_none() && check.findings.is_empty());
        }
    }
}
