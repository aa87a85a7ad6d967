//! What travels with one request through Pingora's phases.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use super::held::HeldBody;
use crate::plugins::{Chain, RequestState, Response, Scopes};
use crate::snapshot::{CompiledRoute, Snapshot};
use crate::telemetry::metrics::OpenRequest;
use crate::tls::Forward;
use crate::upstream::{Picked, Upstream};

/// One request's context. Pingora makes it before it has read the request, so it starts empty.
#[derive(Default)]
pub struct Ctx {
    /// Set once the request was taken in: everything below exists from then on.
    pub exchange: Option<Box<Exchange>>,
    /// Counts as in flight until dropped.
    pub in_flight: Option<OpenRequest>,
}

/// A request that was taken in.
pub struct Exchange {
    /// The snapshot the request took; it reads no other.
    pub snapshot: Arc<Snapshot>,
    /// What plugins see.
    pub state: RequestState,
    /// Plugins by scope.
    pub scopes: Scopes,
    /// What the upstream is told of the client's certificate, if one was verified.
    pub forward_certificate: Forward,
    /// The matched route.
    pub route: Option<Arc<CompiledRoute>>,
    /// Where it goes.
    pub upstream: Option<Arc<Upstream>>,
    /// Nodes tried so far.
    pub tried: SmallVec<[SocketAddr; 2]>,
    /// The node of the present attempt.
    pub picked: Option<Picked>,
    /// What is held of a body that goes upstream only as a whole.
    pub held: HeldBody,
    /// The answer to a request that a check of its body refused.
    pub refusal: Option<Box<Response>>,
    /// A WebSocket upgrade is passed on.
    pub upgrade: bool,
    /// A body filter exists in some scope.
    pub filters_body: bool,
    /// The node of the present attempt must speak HTTP/2.
    pub http2_only: bool,
    /// Something of the request may have been sent in the present attempt.
    pub sent: bool,
    /// How often a node turned the request away unlooked at.
    pub turned_away: u8,
    /// A node has asked for HTTP/1.1.
    pub http1: bool,
    /// Whether the upstream's response head was received.
    pub response_started: bool,
    /// Head of an upstream's response without a body, to be answered by us since a filter may
    /// give it one.
    pub hollow: Option<Box<ResponseHeader>>,
}

impl Exchange {
    /// An exchange of a request whose route is not known yet.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, state: RequestState, no_plugins: &Arc<Chain>) -> Self {
        let scopes = Scopes {
            global: Arc::clone(&snapshot.global),
            route: Arc::clone(no_plugins),
            consumer: None,
        };
        Self {
            snapshot,
            state,
            scopes,
            forward_certificate: Forward::Nothing,
            route: None,
            upstream: None,
            tried: SmallVec::new(),
            picked: None,
            held: HeldBody::default(),
            refusal: None,
            upgrade: false,
            filters_body: false,
            http2_only: false,
            sent: false,
            turned_away: 0,
            http1: false,
            response_started: false,
            hollow: None,
        }
    }
}
