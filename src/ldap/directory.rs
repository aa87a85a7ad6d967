//! A directory: its address, connections kept for the next question, and bounds on how many are
//! asked at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::LdapError;
use super::connection::Connection;
use super::message::{SUCCESS, Search};
use super::tls::Security;
use crate::clock::Clock;
use crate::secrets::Secret;

/// Questions asked at once. Each takes a connection of its own.
const IN_FLIGHT: usize = 64;
/// Questions that wait for one of those; more are refused at once.
const WAITING: usize = 1024;

/// What a directory is asked with.
pub struct Settings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub security: Security,
    /// How long a question may take: waiting for its turn, connecting, and all answers.
    pub timeout: Duration,
    /// Which connections are kept for the next question; `None` keeps none.
    pub keepalive: Option<Keepalive>,
}

/// Which connections are kept for the next question.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Most of them.
    pub connections: usize,
    /// Older ones are closed instead of used.
    pub idle: Duration,
}

/// How a name becomes an entry.
pub struct Lookup {
    /// Where the search starts.
    pub base: String,
    /// The attribute that holds the name.
    pub attribute: String,
    /// Entries asked for; two are enough to see that a name is not one user's.
    pub size_limit: u32,
    /// Seconds the directory may search; 0 leaves it to the directory.
    pub time_limit_secs: u32,
    /// Who searches; `None` searches without a name.
    pub service: Option<Service>,
}

/// The gateway's own name at a directory.
pub struct Service {
    /// Distinguished name.
    pub name: String,
    /// Its password; not empty.
    pub password: Secret,
}

/// A directory that can be asked.
pub struct Directory {
    settings: Settings,
    clock: Arc<dyn Clock>,
    turns: Semaphore,
    waiting: AtomicUsize,
    /// Carry users' binds, one after the other, and nothing else.
    binds: Pool,
    /// Carry searches by the gateway's own name, and nothing else: no search runs as a user.
    searches: Pool,
    silent: AtomicBool,
}

