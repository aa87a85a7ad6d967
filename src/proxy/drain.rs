//! Connections counted, and a stop that ends when the last of them does.
//!
//! Pingora alone cannot do that. `Server::main_loop` tells the services to stop accepting only
//! *after* [`ShutdownSignalWatch::recv`] returned; then it sleeps `grace_period_seconds` in full,
//! however idle it is, and `Runtime::shutdown_timeout` cancels every task still running, requests
//! included. So the order here is another one:
//!
//! 1. Listening services are started with a watch of **ours** instead of the server's
//!    ([`super::listener::EdgeService`]). [`Drain::begin`] turns it, inside our `recv`
//!    ([`super::signals::Signals`]): the accept loops end and close their sockets; each service
//!    then calls its application's `cleanup`, by which `HttpProxy` drops keep-alive connections
//!    that wait for a request, and HTTP/2 connections send GOAWAY. The proxy calls
//!    `set_keepalive(None)` where `Session::is_process_shutting_down`, before it writes a response
//!    head, so that running HTTP/1 requests answer with `Connection: close`.
//! 2. [`Drain::wait_idle`] waits for the last connection, or for its bound.
//! 3. Only then `recv` returns, to a server whose grace period is 0: it ends at once, and what
//!    the runtimes cancel is what outlived the bound.
//!
//! [`ShutdownSignalWatch::recv`]: pingora_core::server::ShutdownSignalWatch::recv

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pingora_core::server::{ListenFds, ShutdownWatch};
use tokio::sync::{Notify, watch};

use crate::telemetry::metrics::{ConnectionCounts, Connections};

/// Counts connections and stops them in order.
pub struct Drain {
    connections: Arc<Connections>,
    begun: AtomicBool,
    stop: watch::Sender<bool>,
    /// Never read, so that its clones see a stop that came before they were made.
    stopped: ShutdownWatch,
    handed_over: watch::Sender<bool>,
    listening: AtomicUsize,
    changed: Notify,
    sockets: Mutex<Option<ListenFds>>,
}

impl Drain {
    /// Nothing stopped yet; connections are counted in `connections`.
    #[must_use]
    pub fn new(connections: Arc<Connections>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            connections,
            begun: AtomicBool::new(false),
            stop,
            stopped,
            handed_over: watch::Sender::new(false),
            listening: AtomicUsize::new(0),
            changed: Notify::new(),
            sockets: Mutex::new(None),
        }
    }

    /// The counts, for metrics.
    #[must_use]
    pub fn counts(&self) -> &ConnectionCounts {
        &self.connections.counts
    }

    /// Whether [`Self::begin`] was called: readiness says no from then on.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Stops accepting and asks connections to end. Calling it again changes nothing.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.stop.send_replace(true);
    }

    /// Turns true at [`Self::begin`]; for services that should stop then.
    #[must_use]
    pub fn watch(&self) -> ShutdownWatch {
        self.stopped.clone()
    }

    /// Whether the edge accepts connections: its sockets listen and no stop has begun.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Acquire) > 0
    }

    /// Turns true when a successor has taken the sockets; for services that must not answer in
    /// its place.
    #[must_use]
    pub fn handed_over(&self) -> ShutdownWatch {
        self.handed_over.subscribe()
    }

    /// A successor accepts on the same sockets.
    pub(super) fn hand_over(&self) {
        self.handed_over.send_replace(true);
    }

    /// Waits until no service accepts and no connection is open, at most `bound`. True if so.
    ///
    /// # Cancel safety
    /// Safe: it only watches.
    pub async fn wait_idle(&self, bound: Duration) -> bool {
        let idle = async {
            self.wait_until(|| self.listening.load(Ordering::Acquire) == 0)
                .await;
            // A connection accepted in the very last moment has a task that was not polled yet.
            tokio::time::sleep(SETTLE).await;
            self.wait_until(|| self.counts().active.load(Ordering::Acquire) == 0)
                .await;
        };
        tokio::time::timeout(bound, idle).await.is_ok()
    }

    /// The listening sockets, to hand them to a successor; `None` before anything listens.
    #[must_use]
    pub fn sockets(&self) -> Option<ListenFds> {
        self.lock_sockets().clone()
    }

    /// Counts a connection in, unless `limit` are open already (0: no limit).
    #[must_use]
    pub(super) fn enter(&self, limit: usize) -> bool {
        let open = self.counts().active.fetch_add(1, Ordering::AcqRel);
        self.counts().accepted.fetch_add(1, Ordering::AcqRel);
        if limit > 0 && open >= limit {
            self.leave();
            return false;
        }
        self.counts().handled.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Counts a connection out.
    pub(super) fn leave(&self) {
        if self.counts().active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_waiters();
        }
    }

    /// A service begins to accept; its sockets listen already.
    pub(super) fn listen_begins(&self, sockets: Option<ListenFds>) {
        self.listening.fetch_add(1, Ordering::AcqRel);
        if sockets.is_some() {
            *self.lock_sockets() = sockets;
        }
    }

    /// A service accepts no more.
    pub(super) fn listen_ended(&self) {
        self.listening.fetch_sub(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    async fn wait_until(&self, reached: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listen first, look then: a change in between is not missed.
            changed.as_mut().enable();
            if reached() {
                return;
            }
            changed.await;
        }
    }

    fn lock_sockets(&self) -> std::sync::MutexGuard<'_, Option<ListenFds>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

const SETTLE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_limit_are_not_counted_in() {
        let drain = Drain::default();
        assert!(drain.enter(1));
        assert!(!drain.enter(1));
        drain.leave();
        assert!(drain.enter(1));
        let counts = drain.counts();
        assert_eq!(counts.active.load(Ordering::Relaxed), 1);
        assert_eq!(counts.accepted.load(Ordering::Relaxed), 3);
        assert_eq!(counts.handled.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn waiting_ends_with_the_last_connection_or_at_the_bound() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let drain = Drain::default();
            assert!(drain.enter(0));
            drain.begin();
            assert!(drain.is_draining() && *drain.watch().borrow());
            assert!(!drain.wait_idle(Duration::from_secs(5)).await);
            let (idle, ()) = tokio::join!(drain.wait_idle(Duration::from_secs(5)), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                drain.leave();
            });
            assert!(idle);
        });
    }
}
