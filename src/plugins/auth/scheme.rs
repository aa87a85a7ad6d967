//! What every auth plugin has in common: a scheme tells who a client is, and the adaptor around
//! it attaches the consumer, counts failures, refuses addresses that failed too often, and lets
//! the anonymous consumer take over.

use std::borrow::Cow;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderValue, header};
use prometheus::IntCounter;

use super::throttle::Throttle;
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{BuildCtx, BuildError};
use crate::plugins::phase::{
    Admission, Authenticate, Flow, Hooks, HooksOf, Refusal, Rewrite, Step,
};
use crate::plugins::respond::Response;
use crate::telemetry::metrics::AuthFailure;

/// How one auth plugin tells who a client is.
pub(in crate::plugins) trait Scheme: Send + Sync + 'static {
    /// Decides at once where it can. On success it has taken its credential out of the request
    /// where `hide_credentials` asks for that.
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_>;

    /// Decides after [`Trial::Wait`]. Schemes that always decide at once need none.
    fn wait<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Verdict<'static>> {
        let verdict = match self.authenticate(req) {
            Trial::Done(verdict) => verdict.map_err(Failure::into_owned),
            Trial::Wait => Err(Failure::owned(
                AuthFailure::Unavailable,
                Response::status(503),
            )),
        };
        Box::pin(std::future::ready(verdict))
    }

    /// Takes every credential of this scheme out of the request where `hide_credentials` asks for
    /// that: an anonymous request goes on without.
    fn hide(&self, req: &mut RequestCtx<'_>);

    /// Takes out of the request, before anything else is done, what the scheme itself tells of its
    /// users besides the consumer.
    fn remove_forged(&self, _req: &mut RequestCtx<'_>) {}
}

/// What is known of an attempt.
pub(in crate::plugins) enum Trial<'a> {
    /// Decided.
    Done(Verdict<'a>),
    /// Another program, or a slow computation, has to be asked.
    Wait,
}

impl<'a> Trial<'a> {
    /// Waits, unless what was presented fails already.
    pub(in crate::plugins) fn wait_for<T>(presented: Result<T, Failure<'a>>) -> Self {
        match presented {
            Ok(_) => Self::Wait,
            Err(failure) => Self::Done(Err(failure)),
        }
    }
}

impl<'a> From<Verdict<'a>> for Trial<'a> {
    fn from(verdict: Verdict<'a>) -> Self {
        Self::Done(verdict)
    }
}

/// The consumer (`None` where the client is known but is none of ours), or why not.
pub(in crate::plugins) type Verdict<'a, T = Option<Attached>> = Result<T, Failure<'a>>;

/// Why a request did not authenticate.
pub(in crate::plugins) struct Failure<'a> {
    /// For the metric and the log; the client is told only what `answer` says.
    pub(in crate::plugins) reason: AuthFailure,
    /// What the client gets.
    pub(in crate::plugins) answer: Cow<'a, Response>,
}

impl<'a> Failure<'a> {
    /// An answer made at load.
    pub(in crate::plugins) const fn ready(reason: AuthFailure, answer: &'a Response) -> Self {
        Self {
            reason,
            answer: Cow::Borrowed(answer),
        }
    }

    /// An answer made for this request.
    pub(in crate::plugins) const fn owned(reason: AuthFailure, answer: Response) -> Self {
        Self {
            reason,
            answer: Cow::Owned(answer),
        }
    }

    /// The same with an answer of its own.
    pub(in crate::plugins) fn into_owned(self) -> Failure<'static> {
        Failure::owned(self.reason, self.answer.into_owned())
    }
}

/// A scheme as a plugin.
pub(in crate::plugins) struct Auth<S> {
    plugin: &'static str,
    scheme: S,
    anonymous: Option<Arc<str>>,
    no_anonymous: Response,
    failures: [IntCounter; AuthFailure::ALL.len()],
    throttle: Option<Arc<Throttle>>,
}

impl<S: Scheme> Auth<S> {
    /// Hooks of an auth plugin. `anonymous` is the route-side field `anonymous_consumer`.
    pub(in crate::plugins) fn hooks(
        plugin: &'static str,
        scheme: S,
        challenge: &HeaderValue,
        anonymous: Option<String>,
        ctx: &BuildCtx<'_>,
    ) -> Result<HooksOf<Self>, BuildError> {
        if anonymous.as_deref() == Some("") {
            return Err(BuildError::invalid(
                "anonymous_consumer",
                "must not be empty",
            ));
        }
        let auth = Self {
            plugin,
            scheme,
            anonymous: anonymous.map(Into::into),
            no_anonymous: refusal("Invalid user authorization", challenge),
            failures: AuthFailure::ALL
                .map(|reason| ctx.metrics.own().auth_failures(plugin, reason)),
            throttle: ctx.throttle.cloned(),
        };
        Ok(Hooks::of(auth).rewrite().authenticates())
    }

