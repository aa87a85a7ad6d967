//! Nodes that are asked for by address: what Pingora does not verify is verified here. It turns
//! verification off where no server name is sent, and an address is none (RFC 6066 §3). OpenSSL
//! judges the chain all the same, so what is left is to read its verdict, to look for the address
//! among those the certificate is for, and to send nothing where either fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openssl::sha::Sha256;
use openssl::ssl::SslRef;
use openssl::x509::{X509Ref, X509VerifyResult};
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;

/// Counts connections that proved nothing and stay open, as those over HTTP/2 do: each count is a
/// pool of its own, so that none of them is asked again once the node has a good certificate.
/// Addresses share the counters, at the price of a connection.
#[derive(Clone, Default)]
pub(super) struct Doubts(Arc<[AtomicU64; 16]>);

impl Doubts {
    /// The counter of connections to this address.
    fn about(&self, address: &SocketAddr) -> &AtomicU64 {
        let port = u32::from(address.port());
        let sum = match address.ip() {
            IpAddr::V4(ip) => port.wrapping_add(ip.to_bits()),
            IpAddr::V6(ip) => ip
                .segments()
                .iter()
                .fold(port, |sum, part| sum + u32::from(*part)),
        };
        &self.0[sum as usize % self.0.len()]
    }
}

/// What a handshake has shown of the node's right to its address; stays with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressProof {
    proven: bool,
}

impl AddressProof {
    /// Makes connections of this peer at this address, which is asked for by `ip`, bear a proof.
    pub(super) fn demand(peer: &mut HttpPeer, address: SocketAddr, ip: IpAddr, doubts: &Doubts) {
        let doubt = doubts.about(&address).load(Ordering::Relaxed);
        peer.group_key = group(peer.group_key, ip, doubt);
        let doubts = doubts.clone();
        peer.options.upstream_tls_handshake_complete_hook = Some(Arc::new(move |ssl| {
            let proven = is_proven(ssl, ip);
            if !proven && ssl.selected_alpn_protocol() == Some(b"h2") {
                doubts.about(&address).fetch_add(1, Ordering::Relaxed);
            }
            Some(Arc::new(Self { proven }))
        }));
    }

    /// Whether requests may be sent to this peer over a connection with this digest. To be asked
    /// before anything is sent.
    #[must_use]
    pub fn holds(peer: &HttpPeer, digest: Option<&Digest>) -> bool {
        if !peer.is_tls() || !peer.options.verify_cert || !peer.sni.is_empty() {
            return true;
        }
        digest
            .and_then(|digest| digest.ssl_digest.as_ref())
            .and_then(|tls| tls.extension.get::<Self>())
            .is_some_and(|proof| proof.proven)
    }
}

/// OpenSSL verifies the chain also where its verdict does not end the handshake.
fn is_proven(ssl: &SslRef, ip: IpAddr) -> bool {
    let certificate = ssl.peer_certificate();
    ssl.verify_result() == X509VerifyResult::OK
        && certificate.is_some_and(|certificate| is_for(&certificate, ip))
}

/// RFC 9110 §4.3.5: an address matches an `iPAddress` of the same bytes, and nothing else.
fn is_for(certificate: &X509Ref, ip: IpAddr) -> bool {
    let wanted = |named: &[u8]| match ip {
        IpAddr::V4(ip) => named == ip.octets(),
        IpAddr::V6(ip) => named == ip.octets(),
    };
    let names = certificate.subject_alt_names().into_iter().flatten();
    names
        .filter_map(|name| name.ipaddress().map(wanted))
        .any(|found| found)
}

/// Connections are shared by those that ask for the same address.
fn group(key: u64, ip: IpAddr, doubt: u64) -> u64 {
    let mut digest = Sha256::new();
    digest.update(&key.to_be_bytes());
    digest.update(&doubt.to_be_bytes());
    match ip {
        IpAddr::V4(ip) => digest.update(&ip.octets()),
        IpAddr::V6(ip) => digest.update(&ip.octets()),
    }
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finish()[..8]);
    u64::from_be_bytes(first)
}
