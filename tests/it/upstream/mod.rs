//! From the gateway to the nodes: which one, how often, with which fields, over which connections.

mod client_pairs;
mod dns;
mod forward;
mod http2;
mod http2_faults;
mod retry;
mod tls;
mod verify;

use std::net::SocketAddr;

use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

/// A node that answers with its name.
fn named(name: &str) -> Upstream {
    Upstream::start(Behaviour::Answer(200, name.to_owned()))
}

/// A gateway with one route for everything, over this upstream (YAML flow style).
fn over(upstream: &str) -> Gateway {
    Gateway::start(route(upstream))
}

fn route(upstream: &str) -> String {
    format!("routes:\n  - {{ id: app, uri: /*, upstream: {upstream} }}\n")
}

/// An address where nothing listens, and nothing will.
fn refusing() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::harness::ports::free()))
}

/// Bodies of so many answers.
fn bodies(gateway: &Gateway, count: usize) -> String {
    (0..count)
        .map(|_| gateway.get("app.test", "/", &[]).text())
        .collect()
}

#[test]
fn weights_give_exact_shares_in_order() {
    let (a, b) = (named("a"), named("b"));
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 3, "{}": 1 }} }}"#,
        a.addr, b.addr
    ));
    let order = bodies(&gateway, 12);
    assert!("aaabaaabaaabaaab".contains(&order), "{order}");
}

#[test]
fn a_weight_of_zero_is_never_picked() {
    let (a, b) = (named("a"), named("b"));
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 1, "{}": 0 }} }}"#,
        a.addr, b.addr
    ));
    assert_eq!(bodies(&gateway, 4), "aaaa");
}

#[test]
fn a_lower_priority_waits_for_the_higher_to_fail() {
    let (high, low) = (named("h"), named("l"));
    let nodes = |first: SocketAddr| {
        let node = |addr: SocketAddr, priority: i32| {
            format!(
                r#"{{ host: {}, port: {}, weight: 1, priority: {priority} }}"#,
                addr.ip(),
                addr.port()
            )
        };
        route(&format!(
            "{{ nodes: [{}, {}] }}",
            node(low.addr, -1),
            node(first, 5)
        ))
    };
    let gateway = Gateway::start(nodes(high.addr));
    assert_eq!(bodies(&gateway, 4), "hhhh");
    gateway.write_resources(&nodes(refusing()));
    wait_until("the lower level serves", || bodies(&gateway, 1) == "l");
}

#[test]
fn what_is_missing_has_its_status() {
    let gateway = Gateway::start(
        r#"
upstreams:
  - { id: empty, nodes: {} }
routes:
  - { id: empty, uri: /empty, upstream_id: empty }
  - { id: unknown, uri: /unknown, upstream_id: nobody }
  - { id: none, uri: /none, plugins: { cors: {} } }
"#,
    );
    for (path, status) in [("/empty", 503), ("/unknown", 502), ("/none", 503)] {
        let reply = gateway.get("app.test", path, &[]);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(
            reply.header("x-apisix-upstream-status"),
            None,
            "{path}: nothing was attempted"
        );
    }
}

#[test]
fn the_host_sent_is_the_clients_the_nodes_or_ours() {
    let node = Upstream::start(Behaviour::ok());
    let port = node.addr.port();
    let upstream = |rest: &str| format!(r#"{{ nodes: {{ "localhost:{port}": 1 }}, {rest} }}"#);
    let gateway = Gateway::start(format!(
        r#"
routes:
  - {{ id: pass, uri: /pass, upstream: {} }}
  - {{ id: node, uri: /node, upstream: {} }}
  - {{ id: own, uri: /own, upstream: {} }}
  - id: plugin
    uri: /plugin
    plugins: {{ proxy-rewrite: {{ host: plugin.test }} }}
    upstream: {}
"#,
        upstream("pass_host: pass"),
        upstream("pass_host: node"),
        upstream("pass_host: rewrite, upstream_host: own.test"),
        upstream("pass_host: rewrite, upstream_host: own.test"),
    ));
    for (path, host) in [
        ("/pass", "App.test:8080".to_owned()),
        ("/node", format!("localhost:{port}")),
        ("/own", "own.test".to_owned()),
        ("/plugin", "plugin.test".to_owned()),
    ] {
        assert_eq!(gateway.get("App.test:8080", path, &[]).status, 200);
        let seen = node.requests().pop().unwrap();
        assert_eq!(seen.header("host"), Some(&*host), "{path}");
        assert_eq!(
            seen.headers
                .iter()
                .filter(|(name, _)| name == "host")
                .count(),
            1
        );
    }
}

#[test]
fn connections_to_a_node_are_kept_and_a_stale_one_is_replaced() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = over(&format!(r#"{{ nodes: {{ "{}": 1 }} }}"#, node.addr));
    for _ in 0..3 {
        assert_eq!(gateway.get("app.test", "/", &[]).status, 200);
    }
    assert_eq!(node.connections(), 1);
    // As a node that gives up an idle connection in the moment it is used again.
    node.set(Behaviour::OncePerConnection);
    for connections in 2..4 {
        let reply = gateway.get("app.test", "/", &[]);
        assert_eq!(reply.status, 200, "the only node is asked again");
        assert_eq!(node.connections(), connections);
    }
    let mut connection = gateway.connect();
    connection.request("POST", "/", &[("Host", "a"), ("Content-Length", "0")]);
    let reply = connection.expect_reply();
    assert_eq!(reply.status, 502, "a POST may have been acted on");
}

#[test]
fn a_pool_of_no_idle_time_keeps_nothing() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 1 }}, keepalive_pool: {{ idle_timeout: 0 }} }}"#,
        node.addr
    ));
    for _ in 0..3 {
        assert_eq!(gateway.get("app.test", "/", &[]).status, 200);
    }
    assert_eq!(node.connections(), 3);
}
