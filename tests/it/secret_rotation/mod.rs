//! Secrets that change in their manager while the gateway serves: in force within the ttl, without
//! a reload, without a failed request.

mod outages;
mod reads;
mod under_load;
mod values;

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use claviger::tls::dev::{Authority, Issued};
use openssl::x509::X509;
use serde_json::json;

use crate::harness::{
    Behaviour, Connection, Gateway, OpenBao, Relay, Relaying, Upstream, certs, wait_until,
};

const TTL: Duration = Duration::from_secs(2);
/// What a change may take beyond the ttl.
const GRACE: Duration = Duration::from_secs(1);

/// A route per consumer would prove no more: all keys are presented to this one.
fn guarded(upstream: &Upstream) -> String {
    format!(
        r#"
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins: {{ key-auth: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
        upstream.addr
    )
}

fn vault(name: &str, uri: &str, prefix: &str, token: &str, ttl: u64) -> String {
    format!(
        "  - {{ id: vault/{name}, uri: '{uri}', prefix: {prefix}, token: '{token}', \
         ttl: {ttl}, neg_ttl: 1 }}\n"
    )
}

fn consumers(keys: &[(&str, &str)]) -> String {
    let mut yaml = String::from("consumers:\n");
    for (name, key) in keys {
        let _ = writeln!(
            yaml,
            "  - username: {name}\n    plugins: {{ key-auth: {{ key: '{key}' }} }}"
        );
    }
    yaml
}

fn ssl(host: &str, cert: &str, key: &str) -> String {
    format!("ssls:\n  - {{ id: tls, sni: {host}, cert: '{cert}', key: '{key}' }}\n")
}

fn status_with(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("guarded.test", "/", &[("apikey", key)]).status
}

fn der(issued: &Issued) -> Vec<u8> {
    X509::from_pem(issued.cert_pem.as_bytes())
        .unwrap()
        .to_der()
        .unwrap()
}

/// What a client saw, time after time, until it was stopped.
struct Load<T> {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Vec<T>>,
}

impl<T: Send + 'static> Load<T> {
    fn start(mut look: impl FnMut() -> T + Send + 'static) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !until.load(Ordering::Relaxed) {
                seen.push(look());
                // A pace, so that a dozen clients leave the gateway a core.
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { stopped, thread }
    }

    fn stop(self) -> Vec<T> {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client must not fail")
    }
}

/// One keep-alive connection that presents this key; statuses in order.
fn keep_alive(gateway: &Gateway, key: impl Into<String>) -> Load<u16> {
    let (addr, key) = (gateway.http(), key.into());
    let mut connection = Connection::open(addr);
    Load::start(move || {
        connection.request("GET", "/", &[("Host", "guarded.test"), ("apikey", &key)]);
        let reply = connection.expect_reply();
        if reply.header("connection") == Some("close") {
            connection = Connection::open(addr);
        }
        reply.status
    })
}

/// Consecutive equal things once.
fn phases<T: PartialEq>(mut seen: Vec<T>) -> Vec<T> {
    seen.dedup();
    seen
}

/// Every configuration but the first was made for changed secrets.
fn assert_nothing_was_reloaded(gateway: &Gateway) {
    let log = gateway.log();
    assert_eq!(log.matches("trigger=Source").count(), 1, "{log}");
    assert!(log.contains("trigger=Secrets"), "{log}");
}
