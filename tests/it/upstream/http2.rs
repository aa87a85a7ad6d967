//! HTTP/2 towards nodes behind TLS: when it is spoken, and that requests fare over it as they do
//! over HTTP/1.1. Against nginx, and against a node that does what nginx cannot be told to.

use std::net::SocketAddr;

use bytes::Bytes;
use claviger::tls::dev::Authority;
use http::Request;

use crate::harness::{Act, Behaviour, Gateway, H2Node, Nginx, Upstream, certs, h2 as client};

/// A node that speaks HTTP/2, and does so with its first requests.
pub(super) fn node(acts: &[Act]) -> H2Node {
    let authority = Authority::new().unwrap();
    H2Node::start(&certs::server(&authority, &["node.test"]), acts)
}

/// An nginx with `listen … ssl <listen>` and this in its server block.
pub(super) fn nginx(listen: &str, server: &str, files: &[(&str, &[u8])]) -> Nginx {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["node.test"]);
    Nginx::start(&issued, listen, server, files)
}

/// A gateway with a route `/*` over these nodes; `rest` goes into the upstream (YAML flow style).
pub(super) fn gateway(nodes: &[SocketAddr], rest: &str) -> Gateway {
    let nodes: String = nodes
        .iter()
        .map(|addr| format!("\"{addr}\": 1, "))
        .collect();
    Gateway::start(format!(
        "routes:\n  - {{ id: app, uri: /*, enable_websocket: true, upstream: {{ scheme: https, \
         tls: {{ verify: false }}, nodes: {{ {nodes} }}, {rest} }} }}\n"
    ))
}

/// A request with a body of so many bytes; the answer's status and body.
pub(super) fn post(gateway: &Gateway, body: &[u8]) -> (u16, Vec<u8>) {
    let mut connection = gateway.connect();
    let length = body.len().to_string();
    connection.request(
        "POST",
        "/",
        &[("Host", "node.test"), ("Content-Length", &length)],
    );
    connection.send(body);
    let reply = connection.expect_reply();
    (reply.status, reply.message.body)
}

#[test]
fn the_node_chooses_among_what_is_offered() {
    const SAY: &str = "location / { return 200 $server_protocol; }";
    let both = nginx("http2", SAY, &[]);
    let old = nginx("", SAY, &[]);
    let issued = certs::server(&Authority::new().unwrap(), &["node.test"]);
    let key = certs::key_text(&issued).as_bytes();
    let without = Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key);
    let mut routes = String::from("routes:\n");
    for (node, addr) in [
        ("both", both.addr),
        ("old", old.addr),
        ("without", without.addr),
    ] {
        for (alpn, rest) in [
            ("default", "scheme: https, tls: { verify: false }"),
            (
                "list",
                "scheme: https, tls: { verify: false, alpn: [http/1.1, h2] }",
            ),
            ("h2", "scheme: https, tls: { verify: false, alpn: h2 }"),
            (
                "h1",
                "scheme: https, tls: { verify: false, alpn: http/1.1 }",
            ),
            ("grpcs", "scheme: grpcs, tls: { verify: false }"),
        ] {
            routes.push_str(&format!(
                "  - {{ id: {node}-{alpn}, uri: /{node}/{alpn}, \
                 upstream: {{ {rest}, nodes: {{ \"{addr}\": 1 }} }} }}\n"
            ));
        }
    }
    let gateway = Gateway::start(routes);
    // Twice, so that what is pooled is asked as well.
    for round in 0..2 {
        for (node, said) in [
            (
                "both",
                ["HTTP/2.0", "HTTP/2.0", "HTTP/2.0", "HTTP/1.1", "HTTP/2.0"].map(Some),
            ),
            (
                "old",
                [
                    Some("HTTP/1.1"),
                    Some("HTTP/1.1"),
                    None,
                    Some("HTTP/1.1"),
                    None,
                ],
            ),
            (
                "without",
                [Some("hello"), Some("hello"), None, Some("hello"), None],
            ),
        ] {
            for (alpn, said) in ["default", "list", "h2", "h1", "grpcs"].iter().zip(said) {
                let path = format!("/{node}/{alpn}");
                let reply = gateway.get("node.test", &path, &[]);
                match said {
                    Some(said) => assert_eq!(
                        (reply.status, &*reply.text()),
                        (200, said),
                        "{path}, round {round}"
                    ),
                    None => assert_eq!(reply.status, 502, "{path}, round {round}"),
                }
            }
        }
    }
}

