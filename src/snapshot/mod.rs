//! The compiled configuration: what requests and handshakes read, immutable, replaced whole.
//! [`compile::compile`] is pure: the same documents and values give the same snapshot.

mod advice;
mod certificates;
mod client_auth;
mod client_pairs;
pub mod compile;
mod consumers;
mod duplicates;
pub mod graph;
mod on_demand;
mod parallel;
mod plugins;
mod quarantine;
pub mod references;
mod rest;
mod roster;
mod routes;
mod stapling;
pub mod substitute;
#[cfg(test)]
mod tests;
mod tickets;
mod unit;
mod upstreams;
mod uses;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

pub use certificates::{CertificateReport, CertificateState};

use crate::config::Identity;
use crate::config::resource::TimeoutConfig;
use crate::consumer::Consumers;
use crate::diagnostic::Diagnostic;
use crate::plugins::{Chain, RouteInfo};
use crate::routing::Router;
use crate::secrets::View;
use crate::tls::SharedKeys;
use crate::tls::sni_store::SniStore;
use crate::upstream::Upstream;

/// What a request that matched a route gets.
pub enum Outcome {
    /// Plugins run, then the upstream.
    Serve {
        /// The route's merged plugins.
        chain: Arc<Chain>,
        /// Where it goes when no plugin answers, with the route's timeouts.
        upstream: UpstreamLink,
        /// Whether WebSocket upgrades are passed on.
        websocket: bool,
    },
    /// The route itself is invalid: it answers as a path without a route does (`spec/00` §1.3),
    /// so that no broader route takes over what it guarded.
    Absent,
    /// A piece the route stands on is missing or refused: the stock page of this status.
    Refuse {
        /// 404 or 503.
        status: u16,
    },
}

/// A route's upstream.
#[derive(Clone)]
pub enum UpstreamLink {
    /// It is there.
    Ready(Arc<Upstream>),
    /// The route names none: 503.
    None,
    /// The id names nothing, or an upstream that was refused: 502.
    NotFound,
    /// A secret it needs has no value, or its nodes would come from discovery: 503.
    Refused,
}

impl UpstreamLink {
    /// The same as a route uses it.
    fn for_route(self, timeout: Option<&TimeoutConfig>, websocket: bool) -> Self {
        match self {
            Self::Ready(upstream) => Self::Ready(upstream.for_route(timeout, websocket)),
            other => other,
        }
    }
}

/// A compiled route.
pub struct CompiledRoute {
    /// Names for variables, metrics and logs.
    pub info: Arc<RouteInfo>,
    /// What happens.
    pub outcome: Outcome,
}

/// How many items of a kind there are, and how many of them refuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemCount {
    /// All.
    pub items: usize,
    /// Refusing.
    pub refused: usize,
}

/// The whole.
pub struct Snapshot {
    /// Counts up with every publication.
    pub revision: u64,
    /// Finds a request's route.
    pub router: Arc<Router<Arc<CompiledRoute>>>,
    /// Some route's `vars` ask for a field of the body, so it is read before a route is looked for.
    pub asks_body: bool,
    /// Global rules.
    pub global: Arc<Chain>,
    /// A global rule was refused: every request answers 503.
    pub global_refused: bool,
    /// What the global rules' plugins want masked in logs, of any route.
    pub global_redacted: Box<[Box<str>]>,
    /// Consumers.
    pub consumers: Arc<Consumers>,
    /// Certificates by name.
    pub names: Arc<SniStore>,
    /// Certificates, for metrics and people.
    pub certificates: Arc<[CertificateReport]>,
    /// Counts by kind (`routes`, `consumers`, …).
    pub counts: HashMap<&'static str, ItemCount>,
    /// Everything found while parsing and compiling.
    pub diagnostics: Vec<Diagnostic>,
    /// How many consumers and credentials were built for this snapshot; the others are those of
    /// the one before.
    pub consumers_built: usize,
    /// The same of upstreams, services, routes, sets of plugins and certificates.
    pub others_built: usize,
    /// Findings about declarations that hold and cannot work.
    advice: Arc<[Diagnostic]>,
    /// The documents it was made of.
    of: Identity,
    /// The values it was made of.
    view: View,
    /// Keys of session tickets that a reference gives.
    tickets: tickets::Tickets,
    /// Who holds which reference.
    uses: Arc<uses::Uses>,
    /// Consumers and credentials, for reuse.
    roster: roster::Roster,
    /// The other pieces, for reuse.
    rest: Arc<rest::Rest>,
}

impl Snapshot {
    /// Keys of session tickets that a reference gives; `None` where it has no value.
    #[must_use]
    pub fn ticket_keys(&self) -> Option<&SharedKeys> {
        self.tickets.keys.as_deref()
    }

    /// Whether the passing of time alone changed what is served or to be said: a certificate is
    /// close to its end or past it, another has become valid, or the clock was set back.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.rest.is_due(now)
    }
}
