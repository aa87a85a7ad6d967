//! Items that fail their own checks: what refers to one refuses where it would have served, and no
//! broader route takes over.

use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

/// Each broken item has the field `nope`, which refuses it.
fn resources(node: &Upstream) -> String {
    let open = format!("upstream: {{ nodes: {{ '{}': 1 }} }}", node.addr);
    format!(
        r#"
services:
  - {{ id: broken, hosts: [service.test], plugins: {{ key-auth: {{}} }}, {open}, nope: 1 }}
  - {{ id: text, hosts: text.test, plugins: {{ key-auth: {{}} }}, {open} }}
  - {{ id: lost, hosts: ['x y'], {open} }}
  - {{ id: sound, hosts: [sound.test], plugins: {{ key-auth: {{}} }}, {open} }}
plugin_configs:
  - {{ id: broken, plugins: {{ key-auth: {{}} }}, nope: 1 }}
upstreams:
  - {{ id: broken, nodes: {{ '{node}': 1 }}, nope: 1 }}
consumer_groups:
  - {{ id: broken, plugins: {{ ip-restriction: {{ blacklist: [0.0.0.0/0] }} }}, nope: 1 }}
consumers:
  - {{ username: sound, plugins: {{ key-auth: {{ key: sound }} }} }}
  - {{ id: sound/credentials/broken, plugins: {{ key-auth: {{ key: credential }} }}, nope: 1 }}
  - {{ username: broken, plugins: {{ key-auth: {{ key: broken }} }}, nope: 1 }}
  - {{ id: broken/credentials/sound, plugins: {{ key-auth: {{ key: orphan }} }} }}
  - {{ username: member, group_id: broken, plugins: {{ key-auth: {{ key: member }} }} }}
  - {{ username: secret, plugins: {{ key-auth: {{ key: $secret://file/ma in/key }} }} }}
secrets:
  - {{ id: file/ma in, path: /tmp }}
  - {{ id: file/nowhere, path: [] }}
plugin_metadata:
  - {{ id: 'c o r s', allow_origins: {{ a: 'https://a.test' }} }}
routes:
  - {{ id: by-service, uri: /admin/*, service_id: broken }}
  - {{ id: by-text, uri: /admin/*, service_id: text }}
  - {{ id: refused, uri: /admin/*, service_id: sound, nope: 1 }}
  - {{ id: off, status: 0, host: off.test, uri: /admin/*, {open}, nope: 1 }}
  - {{ id: ahead, host: ahead.test, uri: /*, priority: '9', vars: [[arg_a, '==', '1']], {open} }}
  - {{ id: behind, host: ahead.test, uri: /*, priority: 5, {open} }}
  - {{ id: unread, host: [], plugins: {{}} }}
  - {{ id: by-set, host: set.test, uri: /admin/*, plugin_config_id: broken, {open} }}
  - {{ id: by-upstream, host: upstream.test, uri: /admin/*, plugins: {{ key-auth: {{}} }}, upstream_id: broken }}
  - {{ id: keyed, host: keyed.test, uri: /*, plugins: {{ key-auth: {{}} }}, {open} }}
  - id: plugin
    host: plugin.test
    uri: /*
    plugins: {{ proxy-rewrite: {{ headers: {{ set: {{ X-A: $secret://file/nowhere/a }} }} }} }}
    {open}
  - {{ id: hosts, hosts: [service.test, text.test, sound.test, off.test, set.test, upstream.test], uri: /*, {open} }}
  - {{ id: all, uri: /*, {open} }}
"#,
        node = node.addr
    )
}

#[test]
fn what_refers_to_a_broken_item_refuses() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .resources(resources(&node))
        .unready()
        .start();
    let get = |host: &str, path: &str, key: &str| {
        let headers = [("apikey", key)];
        gateway
            .get(host, path, &headers[..usize::from(!key.is_empty())])
            .status
    };
    wait_until("routes are there", || get("any.test", "/", "") == 200);
    let before = node.count();
    for (what, host, path, key, status) in [
        ("a service", "service.test", "/admin/a", "sound", 404),
        ("its hosts as text", "text.test", "/admin/a", "sound", 404),
        (
            "a route, hosts of its service",
            "sound.test",
            "/admin/a",
            "sound",
            404,
        ),
        ("a plugin_config", "set.test", "/admin/a", "", 503),
        (
            "an upstream, plugins first",
            "upstream.test",
            "/admin/a",
            "",
            401,
        ),
        ("an upstream", "upstream.test", "/admin/a", "sound", 502),
        ("a priority", "ahead.test", "/?a=1", "", 404),
        ("a consumer", "keyed.test", "/", "broken", 401),
        ("a credential", "keyed.test", "/", "credential", 401),
        ("a credential's consumer", "keyed.test", "/", "orphan", 401),
        ("a consumer's group", "keyed.test", "/", "member", 503),
        (
            "a manager's id",
            "keyed.test",
            "/",
            "$secret://file/ma in/key",
            401,
        ),
        ("a manager", "plugin.test", "/", "", 503),
    ] {
        assert_eq!(get(host, path, key), status, "{what}");
    }
    assert_eq!(node.count(), before, "nothing of it reached the node");
    for (what, host, path, key) in [
        ("other paths of the host", "service.test", "/", ""),
        ("other hosts", "other.test", "/admin/a", ""),
        (
            "a route that is off takes nothing",
            "off.test",
            "/admin/a",
            "",
        ),
        (
            "what the broken route did not match",
            "ahead.test",
            "/?a=2",
            "",
        ),
        ("a sound consumer", "keyed.test", "/", "sound"),
    ] {
        assert_eq!(get(host, path, key), 200, "{what}");
    }
    let log = gateway.log();
    for object in ["services/lost", "routes/unread", "plugin_metadata/arr_1"] {
        let told = log
            .lines()
            .any(|line| line.contains(object) && line.contains("guards-nothing"));
        assert!(told, "{object}: {log}");
    }
}

#[test]
fn global_rules_that_are_no_list_refuse_every_request() {
    let node = Upstream::start(Behaviour::ok());
    let route = format!(
        "routes:\n  - {{ id: open, uri: /*, upstream: {{ nodes: {{ '{}': 1 }} }} }}\n",
        node.addr
    );
    let list = "global_rules:\n  - { id: 1, plugins: { key-auth: {} } }\n";
    let map = "global_rules:\n  id: 1\n  plugins: { key-auth: {} }\n";
    let gateway = Gateway::start(format!("{route}{list}"));
    assert_eq!(gateway.get("a.test", "/", &[]).status, 401);
    gateway.write_resources(&format!("{route}{map}"));
    wait_until("every request refuses", || {
        let status = gateway.get("a.test", "/", &[]).status;
        assert_ne!(status, 200, "the protection must not be lost");
        status == 503
    });
    gateway.write_resources(&route);
    wait_until("without rules it serves", || {
        gateway.get("a.test", "/", &[]).status == 200
    });
    assert_eq!(node.count(), 1);
}
