//! To the upstream and back: choice of the node, the heads in both directions.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, Version, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result, RetryType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::Gateway;
use super::ctx::Exchange;
use super::{body, rescue, respond};
use crate::http::{client_addr, hop_by_hop};
use crate::plugins::RequestCtx;
use crate::plugins::ctx::Attempt;
use crate::plugins::respond::Source;
use crate::plugins::vars::Vars;
use crate::upstream::{Failure, PickCtx, Wish};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-apisix-upstream-status");

/// Not a failure: Pingora hands a response back to us this way.
pub(super) const HOLLOW: ErrorType = ErrorType::Custom("HollowResponse");

// Names are given to Pingora as text: it keeps a static text as it is, where it would copy a
// `HeaderName`, and the case is the one APISIX sends.
impl Gateway {
    pub(super) fn next_peer(
        &self,
        session: &Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        let missing = || Error::explain(ErrorType::InternalError, "no upstream was chosen");
        let upstream = exchange.upstream.clone().ok_or_else(missing)?;
        let vars = Vars {
            head: session.req_header(),
            state: &exchange.state,
        };
        let ctx = PickCtx {
            client: exchange.state.client.ip(),
            vars: &vars,
        };
        let Some(picked) = upstream.pick(&exchange.tried, &ctx) else {
            // All were tried: the last failure decides.
            let last = exchange.state.attempts.last();
            let status = last.map_or(503, |attempt| attempt.status.unwrap_or(502));
            return Err(Error::explain(
                ErrorType::HTTPStatus(status),
                "no usable node",
            ));
        };
        // The server name is the host being sent (`spec/04` §5).
        let own = exchange.state.host_override.as_ref();
        let host = match own.or_else(|| upstream.host_for(&picked.node)) {
            Some(host) => host.to_str().ok(),
            None => received_host(session.req_header()),
        };
        let peer = upstream.peer(&picked, host.unwrap_or_default(), wish(exchange));
        let peer = peer.map_err(|error| {
            Error::because(ErrorType::HTTPStatus(502), "upstream cannot be used", error)
        })?;
        let mut peer = peer;
        body::bound_sending(&mut peer, exchange);
        exchange.held.begin_attempt();
        exchange.http2_only = peer.options.alpn.get_min_http_version() == 2;
        exchange.sent = false;
        exchange.tried.push(picked.addr);
        exchange.state.upstream_scheme = Some(upstream.scheme().name());
        exchange.state.attempts.push(Attempt {
            addr: picked.addr,
            status: None,
            started: self.clock.now(),
            connect_time: None,
            header_time: None,
            response_time: None,
        });
        exchange.picked = Some(picked);
        Ok(peer)
    }

    pub(super) fn attempt_failed(&self, exchange: &mut Exchange, error: &Error) {
        let now = self.clock.now();
        if let Some(attempt) = exchange.state.attempts.last_mut()
            && attempt.status.is_none()
        {
            attempt.status = Some(if rescue::is_timeout(error.etype()) {
                504
            } else {
                502
            });
            attempt.response_time = Some(now.saturating_duration_since(attempt.started));
        }
    }

    /// Whether one more attempt may follow the failure of this one, which had a connection.
    pub(super) fn may_follow(
        &self,
        exchange: &mut Exchange,
        error: &Error,
        client_reused: bool,
        method: &Method,
    ) -> bool {
        let mut failure = match (exchange.response_started, exchange.sent) {
            (true, _) => Failure::Answered,
            (false, true) => Failure::Sent,
            (false, false) => Failure::Connecting,
        };
        if failure == Failure::Sent {
            let closed_before = client_reused && matches!(error.retry, RetryType::ReusedOnly);
            let unlooked = is_unlooked_at(error);
            if unlooked {
                failure = Failure::Connecting;
            }
            let http1 = matches!(error.etype, ErrorType::InvalidH2 | ErrorType::H2Downgrade);
            let turned_away = unlooked || http1;
            exchange.http1 |= http1;
            exchange.turned_away += u8::from(turned_away);
            if closed_before || turned_away && exchange.turned_away <= MOST_TURNED_AWAY {
                // That says something of the connection, and nothing of the node.
                exchange.tried.pop();
            }
        }
        self.may_try_again(exchange, failure, method)
    }

    /// Whether one more attempt may follow this failure.
    pub(super) fn may_try_again(
        &self,
        exchange: &Exchange,
        failure: Failure,
        method: &Method,
    ) -> bool {
        let Some(upstream) = &exchange.upstream else {
            return false;
        };
        let elapsed = exchange
            .state
            .attempts
            .first()
            .map(|first| self.clock.now().saturating_duration_since(first.started))
            .unwrap_or_default();
        let tries = exchange.tried.len();
        upstream.retries().allows(tries, elapsed, failure, method)
    }

