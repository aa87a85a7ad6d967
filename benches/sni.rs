//! Finding the identity of a name among 10 and among 100 000: the time must be the same. Replacing one:
//! the time may grow with the root of how many there are.

#![expect(
    missing_docs,
    reason = "`criterion_group!` makes a public function without docs"
)]

use std::hint::black_box;
use std::sync::Arc;

use claviger::tls::{Protocols, SniEntry, SniStore, TlsIdentity, TlsPolicy};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn store(names: usize) -> SniStore {
    let policy = TlsPolicy::new("bench", Protocols::default(), None, 0);
    let entry = |n: usize| SniEntry {
        patterns: vec![
            format!("host-{n}.example.com").into(),
            format!("*.zone-{n}.example.com").into(),
        ],
        identity: Arc::new(TlsIdentity::refused(
            "bench".into(),
            "bench",
            policy.clone(),
        )),
    };
    SniStore::build((0..names).map(entry).collect())
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sni");
    for names in [10, 100_000] {
        let store = store(names);
        // Walk over many names, so that a large store is not served from one warm cache line.
        let ask = |form: fn(usize) -> String| -> Vec<String> {
            (0..1024).map(|n| form(n * 97 % names)).collect()
        };
        for (kind, asked) in [
            ("exact", ask(|n| format!("host-{n}.example.com"))),
            ("wildcard", ask(|n| format!("Api.zone-{n}.example.com"))),
            ("unknown", ask(|n| format!("stranger-{n}.example.org"))),
        ] {
            let mut asked = asked.iter().cycle();
            group.bench_function(BenchmarkId::new(kind, names), |bencher| {
                bencher.iter(|| {
                    let name = asked.next().expect("a cycle never ends");
                    store.find(black_box(name)).is_some()
                });
            });
        }
    }
    group.finish();
}

fn rotate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sni-rotate");
    for names in [10, 100_000] {
        let store = store(names);
        let fresh: Vec<_> = store.identities().take(1).map(Arc::clone).collect();
        group.bench_function(BenchmarkId::from_parameter(names), |bencher| {
            bencher.iter(|| store.with(fresh.iter().map(|one| (names / 2, Arc::clone(one)))));
        });
    }
    group.finish();
}

criterion_group!(benches, find, rotate);
criterion_main!(benches);
