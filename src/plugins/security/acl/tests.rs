use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::consumer::{Consumer, GroupLink};
use crate::plugins::ctx::Attached;
use crate::plugins::testing::{Exchange, body_text, built, refusal};

fn answer(config: &Value, mut exchange: Exchange) -> Option<(u16, String)> {
    let answer = exchange.access(&built(&DEF, config))?;
    Some((answer.status, body_text(&answer).to_owned()))
}

/// A request of a consumer with these labels.
fn of_consumer(labels: &[(&str, &str)]) -> Exchange {
    let labels: std::collections::HashMap<_, _> = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut exchange = Exchange::get("/");
    exchange.state.consumer = Some(Attached {
        consumer: Arc::new(Consumer {
            username: "alice".into(),
            plugins: None,
            group: GroupLink::Alone,
            labels: (!labels.is_empty()).then(|| Arc::new(labels)),
        }),
        credential_id: None,
    });
    exchange
}

fn of_user(user: Value) -> Exchange {
    let mut exchange = Exchange::get("/");
    exchange.ctx().set_external_user(user);
    exchange
}

fn lets_in(config: &Value, exchange: Exchange) -> bool {
    answer(config, exchange).is_none()
}

const FORBIDDEN: &str = "{\"message\":\"The consumer is forbidden.\"}\n";

#[test]
fn labels_of_consumers_are_read_by_their_looks() {
    let config = json!({"allow_labels": {"team": ["blue", "red"], "role": ["admin"]}});
    for (label, value, expected) in [
        ("team", "blue", true),
        ("role", "admin", true),
        ("team", "admin", false),
        ("team", "green,red", true),
        ("team", "green , red , x", true),
        ("team", " blue", false),
        ("team", " blue,x", false),
        ("team", "Blue", false),
        ("team", "[\"green\",\"red\"]", true),
        ("team", "[\"green\"]", false),
        ("team", "[\"red\"", false),
        ("team", "[1,{\"red\":1},[\"red\"]]", false),
        ("team", "", false),
        ("other", "blue", false),
    ] {
        let found = lets_in(&config, of_consumer(&[(label, value)]));
        assert_eq!(found, expected, "{label}: {value}");
    }
    assert!(!lets_in(&config, of_consumer(&[])));
}

#[test]
fn what_is_denied_is_refused_whatever_is_allowed() {
    let config = json!({"allow_labels": {"team": ["blue"]}, "deny_labels": {"role": ["guest"]}});
    assert!(lets_in(&config, of_consumer(&[("team", "blue")])));
    let both = of_consumer(&[("team", "blue"), ("role", "x,guest")]);
    assert_eq!(answer(&config, both), Some((403, FORBIDDEN.to_owned())));
    let neither = answer(&config, of_consumer(&[("role", "x")]));
    assert_eq!(neither, Some((403, FORBIDDEN.to_owned())));
    let deny_only = json!({"deny_labels": {"role": ["guest"]}});
    assert!(lets_in(&deny_only, of_consumer(&[])), "nothing is denied");
}

/// A label that could not be read held nothing, so that whoever was denied by it got in.
#[test]
fn a_label_that_cannot_be_read_may_hold_what_is_denied() {
    let deny = |more: Value| {
        let mut config = json!({"deny_labels": {"groups": ["guest"]}});
        let map = config.as_object_mut().expect("is a map");
        map.extend(more.as_object().expect("is a map").clone());
        config
    };
    let parser = |name: &str| deny(json!({"external_user_label_field_parser": name}));
    let split = deny(
        json!({"external_user_label_field_parser": "segmented_text", "external_user_label_field_separator": ";"}),
    );
    for (config, value, expected) in [
        (deny(json!({})), json!({"guest": true}), false),
        (deny(json!({})), json!([["guest"]]), false),
        (deny(json!({})), json!("[\"guest\""), false),
        (deny(json!({})), json!(["staff", 7]), true),
        (deny(json!({})), json!(null), true),
        (parser("json"), json!(["guest"]), false),
        (parser("json"), json!("guest"), false),
        (parser("json"), json!("[\"staff\"]"), true),
        (parser("table"), json!("guest"), false),
        (split.clone(), json!(["guest"]), false),
        (split, json!("staff"), true),
    ] {
        let found = lets_in(&config, of_user(json!({"groups": value.clone()})));
        assert_eq!(found, expected, "{config} {value}");
    }
    assert!(lets_in(&deny(json!({})), of_user(json!({}))), "it has none");
    let torn = of_consumer(&[("groups", "[\"guest\"")]);
    assert!(!lets_in(&deny(json!({})), torn));
}

