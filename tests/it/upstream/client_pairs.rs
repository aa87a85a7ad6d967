//! Certificates shown to nodes, whose halves stand in different documents and rotate one after the
//! other: the last good pair serves until both fit, and no longer than its values may.

use claviger::tls::dev::{Authority, Issued};
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::json;

use super::tls::{Node, client, der, node};
use crate::harness::{Connection, Gateway, Nginx, OpenBao, certs, wait_until};

/// Paths, one for each place a pair may stand in, and what its findings are told of.
const PLACES: &[(&str, &str)] = &[
    ("/route", "routes/route upstream.tls.client_"),
    ("/service", "services/s upstream.tls.client_"),
    ("/upstream", "upstreams/u tls.client_"),
    ("/id", "ssls/shown "),
];

struct Stand {
    node: Node,
    gateway: Gateway,
    hosts: std::cell::Cell<u32>,
}

impl Stand {
    fn start(clients: &Authority, bao: &OpenBao) -> Self {
        let node = node(Some(&clients.cert_pem().unwrap()));
        let own = "{ verify: false, client_cert: $secret://vault/main/crt/pem, \
            client_key: $secret://vault/main/key/pem }";
        let upstream = |tls: &str| {
            let addr = node.upstream.addr;
            format!("scheme: https, nodes: {{ '{addr}': 1 }}, tls: {tls}")
        };
        let gateway = Gateway::start(format!(
            "
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 1, neg_ttl: 1, max_stale: 5 }}
ssls:
  - {{ id: shown, type: client, cert: $secret://vault/main/crt/pem, key: $secret://vault/main/key/pem }}
services:
  - {{ id: s, upstream: {{ {own} }} }}
upstreams:
  - {{ id: u, {own} }}
routes:
  - {{ id: route, uri: /route, upstream: {{ {own} }} }}
  - {{ id: service, uri: /service, service_id: s }}
  - {{ id: upstream, uri: /upstream, upstream_id: u }}
  - {{ id: id, uri: /id, upstream: {{ {by_id} }} }}
",
            bao.addr,
            bao.token,
            own = upstream(own),
            by_id = upstream("{ verify: false, client_cert_id: shown }"),
        ));
        Self {
            node,
            gateway,
            hosts: std::cell::Cell::new(0),
        }
    }

    /// Asks in every place under a new name, so that each opens a connection of its own.
    fn statuses(&self) -> Vec<u16> {
        let ask = |(path, _): &(&str, &str)| {
            self.hosts.set(self.hosts.get() + 1);
            let host = format!("n{}.test", self.hosts.get());
            self.gateway.get(&host, path, &[]).status
        };
        PLACES.iter().map(ask).collect()
    }

    /// Every place serves, and shows this certificate: or what else it shows.
    fn shows(&self, issued: &Issued) -> bool {
        let before = self.node.upstream.client_certificates().len();
        assert_eq!(self.statuses(), [200; 4]);
        let shown = self.node.upstream.client_certificates();
        assert_eq!(shown.len(), before + 4, "a connection each");
        shown[before..].iter().all(|shown| *shown == der(issued))
    }

    fn told(&self, text: &str) -> usize {
        let log = self.gateway.log();
        let of = |object: &str| {
            let lines = log.lines();
            lines
                .filter(|line| line.contains(object) && line.contains(text))
                .count()
        };
        PLACES
            .iter()
            .map(|(_, object)| of(object))
            .min()
            .unwrap_or_default()
    }
}

