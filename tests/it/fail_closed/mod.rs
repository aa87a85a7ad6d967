//! Secrets that cannot be had, and items that cannot be read: what needs them refuses, nothing else
//! does, and it heals by itself.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use claviger::tls::dev::{Authority, Issued};
use serde_json::{Value, json};

use crate::harness::{
    Behaviour, Connection, Gateway, OpenBao, Relay, Relaying, Upstream, certs, client, ports,
    wait_until,
};

mod broken_items;
mod broken_names;
mod impostors;

/// One of everything that can need a secret, and beside each a neighbour that needs none.
struct Stand {
    upstream: Upstream,
    ca: String,
    secret: Issued,
    literal: Issued,
}

impl Stand {
    fn new() -> Self {
        let authority = Authority::new().unwrap();
        Self {
            upstream: Upstream::start(Behaviour::ok()),
            ca: authority.cert_pem().unwrap(),
            secret: certs::server(&authority, &["secret.test"]),
            literal: certs::server(&authority, &["literal.test"]),
        }
    }

    async fn fill(&self, bao: &OpenBao) {
        bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
        bao.put_v2("edge/plugin", json!({"header": "header-1"}))
            .await;
        let key = certs::key_text(&self.secret);
        bao.put_v2(
            "edge/tls",
            json!({"cert": self.secret.cert_pem, "key": key}),
        )
        .await;
    }

    fn resources(&self, managers: &str, more_consumers: &str) -> String {
        let node = self.upstream.addr;
        let cert = json!(self.literal.cert_pem);
        let key = json!(certs::key_text(&self.literal));
        format!(
            r#"
secrets:
{managers}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: "{ALICE}" }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: bob }} }} }}
{more_consumers}
ssls:
  - {{ id: secret, sni: secret.test, cert: "$secret://vault/main/tls/cert", key: "$secret://vault/main/tls/key" }}
  - {{ id: literal, sni: literal.test, cert: {cert}, key: {key} }}
