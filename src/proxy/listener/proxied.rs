//! The PROXY protocol on a connection: who may speak it, its header read, and the addresses in it put
//! in the place of the socket's own, so that everything behind sees the client.

use std::net::{IpAddr, SocketAddr};

use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest as _, SocketDigest, UniqueID as _};
use tokio::io::{AsyncReadExt as _, copy, sink};

use crate::http::proxy_protocol::{
    COMMON_BYTES, Malformed, Told, V1_BYTES, V1_SIGNATURE, V2, V2_ADDRESS_BYTES, V2_FIXED_BYTES,
    V2_SIGNATURE, parse_v1,
};
use crate::ip_set::IpSet;
use crate::telemetry::metrics::ProxiedOutcome;

/// Who may say, in a PROXY protocol header, whom a connection is from.
#[derive(Debug, Clone)]
pub enum ProxySenders {
    /// Whoever reaches the port (APISIX).
    Anybody,
    /// These addresses; others are closed unread.
    Only(IpSet),
}

impl ProxySenders {
    fn trusts(&self, address: IpAddr) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(addresses) => addresses.contains(address.to_canonical()),
        }
    }
}

/// Reads the header off the connection, and sets the connection's ends by it. Bytes behind the
/// header stay where they are.
///
/// # Errors
/// The connection must be closed.
pub(super) async fn receive(
    senders: &ProxySenders,
    stream: &mut L4Stream,
) -> Result<ProxiedOutcome, ProxiedOutcome> {
    let peer = super::arrival::peer_of(stream);
    if !peer.is_some_and(|peer| senders.trusts(peer.ip())) {
        return Err(ProxiedOutcome::Untrusted);
    }
    match read(stream).await? {
        Told::Nothing => Ok(ProxiedOutcome::Direct),
        Told::Ends { client, local } => {
            let digest = SocketDigest::from_raw_fd(stream.id());
            let known = |address: SocketAddr| Some(address.into());
            // Both are empty yet.
            let _ = digest.peer_addr.set(known(client));
            let _ = digest.local_addr.set(known(local));
            stream.set_socket_digest(digest);
            Ok(ProxiedOutcome::Relayed)
        }
    }
}

async fn read(stream: &mut L4Stream) -> Result<Told, ProxiedOutcome> {
    // Small reads are cheap: the stream is buffered.
    let mut head = [0; V1_BYTES];
    fill(stream, &mut head[..COMMON_BYTES]).await?;
    if head.starts_with(V1_SIGNATURE) {
        let mut end = COMMON_BYTES;
        while !head[..end].ends_with(b"\r\n") {
            let next = head.get_mut(end..=end).ok_or(ProxiedOutcome::Malformed)?;
            fill(stream, next).await?;
            end += 1;
        }
        return Ok(parse_v1(&head[..end])?);
    }
    if !head.starts_with(V2_SIGNATURE) {
        return Err(ProxiedOutcome::Malformed);
    }
    fill(stream, &mut head[COMMON_BYTES..V2_FIXED_BYTES]).await?;
    let fixed = head.first_chunk().ok_or(Malformed)?;
    let header = V2::parse(fixed)?;
    if header.follow > MOST_FOLLOWING {
        return Err(ProxiedOutcome::Malformed);
    }
    let mut addresses = [0; V2_ADDRESS_BYTES];
    let addresses = &mut addresses[..header.address_bytes()];
    fill(stream, addresses).await?;
    let extensions = usize::from(header.follow) - addresses.len();
    let skipped = copy(&mut stream.take(extensions as u64), &mut sink()).await;
    if skipped.ok() != Some(extensions as u64) {
        return Err(ProxiedOutcome::Closed);
    }
    Ok(header.addresses(addresses)?)
}

async fn fill(stream: &mut L4Stream, buffer: &mut [u8]) -> Result<(), ProxiedOutcome> {
    let read = stream.read_exact(buffer).await;
    read.map(drop).map_err(|_| ProxiedOutcome::Closed)
}

impl From<Malformed> for ProxiedOutcome {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// As nginx: what a header may hold besides addresses is a few hundred bytes.
const MOST_FOLLOWING: u16 = 4096;
