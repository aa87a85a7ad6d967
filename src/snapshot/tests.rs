//! Whole compilations from YAML: what is refused, what wins, what is reused.

mod certificates;
mod rotation;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use http::Method;

use super::compile::{CertificateRules, CompileEnv, compile};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::bootstrap::CipherKeys;
use crate::config::parse;
use crate::config::resource::KeepalivePoolConfig;
use crate::consumer::GroupLink;
use crate::diagnostic::Severity;
use crate::expr::{VarSource, Variable};
use crate::kept::Kept;
use crate::plugins::RequestCtx;
use crate::plugins::{Flow, RequestState, Scopes};
use crate::routing::{RouteQuery, RouterMode};
use crate::secrets::{Resolved, Secret, Unresolved, View};
use crate::telemetry::metrics::Metrics;
use crate::tls::Rehearsal;
use crate::upstream::dns::{DnsConfig, Resolver};

pub(super) struct Bench {
    pub(super) env: CompileEnv,
}

impl Bench {
    pub(super) fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let resolver = Resolver::build(DnsConfig::default(), Arc::clone(&clock));
        Self {
            env: CompileEnv {
                redact_args: Vec::new(),
                plugins: None,
                plugin_attr: serde_json::Map::new(),
                https_ports: Vec::new(),
                router: RouterMode::HostUri,
                ssl_protocols: Vec::new(),
                cipher_keys: CipherKeys::of(""),
                keepalive: KeepalivePoolConfig::default(),
                index_key: [7; 16],
                hasher: ahash::RandomState::with_seed(1),
                metrics: Arc::new(Metrics::new("apisix_")),
                kept: Arc::new(Kept::new()),
                on_demand: crate::tls::on_demand::Door::closed(Arc::clone(&clock)),
                clock,
                resolver: Arc::new(resolver.expect("nothing is asked yet")),
                throttle: None,
                trust: crate::callout::Trust::System,
                certificates: CertificateRules::default(),
                rehearsal: Arc::new(Rehearsal::new(None).expect("the default ciphers are known")),
            },
        }
    }

    fn compile(&self, yaml: &str, view: &View, previous: Option<&Snapshot>) -> Snapshot {
        let env: parse::SharedEnv = Arc::new(|_: &str| None);
        let documents = parse::parse(yaml, &"apisix.yaml".into(), &env).expect("YAML is valid");
        compile(
            &documents,
            view,
            previous,
            &self.env,
            SystemTime::UNIX_EPOCH,
        )
    }
}

fn first(yaml: &str) -> Snapshot {
    Bench::new().compile(yaml, &View::default(), None)
}

/// A view of these references; a value's version is its length.
fn view(values: &[(&str, Option<&str>)]) -> View {
    let outcome = |value: Option<&str>| match value {
        Some(value) => {
            let secret = Secret::from(value.to_owned());
            Ok(Resolved::new(&secret, value.len() as u64))
        }
        None => Err(Unresolved::because("field not found")),
    };
    let outcomes: HashMap<_, _> = values
        .iter()
        .map(|(reference, value)| ((*reference).into(), outcome(*value)))
        .collect();
    View::new(outcomes)
}

struct NoVars;

impl VarSource for NoVars {
    fn var(&self, _: &Variable) -> Option<std::borrow::Cow<'_, str>> {
        None
    }
}

fn route(snapshot: &Snapshot, path: &str) -> Option<Arc<CompiledRoute>> {
    let found = snapshot.router.find(&RouteQuery {
        host: "h",
        path,
        method: &Method::GET,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        vars: &NoVars,
    });
    found.map(|found| Arc::clone(found.value))
}

fn outcome(snapshot: &Snapshot, path: &str) -> &'static str {
    match route(snapshot, path).as_deref() {
        None => "unmatched",
        Some(route) => match &route.outcome {
            Outcome::Absent => "absent",
            Outcome::Refuse { status: 404 } => "404",
            Outcome::Refuse { status: 503 } => "503",
            Outcome::Refuse { .. } => "another status",
            Outcome::Serve { upstream, .. } => match upstream {
                UpstreamLink::Ready(_) => "served",
                UpstreamLink::None => "no upstream",
                UpstreamLink::NotFound => "upstream not found",
                UpstreamLink::Refused => "upstream refused",
            },
        },
    }
}

