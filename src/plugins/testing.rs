//! What unit tests of plugins share: a request to run hooks on, and a way to build a plugin.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderName;
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::Value;

use super::auth::throttle::Throttle;
use super::ctx::{RequestCtx, RequestState};
use super::def::{BuildCtx, BuildError, Credential, CredentialCtx, PluginDef};
use super::phase::{Flow, Hooks, Step};
use super::respond::Response;
use crate::callout::Trust;
use crate::clock::{Clock, ManualClock};
use crate::consumer::{Consumer, Consumers, CredentialIndex, GroupLink};
use crate::kept::Kept;
use crate::telemetry::metrics::Metrics;

/// Builds the plugin with the defaults of [`With`].
pub(in crate::plugins) fn build(def: &PluginDef, json: &Value) -> Result<Hooks, BuildError> {
    With::default().build(def, json)
}

/// Builds a plugin whose configuration is known to be right.
pub(in crate::plugins) fn built(def: &PluginDef, json: &Value) -> Hooks {
    build(def, json).expect("configuration is valid")
}

/// The refusal of a wrong configuration as `field: message`.
pub(in crate::plugins) fn refusal(def: &PluginDef, json: &Value) -> String {
    match build(def, json) {
        Ok(_) => panic!("{json} must be refused"),
        Err(error) => format!("{}: {}", error.field, error.message),
    }
}

/// The credential side of a plugin that has one.
pub(in crate::plugins) fn credential(
    def: &PluginDef,
    json: &Value,
) -> Result<Credential, BuildError> {
    credential_and_warnings(def, json).0
}

/// The same, and what is told of it.
pub(in crate::plugins) fn credential_and_warnings(
    def: &PluginDef,
    json: &Value,
) -> (Result<Credential, BuildError>, Vec<BuildError>) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    let ctx = CredentialCtx {
        digest_key: &[1; 16],
        kept: &Kept::new(),
        trust: &Trust::default(),
        clock: &clock,
        again: None,
        warnings: &RefCell::default(),
    };
    let side = def.credential.expect("plugin has a credential side");
    ((side.build)(json, &ctx), ctx.warnings.take())
}

/// What surrounds a plugin while it is built.
#[derive(Default)]
pub(in crate::plugins) struct With {
    pub(in crate::plugins) metadata: Value,
    pub(in crate::plugins) attr: Value,
    pub(in crate::plugins) https_ports: Vec<u16>,
    pub(in crate::plugins) throttle: Option<Arc<Throttle>>,
    pub(in crate::plugins) trust: Trust,
}

impl With {
    pub(in crate::plugins) fn build(
        &self,
        def: &PluginDef,
        json: &Value,
    ) -> Result<Hooks, BuildError> {
        self.with(|ctx| (def.build)(json, ctx))
    }

    /// Does something with it at hand.
    pub(in crate::plugins) fn with<T>(&self, work: impl FnOnce(&BuildCtx<'_>) -> T) -> T {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let ctx = BuildCtx {
            owner: &crate::plugins::def::Owner::new("routes/1"),
            metadata: &self.metadata,
            attr: &self.attr,
            attr_of: &|_| Some(&self.attr),
            https_ports: &self.https_ports,
            metrics: &Arc::new(Metrics::new("apisix_")),
            kept: &Kept::new(),
            trust: &self.trust,
            clock: &clock,
            throttle: self.throttle.as_ref(),
        };
        work(&ctx)
    }
}

/// A consumer with nothing but a name.
pub(in crate::plugins) fn consumer(name: &str) -> Arc<Consumer> {
    Arc::new(Consumer {
        username: name.into(),
        plugins: None,
        group: GroupLink::Alone,
        labels: None,
    })
}

/// A consumer `guest` without credentials, and those of one plugin's.
pub(in crate::plugins) fn with_guest(
    plugin: &'static str,
    credentials: CredentialIndex,
) -> Arc<Consumers> {
    let mut consumers = Consumers::of([consumer("guest")].into_iter());
    consumers.by_plugin.insert(plugin, credentials);
    Arc::new(consumers)
}

/// A request and its state, owned.
pub(in crate::plugins) struct Exchange {
    pub(in crate::plugins) head: RequestHeader,
    pub(in crate::plugins) state: RequestState,
}