#[test]
fn the_authority_is_the_host_that_is_sent() {
    let node = node(&[]);
    let addr = node.addr;
    let upstream = |rest: &str| {
        format!("scheme: https, tls: {{ verify: false }}, nodes: {{ \"{addr}\": 1 }}, {rest}")
    };
    let gateway = Gateway::start(format!(
        "routes:
  - {{ id: pass, uri: /pass, upstream: {{ {} }} }}
  - {{ id: node, uri: /node, upstream: {{ {} }} }}
  - {{ id: rewrite, uri: /rewrite, upstream: {{ {} }} }}
",
        upstream("pass_host: pass"),
        upstream("pass_host: node"),
        upstream("pass_host: rewrite, upstream_host: 'other.test:8443'"),
    ));
    let authority = |path: &str| {
        assert_eq!(gateway.get("client.test:80", path, &[]).status, 200);
        let seen = node.take().pop().unwrap();
        assert_eq!(seen.field("host"), None, "there is one authority");
        assert_eq!(seen.head.uri.scheme_str(), Some("https"));
        seen.head.uri.authority().unwrap().to_string()
    };
    assert_eq!(authority("/pass"), "client.test:80");
    assert_eq!(authority("/node"), addr.to_string());
    assert_eq!(authority("/rewrite"), "other.test:8443");
    // HTTP/1.0 needs no `Host`, HTTP/2 does.
    let mut connection = gateway.connect();
    connection.send("GET /pass HTTP/1.0\r\nAccept: */*\r\n\r\n");
    assert_eq!(connection.expect_reply().status, 200);
    let seen = node.take().pop().unwrap();
    assert_eq!(
        seen.head.uri.authority().unwrap().as_str(),
        addr.to_string()
    );
}

#[test]
fn paths_arrive_as_they_were_sent() {
    let node = node(&[]);
    let gateway = gateway(&[node.addr], "");
    for path in [
        "/",
        "/a?b=c&d=%20",
        "/a%2Fb;c=1,2",
        "/caf%C3%A9?q={x}",
        "/~!$&'()*+,;=:@",
    ] {
        assert_eq!(gateway.get("node.test", path, &[]).status, 200, "{path}");
        let seen = node.take().pop().unwrap();
        let arrived = seen.head.uri.path_and_query().unwrap();
        assert_eq!(arrived.as_str(), path);
    }
}

#[test]
fn what_belongs_to_one_connection_is_not_sent_on() {
    let node = node(&[]);
    let gateway = gateway(&[node.addr], "");
    let mut connection = gateway.connect();
    // A node takes a request with any of these for malformed (RFC 9113 §8.2.2).
    connection.send(
        "POST / HTTP/1.1\r\nHost: node.test\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTE: trailers, gzip\r\n\
         Transfer-Encoding: chunked\r\nX-Kept: 1\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let reply = connection.expect_reply();
    assert_eq!((reply.status, &*reply.text()), (200, "hello"));
    let seen = node.take().pop().unwrap();
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "transfer-encoding",
    ] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!(seen.field("x-kept"), Some("1"));
    assert_eq!(seen.field("x-forwarded-host"), Some("node.test"));
    // A client that can take trailers says so, and gets them.
    node.next(&[Act::Trailers]);
    let call = Request::post("http://node.test/")
        .header("te", "trailers")
        .body(Bytes::from("body"))
        .unwrap();
    let replies = client::requests(gateway.http(), vec![call]);
    assert_eq!(node.take().pop().unwrap().field("te"), Some("trailers"));
    assert_eq!(replies[0].body, b"body");
    assert_eq!(replies[0].trailers.as_ref().unwrap()["x-sum"], "7");
}

#[test]
fn grpc_goes_over_tls_with_its_trailers() {
    let node = node(&[Act::Trailers, Act::Trailers]);
    let gateway = Gateway::start(format!(
        "routes:\n  - {{ id: app, uri: /*, upstream: {{ scheme: grpcs, tls: {{ verify: false }}, \
         nodes: {{ \"{}\": 1 }} }} }}\n",
        node.addr
    ));
    let call = |message: &'static str| {
        Request::post("http://node.test/service/Method")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Bytes::from(message))
            .unwrap()
    };
    let replies = client::requests(gateway.http(), vec![call("one"), call("two")]);
    for (reply, body) in replies.iter().zip(["one", "two"]) {
        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.body, body.as_bytes());
        assert_eq!(reply.trailers.as_ref().unwrap()["x-sum"], "7");
    }
    assert_eq!(node.offered(), [b"\x02h2"], "one connection, one protocol");
}

