//! Taking a request in: bounds and framing, who the client is, the path, the route.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Uri, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::{FailToProxy, Session};

use super::ctx::{Ctx, Exchange};
use super::{Gateway, listener, respond};
use crate::http::request_guard::{self, Refusal};
use crate::http::{hop_by_hop, path};
use crate::plugins::ctx::{Original, TlsInfo};
use crate::plugins::{RequestCtx, RequestState, Response};
use crate::routing::RouteQuery;

impl Gateway {
    /// Everything that must hold before a route is looked for. An error closes the connection:
    /// where a head is doubtful, so is the start of the next.
    pub(super) fn take_in(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        listener::header_seen();
        ctx.in_flight = Some(self.settings.metrics.connections().begin_request());
        self.bound_times(session);
        let Some(snapshot) = self.cell.current() else {
            return Err(Error::explain(
                ErrorType::HTTPStatus(404),
                "no configuration is loaded yet",
            ));
        };
        let state = self.state(session, &snapshot);
        let exchange =
            ctx.exchange
                .insert(Box::new(Exchange::new(snapshot, state, &self.no_plugins)));

        self.guard(session)?;
        if self.settings.drop_underscored {
            request_guard::drop_underscored(session.req_header_mut());
        }
        Self::drop_forged_certificate(session.req_header_mut());
        hop_by_hop::sanitize_request(session.req_header_mut());
        self.normalize(session.req_header_mut(), exchange)?;
        self.guard_client(session.req_header(), exchange)?;
        self.bound_body(session.req_header())
    }

    /// Pingora sets no time limit of its own after a connection's first request.
    fn bound_times(&self, session: &mut Session) {
        if session.get_keepalive().is_some() {
            // Pingora counts whole seconds and takes 0 as "for ever"; nginx takes it as "never".
            let keepalive = self.settings.keepalive;
            session.set_keepalive((!keepalive.is_zero()).then(|| keepalive.as_secs().max(1)));
        }
        session.set_read_timeout(Some(self.settings.body_timeout));
        session.set_write_timeout(Some(self.settings.send_timeout));
    }

    fn guard(&self, session: &mut Session) -> Result<()> {
        let rules = &self.settings.guard;
        let raw = session
            .as_http1()
            .map(|http1| http1.get_headers_raw_bytes());
        raw.map_or(Ok(()), |raw| request_guard::check_raw(&raw, rules))
            .and_then(|()| request_guard::name_host(session.req_header_mut()))
            .and_then(|()| request_guard::check(session.req_header(), rules))
            .map_err(|refusal| self.refusal(refusal))
    }

    fn refusal(&self, refusal: Refusal) -> Box<Error> {
        self.settings.metrics.own().refused(refusal.reason());
        Error::explain(ErrorType::HTTPStatus(refusal.status()), refusal.to_string())
    }

    fn state(&self, session: &Session, snapshot: &crate::snapshot::Snapshot) -> RequestState {
        let address =
            |address: &pingora_core::protocols::l4::socket::SocketAddr| address.as_inet().copied();
        // A Unix socket has no address; it counts as local.
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let peer = session.client_addr().and_then(address).unwrap_or(nowhere);
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let consumers = Arc::clone(&snapshot.consumers);
        let mut state = RequestState::new(peer, consumers, self.clock.now(), self.clock.wall());
        state.local = session.server_addr().and_then(address);
        state.tls = session
            .digest()
            .and_then(|digest| digest.ssl_digest.as_ref())
            .map(|digest| {
                let info = digest.extension.get::<Arc<TlsInfo>>();
                info.cloned().unwrap_or_default()
            });
        if let Some(field) = self.settings.client_addr.field() {
            let values = session.req_header().headers.get_all(field);
            state.client = self
                .settings
                .client_addr
                .resolve(peer, values.iter().map(http::HeaderValue::as_bytes));
        }
        state
    }

    /// What is matched is what goes upstream (`http::path`).
    fn normalize(&self, head: &mut RequestHeader, exchange: &mut Exchange) -> Result<()> {
        let refuse = |_| {
            self.settings.metrics.own().refused("bad_path");
            Error::explain(ErrorType::HTTPStatus(400), "path is not valid")
        };
        let raw = head.uri.path();
        if raw == "*" {
            return Ok(());
        }
        let normalized = path::normalize(raw, &self.settings.path_rules).map_err(refuse)?;
        let decoded = (*normalized.decoded != *raw).then(|| normalized.decoded.into_owned());
        if let Some(path) = normalized.forward {
            let target = match head.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let target: Uri = target
                .parse()
                .map_err(|_| Error::explain(ErrorType::HTTPStatus(400), "path is not valid"))?;
            exchange.state.original = Some(Box::new(Original {
                method: head.method.clone(),
                uri: head.uri.clone(),
            }));
            let mut parts = head.uri.clone().into_parts();
            parts.path_and_query = target.into_parts().path_and_query;
            let uri = Uri::from_parts(parts)
                .map_err(|_| Error::explain(ErrorType::HTTPStatus(400), "path is not valid"))?;
            head.set_uri(uri);
        }
        exchange.state.path = decoded;
        Ok(())
    }

    fn bound_body(&self, head: &RequestHeader) -> Result<()> {
        let limit = self.settings.max_body_bytes;
        let declared = head.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if limit > 0 && declared.is_some_and(|declared| declared > limit) {
            return Err(Error::explain(
                ErrorType::HTTPStatus(413),
                "request body is over the limit",
            ));
        }
        Ok(())
    }

    pub(super) fn find_route(&self, session: &mut Session, exchange: &mut Exchange) {
        let snapshot = Arc::clone(&exchange.snapshot);
        let found = {
            let req = RequestCtx::new(session.req_header_mut(), &mut exchange.state);
            let host = req.host_and_port().unwrap_or_default();
            let query = RouteQuery {
                host,
                path: req.path(),
                method: &req.head.method,
                client: req.client_ip(),
                vars: &req,
            };
            snapshot.router.find(&query).map(|found| {
                let params = found
                    .params
                    .iter()
                    .map(|(name, value)| (Arc::clone(name), (*value).to_owned()));
                (
                    Arc::clone(found.value),
                    Arc::clone(found.uri_pattern),
                    found.host_pattern.cloned(),
                    params.collect(),
                )
            })
        };
        if let Some((route, uri, host, params)) = found {
            let state = &mut exchange.state;
            state.route = Some(Arc::clone(&route.info));
            state.matched_uri = Some(uri);
            state.matched_host = host;
            state.uri_params = params;
            exchange.route = Some(route);
        }
    }

    /// An answer where no exchange could be made: before the first configuration.
    pub(super) async fn refuse_unread(&self, session: &mut Session, status: u16) -> FailToProxy {
        let response = match status {
            404 => Response::error_msg(404, "404 Route Not Found"),
            status => Response::status(status.max(400)),
        };
        session.set_keepalive(None);
        if let Err(error) = respond::bare(session, &response, &self.settings.server).await {
            log::debug!("could not answer {status}: {error}");
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }
}
