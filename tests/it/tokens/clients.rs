//! Tokens of the libraries clients use, `PyJWT` and npm's `jsonwebtoken` and `jose`: what they sign
//! the program takes, what is tampered with it refuses, and what our keys sign they take. Each
//! library runs once per test for all of its tokens.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger::jwt::{Algorithm, SigningKey};
use serde_json::{Value, json};

use super::keys::{self, Key};
use crate::harness::client::Reply;
use crate::harness::{Behaviour, Connection, Gateway, OpenBao, Upstream, tool};

/// A library that signs and verifies.
pub struct Library {
    program: &'static str,
    script: &'static str,
    /// Names of keys it knows no algorithm for.
    lacks: &'static [&'static str],
}

const PYJWT: Library = Library {
    program: "python3",
    script: "tests/tokens/pyjwt_jobs.py",
    lacks: &[],
};
const JSONWEBTOKEN: Library = Library {
    program: "node",
    script: "tests/node/jsonwebtoken_jobs.js",
    lacks: &["EdDSA", "Ed448"],
};
pub const JOSE: Library = Library {
    program: "node",
    script: "tests/node/jose_jobs.js",
    lacks: &[],
};

impl Library {
    /// Runs jobs `{do: sign, alg, key, claims, header}` and `{do: verify, alg, key, token}`, whose
    /// results are `{token}`, `{claims}` or `{error}`.
    pub fn run(&self, jobs: &[Value]) -> Vec<Value> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.script);
        let mut child = Command::new(tool(self.program))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup.sh test", self.program));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&serde_json::to_vec(jobs).unwrap()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let script = self.script;
        assert!(
            output.status.success(),
            "{script} failed; run scripts/setup.sh test"
        );
        let results: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(results.len(), jobs.len());
        results
    }

    fn sign(&self, jobs: &[Value]) -> Vec<String> {
        let token = |(result, job): (Value, &Value)| {
            let token = result["token"].as_str();
            let script = self.script;
            let token = token.unwrap_or_else(|| panic!("{script}: {} {result}", job["alg"]));
            token.to_owned()
        };
        self.run(jobs).into_iter().zip(jobs).map(token).collect()
    }

    fn knows(&self, key: &Key) -> bool {
        !self.lacks.contains(&key.name)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Claims that the consumer of this key's name has.
fn claims(key: &Key) -> Value {
    json!({ "key": key.name, "sub": "tester", "exp": now() + 3600, "nbf": now() - 60 })
}

fn to_sign(key: &Key, claims: &Value) -> Value {
    let algorithm = key.algorithm.name();
    json!({ "do": "sign", "alg": algorithm, "key": key.private, "claims": claims, "header": {} })
}

fn to_verify(key: &Key, token: &str) -> Value {
    json!({ "do": "verify", "alg": key.algorithm.name(), "key": key.public, "token": token })
}

/// A gateway with a consumer for each key, whose keys come out of the environment (secrets), files
/// (RSA) and `OpenBao` (the rest).
async fn gateway(keys: &[Key], upstream: &Upstream) -> (Gateway, OpenBao) {
    let bao = OpenBao::start().await;
    let mut builder = Gateway::builder();
    let mut consumers = String::new();
    for key in keys {
        let name = key.name;
        let (field, reference) = if key.is_secret() {
            builder = builder.env(&format!("KEY_{name}"), &key.public);
            ("secret", format!("$env://KEY_{name}"))
        } else if key.private.len() > 1000 {
            builder = builder.file(&format!("keys/{name}/public"), &key.public);
            ("public_key", format!("$secret://file/keys/{name}/public"))
        } else {
            bao.put_v2(&format!("keys/{name}"), json!({ "public": key.public }))
                .await;
            (
                "public_key",
                format!("$secret://vault/bao/keys/{name}/public"),
            )
        };
        consumers += &format!(
            "  - {{ username: of-{name}, plugins: {{ jwt-auth: {{ key: {name}, algorithm: {}, \
             {field}: '{reference}' }} }} }}\n",
            key.algorithm
        );
    }
    let resources = format!(
        "secrets:\n  - {{ id: file/keys, path: keys }}\n  - {{ id: vault/bao, uri: '{}', \
         prefix: secret, token: '{}', kv_version: 2 }}\nconsumers:\n{consumers}routes:\n  \
         - {{ id: 1, uri: /*, plugins: {{ jwt-auth: {{}} }}, upstream: {{ nodes: {{ '{}': 1 }} }} }}\n",
        bao.addr, bao.token, upstream.addr
    );
    (builder.resources(resources).start(), bao)
}

/// Ways to carry a token.
const WAYS: [fn(&mut Connection, &str) -> Reply; 4] = [
    |connection, token| {
        ask(
            connection,
            "/",
            &[("Authorization", &format!("Bearer {token}"))],
        )
    },
    |connection, token| ask(connection, "/", &[("Authorization", token)]),
    |connection, token| ask(connection, &format!("/?a=1&jwt={token}"), &[]),
    |connection, token| ask(connection, "/", &[("Cookie", &format!("a=1; jwt={token}"))]),
];

fn ask(connection: &mut Connection, target: &str, headers: &[(&str, &str)]) -> Reply {
    let headers: Vec<_> = [("Host", "a.test")]
        .iter()
        .chain(headers)
        .copied()
        .collect();
    connection.request("GET", target, &headers);
    connection.expect_reply()
}

/// Changed copies of a token that nobody signed so.
fn tampered(token: &str, key: &Key, others: &[Algorithm]) -> Vec<(String, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let decoded = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let mut claims: Value = serde_json::from_slice(&decoded).unwrap();
    claims["sub"] = json!("mallory");
    let forged = encode(&claims.to_string());
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let flipped = URL_SAFE_NO_PAD.encode(flipped);
    let mut copies = vec![
        ("payload", format!("{header}.{forged}.{signature}")),
        ("signature", format!("{header}.{payload}.{flipped}")),
        ("no signature", format!("{header}.{payload}.")),
        ("cut", token[..token.len() - 5].to_owned()),
        ("longer", format!("{token}AAAA")),
    ];
    for none in ["none", "None", "NONE", ""] {
        let header = encode(&json!({ "typ": "JWT", "alg": none }).to_string());
        copies.push(("alg none, unsigned", format!("{header}.{payload}.")));
        copies.push((
            "alg none, signed",
            format!("{header}.{payload}.{signature}"),
        ));
    }
    let mut copies: Vec<_> = copies
        .into_iter()
        .map(|(what, token)| (what.to_owned(), token))
        .collect();
    for other in others.iter().filter(|other| **other != key.algorithm) {
        let header = encode(&json!({ "typ": "JWT", "alg": other.name() }).to_string());
        copies.push((
            format!("alg {other}"),
            format!("{header}.{payload}.{signature}"),
        ));
    }
    if !key.is_secret() {
        // The public key, which anyone has, as a shared secret.
        for hmac in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            for text in [key.public.as_str(), key.public.trim()] {
                let signing = SigningKey::from_secret(hmac, text.as_bytes()).unwrap();
                let token = signing.encode(&claims).unwrap();
                copies.push((format!("{hmac} by the public key"), token));
            }
        }
    }
    copies
}

