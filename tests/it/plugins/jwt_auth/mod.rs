//! `jwt-auth` from outside.

mod keys;

use std::time::{SystemTime, UNIX_EPOCH};

use claviger::jwt::{Algorithm, SigningKey};
use serde_json::{Value, json};

use super::{access_log, assert_local, get, over, send_on, start, start_logging};
use crate::harness::{Behaviour, Gateway, Upstream, gateway, wait_until};

const SECRET: &str = "a secret of more than thirty-two bytes";

const RESOURCES: &str = "
consumers:
  - username: alice
    labels: { custom_id: '42' }
    plugins: { jwt-auth: { key: alice-key, secret: a secret of more than thirty-two bytes } }
  - id: alice/credentials/second
    plugins: { jwt-auth: { key: alice-second, secret: another secret of more than thirty-two bytes } }
  - { username: guest }
routes:
  - { id: 1, uri: /plain, plugins: { jwt-auth: {} }, NODE }
  - { id: 2, uri: /hidden, plugins: { jwt-auth: { header: X-Token, query: t, cookie: T, hide_credentials: true, realm: shop } }, NODE }
  - { id: 3, uri: /guest, plugins: { jwt-auth: { anonymous_consumer: guest, hide_credentials: true } }, NODE }
  - { id: 4, uri: /nobody, plugins: { jwt-auth: { anonymous_consumer: nobody } }, NODE }
  - { id: 5, uri: /iss, plugins: { jwt-auth: { key_claim_name: iss, claims_to_verify: [exp] } }, NODE }
  - { id: 6, uri: /claims, plugins: { jwt-auth: { store_in_ctx: true }, proxy-rewrite: { headers: { set: { X-Role: '${jwt_auth_payload.role}' } } } }, NODE }
";

fn signed(secret: &str, claims: &Value) -> String {
    let key = SigningKey::from_secret(Algorithm::HS256, secret.as_bytes()).unwrap();
    key.encode(claims).unwrap()
}

fn alice() -> String {
    signed(SECRET, &json!({"key": "alice-key"}))
}

fn message(text: &str) -> String {
    format!("{{\"message\":\"{text}\"}}\n")
}

