//! Listeners, and what comes in before a handshake.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use claviger::tls::dev::Authority;
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use rustix::process::Signal;

use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, ports, wait_until};

use super::*;

#[test]
fn every_listener_serves_on_both_kinds_of_address() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test"]);
    let ca = authority.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let ports = [(); 4].map(|()| ports::free());
    let [http4, http6, https4, https6] = ports;
    let pair =
        |four, six| format!("[{{ ip: 127.0.0.1, port: {four} }}, {{ ip: '::1', port: {six} }}]");
    let gateway = Gateway::builder()
        .bootstrap_last(&format!(
            "apisix: {{ node_listen: {}, ssl: {{ listen: {} }} }}",
            pair(http4, http6),
            pair(https4, https6)
        ))
        .resources(resources(&upstream, &[item("a", &["a.test"], &issued, "")]))
        .start();
    for (ip, http, https) in [("127.0.0.1", http4, https4), ("::1", http6, https6)] {
        let addr = |port| SocketAddr::new(ip.parse().unwrap(), port);
        let reply = crate::harness::client::get(addr(http), "/", &[("Host", "a.test")]);
        assert_eq!(reply.status, 200);
        let mut tls = Connection::open_tls(addr(https), "a.test", &ca).expect("served");
        tls.request("GET", "/", &[("Host", "a.test")]);
        assert_eq!(tls.expect_reply().status, 200);
    }
    drop(gateway);
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let body = vec![b'x'; 200_000];
    for (method, body) in [("GET", &b""[..]), ("POST", &body), ("PROPFIND", b"")] {
        let mut connection = Connection::open(gateway.https());
        let length = body.len().to_string();
        let fields = [("Host", "a.test"), ("Content-Length", &length)];
        connection.request(method, "/", &fields);
        connection.send(body);
        let reply = connection.expect_reply();
        assert_eq!(reply.status, 400);
        let said = "plain HTTP request was sent to HTTPS port";
        assert!(reply.text().contains(said));
        assert!(connection.is_closed());
    }
    // HTTP/2 by prior knowledge is HTTP, too.
    let mut connection = Connection::open(gateway.https());
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(connection.expect_reply().status, 400);
    let plain = "claviger_tls_handshake_failures_total{reason=\"plain_http\"}";
    wait_until("they are counted", || gateway.metric(plain) == Some(4.0));
}

/// How long the server leaves a connection open that sends these bytes, then one now and then.
fn stays_open(addr: SocketAddr, begun: &[u8], drip: Option<u8>) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(addr).unwrap();
    let pace = Some(Duration::from_millis(100));
    stream.set_read_timeout(pace).unwrap();
    stream.write_all(begun).unwrap();
    while start.elapsed() < Duration::from_secs(30) {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => break,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        if drip.is_some_and(|byte| stream.write_all(&[byte]).is_err()) {
            break;
        }
    }
    start.elapsed()
}

#[test]
fn slow_handshakes_end_in_time_and_leave_nothing() {
    let builder = Gateway::builder().bootstrap("claviger: { tls: { handshake_timeout: 1 } }");
    let (_upstream, gateway) = start(builder, &["a.test"]);
    let at = gateway.https();
    let hello = hello(Some(&server_name(b"a.test")));
    let timeouts = "claviger_tls_handshake_failures_total{reason=\"timeout\"}";
    let cases = [
        ("nothing is sent", &[][..], None),
        ("half a hello", &hello[..40], None),
        ("a hello that drips", &hello[..40], Some(0)),
        ("nothing after the hello", &hello, None),
    ];
    std::thread::scope(|scope| {
        for (what, begun, drip) in cases {
            scope.spawn(move || {
                let open = stays_open(at, begun, drip);
                // The upper bound leaves room for a busy machine; Pingora's is 60 s.
                let fits = Duration::from_millis(900)..Duration::from_secs(15);
                assert!(fits.contains(&open), "{what}: {open:?}");
            });
        }
    });
    wait_until("they are counted", || gateway.metric(timeouts) == Some(4.0));
    let active = "apisix_nginx_http_current_connections{state=\"active\"}";
    wait_until("none is left", || gateway.metric(active) == Some(0.0));
    let in_flight = gateway.metric("claviger_tls_handshakes_in_flight");
    assert_eq!(in_flight, Some(0.0));
    let log = gateway.log();
    assert!(log.contains("failed: it took too long"), "{log}");
    assert!(!log.contains(" ERROR "), "{log}");
}

