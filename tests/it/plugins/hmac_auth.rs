use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::signing::{
    CONSUMERS, at, authorization, authorization_of, lent, now, signed, signed_body,
};
use super::{assert_local, get, over, send, send_on, start};
use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, tool, wait_until};

const REFUSED: &str = "{\"message\":\"client request can't be validated\"}\n";

fn resources(routes: &str) -> String {
    format!("{CONSUMERS}routes:\n{routes}")
}

fn plain() -> String {
    resources(
        "
  - { id: 1, uri: '/*', plugins: { hmac-auth: {} }, NODE }
  - { id: 2, uri: /hidden, plugins: { hmac-auth: { hide_credentials: true, clock_skew: 5, allowed_algorithms: [hmac-sha512], realm: shop } }, NODE }
  - { id: 3, uri: /guest, plugins: { hmac-auth: { anonymous_consumer: guest, hide_credentials: true } }, NODE }
  - { id: 4, uri: /nobody, plugins: { hmac-auth: { anonymous_consumer: nobody } }, NODE }
  - { id: 5, uri: /strict, plugins: { hmac-auth: { signed_headers: [date, '@request-target', X-Tenant] } }, NODE }
  - { id: 6, uri: /own, plugins: { hmac-auth: { _meta: { error_response: { message: own } }, validate_request_body: true } }, NODE }
  - { id: 7, uri: /once, plugins: { hmac-auth: { reject_replays: true } }, NODE }
  - { id: 10, uri: /any/once, plugins: { multi-auth: { auth_plugins: [{ key-auth: {} }, { hmac-auth: { reject_replays: true } }] } }, NODE }
  - { id: 8, uri: /moved, plugins: { hmac-auth: {}, proxy-rewrite: { uri: /elsewhere } }, NODE }
",
    )
}