impl Directory {
    /// A directory nobody has asked yet; nothing is connected.
    #[must_use]
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let (binds, searches) = (Pool::new(settings.keepalive), Pool::new(settings.keepalive));
        Self {
            settings,
            clock,
            turns: Semaphore::new(IN_FLIGHT),
            waiting: AtomicUsize::new(0),
            binds,
            searches,
            silent: AtomicBool::new(false),
        }
    }

    /// Whether the password belongs to the entry of this distinguished name. An empty one never
    /// does, and is not asked for (RFC 4513 §5.1.2).
    ///
    /// # Errors
    /// [`LdapError::Bind`] where the directory says no; else why it said nothing.
    pub async fn verify(&self, name: &str, password: &[u8]) -> Result<(), LdapError> {
        self.asked(self.bind_as(name, password)).await
    }

    /// The distinguished name of the entry that `user` names and the password belongs to.
    ///
    /// # Errors
    /// The directory knows no such user or several, or refuses the password; else why it said
    /// nothing.
    pub async fn find_and_verify(
        &self,
        lookup: &Lookup,
        user: &str,
        password: &[u8],
    ) -> Result<String, LdapError> {
        let found = async {
            let mut names = self.find(lookup, user).await?;
            let name = names.pop().ok_or(LdapError::NoSuchUser)?;
            if !names.is_empty() {
                return Err(LdapError::Ambiguous);
            }
            self.bind_as(&name, password).await?;
            Ok(name)
        };
        self.asked(found).await
    }

    /// Bounds a question in number and time, and tells once when answers end and when they return.
    async fn asked<T>(
        &self,
        question: impl Future<Output = Result<T, LdapError>>,
    ) -> Result<T, LdapError> {
        let result = self.bounded(question).await;
        match &result {
            Err(error) if !error.is_answer() => self.failed(error),
            _ => self.answered(),
        }
        result
    }

    async fn bounded<T>(
        &self,
        question: impl Future<Output = Result<T, LdapError>>,
    ) -> Result<T, LdapError> {
        let place = Waiting::enter(&self.waiting)?;
        let in_turn = async {
            let turn = self.turns.acquire().await;
            drop(place);
            let _turn = turn.map_err(|_| LdapError::Busy)?;
            question.await
        };
        let answer = tokio::time::timeout(self.settings.timeout, in_turn).await;
        answer.unwrap_or(Err(LdapError::Timeout))
    }

    fn failed(&self, error: &LdapError) {
        // Others that were open as long will fail too.
        self.binds.clear();
        self.searches.clear();
        if !self.silent.swap(true, Ordering::Relaxed) {
            let Settings { host, port, .. } = &self.settings;
            let cause = std::error::Error::source(error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            log::warn!("no good answers from the directory {host}:{port}: {error}{cause}");
        }
    }

    fn answered(&self) {
        if self.silent.load(Ordering::Relaxed) && self.silent.swap(false, Ordering::Relaxed) {
            let Settings { host, port, .. } = &self.settings;
            log::warn!("the directory {host}:{port} answers again");
        }
    }

    async fn bind_as(&self, name: &str, password: &[u8]) -> Result<(), LdapError> {
        if name.is_empty() || password.is_empty() {
            return Err(LdapError::Bind(super::INVALID_CREDENTIALS));
        }
        loop {
            let kept = self.binds.take(self.clock.now());
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.bind(name, password).await {
                Ok(code) => {
                    self.binds.put(connection, self.clock.now());
                    return match code {
                        SUCCESS => Ok(()),
                        code => Err(LdapError::Bind(code)),
                    };
                }
                // The directory may close a connection while nobody looks.
                Err(LdapError::Closed(_) | LdapError::Protocol) if was_kept => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn find(&self, lookup: &Lookup, user: &str) -> Result<Vec<String>, LdapError> {
        let search = Search {
            base: &lookup.base,
            attribute: &lookup.attribute,
            value: user.as_bytes(),
            size_limit: lookup.size_limit,
            time_limit_secs: lookup.time_limit_secs,
        };
        loop {
            let kept = self.searches.take(self.clock.now());
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect_as(lookup.service.as_ref()).await?,
            };
            match connection.search(search).await {
                Ok(names) => {
                    self.searches.put(connection, self.clock.now());
                    return Ok(names);
                }
                Err(LdapError::Closed(_) | LdapError::Protocol) if was_kept => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A connection in the gateway's own name. A new one has none yet.
    async fn connect_as(&self, service: Option<&Service>) -> Result<Connection, LdapError> {
        let mut connection = self.connect().await?;
        if let Some(service) = service {
            let password = service.password.expose();
            match connection.bind(&service.name, password).await? {
                SUCCESS => {}
                code => return Err(LdapError::Service(code)),
            }
        }
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, LdapError> {
        let Settings {
            host,
            port,
            security,
            ..
        } = &self.settings;
        Connection::open(host, *port, security).await
    }
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, LdapError> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let place = Self(count);
        if before < WAITING {
            Ok(place)
        } else {
            Err(LdapError::Busy)
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections that wait for the next question. Too old ones are closed when one is taken or
/// given back.
struct Pool {
    keepalive: Option<Keepalive>,
    kept: Mutex<Vec<(Instant, Connection)>>,
}

impl Pool {
    const fn new(keepalive: Option<Keepalive>) -> Self {
        Self {
            keepalive,
            kept: Mutex::new(Vec::new()),
        }
    }

    /// The connection used last.
    fn take(&self, now: Instant) -> Option<Connection> {
        let keepalive = self.keepalive?;
        let mut kept = self.lock();
        forget_old(&mut kept, now, keepalive.idle);
        kept.pop().map(|(_, connection)| connection)
    }

    fn put(&self, connection: Connection, now: Instant) {
        let Some(keepalive) = self.keepalive else {
            return;
        };
        let mut kept = self.lock();
        forget_old(&mut kept, now, keepalive.idle);
        if kept.len() < keepalive.connections {
            kept.push((now, connection));
        }
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_old(kept: &mut Vec<(Instant, Connection)>, now: Instant, idle: Duration) {
    kept.retain(|(since, _)| now.saturating_duration_since(*since) < idle);
}