fn status_of(gateway: &Gateway, path: &str, token: &str) -> u16 {
    get(gateway, path, &[("Authorization", token)]).status
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn a_token_names_its_consumer_to_the_upstream() {
    let (upstream, gateway) = start(RESOURCES);
    let forged = [
        ("X-Consumer-Username", "root"),
        ("X-Credential-Identifier", "forged"),
        ("X-Consumer-Custom-ID", "forged"),
    ];
    let second = "another secret of more than thirty-two bytes";
    let second = signed(second, &json!({"key": "alice-second"}));
    let bearer = format!("Bearer {}", alice());
    let cookie = format!("a=1; jwt={}", alice());
    let query = format!("/plain?a=1&jwt={}", alice());
    for (path, header, credential) in [
        ("/plain", Some(("Authorization", bearer.as_str())), None),
        (
            "/plain",
            Some(("Authorization", second.as_str())),
            Some("second"),
        ),
        ("/plain", Some(("Cookie", cookie.as_str())), None),
        (query.as_str(), None, None),
    ] {
        // The second time the token is remembered.
        for _ in 0..2 {
            let mut headers = forged.to_vec();
            headers.extend(header);
            assert_eq!(
                get(&gateway, path, &headers).status,
                200,
                "{path} {header:?}"
            );
            let seen = upstream.requests().pop().unwrap();
            assert_eq!(seen.start, format!("GET {path} HTTP/1.1"));
            assert_eq!(seen.header("x-consumer-username"), Some("alice"));
            assert_eq!(seen.header("x-credential-identifier"), credential);
            assert_eq!(seen.header("x-consumer-custom-id"), Some("42"));
            if let Some((name, value)) = header {
                let name = name.to_ascii_lowercase();
                assert_eq!(seen.header(&name), Some(value), "not hidden unless asked");
            }
        }
    }
    let token = signed(SECRET, &json!({"iss": "alice-key", "exp": now() + 1000}));
    assert_eq!(status_of(&gateway, "/iss", &token), 200);
    assert_eq!(
        status_of(&gateway, "/plain", &token),
        401,
        "another claim names it there"
    );
    let token = signed(SECRET, &json!({"iss": "alice-key"}));
    assert_eq!(
        status_of(&gateway, "/iss", &token),
        401,
        "exp must be there"
    );
}

#[test]
fn a_hidden_token_never_reaches_the_upstream() {
    let (upstream, gateway) = start(RESOURCES);
    let token = alice();
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=1; T={token}; b=2");
    for (path, headers) in [
        (format!("/hidden?a=1&t={token}&b=%2F"), vec![]),
        (
            "/hidden?a=1&b=%2F".to_owned(),
            vec![("X-Token", bearer.as_str())],
        ),
        (
            "/hidden?a=1&b=%2F".to_owned(),
            vec![("Cookie", cookie.as_str())],
        ),
    ] {
        assert_eq!(get(&gateway, &path, &headers).status, 200, "{path}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.start, "GET /hidden?a=1&b=%2F HTTP/1.1");
        assert_eq!(seen.header("x-token"), None);
        let left = headers.first().filter(|(name, _)| *name == "Cookie");
        assert_eq!(seen.header("cookie"), left.map(|_| "a=1; b=2"));
    }
}

#[test]
fn refusals_are_exact_and_keep_the_connection() {
    let (upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    let expired = signed(SECRET, &json!({"key": "alice-key", "exp": now() - 1}));
    let early = signed(SECRET, &json!({"key": "alice-key", "nbf": now() + 1000}));
    let forged = signed("wrong secret", &json!({"key": "alice-key"}));
    let (stranger, nobody) = (json!({"key": "bob"}), json!({}));
    let (stranger, nobody) = (signed(SECRET, &stranger), signed(SECRET, &nobody));
    let twice = format!("/plain?jwt={0}&jwt={0}", alice());
    for (path, token, told, realm) in [
        ("/plain", None, "Missing JWT token in request", "jwt"),
        ("/hidden", Some("x"), "Missing JWT token in request", "shop"),
        ("/plain", Some("x"), "JWT token invalid", "jwt"),
        ("/plain", Some(""), "JWT token invalid", "jwt"),
        (
            "/plain",
            Some("Basic Zm9vOmJhcg=="),
            "JWT token invalid",
            "jwt",
        ),
        (
            "/plain",
            Some("\u{fc}.\u{fc}.\u{fc}"),
            "JWT token invalid",
            "jwt",
        ),
        (&twice, None, "JWT token invalid", "jwt"),
        (
            "/plain",
            Some(&nobody),
            "missing user key in JWT token",
            "jwt",
        ),
        (
            "/plain",
            Some(&stranger),
            "Invalid user key in JWT token",
            "jwt",
        ),
        ("/plain", Some(&forged), "failed to verify jwt", "jwt"),
        ("/plain", Some(&expired), "failed to verify jwt", "jwt"),
        ("/plain", Some(&early), "failed to verify jwt", "jwt"),
    ] {
        let headers: Vec<_> = token
            .iter()
            .map(|token| ("Authorization", *token))
            .collect();
        let reply = send_on(&mut connection, "GET", path, &headers);
        assert_local(&reply, 401, &message(told));
        let challenge = format!("Bearer realm=\"{realm}\"");
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()));
    }
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    let reply = send_on(
        &mut connection,
        "GET",
        "/plain",
        &[("Authorization", &alice())],
    );
    assert_eq!(reply.status, 200, "the same connection serves on");
    let page = gateway.metrics_page();
    for (reason, count) in [
        ("missing", 2),
        ("malformed", 6),
        ("unknown", 1),
        ("mismatch", 1),
        ("expired", 1),
        ("early", 1),
    ] {
        let line = format!(
            "claviger_auth_failures_total{{plugin=\"jwt-auth\",reason=\"{reason}\"}} {count}\n"
        );
        assert!(page.contains(&line), "{line} in {page}");
    }
}

#[test]
fn the_anonymous_consumer_takes_what_failed() {
    let (upstream, gateway) = start(RESOURCES);
    for headers in [
        &[][..],
        &[("Authorization", "wrong"), ("Cookie", "jwt=wrong")],
    ] {
        assert_eq!(get(&gateway, "/guest?jwt=wrong&a", headers).status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.start, "GET /guest?a HTTP/1.1");
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("cookie"), None);
        assert_eq!(seen.header("x-consumer-username"), Some("guest"));
    }
    let reply = get(&gateway, "/nobody", &[]);
    assert_local(&reply, 401, &message("Invalid user authorization"));
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer realm=\"jwt\"")
    );
}

