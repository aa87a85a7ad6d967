use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::signing::{CONSUMERS, lent, signed, signed_body};
use super::{assert_local, get, over, send, start};
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const FAILED: &str = "{\"message\":\"Authorization Failed\"}\n";

fn resources() -> String {
    let keyed = CONSUMERS.replace(
        "{ username: bob }",
        "{ username: bob, plugins: { key-auth: { key: bob-key } } }",
    );
    format!(
        "{keyed}
routes:
  - {{ id: 1, uri: /any, plugins: {{ multi-auth: {{ auth_plugins: [{{ key-auth: {{ hide_credentials: true, header: $env://KEY_HEADER }} }}, {{ hmac-auth: {{ hide_credentials: true }} }}] }} }}, NODE }}
  - {{ id: 2, uri: /guest, plugins: {{ multi-auth: {{ auth_plugins: [{{ key-auth: {{}} }}, {{ hmac-auth: {{ anonymous_consumer: guest }} }}] }} }}, NODE }}
  - {{ id: 3, uri: /body, plugins: {{ multi-auth: {{ auth_plugins: [{{ hmac-auth: {{ validate_request_body: true }} }}, {{ key-auth: {{}} }}] }} }}, NODE }}
  - {{ id: 5, uri: /once, plugins: {{ multi-auth: {{ auth_plugins: [{{ hmac-auth: {{ validate_request_body: true, reject_replays: true }} }}, {{ key-auth: {{}} }}] }} }}, NODE }}
  - {{ id: 6, uri: /sizes, plugins: {{ multi-auth: {{ auth_plugins: [{{ hmac-auth: {{ validate_request_body: true, max_req_body_size: 10 }} }}, {{ hmac-auth: {{ validate_request_body: true }} }}] }} }}, NODE }}
  - {{ id: 4, uri: /broken, plugins: {{ multi-auth: {{ auth_plugins: [{{ key-auth: {{ header: $env://NOT_THERE }} }}, {{ hmac-auth: {{}} }}] }} }}, NODE }}
"
    )
}

fn started() -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .env("KEY_HEADER", "X-Api-Key")
        .resources(over(&upstream, &resources()))
        .unready()
        .start();
    (upstream, gateway)
}

#[test]
fn each_way_lets_its_clients_in() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || get(&gateway, "/any", &[]).status == 401);
    let hmac = signed("GET", "/any");
    let wrong = [&lent(&hmac)[..], &[("X-Api-Key", "wrong")]].concat();
    for (fields, who) in [
        (vec![("X-Api-Key", "bob-key")], "bob"),
        (lent(&hmac), "alice"),
        (wrong, "alice"),
        (
            [&lent(&hmac)[..], &[("X-Api-Key", "bob-key")]].concat(),
            "bob",
        ),
    ] {
        let reply = get(&gateway, "/any", &fields);
        assert_eq!(reply.status, 200, "{who}");
        assert_eq!(
            reply.header("www-authenticate"),
            None,
            "the ways before are forgotten"
        );
        let seen = upstream.take().pop().unwrap();
        assert_eq!(seen.header("x-consumer-username"), Some(who));
        let by_key = who == "bob";
        assert_eq!(
            seen.header("x-api-key").is_some(),
            !by_key && fields.len() > 2
        );
        assert_eq!(
            seen.header("authorization").is_some(),
            by_key && fields.len() > 1
        );
    }
    let page = gateway.metrics_page();
    let counted = "claviger_auth_failures_total{plugin=\"key-auth\",reason=\"unknown\"} 1";
    assert!(
        !page.contains(counted),
        "who was let in has not failed: {page}"
    );
}

#[test]
fn where_all_fail_the_client_learns_nothing_and_the_log_all() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || {
        get(&gateway, "/guest", &[]).status == 200
    });
    upstream.take();
    let reply = get(
        &gateway,
        "/any",
        &[("X-Api-Key", "wrong"), ("Authorization", "Signature x")],
    );
    assert_local(&reply, 401, FAILED);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("hmac realm=\"hmac\"")
    );
    assert_eq!(upstream.count(), 0);
    let failed = "failed to authenticate the request, code: 401. error:";
    wait_until("the log says why", || {
        let log = gateway.log();
        log.contains(&format!("key-auth {failed} unknown"))
            && log.contains(&format!("hmac-auth {failed} malformed"))
    });
    let page = gateway.metrics_page();
    for line in [
        "{plugin=\"key-auth\",reason=\"unknown\"} 1",
        "{plugin=\"hmac-auth\",reason=\"malformed\"} 1",
    ] {
        assert!(
            page.contains(&format!("claviger_auth_failures_total{line}")),
            "{page}"
        );
    }
}

#[test]
fn a_way_with_an_anonymous_consumer_never_fails() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || get(&gateway, "/any", &[]).status == 401);
    assert_eq!(get(&gateway, "/guest", &[]).status, 200);
    let seen = upstream.take().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("guest"));
    assert_eq!(
        get(&gateway, "/guest", &[("apikey", "bob-key")]).status,
        200
    );
    let seen = upstream.take().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("bob"));
}

#[test]
fn a_body_that_one_way_refused_goes_up_whole_by_the_next() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || get(&gateway, "/any", &[]).status == 401);
    for size in [10, 300_000] {
        let signed = vec![b'a'; size];
        let sent = vec![b'b'; size];
        let mut fields = signed_body("POST", "/body", &signed);
        fields.push(("apikey".to_owned(), "bob-key".to_owned()));
        let lines: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let mut connection = gateway.connect();
        connection.send(format!(
            "POST /body HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {size}\r\n\r\n"
        ));
        connection.send(&sent);
        assert_eq!(connection.expect_reply().status, 200);
        let seen = upstream.take().pop().unwrap();
        assert!(seen.body == sent);
        assert_eq!(seen.header("x-consumer-username"), Some("bob"));
    }
}

/// In one chunk.
fn chunked(path: &str, fields: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let lines = fields.iter();
    let lines: String = lines
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\n{lines}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    [head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

#[test]
fn the_digest_of_a_way_that_was_not_taken_binds_nobody() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || get(&gateway, "/any", &[]).status == 401);
    let signed = vec![b'a'; 200_000];
    let mut fields = signed_body("POST", "/once", &signed);
    let mut connection = gateway.connect();
    connection.send(chunked("/once", &fields, &signed));
    assert_eq!(connection.expect_reply().status, 200);
    // The signature is used up, so the key lets in, with whatever body.
    fields.push(("apikey".to_owned(), "bob-key".to_owned()));
    let sent = vec![b'b'; 200_000];
    connection.send(chunked("/once", &fields, &sent));
    assert_eq!(connection.expect_reply().status, 200);
    let seen = upstream.take().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("bob"));
    assert!(seen.body == sent);
}

#[test]
fn a_body_too_long_for_one_way_may_fit_the_next() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || get(&gateway, "/any", &[]).status == 401);
    for size in [20, 100_000] {
        let body = vec![b'a'; size];
        let fields = signed_body("POST", "/sizes", &body);
        let mut connection = gateway.connect();
        connection.send(chunked("/sizes", &fields, &body));
        assert_eq!(connection.expect_reply().status, 200, "{size}");
        assert!(upstream.take().pop().unwrap().body == body, "{size}");
        let other = vec![b'b'; size];
        let mut connection = gateway.connect();
        connection.send(chunked("/sizes", &fields, &other));
        assert_eq!(connection.expect_reply().status, 401, "{size}");
        assert_eq!(upstream.count(), 0, "{size}");
    }
}

#[test]
fn a_way_without_its_value_closes_the_route() {
    let (upstream, gateway) = started();
    wait_until("routes serve", || get(&gateway, "/any", &[]).status == 401);
    let fields = signed("GET", "/broken");
    assert_eq!(get(&gateway, "/broken", &lent(&fields)).status, 503);
    assert_eq!(
        send(&gateway, "GET", "/broken", &[("apikey", "bob-key")]).status,
        503
    );
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_plugin_may_stand_anywhere_a_plugin_may() {
    let consumer = "consumers: [{ username: bob, plugins: { key-auth: { key: bob-key } } }]";
    let ways = "{ auth_plugins: [{ key-auth: {} }, { hmac-auth: {} }] }";
    let yaml = format!(
        "{consumer}
global_rules:
  - {{ id: 1, plugins: {{ multi-auth: {ways} }} }}
routes:
  - {{ id: 1, uri: /open, NODE }}
"
    );
    let (upstream, gateway) = start(&yaml);
    assert_eq!(get(&gateway, "/open", &[]).status, 401);
    assert_eq!(get(&gateway, "/nowhere", &[]).status, 401);
    assert_eq!(get(&gateway, "/open", &[("apikey", "bob-key")]).status, 200);
    assert_eq!(upstream.count(), 1);
}

/// HS256 by hand.
fn token(secret: &str, key: &str) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let claims = format!("{{\"key\":\"{key}\",\"exp\":4102444800}}");
    let said = format!("{}.{}", part("{\"alg\":\"HS256\"}"), part(&claims));
    let key = PKey::hmac(secret.as_bytes()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    let signature = signer.sign_oneshot_to_vec(said.as_bytes()).unwrap();
    format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn four_kinds_of_clients_share_a_route() {
    let secret = "a-secret-of-32-bytes-for-hs256-00";
    let yaml = format!(
        "{CONSUMERS}
  - {{ username: carol, plugins: {{ basic-auth: {{ username: carol, password: carols }} }} }}
  - {{ username: dave, plugins: {{ jwt-auth: {{ key: dave-key, secret: {secret} }} }} }}
  - {{ username: erin, plugins: {{ key-auth: {{ key: erin-key }} }} }}
routes:
  - {{ id: 1, uri: /four, plugins: {{ multi-auth: {{ auth_plugins: [{{ key-auth: {{}} }}, {{ basic-auth: {{}} }}, {{ jwt-auth: {{}} }}, {{ hmac-auth: {{}} }}] }} }}, NODE }}
  - {{ id: 2, uri: /reversed, plugins: {{ multi-auth: {{ auth_plugins: [{{ hmac-auth: {{}} }}, {{ jwt-auth: {{ hide_credentials: true }} }}, {{ basic-auth: {{}} }}, {{ key-auth: {{}} }}] }} }}, NODE }}
"
    );
    let (upstream, gateway) = start(&yaml);
    let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
    for (path, challenge) in [
        ("/four", "hmac realm=\"hmac\""),
        ("/reversed", "apikey realm=\"key\""),
    ] {
        let hmac = signed("GET", path);
        let (carol, dave) = (
            basic("carol:carols"),
            format!("Bearer {}", token(secret, "dave-key")),
        );
        for (fields, who) in [
            (vec![("apikey", "erin-key")], "erin"),
            (vec![("Authorization", &*carol)], "carol"),
            (vec![("Authorization", &*dave)], "dave"),
            (lent(&hmac), "alice"),
        ] {
            let reply = get(&gateway, path, &fields);
            assert_eq!(
                (reply.status, reply.header("www-authenticate")),
                (200, None),
                "{path} {who}"
            );
            let seen = upstream.take().pop().unwrap();
            assert_eq!(seen.header("x-consumer-username"), Some(who), "{path}");
        }
        let wrong = [
            basic("carol:wrong"),
            format!("Bearer {}", token("x", "dave-key")),
        ];
        for authorization in &wrong {
            let reply = get(
                &gateway,
                path,
                &[("apikey", "x"), ("Authorization", authorization)],
            );
            assert_local(&reply, 401, FAILED);
            assert_eq!(reply.header("www-authenticate"), Some(challenge));
        }
    }
    assert_eq!(upstream.count(), 0);
    let page = gateway.metrics_page();
    for plugin in ["key-auth", "basic-auth", "jwt-auth", "hmac-auth"] {
        let start = format!("claviger_auth_failures_total{{plugin=\"{plugin}\"");
        let counted = page.lines().filter(|line| line.starts_with(&start));
        let counted: u32 = counted
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
            .sum();
        assert_eq!(
            counted, 4,
            "{plugin} failed where all did, and else not: {page}"
        );
    }
}
