use std::sync::Arc;
use std::time::Duration;

use super::super::ctx::{Attached, RouteInfo, TlsInfo};
use super::super::testing::{Exchange, response_head};
use super::*;
use crate::consumer::Consumer;

fn check(exchange: &mut Exchange, table: &[(&str, Option<&str>)]) {
    let ctx = exchange.ctx();
    for (name, expected) in table {
        let value = ctx.var(&Variable::parse(name));
        assert_eq!(value.as_deref(), *expected, "{name}");
    }
}

#[test]
fn the_request_line_answers() {
    let mut exchange = Exchange::new("POST", "/a%20b?x=1&y=%2F&x=2&z")
        .header("Host", "Shop.Test:8443")
        .header("X-One", "1")
        .header("X-One", "2")
        .header("Cookie", "sid=7")
        .header("Cookie", "b=8; c")
        .header("Content-Type", "text/plain")
        .header("Authorization", "Basic YWxpY2U6c2VjcmV0");
    exchange.state.path = Some("/a b".to_owned());
    exchange
        .state
        .uri_params
        .push(("id".into(), "9".to_owned()));
    check(
        &mut exchange,
        &[
            ("uri", Some("/a b")),
            ("request_uri", Some("/a b?x=1&y=%2F&x=2&z")),
            ("real_request_uri", Some("/a%20b?x=1&y=%2F&x=2&z")),
            ("request", Some("POST /a%20b?x=1&y=%2F&x=2&z HTTP/1.1")),
            ("args", Some("x=1&y=%2F&x=2&z")),
            ("is_args", Some("?")),
            ("arg_x", Some("1")),
            ("arg_y", Some("/")),
            ("arg_z", Some("")),
            ("arg_w", None),
            ("method", Some("POST")),
            ("request_method", Some("POST")),
            ("server_protocol", Some("HTTP/1.1")),
            ("host", Some("shop.test")),
            ("http_host", Some("Shop.Test:8443")),
            ("http_x_one", Some("1")),
            ("http_x_two", None),
            ("cookie_sid", Some("7")),
            ("cookie_b", Some("8")),
            ("http_cookie", Some("sid=7; b=8; c")),
            ("content_type", Some("text/plain")),
            ("content_length", None),
            ("remote_user", Some("alice")),
            ("uri_param_id", Some("9")),
            ("uri_param_no", None),
            ("post_arg_a", None),
            ("graphql_name", None),
            ("no_such_variable", None),
            ("1", None),
        ],
    );
}

#[test]
fn a_rewritten_request_still_knows_its_original_line() {
    let mut exchange = Exchange::get("/old?q");
    let mut ctx = exchange.ctx();
    ctx.set_target("/new?p").expect("target is valid");
    ctx.set_method(http::Method::PUT);
    check(
        &mut exchange,
        &[
            ("uri", Some("/new")),
            ("request_uri", Some("/new?p")),
            ("real_request_uri", Some("/old?q")),
            ("request", Some("GET /old?q HTTP/1.1")),
            ("method", Some("PUT")),
            ("args", Some("p")),
        ],
    );
}

#[test]
fn the_connection_answers() {
    let mut exchange = Exchange::get("/");
    check(
        &mut exchange,
        &[
            ("scheme", Some("http")),
            ("server_addr", None),
            ("ssl_protocol", None),
            ("args", None),
            ("is_args", Some("")),
            ("host", None),
        ],
    );
    exchange.state.client = "[::ffff:198.51.100.1]:55"
        .parse()
        .expect("address is valid");
    exchange.state.local = Some("192.0.2.1:443".parse().expect("address is valid"));
    exchange.state.tls = Some(Arc::new(TlsInfo {
        sni: Some("a.test".into()),
        protocol: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256".into(),
        ..TlsInfo::default()
    }));
    check(
        &mut exchange,
        &[
            ("scheme", Some("https")),
            ("remote_addr", Some("198.51.100.1")),
            ("remote_port", Some("55")),
            ("realip_remote_addr", Some("192.0.2.7")),
            ("server_addr", Some("192.0.2.1")),
            ("server_port", Some("443")),
            ("ssl_protocol", Some("TLSv1.3")),
            ("ssl_cipher", Some("TLS_AES_128_GCM_SHA256")),
            ("ssl_server_name", Some("a.test")),
            ("pid", Some(&std::process::id().to_string())),
        ],
    );
    let name = exchange.ctx().var(&Variable::parse("hostname")).is_some();
    assert!(name, "the machine has a name");
}

