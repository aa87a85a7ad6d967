//! Bodies that a plugin has to see before anything of them goes upstream: by hmac-auth, which
//! checks the body's digest. Whatever their size and framing, the node gets the very bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use http::Request;

use super::over;
use super::signing::{CONSUMERS, digest, lent, signed_body};
use crate::harness::h2::{self, GrpcUpstream};
use crate::harness::{Behaviour, Connection, Gateway, Upstream, wait_until};

const K64: usize = 64 << 10;
const SIZES: [usize; 8] = [0, 1, K64 - 1, K64, K64 + 1, 200_000, 1 << 20, 20 << 20];

/// Bytes that no shift or gap leaves alike: in each block its number stands before random ones.
fn body(size: usize) -> Vec<u8> {
    let mut block = [0; 1021];
    openssl::rand::rand_bytes(&mut block).unwrap();
    let mut body = Vec::with_capacity(size + 2048);
    for number in 0_u32.. {
        if body.len() >= size {
            break;
        }
        body.extend(number.to_le_bytes());
        body.extend_from_slice(&block);
    }
    body.truncate(size);
    body
}

fn resources(nodes: &str, more: &str) -> String {
    format!(
        "{CONSUMERS}
routes:
  - {{ id: 1, uri: /body, plugins: {{ hmac-auth: {{ validate_request_body: true {more} }} }}, upstream: {{ nodes: {nodes}, retries: 1 }} }}
"
    )
}

fn start(more: &str) -> (Upstream, Gateway) {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&format!("{{ '{}': 1 }}", node.addr), more));
    (node, gateway)
}

fn head(fields: &[(String, String)], framing: &str) -> String {
    let fields = lent(fields).into_iter();
    let fields: String = fields
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("PUT /body HTTP/1.1\r\nHost: a.test\r\n{fields}{framing}\r\n\r\n")
}

fn declared(size: usize) -> String {
    format!("Content-Length: {size}")
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// In chunks of many sizes.
fn chunks(body: &[u8]) -> Vec<u8> {
    let mut sent = Vec::with_capacity(body.len() * 2);
    let mut rest = body;
    let mut size = 1;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        sent.extend(format!("{:x}\r\n", chunk.len()).bytes());
        sent.extend(chunk);
        sent.extend(b"\r\n");
        rest = after;
        size = (size * 3 + 1) % 100_000;
    }
    sent.extend(b"0\r\n\r\n");
    sent
}

/// Sends while the answer may come already.
fn send(connection: &mut Connection, fields: &[(String, String)], body: &[u8], chunked: bool) {
    if chunked {
        connection.send(head(fields, CHUNKED));
        connection.send(chunks(body));
    } else {
        connection.send(head(fields, &declared(body.len())));
        connection.send(body);
    }
}

/// A connection on which such a body was sent, rightly signed.
fn put(gateway: &Gateway, body: &[u8], chunked: bool) -> Connection {
    let mut connection = gateway.connect();
    let fields = signed_body("PUT", "/body", body);
    send(&mut connection, &fields, body, chunked);
    connection
}

/// A connection on which only the head of such a request was sent.
fn announce(gateway: &Gateway, body: &[u8]) -> Connection {
    let mut connection = gateway.connect();
    let fields = signed_body("PUT", "/body", body);
    connection.send(head(&fields, &declared(body.len())));
    connection
}

#[test]
fn nodes_get_the_very_bytes_over_one_connection() {
    let (node, gateway) = start("");
    let mut connection = gateway.connect();
    for size in SIZES {
        let body = body(size);
        for chunked in [false, true] {
            let fields = signed_body("PUT", "/body", &body);
            send(&mut connection, &fields, &body, chunked);
            assert_eq!(connection.expect_reply().status, 200, "{size} {chunked}");
            let seen = node.take().pop().unwrap();
            assert!(seen.body == body, "{size} {chunked}: {}", seen.body.len());
            assert_eq!(seen.header("x-consumer-username"), Some("alice"));
            assert_eq!(seen.header("x-consumer-custom-id"), Some("42"));
        }
    }
    let connected = node.connections();
    assert!(
        connected <= 2,
        "{connected}: connections to the node are kept"
    );
}

