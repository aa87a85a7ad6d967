use serde_json::json;

use super::*;
use crate::plugins::testing::{Exchange, body_text, built, refusal};

/// Target after the rewrite of `target`, whose normalised path is `path`.
fn rewritten(config: &Value, target: &str, path: Option<&str>) -> (String, String) {
    let hooks = built(&DEF, config);
    let mut exchange = Exchange::get(target);
    exchange.state.path = path.map(str::to_owned);
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    let seen = exchange.ctx().path().to_owned();
    (exchange.target().to_owned(), seen)
}

#[test]
fn uri_replaces_the_path_and_keeps_the_query() {
    for (uri, target, path, expected, seen) in [
        ("/new", "/old", None, "/new", "/new"),
        ("/new", "/old?a=%20", None, "/new?a=%20", "/new"),
        ("/new?x=1", "/old", None, "/new?x=1", "/new"),
        ("/new?x=1", "/old?a", None, "/new?x=1&a", "/new"),
        ("/p$uri", "/a%20b", Some("/a b"), "/p/a%20b", "/p/a b"),
        ("/p$uri", "/a%3Fb?q", Some("/a?b"), "/p/a%3Fb?q", "/p/a?b"),
        ("/p$uri", "/a%25", Some("/a%"), "/p/a%25", "/p/a%"),
        (
            "/p$uri",
            "/a%0d%0ab",
            Some("/a\r\nb"),
            "/p/a%0D%0Ab",
            "/p/a\r\nb",
        ),
        (
            "/p/$arg_x",
            "/?x=..%2f%0a",
            None,
            "/p/../%0A?x=..%2f%0a",
            "/p/../\n",
        ),
        (
            "/p?h=$arg_x",
            "/?x=1%0a2+3",
            None,
            "/p?h=1%0A2%203&x=1%0a2+3",
            "/p",
        ),
        ("/p/${arg_x ?? a?b}", "/", None, "/p/a%3Fb", "/p/a?b"),
        ("/ü b", "/", None, "/%C3%BC%20b", "/ü b"),
    ] {
        let found = rewritten(&json!({"uri": uri}), target, path);
        assert_eq!(
            found,
            (expected.to_owned(), seen.to_owned()),
            "{uri} {target}"
        );
    }
}

#[test]
fn regex_uri_takes_the_first_pair_that_matches() {
    let config = json!({"regex_uri": [
        "^/a/(.*)/b$", "/first/$1",
        "^/a/(.*)", "/second/${1}?v=$1",
        "x", "y",
    ]});
    for (target, path, expected, seen) in [
        ("/a/1/b?q=2", None, "/first/1?q=2", "/first/1"),
        ("/a/1?q=2", None, "/second/1?v=1&q=2", "/second/1"),
        ("/kx/x", None, "/ky/x", "/ky/x"),
        ("/none?q", None, "/none?q", "/none"),
        ("/a/%20", Some("/a/ "), "/second/%20?v=%20", "/second/ "),
        ("/a/%3F/b", Some("/a/?/b"), "/first/%3F", "/first/?"),
    ] {
        let found = rewritten(&config, target, path);
        assert_eq!(found, (expected.to_owned(), seen.to_owned()), "{target}");
    }
}

#[test]
fn uri_beats_regex_uri() {
    let config = json!({"uri": "/u", "regex_uri": ["^/", "/r"]});
    assert_eq!(rewritten(&config, "/a", None).0, "/u");
}

#[test]
fn the_real_request_uri_goes_up_as_it_came() {
    let raw = json!({"use_real_request_uri_unsafe": true});
    let received = "/a%2Fb//c/%2e%2e/?q=%41";
    let found = rewritten(&raw, received, Some("/a/b/c/"));
    assert_eq!(found, (received.to_owned(), "/a/b/c/".to_owned()));

    let regex = json!({"use_real_request_uri_unsafe": true, "regex_uri": ["^/a(.*)", "/z$1"]});
    let found = rewritten(&regex, received, Some("/a/b/c/"));
    assert_eq!(found.0, "/z%2Fb//c/%2e%2e/?q=%41");
    assert_eq!(rewritten(&regex, "/no?q=/a", None).0, "/no?q=/a");

    let uri = json!({"use_real_request_uri_unsafe": true, "uri": "/%41"});
    assert_eq!(rewritten(&uri, "/x?q", None).0, "/%41?q");
}

#[test]
fn an_impossible_target_ends_in_500() {
    for config in [
        json!({"regex_uri": ["^/(.*)", "http://evil.test/$1"]}),
        json!({"regex_uri": ["^/.*", ""]}),
        json!({"use_real_request_uri_unsafe": true, "uri": "/a b"}),
        json!({"use_real_request_uri_unsafe": true, "uri": "/$arg_x"}),
    ] {
        let hooks = built(&DEF, &config);
        let mut exchange = Exchange::get("/a?x=%0d%0aHost:b");
        let answer = exchange.rewrite(&hooks).expect("request is refused");
        assert_eq!(answer.status, 500, "{config}");
        assert_eq!(
            body_text(&answer),
            "{\"error_msg\":\"failed to rewrite the request uri\"}\n"
        );
    }
}

#[test]
fn host_and_method_are_replaced() {
    let hooks = built(&DEF, &json!({"host": "up.test:8080", "method": "PUT"}));
    let mut exchange = Exchange::get("/a").header("Host", "a.test");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    let host = exchange.state.host_override.as_ref();
    assert_eq!(host.expect("host is set"), "up.test:8080");
    assert_eq!(
        exchange.values("host"),
        ["a.test"],
        "the request keeps its own"
    );
    assert_eq!(exchange.head.method, Method::PUT);
    let original = exchange.state.original.expect("original is kept");
    assert_eq!(original.method, Method::GET);
}

#[test]
fn header_templates_see_captures_and_the_new_uri() {
    let config = json!({
        "regex_uri": ["^/v(\\d+)/(.*)$", "/$2"],
        "headers": {"set": {"X-Version": "$1", "X-Uri": "$uri"}, "add": {"X-Tag": "${1}-$2"}},
    });
    let hooks = built(&DEF, &config);
    let mut exchange = Exchange::get("/v2/cart").header("X-Version", "9");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.values("x-version"), ["2"]);
    assert_eq!(exchange.values("x-tag"), ["2-cart"]);
    assert_eq!(exchange.values("x-uri"), ["/cart"]);

    let mut exchange = Exchange::get("/other").header("X-Version", "9");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.values("x-version"), [""], "no capture is empty");
}

#[test]
fn wrong_configuration_names_the_field() {
    let uri = "uri: must start with '/' and have at most 4096 characters";
    let pairs = "regex_uri: must be pairs of a regular expression and a template";
    let host = "host: must be a host name, with or without a port";
    for (json, expected) in [
        (json!(null), ": at least one property is required"),
        (json!({"uri": "a"}), uri),
        (json!({"uri": ""}), uri),
        (json!({"uri": format!("/{}", "a".repeat(4096))}), uri),
        (json!({"regex_uri": ["a"]}), pairs),
        (json!({"regex_uri": []}), pairs),
        (
            json!({"regex_uri": ["a", "b", "(", "c"]}),
            "regex_uri[2]: must be a regular expression without look-around and back-references",
        ),
        (json!({"host": "a b"}), host),
        (json!({"host": "a:"}), host),
        (json!({"host": "a:123456"}), host),
        (json!({"host": ":80"}), host),
        (
            json!({"headers": {"a:b": "x"}}),
            "headers.a:b: must be a header name",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
    assert!(refusal(&DEF, &json!({"method": "BREW"})).starts_with("method: must be one of GET"));
}
