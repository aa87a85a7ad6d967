use serde_json::json;

use super::super::decode::tests::{BROTLI, gzip};
use super::*;
use crate::plugins::testing::{Exchange, built, refusal, response_head};

/// Head and body after the plugin saw this response.
fn rewritten(
    config: &Value,
    response: &mut ResponseHeader,
    pieces: &[&[u8]],
    method: &str,
) -> String {
    let hooks = built(&DEF, config);
    let mut exchange = Exchange::new(method, "/u?q=1");
    exchange.header_filter(&hooks, response);
    if hooks.body_filter.is_none() {
        return pieces
            .concat()
            .iter()
            .map(|byte| char::from(*byte))
            .collect();
    }
    let body = exchange.body_filter(&hooks, pieces);
    String::from_utf8_lossy(&body).into_owned()
}

const BODY_HEADERS: [(&str, &str); 4] = [
    ("Content-Length", "5"),
    ("ETag", "\"a\""),
    ("Last-Modified", "Sun, 22 Nov 2026 02:50:20 GMT"),
    ("Content-Type", "text/plain"),
];

fn names(response: &ResponseHeader) -> Vec<&str> {
    let mut names: Vec<_> = response
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn status_and_headers_change_and_the_body_stays() {
    let mut response = response_head(200, &BODY_HEADERS);
    let config = json!({
        "status_code": 201,
        "headers": {
            "add": ["X-Two: $uri", "X-Two: ${status}"],
            "set": {"X-One": "$sent_http_content_type", "X-Q": "$arg_q"},
            "remove": ["ETag"],
        },
    });
    let body = rewritten(&config, &mut response, &[b"hello"], "GET");
    assert_eq!(body, "hello");
    assert_eq!(response.status, 201);
    assert_eq!(response.headers["x-one"], "text/plain");
    assert_eq!(response.headers["x-q"], "1");
    let two: Vec<_> = response.headers.get_all("x-two").iter().collect();
    assert_eq!(two, ["/u", "200"], "templates see the response as it came");
    assert!(!response.headers.contains_key("etag"), "header is removed");
    assert_eq!(response.headers["content-length"], "5");
}

#[test]
fn a_new_body_is_sent_once_and_old_validators_go() {
    for (config, expected) in [
        (json!({"body": "new"}), "new"),
        (json!({"body": "bmV3\n", "body_base64": true}), "new"),
        (json!({"body": ""}), ""),
    ] {
        let mut response = response_head(200, &BODY_HEADERS);
        let body = rewritten(&config, &mut response, &[b"he", b"llo"], "GET");
        assert_eq!(body, expected);
        assert_eq!(names(&response), ["content-type"], "{config}");
    }
    let mut response = response_head(200, &[("Content-Encoding", "zstd")]);
    assert_eq!(
        rewritten(&json!({"body": "n"}), &mut response, &[], "GET"),
        "n"
    );
    assert!(names(&response).is_empty(), "new body is not encoded");
}

#[test]
fn bodiless_responses_stay_bodiless() {
    for (status, method) in [(200, "HEAD"), (204, "GET"), (304, "GET")] {
        let mut response = response_head(status, &[]);
        let body = rewritten(&json!({"body": "new"}), &mut response, &[], method);
        assert_eq!(body, "", "{status} {method}");
    }
    let mut response = response_head(304, &[]);
    let config = json!({"body": "new", "status_code": 200});
    assert_eq!(rewritten(&config, &mut response, &[], "GET"), "new");
}

#[test]
fn only_responses_that_fit_are_changed() {
    let config = json!({
        "vars": [["status", "==", 404], ["sent_http_x_a", "==", "b"]],
        "body": "gone", "status_code": 410,
    });
    for (status, header, expected) in [(404, "b", 410), (404, "c", 404), (200, "b", 200)] {
        let mut response = response_head(status, &[("X-A", header), ("ETag", "e")]);
        let body = rewritten(&config, &mut response, &[b"old"], "GET");
        assert_eq!(response.status, expected);
        let changed = expected == 410;
        assert_eq!(body, if changed { "gone" } else { "old" });
        assert_eq!(response.headers.contains_key("etag"), !changed);
    }
}

#[test]
fn filters_see_the_whole_body_decoded() {
    let config = json!({"filters": [
        {"regex": "hello", "replace": "bye"},
        {"regex": "l+", "replace": "L", "scope": "global"},
    ]});
    let zipped = gzip(b"hello hello");
    let (first, second) = zipped.split_at(7);
    type Case<'a> = (&'a [(&'static str, &'a str)], &'a [&'a [u8]], &'a str);
    let cases: [Case<'_>; 5] = [
        (&[], &[b"hel", b"lo hello"], "bye heLo"),
        (
            &[("Content-Encoding", "gzip")],
            &[first, second],
            "bye heLo",
        ),
        (&[("Content-Encoding", "br")], &[BROTLI], "bye heLo"),
        (&[("Content-Encoding", "gzip")], &[first], ""),
        (&[], &[], ""),
    ];
    for (headers, pieces, expected) in cases {
        let mut response = response_head(200, headers);
        let added = response.insert_header("Content-Length", "99");
        added.expect("header is valid");
        assert_eq!(rewritten(&config, &mut response, pieces, "GET"), expected);
        assert!(names(&response).is_empty(), "{headers:?}");
    }
}

