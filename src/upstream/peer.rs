//! Pingora's `HttpPeer` for a picked node: prepared when the upstream is built, completed with
//! address and name per attempt. Two upstreams, or two generations of one, share pooled connections
//! exactly where they trust and present the same: what else differs (timeouts, upgrades) belongs to
//! a request, not to its connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openssl::hash::MessageDigest;
use openssl::sha::Sha256;
use openssl::x509::X509;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{ALPN, H1UpgradePolicy, HttpPeer};
use pingora_core::utils::tls::CertKey;

use super::BuildError;
use crate::config::resource::upstream::KeepalivePoolConfig;
use crate::config::resource::{Scheme, TimeoutConfig};
use crate::http::host::without_port;

/// Resolved TLS material of an upstream.
#[derive(Clone, Default)]
pub struct UpstreamTls {
    /// Whether nodes must prove their name. Off when the configuration does not say (APISIX).
    pub verify: bool,
    /// Trusted CAs; `None` trusts the system's.
    pub ca: Option<Arc<CaType>>,
    /// What we present.
    pub client: Option<Arc<CertKey>>,
}

/// Why there is no peer for a picked node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Pingora turns verification off for an empty server name, so a host that is an address, or
    /// none, cannot be verified.
    #[error("the host to send is no name that a certificate could be verified against")]
    NothingToVerify,
}

/// All of a peer but address and name.
#[derive(Clone)]
pub(super) struct PeerTemplate {
    peer: HttpPeer,
    /// `keepalive_pool.idle_timeout: 0`: each attempt gets a group of its own.
    unpooled: Option<Arc<AtomicU64>>,
}

/// Streams on one HTTP/2 connection to a gRPC node. Pingora's default of 1 would open a connection
/// per call.
const MAX_H2_STREAMS: usize = 128;

impl PeerTemplate {
    pub(super) fn build(
        id: &str,
        scheme: Scheme,
        tls: &UpstreamTls,
        keepalive: &KeepalivePoolConfig,
        timeout: &TimeoutConfig,
    ) -> Result<Self, BuildError> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut peer = HttpPeer::new(nowhere, scheme.is_tls(), String::new());
        peer.options.alpn = match scheme {
            Scheme::Http | Scheme::Https => ALPN::H1,
            Scheme::Grpc | Scheme::Grpcs => ALPN::H2,
        };
        peer.options.max_h2_streams = MAX_H2_STREAMS;
        peer.options.idle_timeout = Some(keepalive.idle_timeout);
        if scheme.is_tls() {
            peer.options.verify_cert = tls.verify;
            peer.options.verify_hostname = tls.verify;
            peer.options.ca.clone_from(&tls.ca);
            peer.client_cert_key.clone_from(&tls.client);
        }
        let unpooled = keepalive.idle_timeout.is_zero();
        peer.group_key = group_key(scheme, tls, unpooled.then_some(id))?;
        let template = Self {
            peer,
            unpooled: unpooled.then(Arc::default),
        };
        Ok(template.with(timeout, false))
    }

    /// The same with other timeouts, and with or without WebSocket.
    pub(super) fn with(&self, timeout: &TimeoutConfig, websocket: bool) -> Self {
        let mut template = self.clone();
        let options = &mut template.peer.options;
        options.connection_timeout = Some(timeout.connect);
        options.total_connection_timeout = Some(timeout.connect);
        options.write_timeout = Some(timeout.send);
        options.read_timeout = Some(timeout.read);
        options.http_upstream_request_policy.h1_upgrade = if websocket {
            H1UpgradePolicy::WebSocketOnly
        } else {
            H1UpgradePolicy::Deny
        };
        template
    }

    /// The peer for this address, when `host` is what the request will carry.
    pub(super) fn peer(&self, address: SocketAddr, host: &str) -> Result<Box<HttpPeer>, PeerError> {
        let mut peer = Box::new(self.peer.clone());
        peer._address = address.into();
        if peer.is_tls() {
            server_name(host).clone_into(&mut peer.sni);
            if peer.sni.is_empty() && peer.options.verify_cert {
                return Err(PeerError::NothingToVerify);
            }
        }
        if let Some(attempts) = &self.unpooled {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            peer.group_key = peer.group_key.wrapping_add(attempt);
        }
        Ok(peer)
    }
}

/// The name to ask a node for: without port, and none for an address (RFC 6066 §3).
fn server_name(host: &str) -> &str {
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return "";
    }
    name
}

/// Digest of what a connection trusts, shows and speaks. Pingora's own key leaves the CA out and
/// takes a client certificate by its serial number alone. `owner` sets an upstream apart that
/// shares with none.
fn group_key(scheme: Scheme, tls: &UpstreamTls, owner: Option<&str>) -> Result<u64, BuildError> {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(owner.unwrap_or_default().as_bytes());
    part(&[scheme as u8, u8::from(tls.verify)]);
    let sha256 = |certificate: &X509| {
        let digest = certificate.digest(MessageDigest::sha256());
        digest.map_err(BuildError::Certificate)
    };
    if let Some(ca) = &tls.ca {
        part(b"ca");
        for certificate in ca.iter() {
            part(&sha256(certificate)?);
        }
    }
    if let Some(client) = &tls.client {
        part(b"client");
        part(&sha256(client.leaf())?);
        for certificate in client.intermediates() {
            part(&sha256(certificate)?);
        }
    }
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finish()[..8]);
    Ok(u64::from_be_bytes(first))
}
