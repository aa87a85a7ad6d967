//! A DNS server with records a test may change while it runs.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How long its answers count, in seconds.
const TTL: u32 = 1;
/// Bytes before the question.
const HEADER: usize = 12;
/// Type of an IPv4 address record.
const A: u16 = 1;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

#[derive(Debug, Default)]
struct Shared {
    records: Mutex<HashMap<String, Vec<Ipv4Addr>>>,
    broken: AtomicBool,
    stopped: AtomicBool,
    asked: AtomicUsize,
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Dns {
    /// A server that knows no name.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serve(&socket, &serving));
        Self { addr, shared }
    }

    /// The name has this address from now on.
    pub fn set(&self, name: &str, address: [u8; 4]) {
        let mut records = self.shared.records.lock().unwrap();
        records.insert(name.to_owned(), vec![address.into()]);
    }

    /// Whether every question is answered with an error.
    pub fn set_broken(&self, broken: bool) {
        self.shared.broken.store(broken, Ordering::Relaxed);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread, which then sees the flag.
        let waker = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = waker.send_to(&[], self.addr);
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 512];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        if let Some(answer) = answer(&buffer[..count], shared) {
            shared.asked.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// RFC 1035 §4.1: the question comes back, with what is known.
fn answer(query: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(HEADER..at + 4)?;
    let records = shared.records.lock();
    let records = records.unwrap_or_else(PoisonError::into_inner);
    let known = records.get(&name.join("."));
    let (code, addresses) = match known {
        _ if shared.broken.load(Ordering::Relaxed) => (SERVFAIL, &[][..]),
        None => (NXDOMAIN, &[][..]),
        Some(addresses) if kind == A => (0, addresses.as_slice()),
        Some(_) => (0, &[][..]),
    };
    let mut answer = query[..2].to_vec();
    // An answer, recursion available; one question.
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for address in addresses {
        // A pointer to the name in the question, type A, class IN.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
