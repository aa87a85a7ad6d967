//! Key sets by address, by reference and in place: an identity provider's keys, and their rotation.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::BigNumContext;
use openssl::pkey::PKey;
use serde_json::{Value, json};

use super::keys::{self, Key};
use crate::harness::gateway::claviger;
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, wait_until};

/// The public half of a key as a JWK of that name.
fn jwk(key: &Key, kid: &str) -> Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if key.is_secret() {
        return json!({ "kty": "oct", "kid": kid, "k": encode(key.public.as_bytes()) });
    }
    let public = PKey::public_key_from_pem(key.public.as_bytes()).unwrap();
    if let Ok(rsa) = public.rsa() {
        let (n, e) = (encode(&rsa.n().to_vec()), encode(&rsa.e().to_vec()));
        return json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": n, "e": e });
    }
    if let Ok(ec) = public.ec_key() {
        let (mut x, mut y) = (
            openssl::bn::BigNum::new().unwrap(),
            openssl::bn::BigNum::new().unwrap(),
        );
        let mut scratch = BigNumContext::new().unwrap();
        ec.public_key()
            .affine_coordinates(ec.group(), &mut x, &mut y, &mut scratch)
            .unwrap();
        let size = i32::try_from(ec.group().degree()).unwrap().div_euclid(8) + 1;
        let size = if ec.group().degree() % 8 == 0 {
            size - 1
        } else {
            size
        };
        let coordinate = |number: openssl::bn::BigNum| encode(&number.to_vec_padded(size).unwrap());
        let crv = format!("P-{}", ec.group().degree());
        return json!({ "kty": "EC", "kid": kid, "crv": crv, "x": coordinate(x), "y": coordinate(y) });
    }
    let crv = if key.name == "Ed448" {
        "Ed448"
    } else {
        "Ed25519"
    };
    json!({ "kty": "OKP", "kid": kid, "crv": crv, "x": encode(&public.raw_public_key().unwrap()) })
}

