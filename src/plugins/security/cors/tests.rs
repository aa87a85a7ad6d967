use serde_json::json;

use super::*;
use crate::plugins::testing::{Exchange, With, built, refusal, response_head};

/// The named headers of a response to a request with this origin.
fn heads(hooks: &Hooks, origin: Option<&str>, names: &[&str]) -> Vec<Option<String>> {
    let mut exchange = Exchange::get("/");
    if let Some(origin) = origin {
        exchange = exchange.header("Origin", origin);
    }
    assert!(exchange.rewrite(hooks).is_none(), "request goes on");
    let mut response = response_head(200, &[("Access-Control-Allow-Origin", "upstream")]);
    exchange.header_filter(hooks, &mut response);
    let text = |name: &&str| {
        let value = response.headers.get(*name)?;
        Some(value.to_str().expect("value is text").to_owned())
    };
    names.iter().map(text).collect()
}

#[test]
fn every_options_request_is_answered_at_once() {
    let hooks = built(&DEF, &json!(null));
    let mut exchange = Exchange::new("OPTIONS", "/");
    let answer = exchange.rewrite(&hooks).expect("request is answered");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, None);
}

#[test]
fn defaults_allow_everyone() {
    let hooks = built(&DEF, &json!({}));
    let names = [
        "access-control-allow-origin",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "access-control-expose-headers",
        "access-control-allow-credentials",
        "vary",
        "timing-allow-origin",
    ];
    let star = Some("*".to_owned());
    for origin in [None, Some("https://a.test")] {
        let expected = [
            star.clone(),
            star.clone(),
            star.clone(),
            Some("5".to_owned()),
            None,
            None,
            None,
            None,
        ];
        assert_eq!(heads(&hooks, origin, &names), expected);
    }
}

#[test]
fn origins_decide_who_is_told() {
    let list = json!({"allow_origins": "https://a.test,http://b.test:81"});
    let regex = json!({"allow_origins_by_regex": ["^https://[a-z]+\\.c\\.test$", "d"]});
    let reflect = json!({"allow_origins": "**"});
    let null = json!({"allow_origins": "null"});
    for (config, origin, expected) in [
        (&list, Some("https://a.test"), "https://a.test"),
        (&list, Some("http://b.test:81"), "http://b.test:81"),
        (&list, Some("http://b.test"), "upstream"),
        (&list, Some("HTTPS://a.test"), "upstream"),
        (&list, None, "upstream"),
        (&regex, Some("https://x.c.test"), "https://x.c.test"),
        (&regex, Some("https://x.c.test.evil"), "upstream"),
        (&regex, Some("http://d"), "http://d"),
        (&regex, None, "upstream"),
        (&reflect, Some("https://z.test"), "https://z.test"),
        (&reflect, None, "*"),
        (&null, Some("null"), "null"),
        (&null, Some("https://a.test"), "upstream"),
    ] {
        let hooks = built(&DEF, config);
        let found = heads(&hooks, origin, &["access-control-allow-origin", "vary"]);
        let expected = [Some(expected.to_owned()), Some("Origin".to_owned())];
        assert_eq!(found, expected, "{config} {origin:?}");
    }
}

#[test]
fn metadata_adds_origins() {
    let with = With {
        metadata: json!({"allow_origins": {"one": "https://m.test,https://n.test"}}),
        ..With::default()
    };
    let config = json!({
        "allow_origins": "https://a.test",
        "allow_origins_by_metadata": ["one", "absent"],
    });
    let hooks = with.build(&DEF, &config).expect("configuration is valid");
    for (origin, expected) in [
        ("https://a.test", "https://a.test"),
        ("https://n.test", "https://n.test"),
        ("https://x.test", "upstream"),
    ] {
        let found = heads(&hooks, Some(origin), &["access-control-allow-origin"]);
        assert_eq!(found, [Some(expected.to_owned())]);
    }
}

#[test]
fn wide_options_are_spelt_out() {
    let config = json!({
        "allow_origins": "**", "allow_methods": "**", "allow_headers": "**",
        "expose_headers": "X-A,X-B", "allow_credential": true, "max_age": -1,
        "timing_allow_origins": "https://t.test",
    });
    let hooks = built(&DEF, &config);
    let mut exchange = Exchange::get("/")
        .header("Origin", "https://t.test")
        .header("Access-Control-Request-Headers", "x-q, x-r");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    // What a later plugin does to the request does not change who asked.
    let changed = exchange
        .head
        .insert_header("Origin", "https://changed.test");
    changed.expect("header is valid");
    let mut response = response_head(502, &[("Vary", "Accept")]);
    exchange.header_filter(&hooks, &mut response);
    for (name, expected) in [
        ("access-control-allow-origin", "https://t.test"),
        ("access-control-allow-methods", ALL_METHODS),
        ("access-control-allow-headers", "x-q, x-r"),
        ("access-control-expose-headers", "X-A,X-B"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "-1"),
        ("timing-allow-origin", "https://t.test"),
    ] {
        assert_eq!(response.headers[name], expected, "{name}");
    }
    let vary: Vec<_> = response.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept", "Origin"]);
}

#[test]
fn vary_is_not_said_twice() {
    let hooks = built(&DEF, &json!({"allow_origins": "**"}));
    let mut exchange = Exchange::get("/");
    let mut response = response_head(200, &[("Vary", "accept, origin")]);
    exchange.header_filter(&hooks, &mut response);
    assert_eq!(response.headers.get_all("vary").iter().count(), 1);
}

#[test]
fn wrong_configuration_names_the_field() {
    let list = "must be '*', '**', 'null', or scheme://host[:port] separated by commas";
    let star =
        "allow_credential: you can not set '*' for other option when 'allow_credential' is true";
    let regex = "must be a regular expression without look-around and back-references";
    for (json, expected) in [
        (json!({"allow_credential": true}), star.to_owned()),
        (
            json!({
                "allow_credential": true, "allow_origins": "**", "allow_methods": "**",
                "allow_headers": "**", "expose_headers": "*",
            }),
            star.to_owned(),
        ),
        (
            json!({"allow_origins": "a.test"}),
            format!("allow_origins: {list}"),
        ),
        (
            json!({"allow_origins": "https://a.test,*"}),
            format!("allow_origins: {list}"),
        ),
        (
            json!({"allow_origins": "https://a.test,null"}),
            format!("allow_origins: {list}"),
        ),
        (
            json!({"allow_origins": ""}),
            format!("allow_origins: {list}"),
        ),
        (
            json!({"timing_allow_origins": "x"}),
            format!("timing_allow_origins: {list}"),
        ),
        (
            json!({"allow_origins_by_regex": ["a", "("]}),
            format!("allow_origins_by_regex[1]: {regex}"),
        ),
        (
            json!({"allow_origins_by_regex": []}),
            "allow_origins_by_regex: must not be empty".to_owned(),
        ),
        (
            json!({"allow_origins_by_metadata": []}),
            "allow_origins_by_metadata: must not be empty".to_owned(),
        ),
        (
            json!({"allow_methods": "GET\nX"}),
            "allow_methods: must be printable ASCII characters".to_owned(),
        ),
        (json!({"max_age": "5"}), "max_age: expected i64".to_owned()),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
}
