//! `claviger.auth.throttle`: addresses that fail too often, told apart by `X-Real-IP`, which the
//! gateway believes the tests.

use super::{assert_local, counted, get, over};
use crate::harness::client::Reply;
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const RESOURCES: &str = "
consumers:
  - { username: alice, plugins: { key-auth: { key: alice-key }, basic-auth: { username: alice, password: secret } } }
  - { username: guest }
routes:
  - { id: 1, uri: /key, plugins: { key-auth: {} }, NODE }
  - { id: 2, uri: /guest, plugins: { key-auth: { anonymous_consumer: guest } }, NODE }
  - { id: 3, uri: /open, NODE }
  - id: 4
    uri: /any
    plugins: { multi-auth: { auth_plugins: [ { key-auth: {} }, { basic-auth: {} } ] } }
    NODE
  - id: 6
    uri: /any-reversed
    plugins: { multi-auth: { auth_plugins: [ { basic-auth: {} }, { key-auth: {} } ] } }
    NODE
  - id: 5
    uri: /any-guest
    plugins: { multi-auth: { auth_plugins: [ { key-auth: {} }, { basic-auth: { anonymous_consumer: guest } } ] } }
    NODE
";

fn throttled(refuse_for: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let bootstrap = format!(
        "claviger: {{ auth: {{ throttle: {{ failures: 3, window: 60s, refuse_for: {refuse_for}, trusted: [198.51.100.0/24] }} }} }}"
    );
    let builder = Gateway::builder().bootstrap(&bootstrap);
    let gateway = builder.resources(over(&upstream, RESOURCES)).start();
    (upstream, gateway)
}

fn from(gateway: &Gateway, address: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let address = ("X-Real-IP", address);
    get(gateway, path, &[&[address], headers].concat())
}

const RIGHT: &[(&str, &str)] = &[("apikey", "alice-key")];
const WRONG: &[(&str, &str)] = &[("apikey", "wrong")];
/// `alice:secret`.
const BASIC: (&str, &str) = ("Authorization", "Basic YWxpY2U6c2VjcmV0");
const REFUSED: &str = "{\"message\":\"Too many failed authentication attempts\"}\n";

fn failures(gateway: &Gateway, plugin: &str, reason: &str) -> u64 {
    let series = format!("claviger_auth_failures_total{{plugin=\"{plugin}\",reason=\"{reason}\"}}");
    counted(gateway, &series)
}

#[test]
fn an_address_that_fails_too_often_is_refused_before_its_credential_is_looked_at() {
    let (upstream, gateway) = throttled("60s");
    let status = |address, headers| from(&gateway, address, "/key", headers).status;
    // Nothing presented is no guess, and a success takes nothing back.
    for _ in 0..5 {
        assert_eq!(status("10.0.0.1", &[]), 401);
    }
    assert_eq!(status("10.0.0.1", WRONG), 401);
    assert_eq!(status("10.0.0.1", WRONG), 401);
    assert_eq!(status("10.0.0.1", RIGHT), 200);
    assert_eq!(status("10.0.0.1", WRONG), 401);
    let reached = upstream.count();
    for (path, headers) in [
        ("/key", RIGHT),
        ("/key", WRONG),
        ("/key", &[]),
        ("/guest", RIGHT),
    ] {
        let reply = from(&gateway, "10.0.0.1", path, headers);
        assert_local(&reply, 429, REFUSED);
        let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        assert_eq!(reply.header("www-authenticate"), None);
    }
    assert_eq!(upstream.count(), reached);
    assert_eq!(failures(&gateway, "key-auth", "throttled"), 4);
    assert_eq!(failures(&gateway, "key-auth", "unknown"), 3);
    // Others are served, and what asks for no credential is open to all.
    assert_eq!(status("10.0.0.2", RIGHT), 200);
    assert_eq!(from(&gateway, "10.0.0.1", "/open", &[]).status, 200);
}

