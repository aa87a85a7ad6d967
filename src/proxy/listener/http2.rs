//! HTTP/2 connections: by prior knowledge, and the bound for their first request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;

use crate::proxy::ending::{self, Ending};

/// Serves an HTTP/2 connection, unless its first request takes too long (zero: no bound): then the
/// outer answer is `None`. Later idleness is for `HttpServerOptions::h2_idle_timeout` to bound.
pub(super) async fn serve<A: HttpServerApp + Send + Sync + 'static>(
    app: Arc<A>,
    first: Duration,
    stream: Stream,
    shutdown: &ShutdownWatch,
) -> Option<Option<Stream>> {
    let connection = Arc::new(Http2 {
        app,
        requested: AtomicBool::new(false),
        ending: Ending::new(),
    });
    let watched = connection.ending.watch();
    let expired = async {
        tokio::time::sleep(first).await;
        if first.is_zero() || connection.requested.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    tokio::select! {
        biased;
        outcome = connection.process_new(stream, &watched) => Some(outcome),
        () = expired => None,
        never = connection.ending.follow(shutdown.clone()) => match never {},
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

/// Whether the client speaks HTTP/2 by prior knowledge; `None` when it is gone. Waits for the
/// whole preface only where the first byte fits: a short request must not be waited upon.
pub(super) async fn begins(stream: &mut Stream) -> Option<bool> {
    let mut first = [0; 1];
    if !stream.try_peek(&mut first).await.ok()? || first[0] != HTTP2_PREFACE[0] {
        return Some(false);
    }
    let mut preface = [0; HTTP2_PREFACE.len()];
    let peeked = stream.try_peek(&mut preface).await.ok()?;
    Some(peeked && preface == *HTTP2_PREFACE)
}

/// RFC 9113 §3.4.
pub(super) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