    pub(super) fn forward_head(
        &self,
        session: &Session,
        upstream_request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if self.wants.connect_time
            && let Some(attempt) = exchange.state.attempts.last_mut()
        {
            // The connection stands since a moment ago.
            let now = self.clock.now();
            attempt.connect_time = Some(now.saturating_duration_since(attempt.started));
        }
        let http2 = upstream_request.version == Version::HTTP_2;
        if exchange.http2_only && !http2 {
            // A node without ALPN would get HTTP/1.1.
            let refusal = Error::explain(ErrorType::H2Error, "the node does not choose HTTP/2");
            return Err(refusal.into_up());
        }
        let host = match (&exchange.upstream, &exchange.picked) {
            (Some(upstream), Some(picked)) => {
                let own = exchange.state.host_override.as_ref();
                let own = own.or_else(|| upstream.host_for(&picked.node));
                // Pingora sends nothing over HTTP/2 without an authority; HTTP/1.0 knows no `Host`.
                let nameless = http2 && received_host(upstream_request).is_none();
                own.or_else(|| nameless.then(|| picked.node.host_header()))
            }
            _ => None,
        };
        if let Some(host) = host {
            exchange.state.upstream_host = host.to_str().ok().map(Into::into);
            upstream_request.insert_header(header::HOST, host)?;
        }
        Self::forward_certificate(upstream_request, exchange)?;
        self.forwarding_fields(session, upstream_request, exchange)?;
        exchange.sent = true;
        Ok(())
    }

    /// `spec/00` §7.3, `spec/06` §6.
    fn forwarding_fields(
        &self,
        session: &Session,
        upstream_request: &mut RequestHeader,
        exchange: &Exchange,
    ) -> Result<()> {
        let state = &exchange.state;
        let forwarding = self.settings.forwarded.decide(state.peer.ip());
        let address = address_value(state.client.ip());
        let list =
            if forwarding.append_for && upstream_request.headers.contains_key(&X_FORWARDED_FOR) {
                let received = upstream_request.headers.get_all(&X_FORWARDED_FOR);
                let received = received.iter().map(HeaderValue::as_bytes);
                let list = client_addr::forwarded_for(received, forwarding, state.peer.ip());
                HeaderValue::try_from(list).map_err(|_| {
                    Error::explain(ErrorType::HTTPStatus(400), "X-Forwarded-For is not valid")
                })?
            } else if state.client.ip() == state.peer.ip() {
                address.clone()
            } else {
                address_value(state.peer.ip())
            };
        upstream_request.insert_header("X-Real-IP", address)?;
        upstream_request.insert_header("X-Forwarded-For", list)?;
        let overwrite = |head: &RequestHeader, name: &HeaderName| {
            !(forwarding.keep_origin && head.headers.contains_key(name))
        };
        if overwrite(upstream_request, &X_FORWARDED_PROTO) {
            let scheme = if state.tls.is_some() { "https" } else { "http" };
            upstream_request
                .insert_header("X-Forwarded-Proto", HeaderValue::from_static(scheme))?;
        }
        if overwrite(upstream_request, &X_FORWARDED_HOST)
            && let Some(host) = received_host_value(session.req_header())
        {
            upstream_request.insert_header("X-Forwarded-Host", host)?;
        }
        if overwrite(upstream_request, &X_FORWARDED_PORT)
            && let Some(local) = state.local
        {
            upstream_request.insert_header("X-Forwarded-Port", HeaderValue::from(local.port()))?;
        }
        if !forwarding.keep_forwarded && upstream_request.headers.contains_key(header::FORWARDED) {
            upstream_request.remove_header(&header::FORWARDED);
        }
        Ok(())
    }

    /// `502, 200`: every attempt's outcome. Shown where the last one is 5xx, or always if the
    /// bootstrap says so; absent where no upstream was attempted (`spec/00` §4.1).
    pub(super) fn upstream_statuses(&self, exchange: &Exchange) -> Option<HeaderValue> {
        let attempts = exchange.state.attempts.iter();
        let mut statuses = attempts.filter_map(|attempt| attempt.status);
        let last = exchange.state.attempts.last()?.status?;
        if last < 500 && !self.settings.show_upstream_status {
            return None;
        }
        let mut list = statuses.next()?.to_string();
        for status in statuses {
            list.push_str(", ");
            list.push_str(&status.to_string());
        }
        HeaderValue::try_from(list).ok()
    }

