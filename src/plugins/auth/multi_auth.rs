//! `multi-auth`: several ways in; the first that lets the client in is taken (`spec/02` §6).

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::scheme::refusal;
use super::throttle::{Throttle, is_guess};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Admission, Authenticate, Flow, Hooks, Rewrite, Step};
use crate::plugins::respond::Response;
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "multi-auth",
    priority: 2600,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct MultiAuthConfig {
    /// Ways in, in order: objects with one plugin each.
    auth_plugins: Vec<Map<String, Value>>,
}

struct MultiAuth {
    ways: Box<[Way]>,
    throttle: Option<Arc<Throttle>>,
}

struct Way {
    auth: Arc<dyn Authenticate>,
    /// Names of headers, arguments and cookies that its credential may stand in.
    names: Box<[Box<str>]>,
}

impl Way {
    /// Whether its credential stands where that of the other never does.
    fn is_apart_from(&self, other: &Self) -> bool {
        let mut names = self.names.iter();
        let same = |one: &str| {
            other
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(one))
        };
        names.all(|name| !same(name))
    }
}

fn build(config: MultiAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    if config.auth_plugins.len() < 2 {
        let message = "must hold at least two plugins";
        return Err(BuildError::invalid("auth_plugins", message));
    }
    let mut ways = Vec::new();
    let mut redacted: Vec<Box<str>> = Vec::new();
    let mut warnings = Vec::new();
    let mut reads_body = false;
    for (place, plugins) in config.auth_plugins.iter().enumerate() {
        let field = format!("auth_plugins[{place}]");
        let mut plugins = plugins.iter();
        let (Some((name, settings)), None) = (plugins.next(), plugins.next()) else {
            let message = "must be an object of one plugin and its settings";
            return Err(BuildError::invalid(field, message));
        };
        let hooks = way(name, settings, &field, ctx)?;
        redacted.extend(hooks.redacted().iter().cloned());
        let warned = hooks.warnings().iter();
        warnings
            .extend(warned.map(|(inner, message)| (format!("{field}.{name}.{inner}"), *message)));
        reads_body |= hooks.reads_body;
        if hooks.is_open() {
            warnings.push((format!("{field}.{name}"), OPEN));
        }
        let names = hooks.redacted().into();
        ways.extend(hooks.authenticate.map(|auth| Way { auth, names }));
    }
    let multi = MultiAuth {
        ways: ways.into(),
        throttle: ctx.throttle.cloned(),
    };
    let hooks = Hooks::of(multi).rewrite();
    let hooks = if reads_body {
        hooks.reads_body()
    } else {
        hooks
    };
    let hooks = hooks.redacts(redacted);
    let hooks = warnings
        .iter()
        .fold(hooks, |hooks, (field, message)| hooks.warns(field, message));
    Ok(hooks.done())
}

fn way(name: &str, settings: &Value, field: &str, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let refused = |message: String| Err(BuildError::invalid(field, message));
    let Some((_, def)) = crate::plugins::find(name) else {
        return refused(format!("{name} plugin did not found"));
    };
    if def.kind != PluginKind::Auth || def.name == DEF.name {
        return refused(format!("{name} plugin is not supported"));
    }
    let Some(attr) = (ctx.attr_of)(name) else {
        return refused(format!(
            "{name}: a reference in its plugin_attr has no value"
        ));
    };
    let ctx = BuildCtx {
        metadata: &Value::Null,
        attr,
        ..*ctx
    };
    let hooks = (def.build)(settings, &ctx).map_err(|error| {
        let at = if error.field.is_empty() {
            format!("{field}.{name}")
        } else {
            format!("{field}.{name}.{}", error.field)
        };
        let message = format!("plugin {name} check schema failed: {}", error.message);
        BuildError::invalid(at, message)
    })?;
    if hooks.authenticate.is_none() {
        return refused(format!("{name} plugin is not supported"));
    }
    Ok(hooks)
}

impl Rewrite for MultiAuth {
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        Step::Wait(self.first(req))
    }
}

