//! Addresses of nodes that are named, not numbered. Resolved in the background and refreshed
//! before they expire; a request only reads what is there. A failed refresh keeps the last good
//! addresses, a name that never resolved has none.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use tokio::sync::{Notify, watch};

use crate::clock::Clock;

/// Shortest time between two questions for one name, whatever its record says.
const SHORTEST_VALIDITY: Duration = Duration::from_secs(1);
/// Time until the next question after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Whom to ask, and how long answers hold.
#[derive(Debug, Clone, Default)]
pub struct ResolverConfigured {
    /// `apisix.dns_resolver`; empty asks the system's.
    pub servers: Vec<SocketAddr>,
    /// `apisix.dns_resolver_valid`; `None` takes each record's own lifetime.
    pub valid: Option<Duration>,
    /// `apisix.resolver_timeout`.
    pub timeout: Duration,
    /// `apisix.enable_resolv_search_opt`.
    pub search: bool,
}

/// The addresses of one name.
pub struct HostAddrs {
    name: Box<str>,
    addrs: ArcSwap<Vec<IpAddr>>,
    next: AtomicUsize,
    due: Mutex<Option<Instant>>,
}

impl HostAddrs {
    /// The next address in turn; `None` while the name has none.
    #[must_use]
    pub fn next(&self) -> Option<IpAddr> {
        let addrs = self.addrs.load();
        let position = self.next.fetch_add(1, Ordering::Relaxed);
        addrs.get(position % addrs.len().max(1)).copied()
    }

    fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves and refreshes names while an upstream holds them.
pub struct Resolver {
    config: ResolverConfigured,
    clock: Arc<dyn Clock>,
    hosts: Mutex<HashMap<Box<str>, Weak<HostAddrs>>>,
    client: tokio::sync::OnceCell<Option<TokioResolver>>,
    changed: Notify,
}

impl Resolver {
    /// A resolver that has asked nothing yet.
    #[must_use]
    pub fn new(config: ResolverConfigured, clock: Arc<dyn Clock>) -> Self {
        Self {
            config,
            clock,
            hosts: Mutex::default(),
            client: tokio::sync::OnceCell::new(),
            changed: Notify::new(),
        }
    }

    /// The addresses of `name`, shared by all upstreams that use it. Asked for by
    /// [`Resolver::settle`] or [`Resolver::run`], not here.
    #[must_use]
    pub fn host(&self, name: &str) -> Arc<HostAddrs> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name).and_then(Weak::upgrade) {
            return host;
        }
        let host = Arc::new(HostAddrs {
            name: name.into(),
            addrs: ArcSwap::default(),
            next: AtomicUsize::new(0),
            due: Mutex::new(None),
        });
        hosts.insert(name.into(), Arc::downgrade(&host));
        self.changed.notify_one();
        host
    }

    /// Asks for every name that was never asked for, and waits at most `wait`.
    pub async fn settle(&self, wait: Duration) {
        let new: Vec<_> = self
            .live()
            .into_iter()
            .filter(|host| host.due().is_none())
            .collect();
        let all = futures::future::join_all(new.iter().map(|host| self.refresh(host)));
        if tokio::time::timeout(wait, all).await.is_err() {
            log::warn!(
                "some upstream names are not resolved yet; their nodes are left out until they are"
            );
        }
    }

    /// Refreshes names before their answers expire, until shutdown.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let now = self.clock.now();
            let hosts = self.live();
            let due = hosts
                .iter()
                .filter(|host| host.due().is_none_or(|due| due <= now));
            futures::future::join_all(due.map(|host| self.refresh(host))).await;
            let next = self.live().iter().filter_map(|host| *host.due()).min();
            let pause = next.map_or(Duration::from_secs(3600), |next| {
                next.saturating_duration_since(self.clock.now())
                    .max(SHORTEST_VALIDITY)
            });
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn live(&self) -> Vec<Arc<HostAddrs>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, host| host.strong_count() > 0);
        hosts.values().filter_map(Weak::upgrade).collect()
    }

    async fn refresh(&self, host: &HostAddrs) {
        let client = self.client.get_or_init(|| async { self.connect() }).await;
        let Some(client) = client else {
            *host.due() = Some(self.clock.now() + RETRY_AFTER);
            return;
        };
        match client.lookup_ip(&*host.name).await {
            Ok(answer) => {
                let mut addrs: Vec<IpAddr> = answer.iter().collect();
                addrs.sort_unstable();
                let lifetime = self.config.valid.unwrap_or_else(|| {
                    answer
                        .valid_until()
                        .saturating_duration_since(self.clock.now())
                });
                *host.due() = Some(self.clock.now() + lifetime.max(SHORTEST_VALIDITY));
                if !addrs.is_empty() && **host.addrs.load() != addrs {
                    host.addrs.store(Arc::new(addrs));
                }
            }
            Err(error) => {
                log::warn!("upstream name {} does not resolve: {error}", host.name);
                *host.due() = Some(self.clock.now() + RETRY_AFTER);
            }
        }
    }

    fn connect(&self) -> Option<TokioResolver> {
        let builder = if self.config.servers.is_empty() {
            TokioResolver::builder_tokio()
        } else {
            let servers = self.config.servers.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                server
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            Ok(TokioResolver::builder_with_config(
                config,
                hickory_resolver::net::runtime::TokioRuntimeProvider::default(),
            ))
        };
        let built = builder.and_then(|mut builder| {
            self.tune(builder.options_mut());
            builder.build()
        });
        built
            .inspect_err(|error| {
                log::error!("no DNS resolver: {error}; named upstream nodes stay without addresses")
            })
            .ok()
    }

    fn tune(&self, options: &mut ResolverOpts) {
        if !self.config.timeout.is_zero() {
            options.timeout = self.config.timeout;
        }
        if !self.config.search {
            options.ndots = 0;
        }
    }
}
