//! The audit log: what happened to secrets and to the configuration, one JSON line each, chained
//! by hashes so that a line cannot be changed, left out or put in unnoticed. Written by a thread
//! of its own, to the disk before the next batch. Whoever records never waits; what cannot be kept
//! is counted, and the log itself says that it is missing. Never receives a secret.

mod chain;
mod file;
mod verify;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::metrics::{Collect, Kind, Page};
use crate::clock::Clock;
use chain::Entry;
use file::AuditFile;

pub use chain::{BadKey, Head, Seal, Text};
pub use verify::{FileReport, Finding, Verdict, VerifyError, verify};

/// A handle to the log; cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do for the writer.
    more: Condvar,
    /// The writer did something.
    done: Condvar,
    clock: Arc<dyn Clock>,
    written: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Entries dropped since the writer last took some.
    dropped: u64,
    /// Look for a rotated file, though there is nothing to write.
    reopen: bool,
    /// Entries recorded, and entries written or given up.
    recorded: u64,
    settled: u64,
    stop: bool,
    /// Why the last attempt to write failed.
    failure: Option<String>,
}

impl Audit {
    /// Opens the file and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn start(path: &Path, seal: Seal, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let file = AuditFile::open(path, seal)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            more: Condvar::new(),
            done: Condvar::new(),
            clock,
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        let running = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || running.write_until_stopped(file))?;
        Ok(Self(shared))
    }

    /// Records an event. Names of fields are the caller's words; texts may be anything but a
    /// secret. Never waits: past 65536 entries that wait for the disk, entries are dropped, and a
    /// line `dropped` says how many.
    pub fn record(&self, event: &'static str, fields: Vec<(&'static str, Text)>) {
        let time = self.0.clock.wall();
        let mut queue = self.0.lock();
        if queue.entries.len() >= MOST_WAITING {
            queue.dropped += 1;
            self.0.dropped.fetch_add(1, Relaxed);
            return;
        }
        queue.recorded += 1;
        queue.entries.push(Entry {
            time,
            event,
            fields,
        });
        drop(queue);
        self.0.more.notify_one();
    }

    /// Looks for a rotated file (SIGUSR1). One is noticed at the next line in any case.
    pub fn reopen(&self) {
        self.0.lock().reopen = true;
        self.0.more.notify_one();
    }

    /// Why lines cannot be written at present.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.lock().failure.clone()
    }

    /// Waits until what was recorded so far is on the disk, but no longer than `limit`; whether
    /// it is.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let queue = self.0.lock();
        let mine = queue.recorded;
        let waited = self
            .0
            .done
            .wait_timeout_while(queue, limit, |queue| queue.settled < mine);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.settled >= mine
    }

    /// Writes what is left and ends the writer, waiting no longer than `limit`; whether all is on
    /// the disk. What is recorded later is lost.
    #[must_use]
    pub fn close(&self, limit: Duration) -> bool {
        self.0.lock().stop = true;
        self.0.more.notify_one();
        self.flush(limit)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_stopped(&self, mut file: AuditFile) {
        loop {
            let (mut batch, reopen, stop) = self.take();
            if reopen && let Err(error) = file.follow_rotation() {
                self.failed(&error);
            }
            while !batch.is_empty() {
                match file.append(&batch, self.clock.wall()) {
                    Ok(_) => {
                        self.settled(batch.len() as u64);
                        batch.clear();
                    }
                    Err(error) => {
                        self.failed(&error);
                        if !self.pause() {
                            return;
                        }
                    }
                }
            }
            if stop {
                return;
            }
        }
    }

    /// Waits for something to do.
    fn take(&self) -> (Vec<Entry>, bool, bool) {
        let idle = |queue: &mut Queue| {
            queue.entries.is_empty() && !queue.reopen && !queue.stop && queue.dropped == 0
        };
        let queue = self.more.wait_while(self.lock(), idle);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        let mut batch = std::mem::take(&mut queue.entries);
        let dropped = std::mem::take(&mut queue.dropped);
        if dropped > 0 {
            // Everything up to here was kept, and everything from here was not.
            queue.recorded += 1;
            batch.push(Entry {
                time: self.clock.wall(),
                event: DROPPED,
                fields: vec![("count", dropped.into())],
            });
        }
        (batch, std::mem::take(&mut queue.reopen), queue.stop)
    }

    fn settled(&self, count: u64) {
        self.written.fetch_add(count, Relaxed);
        let mut queue = self.lock();
        queue.settled += count;
        if queue.failure.take().is_some() {
            log::info!("the audit log can be written again");
        }
        drop(queue);
        self.done.notify_all();
    }

    fn failed(&self, error: &io::Error) {
        self.failures.fetch_add(1, Relaxed);
        if self.lock().failure.replace(error.to_string()).is_none() {
            log::error!("the audit log cannot be written, and is tried again: {error}");
        }
    }

    /// Waits before the next try; false when there is to be none.
    fn pause(&self) -> bool {
        let until = self.clock.now() + RETRY;
        let mut queue = self.lock();
        while !queue.stop {
            let left = until.saturating_duration_since(self.clock.now());
            if left == Duration::ZERO {
                return true;
            }
            let waited = self.more.wait_timeout(queue, left);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        false
    }
}

impl Collect for Audit {
    fn collect(&self, page: &mut Page) {
        for (name, help, counter) in [
            ("events", "Lines of the audit log.", &self.0.written),
            (
                "dropped",
                "Events the audit log could not keep.",
                &self.0.dropped,
            ),
            (
                "failures",
                "Failed writes of the audit log.",
                &self.0.failures,
            ),
        ] {
            page.family(&format!("claviger_audit_{name}_total"), help, Kind::Counter);
            page.integer(&[], counter.load(Relaxed));
        }
    }
}

/// Event of a line in the place of those that could not be kept.
const DROPPED: &str = "dropped";
/// A load of 50 000 secrets at once fits.
const MOST_WAITING: usize = 65_536;
/// Between two tries to write.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