#[test]
fn a_signature_names_its_consumer_to_the_upstream() {
    let (upstream, gateway) = start(&plain());
    let forged = [
        ("X-Consumer-Username", "root"),
        ("X-Credential-Identifier", "forged"),
    ];
    let fields = signed("GET", "/a%20b?x=%2F&y");
    // What is signed is the path as routes see it.
    assert_eq!(get(&gateway, "/a%20b?x=%2F&y", &lent(&fields)).status, 401);
    let fields = signed("GET", "/a b?x=%2F&y");
    for target in [
        "/a%20b?x=%2F&y",
        "/%61//.//c/..%2Fa%20b?x=%2F&y",
        "/moved?q",
    ] {
        let mut fields = match target {
            "/moved?q" => signed("GET", "/moved?q"),
            "/%61//.//c/..%2Fa%20b?x=%2F&y" => signed("GET", "/a/a b?x=%2F&y"),
            _ => fields.clone(),
        };
        let forged = forged.map(|(name, value)| (name.to_owned(), value.to_owned()));
        fields.extend(forged);
        assert_eq!(
            get(&gateway, target, &lent(&fields)).status,
            200,
            "{target}"
        );
        let seen = upstream.take().pop().unwrap();
        assert_eq!(seen.header("x-consumer-username"), Some("alice"));
        assert_eq!(seen.header("x-consumer-custom-id"), Some("42"));
        assert_eq!(seen.header("x-credential-identifier"), None);
        assert!(
            seen.header("authorization").is_some(),
            "is not hidden unless asked"
        );
    }
    let date = now();
    let line = format!("date: {date}");
    let by_bob = authorization_of("bob-id", "bob-s3cret", "hmac-sha512", "date", &[&line]);
    let fields = [("Date", &*date), ("Authorization", &by_bob)];
    assert_eq!(send(&gateway, "POST", "/hidden", &fields).status, 200);
    let seen = upstream.take().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("bob"));
    assert_eq!(seen.header("x-credential-identifier"), Some("second"));
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn refusals_are_exact_and_keep_the_connection() {
    let (upstream, gateway) = start(&plain());
    let date = now();
    let line = format!("date: {date}");
    let good = authorization("date", &[&line]);
    let reason =
        |why: &str| format!("{{\"message\":\"client request can't be validated{why}\"}}\n");
    let missing = reason(": missing Authorization header");
    let scheme = reason(": Authorization header does not start with 'Signature'");
    let old = at(-301);
    let stale = authorization("date", &[&format!("date: {old}")]);
    let by = |id, secret, algorithm| authorization_of(id, secret, algorithm, "date", &[&line]);
    let mut connection = gateway.connect();
    for (path, fields, body, realm) in [
        ("/p", vec![("Date", &*date)], &*missing, "hmac"),
        (
            "/p",
            vec![("Date", &*date), ("Authorization", "Basic YTpi")],
            &scheme,
            "hmac",
        ),
        (
            "/p",
            vec![("Date", &*date), ("Authorization", "Signature junk")],
            REFUSED,
            "hmac",
        ),
        ("/p", vec![("Authorization", &good)], REFUSED, "hmac"),
        (
            "/p",
            vec![("Date", &*old), ("Authorization", &stale)],
            REFUSED,
            "hmac",
        ),
        (
            "/p",
            vec![("Date", "now"), ("Authorization", &good)],
            REFUSED,
            "hmac",
        ),
        (
            "/p",
            vec![
                ("Date", &*date),
                ("Authorization", &by("nobody", "x", "hmac-sha256")),
            ],
            REFUSED,
            "hmac",
        ),
        (
            "/p",
            vec![
                ("Date", &*date),
                ("Authorization", &by("alice-id", "wrong", "hmac-sha256")),
            ],
            REFUSED,
            "hmac",
        ),
        (
            "/hidden",
            vec![("Date", &*date), ("Authorization", &good)],
            REFUSED,
            "shop",
        ),
        (
            "/strict",
            vec![("Date", &*date), ("Authorization", &good)],
            REFUSED,
            "hmac",
        ),
    ] {
        let reply = send_on(&mut connection, "GET", path, &fields);
        assert_local(&reply, 401, body);
        let challenge = format!("hmac realm=\"{realm}\"");
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()));
    }
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    for (id, algorithm) in [("alice-id", "hmac-sha1"), ("alice-id", "hmac-sha256")] {
        let authorization = by(id, "alice-s3cret", algorithm);
        let fields = [("Date", &*date), ("Authorization", &authorization)];
        let reply = send_on(&mut connection, "GET", "/p", &fields);
        assert_eq!(reply.status, 200, "the same connection serves on");
    }
    let page = gateway.metrics_page();
    for (reason, count) in [
        ("missing", 1),
        ("malformed", 2),
        ("unknown", 1),
        ("mismatch", 1),
        ("algorithm", 1),
        ("skew", 3),
        ("unsigned", 1),
    ] {
        let line = format!(
            "claviger_auth_failures_total{{plugin=\"hmac-auth\",reason=\"{reason}\"}} {count}"
        );
        assert!(page.contains(&line), "{line}\n{page}");
    }
}