#[test]
fn a_body_that_differs_from_its_digest_never_reaches_the_node() {
    let (node, gateway) = start("");
    for size in SIZES.into_iter().filter(|size| *size <= 1 << 20) {
        for chunked in [false, true] {
            let mut body = body(size);
            let fields = signed_body("PUT", "/body", &body);
            match body.last_mut() {
                Some(last) => *last ^= 1,
                None => body.push(0),
            }
            let mut connection = gateway.connect();
            send(&mut connection, &fields, &body, chunked);
            let reply = connection.expect_reply();
            assert_eq!(reply.status, 401, "{size} {chunked}");
            assert_eq!(
                reply.text(),
                "{\"message\":\"client request can't be validated\"}\n"
            );
            assert_eq!(
                reply.header("www-authenticate"),
                Some("hmac realm=\"hmac\"")
            );
            assert_eq!(node.count(), 0, "{size} {chunked}");
        }
    }
    let failures = "claviger_auth_failures_total{plugin=\"hmac-auth\",reason=\"digest\"} 14";
    assert!(
        gateway.metrics_page().contains(failures),
        "{}",
        gateway.metrics_page()
    );
}

#[test]
fn http2_bodies_reach_nodes_of_both_versions() {
    let (one, two) = (Upstream::start(Behaviour::EchoBody), GrpcUpstream::start());
    let nodes =
        |scheme: &str, addr| format!("upstream: {{ scheme: {scheme}, nodes: {{ '{addr}': 1 }} }}");
    let gateway = Gateway::start(format!(
        "{CONSUMERS}
routes:
  - {{ id: 1, uri: /one, plugins: {{ hmac-auth: {{ validate_request_body: true }} }}, {} }}
  - {{ id: 2, uri: /two, plugins: {{ hmac-auth: {{ validate_request_body: true }} }}, {} }}
",
        nodes("http", one.addr),
        nodes("grpc", two.addr)
    ));
    let mut requests = Vec::new();
    let mut sizes = Vec::new();
    for path in ["/one", "/two"] {
        for size in SIZES {
            for with_length in [true, false] {
                // Its way there and back takes this build seconds.
                if size == 20 << 20 && (path == "/one" || !with_length) {
                    continue;
                }
                let body = body(size);
                let mut request = Request::put(format!("http://a.test{path}"));
                for (name, value) in signed_body("PUT", path, &body) {
                    request = request.header(name, value);
                }
                if with_length {
                    request = request.header("content-length", size);
                }
                requests.push(request.body(Bytes::from(body)).unwrap());
                sizes.push((path, size, with_length));
            }
        }
    }
    let bodies: Vec<Bytes> = requests
        .iter()
        .map(|request| request.body().clone())
        .collect();
    let replies = h2::requests(gateway.http(), requests);
    for ((reply, body), what) in replies.iter().zip(bodies).zip(sizes) {
        assert_eq!(reply.head.status, 200, "{what:?}");
        assert!(reply.body == body, "{what:?}: {}", reply.body.len());
    }
}

/// A node that switches protocols as soon as it has the head, and what it gets from then on.
fn switching() -> (SocketAddr, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
            seen.extend(byte);
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket";
        let _ = stream.write_all(format!("{head}\r\n\r\n").as_bytes());
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    (addr, serving)
}

#[test]
fn an_upgrade_is_no_way_around_the_check_of_a_body() {
    let (addr, node) = switching();
    let routes = resources(&format!("{{ '{addr}': 1 }}"), "");
    let routes = routes.replace("uri: /body,", "uri: /body, enable_websocket: true,");
    let gateway = Gateway::start(routes);
    let mut body = body(200_000);
    let fields = signed_body("PUT", "/body", &body);
    body[0] ^= 1;
    let mut connection = gateway.connect();
    let upgrade = format!("{CHUNKED}\r\nConnection: Upgrade\r\nUpgrade: websocket");
    connection.send(head(&fields, &upgrade));
    let sent = chunks(&body);
    let (first, rest) = sent.split_at(100_000);
    connection.send(first);
    let reply = connection.expect_reply();
    connection.send(rest);
    drop(connection);
    assert_eq!(reply.status, 502);
    let passed = node.join().unwrap();
    assert!(passed.is_empty(), "{} bytes went up", passed.len());
}