/// Status and body of a request to `path` that carries this key, where a plugin answers.
async fn answered(snapshot: &Snapshot, path: &str, key: Option<&str>) -> Option<(u16, String)> {
    let route = route(snapshot, path)?;
    let Outcome::Serve { chain, .. } = &route.outcome else {
        return None;
    };
    let mut head =
        pingora_http::RequestHeader::build("GET", path.as_bytes(), None).expect("a head");
    if let Some(key) = key {
        head.insert_header("apikey", key).expect("a header");
    }
    let clock = ManualClock::new();
    let mut state = RequestState::new(
        ([127, 0, 0, 1], 4000).into(),
        Arc::clone(&snapshot.consumers),
        clock.now(),
        SystemTime::UNIX_EPOCH,
    );
    let mut req = RequestCtx::new(&mut head, &mut state);
    let mut scopes = Scopes {
        global: Arc::clone(&snapshot.global),
        route: Arc::clone(chain),
        consumer: None,
    };
    let mut flow = scopes.rewrite(&mut req).await;
    if matches!(flow, Flow::Continue) {
        let consumer = req.state.consumer.as_ref();
        let plugins = consumer.and_then(|attached| attached.consumer.plugins.clone());
        scopes.consumer = plugins.and_then(|plugins| plugins.downcast().ok());
        flow = scopes.access(&mut req).await;
    }
    match flow {
        Flow::Continue => None,
        Flow::Respond(answer) => {
            let body = answer.body.unwrap_or_default();
            Some((answer.status, String::from_utf8_lossy(&body).into_owned()))
        }
    }
}

fn errors(snapshot: &Snapshot) -> Vec<String> {
    let errors = snapshot.diagnostics.iter();
    let errors = errors.filter(|finding| finding.severity == Severity::Error);
    errors
        .map(|finding| format!("{} {}: {}", finding.object, finding.field, finding.message))
        .collect()
}

#[test]
fn a_dropped_piece_has_the_consequence_of_the_specification() {
    let snapshot = first(
        "
upstreams:
  - { id: bad, type: roundrobin, nodes: 5 }
services:
  - { id: bad, plugins: { no-such-plugin: {} } }
plugin_configs:
  - { id: bad, plugins: { ip-restriction: {} } }
routes:
  - { id: 1, uri: /unknown-plugin, plugins: { no-such-plugin: {} } }
  - { id: 2, uri: /bad-plugin, plugins: { ip-restriction: { whitelist: [x] } } }
  - { id: 3, uri: /bad-service, service_id: bad }
  - { id: 4, uri: /no-service, service_id: none }
  - { id: 5, uri: /bad-set, plugin_config_id: bad, plugins: {} }
  - { id: 6, uri: /no-set, plugin_config_id: none, plugins: {} }
  - { id: 7, uri: /bad-upstream, upstream_id: bad }
  - { id: 8, uri: /no-upstream-item, upstream_id: none }
  - { id: 9, uri: /no-upstream, plugins: {} }
  - { id: 10, uri: /off, status: 0, plugins: {} }
  - { id: 11, uri: /fine, upstream: { nodes: { '127.0.0.1:1': 1 } } }
  - { id: 12, uri: /disabled, plugins: { ip-restriction: { whitelist: [x], _meta: { disable: true } } } }
  - { id: 13, uri: /bad-meta, plugins: { ip-restriction: { whitelist: ['::1'], _meta: { disable: 5 } } } }
",
    );
    for (path, expected) in [
        ("/unknown-plugin", "absent"),
        ("/bad-plugin", "absent"),
        ("/bad-service", "404"),
        ("/no-service", "404"),
        ("/bad-set", "503"),
        ("/no-set", "503"),
        ("/bad-upstream", "upstream not found"),
        ("/no-upstream-item", "upstream not found"),
        ("/no-upstream", "no upstream"),
        ("/off", "unmatched"),
        ("/fine", "served"),
        ("/disabled", "no upstream"),
        ("/bad-meta", "absent"),
    ] {
        assert_eq!(outcome(&snapshot, path), expected, "{path}");
    }
    let errors = errors(&snapshot);
    let told = |expected: &str| errors.iter().any(|error| error == expected);
    assert!(
        told("routes/1 plugins.no-such-plugin: unknown plugin [no-such-plugin]"),
        "{errors:#?}"
    );
    assert!(
        told(
            "routes/2 plugins.ip-restriction.whitelist.0: failed to check the configuration of \
             plugin ip-restriction err: must be an IP address or a network in CIDR notation, such as 10.0.0.0/8"
        ),
        "{errors:#?}"
    );
    assert!(
        !errors.iter().any(|error| error.starts_with("routes/12")),
        "{errors:#?}"
    );
    assert_eq!(
        snapshot.counts["services"],
        ItemCount {
            items: 1,
            refused: 1
        }
    );
}