async fn speaks(library: &Library) {
    let keys: Vec<_> = keys::all()
        .into_iter()
        .filter(|key| library.knows(key))
        .collect();
    let others = keys::others(&keys);
    let upstream = Upstream::start(Behaviour::ok());
    let (gateway, _bao) = gateway(&keys, &upstream).await;

    // What the library signs: good ones, and those of another key, past and of tomorrow.
    let with = |key: &Key, name: &str, at: u64| {
        let mut claims = claims(key);
        claims[name] = json!(at);
        to_sign(key, &claims)
    };
    let good = keys.iter().map(|key| to_sign(key, &claims(key)));
    let strange = others.iter().map(|key| to_sign(key, &claims(key)));
    let expired = keys.iter().map(|key| with(key, "exp", now() - 10));
    let early = keys.iter().map(|key| with(key, "nbf", now() + 600));
    let jobs: Vec<_> = good.chain(strange).chain(expired).chain(early).collect();
    let tokens = library.sign(&jobs);
    let (good, bad) = tokens.split_at(keys.len());

    let mut connection = gateway.connect();
    for (key, token) in keys.iter().zip(good) {
        for (way, send) in WAYS.iter().enumerate() {
            let reply = send(&mut connection, token);
            let name = key.name;
            assert_eq!(reply.status, 200, "{name}, way {way}: {}", reply.text());
            let seen = upstream.requests().pop().unwrap();
            let consumer = format!("of-{name}");
            assert_eq!(seen.header("x-consumer-username"), Some(consumer.as_str()));
        }
    }
    let served = upstream.count();
    assert_eq!(served, keys.len() * WAYS.len());

    let algorithms: Vec<_> = Algorithm::ALL.to_vec();
    let kinds = ["another key", "expired", "not yet valid"];
    let kinds = kinds
        .iter()
        .flat_map(|kind| keys.iter().map(move |key| (kind, key)));
    let signed = kinds
        .zip(bad)
        .map(|((kind, key), token)| (format!("{} {kind}", key.name), token.clone()));
    let changed = keys.iter().zip(good).flat_map(|(key, token)| {
        let copies = tampered(token, key, &algorithms).into_iter();
        copies.map(|(what, token)| (format!("{} {what}", key.name), token))
    });
    for (number, (what, token)) in signed.chain(changed).enumerate() {
        let reply = WAYS[number % WAYS.len()](&mut connection, &token);
        assert_eq!(reply.status, 401, "{what}");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Bearer realm=\"jwt\""),
            "{what}"
        );
    }
    assert_eq!(
        upstream.count(),
        served,
        "nothing refused reaches the upstream"
    );
}