#[test]
fn nobody_is_401_and_the_refusal_is_configurable() {
    let config =
        json!({"allow_labels": {"a": ["b"]}, "rejected_code": 404, "rejected_msg": "gone"});
    let missing = "{\"message\":\"Missing authentication.\"}\n".to_owned();
    assert_eq!(answer(&config, Exchange::get("/")), Some((401, missing)));
    let refused = answer(&config, of_consumer(&[]));
    assert_eq!(refused, Some((404, "{\"message\":\"gone\"}\n".to_owned())));
}

#[test]
fn a_user_who_is_no_consumer_is_known_by_a_field() {
    let allow = |more: Value| {
        let mut config = json!({"allow_labels": {"groups": ["blue"], "team": ["blue"]}});
        let map = config.as_object_mut().expect("is a map");
        map.extend(more.as_object().expect("is a map").clone());
        config
    };
    let user = |value: Value| json!({"groups": value, "deep": {"groups": "blue"}});
    let nested = json!({"external_user_label_field": "$.deep.groups", "external_user_label_field_key": "team"});
    let other = json!({"external_user_label_field_key": "none"});
    let unnamed = json!({"external_user_label_field": "$.deep.groups"});
    let parser = |name: &str| json!({"external_user_label_field_parser": name});
    let split = json!({"external_user_label_field_parser": "segmented_text", "external_user_label_field_separator": "\\||;"});
    for (more, value, expected) in [
        (json!({}), json!("blue"), true),
        (json!({}), json!(["red", "blue"]), true),
        (json!({}), json!("red, blue"), true),
        (json!({}), json!("[\"blue\"]"), true),
        (json!({}), json!({"blue": "blue"}), false),
        (json!({}), json!(null), false),
        (nested, json!("red"), true),
        (other, json!("blue"), false),
        (unnamed, json!("blue"), false),
        (parser("table"), json!(["blue"]), true),
        (parser("table"), json!("blue"), false),
        (parser("json"), json!("[\"blue\"]"), true),
        (parser("json"), json!("blue"), false),
        (parser("json"), json!(["blue"]), false),
        (split.clone(), json!("red | blue;x"), true),
        (split.clone(), json!("red,blue"), false),
        (split, json!(["blue"]), false),
    ] {
        let config = allow(more);
        let found = lets_in(&config, of_user(user(value.clone())));
        assert_eq!(found, expected, "{config} {value}");
    }
}

#[test]
fn a_consumer_counts_before_an_external_user() {
    let config = json!({"allow_labels": {"groups": ["blue"]}});
    let mut exchange = of_consumer(&[("groups", "red")]);
    exchange.ctx().set_external_user(json!({"groups": "blue"}));
    assert!(!lets_in(&config, exchange));
}

#[test]
fn wrong_configuration_names_the_field() {
    for (json, expected) in [
        (
            json!({}),
            ": at least one of allow_labels and deny_labels is required",
        ),
        (
            json!({"allow_labels": {}}),
            "allow_labels: must not be empty",
        ),
        (
            json!({"deny_labels": {"a": []}}),
            "deny_labels.a: must not be empty",
        ),
        (
            json!({"allow_labels": {"a": ["b"]}, "rejected_code": 100}),
            "rejected_code: must be 200 to 599",
        ),
        (
            json!({"allow_labels": {"a": ["b"]}, "external_user_label_field": "$..([x"}),
            "external_user_label_field: must be a field or a JSONPath of $, .name, ..name, ['name'], [0] and *",
        ),
        (
            json!({"allow_labels": {"a": ["b"]}, "external_user_label_field_key": ""}),
            "external_user_label_field_key: must not be empty",
        ),
        (
            json!({"allow_labels": {"a": ["b"]}, "external_user_label_field_parser": "csv"}),
            "external_user_label_field_parser: expected one of `segmented_text`, `json`, `table`",
        ),
        (
            json!({"allow_labels": {"a": ["b"]}, "external_user_label_field_parser": "segmented_text"}),
            "external_user_label_field_separator: is required by the parser segmented_text",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
}