#[test]
fn the_time_for_a_request_begins_after_the_handshake() {
    let builder = Gateway::builder()
        .bootstrap("claviger: { tls: { handshake_timeout: 20 } }")
        .bootstrap("nginx_config: { http: { client_header_timeout: 1 } }");
    let (_upstream, gateway) = start(builder, &["a.test"]);
    let mut waiting = TcpStream::connect(gateway.https()).unwrap();
    let pause = Some(Duration::from_millis(2500));
    waiting.set_read_timeout(pause).unwrap();
    assert!(
        waiting.read(&mut [0; 1]).is_err(),
        "neither closed nor answered"
    );
    let mut tls = over(waiting, "a.test");
    tls.write_all(REQUEST.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // And ends for one that sends none.
    let start = Instant::now();
    let mut silent = over(TcpStream::connect(gateway.https()).unwrap(), "a.test");
    assert!(!matches!(silent.read(&mut [0; 1]), Ok(1..)));
    assert!(start.elapsed() < Duration::from_secs(15));
}

/// TLS on a connection, verifying nothing.
fn over(stream: TcpStream, name: &str) -> SslStream<TcpStream> {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.build().connect(name, stream).expect("served")
}

#[test]
fn one_address_has_so_many_handshakes_at_once() {
    let builder = Gateway::builder().bootstrap("claviger: { tls: { handshakes_per_address: 2 } }");
    let (_upstream, gateway) = start(builder, &["a.test"]);
    let at = gateway.https();
    let in_flight = || gateway.metric("claviger_tls_handshakes_in_flight");
    // What is done counts no more.
    let done = over(TcpStream::connect(at).unwrap(), "a.test");
    let held = [(); 2].map(|()| TcpStream::connect(at).unwrap());
    wait_until("two are in flight", || in_flight() == Some(2.0));
    let refused = "claviger_tls_handshake_failures_total{reason=\"per_address\"}";
    for count in 1..=3 {
        let mut third = TcpStream::connect(at).unwrap();
        third
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert!(!matches!(third.read(&mut [0; 1]), Ok(1..)));
        assert_eq!(gateway.metric(refused), Some(f64::from(count)));
    }
    assert!(gateway.log().contains("the address has too many in flight"));
    // Plain ports have no such limit.
    assert_eq!(gateway.get("a.test", "/", &[]).status, 200);
    drop(held);
    wait_until("they are gone", || in_flight() == Some(0.0));
    assert_eq!(subject(at, "a.test").as_deref(), Some("a.test"));
    drop(done);
}

#[test]
fn handshakes_are_counted_by_how_they_end() {
    let (_upstream, gateway) = start_mtls();
    let at = gateway.https();
    let failed = |reason: &str| {
        let series = format!("claviger_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        gateway.metric(&series).unwrap()
    };
    let ended = |result: &str| {
        let series = format!("claviger_tls_handshakes_total{{result=\"{result}\"}}");
        gateway.metric(&series).unwrap()
    };
    let closed = failed("closed");
    assert_ne!(curl(&gateway, "m.test", &["--tls-max", "1.2"]).0, Some(0));
    assert_ne!(
        curl(&gateway, "m.test", &["--cert", "foreign.pem"]).0,
        Some(0)
    );
    assert_alert(&s_client(at, &["-servername", "no.such.name"]), 112);
    let old = [
        "-servername",
        "o.test",
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
    ];
    assert!(s_client(at, &old).contains("no peer certificate available"));
    let other = ["-servername", "o.test", "-tls1_2", "-cipher", "AES128-SHA"];
    assert!(s_client(at, &other).contains("no peer certificate available"));
    // It does not know who issued our certificate, and says so.
    let distrusting = [
        "-servername",
        "o.test",
        "-verify_return_error",
        "-CAfile",
        "good.pem",
    ];
    let pem = gateway.dir().join("good.pem");
    let mut distrusting = distrusting.map(str::to_owned);
    distrusting[4] = pem.display().to_string();
    s_client(at, &distrusting.each_ref().map(String::as_str));
    let mut garbage = TcpStream::connect(at).unwrap();
    garbage.write_all(&[0x16, 3, 1, 0, 4, 9, 9, 9, 9]).unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    drop(TcpStream::connect(at).unwrap());
    wait_until("all are counted", || {
        [
            ("client_certificate", 2.0),
            ("refused", 1.0),
            ("nothing_in_common", 2.0),
            ("client_alert", 1.0),
            ("protocol", 1.0),
        ]
        .iter()
        .all(|(reason, count)| failed(reason) == *count)
            && failed("closed") > closed
    });
    wait_until("the sum is right", || {
        ended("failed") == 7.0 + failed("closed")
    });
    let full = ended("full");
    let session = gateway.dir().join("session");
    let session = session.to_str().unwrap();
    for (which, way) in [("-sess_out", "New, TLS"), ("-sess_in", "Reused, TLS")] {
        let common = ["-ign_eof", "-servername", "o.test", "-tls1_2"];
        let said = converse(at, &[&common[..], &[which, session]].concat(), REQUEST);
        assert!(said.contains(way), "{said}");
    }
    wait_until("both are counted", || {
        (ended("full"), ended("resumed")) == (full + 1.0, 1.0)
    });
    let took = "claviger_tls_handshake_duration_seconds_count";
    assert_eq!(gateway.metric(took), Some(full + 2.0));
    let log = gateway.log();
    assert!(
        log.contains("failed: peer did not return a certificate"),
        "{log}"
    );
    assert!(!log.contains(" ERROR "), "{log}");
}

#[test]
fn a_scanner_does_not_fill_the_log() {
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let at = gateway.https();
    let hello = hello(Some(&server_name(b"no.such.name")));
    for _ in 0..400 {
        assert_eq!(answer_to(at, &hello)[6], 112);
    }
    let refused = "claviger_handshakes_refused_total{reason=\"unknown_name\"}";
    assert_eq!(gateway.metric(refused), Some(400.0));
    let said = "failed to find any SSL certificate by SNI: no.such.name";
    let lines = gateway.log().matches(said).count();
    assert!((1..400).contains(&lines), "{lines} lines");
}

#[test]
fn a_stop_lets_handshakes_end() {
    let builder = Gateway::builder().bootstrap("claviger: { tls: { handshake_timeout: 20 } }");
    let (_upstream, mut gateway) = start(builder, &["a.test"]);
    let at = gateway.https();
    let waiting = TcpStream::connect(at).unwrap();
    let in_flight = || gateway.metric("claviger_tls_handshakes_in_flight");
    wait_until("it is in flight", || in_flight() == Some(1.0));
    gateway.signal(Signal::TERM);
    wait_until("nobody accepts", || TcpStream::connect(at).is_err());
    let mut tls = over(waiting, "a.test");
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    tls.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    drop(tls);
    assert!(gateway.wait_exit().success());
}

#[test]
fn renegotiation_and_early_data_are_refused() {
    let (upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let at = gateway.https();
    let said = converse(at, &["-servername", "a.test", "-tls1_2"], "R\n");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");

    let session = gateway.dir().join("session");
    let session = session.to_str().unwrap();
    let data = gateway.dir().join("early");
    std::fs::write(&data, REQUEST).unwrap();
    let name = ["-servername", "a.test", "-tls1_3"];
    let first = [&name[..], &["-sess_out", session, "-ign_eof"]].concat();
    let said = converse(at, &first, REQUEST);
    assert!(said.contains("Max Early Data: 0"), "{said}");
    let served = upstream.count();
    let early = ["-sess_in", session, "-early_data", data.to_str().unwrap()];
    let said = s_client(at, &[&name[..], &early].concat());
    assert!(!said.contains("Early data was accepted"), "{said}");
    assert_eq!(upstream.count(), served);
}

#[test]
fn a_connection_ends_with_the_clients_side_of_it() {
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let mut tls = over(TcpStream::connect(gateway.https()).unwrap(), "a.test");
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    tls.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    tls.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    // A close_notify alone, and it is kept alive no longer.
    tls.shutdown().expect("sent");
    let mut rest = Vec::new();
    tls.get_mut()
        .read_to_end(&mut rest)
        .expect("an end, and no reset");
    let active = "apisix_nginx_http_current_connections{state=\"active\"}";
    wait_until("nothing is left", || gateway.metric(active) == Some(0.0));
}

#[test]
fn keys_of_connections_are_never_written_to_a_file() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issued = certs::server(&authority, &["a.test", "localhost", "127.0.0.1"]);
    let key = certs::key_text(&issued).as_bytes();
    let upstream = Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key);
    let manager = Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key);
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let gateway = Gateway::builder()
        .env("SSLKEYLOGFILE", keys.to_str().unwrap())
        .file("ca.pem", &ca)
        .bootstrap("apisix: { ssl: { ssl_trusted_certificate: ca.pem } }")
        .resources(format!(
            "secrets:\n  - id: vault/main\n    uri: https://localhost:{}\n    prefix: kv\n    \
             token: t\nconsumers:\n  - username: jack\n    plugins: {{ key-auth: {{ key: \
             $secret://vault/main/a/b }} }}\nssls:\n{}routes:\n  - id: all\n    uri: /*\n    \
             upstream: {{ type: roundrobin, scheme: https, nodes: {{ \"{}\": 1 }} }}\n",
            manager.addr.port(),
            item("a", &["a.test"], &issued, ""),
            upstream.addr
        ))
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    for version in ["--http1.1", "--http2"] {
        let served = curl(&gateway, "a.test", &[version]);
        assert_eq!(served, (Some(0), "200".to_owned()));
    }
    assert_eq!(upstream.count(), 2);
    wait_until("the manager was asked", || manager.count() > 0);
    assert!(!keys.exists(), "the variable must not be honoured");
}
