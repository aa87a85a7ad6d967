//! What is refused at load, and where browsers are sent; Casdoor itself is met in `tests/it`.

use serde_json::{Value, json};

use super::*;
use crate::plugins::testing::{Exchange, answered, body_text, built, refusal};

fn settings() -> Value {
    json!({
        "endpoint_addr": "https://door.test:8000",
        "client_id": "7ceb9b7fda4a9061ec1c",
        "client_secret": "3416238e1edf915eac08b8fe345b2b95cdba7e04",
        "callback_url": "https://shop.test/back",
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut settings = settings();
    settings[field] = value;
    settings
}

#[test]
fn wrong_settings_are_named() {
    for (field, value) in [
        ("endpoint_addr", json!("https://door.test/")),
        ("endpoint_addr", json!("https://door.test?x=1")),
        ("endpoint_addr", json!("door.test")),
        ("endpoint_addr", json!("https://user:hidden@door.test")),
        ("callback_url", json!("https://shop.test/back/")),
        ("callback_url", json!("https://shop.test/back?x")),
        ("callback_url", json!("https://shop.test")),
        ("callback_url", json!("/back")),
        ("client_id", json!("")),
        ("client_id", json!(7)),
        ("client_secret", json!("")),
        ("client_secret", json!({"hidden": 1})),
    ] {
        let told = refusal(&DEF, &with(field, value.clone()));
        assert!(told.starts_with(field), "{value}: {told}");
        assert!(!told.contains("hidden"), "no value is repeated: {told}");
    }
    for field in [
        "endpoint_addr",
        "client_id",
        "client_secret",
        "callback_url",
    ] {
        let mut missing = settings();
        missing.as_object_mut().expect("a map").remove(field);
        let told = refusal(&DEF, &missing);
        assert!(told.contains(field), "{told}");
    }
}

#[test]
fn a_stranger_is_sent_to_log_in() {
    let hooks = built(&DEF, &settings());
    let mut exchange = Exchange::get("/a?x=1");
    let response = exchange.access(&hooks).expect("nobody is logged in");
    assert_eq!(response.status, 302);
    let location = answered(&response, "location").expect("there is a way");
    let start = "https://door.test:8000/login/oauth/authorize?response_type=code&scope=read&state=";
    assert!(location.starts_with(start), "{location}");
    let end = "&client_id=7ceb9b7fda4a9061ec1c&redirect_uri=https%3A%2F%2Fshop.test%2Fback";
    assert!(location.ends_with(end), "{location}");
    assert_eq!(location.len(), start.len() + 32 + end.len(), "{location}");
    let cookie = answered(&response, "set-cookie").expect("there is a cookie");
    assert!(cookie.starts_with("authz_casdoor_session_"), "{cookie}");
    assert!(
        cookie.ends_with("; Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{cookie}"
    );
    let plain = with("callback_url", json!("http://shop.test/back"));
    let response = Exchange::get("/").access(&built(&DEF, &plain));
    let response = response.expect("nobody is logged in");
    let cookie = answered(&response, "set-cookie").expect("there is a cookie");
    assert!(!cookie.contains("Secure"), "{cookie}");
}

#[test]
fn the_way_back_is_a_path_of_ours() {
    let long = format!("/{}", "x".repeat(3000));
    for (raw, normal, expected) in [
        ("/a?x=1&y=%2F", None, "/a?x=1&y=%2F"),
        ("//evil.test/x", Some("/evil.test/x"), "/evil.test/x"),
        (
            "/%5C%5Cevil.test",
            Some("/\\\\evil.test"),
            "/%5C%5Cevil.test",
        ),
        ("/\\evil.test", None, "/%5Cevil.test"),
        ("/a?next=//evil.test", None, "/a?next=//evil.test"),
        (&long, None, "/"),
        (&format!("/a?{long}"), None, "/a"),
        ("*", Some("*"), "/"),
    ] {
        let mut exchange = Exchange::get(raw);
        exchange.state.path = normal.map(str::to_owned);
        assert_eq!(target(&exchange.ctx()), expected, "{raw:.80}");
    }
}

#[test]
fn a_callback_without_its_login_gets_503() {
    let hooks = built(&DEF, &settings());
    for cookie in [None, Some("x"), Some("")] {
        let mut exchange = Exchange::get("/back?code=c&state=s");
        if let Some(value) = cookie {
            let mut probe = Exchange::get("/");
            let sent = probe.access(&hooks).expect("nobody is logged in");
            let set = answered(&sent, "set-cookie").expect("there is a cookie");
            let (name, _) = set.split_once('=').expect("it has a name");
            exchange = exchange.header("Cookie", &format!("{name}={value}"));
        }
        let response = exchange.access(&hooks).expect("there is no login");
        assert_eq!((response.status, response.body), (503, None));
    }
}

#[test]
fn a_callback_must_bring_code_and_state() {
    let hooks = built(&DEF, &settings());
    let sent = Exchange::get("/")
        .access(&hooks)
        .expect("nobody is logged in");
    let cookie = answered(&sent, "set-cookie").expect("there is a cookie");
    let cookie = cookie.split(';').next().expect("it has a value");
    let location = answered(&sent, "location").expect("there is a way");
    let state = location.split("state=").nth(1).expect("there is a state");
    let state = state.split('&').next().expect("it ends");
    let missing = "failed when accessing token. Invalid code or state";
    for (query, message) in [
        (String::new(), missing),
        ("?code=c".to_owned(), missing),
        (format!("?state={state}"), missing),
        ("?code=c&state=".to_owned(), "invalid state"),
        (format!("?code=c&state={state}x"), "invalid state"),
        (
            format!("?code=c&state={}", state.to_uppercase()),
            "invalid state",
        ),
        (format!("?code=&state={state}"), "invalid code"),
    ] {
        let mut exchange = Exchange::get(&format!("/back{query}")).header("Cookie", cookie);
        let response = exchange.access(&hooks).expect("it is refused");
        assert_eq!(
            (response.status, body_text(&response)),
            (400, message),
            "{query}"
        );
    }
}

#[test]
fn one_login_serves_a_browser() {
    let hooks = built(&DEF, &settings());
    let send = |path: &str, accept: &str, cookie: &str| {
        let mut exchange = Exchange::get(path).header("Accept", accept);
        if !cookie.is_empty() {
            exchange = exchange.header("Cookie", cookie);
        }
        let sent = exchange.access(&hooks).expect("nobody is logged in");
        let location = answered(&sent, "location")
            .expect("there is a way")
            .to_owned();
        let cookie = answered(&sent, "set-cookie").expect("there is a cookie");
        let cookie = cookie.split(';').next().expect("it has a value").to_owned();
        (location, cookie)
    };
    let (first, cookie) = send("/page", "text/html", "");
    let (icon, _) = send("/favicon.ico", "image/*", &cookie);
    assert_eq!(first, icon, "the same state: either answer can come first");
    let (stranger, _) = send("/page", "text/html", "");
    assert_ne!(first, stranger, "another browser has another");
}
