//! `forward-auth` asks a server of the test's own (`spec/03` §9).

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claviger::tls::dev::{Authority, Issued};

use super::{get, over, send, status_and_body};
use crate::harness::gateway::Running;
use crate::harness::service::Said;
use crate::harness::wire::Message;
use crate::harness::{Behaviour, Gateway, Service, Upstream, certs, ports, said, tool, wait_until};

/// Lets `Bearer alice` pass and tells who she is.
fn by_token(request: &Message) -> Said {
    if request.header("authorization") == Some("Bearer alice") {
        let headers = [("X-User-ID", "42"), ("X-Role", "reader"), ("X-Other", "1")];
        return said(200, &headers, "");
    }
    let headers = [
        ("Location", "https://login.test/"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Internal", "secret"),
        ("Content-Type", "application/json"),
    ];
    said(401, &headers, r#"{"why":"no token"}"#)
}

/// Gateway and upstream before that server; `AUTH` in the YAML is its address.
fn start(auth: &str, yaml: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, yaml).replace("AUTH", auth);
    (upstream, Gateway::start(yaml))
}

const ROUTES: &str = "
routes:
  - id: 1
    uri: /guarded*
    plugins:
      forward-auth:
        uri: http://AUTH/check?by=gateway
        request_headers: [Authorization]
        upstream_headers: [X-User-ID, X-Role, X-Missing]
        client_headers: [Location, Set-Cookie, Content-Type]
    NODE
  - id: 2
    uri: /posted
    plugins:
      forward-auth:
        uri: http://AUTH/post
        request_method: POST
        request_headers: [Content-Type]
        max_req_body_size: 300000
    NODE
  - id: 3
    uri: /field
    plugins:
      forward-auth:
        uri: http://AUTH/field
        extra_headers: { X-Tenant: '$post_arg.tenant', X-From: '$remote_addr', X-Fixed: 7 }
    NODE
";

#[test]
fn the_server_decides_and_its_headers_replace_forged_ones() {
    let auth = Service::start(by_token);
    let (upstream, gateway) = start(&auth.addr.to_string(), ROUTES);
    let headers = [
        ("Authorization", "Bearer alice"),
        ("X-User-ID", "forged"),
        ("X-Role", "admin"),
        ("X-Missing", "forged"),
        ("X-Forwarded-Method", "FORGED"),
        ("X-Forwarded-Uri", "/forged"),
        ("X-Forwarded-For", "203.0.113.9"),
    ];
    let reply = send(&gateway, "PUT", "/guarded/%61%20b?q=%2F", &headers);
    assert_eq!(status_and_body(&reply), (200, "hello".to_owned()));
    let seen = upstream.take().pop().unwrap();
    let values = |name: &str| {
        let headers = seen.headers.iter().filter(|(found, _)| found == name);
        headers.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(values("x-user-id"), ["42"]);
    assert_eq!(values("x-role"), ["reader"]);
    assert!(values("x-missing").is_empty(), "no forged one passes");
    assert!(values("x-other").is_empty(), "only what is listed");
    let asked = auth.take().pop().unwrap();
    assert_eq!(asked.start, "GET /check?by=gateway HTTP/1.1");
    for (name, value) in [
        ("host", Some(auth.addr.to_string().as_str())),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-method", Some("PUT")),
        ("x-forwarded-host", Some("a.test")),
        ("x-forwarded-uri", Some("/guarded/a%20b?q=%2F")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("authorization", Some("Bearer alice")),
        ("x-user-id", None),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
}

#[test]
fn a_refusal_is_the_clients_with_the_listed_headers() {
    let auth = Service::start(by_token);
    let (upstream, gateway) = start(&auth.addr.to_string(), ROUTES);
    let reply = get(&gateway, "/guarded", &[]);
    assert_eq!(
        status_and_body(&reply),
        (401, r#"{"why":"no token"}"#.to_owned())
    );
    assert_eq!(reply.header("location"), Some("https://login.test/"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-internal"), None);
    let cookies = reply.message.headers.iter();
    let cookies = cookies.filter(|(name, _)| name == "set-cookie");
    let cookies: Vec<_> = cookies.map(|(_, value)| value.as_str()).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    // Every status from 300 on is a refusal, and a redirect is the client's to follow.
    for (status, body) in [(302, ""), (300, "x"), (404, "gone"), (500, "oh"), (503, "")] {
        auth.set(move |_| said(status, &[("Location", "/next")], body));
        let reply = get(&gateway, "/guarded", &[]);
        assert_eq!(status_and_body(&reply), (status, body.to_owned()));
        assert_eq!(reply.header("location"), Some("/next"));
    }
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    for status in [201, 204, 299] {
        auth.set(move |_| said(status, &[], ""));
        assert_eq!(get(&gateway, "/guarded", &[]).status, 200, "{status}");
    }
}

#[test]
fn the_body_goes_to_the_server_and_upstream() {
    let auth = Service::start(|_| said(200, &[], ""));
    let (upstream, gateway) = start(&auth.addr.to_string(), ROUTES);
    let body = "x".repeat(200_000);
    let post = |head: &str, body: &str| {
        let mut connection = gateway.connect();
        connection.send(format!(
            "POST /posted HTTP/1.1\r\nHost: a.test\r\n{head}\r\n"
        ));
        connection.send(body);
        connection.expect_reply()
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    let head = format!("{length}Content-Type: a/b\r\nContent-Encoding: x\r\nX-Not: 1\r\n");
    assert_eq!(post(&head, &body).status, 200);
    let asked = auth.take().pop().unwrap();
    assert_eq!(asked.start, "POST /post HTTP/1.1");
    assert_eq!(asked.text(), body);
    assert_eq!(asked.header("content-length"), Some("200000"));
    assert_eq!(asked.header("content-encoding"), Some("x"));
    assert_eq!(asked.header("content-type"), Some("a/b"));
    assert_eq!(asked.header("x-not"), None);
    assert_eq!(upstream.take().pop().unwrap().text(), body);
    // Chunked, small enough to be read ahead.
    let reply = post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(auth.take().pop().unwrap().text(), "abc");
    assert_eq!(upstream.take().pop().unwrap().text(), "abc");
    // Without a body.
    assert_eq!(post("", "").status, 200);
    let asked = auth.take().pop().unwrap();
    assert_eq!(
        (asked.text().as_str(), asked.header("transfer-encoding")),
        ("", None)
    );
    upstream.forget();
    let reply = post("Content-Length: 300001\r\n", "");
    let message = "request size 300001 is greater than the maximum size 300000 allowed";
    assert_eq!(
        status_and_body(&reply),
        (413, format!("{{\"message\":\"{message}\"}}\n"))
    );
    // Of a long body without a length nobody knows ahead what it holds.
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "y".repeat(100_000));
    let reply = post(
        "Transfer-Encoding: chunked\r\n",
        &format!("{chunk}{chunk}0\r\n\r\n"),
    );
    assert_eq!(reply.status, 411);
    assert!(auth.take().is_empty());
    assert_eq!(upstream.count(), 0);
}

#[test]
fn extra_headers_are_made_of_the_request() {
    let auth = Service::start(|_| said(200, &[], ""));
    let (_upstream, gateway) = start(&auth.addr.to_string(), ROUTES);
    let mut connection = gateway.connect();
    let body = r#"{"tenant":"blue"}"#;
    connection.send(format!(
        "POST /field HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(connection.expect_reply().status, 200);
    let asked = auth.take().pop().unwrap();
    assert_eq!(asked.start, "GET /field HTTP/1.1");
    assert_eq!(asked.header("x-tenant"), Some("blue"));
    assert_eq!(asked.header("x-from"), Some("127.0.0.1"));
    assert_eq!(asked.header("x-fixed"), Some("7"));
    assert_eq!(asked.text(), "", "a GET takes no body along");
    // A line break out of the client's body is refused, not sent.
    let body = r#"{"tenant":"x\r\nX-Admin: 1"}"#;
    connection.send(format!(
        "POST /field HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(connection.expect_reply().status, 400);
    assert!(auth.take().is_empty());
}

/// Whatever the server does that is no whole answer is a refusal.
#[test]
fn odd_servers_refuse() {
    let auth = Upstream::start(Behaviour::ok());
    let yaml = "
routes:
  - { id: 1, uri: /guarded, plugins: { forward-auth: { uri: 'http://AUTH/', timeout: 300, upstream_headers: [X-User] } }, NODE }
  - { id: 2, uri: /told, plugins: { forward-auth: { uri: 'http://AUTH/', timeout: 300, status_on_error: 502 } }, NODE }
  - { id: 3, uri: /degraded, plugins: { forward-auth: { uri: 'http://AUTH/', timeout: 300, allow_degradation: true, upstream_headers: [X-User] } }, NODE }
  - { id: 4, uri: /patient, plugins: { forward-auth: { uri: 'http://AUTH/', upstream_headers: [X-User] } }, NODE }
  - { id: 5, uri: /nobody, plugins: { forward-auth: { uri: 'http://127.0.0.1:NOBODY/' } }, NODE }
";
    let yaml = yaml.replace("NOBODY", &ports::free().to_string());
    let (upstream, gateway) = start(&auth.addr.to_string(), &yaml);
    let huge = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n{}",
        "x".repeat(2_000_000)
    );
    let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2_000_000));
    let raw = |text: &str| Behaviour::Raw(text.to_owned());
    let odd = [
        Behaviour::Garbage,
        Behaviour::Close,
        Behaviour::CloseMidBody,
        Behaviour::CloseMidChunk,
        Behaviour::Never,
        Behaviour::Slow(Duration::from_millis(700)),
        raw("HTTP/1.1 100 Continue\r\n\r\n"),
        raw("HTTP/1.1 103 Early Hints\r\nX-User: early\r\n\r\n"),
        raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        raw("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"),
        raw("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nX-Us er: 1\r\nContent-Length: 0\r\n\r\n"),
        raw(&huge),
        raw(&long_head),
    ];
    let forged = [("X-User", "forged")];
    for behaviour in odd {
        auth.set(behaviour.clone());
        let started = Instant::now();
        let shown = format!("{behaviour:.60?}");
        assert_eq!(get(&gateway, "/guarded", &forged).status, 403, "{shown}");
        assert_eq!(get(&gateway, "/told", &[]).status, 502, "{shown}");
        assert_eq!(upstream.count(), 0, "{shown}");
        assert_eq!(get(&gateway, "/degraded", &forged).status, 200, "{shown}");
        let seen = upstream.take().pop().unwrap();
        assert_eq!(seen.header("x-user"), None, "no forged one passes: {shown}");
        assert!(started.elapsed() < Duration::from_secs(10), "{shown}");
    }
    // An interim answer before the final one is passed over.
    auth.set(raw("HTTP/1.1 103 Early Hints\r\nX-User: early\r\n\r\n\
         HTTP/1.1 200 OK\r\nX-User: final\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(get(&gateway, "/patient", &forged).status, 200);
    let seen = upstream.take().pop().unwrap();
    assert_eq!(seen.header("x-user"), Some("final"));
    assert_eq!(get(&gateway, "/nobody", &[]).status, 403);
    wait_until("the log says why", || {
        let log = gateway.log();
        let why = |words: &str| log.contains(&format!("forward-auth got no decision: {words}"));
        why("no connection: ") && why("no whole answer in time") && why("the connection was closed")
    });
}

#[test]
fn tls_is_verified_unless_told_otherwise() {
    let authority = Authority::new().unwrap();
    let stranger = Authority::new().unwrap();
    let serve = |issued: &Issued| {
        let key = certs::key_text(issued).as_bytes();
        Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key)
    };
    let server = |authority: &Authority, name: &str| serve(&certs::server(authority, &[name]));
    let trusted = server(&authority, "localhost");
    let unknown = server(&stranger, "localhost");
    let other_name = server(&authority, "elsewhere.test");
    let expired = serve(&certs::expired(&authority, &["localhost"]));
    let plain = Upstream::start(Behaviour::ok());
    let upstream = Upstream::start(Behaviour::ok());
    let route = |id: usize, auth: &Upstream, more: &str| {
        let port = auth.addr.port();
        format!(
            "  - {{ id: {id}, uri: /{id}, plugins: {{ forward-auth: {{ uri: 'https://localhost:{port}/'{more} }} }}, NODE }}\n"
        )
    };
    let routes = [
        route(1, &trusted, ""),
        route(2, &unknown, ""),
        route(3, &other_name, ""),
        route(4, &expired, ""),
        route(5, &plain, ""),
        route(6, &unknown, ", ssl_verify: false"),
    ];
    let yaml = over(&upstream, &format!("routes:\n{}", routes.concat()));
    let builder = Gateway::builder().file("ca.pem", authority.cert_pem().unwrap());
    let ca = builder.dir().join("ca.pem");
    let bootstrap = format!(
        "apisix: {{ ssl: {{ ssl_trusted_certificate: '{}' }} }}",
        ca.display()
    );
    let gateway = builder.bootstrap(&bootstrap).resources(yaml).start();
    for (path, status) in [
        ("/1", 200),
        ("/2", 403),
        ("/3", 403),
        ("/4", 403),
        ("/5", 403),
        ("/6", 200),
    ] {
        assert_eq!(get(&gateway, path, &[]).status, status, "{path}");
    }
    assert_eq!(upstream.count(), 2);
    assert_eq!(unknown.count(), 1, "only the call that asked for no proof");
}

#[test]
fn connections_to_the_server_are_kept() {
    let auth = Service::start(by_token);
    let (_upstream, gateway) = start(&auth.addr.to_string(), ROUTES);
    let alice = [("Authorization", "Bearer alice")];
    for _ in 0..30 {
        assert_eq!(get(&gateway, "/guarded", &alice).status, 200);
        assert_eq!(get(&gateway, "/guarded", &[]).status, 401);
    }
    assert_eq!(auth.take().len(), 60);
    assert_eq!(auth.connections(), 1, "one connection carried all");
    // A server that closes what was kept fails no request.
    let fickle = Upstream::start(Behaviour::OncePerConnection);
    let (_upstream, gateway) = start(&fickle.addr.to_string(), ROUTES);
    for _ in 0..5 {
        assert_eq!(get(&gateway, "/guarded", &alice).status, 200);
    }
}

#[test]
fn without_keepalive_each_question_has_its_own_connection() {
    let auth = Service::start(|_| said(200, &[], ""));
    let yaml = "
routes:
  - { id: 1, uri: /, plugins: { forward-auth: { uri: 'http://AUTH/', keepalive: false } }, NODE }
";
    let (_upstream, gateway) = start(&auth.addr.to_string(), yaml);
    for expected in 1..4 {
        assert_eq!(get(&gateway, "/", &[]).status, 200);
        assert_eq!(auth.connections(), expected);
    }
}

#[test]
fn secrets_in_the_question_rotate_and_fail_closed() {
    let auth = Service::start(|_| said(200, &[], ""));
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = "
secrets:
  - { id: file/local, path: DIR/secrets, ttl: 1 }
routes:
  - { id: 1, uri: /, plugins: { forward-auth: { uri: 'http://AUTH/', extra_headers: { X-Api-Key: $secret://file/local/auth/key } } }, NODE }
  - { id: 2, uri: /lost, plugins: { forward-auth: { uri: 'http://AUTH/', allow_degradation: true, extra_headers: { X-Api-Key: $secret://file/local/auth/none } } }, NODE }
";
    let builder = Gateway::builder()
        .file("secrets/auth.json", r#"{"key":"first"}"#)
        .unready();
    let dir = builder.dir().display().to_string();
    let yaml = over(&upstream, yaml)
        .replace("AUTH", &auth.addr.to_string())
        .replace("DIR", &dir);
    let gateway = builder.resources(yaml).start();
    wait_until("the reference has its value", || {
        get(&gateway, "/", &[]).status == 200
    });
    assert_eq!(auth.take()[0].header("x-api-key"), Some("first"));
    gateway.write_file("secrets/auth.json", r#"{"key":"second"}"#);
    wait_until("the rotated value is sent", || {
        assert_eq!(get(&gateway, "/", &[]).status, 200);
        auth.take()[0].header("x-api-key") == Some("second")
    });
    upstream.forget();
    assert_eq!(get(&gateway, "/lost", &[]).status, 503);
    gateway.write_file("secrets/auth.json", r#"{"key":"line\nbreak"}"#);
    wait_until("a value that is no header refuses", || {
        get(&gateway, "/", &[]).status == 503
    });
    for asked in auth.take() {
        let key = asked.header("x-api-key").unwrap_or_default();
        assert_eq!(key, "second", "neither reference nor misfit is sent");
    }
}

/// As `auth_request` servers in the field: nginx that looks at the headers it is told.
#[test]
fn nginx_can_be_the_server() {
    let port = ports::free();
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, ROUTES).replace("AUTH", &format!("127.0.0.1:{port}"));
    let builder = Gateway::builder();
    let dir = builder.dir().display().to_string();
    let config = NGINX
        .replace("PORT", &port.to_string())
        .replace("DIR", &dir);
    let gateway = builder.file("nginx.conf", config).resources(yaml).start();
    let _nginx = Running::start(
        Command::new(tool("nginx"))
            .args(["-p", &dir, "-e", "nginx-error.log", "-c", "nginx.conf"])
            .stderr(Stdio::null()),
    );
    wait_until("nginx listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let alice = ("Authorization", "Bearer alice");
    // More questions than nginx takes on one connection.
    for _ in 0..12 {
        let reply = get(&gateway, "/guarded/x", &[alice, ("X-User-ID", "forged")]);
        assert_eq!(reply.status, 200);
        let seen = upstream.take().pop().unwrap();
        assert_eq!(seen.header("x-user-id"), Some("alice"));
        assert_eq!(seen.header("x-role"), None);
    }
    let reply = get(&gateway, "/guarded/x", &[]);
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("content-type"), Some("text/html"));
    assert!(reply.text().contains("401 Authorization Required"));
    let reply = get(&gateway, "/guarded/%61dmin", &[alice]);
    assert_eq!(reply.status, 403, "nginx saw /guarded/admin");
    assert_eq!(upstream.count(), 0);
}

const NGINX: &str = r#"
daemon off;
master_process off;
pid DIR/nginx.pid;
events {}
http {
    access_log off;
    keepalive_requests 5;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 127.0.0.1:PORT;
        location = /check {
            if ($http_authorization != "Bearer alice") { return 401; }
            if ($http_x_forwarded_uri ~ ^/guarded/admin) { return 403; }
            add_header X-User-ID alice;
            return 204;
        }
    }
}
"#;