    pub(super) fn backward_head(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let status = response.status.as_u16();
        if status < 200 && status != 101 {
            return Ok(());
        }
        if status != 101 {
            respond::close_when_stopping(session);
        }
        let now = self.clock.now();
        exchange.response_started = true;
        if status == 101 && !exchange.upgrade {
            let refusal = Error::explain(
                ErrorType::InvalidHTTPHeader,
                "the node switched protocols unasked",
            );
            return Err(refusal.into_up());
        }
        exchange.state.source = Source::Upstream;
        if let Some(attempt) = exchange.state.attempts.last_mut() {
            attempt.status = Some(status);
            attempt.header_time = Some(now.saturating_duration_since(attempt.started));
        }
        hop_by_hop::strip_response(response);
        response.insert_header(header::SERVER, self.settings.server.clone())?;
        if let Some(statuses) = self.upstream_statuses(exchange) {
            response.insert_header("X-APISIX-Upstream-Status", statuses)?;
        }
        let is_head = session.req_header().method == Method::HEAD;
        if exchange.filters_body && !is_head && announces_nothing(response) {
            // Pingora has ended this response; none of its filters could add a body any more.
            exchange.hollow = Some(Box::new(response.clone()));
            return Err(Error::explain(
                HOLLOW,
                "the response has no body and is answered here",
            ));
        }
        let mut req = RequestCtx::new(session.req_header_mut(), &mut exchange.state);
        exchange.scopes.header_filter(&mut req, response);
        exchange.state.status = response.status.as_u16();
        if exchange.filters_body && !is_head {
            frame(session, response)?;
        }
        Ok(())
    }
}

/// What the next attempt asks of its connection.
const fn wish(exchange: &Exchange) -> Wish {
    if exchange.upgrade {
        return Wish::Http1;
    }
    // Of an answer over HTTP/2 that ends with its head Pingora does not tell that it has ended, so
    // that a filter could not give it a body (as `hollow` does).
    if exchange.http1 || exchange.filters_body {
        return Wish::Http1IfOffered;
    }
    // Pingora sends what it kept of a body before it listens, so that a connection that goes away
    // meanwhile would fail the request for good.
    if exchange.turned_away > 0 {
        return Wish::Single;
    }
    Wish::Any
}

/// How often a request that was turned away unlooked at goes to the same node again.
const MOST_TURNED_AWAY: u8 = 3;

/// The node has said that it did not process the request (RFC 9113 §8.7): its connection goes away,
/// it refuses the stream, or it wants HTTP/1.1. Pingora tells by errors of these kinds alone.
const fn is_unlooked_at(error: &Error) -> bool {
    matches!(error.retry, RetryType::Decided(true))
        && matches!(error.etype, ErrorType::H2Error | ErrorType::H2Downgrade)
}

/// Whether the head says that no byte of a body follows.
fn announces_nothing(response: &ResponseHeader) -> bool {
    response
        .headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length == "0")
}

/// A filter that changes a body takes `Content-Length` away, after Pingora has looked at it.
/// HTTP/2 takes `Transfer-Encoding` away again.
fn frame(session: &Session, response: &mut ResponseHeader) -> Result<()> {
    let unframed = !response.headers.contains_key(header::CONTENT_LENGTH)
        && !response.headers.contains_key(header::TRANSFER_ENCODING);
    let status = response.status.as_u16();
    if !unframed || status < 200 || matches!(status, 204 | 304) {
        return Ok(());
    }
    if session.req_header().version >= Version::HTTP_11 {
        response.set_version(Version::HTTP_11);
        response.insert_header(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        )?;
    }
    Ok(())
}

/// Answers `Expect: 100-continue` ourselves, as nginx does, once nothing but the upstream is left
/// to decide: a client that waits would otherwise wait for an upstream that waits for the body.
pub(super) async fn let_body_come(session: &mut Session) -> Result<()> {
    if !session.req_header().headers.contains_key(header::EXPECT) {
        return Ok(());
    }
    let version = session.req_header().version;
    // HTTP/1.0 knows no interim answers (RFC 9110 §15.2); Pingora sends none over HTTP/2.
    if version == Version::HTTP_11 && !session.is_body_empty() {
        // Pingora takes any answer before the body's end for the last one on the connection.
        let keepalive = session.get_keepalive();
        session.write_continue_response().await?;
        session.set_keepalive(keepalive);
    }
    session.req_header_mut().remove_header(&header::EXPECT);
    Ok(())
}

/// The host the client asked for as a value, shared with the received field where there is one.
fn received_host_value(head: &RequestHeader) -> Option<HeaderValue> {
    match head.headers.get(header::HOST) {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(head.uri.authority()?.as_str()).ok(),
    }
}

/// The host the client asked for, with its port.
pub(super) fn received_host(head: &RequestHeader) -> Option<&str> {
    match head.headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => head.uri.authority().map(http::uri::Authority::as_str),
    }
}

fn address_value(address: IpAddr) -> HeaderValue {
    use std::io::Write as _;

    // The longest IPv6 text has 45 bytes; writing them into 48 cannot fail.
    let mut text = [0_u8; 48];
    let mut rest = &mut text[..];
    drop(write!(rest, "{address}"));
    let left = rest.len();
    let length = text.len() - left;
    HeaderValue::from_bytes(&text[..length]).unwrap_or(HeaderValue::from_static("-"))
}
