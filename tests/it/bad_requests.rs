//! Requests and upstreams that break the rules: each must end well, and the gateway live on.
//! `pingora-notes.md` §0 and §2.5 say which of these the framework lets through by itself.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use crate::harness::{Behaviour, Connection, Gateway, Upstream, wait_until};

/// Short enough for a test, long enough for a busy machine.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

fn start(behaviour: Behaviour) -> (Upstream, Gateway) {
    let upstream = Upstream::start(behaviour);
    let node = upstream.addr;
    let gateway = Gateway::builder()
        .bootstrap(
            "nginx_config: { http: { client_header_timeout: 2s, client_body_timeout: 2s, \
             keepalive_timeout: 30s } }",
        )
        .resources(format!(
            r#"
consumers:
  - username: alice
    plugins: {{ key-auth: {{ key: open-sesame }} }}
upstreams:
  - id: app
    type: roundrobin
    nodes: {{ "{node}": 1 }}
    timeout: {{ connect: 1, send: 1, read: 1 }}
routes:
  - id: public
    uri: /public/*
    upstream_id: app
  - id: private
    uri: /private/*
    plugins: {{ key-auth: {{}} }}
    upstream_id: app
"#
        ))
        .start();
    (upstream, gateway)
}

/// The gateway still serves, and nobody else's bytes stand in the way.
fn assert_alive(gateway: &Gateway) {
    assert_eq!(gateway.get("a.test", "/public/", &[]).status, 200);
}

/// Sends the bytes; the answer must have one of these statuses, and the upstream see nothing.
fn assert_refused(what: &str, bytes: &[u8], statuses: &[u16]) {
    let (upstream, gateway) = start(Behaviour::ok());
    let mut connection = gateway.connect();
    connection.send(bytes);
    let reply = connection.reply().expect("an answer must be whole");
    let status = reply.map(|reply| reply.status);
    let fits = status.is_some_and(|status| statuses.contains(&status));
    assert!(fits, "{what}: {status:?} is not in {statuses:?}");
    assert!(connection.is_closed(), "{what}: the connection must close");
    assert_eq!(upstream.count(), 0, "{what}: must not reach the upstream");
    assert_alive(&gateway);
}

#[test]
fn a_request_line_of_100_kb_is_refused() {
    let line = format!(
        "GET /public/{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "a".repeat(100 << 10)
    );
    assert_refused("long request line", line.as_bytes(), &[400, 414, 431]);
}

#[test]
fn ten_thousand_headers_are_refused() {
    let mut text = "GET /public/ HTTP/1.1\r\nHost: a\r\n".to_owned();
    for n in 0..10_000 {
        write!(text, "X-{n}: 1\r\n").unwrap();
    }
    text.push_str("\r\n");
    assert_refused("many headers", text.as_bytes(), &[400, 431]);
}

#[test]
fn a_nul_in_a_header_is_refused() {
    let bytes = b"GET /public/ HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n";
    assert_refused("NUL", bytes, &[400]);
}

#[test]
fn two_different_content_lengths_are_refused() {
    let bytes = b"POST /public/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
        Content-Length: 2\r\n\r\nab";
    assert_refused("two lengths", bytes, &[400]);
}

#[test]
fn transfer_encoding_with_content_length_is_refused() {
    let bytes = b"POST /public/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\
        Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /private/ HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_refused("CL with TE", bytes, &[400]);
}

#[test]
fn a_bare_line_feed_is_refused() {
    for bytes in [
        b"GET /public/ HTTP/1.1\nHost: a\n\n".as_slice(),
        b"GET /public/ HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
    ] {
        assert_refused("bare LF", bytes, &[400]);
    }
}

#[test]
fn http_1_1_without_a_host_is_refused() {
    assert_refused("no Host", b"GET /public/ HTTP/1.1\r\n\r\n", &[400]);
}

#[test]
fn an_overflowing_chunk_size_is_refused() {
    let (upstream, gateway) = start(Behaviour::ok());
    let mut connection = gateway.connect();
    connection.send(
        b"POST /public/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
          fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    );
    let status = connection.reply().ok().flatten().map(|reply| reply.status);
    assert!(matches!(status, None | Some(400)), "{status:?}");
    assert_eq!(
        upstream.count(),
        0,
        "no whole request may reach the upstream"
    );
    assert_alive(&gateway);
}

#[test]
fn a_client_that_drips_its_header_is_cut_off() {
    let (_upstream, gateway) = start(Behaviour::ok());
    let mut connection = gateway.connect();
    assert_cut_off(&mut connection);
    assert_alive(&gateway);
}

#[test]
fn a_client_that_drips_its_second_header_is_cut_off_too() {
    let (_upstream, gateway) = start(Behaviour::ok());
    let mut connection = gateway.connect();
    connection.request("GET", "/public/", &[("Host", "a")]);
    assert_eq!(connection.expect_reply().status, 200);
    assert_cut_off(&mut connection);
    assert_alive(&gateway);
}

/// Sends a header bit by bit, faster than any timeout of a single read.
fn assert_cut_off(connection: &mut Connection) {
    let began = Instant::now();
    let patience = Duration::from_secs(20);
    connection.set_read_timeout(Duration::from_millis(300));
    for byte in b"GET /public/ HTTP/1.1\r\nHost: a\r\nX-Slow: "
        .iter()
        .chain([b'a'; 60].iter())
    {
        connection.send([*byte]);
        match connection.reply() {
            Err(error) if is_timeout(&error) => {}
            // Closed, answered (408) or reset: whichever, the client is rid of.
            _ => {
                assert!(began.elapsed() >= HEADER_TIMEOUT / 2, "cut off too early");
                return;
            }
        }
        assert!(began.elapsed() < patience, "must be cut off by now");
    }
    panic!("must be cut off");
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[test]
fn no_spelling_of_a_path_gets_around_its_guard() {
    let (upstream, gateway) = start(Behaviour::ok());
    for path in [
        "/public/../private/x",
        "/public/%2e%2e/private/x",
        "/public/.%2E/private/x",
        "/public/./../private/x",
        "//private/x",
        "/%70rivate/x",
        "/public//../../private/x",
        "/./private/x",
    ] {
        let reply = gateway.get("a.test", path, &[]);
        let refused = matches!(reply.status, 400 | 401 | 404);
        assert!(refused, "{path}: {}", reply.status);
    }
    assert_eq!(upstream.count(), 0);
    assert_alive(&gateway);
}

#[test]
fn absolute_form_is_taken_by_its_path() {
    let (upstream, gateway) = start(Behaviour::ok());
    let mut connection = gateway.connect();
    connection.request("GET", "http://a.test/private/x", &[("Host", "a.test")]);
    assert_eq!(connection.expect_reply().status, 401);
    assert_eq!(upstream.count(), 0);
    assert_alive(&gateway);
}

#[test]
fn the_connection_outlives_a_401() {
    let (_upstream, gateway) = start(Behaviour::ok());
    let mut connection = gateway.connect();
    connection.request("GET", "/private/", &[("Host", "a")]);
    assert_eq!(connection.expect_reply().status, 401);
    let key = [("Host", "a"), ("apikey", "open-sesame")];
    connection.request("GET", "/private/", &key);
    assert_eq!(connection.expect_reply().status, 200);
}

#[test]
fn an_answer_cut_short_never_looks_whole() {
    for behaviour in [Behaviour::CloseMidBody, Behaviour::CloseMidChunk] {
        let (upstream, gateway) = start(behaviour.clone());
        let mut connection = gateway.connect();
        connection.request("GET", "/public/", &[("Host", "a")]);
        match connection.reply() {
            Ok(Some(reply)) => assert_eq!(reply.status, 502, "{behaviour:?}"),
            Ok(None) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{behaviour:?}"),
        }
        upstream.set(Behaviour::ok());
        assert_alive(&gateway);
    }
}

#[test]
fn garbage_or_silence_from_upstream_has_a_status() {
    for (behaviour, status) in [
        (Behaviour::Garbage, 502),
        (Behaviour::Close, 502),
        (Behaviour::Never, 504),
    ] {
        let (upstream, gateway) = start(behaviour.clone());
        let reply = gateway.get("a.test", "/public/", &[]);
        assert_eq!(reply.status, status, "{behaviour:?}");
        upstream.set(Behaviour::ok());
        assert_alive(&gateway);
    }
}

#[test]
fn an_upstream_that_is_gone_gives_502() {
    let (upstream, gateway) = start(Behaviour::ok());
    let addr = upstream.addr;
    drop(upstream);
    wait_until("the upstream's port is closed", || {
        std::net::TcpStream::connect(addr).is_err()
    });
    assert_eq!(gateway.get("a.test", "/public/", &[]).status, 502);
    assert!(gateway.is_ready(), "one upstream is not the gateway");
}

#[test]
fn a_graceful_stop_ends_when_the_last_request_does() {
    let (upstream, mut gateway) = start(Behaviour::Slow(Duration::from_millis(700)));
    let mut connection = gateway.connect();
    connection.request("GET", "/public/", &[("Host", "a")]);
    wait_until("the request is under way", || upstream.count() == 1);
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(connection.expect_reply().status, 200);
    let began = Instant::now();
    gateway.wait_exit();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "nothing is left to wait for"
    );
}