routes:
  - {{ id: open, host: open.test, uri: /*, upstream_id: u }}
  - {{ id: guarded, host: guarded.test, uri: /*, upstream_id: u, plugins: {{ key-auth: {{}} }} }}
  - id: plugin
    host: plugin.test
    uri: /*
    upstream_id: u
    plugins:
      proxy-rewrite: {{ headers: {{ set: {{ X-Up: "$secret://vault/main/plugin/header" }} }} }}
upstreams:
  - {{ id: u, type: roundrobin, nodes: {{ "{node}": 1 }} }}
"#
        )
    }

    /// What needs no secret serves, whatever happens.
    fn neighbours_serve(&self, gateway: &Gateway) {
        assert_eq!(gateway.get("open.test", "/", &[]).status, 200);
        assert_eq!(with_key(gateway, "bob"), 200);
        Connection::open_tls(gateway.https(), "literal.test", &self.ca)
            .expect("a name with a literal certificate must serve");
    }

    fn secrets_serve(&self, gateway: &Gateway) -> bool {
        with_key(gateway, "alice-1") == 200
            && gateway.get("plugin.test", "/", &[]).status == 200
            && Connection::open_tls(gateway.https(), "secret.test", &self.ca).is_ok()
    }

    /// What needs a secret refuses, each in its own way, and readiness says so.
    fn secrets_refuse(&self, gateway: &Gateway) {
        for key in ["alice-1", ALICE, ""] {
            assert_eq!(with_key(gateway, key), 401, "{key:?} opens nothing");
        }
        let before = self.upstream.count();
        let refusal = gateway.get("plugin.test", "/", &[]);
        assert_eq!(refusal.status, 503);
        let body: Value = serde_json::from_str(&refusal.text()).expect("refusals are JSON");
        let message = body["error_msg"].as_str().unwrap_or_default();
        assert!(message.contains("proxy-rewrite"), "{message}");
        assert!(!message.contains("secret://"), "{message}");
        assert_eq!(
            self.upstream.count(),
            before,
            "no refusal reaches upstreams"
        );
        let handshake = Connection::open_tls(gateway.https(), "secret.test", &self.ca);
        let error = handshake.expect_err("the name must refuse");
        assert!(error.contains("alert"), "{error}");
        assert_unready(gateway);
    }
}

const ALICE: &str = "$secret://vault/main/alice/key";

fn with_key(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("guarded.test", "/", &[("apikey", key)]).status
}

fn assert_unready(gateway: &Gateway) {
    let reply = client::get(gateway.status(), "/status/ready", &[("Host", "status")]);
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("secret"), "{}", reply.text());
}

fn vault(name: &str, uri: &str, token: &str, more: &str) -> String {
    format!(
        "  - {{ id: vault/{name}, uri: '{uri}', prefix: secret/edge, token: '{token}', ttl: 1, \
         neg_ttl: 1, {more} }}\n"
    )
}

fn references_in(gateway: &Gateway, manager: &str, state: &str) -> bool {
    gateway.metrics_page().lines().any(|line| {
        line.starts_with("claviger_secret_references{")
            && line.contains(&format!("manager=\"{manager}\""))
            && line.contains(&format!("state=\"{state}\""))
            && !line.ends_with(" 0")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_manager_that_is_down_at_the_start_refuses_its_users_until_it_comes_up() {
    let bao = OpenBao::start().await;
    let stand = Stand::new();
    stand.fill(&bao).await;
    let port = ports::free();
    let manager = vault(
        "main",
        &format!("http://127.0.0.1:{port}"),
        &bao.token,
        "timeout: 3",
    );
    let mut many = String::new();
    for n in 0..300 {
        let _ = writeln!(
            many,
            "  - {{ username: c{n}, plugins: {{ key-auth: {{ key: $secret://vault/main/c{n}/key }} }} }}"
        );
    }
    let gateway = Gateway::builder()
        .resources(stand.resources(&manager, &many))
        .unready()
        .start();
    wait_until("routes are served", || {
        gateway.get("open.test", "/", &[]).status == 200
    });
    stand.neighbours_serve(&gateway);
    stand.secrets_refuse(&gateway);
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains("vault/main"));
    let lines: Vec<_> = lines.collect();
    assert!(
        (1..=3).contains(&lines.len()),
        "a line per reason, not one per reference: {lines:#?}"
    );

    let _relay = Relay::start_on(port, &bao.addr, Relaying::Pass);
    wait_until("it heals by itself", || stand.secrets_serve(&gateway));
    stand.neighbours_serve(&gateway);
    // The three hundred are still not there.
    assert_unready(&gateway);
    gateway.write_resources(&stand.resources(&manager, ""));
    wait_until("all that is declared is there", || gateway.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_manager_sealed_later_serves_on_until_max_stale() {
    let bao = OpenBao::start().await;
    let stand = Stand::new();
    stand.fill(&bao).await;
    let manager = vault("main", &bao.addr, &bao.token, "max_stale: 4");
    let gateway = Gateway::start(stand.resources(&manager, ""));
    assert!(stand.secrets_serve(&gateway));
    bao.seal().await;
    let sealed = Instant::now();
    wait_until("values are called stale", || {
        assert!(stand.secrets_serve(&gateway), "stale values serve");
        references_in(&gateway, "vault/main", "stale")
    });
    wait_until("readiness names the manager", || {
        let reply = client::get(gateway.status(), "/status/ready", &[("Host", "status")]);
        reply
            .text()
            .contains("secret manager vault/main does not answer")
    });
    wait_until("values too old are refused", || {
        with_key(&gateway, "alice-1") == 401
    });
    let lasted = sealed.elapsed();
    assert!(
        lasted > Duration::from_secs(2),
        "served only {lasted:?} after the seal"
    );
    wait_until("all of them are refused", || {
        gateway.get("plugin.test", "/", &[]).status == 503
            && Connection::open_tls(gateway.https(), "secret.test", &stand.ca).is_err()
            && !gateway.is_ready()
    });
    stand.secrets_refuse(&gateway);
    stand.neighbours_serve(&gateway);
}

#[test]
fn references_that_mean_nothing_refuse_alone_and_their_text_is_no_key() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .env("EMPTY_VARIABLE", "")
        .env("JSON_VARIABLE", r#"{"key":"","list":[1]}"#)
        .file("secrets/alice", "alice-1")
        .file("secrets/empty", "")
        .file("outside", "escaped");
    let references = [
        "$secret://file/main/../outside",
        "$secret://file/main/%2e%2e/outside",
        "$secret://file/main/..%2foutside",
        "$secret://file/main//alice",
        "$secret://file/main/absent",
        "$secret://file/main/empty",
        "$secret://file/main",
        "$secret://file/undeclared/alice",
        "$secret://vault/undeclared/alice/key",
        "$secret://nowhere/main/alice/key",
        "$secret://",
        "$secret://file/main/alice?surprise=1",
        "$env://UNSET_VARIABLE_OF_A_TEST",
        "$env://EMPTY_VARIABLE",
        "$env://JSON_VARIABLE/key",
        "$env://JSON_VARIABLE/list",
        "$env://JSON_VARIABLE/absent",
        "$env://",
        "$ENV://UNSET_VARIABLE_OF_A_TEST",
        "$SECRET://file/main/absent",
    ];
    let mut consumers = String::new();
    for (n, reference) in references.iter().enumerate() {
        let _ = writeln!(
            consumers,
            "  - {{ username: bad{n}, plugins: {{ key-auth: {{ key: '{reference}' }} }} }}"
        );
    }
    let resources = format!(
        r#"
secrets:
  - {{ id: file/main, path: {}/secrets }}
consumers:
{consumers}
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://file/main/alice }} }} }}
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins: {{ key-auth: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
        builder.dir().display(),
        upstream.addr
    );
    let gateway = builder.resources(resources).unready().start();
    wait_until("the one good key opens", || {
        with_key(&gateway, "alice-1") == 200
    });
    for key in references.iter().chain(&["", "escaped", "[1]", "null"]) {
        assert_eq!(with_key(&gateway, key), 401, "{key} must open nothing");
    }
    assert_eq!(upstream.count(), 1);
    assert_unready(&gateway);
}

#[test]
fn a_pair_that_never_fitted_refuses_its_name_until_it_fits() {
    let stand = Stand::new();
    let upstream = stand.upstream.addr;
    let builder = Gateway::builder()
        .file("secrets/cert", &stand.secret.cert_pem)
        .file("secrets/key", certs::key_text(&stand.literal));
    let resources = format!(
        r#"
secrets:
  - {{ id: file/main, path: {}/secrets, ttl: 1 }}
ssls:
  - {{ id: secret, sni: secret.test, cert: $secret://file/main/cert, key: $secret://file/main/key }}
  - {{ id: literal, sni: literal.test, cert: {}, key: {} }}
routes:
  - {{ id: open, uri: /*, upstream: {{ type: roundrobin, nodes: {{ "{upstream}": 1 }} }} }}
"#,
        builder.dir().display(),
        json!(stand.literal.cert_pem),
        json!(certs::key_text(&stand.literal)),
    );
    let gateway = builder.resources(resources).unready().start();
    wait_until("the name beside it serves", || {
        Connection::open_tls(gateway.https(), "literal.test", &stand.ca).is_ok()
    });
    let refused = Connection::open_tls(gateway.https(), "secret.test", &stand.ca);
    assert!(refused.err().is_some_and(|error| error.contains("alert")));
    let log = gateway.log();
    assert!(log.contains("ssls/secret"), "the finding names the item");
    gateway.write_file("secrets/key", certs::key_text(&stand.secret));
    wait_until("the pair that fits serves", || {
        Connection::open_tls(gateway.https(), "secret.test", &stand.ca).is_ok()
    });
}

#[test]
fn a_manager_that_leaves_the_file_takes_its_values_along() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder().file("secrets/alice", "alice-1");
    let manager = format!(
        "secrets:\n  - {{ id: file/main, path: {}/secrets }}\n",
        builder.dir().display()
    );
    let rest = format!(
        r#"
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://file/main/alice }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: bob }} }} }}
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins: {{ key-auth: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
        upstream.addr
    );
    let both = manager + &rest;
    let gateway = builder.resources(both.clone()).start();
    assert_eq!(with_key(&gateway, "alice-1"), 200);
    gateway.write_resources(&rest);
    wait_until("the value went with its manager", || {
        with_key(&gateway, "alice-1") == 401
    });
    assert_eq!(with_key(&gateway, "bob"), 200);
    wait_until("readiness tells", || !gateway.is_ready());
    gateway.write_resources(&both);
    wait_until("it is back with its manager", || {
        with_key(&gateway, "alice-1") == 200 && gateway.is_ready()
    });
}

#[test]
fn two_consumers_with_one_key_are_told_for_as_long_as_they_are_there() {
    let upstream = Upstream::start(Behaviour::ok());
    let resources = |host: &str, second: &str| {
        format!(
            r#"
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $env://SAME }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: {second} }} }} }}
routes:
  - id: guarded
    host: {host}
    uri: /*
    plugins: {{ key-auth: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
            upstream.addr
        )
    };
    let gateway = Gateway::builder()
        .env("SAME", "same-key")
        .resources(resources("guarded.test", "same-key"))
        .start();
    let told = || {
        gateway
            .metrics_page()
            .contains("claviger_config_diagnostics{severity=\"error\"} 1")
    };
    let log = gateway.log();
    assert!(log.contains("duplicate key of plugin key-auth"), "{log}");
    assert!(!log.contains("same-key"), "the key itself is not told");
    wait_until("the finding is counted", told);
    gateway.write_resources(&resources("other.test", "same-key"));
    wait_until("the other host is served", || {
        let reply = gateway.get("other.test", "/", &[("apikey", "same-key")]);
        reply.status == 200
    });
    assert!(told(), "it stands although no consumer changed");
    gateway.write_resources(&resources("other.test", "another"));
    wait_until("the finding went with its cause", || !told());
}