/// What our keys sign is what the library expects, and it sees every change.
fn understands(library: &Library) {
    let keys: Vec<_> = keys::all()
        .into_iter()
        .filter(|key| library.knows(key))
        .collect();
    let others = keys::others(&keys);
    let tokens: Vec<_> = keys
        .iter()
        .map(|key| key.signs().encode(&claims(key)).unwrap())
        .collect();
    let good = keys
        .iter()
        .zip(&tokens)
        .map(|(key, token)| to_verify(key, token));
    let strange = others
        .iter()
        .zip(&tokens)
        .map(|(key, token)| to_verify(key, token));
    let changed = keys.iter().zip(&tokens).map(|(key, token)| {
        let (_, changed) = tampered(token, key, &[]).swap_remove(1);
        to_verify(key, &changed)
    });
    let jobs: Vec<_> = good.chain(strange).chain(changed).collect();
    let results = library.run(&jobs);
    let (good, bad) = results.split_at(keys.len());
    for (key, result) in keys.iter().zip(good) {
        assert_eq!(result["claims"]["key"], key.name, "{}: {result}", key.name);
    }
    for (number, result) in bad.iter().enumerate() {
        let name = keys[number % keys.len()].name;
        assert!(result["error"].is_string(), "{name}: {result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pyjwt_signs_is_taken_and_nothing_else() {
    speaks(&PYJWT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_jsonwebtoken_signs_is_taken_and_nothing_else() {
    speaks(&JSONWEBTOKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_jose_signs_is_taken_and_nothing_else() {
    speaks(&JOSE).await;
}

#[test]
fn what_we_sign_is_taken_by_every_library() {
    std::thread::scope(|scope| {
        for library in [&PYJWT, &JSONWEBTOKEN, &JOSE] {
            scope.spawn(move || understands(library));
        }
    });
}
