//! The scheme as a plugin, on requests made by hand.

use serde_json::json;

use super::*;
use crate::consumer::{Consumer, Consumers, CredentialEntry, CredentialIndex, GroupLink};
use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

fn consumer(name: &str, custom_id: Option<&str>) -> Arc<Consumer> {
    Arc::new(Consumer {
        username: name.into(),
        plugins: None,
        group: GroupLink::Alone,
        labels: custom_id.map(|id| {
            let labels = [("custom_id".to_owned(), id.to_owned())];
            Arc::new(labels.into())
        }),
    })
}

/// alice by `alice-key`, bob by his credential `c1` with `bob key`, and `guest`.
fn with_consumers(mut exchange: Exchange) -> Exchange {
    let (alice, bob) = (consumer("alice", Some("42")), consumer("bob", None));
    let mut index = CredentialIndex::new([1; 16]);
    let mut insert = |key: &str, consumer: &Arc<Consumer>, credential_id: Option<&str>| {
        let id = credential_id.map(Into::into);
        let entry = CredentialEntry::new(consumer.clone(), 0, id, None);
        index.insert(&Secret::from(key.to_owned()), entry);
    };
    insert("alice-key", &alice, None);
    insert("bob key", &bob, Some("c1"));
    // Not possible through `credential`; shows that the request side refuses too.
    insert("$secret://vault/1/a/b", &alice, None);
    insert("", &alice, None);
    let mut consumers = Consumers::of([consumer("guest", None)].into_iter());
    consumers.by_plugin.insert(NAME, index);
    exchange.state.consumers = Arc::new(consumers);
    exchange
}

fn who(exchange: &Exchange) -> Option<&str> {
    let attached = exchange.state.consumer.as_ref()?;
    Some(&attached.consumer.username)
}

#[test]
fn a_known_key_attaches_its_consumer_and_identity_headers() {
    let hooks = built(&DEF, &json!(null));
    let mut exchange = with_consumers(Exchange::get("/"))
        .header("APIKEY", "alice-key")
        .header("X-Credential-Identifier", "forged")
        .header("X-Consumer-Username", "forged");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(who(&exchange), Some("alice"));
    assert_eq!(exchange.values("x-consumer-username"), ["alice"]);
    assert_eq!(exchange.values("x-consumer-custom-id"), ["42"]);
    assert!(
        exchange.values("x-credential-identifier").is_empty(),
        "forged value goes"
    );
    assert_eq!(
        exchange.values("apikey"),
        ["alice-key"],
        "key is not hidden by default"
    );
}

#[test]
fn the_query_is_asked_where_the_header_is_absent() {
    let hooks = built(&DEF, &json!({"header": "X-Key", "query": "k"}));
    for target in ["/?k=bob+key", "/?a=1&k=bob%20key&b", "/?%6b=bob%20key"] {
        let mut exchange = with_consumers(Exchange::get(target));
        assert!(exchange.rewrite(&hooks).is_none(), "{target} goes on");
        assert_eq!(who(&exchange), Some("bob"), "{target}");
        assert_eq!(exchange.values("x-credential-identifier"), ["c1"]);
        assert!(exchange.values("x-consumer-custom-id").is_empty());
    }
}

#[test]
fn logs_are_told_what_to_mask() {
    let hooks = built(&DEF, &json!({"header": "X-Key", "query": "k"}));
    assert_eq!(hooks.redacted(), ["x-key", "k"].map(Box::<str>::from));
}

#[test]
fn refusals_are_those_of_apisix() {
    let missing = "Missing API key in request";
    let invalid = "Invalid API key in request";
    let hooks = built(&DEF, &json!({}));
    let cases = [
        (Exchange::get("/"), missing),
        (Exchange::get("/?other=alice-key"), missing),
        (Exchange::get("/").header("apikey", "nobody"), invalid),
        (
            Exchange::get("/").header("apikey", "Bearer alice-key"),
            invalid,
        ),
        (Exchange::get("/").header("apikey", ""), invalid),
        (
            Exchange::get("/?apikey=alice-key").header("apikey", ""),
            invalid,
        ),
        (Exchange::get("/?apikey"), invalid),
        (Exchange::get("/?apikey="), invalid),
        (
            Exchange::get("/?apikey=alice-key&apikey=alice-key"),
            invalid,
        ),
        (Exchange::get("/?apikey=x").header("apikey", "x"), invalid),
        (
            Exchange::get("/")
                .header("apikey", "x")
                .header("apikey", "alice-key"),
            invalid,
        ),
        (
            Exchange::get("/").header("apikey", "$secret://vault/1/a/b"),
            invalid,
        ),
        (Exchange::get("/").header("apikey", "$ENV://KEY"), invalid),
    ];
    for (exchange, message) in cases {
        let mut exchange = with_consumers(exchange);
        let answer = exchange.rewrite(&hooks).expect("request is refused");
        assert_eq!(answer.status, 401);
        assert_eq!(
            body_text(&answer),
            format!("{{\"message\":\"{message}\"}}\n")
        );
        let challenge = answered(&answer, "www-authenticate");
        assert_eq!(challenge, Some("apikey realm=\"key\""));
        let content_type = answered(&answer, "content-type");
        assert_eq!(content_type, Some("text/plain; charset=utf-8"));
        assert_eq!(who(&exchange), None);
    }
}

