//! What the process does when it is signalled.
//!
//! | Signal | Does |
//! |---|---|
//! | SIGTERM | drains, then ends |
//! | SIGQUIT | hands the listening sockets to a successor that waits for them, then as SIGTERM |
//! | SIGINT | ends at once |
//! | SIGHUP | reads the configuration and all secrets again |
//! | SIGUSR1 | opens log files again |
//!
//! While it drains, another SIGTERM, SIGINT or SIGQUIT ends it at once. Expects a Pingora server
//! with `grace_period_seconds` 0 and a short `graceful_shutdown_timeout_seconds`, since the
//! waiting is done here ([`super::drain`]).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::drain::Drain;

/// Something to do at a signal. Runs on the server's own thread, so it must be short.
pub type Reaction = Box<dyn Fn() + Send + Sync>;

/// Listens for signals, and drains before it lets Pingora stop.
pub struct Signals {
    /// What is drained.
    pub drain: Arc<Drain>,
    /// How long connections may take to end. APISIX `worker_shutdown_timeout`, 240 s.
    pub drain_timeout: Duration,
    /// Socket at which a successor (`run --upgrade`) waits for our listening sockets.
    pub upgrade_socket: Option<PathBuf>,
    /// Notified when the gateway cannot go on: it ends at once.
    pub failed: Arc<Notify>,
    /// At SIGHUP.
    pub on_reload: Reaction,
    /// At SIGUSR1.
    pub on_reopen: Reaction,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        self.listen().await.unwrap_or_else(|error| {
            log::error!("cannot listen for signals, stopping: {error}");
            ShutdownSignal::FastShutdown
        })
    }
}

impl Signals {
    async fn listen(&self) -> io::Result<ShutdownSignal> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut quit = signal(SignalKind::quit())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut reopen = signal(SignalKind::user_defined1())?;
        let hand_over = loop {
            tokio::select! {
                _ = terminate.recv() => break false,
                _ = quit.recv() => break true,
                () = self.failed.notified() => return Ok(ShutdownSignal::FastShutdown),
                _ = interrupt.recv() => return Ok(ShutdownSignal::FastShutdown),
                _ = hangup.recv() => (self.on_reload)(),
                _ = reopen.recv() => (self.on_reopen)(),
            }
        };
        tokio::select! {
            () = self.stop(hand_over) => Ok(ShutdownSignal::GracefulTerminate),
            () = any_of(&mut terminate, &mut quit, &mut interrupt) => {
                log::warn!("signalled again while draining: stopping at once");
                Ok(ShutdownSignal::FastShutdown)
            }
        }
    }

    async fn stop(&self, hand_over: bool) {
        if hand_over && self.hand_over().await {
            tokio::time::sleep(SUCCESSOR_START).await;
            self.drain.hand_over();
        }
        log::info!(
            "draining: no new connections, at most {:?}",
            self.drain_timeout
        );
        self.drain.begin();
        if self.drain.wait_idle(self.drain_timeout).await {
            log::info!("drained: the last connection has ended");
        } else {
            log::warn!("connections outlived {:?} and are cut", self.drain_timeout);
        }
    }

    /// Whether a successor took the sockets.
    async fn hand_over(&self) -> bool {
        let Some(path) = self.upgrade_socket.clone().filter(|path| path.exists()) else {
            return false;
        };
        let Some(sockets) = self.drain.sockets() else {
            return false;
        };
        // Pingora retries for seconds, blocking.
        let sent = tokio::task::spawn_blocking(move || {
            let path = path.to_string_lossy();
            sockets.lock().send_to_sock(&*path).map_err(io::Error::from)
        });
        match sent
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)))
        {
            Ok(_) => true,
            Err(error) => {
                log::error!("no successor took the listening sockets: {error}");
                false
            }
        }
    }
}

async fn any_of(one: &mut Signal, two: &mut Signal, three: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = two.recv() => {}
        _ = three.recv() => {}
    }
}