#[test]
fn of_a_signed_header_only_the_signed_value_goes_on() {
    let (upstream, gateway) = start(&plain());
    let date = now();
    let lines = [
        "GET /strict",
        &*format!("date: {date}"),
        "X-Tenant: \u{e9}t\u{e9}",
    ];
    let authorization = authorization("@request-target date X-Tenant", &lines);
    let fields = [
        ("Date", &*date),
        ("x-tenant", "\u{e9}t\u{e9}"),
        ("X-Tenant", "intruder"),
        ("X-Other", "1"),
        ("X-Other", "2"),
        ("Authorization", &authorization),
    ];
    assert_eq!(get(&gateway, "/strict", &fields).status, 200);
    let seen = upstream.take().pop().unwrap();
    let values = |name: &str| {
        let fields = seen.headers.iter();
        let fields = fields.filter(|(key, _)| key == name);
        fields.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(values("x-tenant"), ["\u{e9}t\u{e9}"]);
    assert_eq!(values("x-other"), ["1", "2"]);
}

#[test]
fn the_anonymous_consumer_takes_what_failed() {
    let (upstream, gateway) = start(&plain());
    let wrong = signed("GET", "/elsewhere");
    for fields in [&[][..], &lent(&wrong)] {
        assert_eq!(get(&gateway, "/guest", fields).status, 200);
        let seen = upstream.take().pop().unwrap();
        assert_eq!(seen.header("x-consumer-username"), Some("guest"));
        assert_eq!(seen.header("authorization"), None);
    }
    let reply = get(&gateway, "/nobody", &[]);
    assert_local(
        &reply,
        401,
        "{\"message\":\"Invalid user authorization\"}\n",
    );
    assert_eq!(
        reply.header("www-authenticate"),
        Some("hmac realm=\"hmac\"")
    );
}

#[test]
fn an_own_error_body_is_used_however_late_the_failure() {
    let (upstream, gateway) = start(&plain());
    for size in [10, 100_000] {
        let body = vec![b'a'; size];
        let fields = signed_body("POST", "/own", &body);
        let mut connection = gateway.connect();
        let lent = lent(&fields).into_iter();
        let lines: String = lent
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        connection.send(format!(
            "POST /own HTTP/1.1\r\nHost: a\r\n{lines}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
        ));
        connection.send(vec![b'b'; size]);
        connection.send("\r\n0\r\n\r\n");
        let reply = connection.expect_reply();
        assert_eq!(
            (reply.status, reply.text()),
            (401, "{\"message\":\"own\"}\n".to_owned())
        );
        assert_eq!(
            reply.header("www-authenticate"),
            Some("hmac realm=\"hmac\"")
        );
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_signature_is_taken_once_where_replays_are_refused() {
    let (upstream, gateway) = start(&plain());
    let fields = signed("GET", "/once");
    assert_eq!(get(&gateway, "/once", &lent(&fields)).status, 200);
    assert_local(&get(&gateway, "/once", &lent(&fields)), 401, REFUSED);
    let date = now();
    let anywhere = authorization("date", &[&format!("date: {date}")]);
    let anywhere = [("Date", &*date), ("Authorization", &*anywhere)];
    assert_eq!(get(&gateway, "/once", &anywhere).status, 200);
    assert_eq!(
        get(&gateway, "/any/once", &anywhere).status,
        401,
        "on no other route either"
    );
    let lines = ["GET /once", &*format!("date: {date}"), "x-nonce: 7"];
    let authorization = authorization("@request-target date x-nonce", &lines);
    let fields = [
        ("Date", &*date),
        ("X-Nonce", "7"),
        ("Authorization", &authorization),
    ];
    assert_eq!(get(&gateway, "/once", &fields).status, 200);
    // What was accepted is remembered over a reload.
    let more = plain().replace("id: 8,", "id: 9,");
    gateway.write_resources(&over(&upstream, &more).replace("/moved", "/fresh"));
    wait_until("the new configuration serves", || {
        let fields = signed("GET", "/fresh");
        get(&gateway, "/fresh", &lent(&fields));
        let seen = upstream.take().pop();
        seen.is_some_and(|seen| seen.start.contains("/elsewhere"))
    });
    assert_local(&get(&gateway, "/once", &fields), 401, REFUSED);
    let page = gateway.metrics_page();
    let line = "claviger_auth_failures_total{plugin=\"hmac-auth\",reason=\"replayed\"} 3";
    assert!(page.contains(line), "{page}");
}

#[test]
fn what_cannot_be_remembered_is_not_let_in() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .bootstrap("plugin_attr: { hmac-auth: { replay_entries: 1 } }")
        .resources(over(&upstream, &plain()))
        .start();
    // Each of the memory's 64 parts has room for one, whoever asks.
    let statuses: Vec<u16> = (0..200)
        .map(|n| {
            let path = ["/once", "/any/once"][n % 2];
            let (date, nonce) = (now(), n.to_string());
            let lines = [
                &*format!("GET {path}"),
                &*format!("date: {date}"),
                &*format!("x-nonce: {n}"),
            ];
            let authorization = authorization("@request-target date x-nonce", &lines);
            let fields = [
                ("Date", &*date),
                ("X-Nonce", &*nonce),
                ("Authorization", &authorization),
            ];
            get(&gateway, path, &fields).status
        })
        .collect();
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert!(count(200) <= 64, "{statuses:?}");
    // multi-auth tells no reasons.
    assert_eq!(count(200) + count(503) + count(401), 200, "{statuses:?}");
    assert!(count(503) > 0 && count(401) > 0, "{statuses:?}");
    assert_eq!(upstream.count(), count(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn id_and_secret_may_be_references_and_rotate() {
    let upstream = Upstream::start(Behaviour::ok());
    let bao = OpenBao::start().await;
    bao.put_v2("edge/carol", json!({"id": "carol-id", "secret": "first"}))
        .await;
    let yaml = format!(
        "
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 1, neg_ttl: 1, max_stale: 5 }}
consumers:
  - {{ username: carol, plugins: {{ hmac-auth: {{ key_id: $secret://vault/main/carol/id, secret_key: $secret://vault/main/carol/secret }} }} }}
  - {{ username: dave, plugins: {{ hmac-auth: {{ key_id: dave-id, secret_key: $env://DAVE_SECRET }} }} }}
  - {{ username: erin, plugins: {{ hmac-auth: {{ key_id: erin-id, secret_key: $env://NOT_THERE }} }} }}
routes:
  - {{ id: 1, uri: /p, plugins: {{ hmac-auth: {{}} }}, NODE }}
  - {{ id: 2, uri: /q, plugins: {{ hmac-auth: {{ realm: $env://NOT_THERE }} }}, NODE }}
",
        bao.addr, bao.token
    );
    let gateway = Gateway::builder()
        .env("DAVE_SECRET", "daves")
        .resources(over(&upstream, &yaml))
        .unready()
        .start();
    let status = |id: &str, secret: &str| {
        let date = now();
        let line = format!("date: {date}");
        let authorization = authorization_of(id, secret, "hmac-sha256", "date", &[&line]);
        let fields = [("Date", &*date), ("Authorization", &*authorization)];
        get(&gateway, "/p", &fields).status
    };
    wait_until("the first secret serves", || {
        status("carol-id", "first") == 200
    });
    assert_eq!(status("dave-id", "daves"), 200);
    for (id, secret) in [
        ("erin-id", "$env://NOT_THERE"),
        ("dave-id", "$env://DAVE_SECRET"),
        ("$secret://vault/main/carol/id", "first"),
    ] {
        assert_eq!(status(id, secret), 401, "{id}");
    }
    assert_eq!(get(&gateway, "/q", &[]).status, 503);
    bao.put_v2("edge/carol", json!({"id": "carol-2", "secret": "second"}))
        .await;
    wait_until("the second secret serves", || {
        status("carol-2", "second") == 200
    });
    assert_eq!(status("carol-id", "first"), 401);
    assert_eq!(status("carol-2", "first"), 401);
    assert!(!gateway.log().contains("second"), "no secret is logged");
}

/// A second implementation signs; `tests/clients/hmac_auth.py` says how requests are drawn.
#[test]
fn a_client_in_another_language_is_understood() {
    let routes = resources(
        "
  - { id: 1, uri: '/*', plugins: { hmac-auth: { validate_request_body: true, signed_headers: [date] } }, NODE }
",
    );
    let (upstream, gateway) = start(&routes);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/hmac_auth.py");
    let seed = std::env::var("HMAC_SEED").unwrap_or_else(|_| "20261122".to_owned());
    let mut client = Command::new(tool("python3"))
        .args([script, &gateway.http().to_string(), &seed, "1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The secrets are told, so that both sides have one place for them.
    let mut told = client.stdin.take().unwrap();
    told.write_all(b"alice-id alice-s3cret\nbob-id bob-s3cret\n")
        .unwrap();
    drop(told);
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{complaints}");
    assert!(said.starts_with("accepted 1000 refused "), "{said}");
    let refused: usize = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(refused, 1000, "one byte of each");
    assert_eq!(upstream.count(), 1000, "what was refused went nowhere");
}
