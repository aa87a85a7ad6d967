//! Nodes that are named, resolved by a DNS server of the test's own.

use std::net::{Ipv4Addr, SocketAddr};

use super::route;
use crate::harness::dns::Dns;
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

/// Two nodes on one port of two addresses.
fn pair() -> (Upstream, Upstream) {
    loop {
        let first = super::named("first");
        let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), first.addr.port()));
        if std::net::TcpListener::bind(other).is_ok() {
            let second = Behaviour::Answer(200, "second".to_owned());
            return (first, Upstream::start_at(other, second));
        }
    }
}

fn gateway(dns: &Dns, name: &str, port: u16) -> Gateway {
    Gateway::builder()
        .bootstrap(&format!(
            "apisix: {{ dns_resolver: ['{}'], resolver_timeout: 1, enable_resolv_search_opt: false }}",
            dns.addr
        ))
        .resources(route(&format!(
            r#"{{ nodes: {{ "{name}:{port}": 1 }}, keepalive_pool: {{ idle_timeout: 0 }} }}"#
        )))
        .start()
}

#[test]
fn a_changed_record_is_followed_and_a_failing_server_changes_nothing() {
    let (dns, (first, _second)) = (Dns::start(), pair());
    dns.set("node.test", [127, 0, 0, 1]);
    let gateway = gateway(&dns, "node.test", first.addr.port());
    let body = || gateway.get("app.test", "/", &[]).text();
    assert_eq!(body(), "first", "resolved before the first request");

    dns.set("node.test", [127, 0, 0, 2]);
    wait_until("the changed record is followed", || body() == "second");

    dns.set_broken(true);
    let asked = dns.asked();
    wait_until("refreshes have failed", || dns.asked() >= asked + 4);
    assert_eq!(body(), "second", "the last good answer stays");

    dns.set("node.test", [127, 0, 0, 1]);
    dns.set_broken(false);
    wait_until("it recovers by itself", || body() == "first");
}

#[test]
fn a_name_without_address_gives_503_until_it_has_one() {
    let (dns, node) = (Dns::start(), super::named("here"));
    let gateway = gateway(&dns, "late.test", node.addr.port());
    assert_eq!(gateway.get("app.test", "/", &[]).status, 503);
    dns.set("late.test", [127, 0, 0, 1]);
    wait_until("the name is found", || {
        gateway.get("app.test", "/", &[]).status == 200
    });
}
