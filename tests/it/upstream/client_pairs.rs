//! Certificates shown to nodes, whose halves stand in different documents and rotate one after the
//! other: the last good pair serves until both fit, and no longer than its values may.

use claviger::tls::dev::{Authority, Issued};
use serde_json::json;

use super::tls::{Node, client, der, node};
use crate::harness::{Gateway, OpenBao, certs, wait_until};

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
