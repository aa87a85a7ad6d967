use super::{get, send, start};
use crate::harness::Behaviour;
use crate::harness::client::Reply;

const RESOURCES: &str = "
plugin_metadata:
  - { id: cors, allow_origins: { partner: 'https://partner.test' } }
routes:
  - { id: 1, uri: /any, plugins: { cors: {} }, NODE }
  - { id: 2, uri: /listed, plugins: { key-auth: {}, cors: { allow_origins: 'https://a.test,https://b.test', allow_methods: '**', allow_headers: '**', expose_headers: X-A, max_age: 60, allow_credential: true } }, NODE }
  - { id: 3, uri: /pattern, plugins: { cors: { allow_origins_by_regex: ['^https://.*[.]c[.]test$'] } }, NODE }
  - { id: 4, uri: /partner, plugins: { cors: { allow_origins: 'null', allow_origins_by_metadata: [partner] } }, NODE }
";

fn allowed(reply: &Reply) -> Option<&str> {
    reply.header("access-control-allow-origin")
}

#[test]
fn preflight_is_answered_before_authentication() {
    let (upstream, gateway) = start(RESOURCES);
    let asks = [
        ("Origin", "https://b.test"),
        ("Access-Control-Request-Headers", "x-one,x-two"),
    ];
    let reply = send(&gateway, "OPTIONS", "/listed", &asks);
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    for (name, value) in [
        ("access-control-allow-origin", "https://b.test"),
        (
            "access-control-allow-methods",
            "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE",
        ),
        ("access-control-allow-headers", "x-one,x-two"),
        ("access-control-expose-headers", "X-A"),
        ("access-control-max-age", "60"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
        ("content-length", "0"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert_eq!(send(&gateway, "OPTIONS", "/any", &[]).status, 200);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn responses_tell_who_may_read_them() {
    let (_upstream, gateway) = start(RESOURCES);
    let reply = get(&gateway, "/any", &[]);
    assert_eq!((reply.status, allowed(&reply)), (200, Some("*")));
    assert_eq!(reply.header("vary"), None);
    // Also a refusal of a later plugin.
    let reply = get(&gateway, "/listed", &[("Origin", "https://a.test")]);
    assert_eq!(
        (reply.status, allowed(&reply)),
        (401, Some("https://a.test"))
    );
    for (path, origin, expected) in [
        ("/pattern", "https://x.c.test", Some("https://x.c.test")),
        ("/pattern", "https://x.c.test.evil", None),
        (
            "/partner",
            "https://partner.test",
            Some("https://partner.test"),
        ),
        ("/partner", "https://partner.test.evil", None),
        ("/partner", "null", Some("null")),
        ("/listed", "https://evil.test", None),
    ] {
        let reply = get(&gateway, path, &[("Origin", origin)]);
        assert_eq!(allowed(&reply), expected, "{path} {origin}");
        assert_eq!(reply.header("vary"), Some("Origin"), "{path} {origin}");
    }
}

#[test]
fn the_upstreams_own_word_is_replaced() {
    let (upstream, gateway) = start(RESOURCES);
    upstream.set(Behaviour::Raw(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://old.test\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
    ));
    let reply = get(&gateway, "/any", &[]);
    let all = reply.message.headers.iter();
    let all: Vec<_> = all
        .filter(|(name, _)| name == "access-control-allow-origin")
        .collect();
    assert_eq!(
        all,
        [&("access-control-allow-origin".to_owned(), "*".to_owned())]
    );
}
