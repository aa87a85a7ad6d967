//! From text to snapshot: 10 000 routes and 10 000 consumers read, compiled anew, and compiled
//! again after one route changed; then 100 000 consumers.

#![expect(
    missing_docs,
    reason = "`criterion_group!` makes a public function without docs"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
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

/// Resources of that size; the route `0` answers at `/first`.
fn resources(routes: usize, consumers: usize, first: &str) -> String {
    let mut text =
        String::from("upstreams:\n  - {id: u, nodes: {\"127.0.0.1:1980\": 1}}\nroutes:\n");
    for n in 0..routes {
        let uri = if n == 0 { first } else { "/api" };
        let _ = writeln!(
            text,
            "  - {{id: {n}, host: h{n}.example.com, uri: {uri}/*, plugins: {{key-auth: {{}}, \
             prometheus: {{}}}}, upstream_id: u}}"
        );
    }
    text.push_str("consumers:\n");
    for n in 0..consumers {
        let _ = writeln!(
            text,
            "  - {{username: user{n}, plugins: {{key-auth: {{key: {}}}}}}}",
            reference(n)
        );
    }
    text
}

fn reference(n: usize) -> String {
    format!("$secret://file/main/keys/user{n}")
}

fn documents(text: &str) -> Documents {
    let env: SharedEnv = Arc::new(|_| None);
    parse(text, &"bench.yaml".into(), &env).expect("the resources are sound")
}

fn view(consumers: usize) -> View {
    let outcome = |n: usize| -> (Box<str>, Outcome) {
        let value = Secret::from(format!("key-of-user-{n}"));
        let version = n as u64 + 1;
        (reference(n).into(), Ok(Resolved::new(&value, version)))
    };
    View::new((0..consumers).map(outcome).collect::<HashMap<_, _>>())
}

fn work(criterion: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new("apisix_"));
    let env = compile_env(&Bootstrap::default(), &metrics, &clock).expect("defaults are sound");
    let now = SystemTime::UNIX_EPOCH;
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for (name, routes, consumers) in [("10k+10k", 10_000, 10_000), ("100k", 10, 100_000)] {
        let text = resources(routes, consumers, "/first");
        let (one, other) = (
            documents(&text),
            documents(&resources(routes, consumers, "/changed")),
        );
        let values = view(consumers);
        group.bench_function(format!("read/{name}"), |bencher| {
            bencher.iter(|| documents(black_box(&text)));
        });
        group.bench_function(format!("anew/{name}"), |bencher| {
            bencher.iter(|| compile(&one, &values, None, &env, now));
        });
        let first = compile(&one, &values, None, &env, now);
        group.bench_function(format!("one-changed/{name}"), |bencher| {
            bencher.iter(|| compile(&other, &values, Some(&first), &env, now));
        });
    }
    group.finish();
}

criterion_group!(benches, work);
criterion_main!(benches);
