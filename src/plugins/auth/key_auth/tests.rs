//! The scheme as a plugin, on requests made by hand.

use serde_json::{Value, json};

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
    exchange.state.consumers = testing::with_guest(NAME, index);
    exchange
}

#[test]
fn a_known_key_attaches_its_consumer_and_identity_headers() {
    let hooks = built(&DEF, &json!(null));
    let mut exchange = with_consumers(Exchange::get("/"))
        .header("APIKEY", "alice-key")
        .header("X-Credential-Identifier", "forged")
        .header("X-Consumer-Username", "forged");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.who(), Some("alice"));
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
        assert_eq!(exchange.who(), Some("bob"), "{target}");
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
        assert_eq!(exchange.who(), None);
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
        assert_eq!(exchange.who(), Some("guest"));
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

/// Of `alice-hashed-key`, by libxcrypt.
const SHA512: &str = "$6$rounds=1000$salt$oaxE6XU3Iz48QWXc6NTbgE33toWhT65kmxMSTDMp58iz/UTpVGQA0..B3aiaKvPpaK8edobfYO0d1GFtl3CtX0";
/// Of `hunter2`, by libxcrypt.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

fn with_keys(mut exchange: Exchange, keys: &[(&str, Value)]) -> Exchange {
    let mut index = CredentialIndex::new([1; 16]);
    for (order, (name, side)) in (0..).zip(keys) {
        let side = testing::credential(&DEF, side).expect("credential is valid");
        let data = Some(side.data).filter(|data| !data.is::<()>());
        let entry = CredentialEntry::new(consumer(name, None), order, None, data);
        let digest = crate::consumer::digest(&[1; 16], side.lookup_key.expose());
        index.insert_digest(digest, entry);
    }
    let mut consumers = Consumers::default();
    consumers.by_plugin.insert(NAME, index);
    exchange.state.consumers = Arc::new(consumers);
    exchange
}

#[test]
fn the_first_header_of_the_list_that_is_there_counts() {
    let hooks = built(
        &DEF,
        &json!({"header": ["X-Key", "apikey"], "hide_credentials": true}),
    );
    let request = || with_consumers(Exchange::get("/?apikey=x"));
    for (exchange, name) in [
        (request().header("X-Key", "alice-key"), Some("alice")),
        (request().header("apikey", "alice-key"), Some("alice")),
        (
            request()
                .header("apikey", "bob key")
                .header("X-Key", "alice-key"),
            Some("alice"),
        ),
        (
            request()
                .header("apikey", "alice-key")
                .header("X-Key", "wrong"),
            None,
        ),
        (
            request().header("apikey", "alice-key").header("X-Key", ""),
            None,
        ),
        (request(), None),
    ] {
        let mut exchange = exchange;
        let answer = exchange.rewrite(&hooks);
        assert_eq!(exchange.who(), name);
        assert_eq!(answer.is_none(), name.is_some());
    }
    let anonymous = json!({
        "header": ["X-Key", "apikey"], "hide_credentials": true, "anonymous_consumer": "guest"
    });
    let mut exchange = request().header("apikey", "x").header("X-Key", "x");
    assert!(exchange.rewrite(&built(&DEF, &anonymous)).is_none());
    assert!(exchange.values("apikey").is_empty() && exchange.values("x-key").is_empty());
}

#[test]
fn a_bearer_key_is_read_where_that_is_asked_for() {
    let hooks = built(&DEF, &json!({"bearer": true, "hide_credentials": true}));
    let request = || with_consumers(Exchange::get("/"));
    let bearer = |value: &str| request().header("Authorization", value);
    for (exchange, name) in [
        (bearer("Bearer alice-key"), Some("alice")),
        (bearer("bEARER   alice-key"), Some("alice")),
        (bearer("Bearer bob key"), Some("bob")),
        (
            bearer("Bearer alice-key").header("apikey", "bob key"),
            Some("bob"),
        ),
        (bearer("Bearer alice-key").header("apikey", "wrong"), None),
        (bearer("Bearer"), None),
        (bearer("Bearer "), None),
        (
            bearer("Bearer alice-key").header("Authorization", "Bearer alice-key"),
            None,
        ),
        (bearer("alice-key"), None),
        (bearer("Bearertoken alice-key"), None),
        (bearer("Basic alice-key"), None),
    ] {
        let mut exchange = exchange;
        let said = exchange.values("authorization").join(" ");
        let answer = exchange.rewrite(&hooks);
        assert_eq!(exchange.who(), name, "{said}");
        if let Some(answer) = answer {
            let challenge = answered(&answer, "www-authenticate");
            assert_eq!(
                challenge,
                Some("apikey realm=\"key\", Bearer realm=\"key\"")
            );
        }
    }
    // Another scheme is another's: the query is asked then, and it stays.
    let mut exchange =
        with_consumers(Exchange::get("/?apikey=alice-key")).header("Authorization", "Basic YTpi");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.values("authorization"), ["Basic YTpi"]);
    // A key found in `Authorization` is hidden there.
    let mut exchange = bearer("Bearer alice-key");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert!(exchange.values("authorization").is_empty());
    // Without the option the value is compared whole, as in APISIX.
    let whole = built(&DEF, &json!({"header": "Authorization"}));
    assert!(bearer("Bearer alice-key").rewrite(&whole).is_some());
    assert!(bearer("alice-key").rewrite(&whole).is_none());
    let both = built(&DEF, &json!({"header": "Authorization", "bearer": true}));
    assert!(bearer("Bearer alice-key").rewrite(&both).is_none());
    assert_eq!(
        both.redacted(),
        ["authorization", "apikey"].map(Box::<str>::from)
    );
}

