//! The peer Pingora connects to: timeouts, TLS, and which connections may be shared.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openssl::x509::X509;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::CertKey;

use super::{Picked, Upstream};
use crate::config::resource::{KeepalivePoolConfig, Scheme, TimeoutConfig, UpstreamConfig};

/// TLS material of an upstream, references resolved and parsed.
#[derive(Clone, Default)]
pub struct UpstreamTls {
    /// Whether the node's certificate must verify for the name.
    pub verify: bool,
    /// Trusted CAs instead of the system's.
    pub ca: Option<Arc<Box<[X509]>>>,
    /// Certificate presented to the node.
    pub client: Option<Arc<CertKey>>,
    /// Changes with CA and client certificate, so that connections made under others are not
    /// reused: Pingora's own key leaves the CA out and takes a certificate by its serial only.
    pub identity: u64,
}

/// Why no connection may be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeerError {
    /// Pingora would silently verify nothing without a name.
    #[error(
        "verification needs a server name, and the host sent upstream is an IP address or missing"
    )]
    NoServerName,
}

pub(super) struct Template {
    peer: HttpPeer,
    verify: bool,
}

impl Template {
    pub(super) fn build(
        config: &UpstreamConfig,
        tls: UpstreamTls,
        keepalive: KeepalivePoolConfig,
    ) -> Self {
        let tls_on = config.scheme.is_tls();
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut peer = HttpPeer::new(unspecified, tls_on, String::new());
        peer.options.verify_cert = tls_on && tls.verify;
        peer.options.verify_hostname = tls_on && tls.verify;
        peer.options.alpn = match config.scheme {
            Scheme::Http | Scheme::Https => ALPN::H1,
            Scheme::Grpc | Scheme::Grpcs => ALPN::H2,
        };
        // Pingora's default of one stream a connection would be no multiplexing at all.
        peer.options.max_h2_streams = 100;
        peer.options.idle_timeout =
            Some(keepalive.idle_timeout).filter(|timeout| !timeout.is_zero());
        if keepalive.idle_timeout.is_zero() {
            // Zero means "never idle" to APISIX and "for ever" to Pingora's absent value.
            peer.options.idle_timeout = Some(Duration::from_millis(1));
        }
        let mut key = DefaultHasher::new();
        (tls_on, tls.verify, tls.identity).hash(&mut key);
        matches!(config.scheme, Scheme::Grpc | Scheme::Grpcs).hash(&mut key);
        peer.group_key = key.finish();
        peer.options.ca = tls.ca;
        peer.client_cert_key = tls.client;
        Self {
            peer,
            verify: tls_on && tls.verify,
        }
    }
}

impl Upstream {
    /// The peer for one attempt. `host` is the host being sent, with or without port; it becomes
    /// the server name (`spec/04` §5: an IP address gives none).
    ///
    /// # Errors
    /// Verification is asked for and there is no name to verify.
    pub fn peer(
        &self,
        picked: &Picked,
        host: Option<&str>,
        timeout: Option<TimeoutConfig>,
    ) -> Result<Box<HttpPeer>, PeerError> {
        let mut peer = Box::new(self.template.peer.clone());
        peer._address = PeerAddr::Inet(picked.addr);
        let timeout = timeout.unwrap_or(self.timeout);
        peer.options.connection_timeout = Some(timeout.connect);
        peer.options.total_connection_timeout = Some(timeout.connect);
        peer.options.read_timeout = Some(timeout.read);
        peer.options.write_timeout = Some(timeout.send);
        if self.scheme.is_tls() {
            let name = host
                .map(crate::http::host::without_port)
                .filter(|name| is_name(name));
            match name {
                Some(name) => name.clone_into(&mut peer.sni),
                None if self.template.verify => return Err(PeerError::NoServerName),
                None => {}
            }
        }
        Ok(peer)
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err()
}
