//! The phases of a request, one small trait each, so that a chain holds only hooks that exist.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use pingora_http::ResponseHeader;

use super::ctx::RequestCtx;
use super::respond::Response;
use crate::telemetry::metrics::AuthFailure;

/// What a request-phase hook decides.
#[derive(Debug)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop this phase and all later request phases, and answer with this.
    Respond(Box<Response>),
}

impl From<Response> for Flow {
    fn from(response: Response) -> Self {
        Self::Respond(Box::new(response))
    }
}

/// The outcome of a hook: at once, for most, so that nothing is boxed; or awaited.
pub enum Step<'a> {
    /// Decided without waiting.
    Done(Flow),
    /// Has to wait (a delay, another server).
    Wait(BoxFuture<'a, Flow>),
}

impl Step<'_> {
    /// Go on.
    pub const CONTINUE: Self = Self::Done(Flow::Continue);
}

impl From<Flow> for Step<'_> {
    fn from(flow: Flow) -> Self {
        Self::Done(flow)
    }
}

impl From<Response> for Step<'_> {
    fn from(response: Response) -> Self {
        Self::Done(response.into())
    }
}

/// Phase `rewrite`: before access, where authentication happens.
pub trait Rewrite: Send + Sync {
    /// Runs once per request.
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a>;
}

/// An auth plugin as `multi-auth` asks it: one of several ways in.
pub trait Authenticate: Send + Sync {
    /// APISIX's name of the plugin.
    fn name(&self) -> &'static str;

    /// Attaches the client's consumer, or says what it would have answered. Counts nothing: of
    /// several ways in, those before the one that is taken have not failed.
    fn authenticate<'a>(
        &'a self,
        req: &'a mut RequestCtx<'_>,
    ) -> BoxFuture<'a, Result<Admission, Refusal>>;

    /// Takes out of the request what this way alone may tell of its user: whoever is let in another
    /// way must not have told it himself.
    fn remove_forged(&self, req: &mut RequestCtx<'_>);

    /// Counts a failure that stands (`claviger_auth_failures_total`).
    fn count(&self, reason: AuthFailure);
}

/// How a way let a client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// By its credential.
    Known,
    /// As the anonymous consumer, since its credential failed for this reason.
    Anonymous(AuthFailure),
}

/// Why a way did not let a client in.
#[derive(Debug)]
pub struct Refusal {
    /// For the metric and the log.
    pub reason: AuthFailure,
    /// What the client would have got.
    pub answer: Response,
}

/// Phase `access`: after the consumer is known.
pub trait Access: Send + Sync {
    /// Runs once per request.
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a>;
}

/// Phase `before_proxy`: the upstream is chosen, nothing is sent yet.
pub trait BeforeProxy: Send + Sync {
    /// Runs once per request that goes upstream.
    fn before_proxy(&self, req: &mut RequestCtx<'_>);
}

/// Phase `header_filter`: the response head, also of responses the gateway made itself.
/// In this and the next phases `req.head` is read-only by custom: it was already sent.
pub trait HeaderFilter: Send + Sync {
    /// Runs once per response. A hook that will change the body's length must remove
    /// `Content-Length` here.
    fn header_filter(&self, req: &mut RequestCtx<'_>, response: &mut ResponseHeader);
}

/// Phase `body_filter`: each piece of the response body.
pub trait BodyFilter: Send + Sync {
    /// `body` may be changed or taken (to hold data back); the last call has `end` set, with or
    /// without data.
    fn body_filter(&self, req: &mut RequestCtx<'_>, body: &mut Option<Bytes>, end: bool);
}

/// Phase `log`: the exchange is over; also after errors and early answers.
pub trait Log: Send + Sync {
    /// Runs once per request.
    fn log(&self, req: &RequestCtx<'_>);
}

/// The hooks of one built plugin.
#[derive(Clone, Default)]
pub struct Hooks {
    pub(super) rewrite: Option<Arc<dyn Rewrite>>,
    pub(super) access: Option<Arc<dyn Access>>,
    pub(super) before_proxy: Option<Arc<dyn BeforeProxy>>,
    pub(super) header_filter: Option<Arc<dyn HeaderFilter>>,
    pub(super) body_filter: Option<Arc<dyn BodyFilter>>,
    pub(super) log: Option<Arc<dyn Log>>,
    pub(super) authenticate: Option<Arc<dyn Authenticate>>,
    pub(super) reads_body: bool,
    open: bool,
    redacted: Vec<Box<str>>,
    warnings: Vec<(Box<str>, &'static str)>,
}

impl Hooks {
    /// Starts the list of hooks of `plugin`: `Hooks::of(plugin).rewrite().done()`.
    pub fn of<T>(plugin: T) -> HooksOf<T> {
        HooksOf {
            plugin: Arc::new(plugin),
            hooks: Self::default(),
        }
    }

    /// Headers, query arguments and cookies that carry credentials for this plugin; logs mask
    /// them (`RouteInfo::redacted_args`).
    #[must_use]
    pub fn redacted(&self) -> &[Box<str>] {
        &self.redacted
    }

    /// Whether it lets requests pass that bring no credential.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Settings that work and are dangerous, by field, and what there is to say of them.
    #[must_use]
    pub fn warnings(&self) -> &[(Box<str>, &'static str)] {
        &self.warnings
    }
}

/// Collects hooks; each method compiles only where the plugin has that phase.
pub struct HooksOf<T> {
    plugin: Arc<T>,
    hooks: Hooks,
}

macro_rules! phase {
    ($name:ident, $phase:ident) => {
        impl<T: $phase + 'static> HooksOf<T> {
            #[doc = concat!("Runs in phase `", stringify!($name), "`.")]
            #[must_use]
            pub fn $name(mut self) -> Self {
                self.hooks.$name = Some(self.plugin.clone());
                self
            }
        }
    };
}

phase!(rewrite, Rewrite);
phase!(access, Access);
phase!(before_proxy, BeforeProxy);
phase!(header_filter, HeaderFilter);
phase!(body_filter, BodyFilter);
phase!(log, Log);

impl<T: Authenticate + 'static> HooksOf<T> {
    /// May be one of several ways in (`multi-auth`).
    #[must_use]
    pub fn authenticates(mut self) -> Self {
        self.hooks.authenticate = Some(self.plugin.clone());
        self
    }
}

impl<T> HooksOf<T> {
    /// A request phase may ask for the request's body ([`RequestCtx::whole_body`]).
    #[must_use]
    pub fn reads_body(mut self) -> Self {
        self.hooks.reads_body = true;
        self
    }

    /// It lets requests pass that bring no credential: no way in where others are to be asked.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.hooks.open = true;
        self
    }

    /// Names headers, query arguments or cookies that carry a credential.
    #[must_use]
    pub fn redacts<N: Into<Box<str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(Into::into);
        self.hooks.redacted.extend(names);
        self
    }

    /// Tells at load what is dangerous about a field's setting.
    #[must_use]
    pub fn warns(mut self, field: &str, message: &'static str) -> Self {
        self.hooks.warnings.push((field.into(), message));
        self
    }

    /// The finished set.
    #[must_use]
    pub fn done(self) -> Hooks {
        self.hooks
    }
}
