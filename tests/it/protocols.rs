//! Protocols by clients other than ours: curl for HTTP/2, and a WebSocket to `claviger echo`.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use claviger::tls::dev::Authority;

use crate::harness::gateway::{Running, program};
use crate::harness::{Connection, Gateway, certs, ports};

const HOST: &str = "app.test";

/// `claviger echo`, and a gateway in front of it for `app.test`.
fn start() -> (Running, Gateway, String) {
    let addr = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut echo = Running::start(
        Command::new(program())
            .args(["echo", "--listen", &addr.to_string()])
            .stdout(Stdio::piped()),
    );
    let said = echo.first_line();
    assert!(said.ends_with(&addr.to_string()), "{said}");
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &[HOST]);
    let builder = Gateway::builder()
        .file("secrets/tls.crt", &issued.cert_pem)
        .file("secrets/tls.key", certs::key_text(&issued))
        .file("ca.pem", authority.cert_pem().unwrap());
    let secrets = builder.dir().join("secrets");
    let resources = format!(
        r#"
secrets:
  - id: file/main
    path: {}
ssls:
  - id: app
    sni: {HOST}
    cert: $secret://file/main/tls.crt
    key: $secret://file/main/tls.key
routes:
  - id: app
    host: {HOST}
    uri: /*
    enable_websocket: true
    upstream: {{ type: roundrobin, nodes: {{ "{addr}": 1 }} }}
"#,
        secrets.display()
    );
    let gateway = builder.resources(resources).start();
    let ca = gateway.dir().join("ca.pem").display().to_string();
    (echo, gateway, ca)
}

/// What curl printed: the protocol's version and the status.
fn curl(args: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
        ])
        .args(["--max-time", "10", "--noproxy", "*"])
        .args(args)
        .output()
        .expect("curl is installed (scripts/setup.sh)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {output:?}");
    said
}

#[test]
fn http2_and_http1_are_chosen_by_alpn() {
    let (_echo, gateway, ca) = start();
    let port = gateway.https().port();
    let url = format!("https://{HOST}:{port}/");
    let resolve = format!("{HOST}:{port}:127.0.0.1");
    let common = ["--cacert", &ca, "--resolve", &resolve, &url];
    assert_eq!(curl(&[&["--http2"], &common[..]].concat()), "2 200");
    assert_eq!(curl(&[&["--http1.1"], &common[..]].concat()), "1.1 200");
}

#[test]
fn http2_works_in_the_clear_with_prior_knowledge() {
    let (_echo, gateway, _) = start();
    let url = format!("http://{}/", gateway.http());
    let host = format!("Host: {HOST}");
    let said = curl(&["--http2-prior-knowledge", "-H", &host, &url]);
    assert_eq!(said, "2 200");
}

#[test]
fn a_websocket_carries_messages_both_ways() {
    let (_echo, gateway, _) = start();
    let mut connection = Connection::open(gateway.http());
    connection.request(
        "GET",
        "/chat",
        &[
            ("Host", HOST),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    );
    let reply = connection.expect_reply();
    assert_eq!(reply.status, 101);
    // The answer to the key of RFC 6455 §1.3.
    let accept = reply.header("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // A final text frame "hi", masked with zeros; it comes back unmasked.
    connection.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(connection.read_exactly(4), b"\x81\x02hi");
}

#[test]
fn a_body_of_several_megabytes_passes_whole() {
    let (_echo, gateway, _) = start();
    let reply = gateway.get(HOST, "/bytes/5000000", &[]);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.message.body.len(), 5_000_000);
}