impl MultiAuth {
    fn first<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Flow> {
        Box::pin(async move {
            for way in &self.ways {
                way.auth.remove_forged(req);
            }
            let mut challenge = None;
            let mut failures: SmallVec<[AuthFailure; 4]> = SmallVec::new();
            for way in &self.ways {
                match way.auth.authenticate(req).await {
                    // The ways before were not meant: the client has not failed.
                    Ok(Admission::Known) => {
                        self.guessed_beside(req, way, &failures);
                        return Flow::Continue;
                    }
                    Ok(Admission::Anonymous(reason)) => {
                        failures.push(reason);
                        self.failed(req, &failures);
                        return Flow::Continue;
                    }
                    Err(refusal) if refusal.reason == AuthFailure::Throttled => {
                        way.auth.count(refusal.reason);
                        return refusal.answer.into();
                    }
                    Err(refusal) => {
                        challenge = challenge_of(&refusal.answer).or(challenge);
                        failures.push(refusal.reason);
                    }
                }
            }
            self.failed(req, &failures);
            self.explain(&failures);
            refused(challenge)
        })
    }

    /// Counts the failures of the first ways: each with its plugin, and the worst of them as one
    /// attempt of the address.
    fn failed(&self, req: &RequestCtx<'_>, failures: &[AuthFailure]) {
        for (way, reason) in self.ways.iter().zip(failures) {
            way.auth.count(*reason);
        }
        let guess = failures.iter().find(|reason| is_guess(**reason));
        if let (Some(throttle), Some(guess)) = (&self.throttle, guess) {
            throttle.failed(req.client_ip(), *guess);
        }
    }

    /// A wrong credential that stood apart from the right one of `taken` was a guess all the same:
    /// whoever has one good credential must not try others beside it for nothing.
    fn guessed_beside(&self, req: &RequestCtx<'_>, taken: &Way, failures: &[AuthFailure]) {
        let Some(throttle) = &self.throttle else {
            return;
        };
        let mut failed = self.ways.iter().zip(failures);
        let wrong = |reason| matches!(reason, AuthFailure::Unknown | AuthFailure::Mismatch);
        // What cannot be read may be meant for the upstream.
        let guess = failed.find(|(way, reason)| wrong(**reason) && way.is_apart_from(taken));
        if let Some((_, reason)) = guess {
            throttle.failed(req.client_ip(), *reason);
        }
    }

    /// The client is told only that all ways failed.
    fn explain(&self, failures: &[AuthFailure]) {
        for (way, reason) in self.ways.iter().zip(failures) {
            log::warn!(
                "{} failed to authenticate the request, code: 401. error: {}",
                way.auth.name(),
                reason.label()
            );
        }
    }
}

const OPEN: &str = "lets in whoever brings no credential, so that no way after it is asked";

/// APISIX sends the challenge of the last plugin that failed.
fn refused(challenge: Option<HeaderValue>) -> Flow {
    let message = "Authorization Failed";
    match challenge {
        Some(challenge) => refusal(message, &challenge).into(),
        None => Response::message(401, message).into(),
    }
}

