//! Stands between the gateway and any server over TCP: counts connections, and holds back what is
//! said when told to.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A running pipe. It stops when dropped.
#[derive(Debug)]
pub struct Pipe {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What the server says is kept back.
    held: AtomicBool,
    server: Mutex<SocketAddr>,
    stopped: AtomicBool,
    connections: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Pipe {
    /// Listens on any port, before this server.
    pub fn start(server: &str) -> Self {
        let server: SocketAddr = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            held: AtomicBool::new(false),
            server: Mutex::new(server),
            stopped: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::Relaxed) {
                    break;
                }
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let server = *accepting.server.lock().unwrap();
                accepting.join(client, server);
            }
        });
        Self { addr, shared }
    }

    /// From now on nothing the server says arrives; or all does, what was kept back included.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    /// New connections lead to this server from now on; those there are stay.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.shared.server.lock().unwrap() = server;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Ends all connections there are.
    pub fn cut(&self) {
        let mut streams = self.shared.streams.lock();
        let streams = streams.as_mut().map_err(|_| ()).unwrap();
        for stream in streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the accept loop, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream, server: SocketAddr) {
        let Ok(server) = TcpStream::connect(server) else {
            return;
        };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.extend(stream.try_clone());
        }
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.pump(from, to, false));
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.pump(server, client, true));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, may_be_held: bool) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while may_be_held && self.held.load(Ordering::Relaxed) {
                if self.stopped.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
