//! One request through a chain of all nine plugins, without a server: the engine's own cost, and
//! how often each plugin's part asks for memory.

#![expect(unsafe_code, reason = "an allocator that counts has to be one")]
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use claviger::clock::{Clock, ManualClock};
use claviger::consumer::{Consumer, Consumers, CredentialEntry, CredentialIndex, GroupLink};
use claviger::kept::Kept;
use claviger::plugins::{
    self, BuildCtx, Chain, Flow, Meta, Plugin, RequestCtx, RequestState, RouteInfo, Scopes,
};
use claviger::secrets::Secret;
use claviger::telemetry::metrics::Metrics;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::{Value, json};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: it does what the system's allocator does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Every plugin, set up so that the request goes on.
fn configs() -> Vec<(&'static str, Value)> {
    vec![
        ("request-id", json!({})),
        (
            "mocking",
            json!({"response_example": "x", "_meta": {"filter": [["http_x_mock", "==", "1"]]}}),
        ),
        ("cors", json!({})),
        (
            "ip-restriction",
            json!({"whitelist": ["10.0.0.0/8", "192.0.2.0/24"]}),
        ),
        ("key-auth", json!({})),
        (
            "proxy-rewrite",
            json!({"headers": {"set": {"X-Host": "$host"}}}),
        ),
        ("redirect", json!({"regex_uri": ["^/old/(.*)", "/new/$1"]})),
        (
            "response-rewrite",
            json!({"headers": {"set": {"X-By": "claviger"}}}),
        ),
        ("prometheus", json!({})),
    ]
}

struct Bench {
    clock: ManualClock,
    consumers: Arc<Consumers>,
    route: Arc<RouteInfo>,
    no_plugins: Arc<Chain>,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new(consumers: usize) -> Self {
        let mut index = CredentialIndex::new([7; 16]);
        for n in 0..consumers {
            let consumer = Consumer {
                username: format!("consumer-{n}").into(),
                plugins: None,
                group: GroupLink::Alone,
                labels: None,
            };
            let entry = CredentialEntry::new(Arc::new(consumer), 0, None, None);
            index.insert(&Secret::from(format!("key-{n}")), entry);
        }
        let mut consumers = Consumers::default();
        consumers.by_plugin.insert("key-auth", index);
        Self {
            clock: ManualClock::new(),
            consumers: Arc::new(consumers),
            route: Arc::default(),
            no_plugins: Arc::default(),
            metrics: Arc::new(Metrics::new("apisix_")),
        }
    }

    fn scopes(&self, names: &[&str]) -> Scopes {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let ctx = BuildCtx {
            trust: &claviger::callout::Trust::System,
            owner: &claviger::plugins::def::Owner::new("routes/1"),
            metadata: &Value::Null,
            attr: &Value::Null,
            attr_of: &|_| Some(&Value::Null),
            https_ports: &[],
            metrics: &self.metrics,
            kept: &Kept::new(),
            clock: &clock,
            throttle: None,
        };
        let build = |name: &str| {
            let (_, config) = configs().into_iter().find(|(found, _)| *found == name)?;
            let (ordinal, def) = plugins::find(name)?;
            let meta = Meta::parse(&config).ok()?;
            let hooks = (def.build)(&config, &ctx).ok()?;
            Some(Arc::new(Plugin::new(ordinal, def, meta, hooks)))
        };
        let plugins = names
            .iter()
            .map(|name| build(name).expect("it is configured rightly"));
        Scopes {
            global: Arc::clone(&self.no_plugins),
            route: Arc::new(Chain::build(&plugins.collect::<Vec<_>>())),
            consumer: None,
        }
    }

    /// What a request and its answer are before a plugin sees them.
    fn exchange(&self) -> (RequestHeader, RequestState, ResponseHeader) {
        let mut head = RequestHeader::build("GET", b"/a/b?c=d", Some(8)).expect("a head");
        for (name, value) in [
            ("Host", "a.test"),
            ("apikey", "key-3"),
            ("User-Agent", "bench"),
        ] {
            head.insert_header(name, value).expect("a header");
        }
        let mut response = ResponseHeader::build(200, Some(8)).expect("a head");
        response
            .insert_header("Content-Length", "5")
            .expect("a header");
        let mut state = RequestState::new(
            ([192, 0, 2, 1], 4000).into(),
            Arc::clone(&self.consumers),
            self.clock.now(),
            self.clock.wall(),
        );
        state.route = Some(Arc::clone(&self.route));
        state.request_time = Duration::from_micros(300);
        (head, state, response)
    }
}

/// All phases, as the proxy runs them.
fn run(
    scopes: &Scopes,
    head: &mut RequestHeader,
    state: &mut RequestState,
    response: &mut ResponseHeader,
) {
    let mut req = RequestCtx::new(head, state);
    at_once(scopes.rewrite(&mut req));
    at_once(scopes.consumer_rewrite(&mut req));
    at_once(scopes.access(&mut req));
    scopes.before_proxy(&mut req);
    scopes.header_filter(&mut req, response);
    if scopes.filters_body() {
        scopes.body_filter(&mut req, &mut Some(Bytes::from_static(b"hello")), true);
    }
    req.state.status = response.status.as_u16();
    scopes.log(&req);
}

/// None of these plugins waits.
fn at_once(phase: impl Future<Output = Flow>) {
    let mut context = Context::from_waker(Waker::noop());
    let flow = pin!(phase).poll(&mut context);
    assert!(
        matches!(flow, Poll::Ready(Flow::Continue)),
        "the request goes on"
    );
}

fn chain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plugin_chain");
    let all: Vec<_> = configs().iter().map(|(name, _)| *name).collect();
    for consumers in [10, 100_000] {
        let bench = Bench::new(consumers);
        let scopes = bench.scopes(&all);
        group.bench_function(BenchmarkId::new("nine plugins", consumers), |bencher| {
            bencher.iter_batched_ref(
                || bench.exchange(),
                |(head, state, response)| run(black_box(&scopes), head, state, response),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    let bench = Bench::new(10);
    let none = bench.scopes(&[]);
    group.bench_function("no plugin", |bencher| {
        bencher.iter_batched_ref(
            || bench.exchange(),
            |(head, state, response)| run(black_box(&none), head, state, response),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
    for name in all {
        let scopes = bench.scopes(&[name]);
        let count = allocations(&bench, &scopes);
        writeln!(std::io::stderr(), "allocations of {name}: {count}").expect("stderr is open");
    }
}

/// Allocations of one request, once everything that is made once has been made.
fn allocations(bench: &Bench, scopes: &Scopes) -> u64 {
    let mut last = 0;
    for _ in 0..10 {
        let (mut head, mut state, mut response) = bench.exchange();
        let before = ALLOCATIONS.load(Relaxed);
        run(scopes, &mut head, &mut state, &mut response);
        last = ALLOCATIONS.load(Relaxed) - before;
    }
    last
}

criterion_group!(benches, chain);
criterion_main!(benches);
