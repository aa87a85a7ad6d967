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
    ways: Box<[Arc<dyn Authenticate>]>,
    throttle: Option<Arc<Throttle>>,
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
        ways.extend(hooks.authenticate);
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
    let hooks = redacted
        .iter()
        .fold(hooks, |hooks, name| hooks.redacts(name));
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
    let hooks = (def.build)(settings, ctx).map_err(|error| {
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
            let mut challenge = None;
            let mut failures: SmallVec<[AuthFailure; 4]> = SmallVec::new();
            for way in &self.ways {
                match way.authenticate(req).await {
                    // The ways before were not meant: the client has not failed.
                    Ok(Admission::Known) => return Flow::Continue,
                    Ok(Admission::Anonymous(reason)) => {
                        failures.push(reason);
                        self.failed(req, &failures);
                        return Flow::Continue;
                    }
                    Err(refusal) if refusal.reason == AuthFailure::Throttled => {
                        way.count(refusal.reason);
                        return refusal.answer.into();
                    }
                    Err(refusal) => {
                        log::debug!(
                            "{} failed to authenticate the request, code: {}",
                            way.name(),
                            refusal.answer.status
                        );
                        challenge = challenge_of(&refusal.answer).or(challenge);
                        failures.push(refusal.reason);
                    }
                }
            }
            self.failed(req, &failures);
            refused(challenge)
        })
    }

    /// Counts the failures of the first ways: each with its plugin, and the worst of them as one
    /// attempt of the address.
    fn failed(&self, req: &RequestCtx<'_>, failures: &[AuthFailure]) {
        for (way, reason) in self.ways.iter().zip(failures) {
            way.count(*reason);
        }
        let guess = failures.iter().find(|reason| is_guess(**reason));
        if let (Some(throttle), Some(guess)) = (&self.throttle, guess) {
            throttle.failed(req.client_ip(), *guess);
        }
    }
}

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
