//! Secrets that change in their manager while the gateway serves: in force within the ttl, without
//! a reload, without a failed request.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use claviger::tls::dev::{Authority, Issued};
use openssl::x509::X509;
use serde_json::json;

use crate::harness::{
    Behaviour, Connection, Gateway, OpenBao, Relay, Relaying, Upstream, certs, wait_until,
};

const TTL: Duration = Duration::from_secs(2);
/// What a change may take beyond the ttl.
const GRACE: Duration = Duration::from_secs(1);

/// A route per consumer would prove no more: all keys are presented to this one.
fn guarded(upstream: &Upstream) -> String {
    format!(
        r#"
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins: {{ key-auth: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
        upstream.addr
    )
}

fn vault(name: &str, uri: &str, prefix: &str, token: &str, ttl: u64) -> String {
    format!(
        "  - {{ id: vault/{name}, uri: '{uri}', prefix: {prefix}, token: '{token}', \
         ttl: {ttl}, neg_ttl: 1 }}\n"
    )
}

fn consumers(keys: &[(&str, &str)]) -> String {
    let mut yaml = String::from("consumers:\n");
    for (name, key) in keys {
        let _ = writeln!(
            yaml,
            "  - username: {name}\n    plugins: {{ key-auth: {{ key: '{key}' }} }}"
        );
    }
    yaml
}

fn ssl(host: &str, cert: &str, key: &str) -> String {
    format!("ssls:\n  - {{ id: tls, sni: {host}, cert: '{cert}', key: '{key}' }}\n")
}

fn status_with(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("guarded.test", "/", &[("apikey", key)]).status
}

fn der(issued: &Issued) -> Vec<u8> {
    X509::from_pem(issued.cert_pem.as_bytes())
        .unwrap()
        .to_der()
        .unwrap()
}

/// What a client saw, time after time, until it was stopped.
struct Load<T> {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Vec<T>>,
}

impl<T: Send + 'static> Load<T> {
    fn start(mut look: impl FnMut() -> T + Send + 'static) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !until.load(Ordering::Relaxed) {
                seen.push(look());
                // A pace, so that a dozen clients leave the gateway a core.
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { stopped, thread }
    }

    fn stop(self) -> Vec<T> {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client must not fail")
    }
}

/// One keep-alive connection that presents this key; statuses in order.
fn keep_alive(gateway: &Gateway, key: &'static str) -> Load<u16> {
    let addr = gateway.http();
    let mut connection = Connection::open(addr);
    Load::start(move || {
        connection.request("GET", "/", &[("Host", "guarded.test"), ("apikey", key)]);
        let reply = connection.expect_reply();
        if reply.header("connection") == Some("close") {
            connection = Connection::open(addr);
        }
        reply.status
    })
}

/// Consecutive equal things once.
fn phases<T: PartialEq>(mut seen: Vec<T>) -> Vec<T> {
    seen.dedup();
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_and_certificates_rotate_under_load_and_only_old_credentials_fail() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let (first, second) = (
        certs::server(&authority, &["guarded.test"]),
        certs::server(&authority, &["guarded.test"]),
    );
    let pair = |issued: &Issued| json!({"cert": issued.cert_pem, "key": certs::key_text(issued)});
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    bao.put_v2("edge/steady", json!({"key": "steady"})).await;
    bao.put_v2("edge/tls", pair(&first)).await;
    bao.put_v1("edge/bob", json!({"key": "bob-1"})).await;

    let managers = [
        vault("two", &bao.addr, "secret/edge", &bao.token, TTL.as_secs()),
        vault("one", &bao.addr, "kv1/edge", &bao.token, TTL.as_secs()),
    ];
    let resources = [
        "secrets:\n".to_owned(),
        managers.concat(),
        consumers(&[
            ("alice", "$secret://vault/two/alice/key"),
            ("bob", "$secret://vault/one/bob/key"),
            ("steady", "$secret://vault/two/steady/key"),
            ("literal", "literal"),
        ]),
        ssl(
            "guarded.test",
            "$secret://vault/two/tls/cert",
            "$secret://vault/two/tls/key",
        ),
        guarded(&upstream),
    ];
    let gateway = Gateway::start(resources.concat());

    let steady = [
        keep_alive(&gateway, "steady"),
        keep_alive(&gateway, "literal"),
    ];
    let old = [
        keep_alive(&gateway, "alice-1"),
        keep_alive(&gateway, "bob-1"),
    ];
    let new = [
        keep_alive(&gateway, "alice-2"),
        keep_alive(&gateway, "bob-2"),
    ];
    let (https, trusted) = (gateway.https(), ca.clone());
    let handshakes = Load::start(move || {
        Connection::open_tls(https, "guarded.test", &trusted)
            .expect("no handshake may fail")
            .certificate()
    });
    let mut kept = Connection::open_tls(https, "guarded.test", &ca).expect("handshake must do");
    let mut over_tls = move || {
        kept.request(
            "GET",
            "/",
            &[("Host", "guarded.test"), ("apikey", "steady")],
        );
        assert_eq!(kept.expect_reply().status, 200);
    };
    over_tls();

    bao.put_v2("edge/alice", json!({"key": "alice-2"})).await;
    bao.put_v1("edge/bob", json!({"key": "bob-2"})).await;
    bao.put_v2("edge/tls", pair(&second)).await;
    let written = Instant::now();
    wait_until("the new keys and certificate are in force", || {
        let newest = Connection::open_tls(https, "guarded.test", &ca)
            .expect("no handshake may fail")
            .certificate();
        status_with(&gateway, "alice-2") == 200
            && status_with(&gateway, "bob-2") == 200
            && newest == der(&second)
    });
    let took = written.elapsed();
    assert!(took <= TTL + GRACE, "rotation took {took:?}");
    for key in ["alice-1", "bob-1"] {
        assert_eq!(status_with(&gateway, key), 401, "{key} must have ended");
    }

    over_tls();
    for load in steady {
        assert_eq!(phases(load.stop()), [200], "nobody else may notice");
    }
    for load in old {
        assert_eq!(phases(load.stop()), [200, 401], "an old key ends once");
    }
    for load in new {
        assert_eq!(phases(load.stop()), [401, 200], "a new key begins once");
    }
    let seen = phases(handshakes.stop());
    assert!(
        seen == [der(&first), der(&second)],
        "{} certificates in turn",
        seen.len()
    );
    let log = gateway.log();
    assert_eq!(
        log.matches("trigger=Source").count(),
        1,
        "nothing was reloaded: {log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_last_good_pair_serves_until_certificate_and_key_fit_again() {
    let bao = OpenBao::start().await;
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issue = || certs::server(&authority, &["pair.test"]);
    let (first, second) = (issue(), issue());
    bao.put_v2("edge/cert", json!({"pem": first.cert_pem}))
        .await;
    bao.put_v2("edge/key", json!({"pem": certs::key_text(&first)}))
        .await;
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &bao.addr, "secret/edge", &bao.token, 1),
        ssl(
            "pair.test",
            "$secret://vault/main/cert/pem",
            "$secret://vault/main/key/pem",
        ),
    ];
    let gateway = Gateway::start(resources.concat());
    let served = || {
        Connection::open_tls(gateway.https(), "pair.test", &ca)
            .expect("no handshake may fail")
            .certificate()
    };
    let says = |times| gateway.log().matches("last good pair serves on").count() == times;
    assert!(served() == der(&first));

    bao.put_v2("edge/cert", json!({"pem": second.cert_pem}))
        .await;
    wait_until("a finding says that the halves do not fit", || {
        assert!(served() == der(&first), "half a rotation changes nothing");
        says(1)
    });
    bao.put_v2("edge/key", json!({"pem": certs::key_text(&second)}))
        .await;
    wait_until("the new pair serves", || served() == der(&second));

    // Text that is no key, then an expired pair: neither replaces what serves.
    bao.put_v2("edge/key", json!({"pem": "no key at all"}))
        .await;
    wait_until("a finding says that it is no key", || {
        assert!(served() == der(&second));
        says(2)
    });
    let expired = certs::expired(&authority, &["pair.test"]);
    bao.put_v2("edge/cert", json!({"pem": expired.cert_pem}))
        .await;
    bao.put_v2("edge/key", json!({"pem": certs::key_text(&expired)}))
        .await;
    wait_until("a finding says that it is expired", || {
        assert!(served() == der(&second));
        gateway.log().contains("expired")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plugin_fields_follow_their_references() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2("edge/plugin", json!({"up": "up-1", "down": "down-1"}))
        .await;
    let resources = format!(
        r#"
routes:
  - id: r
    host: r.test
    uri: /*
    plugins:
      proxy-rewrite: {{ headers: {{ set: {{ X-Up: "$secret://vault/main/plugin/up" }} }} }}
      response-rewrite: {{ headers: {{ set: {{ X-Down: "$secret://vault/main/plugin/down" }} }} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
secrets:
{}"#,
        upstream.addr,
        vault("main", &bao.addr, "secret/edge", &bao.token, 1)
    );
    let gateway = Gateway::start(resources);
    let values = || {
        let reply = gateway.get("r.test", "/", &[]);
        assert_eq!(reply.status, 200);
        let seen = upstream.requests().pop().unwrap();
        (
            seen.header("x-up").unwrap_or_default().to_owned(),
            reply.header("x-down").unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(values(), ("up-1".to_owned(), "down-1".to_owned()));
    bao.put_v2("edge/plugin", json!({"up": "up-2", "down": "down-2"}))
        .await;
    wait_until("both plugins use the new values", || {
        values() == ("up-2".to_owned(), "down-2".to_owned())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_deleted_secret_ends_and_comes_back_when_undeleted() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &bao.addr, "secret/edge", &bao.token, 1),
        consumers(&[("alice", "$secret://vault/main/alice/key")]),
        guarded(&upstream),
    ];
    let gateway = Gateway::start(resources.concat());
    assert_eq!(status_with(&gateway, "alice-1"), 200);
    bao.delete_v2("edge/alice").await;
    let deleted = Instant::now();
    wait_until("the deleted key ends", || {
        status_with(&gateway, "alice-1") == 401
    });
    // Noticed within the ttl, confirmed within neg_ttl.
    let took = deleted.elapsed();
    assert!(took <= Duration::from_secs(2) + GRACE, "it took {took:?}");
    wait_until("readiness tells", || !gateway.is_ready());
    bao.call(
        "POST",
        "secret/undelete/edge/alice",
        json!({"versions": [1]}),
    )
    .await;
    wait_until("the undeleted key is back", || {
        status_with(&gateway, "alice-1") == 200
    });
    wait_until("readiness is back", || gateway.is_ready());
}

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

#[test]
fn references_to_the_environment_and_to_files_follow_their_kind() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .env("CAROL", "carol-1")
        .env("DAVE", r#"{"key":"dave-1"}"#)
        .file("renamed/alice", "alice-1")
        .file("linked/..1/bob", "bob-1");
    let dir = builder.dir().to_owned();
    let link = |target: &str, name: &str| {
        let fresh = dir.join("linked").join(format!("{name}.link"));
        symlink(target, &fresh).unwrap();
        std::fs::rename(fresh, dir.join("linked").join(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/bob", "bob");
    // Read once in five minutes, were it not for the watch.
    let managers = format!(
        "secrets:\n  - {{ id: file/renamed, path: {0}/renamed, ttl: 300 }}\n  - {{ id: \
         file/linked, path: {0}/linked, ttl: 300 }}\n",
        dir.display()
    );
    let resources = [
        managers,
        consumers(&[
            ("alice", "$secret://file/renamed/alice"),
            ("bob", "$secret://file/linked/bob"),
            ("carol", "$env://CAROL"),
            ("dave", "$env://DAVE/key"),
        ]),
        guarded(&upstream),
    ];
    let gateway = builder.resources(resources.concat()).start();
    for key in ["alice-1", "bob-1", "carol-1", "dave-1"] {
        assert_eq!(status_with(&gateway, key), 200, "{key}");
    }

    gateway.write_file("renamed/alice", "alice-2");
    gateway.write_file("linked/..2", "");
    std::fs::remove_file(dir.join("linked/..2")).unwrap();
    std::fs::create_dir(dir.join("linked/..2")).unwrap();
    gateway.write_file("linked/..2/bob", "bob-2");
    link("..2", "..data");
    for (new, old) in [("alice-2", "alice-1"), ("bob-2", "bob-1")] {
        wait_until(new, || status_with(&gateway, new) == 200);
        assert_eq!(status_with(&gateway, old), 401, "{old} must have ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn traffic_asks_no_manager_and_a_hang_up_asks_at_once() {
    let bao = OpenBao::start().await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let upstream = Upstream::start(Behaviour::ok());
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issued = certs::server(&authority, &["guarded.test"]);
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    bao.put_v2(
        "edge/tls",
        json!({"cert": issued.cert_pem, "key": certs::key_text(&issued)}),
    )
    .await;
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &relay.uri(), "secret/edge", &bao.token, 300),
        consumers(&[("alice", "$secret://vault/main/alice/key")]),
        ssl(
            "guarded.test",
            "$secret://vault/main/tls/cert",
            "$secret://vault/main/tls/key",
        ),
        guarded(&upstream),
    ];
    let gateway = Gateway::start(resources.concat());
    let mut asked = relay.paths();
    asked.sort();
    assert_eq!(
        asked,
        [
            "/v1/secret/data/edge/alice",
            "/v1/secret/data/edge/tls",
            "/v1/sys/internal/ui/mounts/secret/edge",
        ],
        "one read per document, and the mount asked for once"
    );

    let mut connection = gateway.connect();
    for turn in 0..300 {
        let key = ["alice-1", "guess", "$secret://vault/main/alice/key"][turn % 3];
        connection.request("GET", "/", &[("Host", "guarded.test"), ("apikey", key)]);
        let expected = if turn % 3 == 0 { 200 } else { 401 };
        assert_eq!(connection.expect_reply().status, expected, "{key}");
    }
    for name in ["guarded.test", "other.test"].repeat(10) {
        let handshake = Connection::open_tls(gateway.https(), name, &ca);
        assert_eq!(handshake.is_ok(), name == "guarded.test");
    }
    assert_eq!(relay.count(), 3, "traffic must not ask the manager");

    bao.put_v2("edge/alice", json!({"key": "alice-2"})).await;
    gateway.signal(rustix::process::Signal::HUP);
    wait_until("a hang-up reads the secrets again", || {
        status_with(&gateway, "alice-2") == 200
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_references_into_a_hundred_documents_are_a_hundred_reads() {
    let bao = OpenBao::start().await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let upstream = Upstream::start(Behaviour::ok());
    let mut all = String::from("consumers:\n");
    for document in 0..100 {
        let mut fields = serde_json::Map::new();
        for field in 0..100 {
            fields.insert(
                format!("f{field}"),
                format!("key-{document}-{field}").into(),
            );
            let _ = writeln!(
                all,
                "  - {{ username: u{document}_{field}, plugins: {{ key-auth: {{ key: \
                 $secret://vault/main/d{document}/f{field} }} }} }}"
            );
        }
        bao.put_v2(&format!("edge/d{document}"), fields.into())
            .await;
    }
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &relay.uri(), "secret/edge", &bao.token, 300),
        all,
        guarded(&upstream),
    ];
    let gateway = Gateway::builder()
        .bootstrap("claviger: { secrets: { load_wait: 15s } }")
        .resources(resources.concat())
        .start();
    for key in ["key-0-0", "key-57-99", "key-99-99"] {
        assert_eq!(status_with(&gateway, key), 200, "{key}");
    }
    let paths = relay.paths();
    let reads = paths
        .iter()
        .filter(|path| path.starts_with("/v1/secret/data/"))
        .count();
    assert_eq!((reads, paths.len()), (100, 101), "one read per document");
}
