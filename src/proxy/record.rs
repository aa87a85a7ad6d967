//! The end of a request: log hooks, access log, counters.

use std::borrow::Cow;

use pingora_error::{Error, ErrorSource};
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::{Gateway, forward, listener};
use crate::expr::Name;
use crate::plugins::RequestCtx;
use crate::telemetry::access_log::AccessLog;

impl Gateway {
    pub(super) fn record(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        if let Some(error) = error
            && *error.etype() != forward::HOLLOW
        {
            log_error(session, error);
        }
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return;
        };
        if self.wants.response_headers {
            let head = session.response_written();
            exchange.state.response_headers = head.map(|head| Box::new(head.headers.clone()));
        }
        let now = self.clock.now();
        let state = &mut exchange.state;
        state.request_time = now.saturating_duration_since(state.started);
        if let Some(attempt) = state.attempts.last_mut()
            && attempt.response_time.is_none()
        {
            attempt.response_time = Some(now.saturating_duration_since(attempt.started));
        }
        state.bytes_received = head_bytes(session) + session.as_ref().body_bytes_read() as u64;
        state.bytes_sent = session.body_bytes_sent() as u64 + sent_head_bytes(session);
        let req = RequestCtx::new(session.req_header_mut(), state);
        exchange.scopes.log(&req);
        if let Some(access_log) = &self.settings.access_log {
            let route = req.state.route.as_ref();
            let route = route.map_or(&[][..], |route| &route.redacted_args);
            let names = both(route, &exchange.snapshot.global_redacted);
            access_log.record(&req, &names, self.clock.wall());
        }
        listener::request_done();
    }
}

/// What is kept or measured only where the access log shows it.
pub(super) struct Wants {
    /// The response head as sent.
    pub(super) response_headers: bool,
    /// How long connecting took.
    pub(super) connect_time: bool,
}

impl Wants {
    pub(super) fn of(access_log: Option<&AccessLog>) -> Self {
        Self {
            response_headers: access_log.is_some_and(AccessLog::wants_response_headers),
            connect_time: access_log.is_some_and(|log| log.wants(Name::UpstreamConnectTime)),
        }
    }
}

/// The names that the route and the global rules mask; most configurations have at most one.
fn both<'a>(route: &'a [Box<str>], global: &'a [Box<str>]) -> Cow<'a, [Box<str>]> {
    match (route, global) {
        (route, []) => Cow::Borrowed(route),
        ([], global) => Cow::Borrowed(global),
        (route, global) => Cow::Owned([route, global].concat()),
    }
}

/// Whose fault it was decides how loud: a client that went away is not news.
fn log_error(session: &Session, error: &Error) {
    let method = &session.req_header().method;
    match error.esource() {
        ErrorSource::Downstream => log::debug!("request failed: {method} error=\"{error}\""),
        ErrorSource::Internal | ErrorSource::Unset
            if !matches!(error.etype(), pingora_error::ErrorType::HTTPStatus(_)) =>
        {
            log::error!("request failed: {method} error=\"{error}\"");
        }
        _ => log::warn!("request failed: {method} error=\"{error}\""),
    }
}

/// Bytes of the request head: exact for HTTP/1, an estimate of the decoded fields for HTTP/2.
fn head_bytes(session: &Session) -> u64 {
    if let Some(h1) = session.as_http1() {
        return h1.get_headers_raw_bytes().len() as u64;
    }
    let head = session.req_header();
    fields_bytes(&head.headers) + head.raw_path().len() as u64 + head.method.as_str().len() as u64
}

fn sent_head_bytes(session: &Session) -> u64 {
    // Status line and the empty line.
    session
        .response_written()
        .map_or(0, |head| fields_bytes(&head.headers) + 19)
}

fn fields_bytes(fields: &http::HeaderMap) -> u64 {
    fields
        .iter()
        .map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64)
        .sum()
}
