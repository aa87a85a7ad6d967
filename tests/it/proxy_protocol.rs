//! Listeners that expect the PROXY protocol: whom connections are from, and which are closed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use claviger::tls::dev::Authority;

use crate::harness::gateway::Builder;
use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, ports, wait_until};

struct Relayed {
    upstream: Upstream,
    gateway: Gateway,
    http: SocketAddr,
    https: SocketAddr,
}

/// A gateway with both kinds of listener, a route for everybody, and `/guarded` for one network.
fn start(builder: Builder) -> Relayed {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let [http, https] = [(); 2].map(|()| ports::free());
    let node = format!(
        "upstream: {{ type: roundrobin, nodes: {{ \"{}\": 1 }} }}",
        upstream.addr
    );
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let gateway = builder
        .bootstrap(&format!(
            "apisix: {{ proxy_protocol: {{ listen_http_port: {http}, listen_https_port: {https} }} }}"
        ))
        .bootstrap(
            "nginx_config: { http: { access_log_format: \
             '$remote_addr $remote_port $server_port $scheme' } }",
        )
        .file("ca.pem", authority.cert_pem().unwrap())
        .resources(format!(
            "ssls:\n  - id: a\n    snis: [a.test]\n    cert: {}\n    key: {}\n\
             routes:\n  - id: all\n    uri: /*\n    {node}\n\
             \x20 - id: guarded\n    uri: /guarded\n    priority: 1\n    plugins: {{ ip-restriction: \
             {{ whitelist: [192.0.2.0/24] }} }}\n    {node}\n",
            text(&issued.cert_pem),
            text(certs::key_text(&issued)),
        ))
        .start();
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Relayed {
        upstream,
        gateway,
        http: local(http),
        https: local(https),
    }
}

impl Relayed {
    /// Status of a request behind this header, and the client's address that went upstream.
    fn ask(&self, header: &[u8], path: &str) -> (u16, Option<String>) {
        let mut connection = Connection::open(self.http);
        connection.send(header);
        connection.request("GET", path, &[("Host", "a.test")]);
        let status = connection.expect_reply().status;
        let seen = self.upstream.take().pop();
        let seen = seen.and_then(|seen| seen.header("x-real-ip").map(str::to_owned));
        (status, seen)
    }

    fn counted(&self, result: &str) -> f64 {
        let series = format!("claviger_proxy_protocol_connections_total{{result=\"{result}\"}}");
        self.gateway.metric(&series).unwrap()
    }

    /// A line of the access log.
    fn logs(&self, line: &str) {
        wait_until(line, || self.gateway.log().lines().any(|said| said == line));
    }
}

/// A header of version 2.
fn v2(version: u8, protocol: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[version, protocol][..], &length, content].concat()
}

/// 192.0.2.7:4660 to 10.0.0.9:443.
const INET: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 9, 0x12, 0x34, 1, 187];

#[test]
fn the_header_says_who_the_client_is() {
    let relayed = start(Gateway::builder());
    let inet6 = {
        let ends = ["2001:db8::7", "2001:db8::9"].map(|ip| {
            let ip: std::net::Ipv6Addr = ip.parse().unwrap();
            ip.octets()
        });
        [ends.concat(), vec![0x12, 0x34, 1, 187]].concat()
    };
    // Extensions as HAProxy sends them, and as many as there may be.
    let named = [&INET[..], &[2, 0, 6], b"a.test"].concat();
    let many = [&INET[..], &[4, 0x0f, 0xf1], &[0; 4081]].concat();
    for (header, client) in [
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.9 4660 443\r\n".to_vec(),
            "192.0.2.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::9 4660 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 443\r\n".to_vec(),
            "192.0.2.7",
        ),
        (v2(0x21, 0x11, &INET), "192.0.2.7"),
        (v2(0x21, 0x21, &inet6), "2001:db8::7"),
        (v2(0x21, 0x11, &named), "192.0.2.7"),
        (v2(0x21, 0x11, &many), "192.0.2.7"),
    ] {
        let answer = relayed.ask(&header, "/");
        assert_eq!(answer, (200, Some(client.to_owned())));
        relayed.logs(&format!("{client} 4660 443 http"));
    }
    assert_eq!(relayed.counted("relayed"), 7.0);
    // What plugins go by is the same.
    let inside = relayed.ask(&v2(0x21, 0x11, &INET), "/guarded");
    assert_eq!(inside.0, 200);
    let outside = relayed.ask(b"PROXY TCP4 192.0.3.7 10.0.0.9 4660 443\r\n", "/guarded");
    assert_eq!(outside.0, 403);
    // Ports without the protocol do not know it.
    let mut plain = Connection::open(relayed.gateway.http());
    plain.send(b"PROXY TCP4 192.0.2.7 10.0.0.9 4660 443\r\n");
    plain.request("GET", "/", &[("Host", "a.test")]);
    assert_ne!(
        plain.reply().ok().flatten().map(|reply| reply.status),
        Some(200)
    );
}