#[test]
fn a_key_may_be_kept_as_a_hash() {
    let hooks = built(&DEF, &json!({"hide_credentials": true}));
    let keys = &[
        ("alice", json!({"key": SHA512, "key_prefix": "alice-"})),
        ("bob", json!({"key": BCRYPT})),
        (
            "carol",
            json!({"key": "alice-plain", "key_prefix": "alice-"}),
        ),
    ];
    for (key, name) in [
        ("alice-hashed-key", Some("alice")),
        ("alice-hashed-key", Some("alice")),
        ("alice-hashed-kez", None),
        ("alice-", None),
        ("hunter2", Some("bob")),
        ("alice-plain", Some("carol")),
        ("nothing", None),
        ("", None),
        (SHA512, None),
        (BCRYPT, None),
    ] {
        let exchange = with_keys(Exchange::get("/?a"), keys);
        let mut exchange = exchange.header("apikey", key);
        let answer = exchange.rewrite(&hooks);
        assert_eq!(exchange.who(), name, "{key}");
        assert_eq!(
            exchange.values("apikey").is_empty(),
            name.is_some(),
            "{key}"
        );
        if let Some(answer) = answer {
            let body = "{\"message\":\"Invalid API key in request\"}\n";
            assert_eq!((answer.status, body_text(&answer)), (401, body));
        }
    }
}

#[test]
fn a_key_without_candidates_costs_a_lookup() {
    let clock: Arc<dyn crate::clock::Clock> = Arc::new(crate::clock::ManualClock::new());
    let scheme = KeyAuth {
        places: Places::new(&["apikey".to_owned()], false, "apikey".to_owned())
            .expect("names are valid"),
        hide_credentials: false,
        missing: Response::status(401),
        unknown: Response::status(401),
        busy: busy(),
        verifier: Verifier::with_places(0, &clock),
    };
    let keys = &[("alice", json!({"key": SHA512, "key_prefix": "alice-"}))];
    for (key, waits) in [("alice-x", true), ("alice", false), ("other-x", false)] {
        let exchange = with_keys(Exchange::get("/"), keys);
        let mut exchange = exchange.header("apikey", key);
        let mut ctx = exchange.ctx();
        let trial = scheme.authenticate(&mut ctx);
        assert_eq!(matches!(trial, Trial::Wait), waits, "{key}");
    }
}

#[test]
fn of_equal_hashed_keys_the_later_is_in_force() {
    let hooks = built(&DEF, &json!({}));
    let keys = &[
        ("alice", json!({"key": BCRYPT})),
        ("bob", json!({"key": BCRYPT, "key_prefix": "hunt"})),
        ("carol", json!({"key": BCRYPT})),
    ];
    let exchange = with_keys(Exchange::get("/"), keys);
    let mut exchange = exchange.header("apikey", "hunter2");
    assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
    assert_eq!(exchange.who(), Some("carol"));
}

#[test]
fn wrong_places_and_prefixes_are_refused() {
    let header = "header: must be a header name or a list of 1 to 16";
    let many: Vec<_> = (0..17).map(|n| format!("x-{n}")).collect();
    for (json, expected) in [
        (json!({"header": []}), header),
        (json!({"header": many}), header),
        (
            json!({"header": ["a", "b c"]}),
            "header: must be a header name",
        ),
        (json!({"bearer": "yes"}), "bearer: expected a boolean"),
    ] {
        assert_eq!(refusal(&DEF, &json), expected);
    }
    for json in [
        json!({"header": 5}),
        json!({"header": [5]}),
        json!({"header": {}}),
    ] {
        assert!(refusal(&DEF, &json).starts_with("header"), "{json}");
    }
    let long = "a".repeat(65);
    for (key, prefix) in [
        (SHA512, "ali"),
        (SHA512, &long),
        ("plain-key", "other"),
        ("plain-key", "pla"),
    ] {
        let side = json!({"key": key, "key_prefix": prefix});
        let error = testing::credential(&DEF, &side).err();
        assert_eq!(error.expect("it is refused").field, "key_prefix", "{side}");
    }
    for key in [
        "$5$saltstring$x",
        "$6$short",
        "$argon2i$v=19$m=256,t=2,p=1$c2FsdA$aGFzaA",
    ] {
        let error = testing::credential(&DEF, &json!({"key": key})).err();
        assert_eq!(error.expect("it is refused").field, "key", "{key}");
    }
}
