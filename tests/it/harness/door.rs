//! A listening socket with a thread for each connection, until it is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open door. Conversations that began go on when it is dropped.
#[derive(Debug)]
pub struct Door {
    addr: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Door {
    /// Holds the conversation with each client that comes.
    pub fn open(
        listener: TcpListener,
        converse: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let (seen, converse) = (Arc::clone(&closed), Arc::new(converse));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let converse = Arc::clone(&converse);
                std::thread::spawn(move || converse(client));
            }
        });
        Self { addr, closed }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the accept loop, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}