impl Exchange {
    pub(in crate::plugins) fn new(method: &str, target: &str) -> Self {
        let clock = ManualClock::new();
        let peer: SocketAddr = "192.0.2.7:1234".parse().expect("address is valid");
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let state = RequestState::new(peer, Arc::new(Consumers::default()), clock.now(), wall);
        let head = RequestHeader::build(method, target.as_bytes(), None);
        Self {
            head: head.expect("request line is valid"),
            state,
        }
    }

    pub(in crate::plugins) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Adds a request header.
    pub(in crate::plugins) fn header(mut self, name: &'static str, value: &str) -> Self {
        let added = self.head.append_header(name, value);
        added.expect("header is valid");
        self
    }

    pub(in crate::plugins) fn ctx(&mut self) -> RequestCtx<'_> {
        RequestCtx::new(&mut self.head, &mut self.state)
    }

    /// Name of the consumer it has by now.
    pub(in crate::plugins) fn who(&self) -> Option<&str> {
        let attached = self.state.consumer.as_ref()?;
        Some(&attached.consumer.username)
    }

    /// Values of a request header.
    pub(in crate::plugins) fn values(&self, name: &str) -> Vec<&str> {
        let values = self.head.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().expect("value is text"))
            .collect()
    }

    /// Path and query as they would go upstream.
    pub(in crate::plugins) fn target(&self) -> &str {
        std::str::from_utf8(self.head.raw_path()).expect("target is text")
    }

    /// Runs phase `rewrite`; the answer, where there is one.
    pub(in crate::plugins) fn rewrite(&mut self, hooks: &Hooks) -> Option<Response> {
        let hook = hooks.rewrite.clone().expect("plugin has phase rewrite");
        let mut ctx = self.ctx();
        finish(hook.rewrite(&mut ctx))
    }

    /// Runs phase `access`; the answer, where there is one.
    pub(in crate::plugins) fn access(&mut self, hooks: &Hooks) -> Option<Response> {
        let hook = hooks.access.clone().expect("plugin has phase access");
        let mut ctx = self.ctx();
        finish(hook.access(&mut ctx))
    }

    /// Runs phase `header_filter`.
    pub(in crate::plugins) fn header_filter(
        &mut self,
        hooks: &Hooks,
        response: &mut ResponseHeader,
    ) {
        let hook = hooks.header_filter.clone();
        let hook = hook.expect("plugin has phase header_filter");
        hook.header_filter(&mut self.ctx(), response);
    }

    /// Runs phase `body_filter` over the pieces; what comes out, as one text.
    pub(in crate::plugins) fn body_filter(&mut self, hooks: &Hooks, pieces: &[&[u8]]) -> Vec<u8> {
        let hook = hooks.body_filter.clone();
        let hook = hook.expect("plugin has phase body_filter");
        let mut sent = Vec::new();
        for piece in pieces {
            let mut body = Some(Bytes::copy_from_slice(piece));
            hook.body_filter(&mut self.ctx(), &mut body, false);
            sent.extend(body.unwrap_or_default());
        }
        let mut body = None;
        hook.body_filter(&mut self.ctx(), &mut body, true);
        sent.extend(body.unwrap_or_default());
        sent
    }
}

fn finish(step: Step<'_>) -> Option<Response> {
    let flow = match step {
        Step::Done(flow) => flow,
        Step::Wait(future) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("runtime starts").block_on(future)
        }
    };
    match flow {
        Flow::Continue => None,
        Flow::Respond(response) => Some(*response),
    }
}

/// First value of an answer's header.
pub(in crate::plugins) fn answered<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let name = HeaderName::try_from(name).expect("name is valid");
    let mut headers = response.headers.iter();
    let (_, value) = headers.find(|(found, _)| *found == name)?;
    Some(value.to_str().expect("value is text"))
}

/// An answer's body as text.
pub(in crate::plugins) fn body_text(response: &Response) -> &str {
    let body = response.body.as_deref().unwrap_or_default();
    std::str::from_utf8(body).expect("body is text")
}

/// A response head with these headers.
pub(in crate::plugins) fn response_head(
    status: u16,
    headers: &[(&'static str, &str)],
) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).expect("status is valid");
    for (name, value) in headers {
        head.append_header(*name, *value).expect("header is valid");
    }
    head
}
