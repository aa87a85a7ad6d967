use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

fn key(text: &str) -> Key {
    match Reference::parse(text).expect("reference must parse").target {
        Target::Managed(key) => key,
        Target::Env { .. } => panic!("{text} is not an env reference"),
    }
}

fn error(text: &str) -> String {
    Reference::parse(text)
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn only_a_whole_string_with_a_prefix_claims_to_be_a_reference() {
    for (text, claims) in [
        ("$secret://vault/1/a/b", true),
        ("$secret://", true),
        ("$SECRET://vault/1/a/b", true),
        ("$env://A", true),
        ("$ENV://A", true),
        ("$eNv://", true),
        ("Bearer $env://T", false),
        ("$remote_addr", false),
        ("$env:/", false),
        ("", false),
        ("€€€", false),
    ] {
        assert_eq!(Reference::is_reference(text), claims, "{text:?}");
    }
}

#[test]
fn env_references_end_the_name_at_the_first_slash() {
    for (text, name, json_key) in [
        ("$env://A", "A", None),
        ("$ENV://a_B", "a_B", None),
        ("$env://A/k", "A", Some("k")),
        ("$env://A/k/l/../m", "A", Some("k/l/../m")),
        ("$env://A/", "A", None),
        ("$env://A?x=y#z", "A?x=y#z", None),
    ] {
        let parsed = Reference::parse(text).expect("reference must parse");
        let expected = Target::Env {
            name: name.into(),
            json_key: json_key.map(Into::into),
        };
        assert_eq!(parsed.target(), &expected, "{text}");
        assert_eq!(parsed.as_str(), text);
    }
}

#[test]
fn managed_references_are_taken_apart() {
    for (text, path, field, version, decode) in [
        ("$secret://vault/1/jack/key", "jack/key", None, None, false),
        ("$secret://vault/1/k", "k", None, None, false),
        ("$secret://vault/1/a/b/c d", "a/b/c d", None, None, false),
        ("$secret://vault/1/a/b#f/g", "a/b", Some("f/g"), None, false),
        (
            "$secret://vault/1/a/b?version=7",
            "a/b",
            None,
            Some("7"),
            false,
        ),
        (
            "$secret://vault/1/a/b?decode=base64",
            "a/b",
            None,
            None,
            true,
        ),
        (
            "$secret://vault/1/a/b?decode=base64&version=7#x",
            "a/b",
            Some("x"),
            Some("7"),
            true,
        ),
        (
            "$secret://vault/1/100%/ключ",
            "100%/ключ",
            None,
            None,
            false,
        ),
        (
            "$secret://vault/1/.../..a/a..",
            ".../..a/a..",
            None,
            None,
            false,
        ),
    ] {
        let key = key(text);
        assert_eq!(&*key.manager, "vault/1", "{text}");
        assert_eq!(&*key.path, path, "{text}");
        assert_eq!(key.field.as_deref(), field, "{text}");
        assert_eq!(key.version.as_deref(), version, "{text}");
        assert_eq!(key.decode.is_some(), decode, "{text}");
    }
}

#[test]
fn malformed_references_say_what_apisix_says() {
    for (text, message) in [
        (
            "Bearer hunter2-hunter2",
            "error secret_uri prefix: Bearer hun",
        ),
        ("$secret://", "error format: no secret manager"),
        ("$secret://vault", "error format: no secret manager"),
        ("$secret:///1/k", "error format: no secret manager"),
        ("$secret://vault/", "error format: no secret conf id"),
        ("$secret://vault/1", "error format: no secret conf id"),
        ("$secret://vault//k", "error format: no secret conf id"),
        ("$secret://vault/1/", "error format: no secret key id"),
        (
            "$secret://vault/1/?version=1",
            "error format: no secret key id",
        ),
        ("$secret://vault/1/a#", "error format: no secret key id"),
        ("$env://", "error format: no env name"),
        ("$env:///k", "error format: no env name"),
        (
            "$env://A\nB",
            "error format: control character in secret key",
        ),
        (
            "$secret://vault/1/a?v=1",
            "error format: a query knows only version= and decode=",
        ),
        (
            "$secret://vault/1/a?",
            "error format: a query knows only version= and decode=",
        ),
        (
            "$secret://vault/1/a?decode=hex",
            "error format: decode knows only base64",
        ),
        (
            "$secret://vault/1/a?version=1&version=2",
            "error format: query parameter given twice",
        ),
        (
            "$secret://vault/1/a#f?version=1",
            "error format: the query stands before the '#'",
        ),
    ] {
        assert_eq!(error(text), message, "{text:?}");
    }
    for version in ["", "a/b", "..%2f", "é", &"9".repeat(129)] {
        assert!(error(&format!("$secret://vault/1/a?version={version}")).contains("version is"));
    }
    assert!(error(&format!("$secret://vault/1/{}", "a".repeat(5000))).contains("4096"));
}

#[test]
fn no_segment_can_step_out_of_the_prefix() {
    let bad = [
        "",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        "a%2fb",
        "a%2Fb",
        "a%252fb",
        "..%2f..",
        "a\\b",
        "a%5cb",
        "a\0b",
        "a\nb",
        "a%00b",
        "a%0d%0ab",
        "a\u{85}b",
        "a\u{7f}",
        "..;",
        "..;v=1",
        ".%3bx",
        "%2e%2e%253B",
        "%c0%ae%c0%ae",
        "%25c0%25af",
        "%ff",
    ];
    for segment in bad {
        for text in [
            format!("$secret://vault/1/{segment}/f"),
            format!("$secret://vault/1/a/{segment}/f"),
            format!("$secret://vault/1/a/b/{segment}"),
            format!("$secret://vault/1/{segment}/b#f"),
            format!("$secret://{segment}/1/a/b"),
            format!("$secret://vault/{segment}/a/b"),
        ] {
            assert!(Reference::parse(&text).is_err(), "{text:?} must be refused");
        }
    }
}

/// Every text over a small hostile alphabet: what parses has only harmless segments.
#[test]
fn whatever_parses_stays_below_its_manager() {
    let alphabet = ["a", "/", ".", "%", "2e", "2f", "25", "?", "#", "\\", "\0"];
    let mut texts = vec![String::new()];
    for _ in 0..5 {
        let longer = texts
            .iter()
            .flat_map(|text| alphabet.map(|piece| format!("{text}{piece}")))
            .collect();
        texts = longer;
    }
    for rest in texts {
        let Ok(reference) = Reference::parse(&format!("$secret://vault/1/{rest}")) else {
            continue;
        };
        let Target::Managed(key) = reference.target() else {
            panic!("{rest:?} must not become an env reference");
        };
        for segment in key.path.split('/') {
            let read = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
            for bad in ["..", "."] {
                assert_ne!(read, bad, "{rest:?}");
            }
            assert!(!read.contains(['/', '\\', '\0', '?', '#']), "{rest:?}");
        }
    }
}

/// A segment as an attacker would write it: harmless or hostile, each byte plain or encoded up to
/// three times over, in either case, also overlong.
fn hostile_segment(random: &mut StdRng) -> String {
    const PIECES: &[&str] = &[
        "..", ".", "/", "\\", ";", "a", "é", "%", "\0", "\n", "?", "#", " ", "\u{ff0e}", "\u{2215}",
    ];
    let mut segment = String::new();
    for _ in 0..random.random_range(1..4) {
        let piece = PIECES[random.random_range(0..PIECES.len())];
        let times = random.random_range(0..4);
        let mut text = piece.to_owned();
        for _ in 0..times {
            let encoded = text.bytes().map(|byte| match random.random_range(0..8) {
                0 if !byte.is_ascii_control() => char::from(byte).to_string(),
                1 if byte < 0x40 => format!("%c0%{:02x}", byte | 0x80),
                n if n % 2 == 0 => format!("%{byte:02x}"),
                _ => format!("%{byte:02X}"),
            });
            let encoded: String = encoded.collect();
            text = encoded.chars().filter(char::is_ascii).collect();
        }
        segment.push_str(&text);
    }
    segment
}

/// How a path is read that was decoded any number of times on the way, by a reader who is lenient
/// with what is no UTF-8, cuts off parameters and resolves dots.
fn lenient_readings(path: &str) -> Vec<Vec<String>> {
    let mut reading = path.as_bytes().to_vec();
    let mut readings = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&reading).replace('\\', "/");
        let mut steps: Vec<String> = Vec::new();
        for step in text.split('/') {
            match step.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => {
                    steps.pop();
                }
                name => steps.push(name.to_owned()),
            }
        }
        readings.push(steps);
        let decoded: Vec<u8> = percent_encoding::percent_decode(&reading).collect();
        if decoded.len() == reading.len() {
            return readings;
        }
        reading = decoded;
    }
}