#[test]
fn a_header_that_names_nobody_leaves_the_sender_as_the_client() {
    let relayed = start(Gateway::builder());
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 10.0.0.9 4660 443\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &INET),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x31, &[b'/'; 216]),
    ];
    for header in &headers {
        let answer = relayed.ask(header, "/");
        assert_eq!(answer, (200, Some("127.0.0.1".to_owned())));
    }
    assert_eq!(relayed.counted("direct"), headers.len() as f64);
}

#[test]
fn a_connection_without_a_valid_header_is_closed() {
    let relayed = start(Gateway::builder());
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let too_long = [&INET[..], &[0; 4085]].concat();
    let malformed = [
        request.as_bytes().to_vec(),
        format!("PROXY TCP4 192.0.2.7 10.0.0.9 4660\r\n{request}").into_bytes(),
        format!("PROXY TCP4 192.0.2.7 10.0.0.9 4660 99999\r\n{request}").into_bytes(),
        format!("PROXY TCP4 2001:db8::7 10.0.0.9 4660 443\r\n{request}").into_bytes(),
        format!("PROXY {}\r\n{request}", "x".repeat(200)).into_bytes(),
        [&v2(0x11, 0x11, &INET), request.as_bytes()].concat(),
        [&v2(0x21, 0x12, &INET), request.as_bytes()].concat(),
        [&v2(0x21, 0x11, &INET[..8]), request.as_bytes()].concat(),
        v2(0x21, 0x11, &too_long),
    ];
    for bytes in &malformed {
        let mut stream = TcpStream::connect(relayed.http).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let _ = stream.write_all(bytes);
        assert!(!matches!(stream.read(&mut [0; 16]), Ok(1..)), "no answer");
    }
    for end in [0, 3, 13, 20] {
        let mut stream = TcpStream::connect(relayed.http).unwrap();
        stream.write_all(&v2(0x21, 0x11, &INET)[..end]).unwrap();
        drop(stream);
    }
    wait_until("those that went away are counted", || {
        relayed.counted("closed") == 4.0
    });
    assert_eq!(relayed.counted("malformed"), malformed.len() as f64);
    assert_eq!(relayed.upstream.count(), 0);
    let said = "no PROXY protocol header from 127.0.0.1:";
    let log = relayed.gateway.log();
    assert_eq!(log.matches(said).count(), malformed.len(), "{log}");
    assert!(!log.contains(" ERROR "), "{log}");
}

#[test]
fn only_trusted_senders_are_believed() {
    let trusted = |nets: &str| {
        let bootstrap = format!("claviger: {{ proxy_protocol: {{ trusted: {nets} }} }}");
        start(Gateway::builder().bootstrap(&bootstrap))
    };
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.9 4660 443\r\n";
    let relayed = trusted("[10.0.0.0/8, 127.0.0.1]");
    let answer = relayed.ask(header, "/");
    assert_eq!(answer, (200, Some("192.0.2.7".to_owned())));
    for nets in ["[10.0.0.0/8]", "[]"] {
        let relayed = trusted(nets);
        for addr in [relayed.http, relayed.https] {
            let mut connection = Connection::open(addr);
            connection.send(header);
            connection.request("GET", "/", &[("Host", "a.test")]);
            assert!(!matches!(connection.reply(), Ok(Some(_))), "{nets} {addr}");
        }
        assert_eq!(relayed.counted("untrusted"), 2.0);
        assert_eq!(relayed.upstream.count(), 0);
    }
}

