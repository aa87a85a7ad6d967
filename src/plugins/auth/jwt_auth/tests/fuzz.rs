//! Tokens changed at random, by a seed that is printed: none of them lets anyone in.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// A token of each kind of signature, and the consumer it is of.
fn tokens() -> (Vec<String>, Arc<Consumers>) {
    let rsa = PKey::from_rsa(Rsa::generate(2048).expect("key is made")).expect("key is RSA");
    let keys = [
        (Algorithm::RS256, rsa.clone()),
        (Algorithm::PS256, rsa),
        (Algorithm::ES256, ec(Nid::X9_62_PRIME256V1)),
        (Algorithm::ES512, ec(Nid::SECP521R1)),
        (
            Algorithm::EdDSA,
            PKey::generate_ed25519().expect("key is made"),
        ),
    ];
    let mut credentials = vec![("hs", json!({"key": "HS256", "secret": SECRET}))];
    let mut tokens = vec![{
        let key = SigningKey::from_secret(Algorithm::HS256, SECRET.as_bytes());
        let claims = json!({"key": "HS256", "exp": NOW + 100});
        key.expect("key fits").encode(&claims).expect("signs")
    }];
    for (algorithm, key) in &keys {
        let (private, public) = pems(key);
        let name = algorithm.name();
        credentials.push((
            "x",
            json!({"key": name, "algorithm": name, "public_key": public}),
        ));
        let key = SigningKey::from_pem(*algorithm, &private).expect("key fits");
        let claims = json!({"key": name, "exp": NOW + 100});
        tokens.push(key.encode(&claims).expect("signs"));
    }
    (tokens, consumers(&credentials))
}

/// Everything but the first is a change that leaves another text.
fn mutated(token: &str, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = token.as_bytes().to_vec();
    let place = random.random_range(0..bytes.len());
    match random.random_range(0..8) {
        0 => bytes[place] ^= 1 << random.random_range(0..7),
        1 => bytes[place] = random.random_range(b' '..=b'~'),
        2 => drop(bytes.remove(place)),
        3 => bytes.insert(place, random.random_range(b' '..=b'~')),
        4 => bytes.truncate(place),
        5 => bytes.swap(place, 0),
        6 => bytes.extend_from_within(place..),
        // A bit of what a part says, encoded anew.
        _ => {
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            let part = random.random_range(0..3);
            let mut said = URL_SAFE_NO_PAD.decode(&parts[part]).expect("base64url");
            let place = random.random_range(0..said.len());
            said[place] ^= 1 << random.random_range(0..8);
            parts[part] = URL_SAFE_NO_PAD.encode(said);
            bytes = parts.join(".").into_bytes();
        }
    }
    bytes
}

#[test]
fn no_changed_token_lets_anyone_in() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let hooks = built(&DEF, &json!({}));
    let (tokens, all) = tokens();
    for token in &tokens {
        assert!(
            outcome(&hooks, &all, token).is_ok(),
            "the token itself is good"
        );
    }
    for round in 0..3000 {
        let token = &tokens[round % tokens.len()];
        let changed = mutated(token, &mut random);
        let Ok(changed) = String::from_utf8(changed) else {
            continue;
        };
        if changed == *token || http::HeaderValue::try_from(&changed).is_err() {
            continue;
        }
        let found = outcome(&hooks, &all, &changed);
        assert!(found.is_err(), "seed {seed}, round {round}: {changed}");
    }
}

#[test]
fn the_readers_never_panic() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let pieces = [
        "{", "}", "[", "]", "\"", ":", ",", "\\u0000", "\\ud800", "alg", "kid", "crit", "b64",
        "HS256", "exp", "key", "1e9", "-", "null", "true", "\u{fc}", " ", "\n", ".", "0",
    ];
    for _ in 0..20_000 {
        let count = random.random_range(0..20);
        let picked = (0..count).map(|_| pieces[random.random_range(0..pieces.len())]);
        let text: String = picked.collect();
        let _ = Header::read(text.as_bytes());
        let _ = Payload::read(text.as_bytes(), "key");
        let mut bytes = text.into_bytes();
        for byte in &mut bytes {
            if random.random_range(0..10) == 0 {
                *byte = random.random();
            }
        }
        let _ = Header::read(&bytes);
        let _ = Payload::read(&bytes, "key");
        let _ = decode_base64url(&bytes);
        let _ = Compact::split(&bytes);
    }
}
