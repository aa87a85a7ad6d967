use super::*;

#[test]
fn names_are_unique_and_sorted() {
    let names: Vec<_> = MANAGERS.iter().map(|def| def.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

#[test]
fn errors_about_fields_name_the_place_and_no_value() {
    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(default, deserialize_with = "secret_text")]
        #[expect(dead_code, reason = "only its parsing is looked at")]
        token: Option<Secret>,
        #[serde(default, deserialize_with = "seconds")]
        ttl: Option<Duration>,
    }
    let parse = |json: Value| Fields::new(json).parse::<Config>();
    for (json, field) in [
        (serde_json::json!({"token": ["hunter2"]}), "token"),
        (serde_json::json!({"ttl": "hunter2"}), "ttl"),
        (serde_json::json!({"ttl": -1}), "ttl"),
        (serde_json::json!({"ttl": 1e300}), "ttl"),
    ] {
        let error = parse(json).expect_err("must be refused");
        assert_eq!(error.field, field);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let config = parse(serde_json::json!({"ttl": 1.5, "other": 1})).expect("must parse");
    assert_eq!(config.ttl, Some(Duration::from_millis(1500)));
}