#[test]
fn claims_are_variables_for_later_plugins() {
    let (upstream, gateway) = start(RESOURCES);
    let token = signed(SECRET, &json!({"key": "alice-key", "role": "admin"}));
    for _ in 0..2 {
        assert_eq!(status_of(&gateway, "/claims", &token), 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("x-role"), Some("admin"));
    }
}

#[test]
fn tokens_are_masked_in_the_access_log() {
    let format = "$request|$arg_t|$http_x_token|$cookie_T";
    let (_upstream, gateway) = start_logging(format, RESOURCES);
    let token = alice();
    let path = format!("/hidden?a=1&t={token}");
    let cookie = format!("T={token}");
    get(&gateway, &path, &[("X-Token", &token), ("Cookie", &cookie)]);
    wait_until("the line is written", || access_log(&gateway).len() == 1);
    // The header was found first, so it is hidden.
    assert_eq!(
        access_log(&gateway),
        ["GET /hidden?a=1&t=*** HTTP/1.1|***|-|***"]
    );
}

#[test]
fn a_remembered_token_ends_when_it_ends() {
    for attr in ["", "plugin_attr: { jwt-auth: { remembered_tokens: 0 } }"] {
        let upstream = Upstream::start(Behaviour::ok());
        let builder = Gateway::builder().bootstrap(attr);
        let gateway = builder.resources(over(&upstream, RESOURCES)).start();
        let exp = now() + 2;
        let token = signed(SECRET, &json!({"key": "alice-key", "exp": exp}));
        let mut passed = 0;
        wait_until("the token has ended", || {
            let status = status_of(&gateway, "/plain", &token);
            passed += usize::from(status == 200);
            // No later than the second it names, and no sooner.
            assert!(status == 200 || now() >= exp, "refused ahead of its end");
            status == 401
        });
        assert!(passed > 1, "it served before");
    }
}

#[test]
fn a_short_secret_serves_and_check_tells() {
    let yaml = "
consumers:
  - { username: alice, plugins: { jwt-auth: { key: alice-key, secret: short } } }
routes:
  - { id: 1, uri: /plain, plugins: { jwt-auth: {} }, NODE }
";
    let (_upstream, gateway) = start(yaml);
    let token = signed("short", &json!({"key": "alice-key"}));
    assert_eq!(status_of(&gateway, "/plain", &token), 200);
    let log = gateway.log();
    assert!(log.contains("key shorter than its algorithm"), "{log}");
    let found = gateway.command(&["check"]).output().unwrap();
    let told = String::from_utf8(found.stdout).unwrap() + &String::from_utf8(found.stderr).unwrap();
    assert!(told.contains("weak-credential"), "{told}");
    assert!(
        told.contains("HS256 asks for 32 bytes (RFC 7518 §3.2)"),
        "{told}"
    );
}