#[test]
fn without_any_credential_every_key_is_unknown() {
    let hooks = built(&DEF, &json!({"realm": "shop"}));
    let mut exchange = Exchange::get("/").header("apikey", "alice-key");
    let answer = exchange.rewrite(&hooks).expect("request is refused");
    assert_eq!(
        body_text(&answer),
        "{\"message\":\"Invalid API key in request\"}\n"
    );
    assert_eq!(
        answered(&answer, "www-authenticate"),
        Some("apikey realm=\"shop\"")
    );
}

#[test]
fn the_first_of_two_headers_counts() {
    let hooks = built(&DEF, &json!({"hide_credentials": true}));
    let mut exchange = with_consumers(Exchange::get("/"))
        .header("apikey", "alice-key")
        .header("apikey", "x");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert!(
        exchange.values("apikey").is_empty(),
        "all copies are hidden"
    );
}

#[test]
fn a_hidden_key_leaves_only_the_place_it_was_found_in() {
    let hooks = built(&DEF, &json!({"hide_credentials": true}));
    let mut exchange = with_consumers(Exchange::get("/a?apikey=z&b")).header("apikey", "alice-key");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert!(exchange.values("apikey").is_empty(), "header is hidden");
    assert_eq!(exchange.target(), "/a?apikey=z&b");

    for (target, expected) in [
        ("/a%20b?x=1&apikey=alice-key&y=%2F", "/a%20b?x=1&y=%2F"),
        ("/a%20b?apikey=alice-key", "/a%20b"),
    ] {
        let mut exchange = with_consumers(Exchange::get(target));
        exchange.state.path = Some("/a b".to_owned());
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.target(), expected);
        assert_eq!(exchange.ctx().path(), "/a b", "normalised path stays");
    }
}

#[test]
fn the_anonymous_consumer_takes_over_any_failure() {
    let hooks = built(
        &DEF,
        &json!({"anonymous_consumer": "guest", "hide_credentials": true}),
    );
    for exchange in [
        Exchange::get("/"),
        Exchange::get("/?a&apikey=x").header("apikey", "wrong"),
    ] {
        let mut exchange = with_consumers(exchange).header("X-Consumer-Custom-ID", "forged");
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(who(&exchange), Some("guest"));
        assert_eq!(exchange.values("x-consumer-username"), ["guest"]);
        assert!(exchange.values("x-consumer-custom-id").is_empty());
        assert!(exchange.values("apikey").is_empty(), "header is hidden");
        assert!(!exchange.target().contains("apikey"), "argument is hidden");
    }
}

#[test]
fn a_missing_anonymous_consumer_refuses() {
    let hooks = built(&DEF, &json!({"anonymous_consumer": "nobody"}));
    let mut exchange = with_consumers(Exchange::get("/"));
    let answer = exchange.rewrite(&hooks).expect("request is refused");
    assert_eq!(answer.status, 401);
    assert_eq!(
        body_text(&answer),
        "{\"message\":\"Invalid user authorization\"}\n"
    );
    assert_eq!(
        answered(&answer, "www-authenticate"),
        Some("apikey realm=\"key\"")
    );
}

#[test]
fn wrong_configuration_names_the_field_and_no_value() {
    let realm = "realm: must be 1 to 128 printable ASCII characters without '\"' and '\\'";
    for (json, expected) in [
        (json!({"header": ""}), "header: must be a header name"),
        (json!({"header": "a b"}), "header: must be a header name"),
        (json!({"realm": ""}), realm),
        (json!({"realm": "a\"b"}), realm),
        (json!({"realm": "ü"}), realm),
        (
            json!({"anonymous_consumer": ""}),
            "anonymous_consumer: must not be empty",
        ),
        (
            json!({"hide_credentials": "hunter2"}),
            "hide_credentials: expected a boolean",
        ),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
}

#[test]
fn a_credential_needs_a_key_that_is_a_value() {
    let side = |json: &serde_json::Value| testing::credential(&DEF, json);
    let found = side(&json!({"key": "k"})).map(|found| found.lookup_key.expose().to_vec());
    assert_eq!(found.ok(), Some(b"k".to_vec()));
    for (json, field) in [
        (json!({"key": ""}), "key"),
        (json!({"key": "$secret://vault/1/a/b"}), "key"),
        (json!({"key": 12345}), "key"),
        (json!({}), ""),
        (json!(null), ""),
    ] {
        let error = side(&json).err().expect("credential is refused");
        assert_eq!(error.field, field, "{error}");
        assert!(!error.message.contains("12345"), "{error}");
    }
}
