use super::{get, send, send_on, start, status_and_body};
use crate::harness::{Behaviour, Connection, Upstream};

const RESOURCES: &str = r#"
consumers:
  - { username: alice, plugins: { key-auth: { key: k } } }
routes:
  - { id: 1, uri: /all, plugins: { response-rewrite: { status_code: 201, body: "rewritten", headers: { add: ["X-Add: $status"], set: { X-Set: "$upstream_status" }, remove: [X-Gone] } } }, NODE }
  - { id: 2, uri: /filters, plugins: { response-rewrite: { filters: [ { regex: "b(.)d", replace: "<$1>", scope: global } ] } }, NODE }
  - { id: 3, uri: /errors, plugins: { response-rewrite: { vars: [[status, ">=", 400]], body: "sorry" } }, NODE }
  - { id: 4, uri: /local, plugins: { key-auth: {}, response-rewrite: { status_code: 418, body: "no entry", headers: { set: { Content-Type: text/x } } } }, NODE }
  - { id: 5, uri: /none, plugins: { response-rewrite: { status_code: 204 }, mocking: { response_example: "body" } }, NODE }
  - { id: 6, uri: /empty, plugins: { response-rewrite: { filters: [ { regex: ".+", replace: "" } ] } }, NODE }
  - { id: 7, uri: /base64, plugins: { response-rewrite: { body: aGkK, body_base64: true } }, NODE }
"#;

fn answers(upstream: &Upstream, status: u16, headers: &str, body: &str) {
    upstream.set(Behaviour::Raw(format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )));
}

/// Two requests on one connection, so that a wrong length shows in the second.
fn twice(connection: &mut Connection, path: &str, expected: (u16, &str)) {
    for _ in 0..2 {
        let reply = send_on(connection, "GET", path, &[]);
        assert_eq!(
            status_and_body(&reply),
            (expected.0, expected.1.to_owned()),
            "{path}"
        );
    }
}

#[test]
fn status_headers_and_body_are_replaced() {
    let (upstream, gateway) = start(RESOURCES);
    answers(
        &upstream,
        200,
        "X-Gone: 1\r\nX-Set: old\r\nETag: \"e\"\r\n",
        "original",
    );
    let mut connection = gateway.connect();
    twice(&mut connection, "/all", (201, "rewritten"));
    let reply = send_on(&mut connection, "GET", "/all", &[]);
    for (name, value) in [
        ("x-add", Some("200")),
        ("x-set", Some("200")),
        ("x-gone", None),
        ("etag", None),
        ("content-length", None),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    twice(&mut connection, "/base64", (200, "hi\n"));
}

#[test]
fn a_body_that_comes_in_pieces_is_filtered_whole() {
    let (upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    upstream.set(Behaviour::Raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na b\r\n7\r\nad c b.\r\n2\r\nd!\r\n0\r\n\r\n"
            .to_owned(),
    ));
    twice(&mut connection, "/filters", (200, "a <a> c <.>!"));
    let body = "bxd".repeat(30_000);
    answers(&upstream, 200, "", &body);
    twice(&mut connection, "/filters", (200, &"<x>".repeat(30_000)));
    // What becomes empty is still a whole response.
    answers(&upstream, 200, "", "all of it");
    twice(&mut connection, "/empty", (200, ""));
}

#[test]
fn a_response_without_a_body_gets_one() {
    let (upstream, gateway) = start(RESOURCES);
    for status in [404, 500] {
        answers(&upstream, status, "X-Kept: 1\r\n", "");
        let reply = get(&gateway, "/errors", &[]);
        assert_eq!(status_and_body(&reply), (status, "sorry".to_owned()));
        assert_eq!(reply.header("x-kept"), Some("1"));
        assert_eq!(reply.header("content-length"), Some("5"));
    }
    // Where the plugin does not apply, nothing is made up.
    answers(&upstream, 200, "", "");
    assert_eq!(
        status_and_body(&get(&gateway, "/errors", &[])),
        (200, String::new())
    );
    answers(&upstream, 200, "", "fine");
    assert_eq!(
        status_and_body(&get(&gateway, "/errors", &[])),
        (200, "fine".to_owned())
    );
}

#[test]
fn what_never_has_a_body_keeps_none() {
    let (upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    upstream.set(Behaviour::Raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n".to_owned(),
    ));
    let reply = send_on(&mut connection, "HEAD", "/all", &[]);
    assert_eq!((reply.status, reply.header("content-length")), (201, None));
    for (status, path) in [(204, "/base64"), (304, "/filters")] {
        upstream.set(Behaviour::Raw(format!("HTTP/1.1 {status} X\r\n\r\n")));
        let reply = send_on(&mut connection, "GET", path, &[]);
        assert_eq!(status_and_body(&reply), (status, String::new()));
        assert_eq!(reply.header("transfer-encoding"), None, "{status}");
    }
    let reply = send_on(&mut connection, "GET", "/none", &[]);
    assert_eq!((reply.status, reply.header("content-length")), (204, None));
    // A status that may have a body, where the upstream's could not.
    upstream.set(Behaviour::Raw("HTTP/1.1 204 X\r\n\r\n".to_owned()));
    assert_eq!(send_on(&mut connection, "GET", "/all", &[]).status, 201);
    answers(&upstream, 200, "", "bad");
    twice(&mut connection, "/filters", (200, "<a>"));
}

#[test]
fn answers_of_the_gateway_are_rewritten_too() {
    let (upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    twice(&mut connection, "/local", (418, "no entry"));
    let reply = send_on(&mut connection, "GET", "/local", &[]);
    assert_eq!(reply.header("content-type"), Some("text/x"));
    assert_eq!(reply.header("content-length"), Some("8"));
    assert_eq!(
        reply.header("www-authenticate"),
        Some("apikey realm=\"key\"")
    );
    upstream.set(Behaviour::Close);
    let reply = send(&gateway, "GET", "/errors", &[]);
    assert_eq!(status_and_body(&reply), (502, "sorry".to_owned()));
}

#[test]
fn a_client_of_http_1_0_sees_the_end() {
    let (upstream, gateway) = start(RESOURCES);
    answers(&upstream, 200, "", "original");
    let mut connection = gateway.connect();
    connection.send("GET /all HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let reply = connection.expect_reply();
    assert_eq!(status_and_body(&reply), (201, "rewritten".to_owned()));
    assert_eq!(reply.header("transfer-encoding"), None);
}
