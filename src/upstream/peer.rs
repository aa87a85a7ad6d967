//! Pingora's `HttpPeer` for a picked node: prepared when the upstream is built, completed with
//! address and name per attempt. Two upstreams, or two generations of one, share pooled connections
//! exactly where they trust and present the same: what else differs (timeouts, upgrades) belongs to
//! a request, not to its connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openssl::hash::MessageDigest;
use openssl::sha::Sha256;
use openssl::x509::X509;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{ALPN, H1UpgradePolicy, HttpPeer};
use pingora_core::utils::tls::CertKey;

use super::BuildError;
use super::proof::{AddressProof, Doubts};
use crate::config::resource::upstream::{KeepalivePoolConfig, UpstreamAlpn};
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
    /// What is offered in the handshake; `None` is the scheme's.
    pub alpn: Option<UpstreamAlpn>,
}

/// Why there is no peer for a picked node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no host to send, so no certificate could be the right one.
    #[error("there is no host that a certificate could be verified against")]
    NothingToVerify,
}

/// All of a peer but address and name.
#[derive(Clone)]
pub(super) struct PeerTemplate {
    peer: HttpPeer,
    /// Group of the connections that were offered nothing but HTTP/1.1.
    http1_group: u64,
    /// `keepalive_pool.idle_timeout: 0`: each attempt gets a group of its own.
    unpooled: bool,
    /// How many groups were made for one attempt alone.
    single: Arc<AtomicU64>,
    doubts: Doubts,
}

/// What a request asks of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Any will do.
    Any,
    /// HTTP/1.1 where the node may be asked in it.
    Http1IfOffered,
    /// HTTP/1.1: an upgrade.
    Http1,
    /// One that no other request uses, before or after.
    Single,
}

/// Streams on one HTTP/2 connection. Pingora's default of 1 would open a connection per request.
const MAX_H2_STREAMS: usize = 128;

/// What a node may send of one response ahead of its client, so what a slow client can make us
/// hold. Pingora's default is 8 MiB.
const H2_STREAM_WINDOW: u32 = 1 << 20;

/// What a node may send of all responses on a connection: no less than all streams together, since
/// clients that read nothing would otherwise stop those that share the connection with them.
const H2_CONNECTION_WINDOW: u32 = H2_STREAM_WINDOW * MAX_H2_STREAMS as u32;

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
        let alpn = alpn(scheme, tls.alpn);
        peer.options.alpn = alpn.clone();
        peer.options.max_h2_streams = MAX_H2_STREAMS;
        peer.options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
        peer.options.idle_timeout = Some(keepalive.idle_timeout);
        if scheme.is_tls() {
            peer.options.verify_cert = tls.verify;
            peer.options.verify_hostname = tls.verify;
            peer.options.ca.clone_from(&tls.ca);
            peer.client_cert_key.clone_from(&tls.client);
        }
        let unpooled = keepalive.idle_timeout.is_zero();
        let group = |alpn: &ALPN| group_key(scheme, alpn, tls, unpooled.then_some(id));
        peer.group_key = group(&alpn)?;
        let template = Self {
            peer,
            http1_group: group(&ALPN::H1)?,
            unpooled,
            single: Arc::default(),
            doubts: Doubts::default(),
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
    pub(super) fn peer(
        &self,
        address: SocketAddr,
        host: &str,
        wish: Wish,
    ) -> Result<Box<HttpPeer>, PeerError> {
        let mut peer = Box::new(self.peer.clone());
        peer._address = address.into();
        let http1 = match wish {
            Wish::Any | Wish::Single => false,
            Wish::Http1IfOffered => peer.options.alpn == ALPN::H2H1,
            Wish::Http1 => peer.is_tls(),
        };
        if http1 {
            peer.options.alpn = ALPN::H1;
            peer.group_key = self.http1_group;
        }
        if peer.is_tls() {
            match asked_for(host) {
                Some(Asked::Name(name)) => name.clone_into(&mut peer.sni),
                Some(Asked::Address(ip)) if peer.options.verify_cert => {
                    AddressProof::demand(&mut peer, address, ip, &self.doubts);
                }
                None if peer.options.verify_cert => return Err(PeerError::NothingToVerify),
                Some(Asked::Address(_)) | None => {}
            }
        }
        if self.unpooled || wish == Wish::Single {
            let single = self.single.fetch_add(1, Ordering::Relaxed);
            peer.group_key = peer.group_key.wrapping_add(single).wrapping_add(1);
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        Ok(peer)
    }
}

/// What is offered to nodes of this scheme.
const fn alpn(scheme: Scheme, narrowed: Option<UpstreamAlpn>) -> ALPN {
    match (scheme, narrowed) {
        (Scheme::Http, _) | (Scheme::Https, Some(UpstreamAlpn::Http1)) => ALPN::H1,
        (Scheme::Https, None | Some(UpstreamAlpn::Both)) => ALPN::H2H1,
        (Scheme::Https, Some(UpstreamAlpn::Http2)) | (Scheme::Grpc | Scheme::Grpcs, _) => ALPN::H2,
    }
}

/// Whom a node is asked to be.
enum Asked<'a> {
    Name(&'a str),
    /// Not sent as a server name (RFC 6066 §3).
    Address(IpAddr),
}

/// Whom a request with this host asks for; `None` where the host is empty.
fn asked_for(host: &str) -> Option<Asked<'_>> {
    let name = without_port(host);
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(name).parse() {
        return Some(Asked::Address(ip));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty() && !name.starts_with('[')).then_some(Asked::Name(name))
}

/// Digest of what a connection trusts, shows and speaks. Pingora's own key leaves the CA out and
/// takes a client certificate by its serial number alone. `owner` sets an upstream apart that
/// shares with none.
fn group_key(
    scheme: Scheme,
    alpn: &ALPN,
    tls: &UpstreamTls,
    owner: Option<&str>,
) -> Result<u64, BuildError> {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(owner.unwrap_or_default().as_bytes());
    let versions = [alpn.get_min_http_version(), alpn.get_max_http_version()];
    part(&[scheme as u8, u8::from(tls.verify)]);
    part(&versions);
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
