use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::sha::sha256;

use super::{assert_local, get, over, send, start};
use crate::harness::client::Reply;
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const RESOURCES: &str = "
routes:
  - { id: 1, uri: /form, plugins: { csrf: { key: the-key } }, NODE }
  - { id: 2, uri: /keyed, plugins: { csrf: { key: the-key }, key-auth: {} }, NODE }
";

fn token(reply: &Reply) -> String {
    let cookie = reply.header("set-cookie").expect("each response has one");
    let (pair, attributes) = cookie.split_once(';').expect("it has attributes");
    assert!(
        attributes.starts_with("path=/;SameSite=Lax;Expires="),
        "{attributes}"
    );
    pair.split_once('=').expect("it is a pair").1.to_owned()
}

fn post(gateway: &Gateway, path: &str, header: &str, cookie: &str) -> Reply {
    let cookie = format!("apisix-csrf-token={cookie}");
    let headers = [("apisix-csrf-token", header), ("Cookie", &cookie)];
    send(gateway, "POST", path, &headers)
}

/// A token as APISIX makes it, by a program that shares nothing with ours.
pub(super) fn apisix_token(key: &str, issued: u64) -> String {
    let random = "0.84018771715471";
    let text = format!("{{expires:{issued},random:{random},key:{key}}}");
    let sign: String = sha256(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    STANDARD.encode(format!(
        "{{\"expires\":{issued},\"sign\":\"{sign}\",\"random\":{random}}}"
    ))
}

pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn error(text: &str) -> String {
    format!("{{\"error_msg\":\"{text}\"}}\n")
}

#[test]
fn changes_need_the_token_twice() {
    let (upstream, gateway) = start(RESOURCES);
    let (good, other) = (
        token(&get(&gateway, "/form", &[])),
        token(&get(&gateway, "/form", &[])),
    );
    assert_ne!(good, other);
    assert_eq!(post(&gateway, "/form", &good, &good).status, 200);
    upstream.forget();
    let forged = apisix_token("another-key", now());
    let old = apisix_token("the-key", now() - 7300);
    for (headers, text) in [
        (vec![], "no csrf token in headers"),
        (vec![("apisix-csrf-token", good.clone())], "no csrf cookie"),
        (
            vec![
                ("apisix-csrf-token", good.clone()),
                ("cookie", format!("apisix-csrf-token={other}")),
            ],
            "csrf token mismatch",
        ),
        (
            vec![
                ("apisix-csrf-token", forged.clone()),
                ("cookie", format!("apisix-csrf-token={forged}")),
            ],
            "Failed to verify the csrf token signature",
        ),
        (
            vec![
                ("apisix-csrf-token", old.clone()),
                ("cookie", format!("apisix-csrf-token={old}")),
            ],
            "Failed to verify the csrf token signature",
        ),
    ] {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let reply = send(&gateway, "POST", "/form", &headers);
        assert_local(&reply, 401, &error(text));
        assert!(!token(&reply).is_empty(), "refusals bring a token too");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn tokens_of_apisix_are_taken() {
    let (_upstream, gateway) = start(RESOURCES);
    let token = apisix_token("the-key", now() - 7000);
    assert_eq!(post(&gateway, "/form", &token, &token).status, 200);
    // The access phase comes after authentication.
    let reply = send(&gateway, "POST", "/keyed", &[]);
    assert_eq!(
        reply.text(),
        "{\"message\":\"Missing API key in request\"}\n"
    );
}

#[test]
fn the_key_may_be_a_reference_that_rotates() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/key", "first-key")
        .env("CSRF_KEY_OF_TEST", "env-key");
    let folder = builder.dir().join("secrets");
    let yaml = format!(
        "
secrets:
  - {{ id: file/main, path: {}, ttl: 1, neg_ttl: 1 }}
routes:
  - {{ id: 1, uri: /file, plugins: {{ csrf: {{ key: $secret://file/main/key }} }}, NODE }}
  - {{ id: 2, uri: /env, plugins: {{ csrf: {{ key: $env://CSRF_KEY_OF_TEST }} }}, NODE }}
  - {{ id: 3, uri: /missing, plugins: {{ csrf: {{ key: $secret://file/main/missing }} }}, NODE }}
  - {{ id: 4, uri: /empty, plugins: {{ csrf: {{ key: $secret://file/main/empty }} }}, NODE }}
",
        folder.display()
    );
    let builder = builder.file("secrets/empty", "");
    let gateway = builder.resources(over(&upstream, &yaml)).unready().start();
    wait_until("the first key is in force", || {
        std::net::TcpStream::connect(gateway.http()).is_ok()
            && get(&gateway, "/file", &[]).status == 200
    });
    let signed_by = |path: &str, key: &str| {
        let token = apisix_token(key, now());
        post(&gateway, path, &token, &token).status
    };
    assert_eq!(signed_by("/file", "first-key"), 200);
    assert_eq!(signed_by("/env", "env-key"), 200);
    // The text of a reference is no key.
    assert_eq!(signed_by("/file", "$secret://file/main/key"), 401);
    for path in ["/missing", "/empty"] {
        let reply = get(&gateway, path, &[]);
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.header("set-cookie"), None, "{path}");
        assert_eq!(signed_by(path, ""), 503, "{path}");
        assert_eq!(signed_by(path, "$secret://file/main/missing"), 503);
    }
    gateway.write_file("secrets/key", "second-key");
    wait_until("the second key is in force", || {
        signed_by("/file", "second-key") == 200
    });
    assert_eq!(signed_by("/file", "first-key"), 401);
    gateway.write_file("secrets/missing", "healed");
    wait_until("the missing key has come", || {
        signed_by("/missing", "healed") == 200
    });
    let log = gateway.log();
    for value in ["first-key", "second-key", "env-key", "healed"] {
        assert!(!log.contains(value), "{value} was logged");
    }
}
