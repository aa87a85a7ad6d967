use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::*;
use crate::consumer::{Consumer, Consumers, CredentialIndex, GroupLink};
use crate::jwt::{Algorithm, Family, SigningKey};
use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

mod fuzz;

/// The clock of [`Exchange`].
const NOW: u64 = 1_700_000_000;
const SECRET: &str = "a secret of more than thirty-two bytes";

fn consumer(name: &str) -> Arc<Consumer> {
    Arc::new(Consumer {
        username: name.into(),
        plugins: None,
        group: GroupLink::Alone,
        labels: None,
    })
}

/// Consumers of these names with these credentials, and `guest`.
fn consumers(credentials: &[(&str, Value)]) -> Arc<Consumers> {
    let mut index = CredentialIndex::new([1; 16]);
    for (order, (name, json)) in (0..).zip(credentials) {
        let credential = testing::credential(&DEF, json).expect("credential is valid");
        let id = name.contains('/').then(|| Arc::from("c1"));
        let owner = consumer(name.split('/').next().unwrap_or_default());
        let entry = CredentialEntry::new(owner, order, id, Some(credential.data));
        index.insert(&credential.lookup_key, entry);
    }
    let mut consumers = Consumers::of([consumer("guest")].into_iter());
    consumers.by_plugin.insert(NAME, index);
    Arc::new(consumers)
}

fn alice() -> Arc<Consumers> {
    consumers(&[("alice", json!({"key": "alice-key", "secret": SECRET}))])
}

fn hs256(secret: &str, header: &str, payload: &str) -> String {
    let message = [header, payload]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    signed(Algorithm::HS256, secret, &message)
}

