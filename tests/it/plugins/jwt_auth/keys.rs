//! Keys by reference, their rotation, and what is told of those that do not fit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;

use super::*;
use crate::harness::OpenBao;

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
