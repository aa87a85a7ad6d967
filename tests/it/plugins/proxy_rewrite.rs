use super::{assert_local, get, send, start};

const RESOURCES: &str = r#"
routes:
  - { id: 1, uri: /uri/*, plugins: { proxy-rewrite: { uri: "/new?x=$arg_a" } }, NODE }
  - { id: 2, uri: /regex/*, plugins: { proxy-rewrite: { regex_uri: ["^/regex/(.*)/(.*)$", "/$2/$1", "^/regex/odd(.*)$", "odd$1"], headers: { set: { X-First: "$1" } } } }, NODE }
  - { id: 3, uri: /head, plugins: { proxy-rewrite: { host: "other.test:81", method: POST, headers: { add: { X-Add: [a, 5] }, set: { X-Set: "$host", X-Empty: "" }, remove: [X-Gone] } } }, NODE }
  - { id: 4, uri: /raw/*, plugins: { proxy-rewrite: { use_real_request_uri_unsafe: true } }, NODE }
  - { id: 5, uri: /guarded, plugins: { proxy-rewrite: { uri: /seen }, mocking: { response_example: "$uri $real_request_uri" } }, NODE }
"#;

#[test]
fn the_target_is_rewritten_and_the_query_kept() {
    let (upstream, gateway) = start(RESOURCES);
    for (path, target) in [
        ("/uri/x", "/new?x="),
        ("/uri/x?a=1&b=%20", "/new?x=1&a=1&b=%20"),
        ("/regex/a/b?q", "/b/a?q"),
        ("/regex/none", "/regex/none"),
        // What would end the path or the line stays encoded.
        ("/regex/a%3Fx%22/b%20c%23", "/b%20c%23/a%3Fx%22"),
        ("/raw/a%2Fb/../c?x", "/raw/a%2Fb/../c?x"),
    ] {
        let reply = get(&gateway, path, &[]);
        assert_eq!(reply.status, 200, "{path}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.start, format!("GET {target} HTTP/1.1"), "{path}");
    }
    get(&gateway, "/regex/a/b", &[]);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-first"), Some("a"));
}

#[test]
fn host_method_and_headers_are_rewritten() {
    let (upstream, gateway) = start(RESOURCES);
    let sent = [
        ("X-Gone", "1"),
        ("X-Set", "old"),
        ("X-Add", "own"),
        ("Content-Length", "0"),
    ];
    let reply = send(&gateway, "PUT", "/head", &sent);
    assert_eq!(reply.status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.start, "POST /head HTTP/1.1");
    for (name, value) in [
        ("host", Some("other.test:81")),
        ("x-set", Some("a.test")),
        ("x-empty", Some("")),
        ("x-gone", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    let added: Vec<_> = seen
        .headers
        .iter()
        .filter(|(name, _)| name == "x-add")
        .collect();
    assert_eq!(added.len(), 3, "{added:?}");
}

#[test]
fn a_target_that_cannot_be_sent_is_refused() {
    let (upstream, gateway) = start(RESOURCES);
    let reply = get(&gateway, "/regex/oddity", &[]);
    assert_local(
        &reply,
        500,
        "{\"error_msg\":\"failed to rewrite the request uri\"}\n",
    );
    assert_eq!(upstream.count(), 0);
}

#[test]
fn later_plugins_see_the_new_path() {
    let (_upstream, gateway) = start(RESOURCES);
    assert_eq!(get(&gateway, "/guarded?q", &[]).text(), "/seen /guarded?q");
}
