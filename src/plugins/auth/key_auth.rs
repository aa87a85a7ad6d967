//! `key-auth`: names the consumer whose API key the request carries (`spec/02` §2).
//! Never compares keys itself: the consumer index does, by keyed digest.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use serde::Deserialize;

use super::scheme::{Auth, Failure, Scheme, Trial, challenge, refusal};
use crate::http::query;
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{
    self, BuildCtx, BuildError, Credential, CredentialCtx, PluginDef, PluginKind,
};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::secrets::{Reference, Secret};
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2500,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(|json, ctx| credential(def::parse(json)?, ctx)),
};

const NAME: &str = "key-auth";

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct KeyAuthConfig {
    /// Header the key is looked for in first.
    header: String,
    /// Query argument it is looked for in where the header is absent.
    query: String,
    /// Take the key out of the request before it goes upstream.
    hide_credentials: bool,
    /// Realm of the challenge.
    realm: String,
    /// Consumer of requests that fail to authenticate.
    anonymous_consumer: Option<String>,
}

impl Default for KeyAuthConfig {
    fn default() -> Self {
        Self {
            header: "apikey".to_owned(),
            query: "apikey".to_owned(),
            hide_credentials: false,
            realm: "key".to_owned(),
            anonymous_consumer: None,
        }
    }
}

/// Credential side.
#[derive(Deserialize)]
struct CredentialConfig {
    key: String,
}

struct KeyAuth {
    header: HeaderName,
    query: Box<str>,
    hide_credentials: bool,
    missing: Response,
    unknown: Response,
}

fn build(config: KeyAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let header = HeaderName::try_from(config.header)
        .map_err(|_| BuildError::invalid("header", "must be a header name"))?;
    let challenge = challenge("apikey", &config.realm)?;
    let plugin = KeyAuth {
        header,
        query: config.query.into(),
        hide_credentials: config.hide_credentials,
        missing: refusal("Missing API key in request", &challenge),
        unknown: refusal("Invalid API key in request", &challenge),
    };
    let (header, query) = (plugin.header.clone(), plugin.query.clone());
    let hooks = Auth::hooks(NAME, plugin, &challenge, config.anonymous_consumer, ctx)?;
    Ok(hooks.redacts(header.as_str()).redacts(&query).done())
}

fn credential(config: CredentialConfig, _: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let refused = if config.key.is_empty() {
        Some("must not be empty")
    } else if Reference::is_reference(&config.key) {
        Some("reference has no value")
    } else {
        None
    };
    let lookup_key = Secret::from(config.key);
    match refused {
        Some(message) => Err(BuildError::invalid("key", message)),
        None => Ok(Credential {
            lookup_key,
            data: Arc::new(()),
        }),
    }
}

/// Where a key was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Header,
    Query,
}

impl Scheme for KeyAuth {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        let Some((found, key)) = self.presented(req) else {
            return Err(Failure::ready(AuthFailure::Missing, &self.missing)).into();
        };
        let entry = key.as_deref().and_then(|key| known(req, key));
        let Some(attached) = entry else {
            return Err(Failure::ready(AuthFailure::Unknown, &self.unknown)).into();
        };
        if self.hide_credentials {
            self.remove(req, found);
        }
        Ok(Some(attached)).into()
    }

    fn hide(&self, req: &mut RequestCtx<'_>) {
        if self.hide_credentials {
            self.remove(req, Found::Header);
            self.remove(req, Found::Query);
        }
    }
}

impl KeyAuth {
    /// The key the request carries, and where; its text is `None` where it can match nothing.
    fn presented<'r>(&self, req: &'r RequestCtx<'_>) -> Option<(Found, Option<Cow<'r, [u8]>>)> {
        if let Some(value) = req.header(&self.header) {
            return Some((Found::Header, Some(Cow::Borrowed(value.as_bytes()))));
        }
        let mut keys = query::args(req.query()?)
            .filter(|(name, _)| **name == *self.query)
            .map(|(_, value)| value);
        let key = keys.next()?;
        if keys.next().is_some() {
            // APISIX sees a list then, which equals no key.
            return Some((Found::Query, None));
        }
        let key = match key {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        };
        Some((Found::Query, Some(key)))
    }

    fn remove(&self, req: &mut RequestCtx<'_>, found: Found) {
        match found {
            Found::Header => drop(req.head.remove_header(&self.header)),
            Found::Query => self.remove_query(req),
        }
    }

    fn remove_query(&self, req: &mut RequestCtx<'_>) {
        let Some(query) = req.query() else { return };
        let ours = |name: &str| *name == *self.query;
        if !query::args(query).any(|(name, _)| ours(&name)) {
            return;
        }
        let path = req.head.uri.path();
        let target = match query::without_args(query, ours) {
            Some(kept) => [path, "?", &kept].concat(),
            None => path.to_owned(),
        };
        let normalised = req.state.path.clone();
        if req.set_target(&target).is_err() {
            log::error!("key-auth could not take the key out of the query");
        }
        req.state.path = normalised;
    }
}

/// The consumer of a key. A text that looks like a reference is never one: what could not be
/// resolved must not become a password.
fn known(req: &RequestCtx<'_>, key: &[u8]) -> Option<Attached> {
    if key.is_empty() || std::str::from_utf8(key).is_ok_and(Reference::is_reference) {
        return None;
    }
    let entry = req.state.consumers.find(NAME, key)?;
    Some(Attached {
        consumer: entry.consumer.clone(),
        credential_id: entry.credential_id().cloned(),
    })
}

#[cfg(test)]
mod tests {

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
        let mut exchange =
            with_consumers(Exchange::get("/a?apikey=z&b")).header("apikey", "alice-key");
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
}
