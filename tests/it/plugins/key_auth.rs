use super::{access_log, assert_local, get, send_on, start, start_logging};
use crate::harness::wait_until;

const RESOURCES: &str = "
consumers:
  - { username: alice, labels: { custom_id: '42' }, plugins: { key-auth: { key: alice-key } } }
  - { username: bob, plugins: { key-auth: { key: bob-key } } }
  - { id: bob/credentials/second, plugins: { key-auth: { key: bob-second } } }
  - { username: guest }
routes:
  - { id: 1, uri: /plain, plugins: { key-auth: {} }, NODE }
  - { id: 2, uri: /hidden, plugins: { key-auth: { header: X-Key, query: k, hide_credentials: true, realm: shop } }, NODE }
  - { id: 3, uri: /guest, plugins: { key-auth: { anonymous_consumer: guest, hide_credentials: true } }, NODE }
  - { id: 4, uri: /nobody, plugins: { key-auth: { anonymous_consumer: nobody } }, NODE }
  - { id: 5, uri: /open, NODE }
";

#[test]
fn a_key_names_its_consumer_to_the_upstream() {
    let (upstream, gateway) = start(RESOURCES);
    let forged = [
        ("X-Consumer-Username", "root"),
        ("X-Credential-Identifier", "forged"),
        ("X-Consumer-Custom-ID", "forged"),
    ];
    for (path, key, username, credential, custom_id) in [
        ("/plain", Some("alice-key"), "alice", None, Some("42")),
        ("/plain", Some("bob-second"), "bob", Some("second"), None),
        ("/plain?apikey=bob%2Dkey", None, "bob", None, None),
    ] {
        let mut headers = forged.to_vec();
        headers.extend(key.map(|key| ("apikey", key)));
        assert_eq!(get(&gateway, path, &headers).status, 200, "{path} {key:?}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("x-consumer-username"), Some(username));
        assert_eq!(seen.header("x-credential-identifier"), credential);
        assert_eq!(seen.header("x-consumer-custom-id"), custom_id);
        assert_eq!(
            seen.header("apikey"),
            key,
            "a key is not hidden unless asked"
        );
    }
    // Nobody vouches for these names where nothing authenticates (`spec/02` §1.1).
    get(&gateway, "/open", &forged);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("root"));
}

#[test]
fn a_hidden_key_never_reaches_the_upstream() {
    let (upstream, gateway) = start(RESOURCES);
    for (path, headers, target) in [
        (
            "/hidden?a=1&k=alice-key&b=%2F",
            &[][..],
            "/hidden?a=1&b=%2F",
        ),
        ("/hidden?k=alice-key", &[], "/hidden"),
        ("/hidden?a=1", &[("x-key", "alice-key")], "/hidden?a=1"),
    ] {
        assert_eq!(get(&gateway, path, headers).status, 200, "{path}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.start, format!("GET {target} HTTP/1.1"));
        assert_eq!(seen.header("x-key"), None);
    }
}

#[test]
fn refusals_are_exact_and_keep_the_connection() {
    let (upstream, gateway) = start(RESOURCES);
    let missing = "{\"message\":\"Missing API key in request\"}\n";
    let invalid = "{\"message\":\"Invalid API key in request\"}\n";
    let mut connection = gateway.connect();
    for (path, headers, body, realm) in [
        ("/plain", &[][..], missing, "key"),
        ("/plain", &[("apikey", "nobody")], invalid, "key"),
        ("/plain", &[("apikey", "")], invalid, "key"),
        ("/plain", &[("apikey", "Bearer alice-key")], invalid, "key"),
        (
            "/plain",
            &[("apikey", "x"), ("apikey", "alice-key")],
            invalid,
            "key",
        ),
        (
            "/plain?apikey=alice-key&apikey=alice-key",
            &[],
            invalid,
            "key",
        ),
        (
            "/plain?apikey=alice-key",
            &[("apikey", "wrong")],
            invalid,
            "key",
        ),
        ("/plain", &[("apikey", "\u{fc}\u{fc}")], invalid, "key"),
        ("/hidden", &[("apikey", "alice-key")], missing, "shop"),
    ] {
        let reply = send_on(&mut connection, "GET", path, headers);
        assert_local(&reply, 401, body);
        let challenge = format!("apikey realm=\"{realm}\"");
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()));
    }
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    let reply = send_on(&mut connection, "GET", "/plain", &[("apikey", "alice-key")]);
    assert_eq!(reply.status, 200, "the same connection serves on");
}

#[test]
fn the_anonymous_consumer_takes_what_failed() {
    let (upstream, gateway) = start(RESOURCES);
    for headers in [&[][..], &[("apikey", "wrong")]] {
        let reply = get(&gateway, "/guest?apikey=wrong&a", headers);
        assert_eq!(reply.status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.start, "GET /guest?a HTTP/1.1");
        assert_eq!(seen.header("apikey"), None);
        assert_eq!(seen.header("x-consumer-username"), Some("guest"));
    }
    let reply = get(&gateway, "/nobody", &[]);
    assert_local(
        &reply,
        401,
        "{\"message\":\"Invalid user authorization\"}\n",
    );
    assert_eq!(
        reply.header("www-authenticate"),
        Some("apikey realm=\"key\"")
    );
    wait_until("the log says why", || {
        gateway.log().contains(
            "key-auth failed to authenticate the request, code: 401. error: failed to get \
             anonymous consumer nobody",
        )
    });
}

#[test]
fn keys_in_queries_are_masked_in_the_access_log() {
    let global = "
global_rules:
  - { id: 1, plugins: { key-auth: { query: everywhere, anonymous_consumer: guest } } }
";
    let format = "$request|$arg_k|$http_x_key|$arg_everywhere";
    let (_upstream, gateway) = start_logging(format, &(RESOURCES.to_owned() + global));
    get(
        &gateway,
        "/hidden?k=alice-key&everywhere=s3cret",
        &[("X-Key", "hunter2")],
    );
    get(&gateway, "/unmatched?everywhere=s3cret&k=shown", &[]);
    wait_until("both lines are written", || access_log(&gateway).len() == 2);
    assert_eq!(
        access_log(&gateway),
        [
            "GET /hidden?k=***&everywhere=*** HTTP/1.1|***|***|***",
            "GET /unmatched?everywhere=***&k=shown HTTP/1.1|shown|-|***",
        ]
    );
}