#[test]
fn route_and_consumer_answer() {
    let mut exchange = Exchange::get("/");
    check(
        &mut exchange,
        &[
            ("route_id", None),
            ("consumer_name", None),
            ("apisix_request_id", None),
        ],
    );
    exchange.state.request_id = Some(HeaderValue::from_static("r-1"));
    exchange.state.route = Some(Arc::new(RouteInfo {
        id: "7".into(),
        name: Some("shop".into()),
        service_id: Some("s".into()),
        service_name: None,
        redacted_args: Vec::new(),
    }));
    exchange.state.consumer = Some(Attached {
        consumer: Arc::new(Consumer {
            username: "alice".into(),
            plugins: None,
            group: GroupLink::Member("staff".into()),
            labels: None,
        }),
        credential_id: Some("c1".into()),
    });
    check(
        &mut exchange,
        &[
            ("route_id", Some("7")),
            ("route_name", Some("shop")),
            ("service_id", Some("s")),
            ("service_name", None),
            ("consumer_name", Some("alice")),
            ("consumer_group_id", Some("staff")),
            ("credential", Some("c1")),
            ("apisix_request_id", Some("r-1")),
        ],
    );
}

#[test]
fn attempts_are_joined_and_times_are_in_seconds() {
    let mut exchange = Exchange::get("/u?q").header("Host", "h");
    check(
        &mut exchange,
        &[
            ("status", Some("000")),
            ("upstream_addr", None),
            ("upstream_status", None),
            ("upstream_scheme", Some("http")),
            ("upstream_host", Some("h")),
            ("upstream_uri", Some("")),
            ("balancer_ip", None),
        ],
    );
    let state = &mut exchange.state;
    let attempt = |addr: &str, status, millis: Option<u64>| Attempt {
        connect_time: millis.map(|_| Duration::from_millis(1)),
        addr: addr.parse().expect("address is valid"),
        status,
        started: state.started,
        header_time: None,
        response_time: millis.map(Duration::from_millis),
    };
    let attempts = [
        attempt("10.0.0.1:80", None, None),
        attempt("10.0.0.2:81", Some(200), Some(12)),
    ];
    state.attempts.extend(attempts);
    state.upstream_scheme = Some("https");
    state.upstream_host = Some("up.test".into());
    state.status = 404;
    state.bytes_received = 11;
    state.bytes_sent = 22;
    state.body_bytes_sent = 5;
    state.request_time = Duration::from_millis(1045);
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("b"));
    state.response_headers = Some(Box::new(headers));
    check(
        &mut exchange,
        &[
            ("status", Some("404")),
            ("request_length", Some("11")),
            ("bytes_sent", Some("22")),
            ("body_bytes_sent", Some("5")),
            ("request_time", Some("1.045")),
            ("msec", Some("1700000001.045")),
            ("time_local", Some("14/Nov/2023:22:13:21 +0000")),
            ("time_iso8601", Some("2023-11-14T22:13:21+00:00")),
            ("upstream_addr", Some("10.0.0.1:80, 10.0.0.2:81")),
            ("upstream_status", Some("-, 200")),
            ("upstream_response_time", Some("-, 0.012")),
            ("upstream_scheme", Some("https")),
            ("upstream_host", Some("up.test")),
            ("upstream_uri", Some("/u?q")),
            ("balancer_ip", Some("10.0.0.2")),
            ("balancer_port", Some("81")),
            ("sent_http_x_a", Some("b")),
            ("sent_http_x_b", None),
        ],
    );
}

#[test]
fn a_response_head_at_hand_answers_first() {
    let exchange = Exchange::get("/u");
    let response = response_head(418, &[("x-a", "1")]);
    let vars = ResponseVars {
        request: Vars {
            head: &exchange.head,
            state: &exchange.state,
        },
        response: &response,
    };
    for (name, expected) in [
        ("status", Some("418")),
        ("sent_http_x_a", Some("1")),
        ("upstream_http_x_a", Some("1")),
        ("sent_http_x_b", None),
        ("uri", Some("/u")),
    ] {
        assert_eq!(
            vars.var(&Variable::parse(name)).as_deref(),
            expected,
            "{name}"
        );
    }
}
