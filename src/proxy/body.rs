//! The request's body on its way through: bounded, read ahead where a plugin asks for it, held
//! back where one has to look at it later. What was read ahead is sent from our own copy.
//!
//! Pingora sends a body on that was read before the upstream was reached only out of its retry
//! buffer, which takes 64 KiB and starts empty when it is enabled. So of a body of known length
//! all but the tail is read without that buffer; when Pingora then sends the tail, the whole body
//! takes its place, at every attempt. Of a body of unknown length nobody can tell the tail ahead:
//! one that is longer is held back on its way instead.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::ctx::Exchange;
use super::held::{HeldBody, HeldBytes};
use super::{Gateway, ProxySettings, forward, rescue};
use crate::plugins::Response;
use crate::plugins::body::{Ahead, BodyError, PendingCheck, ReadBody};

/// What Pingora's retry buffer takes (`BODY_BUF_LIMIT`).
const RETRY_BUFFER: u64 = 64 << 10;
/// Most bytes that one read of an HTTP/2 body gives: the frame size that we announce.
const H2_FRAME: u64 = 16 << 10;
/// Memory taken at once for a body, whatever length was announced.
const FIRST_ROOM: u64 = 64 << 10;
/// How much of a body held by us has the time of one write.
const SEND_UNIT: u64 = 1 << 20;

/// Reads a session's body for plugins.
pub(super) struct Source<'a> {
    session: &'a mut Session,
    held: &'a mut HeldBody,
    settings: &'a ProxySettings,
}

impl<'a> Source<'a> {
    pub(super) const fn new(
        session: &'a mut Session,
        held: &'a mut HeldBody,
        settings: &'a ProxySettings,
    ) -> Self {
        Self {
            session,
            held,
            settings,
        }
    }

    /// Makes the copy that plugins worked on the session's head.
    pub(super) fn put_back(self, mut head: RequestHeader) {
        if self.held.asked_for {
            head.remove_header(&header::EXPECT);
        }
        *self.session.req_header_mut() = head;
    }

    async fn read_ahead(&mut self, limit: u64) -> std::result::Result<Ahead, BodyError> {
        let declared = declared_length(self.session.req_header());
        if let Some(length) = declared.filter(|length| *length > limit) {
            return Err(BodyError::TooLarge(length));
        }
        if self.session.as_mut().is_body_empty() {
            return Ok(Ahead::Whole(Bytes::new()));
        }
        let asked = forward::let_body_come(self.session).await;
        self.held.asked_for = true;
        asked.map_err(|error| broken(&error))?;
        match declared {
            Some(length) => self.read_declared(length).await,
            None => self.read_undeclared(limit).await,
        }
    }

    async fn read_declared(&mut self, length: u64) -> std::result::Result<Ahead, BodyError> {
        let mut body = BytesMut::with_capacity(room(length));
        let mut tail = 0;
        loop {
            let buffered = length.saturating_sub(body.len() as u64) <= RETRY_BUFFER;
            if buffered {
                self.session.as_mut().enable_retry_buffering();
            }
            let Some(piece) = self.piece().await? else {
                break;
            };
            if buffered {
                tail += piece.len();
            }
            self.hold(&mut body, &piece)?;
        }
        if tail == 0 && !body.is_empty() {
            // It came whole behind a head of more than 64 KiB, in the same read: Pingora would
            // never ask for it.
            return Err(BodyError::Broken(413));
        }
        Ok(Ahead::Whole(body.freeze()))
    }

    async fn read_undeclared(&mut self, limit: u64) -> std::result::Result<Ahead, BodyError> {
        // The last read of an HTTP/2 body may end it, and then it must fit into the buffer.
        let ahead = if self.session.as_ref().is_http2() {
            RETRY_BUFFER - H2_FRAME
        } else {
            RETRY_BUFFER
        };
        self.session.as_mut().enable_retry_buffering();
        let mut body = BytesMut::new();
        while body.len() as u64 <= ahead {
            let Some(piece) = self.piece().await? else {
                return Ok(Ahead::Whole(body.freeze()));
            };
            self.hold(&mut body, &piece)?;
            if body.len() as u64 > limit {
                break;
            }
        }
        let received = body.len() as u64;
        if self.session.as_ref().retry_buffer_truncated() {
            self.held.ahead = body.freeze();
        }
        if received > limit {
            return Err(BodyError::TooLarge(received));
        }
        Ok(Ahead::Later)
    }

    fn hold(&mut self, body: &mut BytesMut, piece: &[u8]) -> std::result::Result<(), BodyError> {
        if !self.held.grow(piece.len(), &self.settings.held_bytes) {
            return Err(BodyError::Broken(503));
        }
        body.extend_from_slice(piece);
        Ok(())
    }

    /// One read. HTTP/2 has no time limit of its own.
    async fn piece(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        let read = self.session.as_mut().read_request_body();
        let read = tokio::time::timeout(self.settings.body_timeout, read).await;
        let piece = read.map_err(|_| BodyError::Broken(408))?;
        let piece = piece.map_err(|error| broken(&error.into_down()))?;
        over_limit(self.session, self.settings).map_err(|_| BodyError::Broken(413))?;
        Ok(piece)
    }
}

