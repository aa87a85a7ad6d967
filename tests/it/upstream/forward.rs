//! What passes: fields in both directions, bodies, upgrades, HTTP/2 and gRPC.

use bytes::Bytes;
use http::Request;

use super::{over, route};
use crate::harness::h2::{self, GrpcUpstream};
use crate::harness::wire::Message;
use crate::harness::{Behaviour, Gateway, Upstream};

fn plain(node: &Upstream) -> String {
    format!(r#"{{ nodes: {{ "{}": 1 }} }}"#, node.addr)
}

/// What the node gets when these fields are sent to a gateway with this bootstrap.
fn forwarded(bootstrap: &str, fields: &[(&str, &str)]) -> Message {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .bootstrap(bootstrap)
        .resources(route(&plain(&node)))
        .start();
    let reply = gateway.get("app.test:81", "/", fields);
    assert_eq!(reply.status, 200);
    let mut seen = node.requests().pop().unwrap();
    let port = gateway.http().port().to_string();
    for (_, value) in &mut seen.headers {
        if *value == port {
            "<port>".clone_into(value);
        }
    }
    seen
}

fn all<'m>(message: &'m Message, name: &str) -> Vec<&'m str> {
    let named = message.headers.iter().filter(|(found, _)| found == name);
    named.map(|(_, value)| value.as_str()).collect()
}

const CLAIMS: [(&str, &str); 6] = [
    ("X-Real-IP", "192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.2"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "claimed.test"),
    ("X-Forwarded-Port", "443"),
    ("Forwarded", "for=192.0.2.3"),
];

#[test]
fn forwarding_fields_are_ours_unless_the_peer_is_trusted() {
    let kept = ["https", "claimed.test", "443"];
    let real = ["http", "app.test:81", "<port>"];
    for (trusted, list, three, forwarded_kept) in [
        ("", "192.0.2.2, 127.0.0.1", real, false),
        ("127.0.0.0/8", "192.0.2.2, 127.0.0.1", kept, true),
        ("10.0.0.0/8", "127.0.0.1", real, false),
    ] {
        let mut bootstrap = "nginx_config: { http: { real_ip_from: [] } }\n".to_owned();
        if !trusted.is_empty() {
            bootstrap += &format!("apisix: {{ trusted_addresses: [{trusted}] }}\n");
        }
        let seen = forwarded(&bootstrap, &CLAIMS);
        assert_eq!(all(&seen, "x-real-ip"), ["127.0.0.1"], "{trusted}");
        assert_eq!(all(&seen, "x-forwarded-for"), [list], "{trusted}");
        let found = ["proto", "host", "port"]
            .map(|word| all(&seen, &format!("x-forwarded-{word}")).join("+"));
        assert_eq!(found, three, "{trusted}");
        assert_eq!(
            !all(&seen, "forwarded").is_empty(),
            forwarded_kept,
            "{trusted}"
        );
    }
}

#[test]
fn forwarding_fields_are_set_where_the_client_sent_none() {
    let seen = forwarded("{}", &[]);
    for (name, value) in [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "app.test:81"),
        ("x-forwarded-port", "<port>"),
    ] {
        assert_eq!(all(&seen, name), [value], "{name}");
    }
}

#[test]
fn the_real_address_comes_from_those_who_may_say_it() {
    let bootstrap =
        "nginx_config: { http: { real_ip_from: [127.0.0.1], real_ip_header: X-Forwarded-For } }";
    let seen = forwarded(bootstrap, &[("X-Forwarded-For", "198.51.100.7")]);
    assert_eq!(all(&seen, "x-real-ip"), ["198.51.100.7"]);
    assert_eq!(all(&seen, "x-forwarded-for"), ["198.51.100.7, 127.0.0.1"]);
    // As APISIX ships: this machine may say it, in X-Real-IP.
    let seen = forwarded("{}", &CLAIMS);
    assert_eq!(all(&seen, "x-real-ip"), ["192.0.2.1"]);
}

#[test]
fn fields_with_an_underscore_pass_only_if_they_may() {
    let field = [("X_Consumer", "mallory")];
    assert_eq!(all(&forwarded("{}", &field), "x_consumer"), ["mallory"]);
    let strict = "nginx_config: { http: { underscores_in_headers: 'off' } }";
    assert!(all(&forwarded(strict, &field), "x_consumer").is_empty());
}

