//! What is refused at load, and what the server is told.

use serde_json::json;

use super::*;
use crate::plugins::testing::{Exchange, With, build, built, refusal};

fn plugin(json: &serde_json::Value) -> ForwardAuth {
    let config = def::parse(json).expect("fields are known");
    With::default()
        .with(|ctx| config::build(&config, ctx))
        .expect("configuration is right")
}

#[test]
fn wrong_settings_are_named() {
    for (json, field) in [
        (json!({}), ""),
        (json!({"uri": "nonsense"}), "uri"),
        (json!({"uri": "http://u:p@a/"}), "uri"),
        (
            json!({"uri": "http://a", "request_method": "PUT"}),
            "request_method",
        ),
        (json!({"uri": "http://a", "timeout": 0}), "timeout"),
        (json!({"uri": "http://a", "timeout": 60001}), "timeout"),
        (
            json!({"uri": "http://a", "status_on_error": 199}),
            "status_on_error",
        ),
        (
            json!({"uri": "http://a", "status_on_error": 600}),
            "status_on_error",
        ),
        (
            json!({"uri": "http://a", "keepalive_timeout": 999}),
            "keepalive_timeout",
        ),
        (
            json!({"uri": "http://a", "keepalive_pool": 0}),
            "keepalive_pool",
        ),
        (
            json!({"uri": "http://a", "max_req_body_size": 0}),
            "max_req_body_size",
        ),
        (
            json!({"uri": "http://a", "request_headers": ["a b"]}),
            "request_headers[0]",
        ),
        (
            json!({"uri": "http://a", "request_headers": ["X", "Host"]}),
            "request_headers[1]",
        ),
        (
            json!({"uri": "http://a", "upstream_headers": ["Connection"]}),
            "upstream_headers[0]",
        ),
        (
            json!({"uri": "http://a", "upstream_headers": ["host"]}),
            "upstream_headers[0]",
        ),
        (
            json!({"uri": "http://a", "client_headers": ["Transfer-Encoding"]}),
            "client_headers[0]",
        ),
        (
            json!({"uri": "http://a", "extra_headers": {"Content-Length": "1"}}),
            "extra_headers.Content-Length",
        ),
        (
            json!({"uri": "http://a", "extra_headers": {"X": true}}),
            "extra_headers.X",
        ),
        (
            json!({"uri": "http://a", "extra_headers": {"X": "a\nb"}}),
            "extra_headers.X",
        ),
    ] {
        let told = refusal(&DEF, &json);
        assert_eq!(told.split(": ").next(), Some(field), "{told}");
        assert!(!told.contains("u:p"), "no value is repeated: {told}");
    }
    assert!(build(&DEF, &json!({"uri": "https://a/x?y=1"})).is_ok());
}

#[test]
fn the_server_is_told_of_the_request() {
    let plugin = plugin(&json!({
        "uri": "http://auth",
        "request_headers": ["Authorization", "X-Forwarded-For", "X-Many", "Cookie", "X-None"],
        "extra_headers": {"X-Route": "r-$arg_a", "X-Fixed": 7, "x-forwarded-proto": "$scheme!"},
    }));
    let mut exchange = Exchange::new("DELETE", "/a%20b?a=1&b=%2F")
        .header("Host", "Shop.Test:8443")
        .header("Authorization", "Bearer x")
        .header("X-Many", "1")
        .header("X-Many", "2")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Host", "forged")
        .header("X-Unlisted", "1");
    exchange.state.path = Some("/a b".to_owned());
    let headers = plugin.headers(&exchange.ctx()).expect("all fits");
    let mut told: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("value is text")))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("authorization", "Bearer x"),
            ("cookie", "a=1; b=2"),
            ("x-fixed", "7"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "shop.test"),
            ("x-forwarded-method", "DELETE"),
            ("x-forwarded-proto", "http!"),
            ("x-forwarded-uri", "/a%20b?a=1&b=%2F"),
            ("x-many", "1"),
            ("x-many", "2"),
            ("x-route", "r-1"),
        ]
    );
}

#[test]
fn a_line_break_never_reaches_the_server() {
    let hooks = built(
        &DEF,
        &json!({"uri": "http://127.0.0.1:1/", "extra_headers": {"X-Q": "$arg_q"}}),
    );
    let mut exchange = Exchange::get("/?q=a%0d%0aX-Admin:%201");
    let response = exchange.access(&hooks).expect("it is refused");
    assert_eq!(response.status, 400);
}

#[test]
fn an_answer_replaces_what_the_client_forged() {
    let plugin = plugin(&json!({
        "uri": "http://auth",
        "upstream_headers": ["X-User", "X-Role", "X-Nominated"],
    }));
    let mut exchange = Exchange::get("/")
        .header("X-User", "forged")
        .header("x-user", "forged too")
        .header("X-Role", "admin")
        .header("X_Role", "admin")
        .header("X-Nominated", "forged");
    let mut answered = HeaderMap::new();
    for (name, value) in [
        ("x-user", "alice"),
        ("x-user", "second"),
        ("x-nominated", "1"),
        ("x-unlisted", "1"),
        ("connection", "X-Nominated"),
    ] {
        answered.append(name, HeaderValue::from_static(value));
    }
    plugin.hand_on(&mut exchange.ctx(), &answered);
    assert_eq!(exchange.values("x-user"), ["alice", "second"]);
    for name in ["x-role", "x_role", "x-nominated", "x-unlisted"] {
        assert!(exchange.values(name).is_empty(), "{name}");
    }
}