impl ReadBody for Source<'_> {
    fn read(&mut self, limit: u64) -> BoxFuture<'_, std::result::Result<Ahead, BodyError>> {
        Box::pin(async move {
            if let Some(outcome) = &self.held.outcome {
                return match outcome {
                    // Too long for whoever asked before. Its end is not there yet.
                    Err(BodyError::TooLarge(received)) if *received <= limit => Ok(Ahead::Later),
                    outcome => outcome.clone(),
                };
            }
            let outcome = self.read_ahead(limit).await;
            let declined = matches!(outcome, Err(BodyError::TooLarge(_)));
            if !(declined && self.session.as_ref().body_bytes_read() == 0) {
                self.held.outcome = Some(outcome.clone());
            }
            outcome
        })
    }
}

impl Gateway {
    /// Reads a small body ahead, for routes that ask for a field of it. A larger one is not
    /// touched, and its fields are absent.
    ///
    /// # Errors
    /// The status to answer: the client did not send what it announced.
    pub(super) async fn read_small_body(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> std::result::Result<(), u16> {
        let declared = declared_length(session.req_header());
        let Some(length) = declared.filter(|length| (1..=RETRY_BUFFER).contains(length)) else {
            return Ok(());
        };
        let mut source = Source::new(session, &mut exchange.held, &self.settings);
        match source.read(length).await {
            Ok(Ahead::Whole(body)) => {
                exchange.state.body = Some(body);
                Ok(())
            }
            Ok(Ahead::Later) => Ok(()),
            Err(BodyError::TooLarge(_)) => Err(413),
            Err(BodyError::Broken(status)) => Err(status),
        }
    }

    /// A piece on its way to the upstream, or what Pingora replays of those read before.
    pub(super) async fn pass_body(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        body: &mut Option<Bytes>,
        end: bool,
    ) -> Result<()> {
        if session.was_upgraded() {
            return Ok(());
        }
        over_limit(session, &self.settings)?;
        let Exchange { state, held, .. } = exchange;
        if let Some(whole) = &state.body {
            if end && !whole.is_empty() {
                *body = Some(whole.clone());
            }
            return Ok(());
        }
        held.add(body);
        if state.body_checks.is_empty() {
            return Ok(());
        }
        let piece = body.take().unwrap_or_default();
        let room = &self.settings.held_bytes;
        match hold_back(&state.body_checks, held, &piece, end, room).await {
            Ok(passed) => {
                *body = Some(passed);
                Ok(())
            }
            Err(refusal) => {
                let status = ErrorType::HTTPStatus(refusal.status);
                exchange.refusal = Some(Box::new(refusal));
                Err(Error::explain(status, "a check refused the body").into_down())
            }
        }
    }
}

/// Keeps a piece until the end, and gives all of them once every check has let them through.
async fn hold_back(
    checks: &[PendingCheck],
    held: &mut HeldBody,
    piece: &[u8],
    end: bool,
    room: &Arc<HeldBytes>,
) -> std::result::Result<Bytes, Response> {
    if !held.grow(piece.len(), room) {
        return Err(Response::status(503));
    }
    held.pieces.extend_from_slice(piece);
    let received = held.pieces.len() as u64;
    if let Some(pending) = checks
        .iter()
        .find(|pending| received > pending.check.limit())
    {
        return Err(pending.answer(pending.check.too_large(received)));
    }
    if !end {
        // `None` would end the body (Pingora).
        return Ok(Bytes::new());
    }
    let body = std::mem::take(&mut held.pieces).freeze();
    for pending in checks {
        let checked = pending.check.check(&body).await;
        checked.map_err(|refusal| pending.answer(refusal))?;
    }
    Ok(body)
}

/// Gives a node as long for each part of a body that is sent in one write as it would have had
/// for the pieces.
pub(super) fn bound_sending(peer: &mut HttpPeer, exchange: &Exchange) {
    let Some(body) = &exchange.state.body else {
        return;
    };
    let units = u32::try_from(body.len() as u64 / SEND_UNIT).unwrap_or(u32::MAX);
    if units > 0
        && let Some(timeout) = &mut peer.options.write_timeout
    {
        *timeout = timeout.saturating_mul(units + 1);
    }
}

fn declared_length(head: &RequestHeader) -> Option<u64> {
    let declared = head.headers.get(header::CONTENT_LENGTH)?;
    declared.to_str().ok()?.parse().ok()
}

fn room(length: u64) -> usize {
    usize::try_from(length.min(FIRST_ROOM)).unwrap_or_default()
}

fn over_limit(session: &Session, settings: &ProxySettings) -> Result<()> {
    let limit = settings.max_body_bytes;
    if limit > 0 && session.as_ref().body_bytes_read() as u64 > limit {
        let status = ErrorType::HTTPStatus(413);
        return Err(Error::explain(status, "request body is over the limit"));
    }
    Ok(())
}

/// A client that leaves before the end of its body gets what nginx would log.
fn broken(error: &Error) -> BodyError {
    BodyError::Broken(match rescue::status_of(error) {
        0 => 400,
        status => status,
    })
}