#[test]
fn a_client_cannot_have_identity_fields_stripped() {
    let node = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(format!(
        r#"
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: open-sesame }} }} }}
routes:
  - {{ id: app, uri: /*, plugins: {{ key-auth: {{}} }}, upstream: {} }}
"#,
        plain(&node)
    ));
    let nominated = "close, X-Consumer-Username, x-credential-identifier, X-Real-IP, X-Own";
    let fields = [
        ("apikey", "open-sesame"),
        ("Connection", nominated),
        ("X-Consumer-Username", "mallory"),
        ("X-Own", "1"),
    ];
    assert_eq!(gateway.get("a", "/", &fields).status, 200);
    let seen = node.requests().pop().unwrap();
    assert_eq!(all(&seen, "x-consumer-username"), ["alice"]);
    assert_eq!(all(&seen, "x-real-ip"), ["127.0.0.1"]);
    assert!(
        all(&seen, "x-own").is_empty(),
        "what is the client's to name goes"
    );
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let fields = [
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Kept", "1"),
    ];
    let seen = forwarded("{}", &fields);
    for name in ["keep-alive", "te", "proxy-connection"] {
        assert!(all(&seen, name).is_empty(), "{name}");
    }
    assert_eq!(all(&seen, "x-kept"), ["1"]);
}

#[test]
fn bodies_of_megabytes_pass_both_ways_counted_or_chunked() {
    let node = Upstream::start(Behaviour::EchoBody);
    let gateway = over(&plain(&node));
    let body = vec![b'x'; 3 << 20];
    let mut connection = gateway.connect();
    connection.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    connection.send(&body);
    assert!(connection.expect_reply().message.body == body);

    connection.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(1 << 20) {
        connection.send(format!("{:x}\r\n", chunk.len()));
        connection.send(chunk);
        connection.send("\r\n");
    }
    connection.send("0\r\n\r\n");
    assert!(connection.expect_reply().message.body == body);
    let seen = node.requests();
    assert_eq!(all(&seen[0], "content-length").len(), 1);
    assert_eq!(all(&seen[1], "transfer-encoding"), ["chunked"]);
}

#[test]
fn expect_100_continue_is_answered_before_the_body_comes() {
    let node = Upstream::start(Behaviour::EchoBody);
    let gateway = over(&plain(&node));
    let mut connection = gateway.connect();
    connection
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.expect_reply().status, 100);
    connection.send("body");
    let reply = connection.expect_reply();
    assert_eq!((reply.status, &*reply.text()), (200, "body"));
    let seen = node.requests().pop().unwrap();
    assert_eq!(seen.header("expect"), None, "it has been met");

    // A failure after the interim answer is still told.
    node.set(Behaviour::Close);
    connection
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.expect_reply().status, 100);
    connection.send("body");
    assert_eq!(connection.expect_reply().status, 502);
}

#[test]
fn a_refused_request_is_not_told_to_send_its_body() {
    let gateway = Gateway::start("");
    let mut connection = gateway.connect();
    connection.send(
        "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(connection.expect_reply().status, 404);
}

#[test]
fn informational_answers_do_not_end_the_exchange() {
    let node = Upstream::start(Behaviour::Raw(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
            .to_owned(),
    ));
    let gateway = over(&plain(&node));
    let mut connection = gateway.connect();
    for _ in 0..2 {
        connection.request("GET", "/", &[("Host", "a")]);
        let mut reply = connection.expect_reply();
        if reply.status == 103 {
            assert_eq!(reply.header("link"), Some("</a.css>"));
            reply = connection.expect_reply();
        }
        assert_eq!((reply.status, &*reply.text()), (200, "hello"));
    }
}

#[test]
fn head_and_bodiless_answers_keep_the_connection_in_step() {
    let node = Upstream::start(Behaviour::Raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Own: 1\r\n\r\n".to_owned(),
    ));
    let gateway = over(&plain(&node));
    let mut connection = gateway.connect();
    connection.request("HEAD", "/", &[("Host", "a")]);
    let reply = connection.expect_reply_to_head();
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("5"))
    );
    assert_eq!(reply.header("x-own"), Some("1"));
    for status in ["204 No Content", "304 Not Modified"] {
        node.set(Behaviour::Raw(format!(
            "HTTP/1.1 {status}\r\nETag: \"1\"\r\n\r\n"
        )));
        connection.request("GET", "/", &[("Host", "a")]);
        let reply = connection.expect_reply();
        assert!(status.starts_with(&reply.status.to_string()));
        assert_eq!(reply.header("etag"), Some("\"1\""));
    }
    node.set(Behaviour::ok());
    connection.request("GET", "/", &[("Host", "a")]);
    assert_eq!(connection.expect_reply().text(), "hello");
    assert_eq!(node.connections(), 1, "towards the node too");
}

const UPGRADE: [(&str, &str); 5] = [
    ("Host", "a"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_websocket_passes_where_the_route_lets_it() {
    let node = Upstream::start(Behaviour::Switch(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            .to_owned(),
    ));
    let gateway = Gateway::start(format!(
        "routes:\n  - {{ id: ws, uri: /ws, enable_websocket: true, upstream: {0} }}\n  \
         - {{ id: plain, uri: /plain, upstream: {0} }}\n",
        plain(&node)
    ));
    let mut connection = gateway.connect();
    connection.request("GET", "/ws", &UPGRADE);
    let reply = connection.expect_reply();
    assert_eq!(
        (reply.status, reply.header("upgrade")),
        (101, Some("websocket"))
    );
    connection.send(b"\x00\xffany bytes");
    assert_eq!(connection.read_exactly(11), b"\x00\xffany bytes");
    let seen = node.requests().pop().unwrap();
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("sec-websocket-version"), Some("13"));

    node.set(Behaviour::ok());
    let mut connection = gateway.connect();
    connection.request("GET", "/plain", &UPGRADE);
    assert_eq!(connection.expect_reply().text(), "hello");
    let seen = node.requests().pop().unwrap();
    assert_eq!(
        (seen.header("upgrade"), seen.header("connection")),
        (None, None)
    );
    // No other protocol is switched to, on whichever route.
    for path in ["/ws", "/plain"] {
        let fields = [("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "h2c")];
        connection.request("GET", path, &fields);
        assert_eq!(connection.expect_reply().text(), "hello", "{path}");
        assert_eq!(
            node.requests().pop().unwrap().header("upgrade"),
            None,
            "{path}"
        );
    }
}

#[test]
fn a_switch_nobody_asked_for_is_not_made() {
    let node = Upstream::start(Behaviour::Switch(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            .to_owned(),
    ));
    let gateway = over(&plain(&node));
    let mut connection = gateway.connect();
    connection.request("GET", "/", &UPGRADE);
    assert_eq!(connection.expect_reply().status, 502);
}

#[test]
fn grpc_goes_over_http2_with_its_trailers() {
    let node = GrpcUpstream::start();
    let gateway = over(&format!(
        r#"{{ scheme: grpc, nodes: {{ "{}": 1 }} }}"#,
        node.addr
    ));
    let call = |path: &str| {
        Request::post(format!("http://grpc.test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Bytes::from_static(b"\0\0\0\0\x02hi"))
            .unwrap()
    };
    let replies = h2::requests(gateway.http(), vec![call("/s/One"), call("/s/Two")]);
    for reply in &replies {
        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.body, b"\0\0\0\0\x02hi");
        let trailers = reply.trailers.as_ref().expect("trailers pass");
        assert_eq!(trailers["grpc-status"], "0");
    }
    let heads = node.heads();
    let paths: Vec<_> = heads.iter().map(|head| head.uri.path()).collect();
    assert_eq!(paths, ["/s/One", "/s/Two"]);
    for head in &heads {
        assert_eq!(
            head.uri.authority().map(ToString::to_string),
            Some("grpc.test".to_owned())
        );
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["x-forwarded-for"], "127.0.0.1");
    }
    assert_eq!(node.connections(), 1, "calls share a connection");
}

#[test]
fn http2_clients_reach_http1_nodes() {
    let node = Upstream::start(Behaviour::EchoBody);
    let gateway = over(&plain(&node));
    let request = |body: &'static [u8]| {
        Request::post("http://app.test/p?q=1")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Bytes::from_static(body))
            .unwrap()
    };
    let replies = h2::requests(gateway.http(), vec![request(b"one"), request(b"")]);
    assert_eq!(replies[0].body, b"one");
    assert_eq!(replies[1].body, b"");
    let seen = node.requests();
    assert_eq!(seen[0].start, "POST /p?q=1 HTTP/1.1");
    assert_eq!(all(&seen[0], "host"), ["app.test"]);
    assert_eq!(all(&seen[0], "x-forwarded-host"), ["app.test"]);
    assert_eq!(all(&seen[0], "cookie").join("; "), "a=1; b=2");
}