#[test]
fn what_follows_a_body_in_the_same_read_is_no_part_of_it() {
    let (node, gateway) = start("");
    for size in [0, 1, K64, 200_000] {
        let body = body(size);
        let fields = signed_body("PUT", "/body", &body);
        for (framing, sent) in [
            (declared(size), body.clone()),
            (CHUNKED.to_owned(), chunks(&body)),
        ] {
            let next = head(&[], &declared(0));
            let mut connection = gateway.connect();
            connection.send([head(&fields, &framing).as_bytes(), &sent, next.as_bytes()].concat());
            // Pingora gives a request up where the next one comes before its answer.
            let status = connection.expect_reply().status;
            assert!(
                status == 200 || status == 400 && size > 1,
                "{status} {size}"
            );
            let next = connection.reply().ok().flatten();
            assert!(next.is_none_or(|reply| reply.status == 401));
            let seen = node.take();
            assert!(seen.len() <= 1, "{size} {framing}");
            assert!(
                seen.iter().all(|seen| seen.body == body),
                "{size} {framing}"
            );
        }
    }
}

#[test]
fn a_tampered_http2_body_is_refused() {
    let (node, gateway) = start("");
    let mut requests = Vec::new();
    for size in [1, K64, K64 + 1, 1 << 20] {
        for with_length in [true, false] {
            let mut body = body(size);
            let mut request = Request::put("http://a.test/body");
            for (name, value) in signed_body("PUT", "/body", &body) {
                request = request.header(name, value);
            }
            if with_length {
                request = request.header("content-length", size);
            }
            body[0] ^= 0x80;
            requests.push(request.body(Bytes::from(body)).unwrap());
        }
    }
    for reply in h2::requests(gateway.http(), requests) {
        assert_eq!(reply.head.status, 401);
        assert_eq!(
            reply.body,
            b"{\"message\":\"client request can't be validated\"}\n"
        );
    }
    assert_eq!(node.count(), 0);
}

#[test]
fn the_next_node_gets_the_whole_body_again() {
    let (bad, good) = (
        Upstream::start(Behaviour::Close),
        Upstream::start(Behaviour::ok()),
    );
    let nodes = format!("{{ '{}': 1, '{}': 1 }}", bad.addr, good.addr);
    let gateway = Gateway::start(resources(&nodes, ""));
    let body = body(1 << 20);
    for _ in 0..2 {
        let status = put(&gateway, &body, false).expect_reply().status;
        assert_eq!(status, 200);
    }
    let received = good.take();
    assert_eq!(received.len(), 2);
    // A retry takes a turn too, so that both may have begun there.
    assert!(bad.count() > 0, "one came by way of the bad node");
    assert!(received.iter().all(|request| request.body == body));
}

#[test]
fn a_body_of_unknown_length_waits_for_a_node_that_can_be_reached() {
    let good = Upstream::start(Behaviour::ok());
    let refusing = crate::harness::ports::free();
    let nodes = format!("{{ '127.0.0.1:{refusing}': 1, '{}': 1 }}", good.addr);
    let gateway = Gateway::start(resources(&nodes, ""));
    for size in [1000, 1 << 20] {
        let body = body(size);
        for _ in 0..2 {
            let status = put(&gateway, &body, true).expect_reply().status;
            assert_eq!(status, 200, "{size}");
            assert!(good.take().pop().unwrap().body == body, "{size}");
        }
    }
}

