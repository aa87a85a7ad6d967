//! Addresses of nodes that are named, resolved off the request's path: a request reads what a
//! background task has last found. A failure keeps the last good answer; a name that never
//! resolved has no address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::kept::Kept;

/// Settings of the bootstrap (`dns_resolver*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// Servers; empty takes the system's (`/etc/resolv.conf`).
    pub servers: Vec<SocketAddr>,
    /// How long an answer counts, instead of its records' time to live.
    pub valid: Option<Duration>,
    /// Bound on one question. Default 5 s.
    pub timeout: Duration,
    /// Whether search domains and `ndots` of the system are used. Default true.
    pub search: bool,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            valid: None,
            timeout: Duration::from_secs(5),
            search: true,
        }
    }
}

/// Why there is no resolver, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The system's configuration.
    #[error("cannot set up name resolution")]
    Setup(#[source] hickory_resolver::net::NetError),
    /// A name.
    #[error("name does not resolve")]
    Lookup(#[source] hickory_resolver::net::NetError),
    /// The answer holds no address.
    #[error("name has no address")]
    Empty,
    /// The question took too long.
    #[error("no answer in time")]
    Timeout,
}

/// Addresses of a name, and how long they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Never empty.
    pub addresses: Vec<IpAddr>,
    /// From now.
    pub ttl: Duration,
}

/// Where answers come from; tests have their own.
pub trait Lookup: Send + Sync {
    /// Asks for the addresses of a name.
    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Answer, DnsError>>;
}

/// One name's addresses. Shared by all snapshots that name it.
pub struct HostAddresses {
    host: Box<str>,
    addresses: ArcSwap<Vec<IpAddr>>,
    next: Mutex<Next>,
}

struct Next {
    /// When to ask again; `None` until the first question.
    due: Option<Instant>,
    failures: u32,
}

impl HostAddresses {
    fn new(host: &str) -> Self {
        Self {
            host: host.into(),
            addresses: ArcSwap::default(),
            next: Mutex::new(Next {
                due: None,
                failures: 0,
            }),
        }
    }

    /// What is known now, without waiting; empty where nothing ever was.
    #[must_use]
    pub fn current(&self) -> arc_swap::Guard<Arc<Vec<IpAddr>>> {
        self.addresses.load()
    }

    fn due(&self) -> Option<Instant> {
        lock(&self.next).due
    }

    fn settle(&self, outcome: Result<Answer, DnsError>, valid: Option<Duration>, now: Instant) {
        let mut next = lock(&self.next);
        let wait = match outcome {
            Ok(mut answer) => {
                next.failures = 0;
                answer.addresses.sort_unstable();
                if **self.addresses.load() != answer.addresses {
                    self.addresses.store(Arc::new(answer.addresses));
                }
                let counts = valid.unwrap_or(answer.ttl).clamp(SHORTEST, LONGEST);
                // A tenth early, so that the answer is replaced before it ends.
                counts.mul_f64(0.9)
            }
            Err(error) => {
                next.failures = next.failures.saturating_add(1);
                let kept = !self.addresses.load().is_empty();
                log::warn!(
                    "upstream node {}: {error}, last answer kept: {kept}",
                    self.host
                );
                (SHORTEST * (1 << next.failures.min(5))).min(LONGEST_RETRY)
            }
        };
        next.due = Some(now + wait.mul_f64(rand::random_range(0.9..=1.0)));
    }
}

/// Bounds on how long an answer counts; the upper one also bounds how long a change of
/// `/etc/hosts`, whose entries have no time to live, goes without a look.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Questions under way at once.
const CONCURRENT: usize = 32;

/// Resolves the names of nodes, once at load and then ahead of expiry.
pub struct Resolver {
    lookup: Box<dyn Lookup>,
    config: DnsConfig,
    clock: Arc<dyn Clock>,
    names: Mutex<HashMap<Box<str>, Weak<HostAddresses>>>,
    added: Notify,
}

impl Resolver {
    /// A resolver over the configured servers, or the system's. `/etc/hosts` counts first.
    ///
    /// # Errors
    /// The resolver cannot be set up.
    pub fn build(config: DnsConfig, clock: Arc<dyn Clock>) -> Result<Self, DnsError> {
        let lookup = Hickory::build(&config)?;
        Ok(Self::with_lookup(config, clock, Box::new(lookup)))
    }

