//! What stands between Pingora's accept loop and its HTTP proxy: the limit on connections, what a
//! connection begins with (`arrival`), the deadlines for request heads, and the counting that a
//! graceful stop needs.
//!
//! With HTTP/2 by prior knowledge allowed, Pingora reads 24 bytes before it decides; a request
//! that is shorter (`GET / HTTP/1.0` alone) waits for more and ends at the header deadline.

mod arrival;
mod http2;
mod in_flight;
mod proxied;
mod service;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::tls::ALPN;
use pingora_core::server::ShutdownWatch;

use super::drain::Drain;
use super::handshake::Acceptor;
use super::header_deadline::{self, HeaderDeadline};
pub use super::header_deadline::{header_seen, request_done};
use crate::clock::Clock;
use crate::telemetry::LineBudget;
use crate::telemetry::metrics::{HandshakeCounts, ProxiedCounts};
pub use in_flight::PerAddress;
pub use proxied::ProxySenders;
pub use service::EdgeService;

/// Bounds on what clients may hold open.
#[derive(Debug, Clone, Copy)]
pub struct EdgeLimits {
    /// Connections open at once, over all listeners of one [`Drain`]; the next one is closed.
    /// Zero: no limit.
    pub max_connections: usize,
    /// For the PROXY protocol's header and the TLS handshake together, from the connection's first
    /// moment. Zero: no bound.
    pub handshake_timeout: Duration,
    /// For a whole request head: the first from the moment the connection is ready for it, later
    /// ones from their first byte. Zero: no bound.
    pub client_header_timeout: Duration,
    /// Whether plaintext listeners speak HTTP/2 to clients that begin with its preface. Must
    /// agree with `HttpServerOptions::h2c` of the application.
    pub h2c: bool,
}

impl EdgeLimits {
    fn header_deadline(&self) -> HeaderDeadline {
        HeaderDeadline {
            first: self.client_header_timeout,
            later: self.client_header_timeout,
        }
    }
}

/// What all listeners of a service share.
pub struct EdgeParts {
    /// Bounds.
    pub limits: EdgeLimits,
    /// Counts connections.
    pub drain: Arc<Drain>,
    /// Counts handshakes.
    pub handshakes: Arc<HandshakeCounts>,
    /// Bounds handshakes per client address.
    pub per_address: PerAddress,
    /// Counts headers of the PROXY protocol.
    pub proxied: Arc<ProxiedCounts>,
    /// Bounds the log lines of connections that fail.
    pub lines: Arc<LineBudget>,
    /// Tells how long a handshake took.
    pub clock: Arc<dyn Clock>,
}

/// What the connections of a listener begin with.
#[derive(Clone, Default)]
pub struct Entrance {
    /// A header of the PROXY protocol, from one of these; `None` is no header.
    pub proxied: Option<Arc<ProxySenders>>,
    /// A handshake with this; `None` is plain text.
    pub tls: Option<Arc<Acceptor>>,
}

impl Entrance {
    const fn is_plain(&self) -> bool {
        self.proxied.is_none() && self.tls.is_none()
    }
}

/// An application behind the edge's limits.
struct Edge<A> {
    app: Arc<A>,
    parts: Arc<EdgeParts>,
    entrance: Entrance,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Edge<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let limits = &self.parts.limits;
        let _open = Open::enter(&self.parts.drain, limits.max_connections)?;
        let mut stream = if self.entrance.is_plain() {
            stream
        } else {
            // Apart, so that the connection does not hold its room for as long as it lives.
            Box::pin(arrival::begin(&self.entrance, &self.parts, stream)).await?
        };
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.serve_http2(stream, shutdown).await;
        }
        let connection = async {
            let h2c = limits.h2c && self.entrance.tls.is_none();
            if h2c && http2::begins(&mut stream).await? {
                header_deadline::lift();
                return self.serve_http2(stream, shutdown).await;
            }
            self.app.process_new(stream, shutdown).await
        };
        let outcome = header_deadline::bounded(limits.header_deadline(), connection).await;
        outcome.unwrap_or_else(|| self.count_timeout())
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    async fn serve_http2(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let first = self.parts.limits.client_header_timeout;
        let outcome = http2::serve(Arc::clone(&self.app), first, stream, shutdown).await;
        outcome.unwrap_or_else(|| self.count_timeout())
    }

    fn count_timeout<T>(&self) -> Option<T> {
        let timeouts = &self.parts.drain.counts().header_timeouts;
        timeouts.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// A connection, counted out when dropped.
struct Open<'d>(&'d Drain);

impl<'d> Open<'d> {
    fn enter(drain: &'d Drain, limit: usize) -> Option<Self> {
        // Not `then_some`: that would make one to drop, and count out what was not counted in.
        drain.enter(limit).then(|| Self(drain))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests;
