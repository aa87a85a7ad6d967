//! Ends one HTTP/2 connection that its requests found spent: Pingora lets a request close an
//! HTTP/1 connection only.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

use crate::plugins::ctx::TlsInfo;

/// Tells one connection to end: gracefully, as when the server stops.
pub(super) struct Ending(watch::Sender<bool>);

impl Ending {
    /// Of a connection that goes on.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// What the connection watches instead of the server's own.
    pub(super) fn watch(&self) -> ShutdownWatch {
        self.0.subscribe()
    }

    /// Ends it when the server stops. Waits for ever.
    pub(super) async fn follow(&self, mut server: ShutdownWatch) -> Infallible {
        let _ = server.changed().await;
        self.0.send_replace(true);
        std::future::pending().await
    }

    /// Ends it once a request of it has found that no further one can be served.
    pub(super) fn if_spent(&self, tls: Option<&TlsInfo>) {
        if tls.is_some_and(|tls| tls.spent.load(Ordering::Relaxed)) {
            self.0.send_replace(true);
        }
    }
}

/// The facts of a request's connection.
pub(super) fn tls_of(session: &ServerSession) -> Option<Arc<TlsInfo>> {
    let digest = session.digest()?.ssl_digest.as_ref()?;
    digest.extension.get::<Arc<TlsInfo>>().cloned()
}
