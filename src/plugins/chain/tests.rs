use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderName;
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use super::*;
use crate::plugins::testing::{Exchange, body_text, response_head};

/// Writes down each phase it runs in.
struct Trace {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    /// Answers in this phase with this status.
    answers: Option<(&'static str, u16)>,
}

impl Trace {
    fn note(&self, phase: &str) {
        let mut log = self.log.lock().expect("no test panics while it writes");
        log.push(format!("{phase} {}", self.name));
    }

    fn step(&self, phase: &str) -> Step<'static> {
        self.note(phase);
        match self.answers {
            Some((when, status)) if when == phase => Response::message(status, self.name).into(),
            _ => Step::CONTINUE,
        }
    }
}

impl Rewrite for Trace {
    fn rewrite<'a>(&'a self, _: &'a mut RequestCtx<'_>) -> Step<'a> {
        self.step("rewrite")
    }
}

impl Access for Trace {
    fn access<'a>(&'a self, _: &'a mut RequestCtx<'_>) -> Step<'a> {
        // Waits once, so that both kinds of step are run.
        let step = self.step("access");
        Step::Wait(Box::pin(async {
            match step {
                Step::Done(flow) => flow,
                Step::Wait(flow) => flow.await,
            }
        }))
    }
}

impl BeforeProxy for Trace {
    fn before_proxy(&self, _: &mut RequestCtx<'_>) {
        self.note("before_proxy");
    }
}

impl HeaderFilter for Trace {
    fn header_filter(&self, _: &mut RequestCtx<'_>, _: &mut ResponseHeader) {
        self.note("header_filter");
    }
}

impl BodyFilter for Trace {
    fn body_filter(&self, _: &mut RequestCtx<'_>, _: &mut Option<Bytes>, _: bool) {
        self.note("body_filter");
    }
}

impl Log for Trace {
    fn log(&self, _: &RequestCtx<'_>) {
        self.note("log");
    }
}

/// Plugins by letter, `a` with the highest priority; what ran is in `log`.
#[derive(Default)]
struct Bench {
    log: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    /// Plugin number `ordinal` under a name that says where it stands.
    fn plugin(&self, name: &'static str, ordinal: usize, meta: &Value) -> Arc<Plugin> {
        self.plugin_of(PluginKind::Ordinary, name, ordinal, meta, None)
    }

    fn answering(
        &self,
        name: &'static str,
        ordinal: usize,
        meta: &Value,
        answers: (&'static str, u16),
    ) -> Arc<Plugin> {
        self.plugin_of(PluginKind::Ordinary, name, ordinal, meta, Some(answers))
    }

    fn plugin_of(
        &self,
        kind: PluginKind,
        name: &'static str,
        ordinal: usize,
        meta: &Value,
        answers: Option<(&'static str, u16)>,
    ) -> Arc<Plugin> {
        let hooks = Hooks::of(Trace {
            name,
            log: Arc::clone(&self.log),
            answers,
        });
        let hooks = hooks
            .rewrite()
            .access()
            .before_proxy()
            .header_filter()
            .body_filter()
            .log()
            .done();
        let meta = Meta::parse(&json!({ "_meta": meta })).expect("meta is valid");
        Arc::new(Plugin::new(ordinal, def(kind, ordinal), meta, hooks))
    }

    fn ran(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().expect("no test panics while it writes"))
    }
}

fn def(kind: PluginKind, ordinal: usize) -> &'static PluginDef {
    let priority = 1000 - i32::try_from(ordinal).expect("ordinals are small");
    Box::leak(Box::new(PluginDef {
        name: "traced",
        priority,
        kind,
        build: |_, _| Ok(Hooks::default()),
        credential: None,
    }))
}

fn scopes(global: &[Arc<Plugin>], route: &[Arc<Plugin>], consumer: &[Arc<Plugin>]) -> Scopes {
    Scopes {
        global: Arc::new(Chain::build(global)),
        route: Arc::new(Chain::build(route)),
        consumer: (!consumer.is_empty()).then(|| Arc::new(Chain::build(consumer))),
    }
}

/// All phases as the proxy runs them; the answer, where there is one.
async fn run(scopes: &Scopes, exchange: &mut Exchange) -> Option<Response> {
    let answer = request_phases(scopes, &mut exchange.ctx()).await;
    let mut req = exchange.ctx();
    if answer.is_none() {
        scopes.before_proxy(&mut req);
    }
    scopes.header_filter(&mut req, &mut response_head(200, &[]));
    scopes.body_filter(&mut req, &mut None, true);
    scopes.log(&req);
    answer
}

async fn request_phases(scopes: &Scopes, req: &mut RequestCtx<'_>) -> Option<Response> {
    let before = Scopes {
        consumer: None,
        ..scopes.clone()
    };
    if let Flow::Respond(response) = before.rewrite(req).await {
        return Some(*response);
    }
    if let Flow::Respond(response) = scopes.consumer_rewrite(req).await {
        return Some(*response);
    }
    match scopes.access(req).await {
        Flow::Respond(response) => Some(*response),
        Flow::Continue => None,
    }
}

