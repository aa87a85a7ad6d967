//! From an accepted socket to a connection that HTTP can begin on, within one time limit: the PROXY
//! protocol's header where the listener expects one; on TLS ports a place among the handshakes of
//! the address, a look at the first byte, and the handshake. Whatever fails is counted, and said in
//! one line that no scanner can repeat without end.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::DerefMut as _;
use std::pin::{Pin, pin};
use std::time::Duration;

use log::Level;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest as _, Stream};
use pingora_timeout::fast_timeout::fast_sleep;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::time::timeout;

use super::{EdgeParts, Entrance, proxied};
use crate::proxy::handshake::{Acceptor, SecureStream};
use crate::telemetry::metrics::{HandshakeFailure, ProxiedOutcome};

/// Makes a connection ready for HTTP; `None` where it was closed instead.
pub(super) async fn begin(
    entrance: &Entrance,
    parts: &EdgeParts,
    stream: Stream,
) -> Option<Stream> {
    // Pingora's listeners make nothing else of a TCP socket.
    let mut stream = *stream.into_any().downcast::<L4Stream>().ok()?;
    let limit = parts.limits.handshake_timeout;
    // Tokio's own would wake its driver with a system call for nearly each connection.
    let mut timer = pin!(fast_sleep(limit));
    if let Some(senders) = &entrance.proxied {
        let received = bounded(
            limit,
            timer.as_mut(),
            proxied::receive(senders, &mut stream),
        )
        .await;
        let received = received.unwrap_or(Err(ProxiedOutcome::Timeout));
        match received {
            Ok(outcome) => parts.proxied.count(outcome),
            Err(outcome) => {
                parts.proxied.count(outcome);
                say_unproxied(parts, peer_of(&stream), outcome);
                return None;
            }
        }
    }
    let Some(acceptor) = &entrance.tls else {
        return Some(Box::new(stream));
    };
    let arrival = Arrival {
        parts,
        peer: peer_of(&stream),
    };
    let address = arrival.peer.map_or(NOWHERE, |peer| peer.ip());
    let Some(_place) = parts.per_address.enter(address) else {
        parts.handshakes.fail(HandshakeFailure::PerAddress);
        arrival.say(Level::Warn, &"the address has too many in flight");
        return None;
    };
    let open = parts.handshakes.begin();
    let ended = bounded(limit, timer.as_mut(), arrival.secure(acceptor, stream)).await;
    let failure = match ended.unwrap_or(Ended::Failed(HandshakeFailure::Timeout)) {
        Ended::Secured(mut stream) => {
            if parts.drain.is_draining() {
                bounded(limit, timer, await_request(&mut stream)).await?;
            }
            return Some(stream);
        }
        Ended::PlainHttp(stream) => {
            drop(open);
            arrival.say(Level::Info, &"plain HTTP request sent to HTTPS port");
            // However it goes.
            let _ = timeout(LINGER, answer_plain_http(stream)).await;
            HandshakeFailure::PlainHttp
        }
        Ended::Failed(failure) => failure,
    };
    if failure == HandshakeFailure::Timeout {
        arrival.say(Level::Info, &"it took too long");
    }
    parts.handshakes.fail(failure);
    None
}

/// How a connection's handshake ended.
enum Ended {
    Secured(Box<SecureStream>),
    PlainHttp(Box<L4Stream>),
    Failed(HandshakeFailure),
}

/// A step under a time limit; `None` when it is over. A limit of zero is none.
async fn bounded<T>(
    limit: Duration,
    timer: Pin<&mut impl Future<Output = ()>>,
    step: impl Future<Output = T>,
) -> Option<T> {
    if limit.is_zero() {
        return Some(step.await);
    }
    tokio::select! {
        biased;
        outcome = step => Some(outcome),
        () = timer => None,
    }
}

/// One connection on its way.
struct Arrival<'p> {
    parts: &'p EdgeParts,
    peer: Option<SocketAddr>,
}

impl Arrival<'_> {
    /// The handshake, from the connection's first byte to its last.
    async fn secure(&self, acceptor: &Acceptor, mut stream: L4Stream) -> Ended {
        let mut first = [0; 1];
        if stream.read_exact(&mut first).await.is_err() {
            // Not worth a line: this is how load balancers look at a port.
            return Ended::Failed(HandshakeFailure::Closed);
        }
        stream.rewind(&first);
        if first[0].is_ascii_uppercase() {
            return Ended::PlainHttp(Box::new(stream));
        }
        let began = self.parts.clock.now();
        match acceptor.handshake(stream).await {
            Ok(stream) => {
                let took = self.parts.clock.now().saturating_duration_since(began);
                let resumed = stream.ssl().session_reused();
                self.parts.handshakes.complete(resumed, took);
                Ended::Secured(Box::new(stream))
            }
            Err(error) => {
                match error.failure {
                    // Said already, with the name.
                    HandshakeFailure::Refused => {}
                    HandshakeFailure::ClientCertificate => self.say(Level::Warn, &error),
                    _ => self.say(Level::Info, &error),
                }
                Ended::Failed(error.failure)
            }
        }
    }

    fn say(&self, level: Level, what: &dyn fmt::Display) {
        if log::log_enabled!(level)
            && let Some(held_back) = self.parts.lines.admit()
        {
            let peer = self
                .peer
                .map_or_else(String::new, |peer| format!(" with {peer}"));
            log::log!(level, "TLS handshake{peer} failed: {what}{held_back}");
        }
    }
}

/// Waits for the first byte of a request, and leaves it where it is. A proxy that stops drops each
/// connection whose request has not come yet; one that was in its handshake could not have sent any.
async fn await_request(stream: &mut SecureStream) {
    // Where it fails, the proxy finds out.
    let _ = Pin::new(stream.deref_mut()).peek(&mut [0; 1]).await;
}

/// Tells the client in the clear, and lets it read that: a socket closed over bytes that were not
/// read would be reset.
async fn answer_plain_http(mut stream: Box<L4Stream>) -> io::Result<()> {
    stream.write_all(PLAIN_HTTP).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES);
    copy(&mut rest, &mut sink()).await.map(drop)
}

/// What became of a connection whose header was not read.
fn say_unproxied(parts: &EdgeParts, peer: Option<SocketAddr>, outcome: ProxiedOutcome) {
    let what = match outcome {
        ProxiedOutcome::Untrusted => "it comes from an address that may not send one",
        ProxiedOutcome::Malformed => "what came is none",
        ProxiedOutcome::Timeout => "it took too long",
        // Not worth a line: this is how load balancers look at a port.
        ProxiedOutcome::Closed | ProxiedOutcome::Relayed | ProxiedOutcome::Direct => return,
    };
    if log::log_enabled!(Level::Warn)
        && let Some(peer) = peer
        && let Some(held_back) = parts.lines.admit()
    {
        log::warn!("no PROXY protocol header from {peer}: {what}{held_back}");
    }
}

/// Who connected: the socket's other end, or whom a PROXY protocol header named.
pub(super) fn peer_of(stream: &L4Stream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}

/// Stands for clients without an address.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// For the answer to a plain request, and for how much of the request that is read then.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/html\r\n\
    Content-Length: 147\r\n\
    Connection: close\r\n\r\n\
    <html><head><title>400 Bad Request</title></head><body><h1>400 Bad Request</h1>\
    <p>The plain HTTP request was sent to HTTPS port</p></body></html>\r\n";
