//! An upstream that remembers what it got and misbehaves when told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

use super::wire::{Kind, Message, Reader};

/// What the upstream does with a request it has read whole.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers with this status and body, and keeps the connection.
    Answer(u16, String),
    /// Sends exactly this, and keeps the connection.
    Raw(String),
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
    stopped: AtomicBool,
}

/// A running upstream. It stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    /// An upstream in the clear.
    pub fn start(behaviour: Behaviour) -> Self {
        Self::serve(behaviour, None)
    }

    /// An upstream behind TLS, with this certificate chain and key.
    pub fn start_tls(behaviour: Behaviour, cert_pem: &str, key_pem: &[u8]) -> Self {
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
        Self::serve(behaviour, Some(builder.build()))
    }

    fn serve(behaviour: Behaviour, tls: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (shared, tls) = (Arc::clone(&accepting), tls.clone());
                std::thread::spawn(move || connection(&shared, stream, tls.as_ref()));
            }
        });
        Self { addr, shared }
    }

    /// Behaves so from the next request on.
    pub fn set(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Requests read whole so far.
    pub fn requests(&self) -> Vec<Message> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests were read whole so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the accept loop, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

fn connection(shared: &Shared, stream: TcpStream, tls: Option<&SslAcceptor>) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(shared, stream),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream) {
                converse(shared, stream);
            }
        }
    }
}

fn converse(shared: &Shared, mut stream: impl Read + Write) {
    let mut reader = Reader::default();
    while let Ok(Some(request)) = reader.message(&mut stream, Kind::Request) {
        lock(&shared.requests).push(request);
        let behaviour = lock(&shared.behaviour).clone();
        if !respond(&mut stream, behaviour) {
            return;
        }
    }
}

/// False where the connection must close.
fn respond(stream: &mut (impl Read + Write), behaviour: Behaviour) -> bool {
    let last_words: &[u8] = match behaviour {
        Behaviour::Answer(status, body) => return answer(stream, status, &body),
        Behaviour::Raw(text) => {
            return stream.write_all(text.as_bytes()).is_ok() && stream.flush().is_ok();
        }
        Behaviour::Slow(delay) => {
            std::thread::sleep(delay);
            return answer(stream, 200, "late");
        }
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
    let _ = stream.write_all(last_words);
    let _ = stream.flush();
    false
}

fn answer(stream: &mut impl Write, status: u16, body: &str) -> bool {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).is_ok() && stream.flush().is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