/// `rewrite g.a`, … for each phase and name.
fn in_phases(phases: &[(&str, &[&str])]) -> Vec<String> {
    let lines = phases
        .iter()
        .flat_map(|(phase, names)| names.iter().map(move |name| format!("{phase} {name}")));
    lines.collect()
}

#[tokio::test]
async fn global_rules_run_first_and_each_scope_by_priority() {
    let bench = Bench::default();
    let none = json!({});
    let scopes = scopes(
        &[bench.plugin("g.c", 2, &none), bench.plugin("g.a", 0, &none)],
        &[bench.plugin("r.b", 1, &none), bench.plugin("r.a", 0, &none)],
        &[],
    );
    assert!(run(&scopes, &mut Exchange::get("/")).await.is_none());
    let all: &[&str] = &["g.a", "g.c", "r.a", "r.b"];
    let expected = in_phases(&[
        ("rewrite", all),
        ("access", all),
        ("before_proxy", all),
        ("header_filter", all),
        ("body_filter", all),
        ("log", all),
    ]);
    assert_eq!(bench.ran(), expected);
}

#[tokio::test]
async fn meta_priority_reorders_one_scope() {
    let bench = Bench::default();
    let scopes = scopes(
        &[bench.plugin("g.d", 3, &json!({}))],
        &[
            bench.plugin("r.a", 0, &json!({"priority": -5})),
            bench.plugin("r.b", 1, &json!({})),
            bench.plugin("r.c", 2, &json!({"priority": 5000})),
        ],
        &[],
    );
    let mut exchange = Exchange::get("/");
    scopes.rewrite(&mut exchange.ctx()).await;
    let order: &[&str] = &["g.d", "r.c", "r.b", "r.a"];
    assert_eq!(bench.ran(), in_phases(&[("rewrite", order)]));
}

#[tokio::test]
async fn a_consumers_plugins_join_after_rewrite() {
    let bench = Bench::default();
    let none = json!({});
    let auth = bench.plugin_of(PluginKind::Auth, "c.auth", 3, &none, None);
    let scopes = scopes(
        &[],
        &[bench.plugin("r.a", 0, &none), bench.plugin("r.c", 2, &none)],
        // `a` stands on both; `b` is new.
        &[
            bench.plugin("c.b", 1, &none),
            bench.plugin("c.a", 0, &none),
            auth,
        ],
    );
    assert!(run(&scopes, &mut Exchange::get("/")).await.is_none());
    let merged: &[&str] = &["c.a", "c.b", "r.c", "c.auth"];
    let expected = in_phases(&[
        // The route's `a` ran before the consumer was known; only what is new runs now.
        ("rewrite", &["r.a", "r.c", "c.b"]),
        ("access", merged),
        ("before_proxy", merged),
        ("header_filter", merged),
        ("body_filter", merged),
        ("log", merged),
    ]);
    assert_eq!(bench.ran(), expected);
}

#[tokio::test]
async fn a_disabled_instance_overrides_and_does_not_run() {
    let bench = Bench::default();
    let off = json!({"disable": true});
    let route = bench.plugin("r.a", 0, &json!({}));
    let both = scopes(&[], &[route], &[bench.plugin("c.a", 0, &off)]);
    let mut exchange = Exchange::get("/");
    both.access(&mut exchange.ctx()).await;
    assert_eq!(
        bench.ran(),
        [""; 0],
        "the consumer's instance stands for the route's"
    );
    let scope = scopes(
        &[],
        &[bench.plugin("r.a", 0, &off)],
        &[bench.plugin("c.a", 0, &json!({}))],
    );
    scope.consumer_rewrite(&mut exchange.ctx()).await;
    scope.access(&mut exchange.ctx()).await;
    // It is configured on the route, so its rewrite had its turn (`spec/00` §7.2).
    assert_eq!(bench.ran(), ["access c.a"]);
}

#[tokio::test]
async fn an_answer_stops_request_phases_and_not_the_others() {
    let bench = Bench::default();
    let none = json!({});
    let scopes = scopes(
        &[bench.plugin("g.a", 0, &none)],
        &[
            bench.answering("r.b", 1, &none, ("rewrite", 418)),
            bench.plugin("r.c", 2, &none),
        ],
        &[],
    );
    let answer = run(&scopes, &mut Exchange::get("/"))
        .await
        .expect("answers");
    assert_eq!(
        (answer.status, body_text(&answer)),
        (418, "{\"message\":\"r.b\"}\n")
    );
    let all: &[&str] = &["g.a", "r.b", "r.c"];
    let expected = in_phases(&[
        ("rewrite", &["g.a", "r.b"]),
        ("header_filter", all),
        ("body_filter", all),
        ("log", all),
    ]);
    assert_eq!(bench.ran(), expected);
}

