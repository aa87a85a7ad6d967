//! References in `config.yaml`: managers that are there before any resource, settings that rotate,
//! and starts that are refused.

use std::path::Path;

use claviger::tls::dev::Authority;
use serde_json::json;

use crate::harness::gateway::Builder;
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, certs, ports, wait_until};

const NAME: &str = "node.test";

fn early(folder: &Path, more: &str) -> String {
    let folder = folder.join("secrets");
    format!(
        "claviger: {{ secrets: {{ managers: [{{ id: file/early, path: {}, ttl: 1, neg_ttl: 1 }}{more}] }} }}",
        folder.display()
    )
}

fn with_early(builder: Builder) -> Builder {
    let managers = early(builder.dir(), "");
    builder.bootstrap(&managers)
}

fn verified(node: &Upstream) -> String {
    format!(
        "routes:\n  - {{ id: a, uri: /*, upstream: {{ scheme: https, type: roundrobin, pass_host: rewrite, \
         upstream_host: {NAME}, nodes: {{ '{}': 1 }}, tls: {{ verify: true }} }} }}\n",
        node.addr
    )
}

fn node(authority: &Authority) -> Upstream {
    let issued = certs::server(authority, &[NAME, "localhost"]);
    let key = certs::key_text(&issued).as_bytes();
    Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn managers_of_the_bootstrap_serve_resources_and_win_over_their_namesakes() {
    let bao = OpenBao::start().await;
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder().env("EARLY_TOKEN", &bao.token);
    let vault = format!(
        ", {{ id: vault/main, uri: '{}', prefix: secret/edge, token: $env://EARLY_TOKEN }}",
        bao.addr
    );
    let managers = early(builder.dir(), &vault);
    let resources = |namesake: &str| {
        format!(
            r#"{namesake}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://vault/main/alice/key }} }} }}
routes:
  - {{ id: a, uri: /*, plugins: {{ key-auth: {{}} }}, upstream: {{ type: roundrobin, nodes: {{ '{}': 1 }} }} }}
"#,
            upstream.addr
        )
    };
    let gateway = builder
        .bootstrap(&managers)
        .resources(resources(""))
        .start();
    let status = || gateway.get("a", "/", &[("apikey", "alice-1")]).status;
    assert_eq!(status(), 200);
    // A namesake that points elsewhere must not take the place of the operator's manager.
    let namesake = "secrets:\n  - { id: vault/main, uri: 'http://127.0.0.1:9', prefix: secret/edge, token: x }\n";
    gateway.write_resources(&resources(namesake));
    wait_until("the clash is told", || {
        gateway.log().contains("duplicate-id")
    });
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("duplicate-id"));
    let line = line.unwrap_or_default();
    for place in ["apisix.yaml:", "config.yaml:", "secrets/vault/main"] {
        assert!(line.contains(place), "both places are named: {line}");
    }
    assert_eq!(status(), 200);
    assert!(!gateway.log().contains(&*bao.token));
}

#[test]
fn a_trust_store_out_of_a_manager_rotates() {
    let (first, second) = (Authority::new().unwrap(), Authority::new().unwrap());
    let old = node(&first);
    let builder = with_early(Gateway::builder())
        .file("secrets/ca", first.cert_pem().unwrap())
        .bootstrap("apisix: { ssl: { ssl_trusted_certificate: '$secret://file/early/ca' } }");
    let plain = Upstream::start(Behaviour::ok());
    let asking = format!(
        "  - {{ id: b, uri: /asking, plugins: {{ forward-auth: {{ uri: 'https://localhost:{}/' }} }}, \
         upstream: {{ type: roundrobin, nodes: {{ '{}': 1 }} }} }}\n",
        old.addr.port(),
        plain.addr
    );
    let gateway = builder.resources(verified(&old) + &asking).start();
    // The node, and a server that a plugin asks.
    let statuses = || ["/", "/asking"].map(|path| gateway.get("a", path, &[]).status);
    assert_eq!(statuses(), [200, 200]);
    gateway.write_file("secrets/ca", second.cert_pem().unwrap());
    wait_until("what is trusted no longer is refused", || {
        statuses() == [502, 403]
    });
    gateway.write_file("secrets/ca", first.cert_pem().unwrap());
    wait_until("and is taken again", || statuses() == [200, 200]);
    // What is no certificate trusts nothing.
    gateway.write_file("secrets/ca", "zqxmark".repeat(40));
    wait_until("verified upstreams refuse", || statuses() == [503, 403]);
    assert!(!gateway.log().contains("zqxmark"));
}

/// The log of a start that was refused.
fn refused(builder: Builder) -> String {
    let mut gateway = builder.spawn();
    let status = gateway.wait_exit();
    assert!(!status.success(), "the start must be refused");
    gateway.log()
}

#[test]
fn what_is_essential_and_has_no_value_refuses_the_start() {
    let trusted = "apisix: { ssl: { ssl_trusted_certificate: '$secret://file/early/ca' } }";
    let cases: &[(&str, &[u8], &str)] = &[
        (trusted, b"", "value is empty"),
        (trusted, b"zqxmark", "no PEM certificate"),
        (
            "apisix: { ssl: { ssl_trusted_certificate: '$secret://file/early/absent' } }",
            b"x",
            "has no value",
        ),
        (
            "apisix: { ssl: { ssl_trusted_certificate: '$secret://vault/none/a/b' } }",
            b"x",
            "no secret conf",
        ),
        (
            "plugin_attr: { prometheus: { metric_prefix: '$secret://file/early/absent' } }",
            b"x",
            "has no value",
        ),
        (
            "plugin_attr: { prometheus: { metric_prefix: '$secret://file/early/ca' } }",
            b"zqxmark bad",
            "metric_prefix",
        ),
    ];
    for (setting, value, why) in cases {
        let builder = with_early(Gateway::builder())
            .file("secrets/ca", value)
            .bootstrap(setting);
        let log = refused(builder);
        assert!(log.contains(why), "{setting}: {log}");
        assert!(!log.contains("zqxmark"), "{log}");
    }
    // A manager that is not there is told as what it is.
    let port = ports::free();
    let builder = Gateway::builder();
    let vault = format!(
        ", {{ id: vault/main, uri: 'http://127.0.0.1:{port}', prefix: secret/edge, token: t }}"
    );
    let managers = early(builder.dir(), &vault);
    let trusted = "apisix: { ssl: { ssl_trusted_certificate: '$secret://vault/main/a/ca' } }";
    let log = refused(builder.bootstrap(&managers).bootstrap(trusted));
    assert!(
        log.contains("ssl_trusted_certificate") && log.contains("unreachable"),
        "{log}"
    );
}

#[test]
fn settings_of_prometheus_may_be_references() {
    let gateway = with_early(Gateway::builder())
        .file("secrets/prefix", "ours_")
        .bootstrap("plugin_attr: { prometheus: { metric_prefix: '$secret://file/early/prefix' } }")
        .resources("routes: []")
        .start();
    assert!(gateway.metrics_page().contains("\nours_"));
}
