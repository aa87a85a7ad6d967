use super::{get, send, start, status_and_body};
use serde_json::Value;

const RESOURCES: &str = r#"
routes:
  - { id: 1, uri: /example, plugins: { mocking: { response_example: '{"n":"$arg_name"}' } }, NODE }
  - { id: 2, uri: /status, plugins: { mocking: { response_example: "late", response_status: 503, content_type: text/plain, with_mock_header: false, response_headers: { X-A: b, X-N: 5 } } }, NODE }
  - { id: 3, uri: /schema, plugins: { mocking: { response_schema: { type: object, properties: { id: { type: integer, example: 7 }, list: { type: array, items: { type: string } } } } } }, NODE }
  - { id: 4, uri: /none, plugins: { mocking: { response_example: "x", response_status: 204 } }, NODE }
  - { id: 5, uri: /slow, plugins: { mocking: { response_example: "slow", delay: 1 } }, NODE }
"#;

#[test]
fn an_answer_is_made_up() {
    let (upstream, gateway) = start(RESOURCES);
    let reply = get(&gateway, "/example?name=joe", &[]);
    assert_eq!(status_and_body(&reply), (200, "{\"n\":\"joe\"}".to_owned()));
    assert_eq!(
        reply.header("content-type"),
        Some("application/json;charset=utf8")
    );
    assert!(
        reply
            .header("x-mock-by")
            .is_some_and(|by| by.starts_with("Claviger/"))
    );
    let reply = get(&gateway, "/status", &[]);
    assert_eq!(status_and_body(&reply), (503, "late".to_owned()));
    for (name, value) in [
        ("content-type", Some("text/plain")),
        ("x-a", Some("b")),
        ("x-n", Some("5")),
        ("x-mock-by", None),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    let body: Value = serde_json::from_str(&get(&gateway, "/schema", &[]).text()).unwrap();
    assert_eq!(body["id"], 7);
    assert!(body["list"].is_array(), "{body}");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn no_body_where_none_may_be() {
    let (_upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    for (method, path, status, length) in [
        ("GET", "/none", 204, None),
        ("HEAD", "/status", 503, Some("4")),
        ("GET", "/status", 503, Some("4")),
    ] {
        let reply = super::send_on(&mut connection, method, path, &[]);
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("content-length"), length, "{method} {path}");
    }
}

#[test]
fn a_delay_is_waited_for() {
    let (_upstream, gateway) = start(RESOURCES);
    let began = std::time::Instant::now();
    let reply = send(&gateway, "GET", "/slow", &[]);
    assert_eq!(status_and_body(&reply), (200, "slow".to_owned()));
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
}
