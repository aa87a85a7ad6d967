//! Nodes that fail: who is asked next, how often, and what the client is told.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{named, over, refusing, route};
use crate::harness::{Behaviour, Connection, Gateway, Upstream};

const STATUS: &str = "x-apisix-upstream-status";

#[test]
fn a_refusing_node_is_passed_over_and_shown_if_asked() {
    // Two good ones, since a retry takes a turn too: beside one, each first turn might refuse.
    let good = [named("good"), named("good")];
    let gateway = Gateway::builder()
        .bootstrap("apisix: { show_upstream_status_in_response_header: true }")
        .resources(route(&format!(
            r#"{{ nodes: {{ "{}": 1, "{}": 1, "{}": 1 }} }}"#,
            refusing(),
            good[0].addr,
            good[1].addr
        )))
        .start();
    let shown: BTreeSet<String> = (0..3)
        .map(|_| {
            // Nothing was sent to the refusing node, so even a POST may go to the next.
            let mut connection = gateway.connect();
            connection.request("POST", "/", &[("Host", "a"), ("Content-Length", "0")]);
            let reply = connection.expect_reply();
            assert_eq!((reply.status, &*reply.text()), (200, "good"));
            reply.header(STATUS).unwrap().to_owned()
        })
        .collect();
    assert_eq!(Vec::from_iter(shown), ["200", "502, 200"]);
}

#[test]
fn a_status_is_shown_unasked_only_where_it_is_5xx() {
    let node = named("good");
    let gateway = over(&format!(r#"{{ nodes: {{ "{}": 1 }} }}"#, node.addr));
    assert_eq!(gateway.get("a", "/", &[]).header(STATUS), None);
    node.set(Behaviour::Answer(503, "busy".to_owned()));
    let reply = gateway.get("a", "/", &[]);
    assert_eq!((reply.status, reply.header(STATUS)), (503, Some("503")));
    assert_eq!(reply.text(), "busy", "an answer is no failure to retry");
    assert_eq!(node.count(), 2);
}

#[test]
fn when_all_refuse_the_answer_is_502() {
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 1, "{}": 1 }} }}"#,
        refusing(),
        refusing()
    ));
    let reply = gateway.get("a", "/", &[]);
    assert_eq!(
        (reply.status, reply.header(STATUS)),
        (502, Some("502, 502"))
    );
}

#[test]
fn retries_of_zero_ask_once() {
    let good = named("good");
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 1, "{}": 1 }}, retries: 0 }}"#,
        refusing(),
        good.addr
    ));
    let mut statuses = [0; 2].map(|_| gateway.get("a", "/", &[]).status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
}

/// A node that fails after it has read the request, a good one, and a gateway before both.
fn failing_beside_good(behaviour: Behaviour, rest: &str) -> (Upstream, Upstream, Gateway) {
    let (bad, good) = (Upstream::start(behaviour), named("good"));
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 1, "{}": 1 }}, {rest} }}"#,
        bad.addr, good.addr
    ));
    (bad, good, gateway)
}

#[test]
fn what_was_sent_is_sent_again_only_where_that_is_harmless() {
    let (bad, good, gateway) = failing_beside_good(Behaviour::Close, "retries: 1");
    for (method, statuses) in [
        ("GET", [200, 200]),
        ("PUT", [200, 200]),
        ("POST", [200, 502]),
    ] {
        let (bad_before, good_before) = (bad.count(), good.count());
        let mut found = [0; 2].map(|_| {
            let mut connection = gateway.connect();
            connection.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
            ));
            connection.expect_reply().status
        });
        found.sort_unstable();
        assert_eq!(found, statuses, "{method}");
        let sent = (bad.count() - bad_before, good.count() - good_before);
        match method {
            "POST" => assert_eq!(sent, (1, 1), "each was sent once"),
            _ => assert_eq!(sent.1, 2, "{method}: all reach the good node"),
        }
    }
    let last = good.requests().pop().unwrap();
    assert_eq!(last.text(), "body", "the body goes again too");
}

#[test]
fn no_retry_once_retry_timeout_has_passed() {
    let timeout = "timeout: { connect: 1, send: 1, read: 0.4 }";
    for (limit, statuses) in [("", [200, 200]), ("retry_timeout: 0.2,", [200, 504])] {
        let rest = format!("{limit} {timeout}");
        let (_bad, _good, gateway) = failing_beside_good(Behaviour::Never, &rest);
        let mut found = [0; 2].map(|_| gateway.get("a", "/", &[]).status);
        found.sort_unstable();
        assert_eq!(found, statuses, "{limit}");
    }
}

#[test]
fn a_node_too_slow_to_answer_gives_504() {
    let node = Upstream::start(Behaviour::Never);
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{}": 1 }}, retries: 3, timeout: {{ connect: 1, send: 1, read: 0.3 }} }}"#,
        node.addr
    ));
    let reply = gateway.get("a", "/", &[]);
    assert_eq!((reply.status, reply.header(STATUS)), (504, Some("504")));
}

#[test]
fn the_timeout_of_a_route_goes_before_the_upstreams() {
    let node = Upstream::start(Behaviour::Slow(Duration::from_millis(800)));
    let gateway = Gateway::start(format!(
        r#"
upstreams:
  - {{ id: slow, nodes: {{ "{}": 1 }}, timeout: {{ connect: 5, send: 5, read: 5 }} }}
routes:
  - {{ id: patient, uri: /patient, upstream_id: slow }}
  - {{ id: hasty, uri: /hasty, upstream_id: slow, timeout: {{ connect: 1, send: 1, read: 0.2 }} }}
"#,
        node.addr
    ));
    assert_eq!(gateway.get("a", "/hasty", &[]).status, 504);
    assert_eq!(gateway.get("a", "/patient", &[]).status, 200);
}

#[test]
fn a_node_too_slow_to_connect_gives_504() {
    let (_full, addr) = full_listener();
    let gateway = over(&format!(
        r#"{{ nodes: {{ "{addr}": 1 }}, timeout: {{ connect: 0.3, send: 5, read: 5 }} }}"#
    ));
    let began = Instant::now();
    let reply = gateway.get("a", "/", &[]);
    assert_eq!((reply.status, reply.header(STATUS)), (504, Some("504")));
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// A listener nobody accepts at, its queue filled: the kernel then ignores who knocks.
fn full_listener() -> ((TcpListener, Vec<TcpStream>), std::net::SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue must fill up");
    }
    ((listener, waiting), addr)
}

#[test]
fn an_answer_cut_short_is_not_asked_for_again() {
    let (bad, _good, gateway) = failing_beside_good(Behaviour::CloseMidBody, "retries: 1");
    while bad.count() == 0 {
        let mut connection: Connection = gateway.connect();
        connection.request("GET", "/", &[("Host", "a")]);
        // What was announced never comes whole, and nothing else comes in its place.
        match connection.reply() {
            Ok(Some(reply)) => assert_eq!(reply.text(), "good"),
            Ok(None) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
        }
    }
    assert_eq!(bad.count(), 1);
}
