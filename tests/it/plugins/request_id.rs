use super::{access_log, get, send, start_logging};
use crate::harness::{Behaviour, wait_until};

const RESOURCES: &str = "
routes:
  - { id: 1, uri: /uuid, plugins: { request-id: {} }, NODE }
  - { id: 2, uri: /quiet, plugins: { request-id: { header_name: X-Trace, include_in_response: false, algorithm: nanoid } }, NODE }
  - { id: 3, uri: /refused, plugins: { request-id: { algorithm: ksuid }, ip-restriction: { blacklist: [127.0.0.1] } }, NODE }
  - { id: 4, uri: /range, plugins: { request-id: { algorithm: range_id, range_id: { length: 12, char_set: abcdef } } }, NODE }
";

#[test]
fn both_sides_and_the_log_see_the_same_id() {
    let (upstream, gateway) = start_logging("$uri $apisix_request_id", RESOURCES);
    let mut expected = Vec::new();
    for (path, length) in [("/uuid", 36), ("/refused", 27), ("/range", 12)] {
        let reply = get(&gateway, path, &[]);
        let id = reply.header("x-request-id").unwrap().to_owned();
        assert_eq!(id.len(), length, "{path}: {id}");
        if reply.status == 200 {
            let seen = upstream.requests().pop().unwrap();
            assert_eq!(seen.header("x-request-id"), Some(id.as_str()));
        }
        expected.push(format!("{path} {id}"));
    }
    wait_until("the lines are written", || access_log(&gateway) == expected);
}

#[test]
fn an_id_that_comes_is_kept_unless_it_is_empty() {
    let (upstream, gateway) = start_logging("$uri", RESOURCES);
    let reply = get(&gateway, "/uuid", &[("x-request-id", "mine")]);
    assert_eq!(reply.header("x-request-id"), Some("mine"));
    let reply = get(&gateway, "/uuid", &[("X-Request-Id", "")]);
    assert_eq!(reply.header("x-request-id").map(str::len), Some(36));
    upstream.set(Behaviour::Raw(
        "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ));
    let reply = get(&gateway, "/uuid", &[]);
    assert_eq!(reply.header("x-request-id"), Some("theirs"));
}

#[test]
fn a_response_may_go_without() {
    let (upstream, gateway) = start_logging("$uri", RESOURCES);
    let reply = send(&gateway, "POST", "/quiet", &[("Content-Length", "0")]);
    assert_eq!(reply.header("x-trace"), None);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-trace").map(str::len), Some(21));
}