fn set(keys: &[(&Key, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(key, kid)| jwk(key, kid)).collect();
    json!({ "keys": keys }).to_string()
}

fn key(name: &str) -> Key {
    let mut keys = keys::all().into_iter();
    keys.find(|key| key.name == name).unwrap()
}

/// A token of the consumer `tester`, which names its key.
fn token(key: &Key, kid: Option<&str>) -> String {
    let mut header = json!({ "alg": key.algorithm.name() });
    if let Some(kid) = kid {
        header["kid"] = json!(kid);
    }
    let claims = json!({ "key": "tester" });
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", encode(&header), encode(&claims));
    let signature = key.signs().sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A consumer `tester` with these fields of its credential, behind a route.
fn resources(upstream: &Upstream, fields: &str) -> String {
    format!(
        "consumers:\n  - {{ username: tester, plugins: {{ jwt-auth: {{ key: tester, {fields} }} }} }}\n\
         routes:\n  - {{ id: 1, uri: /*, plugins: {{ jwt-auth: {{}} }}, \
         upstream: {{ nodes: {{ '{}': 1 }} }} }}\n",
        upstream.addr
    )
}

const QUICK: &str = "apisix: { lru: { secret: { ttl: 1, neg_ttl: 1 } } }";

fn status(gateway: &Gateway, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    gateway
        .get("a.test", "/", &[("Authorization", &authorization)])
        .status
}

/// An identity provider: answers every path with its key set.
fn provider(set: &str) -> Upstream {
    Upstream::start(Behaviour::Answer(200, set.to_owned()))
}

#[test]
fn keys_by_address_are_fetched_ahead_of_requests_and_rotate_within_the_ttl() {
    let (old, new) = (key("RS256"), key("ES256"));
    let provider = provider(&set(&[(&old, "old")]));
    let upstream = Upstream::start(Behaviour::ok());
    let uri = format!("http://{}/realms/a/certs?p=1", provider.addr);
    let gateway = Gateway::builder()
        .bootstrap(QUICK)
        .resources(resources(&upstream, &format!("jwks_uri: '{uri}'")))
        .start();
    let (old_token, new_token) = (token(&old, Some("old")), token(&new, Some("new")));
    assert_eq!(status(&gateway, &old_token), 200);
    assert_eq!(
        status(&gateway, &token(&old, None)),
        200,
        "the only key of its algorithm"
    );
    assert_eq!(status(&gateway, &token(&old, Some("other"))), 401);
    assert_eq!(status(&gateway, &new_token), 401);
    let asked = provider.requests();
    assert_eq!(asked[0].start, "GET /realms/a/certs?p=1 HTTP/1.1");
    assert_eq!(asked[0].header("authorization"), None);

    // Both for a while, then the new one alone.
    provider.set(Behaviour::Answer(200, set(&[(&old, "old"), (&new, "new")])));
    let changed = Instant::now();
    wait_until("the new key is known", || {
        status(&gateway, &new_token) == 200
    });
    assert!(
        changed.elapsed() < Duration::from_secs(5),
        "{:?}",
        changed.elapsed()
    );
    assert_eq!(status(&gateway, &old_token), 200);
    provider.set(Behaviour::Answer(200, set(&[(&new, "new")])));
    wait_until("the old key is gone", || {
        status(&gateway, &old_token) == 401
    });
    assert_eq!(status(&gateway, &new_token), 200);
    assert_eq!(
        upstream
            .requests()
            .last()
            .unwrap()
            .header("x-consumer-username"),
        Some("tester")
    );
}

#[test]
fn no_request_asks_the_provider() {
    let signer = key("EdDSA");
    let provider = provider(&set(&[(&signer, "a")]));
    let upstream = Upstream::start(Behaviour::ok());
    let uri = format!("http://{}/keys", provider.addr);
    let gateway = Gateway::start(resources(&upstream, &format!("jwks_uri: '{uri}'")));
    let (good, unknown) = (token(&signer, Some("a")), token(&signer, Some("b")));
    provider.set(Behaviour::Never);
    for _ in 0..100 {
        assert_eq!(status(&gateway, &good), 200);
        assert_eq!(status(&gateway, &unknown), 401);
    }
    assert!(provider.count() <= 2, "{} requests", provider.count());
}

/// With a ttl of minutes: who signs with a key that was not there yet need not wait for it to end.
#[test]
fn a_kid_that_the_set_lacks_has_it_read_again_once() {
    let (old, new) = (key("ES256"), key("EdDSA"));
    let provider = provider(&set(&[(&old, "old")]));
    let upstream = Upstream::start(Behaviour::ok());
    let uri = format!("http://{}/keys", provider.addr);
    let gateway = Gateway::start(resources(&upstream, &format!("jwks_uri: '{uri}'")));
    assert_eq!(status(&gateway, &token(&old, Some("old"))), 200);
    provider.set(Behaviour::Answer(200, set(&[(&old, "old"), (&new, "new")])));
    let new_token = token(&new, Some("new"));
    assert_eq!(status(&gateway, &new_token), 401, "no request waits");
    wait_until("the new key is known", || {
        status(&gateway, &new_token) == 200
    });
    let read = provider.count();
    for number in 0..300 {
        let unknown = token(&old, Some(&format!("kid-{number}")));
        assert_eq!(status(&gateway, &unknown), 401);
    }
    assert!(
        provider.count() <= read + 1,
        "{} reads more",
        provider.count() - read
    );
}

#[test]
fn a_provider_that_fails_leaves_its_keys_in_force_until_it_says_they_are_gone() {
    let signer = key("ES384");
    let good_set = set(&[(&signer, "a")]);
    let provider = provider(&good_set);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(format!(
        "secrets:\n  - {{ id: http/idp, uri: 'http://{}/keys', format: json, ttl: 0.2, \
         neg_ttl: 0.2 }}\n{}",
        provider.addr,
        resources(&upstream, "jwks: $secret://http/idp/body")
    ));
    let good = token(&signer, Some("a"));
    for trouble in [
        Behaviour::Answer(503, "{}".to_owned()),
        Behaviour::Answer(200, "<html>sorry</html>".to_owned()),
        Behaviour::Raw(format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{}/other\r\nContent-Length: 0\r\n\r\n",
            provider.addr
        )),
        Behaviour::CloseMidBody,
        Behaviour::Garbage,
    ] {
        let before = provider.count();
        provider.set(trouble.clone());
        wait_until("it was asked again", || provider.count() >= before + 2);
        assert_eq!(status(&gateway, &good), 200, "{trouble:?}");
        provider.set(Behaviour::Answer(200, good_set.clone()));
        let before = provider.count();
        wait_until("it answers again", || provider.count() > before);
    }
    assert!(
        provider
            .requests()
            .iter()
            .all(|request| request.start.contains("/keys"))
    );
    provider.set(Behaviour::Answer(404, String::new()));
    wait_until("its word counts", || status(&gateway, &good) == 401);
    provider.set(Behaviour::Answer(200, good_set));
    wait_until("the keys are back", || status(&gateway, &good) == 200);
}

#[test]
fn a_provider_that_is_not_there_means_no_key() {
    let signer = key("RS256");
    let upstream = Upstream::start(Behaviour::ok());
    let provider = provider("");
    provider.set(Behaviour::Close);
    let uri = format!("http://{}/keys", provider.addr);
    let gateway = Gateway::builder()
        .bootstrap(QUICK)
        .resources(resources(&upstream, &format!("jwks_uri: '{uri}'")))
        .unready()
        .start();
    assert_eq!(status(&gateway, &token(&signer, Some("a"))), 401);
    assert_eq!(upstream.count(), 0);
    provider.set(Behaviour::Answer(200, set(&[(&signer, "a")])));
    wait_until("it came up", || {
        status(&gateway, &token(&signer, Some("a"))) == 200
    });
}

/// Whoever can read the set could sign; and a private key in it is one that others have.
#[test]
fn a_set_that_must_not_be_public_is_refused_whole() {
    let (rsa, secret) = (key("RS256"), key("HS256"));
    let provider = provider(&set(&[(&rsa, "a"), (&secret, "b")]));
    let upstream = Upstream::start(Behaviour::ok());
    let uri = format!("http://{}/keys", provider.addr);
    let gateway = Gateway::builder()
        .bootstrap(QUICK)
        .resources(resources(&upstream, &format!("jwks_uri: '{uri}'")))
        .start();
    assert_eq!(
        status(&gateway, &token(&secret, Some("b"))),
        401,
        "no secret by address"
    );
    assert_eq!(status(&gateway, &token(&rsa, Some("a"))), 200);
    let mut private = jwk(&rsa, "a");
    private["d"] = json!("hunter2hunter2");
    provider.set(Behaviour::Answer(
        200,
        json!({ "keys": [private] }).to_string(),
    ));
    wait_until("the set is refused", || {
        status(&gateway, &token(&rsa, Some("a"))) == 401
    });
    wait_until("the log says why", || {
        gateway.log().contains("holds the private member \\\"d\\\"")
            || gateway.log().contains("holds the private member \"d\"")
    });
    assert!(!gateway.log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_by_reference_may_hold_secrets_and_rotates_live() {
    let (rsa, secret, ed) = (key("PS256"), key("HS512"), key("Ed448"));
    let bao = OpenBao::start().await;
    let both = set(&[(&rsa, "r"), (&secret, "s")]);
    bao.put_v2("idp", json!({ "jwks": both })).await;
    let upstream = Upstream::start(Behaviour::ok());
    let fields = "algorithm: HS512, jwks: $secret://vault/bao/idp/jwks";
    let resources = format!(
        "secrets:\n  - {{ id: vault/bao, uri: '{}', prefix: secret, token: '{}', kv_version: 2 }}\n{}",
        bao.addr,
        bao.token,
        resources(&upstream, fields)
    );
    let gateway = Gateway::builder()
        .bootstrap(QUICK)
        .resources(resources)
        .start();
    let hs = token(&secret, Some("s"));
    assert_eq!(status(&gateway, &hs), 200);
    assert_eq!(status(&gateway, &token(&key("RS256"), Some("r"))), 401);
    bao.put_v2("idp", json!({ "jwks": set(&[(&ed, "e")]) }))
        .await;
    let eddsa = token(&ed, Some("e"));
    wait_until("the new set is in force", || {
        status(&gateway, &eddsa) == 200
    });
    assert_eq!(status(&gateway, &hs), 401);
    bao.put_v2("idp", json!({ "jwks": "no set" })).await;
    wait_until("what is no set is refused", || {
        status(&gateway, &eddsa) == 401
    });
}

#[test]
fn a_set_in_place_holds_every_kind_of_key() {
    let keys = keys::all();
    let upstream = Upstream::start(Behaviour::ok());
    let jwks: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut jwk = jwk(key, key.name);
            if key.name != "Ed448" {
                jwk["alg"] = json!(key.name);
            }
            jwk
        })
        .collect();
    let fields = format!("jwks: {}", json!({ "keys": jwks }));
    let gateway = Gateway::start(resources(&upstream, &fields));
    for key in &keys {
        assert_eq!(
            status(&gateway, &token(key, Some(key.name))),
            200,
            "{}",
            key.name
        );
        for other in keys.iter().filter(|other| other.name != key.name) {
            let status = status(&gateway, &token(key, Some(other.name)));
            assert_eq!(status, 401, "{} as {}", key.name, other.name);
        }
    }
}

#[test]
fn addresses_that_cannot_be_trusted_are_told_by_check() {
    let upstream = Upstream::start(Behaviour::ok());
    for (address, expected) in [
        ("http://idp.test/keys", "expected https://"),
        (
            "https://u:p@idp.test/keys",
            "expected https://host[:port]/path",
        ),
        ("idp.test/keys", "expected https://host[:port]/path"),
        ("$env://URI", "goes into jwks"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("apisix.yaml");
        let yaml = resources(&upstream, &format!("jwks_uri: '{address}'"));
        std::fs::write(&file, yaml + "#END\n").unwrap();
        let output = claviger(&["check", "--resources", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{address}: {said}");
        assert!(!output.status.success(), "{address}: {said}");
    }
}