#[test]
fn a_client_that_waits_is_told_to_go_on_once_it_has_signed() {
    let (node, gateway) = start("");
    let body = body(300_000);
    for chunked in [false, true] {
        let framing = if chunked {
            CHUNKED.to_owned()
        } else {
            declared(body.len())
        };
        let framing = format!("{framing}\r\nExpect: 100-continue");
        let mut connection = gateway.connect();
        connection.send(head(&signed_body("PUT", "/body", &body), &framing));
        assert_eq!(connection.expect_reply().status, 100);
        connection.send(if chunked { chunks(&body) } else { body.clone() });
        assert_eq!(connection.expect_reply().status, 200);
        let seen = node.take().pop().unwrap();
        assert!(seen.body == body);
        assert_eq!(seen.header("expect"), None);

        let mut connection = gateway.connect();
        connection.send(head(&signed_body("PUT", "/other", &body), &framing));
        assert_eq!(
            connection.expect_reply().status,
            401,
            "nothing is asked for"
        );
    }
    assert_eq!(node.count(), 0);
}

#[test]
fn too_large_a_body_is_told_its_limit() {
    for limit in [100, 100_000] {
        let (node, gateway) = start(&format!(", max_req_body_size: {limit}"));
        for chunked in [false, true] {
            let body = body(limit + 1);
            let mut connection = put(&gateway, &body, chunked);
            let reply = connection.expect_reply();
            assert_eq!(reply.status, 413, "{limit} {chunked}");
            let said = reply.text();
            let message = format!("is greater than the maximum size {limit} allowed\"}}\n");
            assert!(said.ends_with(&message), "{said}");
            if !chunked {
                let exact = format!("{{\"message\":\"request size {} {message}", limit + 1);
                assert_eq!(said, exact);
            }
            let body = &body[..limit];
            let mut connection = gateway.connect();
            send(
                &mut connection,
                &signed_body("PUT", "/body", body),
                body,
                chunked,
            );
            assert_eq!(connection.expect_reply().status, 200, "{limit} {chunked}");
            assert_eq!(node.take().len(), 1);
        }
    }
}

#[test]
fn clients_that_stop_or_dawdle_are_answered_and_nothing_goes_up() {
    let node = Upstream::start(Behaviour::ok());
    let nodes = format!("{{ '{}': 1 }}", node.addr);
    let gateway = Gateway::builder()
        .bootstrap("nginx_config: { http: { client_body_timeout: 1s } }")
        .resources(resources(&nodes, ""))
        .start();
    let body = body(200_000);
    for size in [100, 100_000] {
        let mut connection = announce(&gateway, &body);
        connection.send(&body[..size]);
        connection.finish_sending();
        assert_eq!(connection.expect_reply().status, 400, "{size}");

        let mut connection = announce(&gateway, &body);
        connection.send(&body[..size]);
        assert_eq!(connection.expect_reply().status, 408, "{size}");
        assert!(connection.is_closed());
    }
    assert_eq!(node.count(), 0);
    // Slow is not too slow.
    let mut connection = announce(&gateway, &body);
    for piece in body.chunks(20_000) {
        std::thread::sleep(std::time::Duration::from_millis(20));
        connection.send(piece);
    }
    assert_eq!(connection.expect_reply().status, 200);
    assert!(node.take().pop().unwrap().body == body);
}

#[test]
fn the_limit_of_all_bodies_holds_and_a_retry_does_not_count_twice() {
    let (bad, good) = (
        Upstream::start(Behaviour::Close),
        Upstream::start(Behaviour::ok()),
    );
    let nodes = format!("{{ '{}': 1, '{}': 1 }}", bad.addr, good.addr);
    let plain =
        format!("  - {{ id: 2, uri: /plain, upstream: {{ nodes: {nodes}, retries: 1 }} }}\n");
    let gateway = Gateway::builder()
        .bootstrap("nginx_config: { http: { client_max_body_size: 40000 } }")
        .resources(resources(&nodes, "") + &plain)
        .start();
    let (fits, over) = (body(40_000), body(40_001));
    for chunked in [false, true] {
        let status = put(&gateway, &over, chunked).expect_reply().status;
        assert_eq!(status, 413, "{chunked}");
        // Bytes that were sent again to the second node counted as received once more.
        for _ in 0..2 {
            let mut connection = put(&gateway, &fits, chunked);
            assert_eq!(connection.expect_reply().status, 200, "{chunked}");
            connection.send("PUT /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n");
            connection.send(&fits);
            assert_eq!(connection.expect_reply().status, 200);
        }
    }
}

