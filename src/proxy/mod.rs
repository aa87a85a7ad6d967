//! The request's way through Pingora. Takes the snapshot once; decides nothing that a snapshot
//! could have decided at load.

mod body;
mod client_auth;
pub mod ctx;
pub mod drain;
mod ending;
mod forward;
pub mod handshake;
mod header_deadline;
mod held;
mod intake;
pub mod listener;
mod phases;
mod record;
mod rescue;
mod respond;
mod settings;
pub mod signals;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::clock::Clock;
use crate::plugins::respond::Source;
use crate::plugins::{Chain, RequestCtx, Response};
use crate::reload::SnapshotCell;
use crate::snapshot::{Outcome, UpstreamLink};
use crate::upstream::{AddressProof, Failure};
use ctx::{Ctx, Exchange};
pub use held::HeldBytes;
pub use settings::ProxySettings;

/// The gateway as Pingora sees it.
pub struct Gateway {
    cell: Arc<SnapshotCell>,
    clock: Arc<dyn Clock>,
    settings: ProxySettings,
    wants: record::Wants,
    no_plugins: Arc<Chain>,
}

impl Gateway {
    /// A gateway over the snapshots that `cell` will hold.
    #[must_use]
    pub fn new(cell: Arc<SnapshotCell>, clock: Arc<dyn Clock>, settings: ProxySettings) -> Self {
        Self {
            wants: record::Wants::of(settings.access_log.as_ref()),
            cell,
            clock,
            settings,
            no_plugins: Arc::new(Chain::default()),
        }
    }

    /// Rewrite and access of all scopes, then the choice of an upstream. `Some` ends the request.
    async fn decide(&self, session: &mut Session, exchange: &mut Exchange) -> Option<Response> {
        if exchange.snapshot.global_refused {
            return Some(Response::error_msg(503, "a global rule is not valid"));
        }
        if exchange.snapshot.asks_body
            && let Err(status) = self.read_small_body(session, exchange).await
        {
            return Some(Response::status(status));
        }
        self.find_route(session, exchange);
        let route = exchange.route.clone();
        match route.as_ref().map(|route| &route.outcome) {
            Some(Outcome::Serve { chain, .. }) => exchange.scopes.route = Arc::clone(chain),
            Some(Outcome::Refuse { status }) => return Some(Response::status(*status)),
            Some(Outcome::Absent) | None => return Some(self.unmatched(session, exchange).await),
        }
        if let Some(response) = self.run_request_phases(session, exchange).await {
            return Some(response);
        }
        let Some(Outcome::Serve {
            upstream,
            websocket,
            ..
        }) = route.as_ref().map(|route| &route.outcome)
        else {
            return None;
        };
        match upstream {
            UpstreamLink::Ready(upstream) => exchange.upstream = Some(Arc::clone(upstream)),
            UpstreamLink::None | UpstreamLink::Refused => return Some(Response::status(503)),
            UpstreamLink::NotFound => return Some(Response::status(502)),
        }
        // What follows an upgrade is no body, so that a body still to be checked forbids one.
        let checked = exchange.state.body_checks.is_empty();
        exchange.upgrade =
            *websocket && checked && session.is_upgrade_req() && asks_for_websocket(session);
        if !exchange.upgrade {
            let head = session.req_header_mut();
            head.remove_header(&header::UPGRADE);
        }
        let mut req = RequestCtx::new(session.req_header_mut(), &mut exchange.state);
        exchange.scopes.before_proxy(&mut req);
        exchange.filters_body = exchange.scopes.filters_body();
        None
    }

    async fn answer(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        response: Response,
    ) -> Result<()> {
        exchange.state.source = Source::Gateway;
        respond::answer(session, exchange, response, &self.settings.server).await
    }
}

impl Gateway {
    /// Answers a request that failed on its way.
    async fn answer_failure(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        status: u16,
    ) -> Result<()> {
        if let Some(head) = exchange.hollow.take() {
            return respond::send(session, exchange, *head, Some(Bytes::new())).await;
        }
        if let Some(refusal) = exchange.refusal.take() {
            return self.answer(session, exchange, *refusal).await;
        }
        exchange.state.source = Source::Core;
        let mut response = Response::status(status);
        if let Some(statuses) = self.upstream_statuses(exchange) {
            response = response.with_header(forward::UPSTREAM_STATUS, statuses);
        }
        respond::answer(session, exchange, response, &self.settings.server).await
    }
}

/// Pingora passes on no other upgrade.
fn asks_for_websocket(session: &Session) -> bool {
    let upgrade = session.req_header().headers.get(header::UPGRADE);
    upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn exchange_of(ctx: &mut Ctx) -> Result<&mut Exchange> {
    ctx.exchange
        .as_deref_mut()
        .ok_or_else(|| Error::explain(ErrorType::InternalError, "request was not taken in"))
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::default()
    }

    /// No compression module: what is not used costs nothing.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        self.take_in(session, ctx)
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let exchange = exchange_of(ctx)?;
        match self.decide(session, exchange).await {
            Some(response) => {
                self.answer(session, exchange, response).await?;
                Ok(true)
            }
            None => {
                forward::let_body_come(session).await?;
                Ok(false)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        self.next_peer(session, exchange_of(ctx)?)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        peer: &HttpPeer,
        #[cfg(unix)] _: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        _: &mut Ctx,
    ) -> Result<()> {
        if AddressProof::holds(peer, digest) {
            return Ok(());
        }
        let refusal = "the node's certificate is not trusted, or not for the address asked for";
        Err(Error::explain(ErrorType::InvalidCert, refusal).into_up())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.forward_head(session, upstream_request, exchange_of(ctx)?)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.pass_body(session, exchange_of(ctx)?, body, end).await
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let exchange = exchange_of(ctx)?;
        self.backward_head(session, response, exchange)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return Ok(None);
        };
        if exchange.filters_body && !session.was_upgraded() {
            let mut req = RequestCtx::new(session.req_header_mut(), &mut exchange.state);
            exchange.scopes.body_filter(&mut req, body, end);
        }
        exchange.state.body_bytes_sent += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(exchange) = ctx.exchange.as_deref_mut() {
            self.attempt_failed(exchange, &error);
            let method = &session.req_header().method;
            error.set_retry(self.may_try_again(exchange, Failure::Connecting, method));
        }
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {peer}"));
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return error;
        };
        if *error.esource() != ErrorSource::Upstream {
            error.set_retry(false);
            return error;
        }
        self.attempt_failed(exchange, &error);
        let method = &session.req_header().method;
        let again = self.may_follow(exchange, &error, client_reused, method)
            && !session.as_ref().retry_buffer_truncated();
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let status = rescue::status_of(error);
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return self.refuse_unread(session, status).await;
        };
        // An interim answer (100, 103) does not take the place of a final one.
        let answered = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational());
        if answered {
            // What the client saw stands, in logs too.
        } else if status > 0 {
            session.set_keepalive(None);
            if let Err(error) = self.answer_failure(session, exchange, status).await {
                log::debug!("could not answer {status}: {error}");
            }
        } else {
            // nginx's number for a client that left first.
            exchange.state.status = 499;
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        self.record(session, error, ctx);
    }

    /// One line per failed request is in the access log; the cause is logged by `record`.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }
}
