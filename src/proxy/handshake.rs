//! The TLS handshake: which identity serves the name a client asked for. Reads the current names
//! once per handshake, waits for nothing but the first handshake of a name on demand, and never
//! presents a certificate for a name that no item declares.
//!
//! Everything that depends on the name is decided in OpenSSL's client-hello callback, because
//! only there the protocol range can still change and resumption has not been decided yet. What
//! was decided travels with the connection (`ex_data`); the name OpenSSL reports later is that of
//! the *resumed* session and is not used.

mod accept;
mod acceptor;
mod failure;
mod hello;
mod refused;
mod resumption;
mod staple;

use std::sync::Arc;

use openssl::error::ErrorStack;

use crate::tls::{SessionCache, SniStore, TicketKeys};
pub use acceptor::{Acceptor, SecureStream};
pub use failure::HandshakeError;
pub use refused::RefusedHandshakes;
pub use resumption::{SESSION_BYTES, SESSION_LIFETIME};

/// Where a handshake finds the names in force now.
pub trait CurrentNames: Send + Sync {
    /// The names; called once per handshake, on a worker's thread, so it must not wait.
    fn current(&self) -> Arc<SniStore>;
}

impl<F: Fn() -> Arc<SniStore> + Send + Sync> CurrentNames for F {
    fn current(&self) -> Arc<SniStore> {
        self()
    }
}

/// Settings of the TLS listeners (`apisix.ssl`).
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// OpenSSL cipher list for TLS 1.2 and below; `None` takes Mozilla's intermediate list, which
    /// is APISIX's default. TLS 1.3 suites are not affected.
    pub ciphers: Option<String>,
    /// Keys of session tickets. Default `None` (APISIX `ssl_session_tickets: false`); sessions then
    /// resume from a cache in memory.
    pub tickets: Option<Arc<TicketKeys>>,
    /// Where sessions are kept that resume without a ticket. Default `None`: they do not resume.
    pub sessions: Option<Arc<SessionCache>>,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
    /// Name assumed for clients that send none. `None` refuses them.
    pub fallback_sni: Option<String>,
    /// Whether clients that ask for an unknown name are served as `fallback_sni` too. Default
    /// false (APISIX never does); true presents a certificate the client did not ask for.
    pub fallback_for_unknown: bool,
}

/// Why TLS listeners could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The cipher list names nothing OpenSSL knows.
    #[error("the cipher list has no known cipher")]
    Ciphers(#[source] ErrorStack),
    /// OpenSSL refused.
    #[error("openssl refused the settings")]
    OpenSsl(#[from] ErrorStack),
}

#[cfg(test)]
mod tests;