#[test]
fn conditions_and_plugins_share_what_was_read() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(
        &node,
        &format!(
            "{CONSUMERS}
routes:
  - {{ id: 1, uri: /body, vars: [[post_arg_a, '==', 'b']], plugins: {{ hmac-auth: {{ validate_request_body: true }} }}, NODE }}
"
        ),
    ));
    let body = b"a=b&c=d";
    let fields = signed_body("PUT", "/body", body);
    let mut connection = gateway.connect();
    let framing = format!(
        "{}\r\nContent-Type: application/x-www-form-urlencoded",
        declared(7)
    );
    connection.send(head(&fields, &framing));
    connection.send(body);
    assert_eq!(connection.expect_reply().status, 200);
    let seen = node.take().pop().unwrap();
    assert_eq!(seen.body, body);
    assert_eq!(seen.header("digest"), Some(&*digest(body)));
}

#[test]
fn a_global_rule_reads_bodies_too_even_where_no_route_matches() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(
        &node,
        &format!(
            "{CONSUMERS}
global_rules:
  - {{ id: 1, plugins: {{ hmac-auth: {{ validate_request_body: true }} }} }}
routes:
  - {{ id: 1, uri: /body, plugins: {{ proxy-rewrite: {{ headers: {{ set: {{ X-Set: '1' }} }} }} }}, NODE }}
"
        ),
    ));
    let body = body(100_000);
    let status = put(&gateway, &body, false).expect_reply().status;
    assert_eq!(status, 200);
    let seen = node.take().pop().unwrap();
    assert!(seen.body == body);
    assert_eq!(
        seen.header("x-set"),
        Some("1"),
        "changes of the head are kept"
    );
    assert_eq!(seen.header("x-consumer-username"), Some("alice"));
    for (target, status) in [("/none", 404), ("/other", 401)] {
        let fields = signed_body("PUT", target, &body);
        let request = head(&fields, &declared(body.len())).replace("/body", "/none");
        let mut connection = gateway.connect();
        connection.send(request);
        connection.send(&body);
        assert_eq!(connection.expect_reply().status, status);
    }
}

#[test]
fn bodies_that_are_held_have_a_bound_together() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .bootstrap("claviger: { limits: { held_body_bytes: 300000 } }")
        .resources(resources(&format!("{{ '{}': 1 }}", node.addr), ""))
        .start();
    let half = body(200_000);
    let (first, rest) = half.split_at(199_999);
    let framing = declared(half.len());
    let mut clients = [gateway.connect(), gateway.connect()];
    for client in &mut clients {
        client.set_read_timeout(std::time::Duration::from_millis(20));
        client.send(head(&signed_body("PUT", "/body", &half), &framing));
        client.send(first);
    }
    // There is no room for both.
    let mut refused = None;
    wait_until("one is refused", || {
        refused = clients.iter_mut().position(|client| {
            let reply = client.reply().ok().flatten();
            reply.is_some_and(|reply| reply.status == 503)
        });
        refused.is_some()
    });
    let page = gateway.metrics_page();
    let reason = |name: &str| {
        format!("claviger_auth_failures_total{{plugin=\"hmac-auth\",reason=\"{name}\"}} 1")
    };
    assert!(page.contains(&reason("unavailable")), "{page}");
    assert!(!page.contains(&reason("digest")), "{page}");
    let held = &mut clients[1 - refused.unwrap()];
    held.set_read_timeout(std::time::Duration::from_secs(20));
    held.send(rest);
    assert_eq!(held.expect_reply().status, 200);
    assert!(node.take().pop().unwrap().body == half);
    wait_until("room is given back", || {
        let mut connection = gateway.connect();
        let fields = signed_body("PUT", "/body", &half);
        send(&mut connection, &fields, &half, false);
        connection.expect_reply().status == 200
    });
    // Of unknown length, and so held back on its way.
    let long = body(400_000);
    let status = put(&gateway, &long, true).expect_reply().status;
    assert_eq!(status, 503);
}
