use std::time::Duration;

use serde_json::json;

use super::*;
use crate::plugins::testing::{Exchange, body_text, built, refusal, response_head};

fn set_cookie(hooks: &Hooks) -> String {
    let mut response = response_head(200, &[("Set-Cookie", "upstream=1")]);
    Exchange::get("/").header_filter(hooks, &mut response);
    let cookies: Vec<_> = response.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2, "the upstream's stays");
    cookies[1].to_str().expect("is text").to_owned()
}

fn token(hooks: &Hooks) -> String {
    let cookie = set_cookie(hooks);
    let (pair, _) = cookie.split_once(';').expect("it has attributes");
    pair.split_once('=').expect("it is a pair").1.to_owned()
}

#[test]
fn each_response_brings_a_token_for_its_time() {
    let hooks = built(&DEF, &json!({"key": "k", "name": "T"}));
    let (first, second) = (set_cookie(&hooks), set_cookie(&hooks));
    assert_ne!(first, second);
    assert!(first.starts_with("T=ey"), "{first}");
    let end = ";path=/;SameSite=Lax;Expires=Wed, 15 Nov 2023 00:13:20 GMT";
    assert!(first.ends_with(end), "{first}");
    let hooks = built(&DEF, &json!({"key": "k", "expires": 0}));
    assert!(set_cookie(&hooks).ends_with(";path=/;SameSite=Lax"));
}

#[test]
fn safe_methods_pass_and_others_need_both_tokens() {
    let hooks = built(&DEF, &json!({"key": "k"}));
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert!(Exchange::new(method, "/").access(&hooks).is_none());
    }
    let (good, other) = (token(&hooks), token(&hooks));
    let forged = token(&built(&DEF, &json!({"key": "x"})));
    for (header, cookie, expected) in [
        (Some(&good), Some(&good), None),
        (None, Some(&good), Some("no csrf token in headers")),
        (
            Some(&String::new()),
            Some(&good),
            Some("no csrf token in headers"),
        ),
        (Some(&good), None, Some("no csrf cookie")),
        (Some(&good), Some(&other), Some("csrf token mismatch")),
        (
            Some(&good),
            Some(&good[1..].to_owned()),
            Some("csrf token mismatch"),
        ),
        (
            Some(&forged),
            Some(&forged),
            Some("Failed to verify the csrf token signature"),
        ),
    ] {
        let mut exchange = Exchange::new("POST", "/");
        if let Some(header) = header {
            exchange = exchange.header("Apisix-Csrf-Token", header);
        }
        if let Some(cookie) = cookie {
            let cookie = format!("a=1; apisix-csrf-token={cookie}");
            exchange = exchange.header("Cookie", &cookie);
        }
        let answer = exchange.access(&hooks);
        let told = answer.map(|answer| (answer.status, body_text(&answer).to_owned()));
        let expected = expected.map(|text| (401, format!("{{\"error_msg\":\"{text}\"}}\n")));
        assert_eq!(told, expected);
    }
}

#[test]
fn a_token_ends_with_its_time() {
    let hooks = built(&DEF, &json!({"key": "k", "expires": 10}));
    let token = token(&hooks);
    let after = |secs: u64| {
        let mut exchange = Exchange::new("DELETE", "/")
            .header("apisix-csrf-token", &token)
            .header("cookie", &format!("apisix-csrf-token={token}"));
        exchange.state.started_wall += Duration::from_secs(secs);
        exchange.access(&hooks).map(|answer| answer.status)
    };
    assert_eq!(after(10), None);
    assert_eq!(after(11), Some(401));
}

#[test]
fn wrong_configuration_names_the_field_and_no_value() {
    for (json, expected) in [
        (json!({}), ": missing field `key`"),
        (json!({"key": ""}), "key: must not be empty"),
        (json!({"key": 12345}), "key: expected a string"),
        (
            json!({"key": "k", "name": "a b"}),
            "name: must be a header name",
        ),
        (
            json!({"key": "k", "name": ""}),
            "name: must be a header name",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
    assert_eq!(
        built(&DEF, &json!({"key": "k", "name": "T"})).redacted(),
        [Box::<str>::from("T")]
    );
}
