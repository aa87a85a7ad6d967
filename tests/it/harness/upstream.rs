//! An upstream that remembers what it got and misbehaves when told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::X509;

use super::door::Door;
use super::wire::{Kind, Message, Reader};

/// What the upstream does with a request it has read whole.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers with this status and body, and keeps the connection.
    Answer(u16, String),
    /// Sends these bytes as they are, and keeps the connection.
    Raw(String),
    /// Sends these bytes as they are, then back whatever comes: a protocol it switched to.
    Switch(String),
    /// Answers 200 with the request's body.
    EchoBody,
    /// A small 200 for the first request of a connection; at the next it closes without a byte.
    OncePerConnection,
    /// Announces a hundred bytes, sends ten, closes.
    CloseMidBody,
    /// Announces chunks, sends one and a half, closes.
    CloseMidChunk,
    /// Sends bytes that are not HTTP, closes.
    Garbage,
    /// Closes without a byte.
    Close,
    /// Reads and says nothing until the gateway gives up.
    Never,
    /// Waits so long, then answers 200.
    Slow(Duration),
}

impl Behaviour {
    /// A small 200.
    pub fn ok() -> Self {
        Self::Answer(200, "hello".to_owned())
    }
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    clients: Mutex<Vec<Option<Vec<u8>>>>,
}

/// A running upstream. It stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _door: Door,
}

impl Upstream {
    /// An upstream in the clear.
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), behaviour)
    }

    /// An upstream in the clear at this address.
    pub fn start_at(addr: SocketAddr, behaviour: Behaviour) -> Self {
        Self::serve(addr, behaviour, None)
    }

    /// An upstream behind TLS, with this certificate chain and key.
    pub fn start_tls(behaviour: Behaviour, cert_pem: &str, key_pem: &[u8]) -> Self {
        Self::start_mtls(behaviour, cert_pem, key_pem, None)
    }

    /// The same; with `client_ca` it takes only clients that have a certificate of that CA.
    pub fn start_mtls(
        behaviour: Behaviour,
        cert_pem: &str,
        key_pem: &[u8],
        client_ca: Option<&str>,
    ) -> Self {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        let mut chain = X509::stack_from_pem(cert_pem.as_bytes())
            .unwrap()
            .into_iter();
        builder.set_certificate(&chain.next().unwrap()).unwrap();
        for issuer in chain {
            builder.add_extra_chain_cert(issuer).unwrap();
        }
        let key = PKey::private_key_from_pem(key_pem).unwrap();
        builder.set_private_key(&key).unwrap();
        if let Some(ca) = client_ca {
            let ca = X509::from_pem(ca.as_bytes()).unwrap();
            builder.cert_store_mut().add_cert(ca).unwrap();
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::serve(anywhere, behaviour, Some(builder.build()))
    }

    fn serve(addr: SocketAddr, behaviour: Behaviour, tls: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            clients: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let door = Door::open(listener, move |client| {
            connection(&serving, client, tls.as_ref());
        });
        Self {
            addr,
            shared,
            _door: door,
        }
    }

    /// Behaves so from the next request on.
    pub fn set(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Requests read whole so far.
    pub fn requests(&self) -> Vec<Message> {
        lock(&self.shared.requests).clone()
    }

    /// Requests read whole since they were taken last.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *lock(&self.shared.requests))
    }

    /// How many requests were read whole so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// The client's certificate, as DER, of each TLS connection so far.
    pub fn client_certificates(&self) -> Vec<Option<Vec<u8>>> {
        lock(&self.shared.clients).clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.shared.requests).clear();
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

fn connection(shared: &Shared, stream: TcpStream, tls: Option<&SslAcceptor>) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(shared, stream),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream) {
                let client = stream.ssl().peer_certificate();
                lock(&shared.clients).push(client.map(|client| client.to_der().unwrap()));
                converse(shared, stream);
            }
        }
    }
}

fn converse(shared: &Shared, mut stream: impl Read + Write) {
    let mut reader = Reader::default();
    let mut first = true;
    while let Ok(Some(request)) = reader.message(&mut stream, Kind::Request) {
        let body = request.body.clone();
        lock(&shared.requests).push(request);
        let behaviour = lock(&shared.behaviour).clone();
        if !respond(&mut stream, behaviour, &body, first) {
            return;
        }
        first = false;
    }
}

/// False where the connection must close.
fn respond(
    stream: &mut (impl Read + Write),
    behaviour: Behaviour,
    received: &[u8],
    first: bool,
) -> bool {
    let last_words: &[u8] = match behaviour {
        Behaviour::Answer(status, body) => return answer(stream, status, body.as_bytes()),
        Behaviour::EchoBody => return answer(stream, 200, received),
        Behaviour::Raw(text) => return send(stream, text.as_bytes()),
        Behaviour::Switch(text) => {
            let mut buffer = [0; 1024];
            let mut alive = send(stream, text.as_bytes());
            while alive {
                let count = stream.read(&mut buffer).unwrap_or(0);
                alive = count > 0 && send(stream, &buffer[..count]);
            }
            return false;
        }
        Behaviour::Slow(delay) => {
            std::thread::sleep(delay);
            return answer(stream, 200, b"late");
        }
        Behaviour::OncePerConnection if first => return answer(stream, 200, b"first"),
        Behaviour::OncePerConnection => b"",
        Behaviour::CloseMidBody => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
        Behaviour::CloseMidChunk => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe"
        }
        Behaviour::Garbage => b"\x16\x03\x01 this is not HTTP\r\n\r\n\0\0\0",
        Behaviour::Close => b"",
        Behaviour::Never => {
            let _ = stream.read(&mut [0; 1]);
            b""
        }
    };
    send(stream, last_words);
    false
}

fn answer(stream: &mut impl Write, status: u16, body: &[u8]) -> bool {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
    send(stream, &[head.as_bytes(), body].concat())
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok() && stream.flush().is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