fn signed(algorithm: Algorithm, secret: &str, message: &str) -> String {
    let key = SigningKey::from_secret(algorithm, secret.as_bytes()).expect("secret fits");
    let signature = key.sign(message.as_bytes()).expect("signs");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token of alice with this payload.
fn with_payload(payload: &str) -> String {
    hs256(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, payload)
}

fn with_header(header: &str) -> String {
    hs256(SECRET, header, r#"{"key":"alice-key"}"#)
}

fn good() -> String {
    with_payload(r#"{"key":"alice-key"}"#)
}

fn who(exchange: &Exchange) -> Option<&str> {
    let attached = exchange.state.consumer.as_ref()?;
    Some(&attached.consumer.username)
}

/// What becomes of a request with this token in `Authorization`: the consumer, or the message.
fn outcome(hooks: &Hooks, consumers: &Arc<Consumers>, token: &str) -> Result<String, String> {
    outcome_at(hooks, consumers, token, Duration::ZERO)
}

fn outcome_at(
    hooks: &Hooks,
    consumers: &Arc<Consumers>,
    token: &str,
    later: Duration,
) -> Result<String, String> {
    let mut exchange = Exchange::get("/").header("Authorization", token);
    exchange.state.consumers = Arc::clone(consumers);
    exchange.state.started += later;
    exchange.state.started_wall += later;
    match exchange.rewrite(hooks) {
        None => Ok(who(&exchange).expect("a consumer is attached").to_owned()),
        Some(answer) => {
            assert_eq!(answer.status, 401);
            let challenge = answered(&answer, "www-authenticate");
            assert_eq!(challenge, Some("Bearer realm=\"jwt\""));
            let body: Value = serde_json::from_str(body_text(&answer)).expect("body is JSON");
            Err(body["message"]
                .as_str()
                .expect("body has a message")
                .to_owned())
        }
    }
}

const INVALID: &str = "JWT token invalid";
const NO_USER: &str = "missing user key in JWT token";
const UNKNOWN: &str = "Invalid user key in JWT token";
const FAILED: &str = "failed to verify jwt";

#[test]
fn a_token_attaches_its_consumer_and_identity_headers() {
    let hooks = built(&DEF, &json!(null));
    let all = consumers(&[
        ("alice", json!({"key": "alice-key", "secret": SECRET})),
        (
            "bob/c1",
            json!({"key": "bob-key", "algorithm": "HS512", "secret": SECRET}),
        ),
    ]);
    let message =
        [r#"{"alg":"HS512"}"#, r#"{"key":"bob-key"}"#].map(|part| URL_SAFE_NO_PAD.encode(part));
    let bob = signed(Algorithm::HS512, SECRET, &message.join("."));
    for (token, name, credential) in [(good(), "alice", None), (bob, "bob", Some("c1"))] {
        // The second time it is remembered.
        for _ in 0..2 {
            let mut exchange = Exchange::get("/")
                .header("Authorization", &format!("Bearer {token}"))
                .header("X-Consumer-Username", "forged")
                .header("X-Credential-Identifier", "forged");
            exchange.state.consumers = Arc::clone(&all);
            assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
            assert_eq!(who(&exchange), Some(name));
            assert_eq!(exchange.values("x-consumer-username"), [name]);
            assert_eq!(
                exchange.values("x-credential-identifier"),
                credential.as_slice()
            );
            assert_eq!(
                exchange.values("authorization").len(),
                1,
                "not hidden by default"
            );
        }
    }
}

#[test]
fn the_first_place_that_has_a_token_counts() {
    let hooks = built(&DEF, &json!({}));
    let (token, all) = (good(), alice());
    let run = |exchange: Exchange| {
        let mut exchange = exchange;
        exchange.state.consumers = Arc::clone(&all);
        let answer = exchange.rewrite(&hooks);
        answer.map_or_else(String::new, |answer| body_text(&answer).to_owned())
    };
    let query = format!("/?a=1&jwt={token}");
    let cookie = format!("x=1; jwt={token}");
    let missing = "{\"message\":\"Missing JWT token in request\"}\n";
    let invalid = "{\"message\":\"JWT token invalid\"}\n";
    let get = Exchange::get;
    for (name, exchange, expected) in [
        ("nothing", get("/"), missing),
        (
            "others",
            get("/?jwts=x").header("Cookie", "jwts=x"),
            missing,
        ),
        (
            "Bearer",
            get("/").header("Authorization", &format!("Bearer {token}")),
            "",
        ),
        (
            "bearer",
            get("/").header("Authorization", &format!("bearer {token}")),
            "",
        ),
        ("bare", get("/").header("Authorization", &token), ""),
        (
            "BEARER",
            get("/").header("Authorization", &format!("BEARER {token}")),
            invalid,
        ),
        (
            "two blanks",
            get("/").header("Authorization", &format!("Bearer  {token}")),
            invalid,
        ),
        ("query", get(&query), ""),
        (
            "encoded",
            get(&query.replace('.', "%2E").replace("jwt=", "%6awt=")),
            "",
        ),
        ("cookie", get("/").header("Cookie", &cookie), ""),
        (
            "header first",
            get(&query).header("Authorization", "x"),
            invalid,
        ),
        (
            "empty header counts",
            get(&query).header("Authorization", ""),
            invalid,
        ),
        (
            "query before cookie",
            get("/?jwt=x").header("Cookie", &cookie),
            invalid,
        ),
        (
            "empty argument counts",
            get("/?jwt").header("Cookie", &cookie),
            invalid,
        ),
        (
            "two arguments",
            get(&format!("{query}&jwt={token}")),
            invalid,
        ),
        (
            "first of two headers",
            get("/")
                .header("Authorization", &token)
                .header("Authorization", "x"),
            invalid,
        ),
        (
            "last of two headers",
            get("/")
                .header("Authorization", "x")
                .header("Authorization", &token),
            invalid,
        ),
        (
            "two cookies",
            get("/").header("Cookie", &format!("{cookie}; jwt=x")),
            invalid,
        ),
        (
            "two cookies in two fields",
            get("/").header("Cookie", &cookie).header("Cookie", "jwt=x"),
            invalid,
        ),
        (
            "Basic",
            get("/").header("Authorization", "Basic Zm9vOmJhcg=="),
            invalid,
        ),
    ] {
        assert_eq!(run(exchange), expected, "{name}");
    }
    let hooks = built(&DEF, &json!({"header": "X-T", "query": "t", "cookie": "T"}));
    for exchange in [
        get("/").header("x-t", &token),
        get(&format!("/?t={token}")),
        get("/").header("Cookie", &format!("t=x; T={token}")),
    ] {
        let mut exchange = exchange;
        exchange.state.consumers = Arc::clone(&all);
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    }
    assert_eq!(hooks.redacted(), ["x-t", "t", "T"].map(Box::<str>::from));
}

#[test]
fn a_hidden_token_leaves_the_place_it_was_found_in() {
    let hooks = built(&DEF, &json!({"hide_credentials": true}));
    let token = good();
    let mut exchange = Exchange::get(&format!("/p%20q?a=%2F&jwt={token}&b"))
        .header("Authorization", &token)
        .header("Cookie", &format!("a=1; jwt={token}"));
    exchange.state.consumers = alice();
    assert!(exchange.rewrite(&hooks).is_none());
    assert!(exchange.values("authorization").is_empty());
    assert_eq!(exchange.target(), format!("/p%20q?a=%2F&jwt={token}&b"));
    assert!(exchange.rewrite(&hooks).is_none());
    assert_eq!(exchange.target(), "/p%20q?a=%2F&b");
    assert_eq!(exchange.values("cookie"), [format!("a=1; jwt={token}")]);
    assert!(exchange.rewrite(&hooks).is_none());
    assert_eq!(exchange.values("cookie"), ["a=1"]);

    // What is no token of ours may be another way's credential.
    let mut exchange = Exchange::get("/").header("Authorization", "Basic YTpi");
    assert!(exchange.rewrite(&hooks).is_some());
    assert_eq!(exchange.values("authorization"), ["Basic YTpi"]);
}

#[test]
fn the_anonymous_consumer_takes_over_any_failure() {
    let settings = json!({"anonymous_consumer": "guest", "hide_credentials": true});
    let hooks = built(&DEF, &settings);
    for token in [None, Some("x".to_owned()), Some(with_payload("{}"))] {
        let mut exchange = Exchange::get("/?jwt=x&a").header("Cookie", "jwt=x");
        if let Some(token) = &token {
            exchange = exchange.header("Authorization", token);
        }
        exchange.state.consumers = alice();
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(who(&exchange), Some("guest"));
        assert_eq!(exchange.target(), "/?a");
        assert!(exchange.values("authorization").is_empty());
        assert!(exchange.values("cookie").is_empty());
    }
    let hooks = built(&DEF, &json!({"anonymous_consumer": "nobody"}));
    let answer = outcome(&hooks, &alice(), "x");
    assert_eq!(answer, Err("Invalid user authorization".to_owned()));
}

#[test]
fn what_is_no_token_is_refused() {
    let (hooks, all) = (built(&DEF, &json!({})), alice());
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let parts = good();
    let parts: Vec<&str> = parts.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    let padded = |part: &str| format!("{part}{}", &"===="[part.len() % 4..]);
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "Bearer ".to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}."),
        format!("{header}.{payload}.{signature}.x"),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}.{signature}="),
        format!("{}.{payload}.{signature}", padded(header)),
        format!("{header}.{payload}.{}", padded(signature)),
        format!("{header}.{payload}.{signature}!"),
        format!("{header} .{payload}.{signature}"),
        format!("{}.{payload}.{signature}", encode("{")),
        format!("{}.{payload}.{signature}", encode("[]")),
        format!("{}.{payload}.{signature}", encode("\"HS256\"")),
        format!("{header}.{}.{signature}", encode("no JSON")),
        format!("{header}.{}.{signature}", encode("[]")),
        format!("{header}.{}.{signature}", encode("null")),
        format!("{header}.{payload}.{}", "A".repeat(20_000)),
        with_header(r#"{"alg":"HS256","crit":["exp"]}"#),
        with_header(r#"{"alg":"HS256","crit":[]}"#),
        with_header(r#"{"alg":"HS256","crit":null}"#),
        with_header(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#),
        with_header(r#"{"alg":"HS256","b64":false}"#),
        with_header(r#"{"alg":"HS256","b64":"x"}"#),
        with_header(r#"{"alg":"HS256","kid":7}"#),
        with_header(r#"{"alg":"none","alg":"HS256"}"#),
        with_header(r#"{"alg":"HS256","x":{"a":1,"a":2}}"#),
        with_header(r#"{"alg":"HS256"} {}"#),
        with_payload(r#"{"key":"bob","key":"alice-key"}"#),
        with_payload(r#"{"key":"alice-key","k\u0065y":"alice-key"}"#),
        with_payload(r#"{"key":"alice-key","exp":1,"exp":9999999999}"#),
        with_payload(r#"{"key":"alice-key","exp":1e999}"#),
        with_payload(r#"{"key":"alice-key","exp":NaN}"#),
        with_payload("\u{feff}{\"key\":\"alice-key\"}"),
    ] {
        assert_eq!(
            outcome(&hooks, &all, &token),
            Err(INVALID.to_owned()),
            "{token}"
        );
    }
    for header in [
        r#"{"alg":"HS256"}"#,
        r#" { "typ" : "JWE", "alg" : "HS256", "cty": null, "x": [1, {"alg": "none"}] } "#,
        r#"{"\u0061lg":"HS256","b64":true}"#,
        r#"{"alg":"HS256","kid":"whatever"}"#,
    ] {
        assert!(
            outcome(&hooks, &all, &with_header(header)).is_ok(),
            "{header}"
        );
    }
}

#[test]
fn unused_bits_of_the_signature_are_zero() {
    let (hooks, all, token) = (built(&DEF, &json!({})), alice(), good());
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    // 32 bytes are 43 characters, the last of which has two bits that mean nothing.
    let last = *signature.as_bytes().last().expect("a signature") as char;
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).expect("of the alphabet");
    for bits in 1..4 {
        let other = &alphabet[place + bits..=place + bits];
        let token = format!("{message}.{}{other}", &signature[..42]);
        assert_eq!(outcome(&hooks, &all, &token), Err(INVALID.to_owned()));
    }
    let token = format!("{message}.{}", STANDARD.encode(bytes));
    assert!(
        outcome(&hooks, &all, &token).is_err(),
        "padded, and of the other alphabet"
    );
}

#[test]
fn the_claim_that_names_the_consumer_is_asked() {
    let (hooks, all) = (built(&DEF, &json!({})), alice());
    for (payload, message) in [
        ("{}", NO_USER),
        (r#"{"key":false}"#, NO_USER),
        (r#"{"Key":"alice-key","x":{"key":"alice-key"}}"#, NO_USER),
        (r#"{"key":null}"#, UNKNOWN),
        (r#"{"key":7}"#, UNKNOWN),
        (r#"{"key":["alice-key"]}"#, UNKNOWN),
        (r#"{"key":""}"#, UNKNOWN),
        (r#"{"key":"alice"}"#, UNKNOWN),
        (r#"{"key":"$secret://vault/1/a/b"}"#, UNKNOWN),
        (r#"{"key":"$ENV://KEY"}"#, UNKNOWN),
    ] {
        let token = with_payload(payload);
        assert_eq!(
            outcome(&hooks, &all, &token),
            Err(message.to_owned()),
            "{payload}"
        );
    }
    assert_eq!(
        outcome(&hooks, &Arc::default(), &good()),
        Err(UNKNOWN.to_owned())
    );
    assert!(outcome(&hooks, &all, &with_payload(r#"{"key":"\u0061lice-key"}"#)).is_ok());

    let hooks = built(&DEF, &json!({"key_claim_name": "iss"}));
    let token = with_payload(r#"{"iss":"alice-key","key":"bob"}"#);
    assert_eq!(outcome(&hooks, &all, &token), Ok("alice".to_owned()));
    assert_eq!(outcome(&hooks, &all, &good()), Err(NO_USER.to_owned()));
    // One memory serves routes that read tokens by different claims.
    let hooks = built(&DEF, &json!({"key_claim_name": "exp"}));
    let token = with_payload(r#"{"exp":9999999999}"#);
    assert_eq!(outcome(&hooks, &all, &token), Err(UNKNOWN.to_owned()));
}

#[test]
fn a_token_does_not_choose_how_it_is_verified() {
    let hooks = built(&DEF, &json!({}));
    let rsa = PKey::from_rsa(Rsa::generate(2048).expect("key is made")).expect("key is RSA");
    let public = String::from_utf8(rsa.public_key_to_pem().expect("PEM")).expect("text");
    let all = consumers(&[
        ("alice", json!({"key": "alice-key", "secret": SECRET})),
        (
            "rsa",
            json!({"key": "rsa", "algorithm": "RS256", "public_key": public}),
        ),
    ]);
    let token = |header: &str, user: &str| {
        let parts = [header.to_owned(), format!("{{\"key\":\"{user}\"}}")];
        parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    };
    for alg in [
        "none", "None", "NONE", "", "hs256", "HS384", "HS512", "RS256", "dir",
    ] {
        let header = format!("{{\"alg\":\"{alg}\"}}");
        let message = token(&header, "alice-key");
        for token in [
            format!("{message}."),
            signed(Algorithm::HS256, SECRET, &message),
        ] {
            assert_eq!(
                outcome(&hooks, &all, &token),
                Err(FAILED.to_owned()),
                "{alg}"
            );
        }
    }
    for header in [
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"ALG":"HS256"}"#,
    ] {
        let token = signed(Algorithm::HS256, SECRET, &token(header, "alice-key"));
        assert_eq!(
            outcome(&hooks, &all, &token),
            Err(FAILED.to_owned()),
            "{header}"
        );
    }
    // The public key as a shared secret, the classic.
    for alg in ["HS256", "RS256"] {
        let message = token(&format!("{{\"alg\":\"{alg}\"}}"), "rsa");
        let token = signed(Algorithm::HS256, &public, &message);
        assert_eq!(
            outcome(&hooks, &all, &token),
            Err(FAILED.to_owned()),
            "{alg}"
        );
    }
    // Keys in the header are not even looked at.
    let header = json!({"alg": "RS256", "jku": "http://192.0.2.1/", "x5c": ["x"], "jwk": {"kty": "oct", "k": "eA"}});
    let token = signed(Algorithm::HS256, "x", &token(&header.to_string(), "rsa"));
    assert_eq!(outcome(&hooks, &all, &token), Err(FAILED.to_owned()));
}

/// A key pair as PEM: private, public.
fn pems(key: &PKey<Private>) -> (Vec<u8>, String) {
    let public = String::from_utf8(key.public_key_to_pem().expect("PEM"));
    (
        key.private_key_to_pem_pkcs8().expect("PEM"),
        public.expect("text"),
    )
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("curve is known");
    PKey::from_ec_key(EcKey::generate(&group).expect("key is made")).expect("key is EC")
}

#[test]
fn every_algorithm_serves() {
    let hooks = built(&DEF, &json!({}));
    let rsa = PKey::from_rsa(Rsa::generate(2048).expect("key is made")).expect("key is RSA");
    for algorithm in Algorithm::ALL {
        let keys = match algorithm {
            Algorithm::ES256 => vec![ec(Nid::X9_62_PRIME256V1)],
            Algorithm::ES384 => vec![ec(Nid::SECP384R1)],
            Algorithm::ES512 => vec![ec(Nid::SECP521R1)],
            Algorithm::EdDSA => vec![
                PKey::generate_ed25519().expect("key is made"),
                PKey::generate_ed448().expect("key is made"),
            ],
            _ => vec![rsa.clone()],
        };
        for key in keys {
            let (private, public) = pems(&key);
            let (signing, credential) = if algorithm.family() == Family::Hmac {
                (
                    SigningKey::from_secret(algorithm, &private),
                    json!({"key": "k", "algorithm": algorithm.name(), "secret": String::from_utf8(private).expect("text")}),
                )
            } else {
                (
                    SigningKey::from_pem(algorithm, &private),
                    json!({"key": "k", "algorithm": algorithm.name(), "public_key": public}),
                )
            };
            let token = signing
                .expect("key fits")
                .encode(&json!({"key": "k"}))
                .expect("signs");
            let all = consumers(&[("alice", credential)]);
            let twice = [(); 2].map(|()| outcome(&hooks, &all, &token));
            assert_eq!(
                twice,
                [Ok("alice".to_owned()), Ok("alice".to_owned())],
                "{algorithm}"
            );
            let (message, _) = token.rsplit_once('.').expect("three parts");
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode([1; 64]));
            assert_eq!(
                outcome(&hooks, &all, &token),
                Err(FAILED.to_owned()),
                "{algorithm}"
            );
        }
    }
}

#[test]
fn times_are_held_to_what_the_route_asks() {
    let grace = consumers(&[(
        "alice",
        json!({"key": "alice-key", "secret": SECRET, "lifetime_grace_period": 10}),
    )]);
    let (default, exp, nbf, both) = (
        built(&DEF, &json!({})),
        built(&DEF, &json!({"claims_to_verify": ["exp"]})),
        built(&DEF, &json!({"claims_to_verify": ["nbf"]})),
        built(&DEF, &json!({"claims_to_verify": ["nbf", "exp"]})),
    );
    let at = |claim: &str, offset: i64| format!(r#""{claim}":{}"#, NOW.cast_signed() + offset);
    let later = format!(r#"{},"nbf":-1"#, at("exp", 1));
    // Payload, then whether each of the four routes lets it in.
    for (claims, passes) in [
        ("\"x\":0", [true, false, false, false]),
        (&at("exp", 1), [true, true, false, false]),
        (&at("exp", 0), [false, false, false, false]),
        (&at("exp", -1), [false, false, false, false]),
        (&at("nbf", -1), [true, false, true, false]),
        (&at("nbf", 0), [false, false, false, false]),
        (&at("nbf", 1), [false, false, false, false]),
        (&later, [true, true, true, true]),
        (
            &format!("{},{}", at("exp", 1), at("nbf", 1)),
            [false, true, false, false],
        ),
        (
            &format!("{},{}", at("exp", -1), at("nbf", -1)),
            [false, false, true, false],
        ),
        (
            "\"exp\":1.7000000005e9,\"nbf\":1.6999999995e9",
            [true, true, true, true],
        ),
        ("\"exp\":1.6999999995e9", [false, false, false, false]),
        ("\"exp\":1e300,\"nbf\":-1e300", [true, true, true, true]),
        ("\"exp\":18446744073709551615", [true, true, false, false]),
        (
            "\"exp\":123456789012345678901234567890",
            [true, true, false, false],
        ),
        ("\"exp\":-1", [false, false, false, false]),
        ("\"exp\":0", [false, false, false, false]),
        ("\"exp\":\"9999999999\"", [false, false, false, false]),
        ("\"exp\":null", [false, false, false, false]),
        ("\"exp\":true", [false, false, false, false]),
        ("\"exp\":[9999999999]", [false, false, false, false]),
        (
            "\"nbf\":\"1\",\"exp\":9999999999",
            [false, true, false, false],
        ),
        ("\"nbf\":{},\"exp\":9999999999", [false, true, false, false]),
    ] {
        let token = with_payload(&format!("{{\"key\":\"alice-key\",{claims}}}"));
        for (hooks, passes) in [&default, &exp, &nbf, &both].into_iter().zip(passes) {
            // Twice, since the second time it may be remembered.
            for _ in 0..2 {
                let expected = if passes { Ok("alice") } else { Err(FAILED) };
                let expected = expected.map(str::to_owned).map_err(str::to_owned);
                assert_eq!(outcome(hooks, &alice(), &token), expected, "{claims}");
            }
        }
    }
    for (claims, passes) in [
        (at("exp", -9), true),
        (at("exp", -10), false),
        (at("nbf", 9), true),
        (at("nbf", 10), false),
    ] {
        let token = with_payload(&format!("{{\"key\":\"alice-key\",{claims}}}"));
        assert_eq!(
            outcome(&default, &grace, &token).is_ok(),
            passes,
            "{claims}"
        );
    }
}

#[test]
fn a_remembered_token_ends_when_it_ends() {
    let (hooks, all) = (built(&DEF, &json!({})), alice());
    let token = with_payload(&format!("{{\"key\":\"alice-key\",\"exp\":{}}}", NOW + 60));
    for (secs, passes) in [(0, true), (59, true), (60, false), (61, false), (10, true)] {
        let found = outcome_at(&hooks, &all, &token, Duration::from_secs(secs));
        assert_eq!(found.is_ok(), passes, "{secs}");
    }
}

/// The old token is in the memory of the plugin when the consumers change under it.
#[test]
fn a_change_of_the_consumer_counts_at_once() {
    let hooks = built(&DEF, &json!({}));
    let old = good();
    let named = |secret: &str, kid: &str| {
        let keys = json!([{"kid": kid, "secret": secret}]);
        consumers(&[("alice", json!({"key": "alice-key", "keys": keys}))])
    };
    for (change, after, expected) in [
        ("nothing", alice(), Ok("alice")),
        (
            "the secret",
            consumers(&[(
                "alice",
                json!({"key": "alice-key", "secret": "another secret"}),
            )]),
            Err(FAILED),
        ),
        (
            "the algorithm",
            consumers(&[(
                "alice",
                json!({"key": "alice-key", "algorithm": "HS512", "secret": SECRET}),
            )]),
            Err(FAILED),
        ),
        (
            "the key",
            consumers(&[("alice", json!({"key": "other", "secret": SECRET}))]),
            Err(UNKNOWN),
        ),
        (
            "whose it is",
            consumers(&[("bob", json!({"key": "alice-key", "secret": SECRET}))]),
            Ok("bob"),
        ),
        ("all gone", consumers(&[]), Err(UNKNOWN)),
        ("the plugin's index gone", Arc::default(), Err(UNKNOWN)),
        ("a named key, the only one", named(SECRET, "a"), Ok("alice")),
        (
            "another named key",
            named("another secret", "a"),
            Err(FAILED),
        ),
    ] {
        assert_eq!(outcome(&hooks, &alice(), &old), Ok("alice".to_owned()));
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(outcome(&hooks, &after, &old), expected, "{change}");
    }
    // A leeway that is taken back.
    let with_grace = |secs: u32| {
        let json = json!({"key": "alice-key", "secret": SECRET, "lifetime_grace_period": secs});
        consumers(&[("alice", json)])
    };
    let token = with_payload(&format!("{{\"key\":\"alice-key\",\"exp\":{}}}", NOW - 5));
    assert!(outcome(&hooks, &with_grace(10), &token).is_ok());
    assert!(outcome(&hooks, &with_grace(0), &token).is_err());
    assert!(outcome(&hooks, &with_grace(10), &token).is_ok());
}

#[test]
fn a_kid_names_the_key() {
    let hooks = built(&DEF, &json!({}));
    let token = |secret: &str, kid: Option<&str>| {
        let kid = kid.map_or_else(String::new, |kid| format!(",\"kid\":\"{kid}\""));
        hs256(
            secret,
            &format!("{{\"alg\":\"HS256\"{kid}}}"),
            r#"{"key":"k"}"#,
        )
    };
    let two =
        json!([{"kid": "new", "secret": "new secret"}, {"kid": "old", "secret": "old secret"}]);
    let two = consumers(&[("alice", json!({"key": "k", "keys": two}))]);
    let one = json!([{"kid": "new", "secret": "new secret"}]);
    let one = consumers(&[("alice", json!({"key": "k", "keys": one}))]);
    for (token, in_two, in_one) in [
        (token("new secret", Some("new")), true, true),
        (token("old secret", Some("old")), true, false),
        (token("old secret", Some("new")), false, false),
        (token("new secret", Some("other")), false, false),
        (token("new secret", None), false, true),
        (token("old secret", None), false, false),
    ] {
        // There and back: what is remembered of one set says nothing about the other.
        for (set, passes) in [(&two, in_two), (&one, in_one), (&two, in_two)] {
            let expected = if passes { Ok("alice") } else { Err(FAILED) };
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(outcome(&hooks, set, &token), expected);
        }
    }
}

#[test]
fn the_payload_is_kept_where_asked() {
    use crate::expr::{VarSource as _, Variable};
    let (token, all) = (
        with_payload(r#"{"key":"alice-key","role":"admin"}"#),
        alice(),
    );
    for (json, expected) in [
        (json!({"store_in_ctx": true}), Some("admin")),
        (json!({}), None),
    ] {
        let hooks = built(&DEF, &json);
        for _ in 0..2 {
            let mut exchange = Exchange::get("/").header("Authorization", &token);
            exchange.state.consumers = Arc::clone(&all);
            assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
            let claim = Variable::parse("jwt_auth_payload.role");
            assert_eq!(exchange.ctx().var(&claim).as_deref(), expected);
            let whole = Variable::parse("jwt_auth_payload");
            let whole = exchange.ctx().var(&whole).map(std::borrow::Cow::into_owned);
            assert_eq!(whole.is_some(), expected.is_some());
        }
    }
    let hooks = built(
        &DEF,
        &json!({"store_in_ctx": true, "anonymous_consumer": "guest"}),
    );
    let mut exchange = Exchange::get("/").header("Authorization", &format!("{token}x"));
    exchange.state.consumers = all;
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    let claim = Variable::parse("jwt_auth_payload.role");
    assert_eq!(
        exchange.ctx().var(&claim),
        None,
        "nothing of a token that failed"
    );
}

#[test]
fn wrong_configuration_names_the_field_and_no_value() {
    for (json, expected) in [
        (json!({"header": ""}), "header: must be a header name"),
        (
            json!({"key_claim_name": ""}),
            "key_claim_name: must not be empty",
        ),
        (
            json!({"claims_to_verify": ["exp", "iat"]}),
            "claims_to_verify: must hold \"exp\" and \"nbf\" only",
        ),
        (
            json!({"claims_to_verify": ["exp", "exp"]}),
            "claims_to_verify: must not hold a claim twice",
        ),
        (
            json!({"anonymous_consumer": ""}),
            "anonymous_consumer: must not be empty",
        ),
        (
            json!({"hide_credentials": "hunter2"}),
            "hide_credentials: expected a boolean",
        ),
        (
            json!({"realm": "a\"b"}),
            "realm: must be 1 to 128 printable ASCII characters without '\"' and '\\'",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
    assert!(testing::build(&DEF, &json!({"claims_to_verify": []})).is_ok());
}

/// What the plugin finds out is in its memory, and only once it was found to be good.
#[test]
fn a_token_is_remembered_once_it_was_good() {
    testing::With::default().with(|ctx| {
        let challenge = HeaderValue::from_static("Bearer");
        let plugin = JwtAuth::new(JwtAuthConfig::default(), &challenge, ctx);
        let plugin = plugin.expect("configuration is valid");
        let memory = plugin.remembered.as_deref().expect("it is on");
        let expired = with_payload(&format!("{{\"key\":\"alice-key\",\"exp\":{}}}", NOW - 1));
        for (token, is_good) in [
            (good(), true),
            (expired, false),
            (format!("{}x", good()), false),
            (with_payload(r#"{"key":"bob"}"#), false),
            (
                hs256("wrong", r#"{"alg":"HS256"}"#, r#"{"key":"alice-key"}"#),
                false,
            ),
        ] {
            let mut exchange = Exchange::get("/");
            exchange.state.consumers = alice();
            let now = exchange.state.started;
            let id = memory.id("key", token.as_bytes());
            assert!(memory.find(id, now).is_none());
            let verdict = plugin.judge(&mut exchange.ctx(), token.as_bytes());
            assert_eq!(verdict.is_ok(), is_good, "{token}");
            assert_eq!(memory.find(id, now).is_some(), is_good, "{token}");
        }
    });
}
