//! `basic-auth` through curl, which says names and passwords as browsers and libraries do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Curled, assert_local, counted, curl, get, over, send_on, start};
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, wait_until};

const RESOURCES: &str = "
consumers:
  - { username: alice, labels: { custom_id: '42' }, plugins: { basic-auth: { username: alice, password: 'se:cr:et' } } }
  - { username: zoe, plugins: { basic-auth: { username: zoë, password: 'pässwörd €' } } }
  - { id: zoe/credentials/second, plugins: { basic-auth: { username: zoe2, password: ' two words ' } } }
  - { username: guest }
routes:
  - { id: 1, uri: /plain, plugins: { basic-auth: {} }, NODE }
  - { id: 2, uri: /hidden, plugins: { basic-auth: { hide_credentials: true, realm: shop } }, NODE }
  - { id: 3, uri: /guest, plugins: { basic-auth: { anonymous_consumer: guest, hide_credentials: true } }, NODE }
  - { id: 4, uri: /nobody, plugins: { basic-auth: { anonymous_consumer: nobody } }, NODE }
";

const MISSING: &str = "{\"message\":\"Missing authorization in request\"}\n";
const MALFORMED: &str = "{\"message\":\"Invalid authorization in request\"}\n";
const UNKNOWN: &str = "{\"message\":\"Invalid user authorization\"}\n";

fn user(gateway: &Gateway, path: &str, pair: &str) -> Curled {
    curl(gateway, path, &["--basic", "-u", pair])
}

