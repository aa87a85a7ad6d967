//! One document of 100 keys rotates among 100 000 consumers and 10 000 routes: the view that tells
//! what changed, the snapshot made of it, and the one it replaces freed. And one certificate among
//! 1 000, its rehearsed handshakes included.

#![expect(
    missing_docs,
    reason = "`criterion_group!` makes a public function without docs"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use claviger::clock::{Clock, SystemClock};
use claviger::config::Documents;
use claviger::config::bootstrap::Bootstrap;
use claviger::config::parse::{SharedEnv, parse};
use claviger::secrets::{Outcome, Resolved, Secret, View};
use claviger::server::compile_env;
use claviger::snapshot::compile::compile;
use claviger::telemetry::Metrics;
use claviger::tls::dev::{Authority, LeafOptions};
use criterion::{Criterion, criterion_group, criterion_main};

const CONSUMERS: usize = 100_000;
const ROUTES: usize = 10_000;
/// Names with a certificate each.
const CERTIFICATES: usize = 1_000;
/// Keys in a document.
const DOCUMENT: usize = 100;

fn reference(n: usize) -> String {
    format!("$secret://vault/main/c/d{}/k{}", n / DOCUMENT, n % DOCUMENT)
}

fn documents() -> Documents {
    let mut text =
        String::from("upstreams:\n  - {id: u, nodes: {\"127.0.0.1:1980\": 1}}\nroutes:\n");
    for n in 0..ROUTES {
        let _ = writeln!(
            text,
            "  - {{id: {n}, host: h{n}.example.com, uri: /*, plugins: {{key-auth: {{}}}}, \
             upstream_id: u}}"
        );
    }
    text.push_str("consumers:\n");
    for n in 0..CONSUMERS {
        let _ = writeln!(
            text,
            "  - {{username: user{n}, plugins: {{key-auth: {{key: {}}}}}}}",
            reference(n)
        );
    }
    let env: SharedEnv = Arc::new(|_| None);
    parse(&text, &"bench.yaml".into(), &env).expect("the resources are sound")
}

/// The keys of these consumers in some generation.
fn keys(consumers: Range<usize>, generation: usize) -> impl Iterator<Item = (Box<str>, Outcome)> {
    consumers.map(move |n| {
        let value = Secret::from(format!("key-{n}-{generation}"));
        let version = (generation * CONSUMERS + n + 1) as u64;
        (reference(n).into(), Ok(Resolved::new(&value, version)))
    })
}

fn pair(n: usize, half: &str) -> String {
    format!("$secret://vault/main/t/n{n}/{half}")
}

fn certificates() -> Documents {
    let mut text = String::from("ssls:\n");
    for n in 0..CERTIFICATES {
        let (cert, key) = (pair(n, "cert"), pair(n, "key"));
        let _ = writeln!(
            text,
            "  - {{id: {n}, sni: n{n}.example.com, cert: {cert}, key: {key}}}"
        );
    }
    let env: SharedEnv = Arc::new(|_| None);
    parse(&text, &"bench.yaml".into(), &env).expect("the resources are sound")
}

/// The pairs of these names in some generation.
fn pairs(
    authority: &Authority,
    names: Range<usize>,
    generation: usize,
) -> impl Iterator<Item = (Box<str>, Outcome)> {
    names.flat_map(move |n| {
        let name = format!("n{n}.example.com");
        let issued = authority.issue(&[&name], &LeafOptions::default());
        let issued = issued.expect("a certificate");
        let version = (generation * CERTIFICATES + n + 1) as u64;
        let value = |half: &str, value: &Secret| {
            let reference = pair(n, half).into();
            (reference, Ok(Resolved::new(value, version)))
        };
        let cert = Secret::from(issued.cert_pem);
        [value("cert", &cert), value("key", &issued.key_pem)]
    })
}

fn certificate(criterion: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new("apisix_"));
    let env = compile_env(&Bootstrap::default(), &metrics, &clock).expect("defaults are sound");
    let now = clock.wall();
    let documents = certificates();
    let authority = Authority::new().expect("an authority");
    let first = View::new(pairs(&authority, 0..CERTIFICATES, 0).collect::<HashMap<_, _>>());
    let rotated = first.with(pairs(&authority, 500..501, 1));

    let mut group = criterion.benchmark_group("rotation");
    group.sample_size(20);
    let mut current = compile(&documents, &first, None, &env, now);
    assert!(current.diagnostics.is_empty());
    let mut turn = false;
    group.bench_function("one-certificate", |bencher| {
        bencher.iter(|| {
            turn = !turn;
            let view = if turn { &rotated } else { &first };
            current = compile(&documents, view, Some(&current), &env, now);
            assert_eq!(current.others_built, 1);
        });
    });
    group.finish();
}

fn work(criterion: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new("apisix_"));
    let env = compile_env(&Bootstrap::default(), &metrics, &clock).expect("defaults are sound");
    let now = SystemTime::UNIX_EPOCH;
    let documents = documents();
    let first = View::new(keys(0..CONSUMERS, 0).collect::<HashMap<_, _>>());
    let rotated = first.with(keys(50_000..50_000 + DOCUMENT, 1));
    assert_eq!(rotated.changed_since(&first).len(), DOCUMENT);

    let mut group = criterion.benchmark_group("rotation");
    group.sample_size(20);
    group.bench_function("what-changed", |bencher| {
        bencher.iter(|| black_box(&rotated).changed_since(black_box(&first)));
    });
    let mut current = compile(&documents, &first, None, &env, now);
    let mut turn = false;
    group.bench_function("one-document", |bencher| {
        bencher.iter(|| {
            turn = !turn;
            let view = if turn { &rotated } else { &first };
            current = compile(&documents, view, Some(&current), &env, now);
            assert_eq!(current.consumers_built, DOCUMENT);
        });
    });
    group.finish();
}

criterion_group!(benches, work, certificate);
criterion_main!(benches);
