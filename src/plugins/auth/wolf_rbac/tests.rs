use serde_json::json;

use super::*;
use crate::plugins::testing::{self, Exchange, body_text, built, refusal};

fn token(text: &str) -> Option<(String, String)> {
    let token = Token::parse(text.as_bytes())?;
    let wolf = token
        .wolf
        .to_str()
        .expect("test tokens are ASCII")
        .to_owned();
    Some((token.appid, wolf))
}

#[test]
fn a_token_has_three_parts_of_which_the_last_may_hold_anything() {
    let parts = |appid: &str, wolf: &str| Some((appid.to_owned(), wolf.to_owned()));
    assert_eq!(token("V1#shop#abc"), parts("shop", "abc"));
    assert_eq!(token("V1#shop#a#b#"), parts("shop", "a#b#"));
    assert_eq!(token("V1##"), parts("", ""));
    for text in [
        "",
        "V1",
        "V1#shop",
        "V2#shop#a",
        " V1#shop#a",
        "V1#shop#a\r\nx: y",
    ] {
        assert_eq!(token(text), None, "{text}");
    }
}

#[test]
fn the_first_place_that_has_a_token_counts() {
    let text = |exchange: Exchange| {
        let mut exchange = exchange;
        let text = token_text(&exchange.ctx())?;
        Some(String::from_utf8(text).expect("test tokens are ASCII"))
    };
    let all = || {
        Exchange::get("/")
            .header("Cookie", "x-rbac-token=cookie")
            .header("X-Rbac-Token", "header")
            .header("Authorization", "authorization")
    };
    assert_eq!(text(all()).as_deref(), Some("authorization"));
    let argument =
        Exchange::get("/?rbac_token=V1%23a%23b&rbac_token=x").header("Authorization", "x");
    assert_eq!(text(argument).as_deref(), Some("V1#a#b"));
    let two = Exchange::get("/")
        .header("x-rbac-token", "header")
        .header("Cookie", "x-rbac-token=c");
    assert_eq!(text(two).as_deref(), Some("header"));
    let cookie = Exchange::get("/").header("Cookie", "a=b; x-rbac-token=cookie");
    assert_eq!(text(cookie).as_deref(), Some("cookie"));
    assert_eq!(text(Exchange::get("/")), None);
}

#[test]
fn what_needs_no_server_is_refused_at_once() {
    let hooks = built(&DEF, &json!({}));
    assert_eq!(
        hooks.redacted(),
        ["rbac_token", "x-rbac-token"].map(Box::<str>::from)
    );
    for (exchange, message) in [
        (Exchange::get("/"), "Missing rbac token in request"),
        (
            Exchange::get("/").header("Authorization", "Bearer x"),
            "invalid rbac token: parse failed",
        ),
        (
            Exchange::get("/").header("Authorization", "V1#a#b"),
            "Missing related consumer",
        ),
    ] {
        let mut exchange = exchange;
        let answer = exchange.rewrite(&hooks).expect("request is refused");
        assert_eq!(answer.status, 401);
        assert_eq!(
            body_text(&answer),
            format!("{{\"message\":\"{message}\"}}\n")
        );
    }
}

#[test]
fn a_wrong_configuration_is_refused_by_field() {
    let server = "server: expected http(s)://host[:port][/path] without user and fragment";
    for (json, expected) in [
        (json!({"server": "127.0.0.1:12180"}), server),
        (
            json!({"header_prefix": "X "}),
            "header_prefix: must begin a header's name",
        ),
        (json!({"ssl_verify": 1}), "ssl_verify: expected a boolean"),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
        let error = testing::credential(&DEF, &json)
            .err()
            .expect("credential is refused");
        assert_eq!(format!("{}: {}", error.field, error.message), expected);
    }
    for appid in ["", "a#b", "$secret://vault/1/a/b"] {
        let error = testing::credential(&DEF, &json!({"appid": appid}));
        assert_eq!(error.err().expect("credential is refused").field, "appid");
    }
    let unset = testing::credential(&DEF, &json!({}));
    let unset = unset.expect("all fields have defaults");
    assert_eq!(unset.lookup_key.expose(), b"unset");
}