#[test]
fn only_listed_plugins_are_known() {
    let yaml = "
plugins: [ { name: cors } ]
routes:
  - { id: 1, uri: /a, plugins: { cors: {} } }
  - { id: 2, uri: /b, plugins: { mocking: { response_example: x } } }
";
    let snapshot = first(yaml);
    assert_eq!(outcome(&snapshot, "/a"), "no upstream");
    assert_eq!(outcome(&snapshot, "/b"), "absent");
}

const PRECEDENCE: &str = "
services:
  - { id: s, plugins: { mocking: { response_example: service }, ip-restriction: { blacklist: ['127.0.0.1'], message: service } } }
plugin_configs:
  - { id: p, plugins: { mocking: { response_example: plugin_config } } }
consumer_groups:
  - { id: g, plugins: { mocking: { response_example: group } } }
consumers:
  - { username: alone, plugins: { key-auth: { key: alone } } }
  - { username: member, group_id: g, plugins: { key-auth: { key: member } } }
  - { username: own, group_id: g, plugins: { key-auth: { key: own }, mocking: { response_example: consumer } } }
  - { username: off, group_id: g, plugins: { key-auth: { key: off }, mocking: { response_example: x, _meta: { disable: true } } } }
routes:
  - { id: 1, uri: /service, service_id: s }
  - { id: 2, uri: /set, service_id: s, plugin_config_id: p, plugins: {} }
  - { id: 3, uri: /route, service_id: s, plugin_config_id: p, plugins: { mocking: { response_example: route } } }
  - { id: 4, uri: /off, service_id: s, plugin_config_id: p, plugins: { mocking: { response_example: x, _meta: { disable: true } } } }
  - { id: 5, uri: /keyed, service_id: s, plugins: { key-auth: {}, mocking: { response_example: route } } }
";

#[tokio::test]
async fn whole_plugins_override_by_precedence() {
    let snapshot = first(PRECEDENCE);
    let mock = |body: &str| Some((200, body.to_owned()));
    for (path, key, expected) in [
        ("/service", None, mock("service")),
        ("/set", None, mock("plugin_config")),
        ("/route", None, mock("route")),
        // Nothing of the service's ip-restriction is lost with its mocking overridden.
        (
            "/off",
            None,
            Some((403, "{\"message\":\"service\"}\n".to_owned())),
        ),
        ("/keyed", Some("alone"), mock("route")),
        ("/keyed", Some("member"), mock("group")),
        ("/keyed", Some("own"), mock("consumer")),
        (
            "/keyed",
            Some("off"),
            Some((403, "{\"message\":\"service\"}\n".to_owned())),
        ),
    ] {
        let found = answered(&snapshot, path, key).await;
        assert_eq!(found, expected, "{path} {key:?}");
    }
}