#[test]
fn networks_of_ipv6_are_one_client_and_trusted_addresses_none() {
    let (_upstream, gateway) = throttled("60s");
    let status = |address, headers| from(&gateway, address, "/key", headers).status;
    for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
        assert_eq!(status(address, WRONG), 401);
    }
    assert_eq!(status("2001:db8::4", RIGHT), 429);
    assert_eq!(status("2001:db8:0:1::4", RIGHT), 200);
    for _ in 0..5 {
        assert_eq!(status("198.51.100.7", WRONG), 401);
    }
    assert_eq!(status("198.51.100.7", RIGHT), 200);
}

#[test]
fn an_address_is_served_again_when_its_time_is_over() {
    let (_upstream, gateway) = throttled("1s");
    for _ in 0..3 {
        from(&gateway, "10.0.0.1", "/guest", WRONG);
    }
    // The anonymous consumer took the request, but it was a guess.
    assert_eq!(from(&gateway, "10.0.0.1", "/guest", RIGHT).status, 429);
    wait_until("the address is served again", || {
        from(&gateway, "10.0.0.1", "/key", RIGHT).status == 200
    });
}

#[test]
fn of_several_ways_only_what_none_of_them_took_counts() {
    let (_upstream, gateway) = throttled("60s");
    let wrong_key = [WRONG[0], BASIC];
    for _ in 0..5 {
        let reply = from(&gateway, "10.0.0.1", "/any", &[BASIC]);
        assert_eq!(reply.status, 200, "the second way was meant");
        let bearer = ("Authorization", "Bearer of.some.kind");
        let reply = from(&gateway, "10.0.0.1", "/any-reversed", &[RIGHT[0], bearer]);
        assert_eq!(reply.status, 200, "the upstream was meant");
    }
    let reply = from(&gateway, "10.0.0.3", "/any", &wrong_key);
    assert_eq!(reply.status, 200, "one of them is right");
    assert_eq!(failures(&gateway, "key-auth", "unknown"), 0);
    let wrong_both = [WRONG[0], ("Authorization", "Basic YWxpY2U6eA==")];
    for _ in 0..3 {
        assert_eq!(from(&gateway, "10.0.0.1", "/any", &wrong_both).status, 401);
    }
    assert_eq!(failures(&gateway, "key-auth", "unknown"), 3);
    assert_eq!(failures(&gateway, "basic-auth", "mismatch"), 3);
    let reply = from(&gateway, "10.0.0.1", "/any", &wrong_key);
    assert_local(&reply, 429, REFUSED);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(failures(&gateway, "key-auth", "throttled"), 1);

    // The anonymous consumer at the end does not make guesses good.
    for _ in 0..3 {
        let reply = from(&gateway, "10.0.0.2", "/any-guest", WRONG);
        assert_eq!(reply.status, 200);
    }
    assert_eq!(from(&gateway, "10.0.0.2", "/any-guest", WRONG).status, 429);
}

#[test]
fn whoever_has_one_good_credential_cannot_guess_others_beside_it() {
    let (_upstream, gateway) = throttled("60s");
    let wrong = ("Authorization", "Basic YWxpY2U6eA==");
    for _ in 0..3 {
        let reply = from(&gateway, "10.0.0.1", "/any-reversed", &[RIGHT[0], wrong]);
        assert_eq!(reply.status, 200);
    }
    let reply = from(&gateway, "10.0.0.1", "/any-reversed", &[RIGHT[0], wrong]);
    assert_local(&reply, 429, REFUSED);
    assert_eq!(failures(&gateway, "basic-auth", "mismatch"), 0);
}

#[test]
fn nobody_is_refused_unless_that_is_asked_for() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(&upstream, RESOURCES));
    for _ in 0..40 {
        assert_eq!(get(&gateway, "/key", WRONG).status, 401);
    }
    assert_eq!(get(&gateway, "/key", RIGHT).status, 200);
}
