//! What stands between Pingora's accept loop and its HTTP proxy: the limit on connections, the
//! deadlines for request heads, a look at the first byte on TLS ports, and the counting that a
//! graceful stop needs.
//!
//! Pingora allows a TLS handshake 60 seconds, a constant that cannot be changed. A client that
//! sends nothing is closed after `client_header_timeout` here; one that drips its handshake stays
//! up to the 60 seconds, and counts against the connection limit from its first moment.
//!
//! With HTTP/2 by prior knowledge allowed, Pingora reads 24 bytes before it decides; a request
//! that is shorter (`GET / HTTP/1.0` alone) waits for more and ends at the header deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::listeners::PreTlsProcess;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::tls::ALPN;
use pingora_core::protocols::{Peek, Shutdown, Stream};
use pingora_core::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service;
use pingora_core::upstreams::peer::{Tracer, Tracing};
use pingora_error::{Error, ErrorType};
use tokio::io::AsyncWriteExt;

use super::drain::Drain;
use super::ending::{self, Ending};
use super::header_deadline::{self, HeaderDeadline};
pub use super::header_deadline::{header_seen, request_done};

/// Bounds on what clients may hold open.
#[derive(Debug, Clone, Copy)]
pub struct EdgeLimits {
    /// Connections open at once, over all listeners of one [`Drain`]; the next one is closed.
    /// Zero: no limit.
    pub max_connections: usize,
    /// For a whole request head (the first from the start of the connection, later ones from
    /// their first byte), and for the first byte of a TLS handshake. Zero: no bound.
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

/// An application behind the edge's limits.
pub struct Edge<A> {
    app: Arc<A>,
    limits: EdgeLimits,
    drain: Arc<Drain>,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Edge<A> {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let tls = stream.get_ssl_digest().is_some();
        // TLS connections were counted in by `Gate`, before their handshake.
        let _open = if tls {
            None
        } else {
            Some(Open::enter(&self.drain, self.limits.max_connections)?)
        };
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.serve_http2(stream, shutdown).await;
        }
        let connection = async {
            if self.limits.h2c && !tls && begins_http2(&mut stream).await? {
                header_deadline::lift();
                return self.serve_http2(stream, shutdown).await;
            }
            self.app.process_new(stream, shutdown).await
        };
        let outcome = header_deadline::bounded(self.limits.header_deadline(), connection).await;
        outcome.unwrap_or_else(|| self.count_timeout())
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Serves an HTTP/2 connection, unless its first request takes too long. Later idleness is
    /// for `HttpServerOptions::h2_idle_timeout` to bound.
    async fn serve_http2(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let connection = Arc::new(Http2 {
            app: self.app.clone(),
            requested: AtomicBool::new(false),
            ending: Ending::new(),
        });
        let watched = connection.ending.watch();
        let first = self.limits.client_header_timeout;
        let expired = async {
            tokio::time::sleep(first).await;
            if first.is_zero() || connection.requested.load(Ordering::Relaxed) {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            outcome = connection.process_new(stream, &watched) => outcome,
            () = expired => self.count_timeout(),
            never = connection.ending.follow(shutdown.clone()) => match never {},
        }
    }

    fn count_timeout<T>(&self) -> Option<T> {
        let timeouts = &self.drain.counts().header_timeouts;
        timeouts.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// One HTTP/2 connection. Its requests run in tasks of their own, which no task-local reaches.
struct Http2<A> {
    app: Arc<A>,
    requested: AtomicBool,
    ending: Ending,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Http2<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.requested.store(true, Ordering::Relaxed);
        let tls = ending::tls_of(&session);
        let reusable = self.app.process_new_http(session, shutdown).await;
        self.ending.if_spent(tls.as_deref());
        reusable
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.app.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.app.server_options()
    }
}

/// A plaintext connection, counted out when dropped.
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

/// Whether the client speaks HTTP/2 by prior knowledge; `None` when it is gone. Waits for the
/// whole preface only where the first byte fits: a short request must not be waited upon.
async fn begins_http2(stream: &mut Stream) -> Option<bool> {
    let mut first = [0; 1];
    if !stream.try_peek(&mut first).await.ok()? || first[0] != HTTP2_PREFACE[0] {
        return Some(false);
    }
    let mut preface = [0; HTTP2_PREFACE.len()];
    let peeked = stream.try_peek(&mut preface).await.ok()?;
    Some(peeked && preface == *HTTP2_PREFACE)
}

/// Looks at connections on TLS ports before their handshake.
struct Gate {
    limits: EdgeLimits,
    drain: Arc<Drain>,
}

#[async_trait]
impl PreTlsProcess for Gate {
    async fn process(&self, stream: &mut L4Stream) -> pingora_error::Result<()> {
        if !self.drain.enter(self.limits.max_connections) {
            return Error::e_explain(REFUSED, "too many connections");
        }
        // Lives and dies with the socket, whatever becomes of the handshake.
        stream.tracer = Some(Tracer(Box::new(Socket(self.drain.clone()))));
        let mut first = [0; 1];
        let peek = stream.try_peek(&mut first);
        let bound = self.limits.client_header_timeout;
        let peeked = if bound.is_zero() {
            peek.await
        } else {
            match tokio::time::timeout(bound, peek).await {
                Ok(peeked) => peeked,
                Err(_) => return Error::e_explain(REFUSED, "no handshake in time"),
            }
        };
        match peeked {
            Ok(_) if first[0].is_ascii_uppercase() => {
                drop(stream.write_all(PLAIN_HTTP).await);
                drop(stream.flush().await);
                Shutdown::shutdown(stream).await;
                Error::e_explain(REFUSED, "plain HTTP request sent to HTTPS port")
            }
            Ok(_) => Ok(()),
            Err(_) => Error::e_explain(REFUSED, "closed before any handshake"),
        }
    }
}

/// Pingora reports the end of the socket it stands on.
#[derive(Clone)]
struct Socket(Arc<Drain>);

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

impl Tracing for Socket {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.leave();
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

/// A listening service that stops accepting when its [`Drain`] begins, not when the server says
/// so: by then the drain is over.
pub struct EdgeService<A> {
    service: Service<Edge<A>>,
    drain: Arc<Drain>,
}

impl<A: HttpServerApp + Send + Sync + 'static> EdgeService<A> {
    /// A service of this name without listeners yet.
    #[must_use]
    pub fn new(name: &str, app: A, limits: EdgeLimits, drain: Arc<Drain>) -> Self {
        let edge = Edge {
            app: Arc::new(app),
            limits,
            drain: drain.clone(),
        };
        let mut service = Service::new(name.to_owned(), edge);
        let gate = Gate {
            limits,
            drain: drain.clone(),
        };
        service.endpoints().set_pre_tls_callback(Arc::new(gate));
        Self { service, drain }
    }

    /// Pingora's service, to add listeners and set threads.
    pub fn service(&mut self) -> &mut Service<Edge<A>> {
        &mut self.service
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> PingoraService for EdgeService<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _server: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        self.drain.listen_begins(fds.clone());
        let stop = self.drain.watch();
        PingoraService::start_service(&mut self.service, fds, stop, listeners_per_fd).await;
        self.drain.listen_ended();
    }

    fn name(&self) -> &str {
        PingoraService::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        PingoraService::threads(&self.service)
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        PingoraService::runtime_opts_override(&self.service, global)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        PingoraService::listen_addresses(&self.service)
    }
}

/// Error type of connections that were refused on purpose, before their handshake.
const REFUSED: ErrorType = ErrorType::Custom("ConnectionRefusedByEdge");

/// RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/html\r\n\
    Content-Length: 147\r\n\
    Connection: close\r\n\r\n\
    <html><head><title>400 Bad Request</title></head><body><h1>400 Bad Request</h1>\
    <p>The plain HTTP request was sent to HTTPS port</p></body></html>\r\n";

#[cfg(test)]
mod tests;