fn basic(pair: &[u8]) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn a_name_and_its_password_name_the_consumer_to_the_upstream() {
    let (upstream, gateway) = start(RESOURCES);
    for (pair, username, credential, custom_id) in [
        ("alice:se:cr:et", "alice", None, Some("42")),
        ("zoë:pässwörd €", "zoe", None, None),
        ("zoe2: two words ", "zoe", Some("second"), None),
    ] {
        let forged = [
            "-H",
            "X-Consumer-Username: root",
            "-H",
            "X-Credential-Identifier: x",
        ];
        let args = [&["-u", pair][..], &forged].concat();
        assert_eq!(curl(&gateway, "/plain", &args).status, 200, "{pair}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("x-consumer-username"), Some(username));
        assert_eq!(seen.header("x-credential-identifier"), credential);
        assert_eq!(seen.header("x-consumer-custom-id"), custom_id);
        let sent = basic(pair.as_bytes());
        assert_eq!(seen.header("authorization"), Some(&*sent), "is not hidden");
    }
    assert_eq!(user(&gateway, "/hidden", "alice:se:cr:et").status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("authorization"), None);
}

/// Path, headers, and what the refusal says: body and realm.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn refusals_are_exact_and_keep_the_connection() {
    let (upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    let right = basic(b"alice:se:cr:et");
    let twice = [("Authorization", &*right), ("Authorization", &*right)];
    let cases: [Case<'_>; 14] = [
        ("/plain", &[], MISSING, "basic"),
        ("/hidden", &[], MISSING, "shop"),
        ("/plain", &[("Authorization", "")], MALFORMED, "basic"),
        ("/plain", &[("Authorization", "Basic")], MALFORMED, "basic"),
        (
            "/plain",
            &[("Authorization", "Basic !")],
            MALFORMED,
            "basic",
        ),
        (
            "/plain",
            &[("Authorization", "Bearer YTpi")],
            MALFORMED,
            "basic",
        ),
        // APISIX takes these two: it looks for the scheme anywhere.
        (
            "/plain",
            &[("Authorization", &format!("x{right}"))],
            MALFORMED,
            "basic",
        ),
        (
            "/plain",
            &[("Authorization", &format!("{right} x"))],
            MALFORMED,
            "basic",
        ),
        ("/plain", &twice, MALFORMED, "basic"),
        (
            "/plain",
            &[("Authorization", &basic(b"alice"))],
            MALFORMED,
            "basic",
        ),
        (
            "/plain",
            &[("Authorization", &basic(b"a\x01:b"))],
            MALFORMED,
            "basic",
        ),
        (
            "/plain",
            &[("Authorization", &basic(b"alice:se"))],
            UNKNOWN,
            "basic",
        ),
        (
            "/plain",
            &[("Authorization", &basic(b"nobody:se:cr:et"))],
            UNKNOWN,
            "basic",
        ),
        (
            "/hidden",
            &[("Authorization", &basic(b"alice:wrong"))],
            UNKNOWN,
            "shop",
        ),
    ];
    for (path, headers, body, realm) in cases {
        let reply = send_on(&mut connection, "GET", path, headers);
        assert_local(&reply, 401, body);
        let challenge = format!("Basic realm=\"{realm}\"");
        assert_eq!(reply.header("www-authenticate"), Some(&*challenge));
    }
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    for (reason, count) in [
        ("missing", 2),
        ("malformed", 9),
        ("unknown", 1),
        ("mismatch", 2),
    ] {
        let series =
            format!("claviger_auth_failures_total{{plugin=\"basic-auth\",reason=\"{reason}\"}}");
        assert_eq!(counted(&gateway, &series), count, "{reason}");
    }
    let scheme = right.replace("Basic ", "bAsIc   ");
    let reply = send_on(
        &mut connection,
        "GET",
        "/plain",
        &[("Authorization", &scheme)],
    );
    assert_eq!(reply.status, 200, "the same connection serves on");
}

#[test]
fn odd_input_of_curl_is_refused() {
    let (upstream, gateway) = start(RESOURCES);
    for (pair, body) in [
        (&b"alice:"[..], MALFORMED),
        (b":se:cr:et", MALFORMED),
        (b":", MALFORMED),
        (b"\xff\xfe:\xfd", UNKNOWN),
        // ISO 8859-1, where the password is kept as UTF-8.
        (b"zo\xeb:p\xe4ssw\xf6rd", UNKNOWN),
        (b"alice:$secret://vault/1/a/b", UNKNOWN),
        (b"$env://PATH:x", UNKNOWN),
    ] {
        let args: [OsString; 2] = ["-u".into(), OsStr::from_bytes(pair).into()];
        let reply = curl(&gateway, "/plain", &args);
        let said = (reply.status, &*reply.body);
        assert_eq!(said, (401, body), "{}", pair.escape_ascii());
        assert!(
            reply
                .head
                .contains("www-authenticate: basic realm=\"basic\"")
        );
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_password_may_be_as_long_as_headers_may() {
    let upstream = Upstream::start(Behaviour::ok());
    let password = "0123456789abcdef".repeat(2500);
    let resources = format!(
        "
consumers:
  - {{ username: long, plugins: {{ basic-auth: {{ username: long, password: '{password}' }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ basic-auth: {{}} }}, NODE }}
"
    );
    let builder = Gateway::builder().bootstrap("claviger: { limits: { header_bytes: 64k } }");
    let gateway = builder.resources(over(&upstream, &resources)).start();
    assert_eq!(
        user(&gateway, "/plain", &format!("long:{password}")).status,
        200
    );
    let other = format!("long:{}X", &password[1..]);
    assert_eq!(user(&gateway, "/plain", &other).status, 401);
    let beyond = format!("long:{password}{password}");
    assert_eq!(user(&gateway, "/plain", &beyond).status, 431);
}

#[test]
fn the_anonymous_consumer_takes_what_failed() {
    let (upstream, gateway) = start(RESOURCES);
    let wrong = basic(b"alice:wrong");
    for headers in [
        &[][..],
        &[("Authorization", "Bearer x")],
        &[("Authorization", &*wrong)],
    ] {
        assert_eq!(get(&gateway, "/guest", headers).status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("x-consumer-username"), Some("guest"));
    }
    let reply = get(&gateway, "/nobody", &[]);
    assert_local(&reply, 401, UNKNOWN);
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge, Some("Basic realm=\"basic\""));
}

/// Of `hunter2`, by libxcrypt and by the reference implementation of argon2 (`password`).
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";
const SHA512: &str = "$6$rounds=1000$salt$ovAQitC9t8tgNd4cxpDBhQNw2swVkwEjppzSS1MK4bRcI/6YNmXTIRWSmO7oCtQ7p/Yed3pDPrQTsvlI1GrBt/";
const ARGON2: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

#[test]
fn a_password_may_be_kept_as_a_hash() {
    let resources = format!(
        "
consumers:
  - {{ username: a, plugins: {{ basic-auth: {{ username: a, password: '{BCRYPT}' }} }} }}
  - {{ username: b, plugins: {{ basic-auth: {{ username: b, password: '{SHA512}' }} }} }}
  - {{ username: c, plugins: {{ basic-auth: {{ username: c, password: '{ARGON2}' }} }} }}
  - {{ username: d, plugins: {{ basic-auth: {{ username: d, password: plain }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ basic-auth: {{}} }}, NODE }}
"
    );
    let (upstream, gateway) = start(&resources);
    for (pair, status) in [
        ("a:hunter2", 200),
        ("b:hunter2", 200),
        ("c:password", 200),
        ("d:plain", 200),
        ("a:hunter2", 200),
        ("a:password", 401),
        ("a:password", 401),
        ("c:hunter2", 401),
        ("d:hunter2", 401),
        ("nobody:hunter2", 401),
    ] {
        assert_eq!(user(&gateway, "/plain", pair).status, status, "{pair}");
    }
    assert_eq!(upstream.count(), 5);
    // Who reads the file must not get in by what stands there.
    for (name, hash) in [("a", BCRYPT), ("b", SHA512), ("c", ARGON2)] {
        let reply = user(&gateway, "/plain", &format!("{name}:{hash}"));
        assert_eq!((reply.status, &*reply.body), (401, UNKNOWN));
    }
    // Many at once: one computation is enough for all of them.
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = gateway.connect();
            let value = basic(b"c:wrong again");
            connection.request("GET", "/plain", &[("Host", "a"), ("Authorization", &value)]);
            connection
        })
        .collect();
    for mut connection in asked {
        assert_eq!(connection.expect_reply().status, 401);
    }
    assert!(!gateway.log().contains("hunter2"));
}

#[test]
fn what_looks_like_a_hash_is_one_or_refused_at_load() {
    let upstream = Upstream::start(Behaviour::ok());
    let hashes = [
        "$5$saltstring$9JBjAeLRHX/Lm/1Njo98nbLiUsNRFEuARumLKkxJMm7",
        "$1$saltstri$T2/ewcphylZigUqYmbojG.",
        "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8",
        "$2b$17$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
        "$2b$10$short",
        "$6$rounds=999999999$salt$x",
    ];
    let mut resources = "
routes:
  - { id: 1, uri: /plain, plugins: { basic-auth: {} }, NODE }
consumers:
  - { username: fine, plugins: { basic-auth: { username: fine, password: '$uper$ecret' } } }
"
    .to_owned();
    for (n, hash) in hashes.iter().enumerate() {
        resources += &format!(
            "  - {{ username: u{n}, plugins: {{ basic-auth: {{ username: u{n}, password: '{hash}' }} }} }}\n"
        );
    }
    let gateway = Gateway::start(over(&upstream, &resources));
    for (n, hash) in hashes.iter().enumerate() {
        let reply = user(&gateway, "/plain", &format!("u{n}:{hash}"));
        assert_eq!(reply.status, 401, "{hash} is no password");
    }
    assert_eq!(user(&gateway, "/plain", "fine:$uper$ecret").status, 200);
    let said = gateway.command(&["check"]).output().unwrap();
    let said =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert_eq!(
        said.matches("is a hash of a kind that is not supported")
            .count(),
        3
    );
    assert!(said.contains("would cost too much: bcrypt"), "{said}");
    assert!(said.contains("is no bcrypt hash"), "{said}");
    assert!(
        !said.contains("saltstring") && !said.contains("V3duMsC0"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn credentials_follow_their_references_and_fail_closed() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let put = |fields| bao.put_v2("edge/user", fields);
    put(json!({"name": "alice", "password": "first:1", "realm": "one"})).await;
    let resources = format!(
        "
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 1, neg_ttl: 1 }}
consumers:
  - username: alice
    plugins: {{ basic-auth: {{ username: $secret://vault/main/user/name, password: $secret://vault/main/user/password }} }}
  - {{ username: bob, plugins: {{ basic-auth: {{ username: $env://BOB, password: $env://BOB_HASH }} }} }}
  - {{ username: carol, plugins: {{ basic-auth: {{ username: carol, password: $env://NOWHERE }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ basic-auth: {{}} }}, NODE }}
  - {{ id: 2, uri: /realm, plugins: {{ basic-auth: {{ realm: $secret://vault/main/user/realm }} }}, NODE }}
",
        bao.addr, bao.token
    );
    let builder = Gateway::builder().unready();
    let builder = builder.env("BOB", "bob").env("BOB_HASH", BCRYPT);
    let gateway = builder.resources(over(&upstream, &resources)).start();
    let status = |pair: &str| user(&gateway, "/plain", pair).status;
    wait_until("values are there", || status("alice:first:1") == 200);
    assert_eq!(status("bob:hunter2"), 200, "a hash by reference");
    for pair in [
        "carol:$env://NOWHERE",
        "carol:",
        "alice:$secret://vault/main/user/password",
        "$secret://vault/main/user/name:first:1",
        "bob:$env://BOB_HASH",
    ] {
        assert_eq!(status(pair), 401, "{pair}");
    }
    assert_eq!(status(&format!("bob:{BCRYPT}")), 401);
    assert!(
        user(&gateway, "/realm", "x:y")
            .head
            .contains("realm=\"one\"")
    );

    put(json!({"name": "alice", "password": SHA512, "realm": "two"})).await;
    wait_until("the hash is in force", || status("alice:hunter2") == 200);
    assert_eq!(status("alice:first:1"), 401, "the old password is out");
    wait_until("the realm follows", || {
        user(&gateway, "/realm", "x:y")
            .head
            .contains("realm=\"two\"")
    });

    put(json!({"name": "alicia", "password": "third", "realm": "\""})).await;
    wait_until("the new name is in force", || status("alicia:third") == 200);
    assert_eq!(status("alice:hunter2"), 401);
    wait_until("a value that is no realm refuses", || {
        user(&gateway, "/realm", "x:y").status == 503
    });

    // A value that can be no password authenticates nobody.
    put(json!({"name": "alicia", "password": "$5$saltstring$x", "realm": "three"})).await;
    wait_until("the old password is out", || status("alicia:third") == 401);
    assert_eq!(status("alicia:$5$saltstring$x"), 401);
    assert!(!gateway.log().contains("hunter2"));
}
