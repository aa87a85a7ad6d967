//! The sockets the gateway listens on. All are bound before anything starts: an address that is
//! taken ends the start with a message, where Pingora would panic in a task and leave a process
//! that serves nothing. Each begins to listen with its service, so that clients are not kept
//! waiting while a configuration is still loading.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pingora_core::server::{Fds, ListenFds, RuntimeOpts, ShutdownWatch};
use pingora_core::services::Service;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt,
};
use tokio::sync::Notify;

use super::ServerError;

/// Bound sockets by address, until their services take them.
pub(super) struct Sockets {
    bound: Mutex<BTreeMap<String, OwnedFd>>,
    /// Handed over by the process before, which listened on them already.
    inherited: Mutex<Option<Fds>>,
    failure: Mutex<Option<ServerError>>,
    failed: Arc<Notify>,
}

impl Sockets {
    /// Binds these addresses, except what `inherited` has.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub(super) fn bind(
        addresses: &[(SocketAddr, bool)],
        mut inherited: Option<Fds>,
    ) -> Result<Self, ServerError> {
        if let Some(fds) = &mut inherited {
            let wanted: HashSet<_> = addresses.iter().map(|(a, _)| a.to_string()).collect();
            for address in fds.close_unclaimed(&wanted) {
                log::info!("{address} was handed over and is no longer configured: closed");
            }
        }
        let mut bound = BTreeMap::new();
        for &(address, reuse_port) in addresses {
            let name = address.to_string();
            if inherited
                .as_ref()
                .is_some_and(|fds| fds.get(&name).is_some())
            {
                continue;
            }
            let socket =
                bound_socket(address, reuse_port).map_err(|source| taken(&name, source))?;
            if bound.insert(name.clone(), socket).is_some() {
                return Err(taken(&name, io::ErrorKind::AddrInUse.into()));
            }
        }
        Ok(Self {
            bound: Mutex::new(bound),
            inherited: Mutex::new(inherited),
            failure: Mutex::default(),
            failed: Arc::default(),
        })
    }

    /// Whether every service has begun to listen.
    pub(super) fn all_listen(&self) -> bool {
        lock(&self.bound).is_empty()
    }

    /// Notified when a socket could not listen: the process must end.
    pub(super) fn failed(&self) -> Arc<Notify> {
        Arc::clone(&self.failed)
    }

    /// Why the process must end, if it must.
    pub(super) fn failure(&self) -> Option<ServerError> {
        lock(&self.failure).take()
    }

    /// Begins to listen on these addresses and puts them where Pingora's services look.
    fn listen(&self, addresses: &[String], fds: &ListenFds) -> Result<(), ServerError> {
        let mut fds = fds.lock();
        if let Some(inherited) = lock(&self.inherited).take() {
            let (names, sockets) = inherited.serialize();
            fds.deserialize(names, sockets);
        }
        for address in addresses {
            let Some(socket) = lock(&self.bound).remove(address) else {
                continue;
            };
            listen(&socket, BACKLOG).map_err(|error| taken(address, error.into()))?;
            // Pingora owns it from here on.
            fds.add(address.clone(), socket.into_raw_fd());
        }
        Ok(())
    }

    fn fail(&self, error: ServerError) {
        *lock(&self.failure) = Some(error);
        self.failed.notify_one();
    }
}

/// The listening sockets of the process that gets SIGQUIT.
///
/// # Errors
/// Nobody sent any in time.
pub(super) fn inherit(path: &Path) -> Result<Fds, ServerError> {
    let error = |source| ServerError::Io {
        what: format!("no listening sockets came over {}", path.display()),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    let mut fds = Fds::new();
    let text = path.to_string_lossy();
    fds.get_from_sock(&*text)
        .map_err(|errno| error(errno.into()))?;
    Ok(fds)
}

/// A service whose sockets are ours.
pub(super) struct Bound {
    pub(super) service: Box<dyn Service>,
    pub(super) sockets: Arc<Sockets>,
    /// Stops the service instead of the server's watch, where it should stop at another moment.
    pub(super) stop: Option<ShutdownWatch>,
}

#[async_trait]
impl Service for Bound {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        let addresses = self.service.listen_addresses().unwrap_or_default();
        if let Some(fds) = &fds
            && let Err(error) = self.sockets.listen(&addresses, fds)
        {
            return self.sockets.fail(error);
        }
        let shutdown = self.stop.take().unwrap_or(shutdown);
        self.service
            .start_service(fds, shutdown, listeners_per_fd)
            .await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        self.service.runtime_opts_override(global)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

fn bound_socket(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Connections of the process before may linger in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

fn taken(address: &str, source: io::Error) -> ServerError {
    ServerError::Io {
        what: format!("cannot listen on {address}"),
        source,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As Pingora; the kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 65535;