    /// A resolver over another source of answers.
    #[must_use]
    pub fn with_lookup(config: DnsConfig, clock: Arc<dyn Clock>, lookup: Box<dyn Lookup>) -> Self {
        Self {
            lookup,
            config,
            clock,
            names: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// The addresses of a name, kept as long as a snapshot uses them. Asks nothing by itself:
    /// [`Self::settle`] or [`Self::run`] do.
    pub fn host(&self, kept: &Kept, host: &str) -> Arc<HostAddresses> {
        let addresses = kept.entry(&format!("dns/{host}"), || HostAddresses::new(host));
        lock(&self.names).insert(host.into(), Arc::downgrade(&addresses));
        self.added.notify_one();
        addresses
    }

    /// Asks for all names that were never asked for, and waits for the answers, at most `bound`.
    /// Called at load, before the snapshot is published.
    pub async fn settle(&self, bound: Duration) {
        let fresh = self.live(|host| host.due().is_none());
        // Names that are late are asked for again by `run`.
        drop(tokio::time::timeout(bound, self.ask(fresh)).await);
    }

    /// Refreshes names ahead of expiry until shutdown.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        while !*shutdown.borrow() {
            tokio::select! {
                () = self.refresh() => {}
                changed = shutdown.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            let next = self
                .live(|_| true)
                .iter()
                .filter_map(|host| host.due())
                .min();
            let wait = next.map_or(LONGEST, |next| {
                next.saturating_duration_since(self.clock.now())
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.added.notified() => {}
                // Without a sender there is nobody left to serve.
                changed = shutdown.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks for all names that are due.
    async fn refresh(&self) {
        let now = self.clock.now();
        self.ask(self.live(|host| host.due().is_none_or(|due| due <= now)))
            .await;
    }

    async fn ask(&self, hosts: Vec<Arc<HostAddresses>>) {
        let answers = futures::stream::iter(hosts).map(|host| async move {
            let asked = tokio::time::timeout(self.config.timeout, self.lookup.lookup(&host.host));
            let outcome = asked.await.unwrap_or(Err(DnsError::Timeout));
            let outcome = outcome.and_then(|answer| {
                if answer.addresses.is_empty() {
                    Err(DnsError::Empty)
                } else {
                    Ok(answer)
                }
            });
            host.settle(outcome, self.config.valid, self.clock.now());
        });
        answers.buffer_unordered(CONCURRENT).collect::<()>().await;
    }

    fn live(&self, which: impl Fn(&HostAddresses) -> bool) -> Vec<Arc<HostAddresses>> {
        let mut names = lock(&self.names);
        names.retain(|_, host| host.strong_count() > 0);
        let live = names.values().filter_map(Weak::upgrade);
        live.filter(|host| which(host)).collect()
    }
}

struct Hickory(TokioResolver);

impl Hickory {
    fn build(config: &DnsConfig) -> Result<Self, DnsError> {
        let system = hickory_resolver::system_conf::read_system_conf();
        let (mut servers, mut options) = match (system, config.servers.is_empty()) {
            (Ok(system), _) => system,
            // Without servers of our own and of the system, only /etc/hosts can answer.
            (Err(_), _) => (
                ResolverConfig::from_parts(None, vec![], vec![]),
                ResolverOpts::default(),
            ),
        };
        if !config.servers.is_empty() {
            let own = config.servers.iter().copied().map(server).collect();
            let (domain, search, _) = servers.into_parts();
            servers = ResolverConfig::from_parts(domain, search, own);
        }
        if !config.search {
            let (_, _, own) = servers.into_parts();
            servers = ResolverConfig::from_parts(None, vec![], own);
        }
        // Refreshing ahead of expiry must ask, not read a cache; we keep the answers ourselves.
        options.cache_size = 0;
        // APISIX's order: IPv6 only for names that have no IPv4 address.
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        options.timeout = config.timeout / 2;
        let builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        let resolver = builder
            .with_options(options)
            .build()
            .map_err(DnsError::Setup)?;
        Ok(Self(resolver))
    }
}

impl Lookup for Hickory {
    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            let found = self.0.lookup_ip(host).await.map_err(DnsError::Lookup)?;
            let ttls = found.as_lookup().answers().iter().map(|record| record.ttl);
            Ok(Answer {
                ttl: Duration::from_secs(ttls.min().unwrap_or(0).into()),
                addresses: found.iter().collect(),
            })
        })
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// Answers from a table that the test may change.
    #[derive(Clone, Default)]
    struct Table(Arc<Mutex<HashMap<String, Vec<IpAddr>>>>);

    impl Table {
        fn set(&self, host: &str, addresses: &[[u8; 4]]) {
            let addresses = addresses.iter().copied().map(IpAddr::from).collect();
            lock(&self.0).insert(host.to_owned(), addresses);
        }
    }

    impl Lookup for Table {
        fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Answer, DnsError>> {
            let known = lock(&self.0).get(host).cloned();
            Box::pin(async move {
                match known {
                    Some(addresses) => Ok(Answer {
                        addresses,
                        ttl: Duration::from_mins(1),
                    }),
                    // A server that never answers.
                    None => futures::future::pending().await,
                }
            })
        }
    }

    fn resolver(table: &Table) -> (Resolver, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        let config = DnsConfig {
            timeout: Duration::from_millis(20),
            ..DnsConfig::default()
        };
        let resolver = Resolver::with_lookup(config, clock.clone(), Box::new(table.clone()));
        (resolver, clock)
    }

    #[tokio::test]
    async fn settling_is_bounded_and_answers_what_it_can() {
        let table = Table::default();
        table.set("a.test", &[[192, 0, 2, 2], [192, 0, 2, 1]]);
        let (resolver, _) = resolver(&table);
        let kept = Kept::new();
        let (good, bad) = (
            resolver.host(&kept, "a.test"),
            resolver.host(&kept, "b.test"),
        );
        resolver.settle(Duration::from_secs(5)).await;
        assert_eq!(good.current().len(), 2);
        assert!(
            bad.current().is_empty(),
            "a name that never resolved has no address"
        );
    }

    #[tokio::test]
    async fn answers_are_refreshed_before_they_end_and_survive_failures() {
        let table = Table::default();
        table.set("a.test", &[[192, 0, 2, 1]]);
        let (resolver, clock) = resolver(&table);
        let kept = Kept::new();
        let host = resolver.host(&kept, "a.test");
        resolver.refresh().await;
        table.set("a.test", &[[192, 0, 2, 9]]);
        resolver.refresh().await;
        assert_eq!(
            host.current()[0],
            IpAddr::from([192, 0, 2, 1]),
            "it is not due yet"
        );
        clock.advance(Duration::from_secs(54));
        resolver.refresh().await;
        assert_eq!(host.current()[0], IpAddr::from([192, 0, 2, 9]));
        for answer in [&[][..], &[[192, 0, 2, 7]]] {
            clock.advance(Duration::from_mins(1));
            table.set("a.test", answer);
            resolver.refresh().await;
            let expected = if answer.is_empty() { 9 } else { 7 };
            assert_eq!(host.current()[0], IpAddr::from([192, 0, 2, expected]));
        }
    }

    #[tokio::test]
    async fn names_nobody_uses_are_forgotten_and_shutdown_ends_the_task() {
        let table = Table::default();
        let (resolver, _) = resolver(&table);
        let kept = Kept::new();
        let first = resolver.host(&kept, "a.test");
        assert!(
            Arc::ptr_eq(&first, &resolver.host(&kept, "a.test")),
            "one name is asked once"
        );
        drop(first);
        assert!(resolver.live(|_| true).is_empty());
        let (stop, stopped) = watch::channel(false);
        stop.send(true).expect("the receiver lives");
        let ran = tokio::time::timeout(Duration::from_secs(5), resolver.run(stopped)).await;
        assert!(ran.is_ok(), "the task ends with shutdown");
    }

    #[tokio::test]
    async fn the_hosts_file_counts() {
        let clock = Arc::new(ManualClock::new());
        let config = DnsConfig {
            servers: vec![SocketAddr::from(([192, 0, 2, 1], 5353))],
            ..DnsConfig::default()
        };
        let resolver = Resolver::build(config, clock).expect("a resolver");
        let host = resolver.host(&Kept::new(), "localhost");
        resolver.settle(Duration::from_secs(5)).await;
        assert!(host.current().iter().all(IpAddr::is_loopback));
        assert!(!host.current().is_empty());
    }
}
