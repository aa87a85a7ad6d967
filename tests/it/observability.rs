//! What operators see of secrets while something is wrong with them: metrics, readiness, log.

use serde_json::{Value, json};

use crate::harness::{Gateway, OpenBao, client, wait_until};

fn manager(name: &str, uri: &str, token: &str) -> String {
    format!(
        "  - {{ id: vault/{name}, uri: '{uri}', prefix: secret/edge, token: '{token}', ttl: 1, \
         neg_ttl: 1, timeout: 2 }}\n"
    )
}

fn consumers(all: &[(&str, &str)]) -> String {
    let consumer = |(name, reference): &(&str, &str)| {
        format!("  - {{ username: {name}, plugins: {{ key-auth: {{ key: '{reference}' }} }} }}\n")
    };
    let consumers: String = all.iter().map(consumer).collect();
    format!("consumers:\n{consumers}")
}

/// The sample of that name whose labels hold all of these.
fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    line?.rsplit_once(' ')?.1.parse().ok()
}

fn ready(gateway: &Gateway) -> (u16, Value) {
    let reply = client::get(gateway.status(), "/status/ready", &[("Host", "status")]);
    (reply.status, serde_json::from_str(&reply.text()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn metrics_tell_an_outage_of_a_manager_from_beginning_to_end() {
    let bao = OpenBao::start_server().await;
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let rules = r#"path "secret/*" { capabilities = ["read"] }
        path "sys/internal/ui/mounts/*" { capabilities = ["read"] }"#;
    let token = bao.token_with("reader", rules).await;
    let resources = [
        "secrets:\n".to_owned(),
        manager("main", &bao.addr, &token),
        consumers(&[
            ("alice", "$secret://vault/main/alice/key"),
            ("bob", "$secret://vault/main/absent/key"),
            ("carol", "$env://CLAVIGER_TEST_CAROL"),
        ]),
    ];
    let gateway = Gateway::builder()
        .env("CLAVIGER_TEST_CAROL", "carol-1")
        .resources(resources.concat())
        .unready()
        .start();
    let main = "manager=\"vault/main\"";
    let value = |name: &str, labels: &[&str]| {
        let labels = [&[main], labels].concat();
        sample(
            &gateway.metrics_page(),
            &format!("claviger_secret_{name}"),
            &labels,
        )
    };
    wait_until("all is counted", || {
        value("references", &["state=\"fresh\""]) == Some(1.0)
            && value("unresolved", &[]) == Some(1.0)
            && value("documents", &[]) == Some(2.0)
            && value("circuit_state", &[]) == Some(0.0)
            && value("refusals_total", &[]) >= Some(1.0)
            && value("fetch_errors_total", &["kind=\"not_found\""]) >= Some(1.0)
            && value("fetch_duration_seconds_count", &[]) == value("fetches_total", &[])
            && value("login_left_seconds", &["method=\"token\""]) > Some(1000.0)
            && value("logins_total", &["result=\"accepted\""]) == Some(1.0)
    });
    let page = gateway.metrics_page();
    let env = ["manager=\"env\"", "state=\"fresh\""];
    assert_eq!(sample(&page, "claviger_secret_references", &env), Some(1.0));
    bao.put_v2("edge/alice", json!({"key": "alice-2"})).await;
    wait_until("a new version is counted", || {
        value("adoptions_total", &[]) == Some(1.0)
    });

    let listed = |query: &str| -> Value {
        let path = format!("/status/secrets?{query}");
        let reply = client::get(gateway.status(), &path, &[("Host", "status")]);
        serde_json::from_str(&reply.text()).unwrap()
    };
    assert_eq!(listed("")["total"], 3);
    let alice = &listed("manager=vault%2Fmain&state=fresh")["references"][0];
    assert_eq!(alice["reference"], "$secret://vault/main/alice/key");
    assert_eq!(
        (&alice["manager_version"], &alice["path"]),
        (&json!("2"), &json!("alice"))
    );
    assert!(
        alice["age_seconds"].is_u64() && alice["version"].is_u64(),
        "{alice}"
    );
    let bob = listed("state=refused&limit=1");
    assert_eq!(
        bob["references"][0]["reason"], "document not found",
        "{bob}"
    );

    bao.seal().await;
    wait_until("the outage is told", || {
        value("fetch_errors_total", &["kind=\"sealed\""]) >= Some(5.0)
            && value("references", &["state=\"stale\""]) == Some(1.0)
            && value("circuit_state", &[]) > Some(0.0)
            && value("oldest_age_seconds", &[]) > Some(1.0)
    });
    bao.unseal().await;
    wait_until("its end is told", || {
        value("references", &["state=\"fresh\""]) == Some(1.0)
            && value("circuit_state", &[]) == Some(0.0)
    });
    gateway.write_resources(&consumers(&[]));
    wait_until("its series go with it", || {
        !gateway.metrics_page().contains(main)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn readiness_asks_for_what_is_in_use_and_names_the_rest() {
    let bao = OpenBao::start().await;
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let unused = "plugin_configs:
  - { id: spare, plugins: { response-rewrite: { headers: { set: { X-A: $secret://vault/main/spare/a } } } } }
routes:
  - { id: off, uri: /off, status: 0, plugins: { response-rewrite: { body: $secret://vault/main/off/b } } }
";
    let resources = |names: &[(&str, &str)]| {
        let secrets = manager("main", &bao.addr, &bao.token);
        format!("secrets:\n{secrets}{}{unused}", consumers(names))
    };
    let alice = ("alice", "$secret://vault/main/alice/key");
    let bob = ("bob", "$secret://vault/main/absent/key");
    let gateway = Gateway::start(resources(&[alice]));
    wait_until("what nothing needs is a warning", || {
        let (status, body) = ready(&gateway);
        let warning = body["warning"].as_str().unwrap_or_default();
        status == 200
            && warning == "2 secret references without value that nothing in use needs"
            && body["unresolved"]["not_in_use"] == 2
    });
    gateway.write_resources(&resources(&[alice, bob]));
    wait_until("what is in use is an obstacle", || {
        let (status, body) = ready(&gateway);
        let error = body["error"].as_str().unwrap_or_default();
        status == 503
            && error == "1 secret reference is not resolved: consumers/bob plugins.key-auth.key"
            && body["unresolved"]["required"] == 1
            && body["unresolved"]["places"] == json!(["consumers/bob plugins.key-auth.key"])
    });
    bao.put_v2("edge/absent", json!({"key": "bob-1"})).await;
    wait_until("it heals by itself", || ready(&gateway).0 == 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_was_ready_may_stay_so() {
    let bao = OpenBao::start().await;
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let resources = |names: &[(&str, &str)]| {
        let secrets = manager("main", &bao.addr, &bao.token);
        format!("secrets:\n{secrets}{}", consumers(names))
    };
    let alice = ("alice", "$secret://vault/main/alice/key");
    let bob = ("bob", "$secret://vault/main/absent/key");
    let gateway = Gateway::builder()
        .bootstrap("claviger: { secrets: { ready: started } }")
        .resources(resources(&[alice, bob]))
        .unready()
        .start();
    wait_until("it is not ready before all had a value", || {
        let (status, body) = ready(&gateway);
        status == 503 && body["unresolved"]["required"] == 1
    });
    gateway.write_resources(&resources(&[alice]));
    wait_until("now all have", || ready(&gateway).0 == 200);
    gateway.write_resources(&resources(&[alice, bob]));
    wait_until("a later mistake is a warning", || {
        let (status, body) = ready(&gateway);
        let warning = body["warning"].as_str().unwrap_or_default();
        assert_eq!(status, 200, "{body}");
        warning.contains("consumers/bob")
    });
}

#[test]
fn a_manager_removed_or_renamed_while_in_use_is_told_with_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let manager = |name: &str| {
        let path = folder.path().display();
        format!("secrets:\n  - {{ id: file/{name}, path: '{path}' }}\n")
    };
    let users = consumers(&[
        ("alice", "$secret://file/main/alice/key"),
        ("bob", "$secret://file/main/bob/key"),
    ]);
    let gateway = Gateway::builder()
        .resources(format!("{}{users}", manager("main")))
        .unready()
        .start();
    let told = |what: &str| {
        gateway
            .log()
            .lines()
            .filter(|line| line.contains(what))
            .count()
    };
    gateway.write_resources(&format!("{}{users}", manager("moved")));
    let renamed = "secrets/file/main: is used by 2 objects (consumers/alice, consumers/bob) and was \
                   removed; secrets/file/moved is new: was it renamed?";
    wait_until("the renaming is told", || told(renamed) == 1);
    gateway.write_resources(&format!("{}{users}", manager("main")));
    gateway.write_resources(&users);
    wait_until("the removal is told", || {
        told("consumers/bob) and was removed") >= 1
    });
}
