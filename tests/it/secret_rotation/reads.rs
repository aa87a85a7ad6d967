//! What the gateway asks its managers for, and what it does not.

use super::*;

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
            "/v1/auth/token/lookup-self",
            "/v1/secret/data/edge/alice",
            "/v1/secret/data/edge/tls",
            "/v1/sys/internal/ui/mounts/secret/edge",
        ],
        "one read per document; the token and the mount asked for once"
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
    assert_eq!(relay.count(), 4, "traffic must not ask the manager");

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
    assert_eq!((reads, paths.len()), (100, 102), "one read per document");
}