#[tokio::test]
async fn error_response_replaces_the_body_of_errors_only() {
    let bench = Bench::default();
    for (meta, phase, status, body) in [
        (json!({"error_response": "gone"}), "access", 403, "gone"),
        (
            json!({"error_response": {"code": 7}}),
            "rewrite",
            400,
            "{\"code\":7}\n",
        ),
        (
            json!({"error_response": "gone"}),
            "access",
            399,
            "{\"message\":\"r.a\"}\n",
        ),
    ] {
        let plugin = bench.answering("r.a", 0, &meta, (phase, status));
        let scopes = scopes(&[], &[plugin], &[]);
        let answer = run(&scopes, &mut Exchange::get("/"))
            .await
            .expect("answers");
        assert_eq!(
            (answer.status, body_text(&answer)),
            (status, body),
            "{meta}"
        );
        let content_type = crate::plugins::testing::answered(&answer, "content-type");
        assert_eq!(content_type, Some("text/plain; charset=utf-8"));
    }
}

#[tokio::test]
async fn a_filter_is_evaluated_once_and_remembered() {
    let bench = Bench::default();
    let filter = json!({"filter": [["http_x_on", "==", "1"]]});
    let scopes = scopes(&[], &[bench.plugin("r.a", 0, &filter)], &[]);
    let name = HeaderName::from_static("x-on");
    for (first, then, ran) in [("1", "0", true), ("0", "1", false)] {
        let mut exchange = Exchange::get("/").header("x-on", first);
        scopes.rewrite(&mut exchange.ctx()).await;
        exchange
            .head
            .insert_header(name.clone(), then)
            .expect("a header");
        scopes.access(&mut exchange.ctx()).await;
        scopes.log(&exchange.ctx());
        let expected: &[&str] = if ran {
            &["rewrite r.a", "access r.a", "log r.a"]
        } else {
            &[]
        };
        assert_eq!(bench.ran(), expected, "{first} then {then}");
    }
    // Not asked before the log phase: evaluated there.
    scopes.log(&Exchange::get("/").header("x-on", "1").ctx());
    scopes.log(&Exchange::get("/").header("x-on", "0").ctx());
    assert_eq!(bench.ran(), ["log r.a"]);
}

#[tokio::test]
async fn a_filter_that_does_not_compile_lets_the_plugin_run() {
    let bench = Bench::default();
    let filter = json!({"filter": [["a", "no such operator", "b"]]});
    let plugin = bench.plugin("r.a", 0, &filter);
    assert!(plugin.meta.filter_problem.is_some());
    scopes(&[], &[plugin], &[]).log(&Exchange::get("/").ctx());
    assert_eq!(bench.ran(), ["log r.a"]);
}

#[test]
fn a_global_instance_gives_way_to_the_merged_sets_own() {
    let bench = Bench::default();
    let prefer = |name, meta: &Value| bench.plugin_of(PluginKind::PreferRoute, name, 0, meta, None);
    let (on, off) = (json!({}), json!({"disable": true}));
    for (route, consumer, expected) in [
        (None, None, "log g"),
        (Some(&on), None, "log r"),
        (Some(&off), None, "log g"),
        (None, Some(&on), "log c"),
        (Some(&on), Some(&off), "log g"),
    ] {
        let route: Vec<_> = route.map(|meta| prefer("r", meta)).into_iter().collect();
        let consumer: Vec<_> = consumer.map(|meta| prefer("c", meta)).into_iter().collect();
        let scopes = scopes(&[prefer("g", &on)], &route, &consumer);
        scopes.log(&Exchange::get("/").ctx());
        assert_eq!(bench.ran(), [expected]);
    }
}

#[tokio::test]
async fn a_plugin_that_cannot_run_refuses_by_name() {
    let meta = Meta::parse(&json!({"_meta": {"filter": [["arg_x", "==", "1"]]}}));
    let meta = meta.expect("meta is valid");
    let plugin = Arc::new(Plugin::refusing(0, def(PluginKind::Ordinary, 0), meta));
    let scopes = scopes(&[], &[plugin], &[]);
    let answer = run(&scopes, &mut Exchange::get("/?x=1"))
        .await
        .expect("refuses");
    assert_eq!(answer.status, 503);
    assert_eq!(
        body_text(&answer),
        "{\"error_msg\":\"plugin traced is not available: a secret it needs is missing\"}\n"
    );
    let passed = run(&scopes, &mut Exchange::get("/?x=2")).await;
    assert!(
        passed.is_none(),
        "where it would not run, it refuses nothing"
    );
}

#[test]
fn a_chain_keeps_every_plugin_it_was_made_of() {
    let bench = Bench::default();
    let plugins = [
        bench.plugin("runs", 0, &json!({})),
        bench.plugin("disabled", 1, &json!({"disable": true})),
        Arc::new(Plugin::new(
            2,
            def(PluginKind::Ordinary, 2),
            Meta::default(),
            Hooks::default(),
        )),
    ];
    let chain = Chain::build(&plugins);
    let weak = plugins.each_ref().map(Arc::downgrade);
    drop(plugins);
    let kept = weak.iter().all(|plugin| plugin.strong_count() > 0);
    assert!(kept, "an address must not come to mean another plugin");
    drop(chain);
    assert!(weak.iter().all(|plugin| plugin.strong_count() == 0));
}
