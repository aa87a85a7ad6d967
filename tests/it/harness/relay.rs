//! Stands between the gateway and a secret manager: counts requests, and answers in the manager's
//! place when told to.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::door::Door;
use super::wire::{Kind, Message, Reader};

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Relaying {
    /// It reaches the manager.
    Pass,
    /// It reaches the manager this much later.
    Late(Duration),
    /// It gets this answer.
    Answer(u16, &'static str),
    /// It gets bytes that are not HTTP.
    Garbage,
    /// It gets nothing, and the connection stays open.
    Never,
    /// The connection is closed.
    Close,
    /// It gets the manager's answer without its last two bytes, and the connection is closed.
    Truncated,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Relaying>,
    paths: Mutex<Vec<String>>,
    answers: Mutex<Vec<u8>>,
}

/// A running relay. It stops when dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _door: Door,
}

impl Relay {
    /// Listens on any port, before a manager at this `http://…` address.
    pub fn start(manager: &str, mode: Relaying) -> Self {
        Self::start_on(0, manager, mode)
    }

    /// The same on this port.
    pub fn start_on(port: u16, manager: &str, mode: Relaying) -> Self {
        let manager: SocketAddr = manager.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(mode),
            paths: Mutex::default(),
            answers: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let door = Door::open(listener, move |client| converse(&serving, client, manager));
        Self {
            addr,
            shared,
            _door: door,
        }
    }

    /// `http://127.0.0.1:port`.
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Does so from the next request on.
    pub fn set(&self, mode: Relaying) {
        *lock(&self.shared.mode) = mode;
    }

    /// Paths asked for so far, in order.
    pub fn paths(&self) -> Vec<String> {
        lock(&self.shared.paths).clone()
    }

    /// All the manager has answered so far.
    pub fn answers(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared.answers)).into_owned()
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.paths).len()
    }
}

fn converse(shared: &Shared, mut client: TcpStream, manager: SocketAddr) {
    let _ = client.set_nodelay(true);
    let mut reader = Reader::default();
    let mut held = Vec::new();
    while let Ok(Some(request)) = reader.message(&mut client, Kind::Request) {
        lock(&shared.paths).push(request.word(1).to_owned());
        let mode = *lock(&shared.mode);
        let answer = match mode {
            Relaying::Pass => forward(&request, manager).inspect(|answer| {
                lock(&shared.answers).extend_from_slice(answer);
            }),
            Relaying::Late(delay) => {
                std::thread::sleep(delay);
                forward(&request, manager)
            }
            Relaying::Answer(status, body) => Some(in_wire_form(status, body.as_bytes())),
            Relaying::Garbage => Some(b"\x16\x03\x01 this is not HTTP\r\n\r\n\0".to_vec()),
            Relaying::Never => {
                held.push(client.try_clone());
                continue;
            }
            Relaying::Close => None,
            Relaying::Truncated => forward(&request, manager).map(|mut answer| {
                // Behind the head, so that it is the body that is cut short.
                answer.truncate(answer.len() - 2);
                answer
            }),
        };
        let sent = answer.is_some_and(|bytes| client.write_all(&bytes).is_ok());
        if !sent || matches!(mode, Relaying::Garbage | Relaying::Truncated) {
            return;
        }
    }
}

/// The manager's answer to the request, as bytes; `None` where there is none.
pub(super) fn forward(request: &Message, manager: SocketAddr) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(manager).ok()?;
    let mut head = format!("{}\r\n", request.start);
    for (name, value) in request
        .headers
        .iter()
        .filter(|(name, _)| name != "connection")
    {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&request.body).ok()?;
    let answer = Reader::default()
        .message(&mut stream, Kind::Answer)
        .ok()??;
    Some(in_wire_form(answer.word(1).parse().ok()?, &answer.body))
}

/// An answer without fields but its length.
pub(super) fn in_wire_form(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