async fn put(bao: &OpenBao, name: &str, pem: &str) {
    bao.put_v2(&format!("edge/{name}"), json!({"pem": pem}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn halves_that_rotate_one_after_the_other_break_nothing() {
    let clients = Authority::named("clients").unwrap();
    let bao = OpenBao::start().await;
    let [first, second, third] = ["first", "second", "third"].map(|name| client(&clients, name));
    put(&bao, "crt", &first.cert_pem).await;
    put(&bao, "key", certs::key_text(&first)).await;
    let stand = Stand::start(&clients, &bao);
    assert!(stand.shows(&first));

    put(&bao, "crt", &second.cert_pem).await;
    wait_until("every place is told to serve on", || {
        assert!(stand.shows(&first), "no half of a pair is shown");
        stand.told("the last good pair serves on") > 0
    });
    assert!(stand.shows(&first));
    put(&bao, "key", certs::key_text(&second)).await;
    wait_until("the second pair is shown", || stand.shows(&second));

    put(&bao, "key", certs::key_text(&third)).await;
    let before = stand.told("the last good pair serves on");
    wait_until("it is told anew", || {
        assert!(stand.shows(&second));
        stand.told("the last good pair serves on") > before
    });
    // The last good pair is bound to values as any: these grow too old.
    bao.seal().await;
    wait_until("values too old are not shown", || {
        stand.statuses() == [503; 4]
    });
}

#[test]
fn what_cannot_be_shown_refuses_and_says_why() {
    let clients = Authority::named("clients").unwrap();
    let node = node(Some(&clients.cert_pem().unwrap()));
    let shown = client(&clients, "gateway");
    let server = certs::server(&clients, &["edge.test"]);
    let builder = Gateway::builder()
        .file("secrets/client.crt", &shown.cert_pem)
        .file("secrets/client.key", certs::key_text(&shown))
        .file("secrets/server.crt", &server.cert_pem)
        .file("secrets/server.key", certs::key_text(&server))
        .file("secrets/no.pem", "no certificate");
    let pair = |cert: &str, key: &str| {
        format!(
            "{{ verify: false, client_cert: $secret://file/main/{cert}, client_key: $secret://file/main/{key} }}"
        )
    };
    let cases = [
        ("good", pair("client.crt", "client.key"), 200),
        (
            "by-id",
            "{ verify: false, client_cert_id: shown }".into(),
            200,
        ),
        (
            "unknown",
            "{ verify: false, client_cert_id: nobody }".into(),
            502,
        ),
        (
            "server",
            "{ verify: false, client_cert_id: edge }".into(),
            502,
        ),
        ("absent", pair("absent.crt", "client.key"), 503),
        (
            "absent-by-id",
            "{ verify: false, client_cert_id: absent }".into(),
            503,
        ),
        ("unreadable", pair("no.pem", "client.key"), 503),
        ("other-key", pair("client.crt", "server.key"), 503),
    ];
    let mut yaml = format!(
        "
secrets:
  - {{ id: file/main, path: {} }}
ssls:
  - {{ id: shown, type: client, cert: $secret://file/main/client.crt, key: $secret://file/main/client.key }}
  - {{ id: absent, type: client, cert: $secret://file/main/absent.crt, key: $secret://file/main/client.key }}
  - {{ id: edge, sni: edge.test, cert: $secret://file/main/server.crt, key: $secret://file/main/server.key }}
routes:
",
        builder.dir().join("secrets").display()
    );
    for (name, tls, _) in &cases {
        yaml.push_str(&format!(
            "  - {{ id: {name}, uri: /{name}, upstream: {{ scheme: https, nodes: {{ '{}': 1 }}, tls: {tls} }} }}\n",
            node.upstream.addr
        ));
    }
    let gateway = builder.resources(yaml).unready().start();
    for (name, _, status) in &cases {
        let reply = gateway.get("node.test", &format!("/{name}"), &[]);
        assert_eq!(reply.status, *status, "{name}");
    }
    let log = gateway.log();
    for text in ["ssl id [nobody] not exits", "ssl type should be 'client'"] {
        assert!(log.contains(text), "{text}");
    }
    assert_eq!(node.upstream.count(), 2);
}

/// What nginx saw: the fingerprint of the client's certificate, and the number of the connection.
fn who(gateway: &Gateway, path: &str) -> (String, String) {
    let reply = gateway.get("node.test", path, &[]);
    assert_eq!(reply.status, 200);
    let text = reply.text();
    let (fingerprint, connection) = text.split_once('/').unwrap();
    (fingerprint.to_owned(), connection.to_owned())
}

/// As nginx writes it.
fn fingerprint(issued: &Issued) -> String {
    let certificate = X509::from_pem(issued.cert_pem.as_bytes()).unwrap();
    let digest = certificate.digest(MessageDigest::sha1()).unwrap();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn nothing_new_rides_on_connections_that_showed_the_old_pair() {
    let clients = Authority::named("clients").unwrap();
    // All with the same serial number, which is all that Pingora alone would look at.
    let [first, second] = ["first", "second"].map(|name| client(&clients, name));
    let between = clients.intermediate("between").unwrap().cert_pem().unwrap();
    let servers = Authority::new().unwrap();
    let issued = certs::server(&servers, &["node.test"]);
    let large = vec![b'x'; 24 << 20];
    let nginx = Nginx::start(
        &issued,
        "http2",
        "ssl_verify_client optional_no_ca; location /large { }
         location / { return 200 $ssl_client_fingerprint/$connection; }",
        &[("large", &large)],
    );
    let builder = Gateway::builder()
        .bootstrap("apisix: { lru: { secret: { ttl: 1, neg_ttl: 1 } } }")
        .file("secrets/client.crt", &first.cert_pem)
        .file("secrets/client.key", certs::key_text(&first));
    let folder = builder.dir().join("secrets").display().to_string();
    let pair =
        "client_cert: $secret://file/main/client.crt, client_key: $secret://file/main/client.key";
    let yaml = |pair: &str| {
        let mut yaml = format!("secrets:\n  - {{ id: file/main, path: {folder} }}\nroutes:\n");
        for (name, scheme, alpn) in [
            ("h2", "https", "h2"),
            ("again", "https", "h2"),
            ("large", "https", "h2"),
            ("h1", "https", "http/1.1"),
            ("grpcs", "grpcs", "h2"),
        ] {
            yaml.push_str(&format!(
                "  - {{ id: {name}, uri: /{name}, upstream: {{ scheme: {scheme}, nodes: {{ '{}': 1 }}, \
                 tls: {{ verify: false, alpn: {alpn}, {pair} }} }} }}\n",
                nginx.addr
            ));
        }
        yaml
    };
    let gateway = builder.resources(yaml(pair)).start();
    let paths = ["/h2", "/h1", "/grpcs"];
    let all = || paths.map(|path| who(&gateway, path));
    let old = all();
    assert!(old.iter().all(|(shown, _)| *shown == fingerprint(&first)));
    assert_eq!(all(), old, "kept alive");
    assert_eq!(who(&gateway, "/again"), old[0], "who shows the same shares");
    // An answer that is still under way on the old connection.
    let mut slow = Connection::open(gateway.http());
    slow.request("GET", "/large", &[("Host", "node.test")]);

    let rotate = |cert: &str, key: &str| {
        gateway.write_file("secrets/client.crt", cert);
        gateway.write_file("secrets/client.key", key);
    };
    let left = |old: &[(String, String)], shown: &str| {
        wait_until("the new pair is shown", || {
            all().iter().all(|(seen, _)| seen == shown)
                && all().iter().zip(old).all(|(new, old)| new.1 != old.1)
        });
        let new = all();
        for _ in 0..3 {
            assert_eq!(all(), new, "and nothing else any more");
        }
        new
    };
    rotate(&second.cert_pem, certs::key_text(&second));
    let new = left(&old, &fingerprint(&second));
    assert_eq!(slow.expect_reply().message.body.len(), large.len());
    // Another chain below the same leaf is another thing shown.
    rotate(
        &format!("{}{between}", second.cert_pem),
        certs::key_text(&second),
    );
    let new = left(&new, &fingerprint(&second));
    // Nothing shown any more.
    gateway.write_resources(&yaml(""));
    left(&new, "");
}
