use super::{get, send, start};
use crate::harness::client::Reply;

const RESOURCES: &str = r#"
routes:
  - { id: 1, uri: /uri, plugins: { redirect: { uri: "/to$uri", append_query_string: true } }, NODE }
  - { id: 2, uri: /code, plugins: { redirect: { uri: "https://$host/a b/$arg_x", ret_code: 307, encode_uri: false } }, NODE }
  - { id: 3, uri: /regex/*, plugins: { redirect: { regex_uri: ["^/regex/old/(.*)", "http://$1.test/"], ret_code: 301 } }, NODE }
  - { id: 4, uri: /tls, plugins: { redirect: { http_to_https: true } }, NODE }
  - { id: 5, uri: /keyed, plugins: { redirect: { uri: /new }, key-auth: {} }, NODE }
"#;

fn to(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status, reply.header("location"))
}

#[test]
fn clients_are_sent_on() {
    let (upstream, gateway) = start(RESOURCES);
    assert_eq!(
        to(&get(&gateway, "/uri?q=1", &[])),
        (302, Some("/to/uri?q=1"))
    );
    // What a client sends cannot end the header.
    let reply = get(&gateway, "/code?x=%0d%0aSet-Cookie:a", &[]);
    assert_eq!(
        to(&reply),
        (307, Some("https://a.test/a%20b/%0D%0ASet-Cookie:a"))
    );
    assert_eq!(reply.header("set-cookie"), None);
    assert_eq!(
        to(&get(&gateway, "/regex/old/b", &[])),
        (301, Some("http://b.test/"))
    );
    assert_eq!(upstream.count(), 0);
    assert_eq!(
        get(&gateway, "/regex/new/b", &[]).status,
        200,
        "no match, no redirect"
    );
}

#[test]
fn plain_requests_are_sent_to_tls() {
    let (_upstream, gateway) = start(RESOURCES);
    let location = format!("https://a.test:{}/tls?q", gateway.https().port());
    let moved = |status| (status, Some(location.as_str()));
    assert_eq!(to(&get(&gateway, "/tls?q", &[])), moved(301));
    assert_eq!(to(&send(&gateway, "HEAD", "/tls?q", &[])), moved(301));
    assert_eq!(to(&send(&gateway, "DELETE", "/tls?q", &[])), moved(308));
    let behind = [("X-Forwarded-Proto", "https")];
    assert_eq!(get(&gateway, "/tls", &behind).status, 200);
}

#[test]
fn who_must_authenticate_does_so_before() {
    let (_upstream, gateway) = start(RESOURCES);
    assert_eq!(to(&get(&gateway, "/keyed", &[])), (401, None));
}