/// How long a successor may take from getting the sockets to accepting on them. As Pingora.
const SUCCESSOR_START: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use pingora_core::server::Fds;
    use rustix::process::{Signal as Raise, getpid, kill_process};

    use super::*;

    /// What [`Signals`] answers to a script of signals; one connection is open until `ends`.
    async fn run(script: &[Raise], ends: Option<Duration>) -> (ShutdownSignal, usize, bool) {
        // Listening twice is harmless, and before the first listener a signal would kill us.
        let kinds = [
            SignalKind::terminate(),
            SignalKind::quit(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
        ];
        let _held = kinds.map(|kind| signal(kind).expect("signals"));
        let reactions = Arc::new(AtomicUsize::new(0));
        let react = |by: usize| -> Reaction {
            let reactions = reactions.clone();
            Box::new(move || {
                reactions.fetch_add(by, Ordering::Relaxed);
            })
        };
        let drain = Arc::new(Drain::default());
        assert!(drain.enter(0));
        let signals = Signals {
            drain: drain.clone(),
            drain_timeout: Duration::from_secs(20),
            upgrade_socket: None,
            failed: Arc::default(),
            on_reload: react(1),
            on_reopen: react(10),
        };
        let script = async {
            for &raise in script {
                tokio::time::sleep(Duration::from_millis(100)).await;
                kill_process(getpid(), raise).expect("signal");
            }
            if let Some(ends) = ends {
                tokio::time::sleep(ends).await;
                drain.leave();
            }
        };
        let (outcome, ()) = tokio::join!(signals.recv(), script);
        let draining = drain.is_draining();
        (outcome, reactions.load(Ordering::Relaxed), draining)
    }

    /// One test, since a signal reaches every listener of the process.
    #[test]
    fn each_signal_does_its_own() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let script = [Raise::HUP, Raise::USR1, Raise::INT];
            let (outcome, reactions, draining) = run(&script, None).await;
            assert!(matches!(outcome, ShutdownSignal::FastShutdown));
            assert_eq!((reactions, draining), (11, false));

            for stop in [Raise::TERM, Raise::QUIT] {
                let start = Instant::now();
                let ends = Duration::from_millis(300);
                let (outcome, _, draining) = run(&[stop], Some(ends)).await;
                assert!(matches!(outcome, ShutdownSignal::GracefulTerminate));
                assert!(draining);
                assert!(
                    start.elapsed() < Duration::from_secs(5),
                    "ends with the connection"
                );
            }

            let (outcome, _, _) = run(&[Raise::TERM, Raise::TERM], None).await;
            assert!(matches!(outcome, ShutdownSignal::FastShutdown));
        });
    }

    #[test]
    fn a_successor_gets_the_listening_sockets_and_without_one_nothing_is_sent() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("upgrade.sock");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("bound");
        let mut sockets = Fds::new();
        sockets.add(addr.to_string(), listener.as_raw_fd());
        let drain = Arc::new(Drain::default());
        drain.listen_begins(Some(Arc::new(sockets.into())));
        let signals = Signals {
            drain,
            drain_timeout: Duration::ZERO,
            upgrade_socket: Some(path.clone()),
            failed: Arc::default(),
            on_reload: Box::new(|| {}),
            on_reopen: Box::new(|| {}),
        };
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        assert!(!runtime.block_on(signals.hand_over()), "nobody waits");

        let waits = path.clone();
        let successor = std::thread::spawn(move || {
            let mut sockets = Fds::new();
            let path = waits.to_str().expect("ASCII");
            sockets.get_from_sock(path).expect("sockets");
            sockets.get(&addr.to_string()).is_some()
        });
        while !path.exists() {
            std::thread::yield_now();
        }
        assert!(runtime.block_on(signals.hand_over()));
        assert!(successor.join().expect("successor"));
    }
}
