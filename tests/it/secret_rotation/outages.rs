//! Managers that go away, are sealed, are started again, or no longer know us.

use super::*;
use crate::harness::client;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_managers_token_is_replaced_by_the_file_and_its_values_serve_meanwhile() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let rules = r#"path "secret/*" { capabilities = ["read"] }"#;
    let first = bao.token_with("reader", rules).await;
    let second = bao.token_with("reader", rules).await;
    let resources = |token: &str| {
        [
            "secrets:\n".to_owned(),
            vault("main", &bao.addr, "secret/edge", token, 1),
            consumers(&[("alice", "$secret://vault/main/alice/key")]),
            guarded(&upstream),
        ]
        .concat()
    };
    let gateway = Gateway::builder()
        .env("FIRST_TOKEN", &first)
        .resources(resources("$env://FIRST_TOKEN"))
        .start();
    assert_eq!(status_with(&gateway, "alice-1"), 200);

    bao.revoke(&first).await;
    bao.put_v2("edge/alice", json!({"key": "alice-2"})).await;
    wait_until("reads are refused", || {
        assert_eq!(status_with(&gateway, "alice-1"), 200, "stale is served");
        gateway.metrics_page().lines().any(|line| {
            line.starts_with("claviger_secret_references{")
                && line.contains("state=\"stale\"")
                && line.ends_with(" 1")
        })
    });
    gateway.write_resources(&resources(&second));
    wait_until("the new token reads the new key", || {
        status_with(&gateway, "alice-2") == 200
    });
    assert_eq!(status_with(&gateway, "alice-1"), 401);
}

/// What must go on whatever becomes of the manager.
struct Users<'a> {
    gateway: &'a Gateway,
    loads: Vec<Load<u16>>,
    fields: Load<u16>,
}

impl<'a> Users<'a> {
    fn start(gateway: &'a Gateway, ca: &str) -> Self {
        let (http, https, ca) = (gateway.http(), gateway.https(), ca.to_owned());
        Self {
            gateway,
            loads: vec![keep_alive(gateway, "steady"), keep_alive(gateway, "older")],
            fields: Load::start(move || {
                Connection::open_tls(https, "guarded.test", &ca).expect("no handshake may fail");
                client::get(http, "/", &[("Host", "field.test")]).status
            }),
        }
    }

    /// Waits until some value was not refreshed in time, so that the outage is one.
    fn wait_until_stale(&self) {
        wait_until("values are stale", || {
            self.gateway.metrics_page().lines().any(|line| {
                line.starts_with("claviger_secret_references{")
                    && line.contains("state=\"stale\"")
                    && !line.ends_with(" 0")
            })
        });
        assert!(self.gateway.is_ready(), "stale values serve");
    }

    fn stop(self) {
        assert_eq!(phases(self.fields.stop()), [200]);
        for load in self.loads {
            assert_eq!(phases(load.stop()), [200]);
        }
    }
}

/// The longest pause of a circuit after a short outage, and a read.
const BACK: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_outage_a_restart_and_a_seal_heal_by_themselves_and_fail_no_request() {
    let mut bao = OpenBao::start_server().await;
    let upstream = Upstream::start(Behaviour::ok());
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issued = certs::server(&authority, &["guarded.test"]);
    let pair = json!({"cert": issued.cert_pem, "key": certs::key_text(&issued)});
    bao.put_v2("edge/tls", pair).await;
    for (name, key) in [("steady", "steady"), ("alice", "alice-0")] {
        bao.put_v2(&format!("edge/{name}"), json!({"key": key}))
            .await;
    }
    bao.put_v1("edge/older", json!({"key": "older"})).await;
    bao.put_v1("edge/bob", json!({"key": "bob-0"})).await;
    let field = format!(
        "  - {{ id: field, host: field.test, uri: /*, plugins: {{ response-rewrite: {{ headers: {{ set: {{ \
         X-Down: $secret://vault/one/older/key }} }} }} }}, upstream: {{ type: roundrobin, nodes: {{ \"{}\": 1 }} }} }}\n",
        upstream.addr
    );
    let resources = [
        "secrets:\n".to_owned(),
        vault("two", &bao.addr, "secret/edge", &bao.token, 1),
        vault("one", &bao.addr, "kv1/edge", &bao.token, 1),
        consumers(&[
            ("steady", "$secret://vault/two/steady/key"),
            ("older", "$secret://vault/one/older/key"),
            ("alice", "$secret://vault/two/alice/key"),
            ("bob", "$secret://vault/one/bob/key"),
        ]),
        ssl(
            "guarded.test",
            "$secret://vault/two/tls/cert",
            "$secret://vault/two/tls/key",
        ),
        guarded(&upstream),
        field,
    ];
    let gateway = Gateway::start(resources.concat());
    let users = Users::start(&gateway, &ca);

    for turn in 1..=2 {
        if turn == 1 {
            bao.stop();
            users.wait_until_stale();
            // Started again it is sealed: that, too, says nothing about a secret.
            bao.restart().await;
        } else {
            bao.seal().await;
        }
        users.wait_until_stale();
        bao.unseal().await;
        let (alice, bob) = (format!("alice-{turn}"), format!("bob-{turn}"));
        bao.put_v2("edge/alice", json!({ "key": alice })).await;
        bao.put_v1("edge/bob", json!({ "key": bob })).await;
        let written = Instant::now();
        wait_until("new values are in force", || {
            status_with(&gateway, &alice) == 200 && status_with(&gateway, &bob) == 200
        });
        let took = written.elapsed();
        assert!(took <= Duration::from_secs(1) + GRACE + BACK, "{took:?}");
    }
    wait_until("readiness has nothing to say", || {
        let status = client::get(gateway.status(), "/status/ready", &[("Host", "status")]);
        status.status == 200 && !status.text().contains("warning")
    });
    users.stop();
    assert_nothing_was_reloaded(&gateway);
}