#[test]
fn an_unknown_encoding_passes_untouched() {
    let config = json!({"filters": [{"regex": "a", "replace": "b"}]});
    let mut response = response_head(200, &[("Content-Encoding", "zstd"), ("ETag", "e")]);
    assert_eq!(rewritten(&config, &mut response, &[b"aaa"], "GET"), "aaa");
    assert_eq!(names(&response), ["content-encoding", "etag"]);
}

#[test]
fn large_bodies_are_cut_before_and_after_decoding() {
    let config = json!({"max_resp_body_size": 4, "filters": [{"regex": "^a", "replace": "bb"}]});
    let mut response = response_head(200, &[]);
    assert_eq!(
        rewritten(&config, &mut response, &[b"aaa", b"aaa"], "GET"),
        "bbaaa"
    );
    let config = json!({"max_resp_body_size": 100, "filters": [{"regex": "^a", "replace": "b"}]});
    let mut response = response_head(200, &[("Content-Encoding", "gzip")]);
    let zipped = gzip(&[b'a'; 10_000]);
    let body = rewritten(&config, &mut response, &[&zipped[..]], "GET");
    assert_eq!(body.len(), 100);
}

#[test]
fn two_instances_work_on_one_response() {
    let first = built(&DEF, &json!({"filters": [{"regex": "a", "replace": "b"}]}));
    let second = built(&DEF, &json!({"filters": [{"regex": "b", "replace": "c"}]}));
    let mut exchange = Exchange::get("/");
    let mut response = response_head(200, &[]);
    exchange.header_filter(&first, &mut response);
    exchange.header_filter(&second, &mut response);
    let body = exchange.body_filter(&first, &[b"a", b"z"]);
    assert_eq!(exchange.body_filter(&second, &[&body]), b"cz");
}

#[test]
fn wrong_configuration_names_the_field() {
    let filters = json!([{"regex": "a", "replace": "b"}]);
    for (json, expected) in [
        (
            json!({"status_code": 199}),
            "status_code: must be 200 to 598",
        ),
        (
            json!({"status_code": 599}),
            "status_code: must be 200 to 598",
        ),
        (
            json!({"body": "x", "filters": filters}),
            ": body and filters exclude each other",
        ),
        (
            json!({"body": "?", "body_base64": true}),
            "body: invalid base64 content",
        ),
        (
            json!({"body": "", "body_base64": true}),
            "body: invalid base64 content",
        ),
        (json!({"filters": []}), "filters: must not be empty"),
        (
            json!({"max_resp_body_size": 0}),
            "max_resp_body_size: must be above 0",
        ),
        (
            json!({"vars": [["status", "=", 1]]}),
            "vars: failed to validate the 'vars' expression: invalid operator '='",
        ),
        (
            json!({"headers": {"set": []}}),
            "headers.set: expected a map",
        ),
        (
            json!({"filters": [{"regex": "a"}]}),
            "filters[0]: missing field `replace`",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
}