#[test]
fn answers_of_all_shapes_keep_the_client_in_step() {
    let node = node(&[Act::Trailers, Act::HeadOnly, Act::NoContent, Act::Echo]);
    let gateway = gateway(&[node.addr], "");
    let mut connection = gateway.connect();
    let fields = [("Host", "node.test"), ("Content-Length", "5")];
    connection.request("POST", "/trailers", &fields);
    connection.send("hello");
    let reply = connection.expect_reply();
    assert_eq!((reply.status, &*reply.text()), (200, "hello"));
    for (status, body) in [(200, ""), (204, ""), (200, "")] {
        connection.request("GET", "/", &[("Host", "node.test")]);
        let reply = connection.expect_reply();
        assert_eq!((reply.status, &*reply.text()), (status, body));
    }
    connection.request("HEAD", "/", &[("Host", "node.test")]);
    assert_eq!(connection.expect_head_reply().status, 200);
    connection.request("GET", "/", &[("Host", "node.test")]);
    assert_eq!(connection.expect_reply().status, 200);
    let seen = node.seen();
    assert_eq!(seen.len(), 6);
    assert!(
        seen.iter().all(|seen| seen.connection == 0),
        "one connection"
    );
}

#[test]
fn a_filter_may_give_a_body_to_an_answer_without_one() {
    let node = node(&[Act::HeadOnly, Act::Echo]);
    let gateway = Gateway::start(format!(
        "routes:\n  - {{ id: app, uri: /*, plugins: {{ response-rewrite: {{ body: changed }} }}, \
         upstream: {{ scheme: https, tls: {{ verify: false }}, nodes: {{ \"{}\": 1 }} }} }}\n",
        node.addr
    ));
    let mut connection = gateway.connect();
    for _ in 0..2 {
        connection.request("GET", "/", &[("Host", "node.test")]);
        let reply = connection.expect_reply();
        assert_eq!((reply.status, &*reply.text()), (200, "changed"));
    }
}

#[test]
fn bodies_of_megabytes_pass_both_ways() {
    let node = node(&[]);
    let gateway = gateway(&[node.addr], "");
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (status, echoed) = post(&gateway, &body);
    assert_eq!(status, 200);
    assert!(echoed == body, "byte for byte");
    let mut connection = gateway.connect();
    connection.send("POST / HTTP/1.1\r\nHost: node.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(100_000) {
        connection.send(format!("{:x}\r\n", part.len()));
        connection.send(part);
        connection.send("\r\n");
    }
    connection.send("0\r\n\r\n");
    assert!(connection.expect_reply().message.body == body);
    // And to those who ask first.
    let mut connection = gateway.connect();
    let fields = [
        ("Host", "node.test"),
        ("Content-Length", "5"),
        ("Expect", "100-continue"),
    ];
    connection.request("POST", "/", &fields);
    assert_eq!(connection.expect_reply().status, 100);
    connection.send("hello");
    assert_eq!(connection.expect_reply().text(), "hello");
}

#[test]
fn requests_share_a_connection() {
    let node = node(&[]);
    let gateway = gateway(&[node.addr], "");
    assert_eq!(post(&gateway, b"first").0, 200);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(post(&gateway, b"more"), (200, b"more".to_vec()));
                }
            });
        }
    });
    assert_eq!(node.seen().len(), 161);
    // Those that come at the very same moment may each open one.
    assert!(node.offered().len() <= 8, "{}", node.offered().len());
}

#[test]
fn websockets_go_over_http1_whatever_else_does() {
    let echo = Upstream::start(Behaviour::Switch(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            .to_owned(),
    ));
    let nginx = nginx(
        "http2",
        &format!(
            "location /proto {{ return 200 $server_protocol; }}
             location / {{ proxy_pass http://{}; proxy_http_version 1.1;
               proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
            echo.addr
        ),
        &[],
    );
    let gateway = gateway(&[nginx.addr], "");
    let protocol = || gateway.get("node.test", "/proto", &[]).text();
    assert_eq!(protocol(), "HTTP/2.0");
    let mut socket = gateway.connect();
    let fields = [
        ("Host", "node.test"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    socket.request("GET", "/socket", &fields);
    assert_eq!(socket.expect_reply().status, 101);
    socket.send("frame");
    assert_eq!(socket.read_exactly(5), b"frame");
    assert_eq!(protocol(), "HTTP/2.0", "no other request follows it");
}