fn challenge_of(answer: &Response) -> Option<HeaderValue> {
    let mut headers = answer.headers.iter();
    let (_, value) = headers.find(|(name, _)| name == header::WWW_AUTHENTICATE)?;
    Some(value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::consumer::{CredentialEntry, CredentialIndex};
    use crate::plugins::testing::{
        self, Exchange, answered, body_text, built, refusal as refused_as,
    };
    use crate::secrets::Secret;

    /// alice by `alice-key`, and `guest`.
    fn with_consumers(mut exchange: Exchange) -> Exchange {
        let mut index = CredentialIndex::new([1; 16]);
        let entry = CredentialEntry::new(testing::consumer("alice"), 0, None, None);
        index.insert(&Secret::from("alice-key".to_owned()), entry);
        exchange.state.consumers = testing::with_guest("key-auth", index);
        exchange
    }

    #[test]
    fn any_way_lets_in_and_the_first_is_taken() {
        let hooks = built(
            &DEF,
            &json!({"auth_plugins": [
                {"key-auth": {"header": "x-a", "hide_credentials": true}},
                {"hmac-auth": {}},
                {"key-auth": {"header": "x-b", "hide_credentials": true}},
            ]}),
        );
        for (given, left) in [
            (&["x-a"][..], &[][..]),
            (&["x-b"], &[]),
            (&["x-a", "x-b"], &["x-b"]),
        ] {
            let mut exchange = with_consumers(Exchange::get("/"));
            for name in given {
                exchange = exchange.header(name, "alice-key");
            }
            assert!(exchange.rewrite(&hooks).is_none(), "{given:?}");
            assert_eq!(exchange.who(), Some("alice"));
            let there = |name: &&&str| !exchange.values(name).is_empty();
            let found: Vec<_> = ["x-a", "x-b"].iter().filter(there).copied().collect();
            assert_eq!(found, left, "only what let in is hidden");
        }
        // A way that failed leaves its credential.
        let exchange = Exchange::get("/").header("x-a", "wrong");
        let mut exchange = with_consumers(exchange.header("x-b", "alice-key"));
        assert!(exchange.rewrite(&hooks).is_none());
        assert_eq!(exchange.values("x-a"), ["wrong"]);
    }

    #[test]
    fn where_all_fail_the_last_challenge_stands() {
        let ways = [
            json!({"hmac-auth": {}}),
            json!({"key-auth": {"realm": "last"}}),
        ];
        for (order, challenge) in [
            ([0, 1], "apikey realm=\"last\""),
            ([1, 0], "hmac realm=\"hmac\""),
        ] {
            let plugins = order.map(|way| ways[way].clone());
            let hooks = built(&DEF, &json!({ "auth_plugins": plugins }));
            let mut exchange = with_consumers(Exchange::get("/"));
            let answer = exchange.rewrite(&hooks).expect("request is refused");
            assert_eq!(answer.status, 401);
            assert_eq!(
                body_text(&answer),
                "{\"message\":\"Authorization Failed\"}\n"
            );
            assert_eq!(answered(&answer, "www-authenticate"), Some(challenge));
            assert_eq!(exchange.who(), None);
        }
    }

    #[test]
    fn a_way_that_asks_for_nothing_is_told() {
        let of = |strict: bool| {
            let ways = json!([{"jwe-decrypt": {"strict": strict}}, {"key-auth": {}}]);
            let hooks = built(&DEF, &json!({ "auth_plugins": ways }));
            let fields = hooks.warnings().iter().map(|(field, _)| field.to_string());
            fields.collect::<Vec<_>>()
        };
        assert_eq!(of(false), ["auth_plugins[0].jwe-decrypt"]);
        assert!(of(true).is_empty());
    }

    #[test]
    fn an_anonymous_consumer_of_a_way_ends_the_list() {
        let hooks = built(
            &DEF,
            &json!({"auth_plugins": [
                {"hmac-auth": {"anonymous_consumer": "guest"}},
                {"key-auth": {}},
            ]}),
        );
        let mut exchange = with_consumers(Exchange::get("/")).header("apikey", "alice-key");
        assert!(exchange.rewrite(&hooks).is_none());
        assert_eq!(exchange.who(), Some("guest"));
    }

    #[test]
    fn the_body_is_read_and_credentials_are_masked_as_the_ways_ask() {
        let of = |second: Value| {
            built(
                &DEF,
                &json!({"auth_plugins": [{"key-auth": {"header": "x-a", "query": "q"}}, second]}),
            )
        };
        let hooks = of(json!({"hmac-auth": {"validate_request_body": true}}));
        assert!(hooks.reads_body);
        assert_eq!(
            hooks.redacted(),
            ["x-a", "q", "authorization"].map(Box::<str>::from)
        );
        assert!(!of(json!({"hmac-auth": {}})).reads_body);
    }

    #[test]
    fn wrong_configuration_is_told_in_apisixs_words() {
        let two = "auth_plugins: must hold at least two plugins";
        for (ways, expected) in [
            (json!([]), two),
            (json!([{"key-auth": {}}]), two),
            (
                json!([{"key-auth": {}, "hmac-auth": {}}, {"key-auth": {}}]),
                "auth_plugins[0]: must be an object of one plugin and its settings",
            ),
            (
                json!([{"key-auth": {}}, {}]),
                "auth_plugins[1]: must be an object of one plugin and its settings",
            ),
            (
                json!([{"key-auth": {}}, {"no-auth": {}}]),
                "auth_plugins[1]: no-auth plugin did not found",
            ),
            (
                json!([{"cors": {}}, {"key-auth": {}}]),
                "auth_plugins[0]: cors plugin is not supported",
            ),
            (
                json!([{"key-auth": {}}, {"multi-auth": {}}]),
                "auth_plugins[1]: multi-auth plugin is not supported",
            ),
            (
                json!([{"key-auth": {}}, {"hmac-auth": {"clock_skew": 0}}]),
                "auth_plugins[1].hmac-auth.clock_skew: plugin hmac-auth check schema failed: \
                 must be at least 1",
            ),
        ] {
            assert_eq!(refused_as(&DEF, &json!({ "auth_plugins": ways })), expected);
        }
        assert!(refused_as(&DEF, &json!({})).contains("auth_plugins"));
    }
}