#[tokio::test]
async fn a_reference_without_value_refuses_its_user_only() {
    let yaml = "
plugin_metadata:
  - { id: cors, allow_origins: { a: $env://ORIGIN } }
consumers:
  - { username: alice, plugins: { key-auth: { key: $env://ALICE } } }
  - { username: bob, plugins: { key-auth: { key: bobs } } }
routes:
  - { id: 1, uri: /a, plugins: { mocking: { response_example: $env://BODY } } }
  - { id: 2, uri: /b, plugins: { mocking: { response_example: fine } } }
  - { id: 3, uri: /k, plugins: { key-auth: {}, mocking: { response_example: in } } }
  - { id: 4, uri: /i, plugins: { ip-restriction: { whitelist: [$env://NET] }, mocking: { response_example: in } } }
  - { id: 5, uri: /m, plugins: { ip-restriction: { blacklist: ['127.0.0.1'], _meta: { error_response: $env://BODY } } } }
  - { id: 6, uri: /f, plugins: { mocking: { response_example: in, _meta: { filter: [[http_x, '==', $env://BODY]] } } } }
  - { id: 7, uri: /o, plugins: { cors: {}, mocking: { response_example: in } } }
  - { id: 8, uri: /d, plugins: { mocking: { response_example: $env://BODY, _meta: { disable: true } } } }
";
    let bench = Bench::new();
    let refused = |plugin: &str| {
        let message = format!(
            "{{\"error_msg\":\"plugin {plugin} is not available: a secret it needs is missing\"}}\n"
        );
        Some((503, message))
    };
    let text = |status, text: &str| Some((status, text.to_owned()));
    let missing = bench.compile(
        yaml,
        &view(&[
            ("$env://BODY", None),
            ("$env://ALICE", None),
            ("$env://NET", None),
        ]),
        None,
    );
    let unknown = text(401, "{\"message\":\"Invalid API key in request\"}\n");
    for (path, key, expected) in [
        ("/a", None, refused("mocking")),
        ("/b", None, text(200, "fine")),
        ("/k", Some("$env://ALICE"), unknown.clone()),
        ("/k", Some("bobs"), text(200, "in")),
        ("/i", None, refused("ip-restriction")),
        ("/m", None, refused("ip-restriction")),
        ("/f", None, refused("mocking")),
        ("/o", None, refused("cors")),
        ("/d", None, None),
    ] {
        assert_eq!(answered(&missing, path, key).await, expected, "{path}");
    }
    assert!(errors(&missing).is_empty(), "they heal by themselves");

    // The values come: the same documents, the previous snapshot at hand.
    let values = [
        ("$env://BODY", Some("secret")),
        ("$env://ALICE", Some("alices")),
        ("$env://NET", Some("no network")),
        ("$env://ORIGIN", Some("https://a.test")),
    ];
    let healed = bench.compile(yaml, &view(&values), Some(&missing));
    for (path, key, expected) in [
        ("/a", None, text(200, "secret")),
        ("/k", Some("alices"), text(200, "in")),
        ("/k", Some("$env://ALICE"), unknown),
        // The value does not fit; only its user refuses, and no value is told.
        ("/i", None, refused("ip-restriction")),
        ("/m", None, text(403, "secret")),
        ("/f", None, None),
        ("/o", None, text(200, "in")),
    ] {
        assert_eq!(answered(&healed, path, key).await, expected, "{path}");
    }
    let errors = errors(&healed);
    assert!(
        errors.len() == 1 && errors[0].starts_with("routes/4 plugins.ip-restriction.whitelist.0")
    );
    assert!(!errors[0].contains("no network"), "{errors:?}");
}

const REUSE: &str = "
upstreams:
  - { id: u, nodes: { '127.0.0.1:1': 1 } }
services:
  - { id: s, upstream_id: u }
plugin_configs:
  - { id: p, plugins: { mocking: { response_example: p } } }
plugin_metadata:
  - { id: prometheus, disabled_labels: { http_status: [node] } }
consumer_groups:
  - { id: g, plugins: { cors: {} } }
consumers:
  - { username: alice, group_id: g, plugins: { key-auth: { key: $env://ALICE } } }
  - { username: bob, plugins: { key-auth: { key: bobs } } }
routes:
  - { id: 1, uri: /plain, upstream: { nodes: { '127.0.0.1:2': 1 } } }
  - { id: 2, uri: /upstream, upstream_id: u }
  - { id: 3, uri: /service, service_id: s }
  - { id: 4, uri: /set, plugin_config_id: p, plugins: {} }
  - { id: 5, uri: /secret, plugins: { mocking: { response_example: $env://BODY } } }
  - { id: 6, uri: /counted, plugins: { prometheus: {} } }
";

const PATHS: [&str; 6] = [
    "/plain",
    "/upstream",
    "/service",
    "/set",
    "/secret",
    "/counted",
];

fn values(alice: &'static str, body: &'static str) -> View {
    view(&[("$env://ALICE", Some(alice)), ("$env://BODY", Some(body))])
}

#[test]
fn only_the_users_of_what_changed_are_rebuilt() {
    let bench = Bench::new();
    let before = bench.compile(REUSE, &values("a", "b"), None);
    let changed = |from: &str, to: &str| {
        assert!(REUSE.contains(from), "{from}");
        REUSE.replacen(from, to, 1)
    };
    let cases: [(&str, String, View, &[&str]); 9] = [
        ("nothing", REUSE.to_owned(), values("a", "b"), &[]),
        (
            "a comment",
            format!("# moved\n{REUSE}"),
            values("a", "b"),
            &[],
        ),
        (
            "the upstream",
            changed("127.0.0.1:1", "127.0.0.1:9"),
            values("a", "b"),
            &["/upstream", "/service"],
        ),
        (
            "the service",
            changed("{ id: s,", "{ id: s, name: n,"),
            values("a", "b"),
            &["/service"],
        ),
        (
            "the plugin_config",
            changed("response_example: p", "response_example: q"),
            values("a", "b"),
            &["/set"],
        ),
        (
            "the body's secret",
            REUSE.to_owned(),
            values("a", "bb"),
            &["/secret"],
        ),
        (
            "metadata",
            changed("[node]", "[consumer]"),
            values("a", "b"),
            &["/counted"],
        ),
        (
            "a route",
            changed("uri: /plain", "uri: /plain, name: n"),
            values("a", "b"),
            &["/plain"],
        ),
        (
            "a consumer's secret",
            REUSE.to_owned(),
            values("aa", "b"),
            &[],
        ),
    ];
    for (what, yaml, view, rebuilt) in cases {
        let after = bench.compile(&yaml, &view, Some(&before));
        for path in PATHS {
            let (old, new) = (route(&before, path), route(&after, path));
            let (old, new) = (old.expect("it is routed"), new.expect("it is routed"));
            let reused = Arc::ptr_eq(&old, &new);
            assert_eq!(!reused, rebuilt.contains(&path), "{what} changed: {path}");
        }
    }
}

#[test]
fn consumers_are_rebuilt_with_their_secret_and_their_group() {
    let bench = Bench::new();
    let before = bench.compile(REUSE, &values("a", "b"), None);
    let same = bench.compile(REUSE, &values("a", "bb"), Some(&before));
    assert!(
        Arc::ptr_eq(&before.consumers, &same.consumers),
        "the indexes are reused whole"
    );
    let consumer = |snapshot: &Snapshot, name: &str| {
        Arc::clone(snapshot.consumers.named(name).expect("it is there"))
    };
    let group = REUSE.replace("{ id: g, plugins: { cors: {} } }", "{ id: g, plugins: {} }");
    for (what, yaml, view) in [
        ("secret", REUSE, values("aa", "b")),
        ("group", &group, values("a", "b")),
    ] {
        let after = bench.compile(yaml, &view, Some(&before));
        let kept = |name| Arc::ptr_eq(&consumer(&before, name), &consumer(&after, name));
        assert!(!kept("alice"), "{what}");
        assert!(kept("bob"), "{what}");
    }
    let rotated = bench.compile(REUSE, &values("aa", "b"), Some(&before));
    assert!(rotated.consumers.find("key-auth", b"aa").is_some());
    assert!(
        rotated.consumers.find("key-auth", b"a").is_none(),
        "the old key is gone"
    );
    let gone = REUSE.replace(
        "{ id: g, plugins: { cors: {} } }",
        "{ id: other, plugins: {} }",
    );
    let gone = bench.compile(&gone, &values("a", "b"), Some(&before));
    assert_eq!(
        consumer(&gone, "alice").group,
        GroupLink::Missing("g".into())
    );
}

#[test]
fn findings_of_reused_pieces_stay() {
    let yaml = "
consumers:
  - { username: alice, plugins: { key-auth: { key: same } } }
  - { id: alice/credentials/c, plugins: { key-auth: { key: same } } }
  - { username: bob, plugins: { key-auth: { key: same } } }
routes:
  - { id: 1, uri: /a, plugins: { no-such-plugin: {} } }
";
    let bench = Bench::new();
    let before = bench.compile(yaml, &View::default(), None);
    let expected = [
        "consumers/alice/credentials/c plugins.key-auth.key: duplicate key of plugin key-auth found with consumer: alice",
        "consumers/bob plugins.key-auth.key: duplicate key of plugin key-auth found with credential: c of consumer: alice",
        "routes/1 plugins.no-such-plugin: unknown plugin [no-such-plugin]",
    ];
    assert_eq!(errors(&before), expected);
    let winner = before
        .consumers
        .find("key-auth", b"same")
        .expect("the key is known");
    assert_eq!(
        &*winner.consumer.username, "bob",
        "the last one of the list wins"
    );
    let after = bench.compile(yaml, &View::default(), Some(&before));
    assert!(Arc::ptr_eq(&before.consumers, &after.consumers));
    assert_eq!(errors(&after), expected);
}

#[test]
fn consumers_that_do_not_hold_authenticate_nobody() {
    let snapshot = first(
        "
consumers:
  - { username: alice, plugins: { key-auth: { key: alices }, no-such-plugin: {} } }
  - { id: alice/credentials/c, plugins: { key-auth: { key: alices-second } } }
  - { username: bob, plugins: { key-auth: { key: '' } } }
  - { username: carol, plugins: { key-auth: { key: carols, _meta: { disable: true } } } }
  - { id: nobody/credentials/c, plugins: { key-auth: { key: nobodys } } }
  - { username: dave, plugins: { key-auth: { key: daves } }, labels: { custom_id: '42' } }
  - { id: dave/credentials/c, plugins: { key-auth: { key: daves-second } } }
",
    );
    for key in ["alices", "alices-second", "", "carols", "nobodys"] {
        assert!(
            snapshot
                .consumers
                .find("key-auth", key.as_bytes())
                .is_none(),
            "{key:?}"
        );
    }
    assert!(snapshot.consumers.named("alice").is_none());
    let found = snapshot.consumers.find("key-auth", b"daves-second");
    let found = found.expect("a credential leads to its consumer");
    assert_eq!(&*found.consumer.username, "dave");
    assert_eq!(found.credential_id().map(|id| &**id), Some("c"));
    assert_eq!(found.consumer.custom_id(), Some("42"));
}

#[tokio::test]
async fn global_rules_add_up_and_a_refused_one_refuses_all() {
    let rules = "
global_rules:
  - { id: 1, plugins: { ip-restriction: { whitelist: ['127.0.0.1'] }, key-auth: { header: x-key, query: q } } }
  - { id: 2, plugins: { ip-restriction: { blacklist: ['127.0.0.1'] } } }
routes:
  - { id: 1, uri: /a, plugins: { mocking: { response_example: in } } }
";
    let snapshot = first(rules);
    assert!(!snapshot.global_refused);
    assert_eq!(
        errors(&snapshot),
        [
            "global_rules/2 plugins.ip-restriction: plugin ip-restriction stands in global rule 1 too; both run (APISIX runs neither)"
        ]
    );
    assert_eq!(
        *snapshot.global_redacted,
        ["x-key", "q"].map(Box::<str>::from)
    );
    let answer = answered(&snapshot, "/a", None)
        .await
        .expect("key-auth answers");
    assert_eq!(answer.0, 401);
    let refused =
        first(&rules.replace("ip-restriction: { blacklist", "no-such-plugin: { blacklist"));
    assert!(refused.global_refused);
}

#[test]
fn what_a_route_masks_comes_from_every_scope_below_it() {
    let snapshot = first(
        "
services:
  - { id: s, plugins: { key-auth: { header: x-service } } }
plugin_configs:
  - { id: p, plugins: { key-auth: { query: set } } }
routes:
  - { id: 1, uri: /a, service_id: s, plugin_config_id: p, plugins: { key-auth: { query: own } } }
  - { id: 2, uri: /b, plugins: { key-auth: {} } }
",
    );
    let masked = |path| {
        route(&snapshot, path)
            .expect("it is routed")
            .info
            .redacted_args
            .clone()
    };
    assert_eq!(
        masked("/a"),
        ["x-service", "set", "own"].map(Box::<str>::from)
    );
    assert!(masked("/b").is_empty(), "apikey is masked by custom");
}

#[test]
fn plugins_with_equal_settings_are_one_object() {
    let snapshot = first(
        "routes:\n\
         - {id: a, uri: /a, plugins: {mocking: {response_example: x}}}\n\
         - {id: b, uri: /b, plugins: {mocking: {response_example: x}}}\n\
         - {id: c, uri: /c, plugins: {mocking: {response_example: y}}}\n#END\n",
    );
    let [a, b, c] = ["/a", "/b", "/c"].map(|path| {
        let route = route(&snapshot, path).expect("there is a route");
        match &route.outcome {
            Outcome::Serve { chain, .. } => Arc::clone(chain),
            _ => panic!("{path} must serve"),
        }
    });
    assert!(Arc::ptr_eq(&a, &b), "equal settings share plugin and chain");
    assert!(!Arc::ptr_eq(&a, &c), "other settings do not");
}
