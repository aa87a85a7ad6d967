use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use claviger::jwt::{Algorithm, SigningKey};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::{access_log, assert_local, get, over, send_on, start, start_logging};
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, gateway, wait_until};

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

fn ec() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn public(key: &PKey<Private>) -> String {
    String::from_utf8(key.public_key_to_pem().unwrap()).unwrap()
}

fn signed_by(algorithm: Algorithm, key: &PKey<Private>, claims: &Value) -> String {
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    let key = SigningKey::from_pem(algorithm, &pem).unwrap();
    key.encode(claims).unwrap()
}

const BY_REFERENCE: &str = "
consumers:
  - username: hs
    plugins: { jwt-auth: { key: $secret://vault/main/hs/key, secret: $secret://vault/main/hs/secret } }
  - username: rs
    plugins: { jwt-auth: { key: rs, algorithm: RS256, public_key: $secret://vault/main/rs/public } }
  - username: kid
    plugins:
      jwt-auth:
        key: kid
        keys:
          - { kid: a, secret: $secret://vault/main/kid/secret }
          - { kid: b, algorithm: ES256, public_key: $secret://vault/main/kid/public }
  - { username: env, plugins: { jwt-auth: { key: env, secret: $env://JWT_SECRET } } }
  - { username: none, plugins: { jwt-auth: { key: none, secret: $env://NOWHERE } } }
routes:
  - { id: 1, uri: /plain, plugins: { jwt-auth: {} }, NODE }
  - { id: 2, uri: /claim, plugins: { jwt-auth: { key_claim_name: $secret://vault/main/route/claim } }, NODE }
  - { id: 3, uri: /unresolved, plugins: { jwt-auth: { key_claim_name: $env://NOWHERE } }, NODE }
";

/// A gateway whose credentials stand in `bao`, with a short ttl.
fn by_reference(bao: &OpenBao, upstream: &Upstream) -> Gateway {
    let secrets = format!(
        "
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 1, neg_ttl: 1 }}",
        bao.addr, bao.token
    );
    let resources = secrets + &over(upstream, BY_REFERENCE);
    let builder = Gateway::builder().unready().env("JWT_SECRET", SECRET);
    builder.resources(resources).start()
}

/// Every secret field in turn: the token of the value before is remembered, and refused from the
/// very moment that the new value's is let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rotated_value_ends_remembered_tokens_at_once() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let (rs, es) = ([rsa(), rsa()], [ec(), ec()]);
    let hs = |key: &str, secret: &str| json!({"key": key, "secret": secret});
    let kid = |secret: &str, key: &PKey<Private>| json!({"secret": secret, "public": public(key)});
    bao.put_v2("edge/hs", hs("hs-1", "secret 1")).await;
    bao.put_v2("edge/rs", json!({"public": public(&rs[0])}))
        .await;
    bao.put_v2("edge/kid", kid("secret 1", &es[0])).await;
    bao.put_v2("edge/route", json!({"claim": "sub"})).await;
    let gateway = by_reference(&bao, &upstream);
    let plain = |token: &str| status_of(&gateway, "/plain", token);

    let hs_token = |key: &str, secret: &str| signed(secret, &json!({"key": key}));
    let rs_token = |place: usize| signed_by(Algorithm::RS256, &rs[place], &json!({"key": "rs"}));
    let es_token = |place: usize| signed_by(Algorithm::ES256, &es[place], &json!({"key": "kid"}));
    let kid_token = |secret: &str| signed(secret, &json!({"key": "kid"}));
    let steps = [
        (
            "secret",
            "hs",
            hs("hs-1", "secret 2"),
            hs_token("hs-1", "secret 1"),
            hs_token("hs-1", "secret 2"),
        ),
        (
            "key",
            "hs",
            hs("hs-2", "secret 2"),
            hs_token("hs-1", "secret 2"),
            hs_token("hs-2", "secret 2"),
        ),
        (
            "public_key",
            "rs",
            json!({"public": public(&rs[1])}),
            rs_token(0),
            rs_token(1),
        ),
        (
            "keys.secret",
            "kid",
            kid("secret 2", &es[0]),
            kid_token("secret 1"),
            kid_token("secret 2"),
        ),
        (
            "keys.public_key",
            "kid",
            kid("secret 2", &es[1]),
            es_token(0),
            es_token(1),
        ),
    ];
    for (field, document, value, old, new) in steps {
        wait_until(field, || plain(&old) == 200);
        assert_eq!(plain(&old), 200, "{field}: remembered");
        assert_eq!(plain(&new), 401, "{field}: not yet in force");
        bao.put_v2(&format!("edge/{document}"), value).await;
        wait_until(field, || plain(&new) == 200);
        assert_eq!(plain(&old), 401, "{field}: the old one is out at once");
    }

    let claim = |name: &str| signed(SECRET, &json!({name: "env"}));
    assert_eq!(status_of(&gateway, "/claim", &claim("sub")), 200);
    bao.put_v2("edge/route", json!({"claim": "iss"})).await;
    wait_until("the claim's name follows", || {
        status_of(&gateway, "/claim", &claim("iss")) == 200
    });
    assert_eq!(status_of(&gateway, "/claim", &claim("sub")), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_has_no_value_lets_nobody_in() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2("edge/hs", json!({"key": "hs", "secret": "secret 1"}))
        .await;
    bao.put_v2("edge/rs", json!({"public": "not a key"})).await;
    let gateway = by_reference(&bao, &upstream);
    let plain = |key: &str, secret: &str| {
        let token = signed(secret, &json!({"key": key}));
        let reply = get(&gateway, "/plain", &[("Authorization", &token)]);
        (reply.status, reply.text())
    };
    wait_until("the value is there", || plain("hs", "secret 1").0 == 200);
    assert_eq!(plain("env", SECRET).0, 200);
    let unknown = (401, message("Invalid user key in JWT token"));
    for (key, secret) in [
        ("$secret://vault/main/hs/key", "secret 1"),
        ("none", "$env://NOWHERE"),
        ("rs", "not a key"),
        ("rs", "$secret://vault/main/rs/public"),
        ("kid", "$secret://vault/main/kid/secret"),
    ] {
        assert_eq!(plain(key, secret), unknown, "{key}");
    }
    assert_eq!(plain("hs", "$secret://vault/main/hs/secret").0, 401);
    assert_eq!(plain("env", "$env://JWT_SECRET").0, 401);
    assert_eq!(status_of(&gateway, "/unresolved", &alice()), 503);
    // A value that is lost takes its remembered tokens along.
    assert_eq!(plain("hs", "secret 1").0, 200);
    bao.delete_v2("edge/hs").await;
    wait_until("the secret is gone", || plain("hs", "secret 1").0 == 401);
    let log = gateway.log();
    assert!(!log.contains("secret 1"), "{log}");
}

/// One key beside the other, clients move, the old one goes: nobody is refused on the way.
#[test]
fn keys_are_rotated_without_a_refused_request() {
    let keys = [ec(), ec()];
    let resources = |kids: &[usize]| {
        let keys: Vec<Value> = kids
            .iter()
            .map(|kid| {
                json!({"kid": kid.to_string(), "algorithm": "ES256", "public_key": public(&keys[*kid])})
            })
            .collect();
        format!(
            "
consumers:
  - {{ username: alice, plugins: {{ jwt-auth: {{ key: alice, keys: {} }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ jwt-auth: {{}} }}, NODE }}
",
            Value::from(keys)
        )
    };
    let token = |place: usize| {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"{place}\"}}");
        with_header(&keys[place], &header, &json!({"key": "alice"}))
    };
    let tokens = [token(0), token(1)];
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(&upstream, &resources(&[0])));
    assert_eq!(status_of(&gateway, "/plain", &tokens[1]), 401);

    let (moved, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let (moved, stopped) = (Arc::new(moved), Arc::new(stopped));
    let client = {
        let (moved, stopped, tokens) = (Arc::clone(&moved), Arc::clone(&stopped), tokens.clone());
        let mut connection = gateway.connect();
        std::thread::spawn(move || {
            let mut served = 0;
            while !stopped.load(Ordering::Acquire) {
                let token = &tokens[usize::from(moved.load(Ordering::Acquire))];
                let reply = send_on(
                    &mut connection,
                    "GET",
                    "/plain",
                    &[("Authorization", token)],
                );
                assert_eq!(reply.status, 200, "no request is refused");
                served += 1;
            }
            served
        })
    };
    gateway.write_resources(&over(&upstream, &resources(&[0, 1])));
    wait_until("both keys serve", || {
        status_of(&gateway, "/plain", &tokens[1]) == 200
    });
    assert_eq!(status_of(&gateway, "/plain", &tokens[0]), 200);
    moved.store(true, Ordering::Release);
    // The client may be in the middle of its last request with the old key.
    let before = upstream.count();
    wait_until("the client has moved", || upstream.count() > before + 2);
    gateway.write_resources(&over(&upstream, &resources(&[1])));
    wait_until("the old key is out", || {
        status_of(&gateway, "/plain", &tokens[0]) == 401
    });
    assert_eq!(status_of(&gateway, "/plain", &tokens[1]), 200);
    stopped.store(true, Ordering::Release);
    assert!(client.join().expect("no request is refused") > 2);
}

fn with_header(key: &PKey<Private>, header: &str, claims: &Value) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    let key = SigningKey::from_pem(Algorithm::ES256, &pem).unwrap();
    let parts = [header.to_owned(), claims.to_string()];
    let message = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_key_that_does_not_fit_is_told_at_load() {
    let yaml = |public_key: &str| {
        let keys = json!({"key": "k", "algorithm": "ES256", "public_key": public_key});
        format!(
            "
consumers:
  - {{ username: alice, plugins: {{ jwt-auth: {keys} }} }}
routes: []
"
        )
    };
    let check = |public_key: &str| {
        let dir = tempfile::tempdir().unwrap();
        let [config, resources] = ["config.yaml", "apisix.yaml"].map(|name| dir.path().join(name));
        std::fs::write(&config, "{}\n").unwrap();
        std::fs::write(&resources, yaml(public_key) + "#END\n").unwrap();
        let [config, resources] = [&config, &resources].map(|path| path.to_str().unwrap());
        let args = ["check", "--config", config, "--resources", resources];
        let found = gateway::claviger(&args);
        let told = [found.stdout, found.stderr].concat();
        (found.status.success(), String::from_utf8(told).unwrap())
    };
    let (fine, told) = check(&public(&ec()));
    assert!(fine, "{told}");
    let (fine, told) = check(&public(&rsa()));
    assert!(!fine);
    assert!(
        told.contains("does not fit ES256: expected an EC key on P-256"),
        "{told}"
    );
}
