//! `key-auth`: every line of `spec/02` §2, and what is ours beside it.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Request;
use serde_json::json;

use super::{access_log, assert_local, curl, get, over, send_on, start, start_logging};
use crate::harness::h2;
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, wait_until};

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
    // Over HTTP/2 the target carries the host too, and that stays.
    let request = Request::get("http://shop.test/hidden?k=alice-key&b");
    let replies = h2::requests(gateway.http(), vec![request.body(Bytes::new()).unwrap()]);
    assert_eq!(replies[0].head.status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.start, "GET /hidden?b HTTP/1.1");
    assert_eq!(seen.header("host"), Some("shop.test"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.test"));
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

#[test]
fn a_key_may_come_in_one_of_several_headers_or_behind_bearer() {
    let resources = RESOURCES.to_owned()
        + "
  - { id: 6, uri: /several, plugins: { key-auth: { header: [X-Key, apikey], hide_credentials: true } }, NODE }
  - { id: 7, uri: /bearer, plugins: { key-auth: { bearer: true, hide_credentials: true } }, NODE }
";
    let (upstream, gateway) = start(&resources);
    for (path, headers, status) in [
        ("/several", &["X-Key: alice-key"][..], 200),
        ("/several", &["apikey: alice-key"], 200),
        ("/several", &["X-Key: wrong", "apikey: alice-key"], 401),
        ("/several?apikey=alice-key", &[], 200),
        ("/bearer", &["Authorization: Bearer alice-key"], 200),
        ("/bearer", &["Authorization: bearer  alice-key"], 200),
        ("/bearer", &["apikey: alice-key"], 200),
        ("/bearer", &["Authorization: Bearer wrong"], 401),
        ("/bearer", &["Authorization: Bearer"], 401),
        ("/bearer", &["Authorization: alice-key"], 401),
        (
            "/bearer?apikey=alice-key",
            &["Authorization: Basic YTpi"],
            200,
        ),
        // Without the option nothing is stripped, as in APISIX.
        ("/plain", &["Authorization: Bearer alice-key"], 401),
        ("/plain", &["apikey: Bearer alice-key"], 401),
    ] {
        let args: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
        let reply = curl(&gateway, path, &args);
        assert_eq!(reply.status, status, "{path} {headers:?}");
        if status == 200 {
            let seen = upstream.requests().pop().unwrap();
            assert_eq!(seen.header("x-consumer-username"), Some("alice"));
            assert!(!format!("{seen:?}").contains("alice-key"), "it is hidden");
        } else if path == "/bearer" {
            let challenge = "www-authenticate: apikey realm=\"key\", bearer realm=\"key\"";
            assert!(reply.head.contains(challenge), "{}", reply.head);
        }
    }
    assert_eq!(
        curl(&gateway, "/bearer", &["--oauth2-bearer", "alice-key"]).status,
        200
    );
}

#[test]
fn a_key_may_be_as_long_as_headers_may_and_hold_any_byte() {
    let upstream = Upstream::start(Behaviour::ok());
    let key = "0123456789abcdef".repeat(2500);
    let resources = format!(
        "
consumers:
  - {{ username: long, plugins: {{ key-auth: {{ key: '{key}' }} }} }}
  - {{ username: odd, plugins: {{ key-auth: {{ key: 'ключ, \"a b\"; c=d&e' }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ key-auth: {{}} }}, NODE }}
"
    );
    let builder = Gateway::builder().bootstrap("claviger: { limits: { header_bytes: 64k } }");
    let gateway = builder.resources(over(&upstream, &resources)).start();
    let status = |key: &str| {
        let header = format!("apikey: {key}");
        curl(&gateway, "/plain", &["-H", &header]).status
    };
    assert_eq!(status(&key), 200);
    assert_eq!(status(&key[1..]), 401);
    assert_eq!(status("ключ, \"a b\"; c=d&e"), 200);
    let encoded = ["-G", "--data-urlencode", "apikey=ключ, \"a b\"; c=d&e"];
    assert_eq!(curl(&gateway, "/plain", &encoded).status, 200);
    let mut connection = gateway.connect();
    connection.send(b"GET /plain HTTP/1.1\r\nHost: a\r\napikey: \xff\xfe\r\n\r\n");
    assert_eq!(connection.expect_reply().status, 401);
}

/// Of `alice-hashed-key` and of `hunter2`, by libxcrypt.
const SHA512: &str = "$6$rounds=1000$salt$oaxE6XU3Iz48QWXc6NTbgE33toWhT65kmxMSTDMp58iz/UTpVGQA0..B3aiaKvPpaK8edobfYO0d1GFtl3CtX0";
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

#[test]
fn a_key_may_be_kept_as_a_hash() {
    let resources = format!(
        "
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: '{SHA512}', key_prefix: alice- }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: '{BCRYPT}' }} }} }}
  - {{ username: carol, plugins: {{ key-auth: {{ key: alice-plain }} }} }}
  - {{ username: dora, plugins: {{ key-auth: {{ key: '$5$saltstring$x' }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ key-auth: {{}} }}, NODE }}
"
    );
    let (upstream, gateway) = start(&resources);
    for (key, username) in [
        ("alice-hashed-key", Some("alice")),
        ("alice-hashed-key", Some("alice")),
        ("hunter2", Some("bob")),
        ("alice-plain", Some("carol")),
        ("alice-", None),
        ("alice-hashed", None),
        ("wrong", None),
        ("wrong", None),
        // Who reads the file must not get in by what stands there.
        (SHA512, None),
        (BCRYPT, None),
        ("$5$saltstring$x", None),
    ] {
        let header = format!("apikey: {key}");
        let reply = curl(&gateway, "/plain", &["-H", &header]);
        assert_eq!(reply.status == 200, username.is_some(), "{key}");
        if let Some(username) = username {
            let seen = upstream.requests().pop().unwrap();
            assert_eq!(seen.header("x-consumer-username"), Some(username));
        } else {
            let invalid = "{\"message\":\"Invalid API key in request\"}\n";
            assert_eq!((reply.status, &*reply.body), (401, invalid));
        }
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn more_hashed_keys_than_can_be_tried_are_told_at_load() {
    let mut resources = "
routes:
  - { id: 1, uri: /plain, plugins: { key-auth: {} }, NODE }
consumers:
"
    .to_owned();
    let hash_of_other = "$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe";
    for n in 0..16 {
        let key = if n == 15 { BCRYPT } else { hash_of_other };
        let _ = writeln!(
            resources,
            "  - {{ username: u{n}, plugins: {{ key-auth: {{ key: '{key}' }} }} }}"
        );
    }
    resources +=
        &format!("  - {{ username: late, plugins: {{ key-auth: {{ key: '{SHA512}' }} }} }}\n");
    let (upstream, gateway) = start(&resources);
    let said = gateway.command(&["check"]).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    let said =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let message = "more than 16 hashed keys without key_prefix";
    assert_eq!(said.matches(message).count(), 1, "{said}");
    assert!(said.contains("consumers/late"), "{said}");
    assert_eq!(
        get(&gateway, "/plain", &[("apikey", "hunter2")]).status,
        200
    );
    let late = [("apikey", "alice-hashed-key")];
    assert_eq!(get(&gateway, "/plain", &late).status, 401);

    // What the message says cures it: a prefix of those that come before.
    let cured = resources.replace(
        &format!("'{hash_of_other}' }}"),
        &format!("'{hash_of_other}', key_prefix: aaaa }}"),
    );
    assert_ne!(cured, resources);
    gateway.write_resources(&over(&upstream, &cured));
    wait_until("the late one is in force", || {
        get(&gateway, "/plain", &late).status == 200
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_follow_their_references_and_fail_closed() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let put = |key: &'static str| bao.put_v2("edge/alice", json!({"key": key}));
    put("first").await;
    let resources = format!(
        "
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 1, neg_ttl: 1 }}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://vault/main/alice/key }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: $env://BOB_HASH, key_prefix: hunt }} }} }}
  - {{ username: carol, plugins: {{ key-auth: {{ key: $env://NOWHERE }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ key-auth: {{}} }}, NODE }}
  - {{ id: 2, uri: /nowhere, plugins: {{ key-auth: {{ header: $env://NOWHERE }} }}, NODE }}
",
        bao.addr, bao.token
    );
    let builder = Gateway::builder().unready().env("BOB_HASH", BCRYPT);
    let gateway = builder.resources(over(&upstream, &resources)).start();
    let status = |key: &str| get(&gateway, "/plain", &[("apikey", key)]).status;
    wait_until("the value is there", || status("first") == 200);
    assert_eq!(status("hunter2"), 200, "a hash by reference");
    for key in [
        "$secret://vault/main/alice/key",
        "$env://BOB_HASH",
        "$env://NOWHERE",
        BCRYPT,
        "",
    ] {
        assert_eq!(status(key), 401, "{key}");
    }
    assert_eq!(
        get(&gateway, "/nowhere", &[("apikey", "first")]).status,
        503
    );

    put(SHA512).await;
    wait_until("the hash is in force", || status("alice-hashed-key") == 200);
    assert_eq!(status("first"), 401, "the old key is out");
    assert_eq!(status(SHA512), 401);
    put("$2b$31$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm").await;
    wait_until("an absurd hash authenticates nobody", || {
        status("alice-hashed-key") == 401
    });
    put("third").await;
    wait_until("a key is in force again", || status("third") == 200);
    assert_eq!(status("alice-hashed-key"), 401, "the old hash is out");
}