#[test]
fn a_handshake_follows_the_header() {
    let relayed = start(Gateway::builder());
    let ca = std::fs::read_to_string(relayed.gateway.dir().join("ca.pem")).unwrap();
    let curl = |args: &[&str]| {
        let port = relayed.https.port();
        let output = Command::new("curl")
            .args([
                "-sS",
                "-o",
                "/dev/null",
                "--max-time",
                "10",
                "--noproxy",
                "*",
            ])
            .args(["-w", "%{http_code} %{http_version} %{local_port}"])
            .args(["--cacert", "ca.pem", "--haproxy-protocol"])
            .args(["--resolve", &format!("a.test:{port}:127.0.0.1")])
            .args(args)
            .arg(format!("https://a.test:{port}/"))
            .current_dir(relayed.gateway.dir())
            .output()
            .expect("curl is installed (scripts/setup.sh)");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (args, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let said = curl(&[args]);
        let port = said.strip_prefix(&format!("200 {version} "));
        let port = port.unwrap_or_else(|| panic!("{said}"));
        relayed.logs(&format!("127.0.0.1 {port} {} https", relayed.https.port()));
    }
    // The header in clear, TLS behind it, by another hand.
    let mut stream = TcpStream::connect(relayed.https).unwrap();
    stream.write_all(&v2(0x21, 0x11, &INET)).unwrap();
    let mut tls = Connection::over_tls(stream, "a.test", &ca).expect("served");
    tls.request("GET", "/", &[("Host", "a.test")]);
    assert_eq!(tls.expect_reply().status, 200);
    relayed.logs("192.0.2.7 4660 443 https");

    let mut plain = Connection::open(relayed.https);
    plain.send(v2(0x21, 0x11, &INET));
    plain.request("GET", "/", &[("Host", "a.test")]);
    assert_eq!(plain.expect_reply().status, 400);
    let said = "TLS handshake with 192.0.2.7:4660 failed: plain HTTP request sent to HTTPS port";
    wait_until(said, || relayed.gateway.log().contains(said));
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let relayed =
        start(Gateway::builder().bootstrap("claviger: { tls: { handshake_timeout: 1 } }"));
    let start = Instant::now();
    for (addr, begun) in [
        (relayed.http, &b""[..]),
        (relayed.http, b"PROXY TCP4 192.0.2.7"),
        (relayed.https, b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8"),
    ] {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(begun).unwrap();
        let mut dripped = 0;
        // A byte now and then changes nothing.
        while stream.write_all(b"1").is_ok() && dripped < 100 {
            stream
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            if matches!(stream.read(&mut [0; 1]), Ok(0)) {
                break;
            }
            dripped += 1;
        }
        assert!(dripped < 100, "{begun:?}");
    }
    assert!(start.elapsed() >= Duration::from_secs(3));
    wait_until("they are counted", || {
        relayed.counted("timeout") + relayed.counted("malformed") == 3.0
    });
}

#[test]
fn limits_go_by_the_client_in_the_header() {
    let relayed =
        start(Gateway::builder().bootstrap("claviger: { tls: { handshakes_per_address: 1 } }"));
    let open = |header: &[u8]| {
        let mut stream = TcpStream::connect(relayed.https).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(header).unwrap();
        stream
    };
    let in_flight = || relayed.gateway.metric("claviger_tls_handshakes_in_flight");
    let held = open(b"PROXY TCP4 192.0.2.7 10.0.0.9 4660 443\r\n");
    wait_until("the first one is in flight", || in_flight() == Some(1.0));
    let other = open(b"PROXY TCP4 192.0.2.8 10.0.0.9 4660 443\r\n");
    wait_until("another address, too", || in_flight() == Some(2.0));
    let mut refused = open(b"PROXY TCP4 192.0.2.7 10.0.0.9 4661 443\r\n");
    assert!(!matches!(refused.read(&mut [0; 1]), Ok(1..)));
    let failures = "claviger_tls_handshake_failures_total{reason=\"per_address\"}";
    assert_eq!(relayed.gateway.metric(failures), Some(1.0));
    drop((held, other));
    wait_until("both are gone", || in_flight() == Some(0.0));
}

#[test]
fn real_ip_rules_go_by_the_client_in_the_header() {
    let builder =
        "nginx_config: { http: { real_ip_from: [192.0.2.0/24], real_ip_header: X-Forwarded-For } }";
    let relayed = start(Gateway::builder().bootstrap(builder));
    let ask = |client: &str| {
        let mut connection = Connection::open(relayed.http);
        connection.send(format!("PROXY TCP4 {client} 10.0.0.9 4660 443\r\n"));
        let fields = [("Host", "a.test"), ("X-Forwarded-For", "203.0.113.5")];
        connection.request("GET", "/", &fields);
        assert_eq!(connection.expect_reply().status, 200);
        let seen = relayed.upstream.take().pop().unwrap();
        seen.header("x-real-ip").map(str::to_owned)
    };
    assert_eq!(ask("192.0.2.7").as_deref(), Some("203.0.113.5"));
    assert_eq!(ask("198.51.100.7").as_deref(), Some("198.51.100.7"));
}
