use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::symm::{Cipher, encrypt_aead};
use serde_json::json;

use super::{assert_local, get, over, send_on, start};
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, wait_until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// `bob`'s secret is the same as alice's, encoded.
fn resources() -> String {
    let encoded = STANDARD.encode(SECRET);
    format!(
        "
consumers:
  - {{ username: alice, plugins: {{ jwe-decrypt: {{ key: alice, secret: {SECRET} }} }} }}
  - {{ username: bob, plugins: {{ jwe-decrypt: {{ key: bob, secret: '{encoded}', is_base64_encoded: true }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ jwe-decrypt: {{}} }}, NODE }}
  - {{ id: 2, uri: /lenient, plugins: {{ jwe-decrypt: {{ header: X-In, forward_header: X-Out, strict: false }} }}, NODE }}
"
    )
}

fn token(kid: &str, secret: &str, plain: &str) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({"alg": "dir", "enc": "A256GCM", "kid": kid}).to_string();
    let (header, iv, mut tag) = (encode(header.as_bytes()), [7; 12], [0; 16]);
    let (cipher, key) = (Cipher::aes_256_gcm(), secret.as_bytes());
    let plain = plain.as_bytes();
    let text = encrypt_aead(cipher, key, Some(&iv), header.as_bytes(), plain, &mut tag).unwrap();
    format!(
        "{header}..{}.{}.{}",
        encode(&iv),
        encode(&text),
        encode(&tag)
    )
}

fn message(text: &str) -> String {
    format!("{{\"message\":\"{text}\"}}\n")
}

#[test]
fn what_is_in_the_token_reaches_the_upstream() {
    let (upstream, gateway) = start(&resources());
    for kid in ["alice", "bob"] {
        let bearer = format!("Bearer {}", token(kid, SECRET, "Basic Zm9vOmJhcg=="));
        let headers = [
            ("Authorization", bearer.as_str()),
            ("X-Consumer-Username", "root"),
        ];
        assert_eq!(get(&gateway, "/plain", &headers).status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("authorization"), Some("Basic Zm9vOmJhcg=="));
        assert_eq!(seen.header("x-consumer-username"), None, "it names no one");
    }
    let token = token("alice", SECRET, "{\"sub\":\"alice\"}");
    let reply = get(
        &gateway,
        "/lenient",
        &[("X-In", &token), ("X-Out", "forged")],
    );
    assert_eq!(reply.status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-out"), Some("{\"sub\":\"alice\"}"));
    assert_eq!(
        get(&gateway, "/lenient", &[("X-Out", "forged")]).status,
        200
    );
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-out"), None, "a client's own value goes");
}

#[test]
fn refusals_are_exact_and_keep_the_connection() {
    let (upstream, gateway) = start(&resources());
    let mut connection = gateway.connect();
    let good = token("alice", SECRET, "x");
    let cut = good[..good.len() - 23].to_owned();
    for (path, value, status, told) in [
        ("/plain", None, 403, "missing JWE token in request"),
        ("/plain", Some("x".to_owned()), 400, "JWE token invalid"),
        ("/plain", Some(String::new()), 400, "JWE token invalid"),
        ("/plain", Some(cut), 400, "JWE token invalid"),
        (
            "/plain",
            Some(good.replacen("..", ".AAAA.", 1)),
            400,
            "JWE token invalid",
        ),
        (
            "/plain",
            Some(token("carol", SECRET, "x")),
            400,
            "invalid kid in JWE token",
        ),
        (
            "/plain",
            Some(token("", SECRET, "x")),
            400,
            "invalid kid in JWE token",
        ),
        (
            "/plain",
            Some(token("alice", OTHER, "x")),
            400,
            "failed to decrypt JWE token",
        ),
        (
            "/plain",
            Some(token("alice", SECRET, "a\r\nX-B: c")),
            400,
            "failed to decrypt JWE token",
        ),
    ] {
        let headers: Vec<_> = value
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let reply = send_on(&mut connection, "GET", path, &headers);
        assert_local(&reply, status, &message(told));
    }
    let reply = send_on(&mut connection, "GET", "/lenient", &[("X-In", "x")]);
    assert_local(&reply, 400, &message("JWE token invalid"));
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    let reply = send_on(
        &mut connection,
        "GET",
        "/plain",
        &[("Authorization", &good)],
    );
    assert_eq!(reply.status, 200, "the same connection serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn credentials_follow_their_references_and_fail_closed() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2(
        "edge/jwe",
        json!({"key": "one", "secret": SECRET, "header": "X-In"}),
    )
    .await;
    let resources = format!(
        "
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 1, neg_ttl: 1 }}
consumers:
  - {{ username: alice, plugins: {{ jwe-decrypt: {{ key: $secret://vault/main/jwe/key, secret: $secret://vault/main/jwe/secret }} }} }}
  - {{ username: bob, plugins: {{ jwe-decrypt: {{ key: bob, secret: $env://NOWHERE }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ jwe-decrypt: {{}} }}, NODE }}
  - {{ id: 2, uri: /named, plugins: {{ jwe-decrypt: {{ header: $secret://vault/main/jwe/header }} }}, NODE }}
  - {{ id: 3, uri: /unresolved, plugins: {{ jwe-decrypt: {{ header: $env://NOWHERE }} }}, NODE }}
",
        bao.addr, bao.token
    );
    let builder = Gateway::builder().unready();
    let gateway = builder.resources(over(&upstream, &resources)).start();
    let status = |kid: &str, secret: &str| {
        get(
            &gateway,
            "/plain",
            &[("Authorization", &token(kid, secret, "x"))],
        )
        .status
    };
    wait_until("values are there", || status("one", SECRET) == 200);
    assert_eq!(status("bob", SECRET), 400);
    assert_eq!(status("$secret://vault/main/jwe/key", SECRET), 400);
    assert_eq!(get(&gateway, "/unresolved", &[]).status, 503);
    let named = get(&gateway, "/named", &[("X-In", &token("one", SECRET, "x"))]);
    assert_eq!(named.status, 200);

    bao.put_v2(
        "edge/jwe",
        json!({"key": "one", "secret": OTHER, "header": "X-In"}),
    )
    .await;
    wait_until("the new secret is in force", || status("one", OTHER) == 200);
    assert_eq!(status("one", SECRET), 400, "the old one is out");
    bao.put_v2(
        "edge/jwe",
        json!({"key": "two", "secret": OTHER, "header": "X-In"}),
    )
    .await;
    wait_until("the new key is in force", || status("two", OTHER) == 200);
    assert_eq!(status("one", OTHER), 400);
    bao.put_v2(
        "edge/jwe",
        json!({"key": "two", "secret": "too short", "header": "X-In"}),
    )
    .await;
    wait_until("a value that is no key lets nobody in", || {
        status("two", OTHER) == 400
    });
    assert!(!gateway.log().contains("too short"), "no value is told");
}
