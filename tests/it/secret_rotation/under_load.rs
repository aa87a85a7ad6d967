//! Values that change under a load of requests and handshakes: nobody else notices.

use super::*;
use crate::harness::moto::Moto;

/// The managers of the test: KV version 2 and 1, AWS.
const KINDS: [&str; 3] = ["vault/two", "vault/one", "aws/main"];

struct Keepers {
    bao: OpenBao,
    moto: Moto,
}

impl Keepers {
    async fn put(&self, kind: &str, document: &str, fields: serde_json::Value) {
        match kind {
            "vault/two" => self.bao.put_v2(&format!("edge/{document}"), fields).await,
            "vault/one" => self.bao.put_v1(&format!("edge/{document}"), fields).await,
            _ => self.moto.put(document, &fields.to_string()).await,
        }
    }

    /// The `turn`th values of everything of this kind.
    async fn write(&self, kind: &str, turn: usize, issued: &Issued) {
        let pair = json!({"cert": issued.cert_pem, "key": certs::key_text(issued)});
        let value = |what: &str| json!({"key": format!("{kind}-{what}-{turn}")});
        self.put(kind, "alice", value("alice")).await;
        self.put(kind, "plugin", value("field")).await;
        self.put(kind, "tls", pair).await;
    }

    fn resources(&self, upstream: &Upstream) -> String {
        let ttl = TTL.as_secs();
        let mut managers = String::from("secrets:\n");
        managers += &vault("two", &self.bao.addr, "secret/edge", &self.bao.token, ttl);
        managers += &vault("one", &self.bao.addr, "kv1/edge", &self.bao.token, ttl);
        let _ = writeln!(
            managers,
            "  - {{ id: aws/main, access_key_id: AKIDTEST, secret_access_key: test, endpoint_url: '{}', ttl: {ttl} }}",
            self.moto.addr
        );
        let (mut users, mut ssls) = (String::new(), String::from("ssls:\n"));
        let mut routes = guarded(upstream);
        for kind in KINDS {
            let name = kind.replace('/', "-");
            let _ = writeln!(
                users,
                "  - {{ username: {name}, plugins: {{ key-auth: {{ key: $secret://{kind}/alice/key }} }} }}"
            );
            let _ = writeln!(
                ssls,
                "  - {{ id: {name}, sni: {name}.test, cert: $secret://{kind}/tls/cert, key: $secret://{kind}/tls/key }}"
            );
            let _ = writeln!(
                routes,
                "  - {{ id: {name}, host: {name}.test, uri: /*, plugins: {{ response-rewrite: {{ headers: {{ set: {{ X-Down: $secret://{kind}/plugin/key }} }} }} }}, upstream: {{ type: roundrobin, nodes: {{ \"{}\": 1 }} }} }}",
                upstream.addr
            );
        }
        let steady = consumers(&[
            ("steady", "$secret://vault/two/steady/key"),
            ("literal", "literal"),
        ]);
        [managers, steady, users, ssls, routes].concat()
    }
}

/// One keep-alive connection that reads a plugin's field; what it said, in order.
fn fields(gateway: &Gateway, host: String) -> Load<String> {
    let addr = gateway.http();
    let mut connection = Connection::open(addr);
    Load::start(move || {
        connection.request("GET", "/", &[("Host", &host)]);
        let reply = connection.expect_reply();
        assert_eq!(reply.status, 200, "{host}: no request may fail");
        if reply.header("connection") == Some("close") {
            connection = Connection::open(addr);
        }
        reply.header("x-down").unwrap_or_default().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_fields_and_certificates_rotate_under_load_and_only_old_credentials_fail() {
    let (bao, moto) = tokio::join!(OpenBao::start(), Moto::start());
    let keepers = Keepers { bao, moto };
    let upstream = Upstream::start(Behaviour::ok());
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issue = |kind: &&str| {
        let host = format!("{}.test", kind.replace('/', "-"));
        certs::server(&authority, &[&host])
    };
    let (first, second) = (
        KINDS.each_ref().map(issue).map(Arc::new),
        KINDS.each_ref().map(issue).map(Arc::new),
    );
    keepers
        .put("vault/two", "steady", json!({"key": "steady"}))
        .await;
    for (kind, issued) in KINDS.iter().zip(&first) {
        keepers.write(kind, 1, issued).await;
    }
    let gateway = Gateway::start(keepers.resources(&upstream));

    let steady = [
        keep_alive(&gateway, "steady"),
        keep_alive(&gateway, "literal"),
    ];
    let key = |kind: &str, turn: usize| format!("{kind}-alice-{turn}");
    let of_turn = |turn| KINDS.map(|kind| keep_alive(&gateway, key(kind, turn)));
    let (old, new) = (of_turn(1), of_turn(2));
    let host = |kind: &str| format!("{}.test", kind.replace('/', "-"));
    let read = KINDS.map(|kind| fields(&gateway, host(kind)));
    let handshake = |kind: &str| {
        let (https, trusted, host) = (gateway.https(), ca.clone(), host(kind));
        move || {
            Connection::open_tls(https, &host, &trusted)
                .expect("no handshake may fail")
                .certificate()
        }
    };
    let handshakes = KINDS.map(|kind| Load::start(handshake(kind)));
    let mut kept = Connection::open_tls(gateway.https(), &host(KINDS[0]), &ca).unwrap();
    let mut over_tls = move || {
        kept.request("GET", "/", &[("Host", "vault-two.test")]);
        assert_eq!(kept.expect_reply().status, 200);
    };
    over_tls();

    for (kind, issued) in KINDS.iter().zip(&second) {
        keepers.write(kind, 2, issued).await;
    }
    let written = Instant::now();
    for (kind, issued) in KINDS.iter().zip(&second) {
        wait_until("the new key, field and certificate are in force", || {
            let field = gateway.get(&host(kind), "/", &[]);
            status_with(&gateway, &key(kind, 2)) == 200
                && field.header("x-down") == Some(&*format!("{kind}-field-2"))
                && handshake(kind)() == der(issued)
        });
    }
    let took = written.elapsed();
    assert!(took <= TTL + GRACE, "rotation took {took:?}");
    for kind in KINDS {
        assert_eq!(status_with(&gateway, &key(kind, 1)), 401, "{kind}");
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
    for (kind, load) in KINDS.iter().zip(read) {
        let expected = [1, 2].map(|turn| format!("{kind}-field-{turn}"));
        assert_eq!(phases(load.stop()), expected, "a field changes once");
    }
    let pairs = first.iter().zip(&second);
    for ((first, second), load) in pairs.zip(handshakes) {
        let seen = phases(load.stop());
        let expected = [der(first), der(second)];
        assert!(seen == expected, "{} certificates in turn", seen.len());
    }
    assert_nothing_was_reloaded(&gateway);
}
