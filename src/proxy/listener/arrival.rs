//! From an accepted socket to a connection that HTTP can begin on: within one time limit, a look at
//! the first byte on TLS ports, and the handshake. Whatever fails is counted, and said in one line
//! that no scanner can repeat without end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use log::Level;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest as _, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::time::{Sleep, sleep, timeout};

use super::{EdgeParts, Entrance};
use crate::proxy::handshake::Acceptor;
use crate::telemetry::metrics::HandshakeFailure;

/// Makes a connection ready for HTTP; `None` where it was closed instead.
pub(super) async fn begin(
    entrance: &Entrance,
    parts: &EdgeParts,
    stream: Stream,
) -> Option<Stream> {
    let Some(acceptor) = &entrance.tls else {
        return Some(stream);
    };
    // Pingora's listeners make nothing else of a TCP socket.
    let stream = *stream.into_any().downcast::<L4Stream>().ok()?;
    let limit = parts.limits.handshake_timeout;
    let timer = pin!(sleep(limit));
    let arrival = Arrival {
        parts,
        peer: peer_of(&stream),
    };
    let open = parts.handshakes.begin();
    let ended = bounded(limit, timer, arrival.secure(acceptor, stream)).await;
    let failure = match ended.unwrap_or(Ended::Failed(HandshakeFailure::Timeout)) {
        Ended::Secured(stream) => return Some(stream),
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
    Secured(Stream),
    PlainHttp(L4Stream),
    Failed(HandshakeFailure),
}

/// A step under a time limit; `None` when it is over. A limit of zero is none.
async fn bounded<T>(
    limit: Duration,
    timer: Pin<&mut Sleep>,
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
            return Ended::PlainHttp(stream);
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

/// Tells the client in the clear, and lets it read that: a socket closed over bytes that were not
/// read would be reset.
async fn answer_plain_http(mut stream: L4Stream) -> io::Result<()> {
    stream.write_all(PLAIN_HTTP).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES);
    copy(&mut rest, &mut sink()).await.map(drop)
}

fn peer_of(stream: &L4Stream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}

/// For the answer to a plain request, and for how much of the request that is read then.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/html\r\n\
    Content-Length: 147\r\n\
    Connection: close\r\n\r\n\
    <html><head><title>400 Bad Request</title></head><body><h1>400 Bad Request</h1>\
    <p>The plain HTTP request was sent to HTTPS port</p></body></html>\r\n";