    /// The answer to an address that failed too often: before any credential is looked at.
    fn throttled(&self, req: &RequestCtx<'_>) -> Option<Failure<'static>> {
        let throttle = self.throttle.as_ref()?;
        let answer = throttle.refusal(req.client_ip(), req.state.started)?;
        Some(Failure::owned(AuthFailure::Throttled, answer))
    }

    /// Attaches the consumer; where the credential failed, the anonymous one if one is configured
    /// (`spec/02` §1.2). Counts nothing.
    fn settle<'a>(
        &'a self,
        req: &mut RequestCtx<'_>,
        verdict: Verdict<'a>,
    ) -> Result<Admission, Failure<'a>> {
        let failure = match verdict {
            Ok(attached) => {
                match attached {
                    Some(attached) => req.attach_consumer(attached),
                    // An earlier plugin's consumer stays.
                    None if req.state.consumer.is_some() => {}
                    None => req.remove_identity(),
                }
                return Ok(Admission::Known);
            }
            Err(failure) => failure,
        };
        let Some(anonymous) = &self.anonymous else {
            return Err(failure);
        };
        let Some(consumer) = req.state.consumers.named(anonymous).cloned() else {
            log::warn!(
                "{} failed to authenticate the request, code: 401. error: failed to get anonymous consumer {anonymous}",
                self.plugin
            );
            return Err(Failure::ready(failure.reason, &self.no_anonymous));
        };
        self.scheme.hide(req);
        req.attach_consumer(Attached {
            consumer,
            credential_id: None,
        });
        Ok(Admission::Anonymous(failure.reason))
    }

    /// The end of a plugin that stands alone.
    fn conclude(&self, req: &mut RequestCtx<'_>, verdict: Verdict<'_>) -> Flow {
        match self.settle(req, verdict) {
            Ok(Admission::Known) => Flow::Continue,
            Ok(Admission::Anonymous(reason)) => {
                self.failed(req, reason);
                Flow::Continue
            }
            Err(failure) => {
                log::debug!(
                    "{} failed to authenticate the request, code: {}. error: {}",
                    self.plugin,
                    failure.answer.status,
                    failure.reason.label()
                );
                self.failed(req, failure.reason);
                failure.answer.into_owned().into()
            }
        }
    }

    fn failed(&self, req: &RequestCtx<'_>, reason: AuthFailure) {
        self.count(reason);
        if let Some(throttle) = &self.throttle {
            throttle.failed(req.client_ip(), reason);
        }
    }

    fn count(&self, reason: AuthFailure) {
        self.failures[reason as usize].inc();
    }
}

impl<S: Scheme> Rewrite for Auth<S> {
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        if let Some(refused) = self.throttled(req) {
            self.count(refused.reason);
            return refused.answer.into_owned().into();
        }
        self.scheme.remove_forged(req);
        match self.scheme.authenticate(req) {
            Trial::Done(verdict) => self.conclude(req, verdict).into(),
            Trial::Wait => Step::Wait(Box::pin(async move {
                let verdict = self.scheme.wait(req).await;
                self.conclude(req, verdict)
            })),
        }
    }
}

impl<S: Scheme> Authenticate for Auth<S> {
    fn name(&self) -> &'static str {
        self.plugin
    }

    fn authenticate<'a>(
        &'a self,
        req: &'a mut RequestCtx<'_>,
    ) -> BoxFuture<'a, Result<Admission, Refusal>> {
        Box::pin(async move {
            let settled = match self.throttled(req) {
                Some(refused) => Err(refused),
                None => {
                    let verdict = match self.scheme.authenticate(req) {
                        Trial::Done(verdict) => verdict,
                        Trial::Wait => self.scheme.wait(req).await,
                    };
                    self.settle(req, verdict)
                }
            };
            settled.map_err(|failure| Refusal {
                reason: failure.reason,
                answer: failure.answer.into_owned(),
            })
        })
    }

    fn remove_forged(&self, req: &mut RequestCtx<'_>) {
        self.scheme.remove_forged(req);
    }

    fn count(&self, reason: AuthFailure) {
        Self::count(self, reason);
    }
}

/// 401 with a message and a `WWW-Authenticate` challenge.
pub(in crate::plugins) fn refusal(message: &str, challenge: &HeaderValue) -> Response {
    Response::message(401, message).with_header(header::WWW_AUTHENTICATE, challenge.clone())
}

/// `<scheme> realm="<realm>"`.
pub(in crate::plugins) fn challenge(scheme: &str, realm: &str) -> Result<HeaderValue, BuildError> {
    let valid = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if !(1..=128).contains(&realm.len()) || !realm.bytes().all(valid) {
        return Err(BuildError::invalid(
            "realm",
            "must be 1 to 128 printable ASCII characters without '\"' and '\\'",
        ));
    }
    HeaderValue::try_from(format!("{scheme} realm=\"{realm}\""))
        .map_err(|_| BuildError::invalid("realm", "must fit into a header"))
}
