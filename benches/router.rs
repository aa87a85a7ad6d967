//! Route lookup among 10, 1 000 and 100 000 routes: it must cost the same.
//! Prints how long the largest table takes to build.

#![expect(
    missing_docs,
    clippy::print_stderr,
    reason = "`criterion_group!` makes a public function without docs; a bench prints what it found"
)]

use std::borrow::Cow;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use ::http::Method;
use claviger::expr::{VarSource, Variable};
use claviger::ip_set::IpSet;
use claviger::routing::{
    HostPattern, MethodSet, RouteQuery, RouteSpec, Router, RouterMode, UriPattern,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

struct NoVars;

impl VarSource for NoVars {
    fn var(&self, _: &Variable) -> Option<Cow<'_, str>> {
        None
    }
}

/// What differs from route to route.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    mode: RouterMode,
    host: fn(usize) -> Option<String>,
    uri: fn(usize) -> String,
    asked: fn(usize) -> (String, String),
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "host",
        mode: RouterMode::HostUri,
        host: |n| Some(format!("tenant-{n}.example.com")),
        uri: |_| "/*".to_owned(),
        asked: |n| (format!("tenant-{n}.example.com"), "/v1/orders/7".to_owned()),
    },
    Shape {
        name: "wildcard",
        mode: RouterMode::HostUri,
        host: |n| Some(format!("*.tenant-{n}.example.com")),
        uri: |_| "/*".to_owned(),
        asked: |n| {
            (
                format!("www.tenant-{n}.example.com"),
                "/v1/orders/7".to_owned(),
            )
        },
    },
    Shape {
        name: "exact",
        mode: RouterMode::HostUri,
        host: |_| None,
        uri: |n| format!("/api/v1/resource-{n}/list"),
        asked: |n| {
            (
                "example.com".to_owned(),
                format!("/api/v1/resource-{n}/list"),
            )
        },
    },
    Shape {
        name: "prefix",
        mode: RouterMode::HostUri,
        host: |_| None,
        uri: |n| format!("/api/v1/resource-{n}/*"),
        asked: |n| {
            (
                "example.com".to_owned(),
                format!("/api/v1/resource-{n}/7/items"),
            )
        },
    },
    Shape {
        name: "parameter",
        mode: RouterMode::UriWithParameter,
        host: |_| None,
        uri: |n| format!("/api/:version/resource-{n}/:id"),
        asked: |n| ("example.com".to_owned(), format!("/api/v1/resource-{n}/7")),
    },
];

fn specs(shape: Shape, count: usize) -> Vec<RouteSpec<usize>> {
    let spec = |n| RouteSpec {
        uris: vec![UriPattern::parse(&(shape.uri)(n), shape.mode).expect("a valid pattern")],
        hosts: (shape.host)(n)
            .map(|host| HostPattern::parse(&host).expect("a valid pattern"))
            .into_iter()
            .collect(),
        methods: MethodSet::parse(["GET"]).expect("a known method"),
        remote_addrs: IpSet::default(),
        priority: 0,
        vars: None,
        value: n,
    };
    (0..count).map(spec).collect()
}

fn lookup(criterion: &mut Criterion) {
    for shape in SHAPES {
        let mut group = criterion.benchmark_group(shape.name);
        for count in [10, 1_000, 100_000] {
            let specs = specs(shape, count);
            let started = Instant::now();
            let router = Router::build(shape.mode, specs);
            if count == 100_000 {
                eprintln!(
                    "{}: {count} routes built in {:?}",
                    shape.name,
                    started.elapsed()
                );
            }
            // A few hundred targets spread over the table: a cache that holds all of a small table
            // and little of a large one is part of the truth, but not all of it.
            let asked: Vec<_> = (0..256).map(|n| (shape.asked)(n * 7919 % count)).collect();
            let mut next = 0_usize;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    next = (next + 1) % asked.len();
                    let (host, path) = &asked[next];
                    let query = RouteQuery {
                        host,
                        path,
                        method: &Method::GET,
                        client: IpAddr::from([192, 0, 2, 1]),
                        vars: &NoVars,
                    };
                    let found = router.find(black_box(&query)).expect("there is a route");
                    black_box(*found.value)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
