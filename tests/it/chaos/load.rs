//! Clients that never stop asking, and check every answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::history::History;
use super::setting::{Place, Use, hex};
use crate::harness::chaos::FORGED;
use crate::harness::client::Reply;
use crate::harness::{Connection, Upstream};

/// What the clients share.
pub struct Load<'a> {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub ca: &'a str,
    pub history: &'a History,
    pub places: &'a [Place],
    pub ended: AtomicBool,
    pub tally: Mutex<Tally>,
}

/// What the answers took: of requests while some read of a manager was stalled, and of others.
#[derive(Debug, Default)]
pub struct Tally {
    pub stalled: Times,
    pub otherwise: Times,
}

/// A bounded summary of durations.
#[derive(Debug, Default)]
pub struct Times {
    pub count: usize,
    pub longest: Duration,
    total: Duration,
}

impl Times {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
        self.longest = self.longest.max(took);
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.count.max(1)).unwrap_or(u32::MAX);
        self.total / count
    }
}

/// Scans of all keys that may be in force, none of which was accepted: more than this in a row
/// cannot be rotations in between.
const MOST_MISSES: usize = 20;
/// A pace, so that the clients leave the gateway a core.
const PACE: Duration = Duration::from_millis(8);

impl Load<'_> {
    fn goes_on(&self) -> bool {
        std::thread::sleep(PACE);
        !self.ended.load(Ordering::Relaxed)
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let stalled = || self.places.iter().any(|place| place.proxy.stalled() > 0);
        let (started, before) = (Instant::now(), stalled());
        let done = work();
        let took = started.elapsed();
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let times = match before && stalled() {
            true => &mut tally.stalled,
            false => &mut tally.otherwise,
        };
        times.add(took);
        done
    }

    /// One request on a connection that is kept; a request without an answer is a finding.
    fn ask(&self, kept: &mut Option<Connection>, host: &str, key: Option<&str>) -> Option<Reply> {
        let connection = kept.get_or_insert_with(|| Connection::open(self.http));
        let mut headers = vec![("Host", host)];
        headers.extend(key.map(|key| ("apikey", key)));
        let reply = self.timed(|| {
            connection.request("GET", "/", &headers);
            connection.reply()
        });
        match reply {
            Ok(Some(reply)) => {
                if reply.header("connection") == Some("close") {
                    *kept = None;
                }
                Some(reply)
            }
            other => {
                let why = other.map(|_| "closed");
                self.history.find(format!("{host}: no answer: {why:?}"));
                *kept = None;
                None
            }
        }
    }

    /// Presents the keys that may be in force, oldest first. One of them must be accepted.
    pub fn present_keys(&self, place: &Place) {
        let (mut kept, mut misses) = (None, 0);
        let name = place.document(Use::Key);
        while self.goes_on() {
            let newest = self.history.newest(&name);
            let oldest = self.history.floor(&name).saturating_sub(1);
            let accepted = (oldest..=newest).find(|number| {
                let key = self.history.text(&name, *number, "key");
                let (floor, started) = (self.history.floor(&name), Instant::now());
                match self.ask(&mut kept, "guarded.test", Some(&key)) {
                    Some(reply) if reply.status == 200 => {
                        self.history.observe(&name, *number, floor, started);
                        true
                    }
                    Some(reply) if reply.status != 401 => {
                        self.history.find(format!("{name}: {}", reply.status));
                        false
                    }
                    _ => false,
                }
            });
            misses = if accepted.is_some() { 0 } else { misses + 1 };
            if misses > MOST_MISSES && !place.is_brief() {
                self.history.find(format!("{name}: no key is accepted"));
                misses = 0;
            }
        }
    }

    /// Reads both fields of a plugin: always one version, never refused while it may be stale.
    pub fn read_fields(&self, place: &Place) {
        let mut kept = None;
        let (name, host) = (place.document(Use::Pair), place.host(Use::Pair));
        while self.goes_on() {
            let (floor, started) = (self.history.floor(&name), Instant::now());
            let Some(reply) = self.ask(&mut kept, &host, None) else {
                continue;
            };
            if reply.status == 503 && place.is_brief() {
                let text = reply.text();
                if text.contains("secret://") || text.contains(&name) {
                    self.history
                        .find(format!("{host}: the refusal says {text}"));
                }
                continue;
            }
            let number = |header: &str, field: &str| {
                let text = reply.header(header).unwrap_or_default();
                self.history.number_of(&name, field, text)
            };
            match (reply.status, number("x-a", "a"), number("x-b", "b")) {
                (200, Some(a), Some(b)) if a == b => {
                    self.history.observe(&name, a, floor, started);
                }
                _ => self.history.find(format!("{host}: {reply:?}")),
            }
        }
    }

    /// Handshakes, which never fail, and the certificate in them.
    pub fn shake_hands(&self, place: &Place) {
        let shown: Vec<Use> = place.uses.iter().copied().filter(Use::is_shown).collect();
        for of in shown.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            let (name, host) = (place.document(*of), place.host(*of));
            let (floor, started) = (self.history.floor(&name), Instant::now());
            match self.timed(|| Connection::open_tls(self.https, &host, self.ca)) {
                Err(error) => self.history.find(format!("{host}: {error}")),
                Ok(connection) => {
                    let der = hex(&connection.certificate());
                    match self.history.number_of(&name, "der", &der) {
                        Some(number) => self.history.observe(&name, number, floor, started),
                        None => self
                            .history
                            .find(format!("{host}: a stranger's certificate")),
                    }
                }
            }
        }
    }

    /// Presents what must never be a key, and one key that always is.
    pub fn intrude(&self) {
        let mut kept = None;
        let mut guesses: Vec<String> = self
            .places
            .iter()
            .map(|place| format!("$secret://{}/key/key", place.id))
            .collect();
        guesses.extend(["", FORGED, "null", "$secret://", "text"].map(str::to_owned));
        for guess in guesses.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            for (key, expected) in [(&**guess, 401), ("steady-key", 200)] {
                match self.ask(&mut kept, "guarded.test", Some(key)) {
                    Some(reply) if reply.status != expected => {
                        self.history.find(format!("{key:?} got {}", reply.status));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Looks at what reached the upstream: a field of a plugin is a version of it, or is not sent.
    pub fn receive(&self, upstream: &Upstream) {
        while self.goes_on() {
            for request in upstream.take() {
                let host = request.header("host").unwrap_or_default();
                let place = self
                    .places
                    .iter()
                    .find(|place| place.host(Use::Pair) == host);
                let Some(place) = place else { continue };
                let (name, text) = (place.document(Use::Pair), request.header("x-up"));
                let known = text.and_then(|text| self.history.number_of(&name, "a", text));
                if known.is_none() {
                    self.history
                        .find(format!("{host}: the upstream got {text:?}"));
                }
            }
        }
    }
}

impl Use {
    /// Whether it is shown in a handshake.
    fn is_shown(&self) -> bool {
        matches!(self, Self::Tls | Self::Split)
    }
}
