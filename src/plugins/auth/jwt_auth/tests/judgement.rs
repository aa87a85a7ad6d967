//! Which tokens are good: their form, their key and its algorithm, their times.

use super::*;

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
