//! The listening service: sockets, each with what its connections begin with.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use pingora_core::apps::{HttpServerApp, ServerApp as _};
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service;

use super::{Edge, EdgeParts, Entrance};

/// A listening service that stops accepting when its [`Drain`](crate::proxy::drain::Drain) begins,
/// not when the server says so: by then the drain is over.
///
/// Pingora sees plaintext sockets only. It allows a handshake 60 seconds, a constant, and logs each
/// failure as an error; so handshakes are the edge's own.
pub struct EdgeService<A> {
    name: String,
    app: Arc<A>,
    parts: Arc<EdgeParts>,
    /// One for each call of `listen`, all on this service's runtime.
    listening: Vec<Service<Edge<A>>>,
}

impl<A: HttpServerApp + Send + Sync + 'static> EdgeService<A> {
    /// A service of this name without listeners yet.
    #[must_use]
    pub fn new(name: &str, app: A, parts: EdgeParts) -> Self {
        Self {
            name: name.to_owned(),
            app: Arc::new(app),
            parts: Arc::new(parts),
            listening: Vec::new(),
        }
    }

    /// Listens on these addresses, too. Without effect once started.
    pub fn listen(&mut self, addresses: &[SocketAddr], entrance: Entrance) {
        let edge = Edge {
            app: Arc::clone(&self.app),
            parts: Arc::clone(&self.parts),
            entrance,
        };
        let mut service = Service::new(self.name.clone(), edge);
        for address in addresses {
            service.add_tcp(&address.to_string());
        }
        self.listening.push(service);
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
        let drain = &self.parts.drain;
        drain.listen_begins(fds.clone());
        let stop = drain.watch();
        let ends = self
            .listening
            .iter_mut()
            .map(|service| service.start_service(fds.clone(), stop.clone(), listeners_per_fd));
        join_all(ends).await;
        self.app.cleanup().await;
        drain.listen_ended();
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        let all = self.listening.iter();
        Some(
            all.filter_map(PingoraService::listen_addresses)
                .flatten()
                .collect(),
        )
    }
}
