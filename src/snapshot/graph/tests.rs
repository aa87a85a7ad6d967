use super::*;
use crate::config::parse;

const RESOURCES: &str = "
secrets:
  - { id: vault/main, uri: 'http://h', prefix: a, token: $env://TOKEN }
routes:
  - { id: on, uri: /a, plugin_config_id: used, upstream_id: u, plugins: { redirect: { uri: $env://R, _meta: { disable: true } } } }
  - { id: off, uri: /b, status: 0, plugins: { redirect: { uri: $env://R } } }
plugin_configs:
  - { id: used, plugins: { redirect: { uri: $env://R } } }
  - { id: unused, plugins: { redirect: { uri: $env://R } } }
upstreams:
  - { id: u, nodes: { 'h:1': 1 }, scheme: https, tls: { client_cert_id: shown, verify: false } }
  - { id: spare, nodes: { 'h:1': 1 }, scheme: https, tls: { client_cert: $env://C, client_key: $env://K, verify: false } }
consumers:
  - { username: jack, plugins: { key-auth: { key: $secret://vault/main/jack/key } } }
global_rules:
  - { id: g, plugins: { response-rewrite: { headers: { set: { X: $secret://vault/gone/x/y } } } } }
ssls:
  - { id: site, sni: a.test, cert: $env://C, key: $env://K, client: { ca: $env://CA } }
  - { id: shown, type: client, cert: $env://C, key: $env://K }
  - { id: hidden, type: client, cert: $env://C, key: $env://K }
plugin_metadata:
  - { id: redirect, a: [x, $env://M] }
  - { id: cors, a: $env://M }
#END
";

fn documents(text: &str) -> Documents {
    let env: parse::SharedEnv = Arc::new(|_: &str| None);
    parse::parse(text, &"t.yaml".into(), &env).expect("is a document")
}

#[test]
fn every_use_has_its_place_and_what_refuses_without_it() {
    let graph = Graph::of(&documents(RESOURCES));
    let shown = |one: &Use| {
        let required = if one.required { "" } else { " (unused)" };
        let status = one.consequence.split(' ').next().unwrap_or_default();
        format!("{} {} {status}{required}", one.object, one.field)
    };
    let mut shown: Vec<_> = graph.uses.iter().map(shown).collect();
    shown.sort();
    assert_eq!(
        shown,
        [
            "consumers/jack plugins.key-auth.key 401,",
            "global_rules/g plugins.response-rewrite.headers.set.X 503",
            "plugin_configs/unused plugins.redirect.uri 503 (unused)",
            "plugin_configs/used plugins.redirect.uri 503",
            "plugin_metadata/cors a 503 (unused)",
            "plugin_metadata/redirect a.1 503",
            "routes/off plugins.redirect.uri 503 (unused)",
            "routes/on plugins.redirect.uri 503 (unused)",
            "secrets/vault/main token every",
            "ssls/hidden cert 503 (unused)",
            "ssls/hidden key 503 (unused)",
            "ssls/shown cert 503",
            "ssls/shown key 503",
            "ssls/site cert the",
            "ssls/site client.ca the",
            "ssls/site key the",
            "upstreams/spare tls.client_cert 503 (unused)",
            "upstreams/spare tls.client_key 503 (unused)",
        ]
    );
    let managers: Vec<_> = graph.by_manager().into_keys().collect();
    assert_eq!(managers, ["env", "vault/gone", "vault/main"]);
}

#[test]
fn a_manager_that_is_not_declared_is_told_once_with_its_users() {
    let before = documents(RESOURCES);
    let told = |documents: &Documents, before| -> Vec<String> {
        let found = undeclared_managers(documents, before);
        found.iter().map(ToString::to_string).collect()
    };
    let lines = told(&before, None);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let gone = "secrets/vault/gone: is used by 1 object (global_rules/g) and is not declared";
    assert!(lines[0].contains(gone), "{lines:?}");
    assert!(lines[0].starts_with("t.yaml:16:"), "{lines:?}");
    let renamed = documents(&RESOURCES.replace("id: vault/main", "id: vault/new"));
    let lines = told(&renamed, Some(&before));
    let hint = "(consumers/jack) and was removed; secrets/vault/new is new: was it renamed?";
    assert!(lines[1].contains(hint), "{lines:?}");
}

#[test]
fn a_reference_names_its_manager_or_none() {
    for (reference, expected) in [
        ("$secret://vault/main/a/b", Some("vault/main")),
        ("$secret://vault/main/a", Some("vault/main")),
        ("$secret://vault/main", None),
        ("$secret:/vault", None),
        ("$env://A/b", Some("env")),
        ("$ENV://A", Some("env")),
    ] {
        assert_eq!(manager_of(reference), expected, "{reference}");
    }
}

/// Each document of a manager that was away gave a snapshot, a log line and an audit line of its
/// own whenever the words of its error changed.
#[test]
fn other_reasons_of_missing_values_are_told_from_all_that_changes_who_is_served() {
    let value = |version| {
        let value = crate::secrets::Secret::from("v".to_owned());
        Ok(crate::secrets::Resolved::new(&value, version))
    };
    let none = |why: &str| Err(Unresolved::because(why));
    let view = |a, b| View::new([("$env://A".into(), a), ("$env://B".into(), b)].into());
    let before = view(value(1), none("down"));
    for (after, reasons_alone) in [
        (view(value(1), none("timed out")), true),
        (view(value(1), none("down")), false),
        (view(value(2), none("timed out")), false),
        (view(none("gone"), none("timed out")), false),
        (view(value(1), value(2)), false),
    ] {
        assert_eq!(differ_in_reasons(&after, &before), reasons_alone);
    }
}
