//! Listeners, and what comes in before a handshake.

use std::net::SocketAddr;

use claviger::tls::dev::Authority;

use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, ports};

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
    let mut connection = Connection::open(gateway.https());
    connection.request("GET", "/", &[("Host", "a.test")]);
    let reply = connection.expect_reply();
    assert_eq!(reply.status, 400);
    assert!(
        reply
            .text()
            .contains("plain HTTP request was sent to HTTPS port")
    );
    assert!(connection.is_closed());
}
