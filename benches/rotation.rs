//! One document of 100 keys rotates among 100 000 consumers and 10 000 routes: the view that tells
//! what changed, the snapshot made of it, and the one it replaces freed.

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
use criterion::{Criterion, criterion_group, criterion_main};

const CONSUMERS: usize = 100_000;
const ROUTES: usize = 10_000;
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

criterion_group!(benches, work);
criterion_main!(benches);