#[test]
fn no_accepted_reference_leaves_its_prefix_however_it_is_encoded() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..40_000 {
        let count = random.random_range(1..5);
        let segments: Vec<_> = (0..count).map(|_| hostile_segment(&mut random)).collect();
        let text = format!("$secret://vault/1/{}", segments.join("/"));
        let Ok(reference) = Reference::parse(&text) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let Target::Managed(key) = reference.target() else {
            panic!("{text:?} (seed {seed})");
        };
        let (path, field) = key.split_last();
        // As `vault` and `gcp` send it: each segment encoded by itself, below the prefix.
        let encode = |segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string();
        let sent: Vec<_> = path.split('/').map(encode).collect();
        let url = format!("http://manager/v1/mount/data/prefix/{}", sent.join("/"));
        let url = reqwest::Url::parse(&url).expect("an encoded path is part of a URL");
        for reading in lenient_readings(url.path()) {
            let inside = reading.starts_with(&["v1", "mount", "data", "prefix"].map(String::from));
            assert!(inside, "{text:?} is read as {reading:?} (seed {seed})");
        }
        // As `file` looks for it.
        let file = std::path::Path::new("/root").join(format!("{path}/{field}").trim_matches('/'));
        let leaves = file
            .components()
            .skip(2)
            .any(|component| !matches!(component, std::path::Component::Normal(_)));
        assert!(key.field.is_some() || !leaves, "{text:?} (seed {seed})");
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} {refused}");
}

#[test]
fn the_field_is_behind_the_last_slash_or_the_hash() {
    assert_eq!(key("$secret://vault/1/a/b/c").split_last(), ("a/b", "c"));
    assert_eq!(
        key("$secret://vault/1/a/b#c/d").split_last(),
        ("a/b", "c/d")
    );
    assert_eq!(key("$secret://vault/1/a").split_last(), ("", "a"));
}
