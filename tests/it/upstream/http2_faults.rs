//! HTTP/2 towards nodes that break off, turn away or say nothing, and for clients that read nothing.

use std::net::TcpStream;

use h2::Reason;
use http::Version;

use super::http2::{gateway, nginx, node, post};
use crate::harness::{Act, Connection, wait_until};

#[test]
fn an_answer_that_comes_before_the_body_is_passed_on() {
    let nginx = nginx(
        "http2",
        "client_max_body_size 1k; location / { return 200 ok; }",
        &[],
    );
    let before = gateway(&[nginx.addr], "");
    let (status, body) = post(&before, &vec![b'a'; 500_000]);
    assert_eq!(status, 413);
    assert!(String::from_utf8_lossy(&body).contains("413 Request Entity Too Large"));
    // The same with the stream reset besides (RFC 9113 §8.1).
    let node = node(&[Act::Early]);
    let gateway = gateway(&[node.addr], "");
    let (status, body) = post(&gateway, &vec![b'a'; 500_000]);
    assert_eq!((status, &*body), (413, &b"too much"[..]));
    assert_eq!(post(&gateway, b"b"), (200, b"b".to_vec()));
}

#[test]
fn a_node_that_ends_its_connections_fails_no_request() {
    // nginx says GOAWAY after so many requests on a connection.
    let nginx = nginx(
        "http2",
        "keepalive_requests 7; location / { return 200 $connection; }",
        &[],
    );
    let gateway = gateway(&[nginx.addr], "");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..60 {
                    // What may not be sent twice, so that no ordinary retry covers it up.
                    assert_eq!(post(&gateway, b"x").0, 200);
                }
            });
        }
    });
}

#[test]
fn what_a_node_has_not_looked_at_is_sent_again() {
    let node = node(&[]);
    let gateway = gateway(&[node.addr], "");
    for act in [
        Act::Reset(Reason::REFUSED_STREAM),
        Act::LastOne,
        Act::Reset(Reason::REFUSED_STREAM),
    ] {
        node.next(&[act]);
        assert_eq!(post(&gateway, b"x"), (200, b"x".to_vec()), "{act:?}");
        node.take();
    }
    // A node that turns everything away is not asked for ever.
    node.next(&[Act::Reset(Reason::REFUSED_STREAM); 20]);
    assert_eq!(post(&gateway, b"x").0, 502);
    assert_eq!(node.take().len(), 4);
}

#[test]
fn a_node_that_wants_http1_gets_it() {
    let node = node(&[Act::Reset(Reason::HTTP_1_1_REQUIRED)]);
    let gateway = gateway(&[node.addr], "");
    assert_eq!(post(&gateway, b"x"), (200, b"one".to_vec()));
    assert_eq!(post(&gateway, b"x"), (200, b"x".to_vec()), "that one only");
    let versions: Vec<_> = node.seen().iter().map(|seen| seen.head.version).collect();
    let expected = [Version::HTTP_2, Version::HTTP_11, Version::HTTP_2];
    assert_eq!(versions, expected);
}

#[test]
fn failures_are_retried_as_over_http1() {
    let reset = Act::Reset(Reason::INTERNAL_ERROR);
    let (bad, good) = (node(&[]), node(&[]));
    let gateway = gateway(&[bad.addr, good.addr], "");
    // Whichever is asked first: a GET goes on to the other.
    bad.next(&[reset]);
    for _ in 0..2 {
        assert_eq!(gateway.get("node.test", "/", &[]).status, 200);
    }
    assert_eq!(bad.take().len() + good.take().len(), 3);
    // A POST may have been processed, so it ends here.
    bad.next(&[reset]);
    let mut statuses = [0; 2].map(|_| post(&gateway, b"x").0);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
}

#[test]
fn a_body_cut_short_is_not_passed_off_as_whole() {
    let node = node(&[Act::ResetMidBody]);
    let gateway = gateway(&[node.addr], "");
    let mut connection = gateway.connect();
    connection.request("GET", "/", &[("Host", "node.test")]);
    let mut head = Vec::new();
    while !head.ends_with(b"0123456789\r\n") {
        head.extend(connection.read_exactly(1));
    }
    node.go_on();
    assert!(connection.is_closed(), "the client is told by the close");
}

#[test]
fn a_node_that_is_silent_is_given_up_and_its_connection_left() {
    let node = node(&[Act::Never]);
    let gateway = gateway(&[node.addr], "timeout: { connect: 2, send: 2, read: 0.3 }");
    assert_eq!(gateway.get("node.test", "/", &[]).status, 504);
    assert_eq!(gateway.get("node.test", "/", &[]).status, 200);
    let connections: Vec<_> = node.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1]);
}

#[test]
fn clients_that_read_nothing_do_not_stop_others() {
    // More than all windows and buffers on the way take in.
    let large = vec![0_u8; 24 << 20];
    let nginx = nginx("http2", "", &[("large", &large), ("small", b"small")]);
    let gateway = gateway(&[nginx.addr], "timeout: { connect: 5, send: 5, read: 5 }");
    assert_eq!(gateway.get("node.test", "/small", &[]).text(), "small");
    let lazy: Vec<_> = (0..3)
        .map(|_| {
            let stream = TcpStream::connect(gateway.http()).unwrap();
            let mut connection = Connection::over_stream(stream.try_clone().unwrap());
            connection.request("GET", "/large", &[("Host", "node.test")]);
            stream
        })
        .collect();
    let mut before = 0;
    let mut buffer = vec![0; 24 << 20];
    wait_until("nothing more comes to those who do not read", || {
        let arrived = lazy.iter().map(|stream| stream.peek(&mut buffer).unwrap());
        let arrived: usize = arrived.sum();
        let still = arrived == before;
        before = arrived;
        still
    });
    for _ in 0..20 {
        let reply = gateway.get("node.test", "/small", &[]);
        assert_eq!((reply.status, &*reply.text()), (200, "small"));
    }
}
