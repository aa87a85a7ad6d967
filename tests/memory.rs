//! What a consumer whose key is a reference costs in memory, and what a certificate does: bytes
//! that live, counted by an allocator, so that neither pages nor what loading needed for a while
//! make a difference. Of certificates most stands in OpenSSL, which has an allocator of its own.

#![expect(
    unsafe_code,
    reason = "an allocator that counts has to be one, and so does the one that OpenSSL is given"
)]
#![expect(
    clippy::print_stderr,
    reason = "what was counted is told, so that a bar can be set anew"
)]

#[path = "memory/certificates.rs"]
mod certificates;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use claviger::clock::{Clock, SystemClock};
use claviger::config::bootstrap::Bootstrap;
use claviger::config::parse::{SharedEnv, parse};
use claviger::reload;
use claviger::secrets::{Secrets, SecretsSettings};
use claviger::server::compile_env;
use claviger::snapshot::compile::compile;
use claviger::snapshot::references::references;
use claviger::telemetry::Metrics;
use serde_json::{Map, Value};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it does what the system's allocator does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const PER_DOCUMENT: usize = 100;
const CONSUMERS: usize = 10_000;
/// The bar that `make bench-secrets` holds the whole program to.
const MOST: usize = 1536;

/// Bytes held for so many consumers: documents, secrets, values and snapshot, as the program
/// holds them.
fn held(consumers: usize) -> usize {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: '{}', ttl: 600 }}\n\
         routes:\n  - {{ id: 1, uri: /*, plugins: {{ key-auth: {{}} }}, \
         upstream: {{ nodes: {{ '127.0.0.1:1': 1 }} }} }}\nconsumers:\n",
        folder.path().display()
    );
    for document in 0..consumers / PER_DOCUMENT {
        let mut fields = Map::new();
        for k in 0..PER_DOCUMENT {
            let n = document * PER_DOCUMENT + k;
            fields.insert(format!("k{k}"), Value::from(format!("the-key-of-user-{n}")));
            let _ = writeln!(
                yaml,
                "  - {{ username: c{n}, plugins: {{ key-auth: {{ key: $secret://file/main/d{document}/k{k} }} }} }}"
            );
        }
        write_private(
            &folder.path().join(format!("d{document}.json")),
            &Value::Object(fields).to_string(),
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new("apisix_"));
    let env = compile_env(&Bootstrap::default(), &metrics, &clock).expect("defaults are sound");

    let before = LIVE.load(Relaxed);
    let nothing: SharedEnv = Arc::new(|_| None);
    let documents = parse(&yaml, &"memory.yaml".into(), &nothing).expect("the resources are sound");
    let secrets = Secrets::new(SecretsSettings::default(), Arc::clone(&clock), Arc::new(()));
    assert!(reload::configure(&documents, &secrets, None).is_empty());
    let in_use = references(&documents);
    assert_eq!(in_use.len(), consumers);
    let view = runtime.block_on(secrets.ensure(&in_use, Duration::from_secs(60)));
    drop(in_use);
    let snapshot = compile(&documents, &view, None, &env, SystemTime::UNIX_EPOCH);
    assert_eq!(snapshot.consumers_built, consumers);
    // Readers that were started end before anybody counts.
    runtime.shutdown_timeout(Duration::from_secs(10));
    let held = LIVE.load(Relaxed).saturating_sub(before);
    drop((documents, secrets, view, snapshot));
    held
}

fn write_private(path: &std::path::Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).expect("the file is new");
    file.write_all(text.as_bytes()).expect("there is room");
}

/// One test at a time: what another one takes meanwhile would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // Before either test lets OpenSSL hold anything.
    certificates::count_openssl();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_consumer_with_a_reference_costs_no_more_than_the_bar() {
    let _alone = alone();
    // What is made once in a process is made by now.
    held(PER_DOCUMENT);
    let few = held(PER_DOCUMENT);
    let many = held(CONSUMERS);
    let each = (many - few) / (CONSUMERS - PER_DOCUMENT);
    eprintln!("a consumer takes {each} bytes");
    assert!(each < MOST, "a consumer takes {each} bytes, not {MOST}");
    // A bound that twice the memory would meet is none.
    assert!(each * 2 > MOST, "{each} bytes: the bound is loose");
}
