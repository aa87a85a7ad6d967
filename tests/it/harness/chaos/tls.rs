//! Faults of TLS: false certificates, broken handshakes, broken streams.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::tls::dev::{Authority, Issued};
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

use super::{Fault, Shared, http, reset_on_drop};
use crate::harness::certs;

/// Certificates a proxy can show.
pub struct Faces {
    good: SslAcceptor,
    wrong_authority: SslAcceptor,
    wrong_name: SslAcceptor,
    expired: SslAcceptor,
}

impl Faces {
    /// Certificates for these names by the authority the gateway trusts, and false ones.
    pub fn new(trusted: &Authority, names: &[&str]) -> Self {
        let stranger = Authority::named("An authority nobody trusts").unwrap();
        Self {
            good: acceptor(&certs::server(trusted, names)),
            wrong_authority: acceptor(&certs::server(&stranger, names)),
            wrong_name: acceptor(&certs::server(trusted, &["other.test"])),
            expired: acceptor(&certs::expired(trusted, names)),
        }
    }
}

fn acceptor(issued: &Issued) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let certificate = X509::from_pem(issued.cert_pem.as_bytes()).unwrap();
    builder.set_certificate(&certificate).unwrap();
    let key = PKey::private_key_from_pem(issued.key_pem.expose()).unwrap();
    builder.set_private_key(&key).unwrap();
    builder.build()
}

const HANDSHAKES: &[Fault] = &[
    Fault::WrongAuthority,
    Fault::WrongName,
    Fault::Expired,
    Fault::CutHandshake,
    Fault::NotTls,
    Fault::Stall,
];

/// Speaks TLS itself; requests have their own faults.
pub(super) fn terminate(shared: &Shared, faces: &Faces, stream: TcpStream) {
    // Half of what could go wrong goes wrong in requests.
    let fault = match shared.random(2) {
        0 => shared.draw(HANDSHAKES, |decks| &mut decks.connection),
        _ => Fault::Pass,
    };
    match fault {
        Fault::CutHandshake | Fault::NotTls | Fault::Stall => refuse(shared, stream, fault),
        Fault::Pass => {
            if let Ok(stream) = faces.good.accept(stream) {
                http::converse(shared, stream);
            }
        }
        _ => impersonate(shared, faces, fault, stream),
    }
}

const STREAMS: &[Fault] = &[
    Fault::WrongAuthority,
    Fault::WrongName,
    Fault::Expired,
    Fault::CutHandshake,
    Fault::NotTls,
    Fault::Stall,
    Fault::CutStream,
    Fault::CutStream,
    Fault::Corrupt,
    Fault::Drip,
    Fault::DelayAfter,
];

/// Passes bytes to a manager that speaks TLS.
pub(super) fn tunnel(shared: &Shared, faces: &Faces, stream: TcpStream) {
    let fault = shared.draw(STREAMS, |decks| &mut decks.connection);
    match fault {
        Fault::CutHandshake | Fault::NotTls | Fault::Stall => refuse(shared, stream, fault),
        Fault::WrongAuthority | Fault::WrongName | Fault::Expired => {
            impersonate(shared, faces, fault, stream);
        }
        _ => relay(shared, &stream, fault),
    }
}

/// Shows a false certificate. A client that takes it is served forged values.
fn impersonate(shared: &Shared, faces: &Faces, fault: Fault, stream: TcpStream) {
    let face = match fault {
        Fault::WrongAuthority => &faces.wrong_authority,
        Fault::WrongName => &faces.wrong_name,
        _ => &faces.expired,
    };
    if let Ok(stream) = face.accept(stream) {
        http::forge(shared, stream);
    }
}

/// Ends a handshake without one.
fn refuse(shared: &Shared, mut stream: TcpStream, fault: Fault) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = stream.read(&mut [0; 4096]);
    match fault {
        Fault::NotTls => {
            const WORDS: &[&[u8]] = &[
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
                b"\x15\x03\x03\x00\x02\x02\x28",
                b"\x16\x03\x03\xff\xff\x02\0\0\0",
                b"\x16\x03\x03\x00\x04\x02\xff\xff\xff",
                b"\0\0\0\0\0\0\0\0\0\0",
            ];
            let _ = stream.write_all(WORDS[shared.random(WORDS.len())]);
        }
        Fault::Stall => shared.stall(),
        _ => reset_on_drop(&stream),
    }
}

/// Bytes in both directions, until something befalls them.
fn relay(shared: &Shared, client: &TcpStream, fault: Fault) {
    let Ok(manager) = TcpStream::connect(shared.manager) else {
        return;
    };
    let _ = manager.set_nodelay(true);
    // A connection without a fault ends some time, so that others get theirs.
    let ends = Instant::now() + Duration::from_millis(50) + shared.pause(LONGEST_LIFE);
    let at = shared.random(LONGEST_ANSWER);
    let ended = AtomicBool::new(false);
    let goes_on = || {
        let lives = !(shared.is_storming() && Instant::now() > ends);
        lives && !shared.stopped.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pump(client, &manager, goes_on, |_, _| true);
            ended.store(true, Ordering::Relaxed);
        });
        pump(&manager, client, goes_on, |sent, bytes| match fault {
            Fault::CutStream if sent + bytes.len() > at => {
                let _ = (&mut &*client).write_all(&bytes[..at.saturating_sub(sent)]);
                reset_on_drop(client);
                false
            }
            Fault::Corrupt if sent <= at && at < sent + bytes.len() => {
                bytes[at - sent] ^= 1 << shared.random(8);
                true
            }
            Fault::Drip => {
                std::thread::sleep(Duration::from_millis(250));
                true
            }
            Fault::DelayAfter => {
                std::thread::sleep(shared.pause(Duration::from_millis(900)));
                true
            }
            _ => true,
        });
        ended.store(true, Ordering::Relaxed);
    });
}

/// Passes what comes, as long as `befall` (bytes so far, bytes now) lets it.
fn pump(
    mut from: &TcpStream,
    mut to: &TcpStream,
    goes_on: impl Fn() -> bool,
    mut befall: impl FnMut(usize, &mut [u8]) -> bool,
) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
    let (mut sent, mut buffer) = (0, vec![0; 16 << 10]);
    while goes_on() {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if !befall(sent, &mut buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
                    return;
                }
                sent += count;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// What a connection without a fault may live.
const LONGEST_LIFE: Duration = Duration::from_millis(500);
/// The handshake and some answers stand within so many bytes.
const LONGEST_ANSWER: usize = 5000;
