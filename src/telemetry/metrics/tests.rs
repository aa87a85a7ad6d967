//! Tests of the page as a whole.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::expr::{VarSource, Variable};

fn exchange<'a>(route: &'a Arc<str>, consumer: Option<&'a Arc<str>>, now: Instant) -> Exchange<'a> {
    Exchange {
        code: 200,
        response_source: "upstream",
        route: Some(route),
        service: None,
        matched_uri: None,
        matched_host: None,
        consumer,
        node: Some(IpAddr::from([10, 0, 0, 1])),
        request_time: Duration::from_micros(1500),
        upstream_time: None,
        ingress: 10,
        egress: 20,
        ended: now,
        disabled: Disabled::default(),
        vars: None,
    }
}

fn metrics(config: &serde_json::Value) -> (Metrics, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let config = MetricsConfig::parse(config).expect("a configuration");
    (Metrics::with_config(&config, clock.clone()), clock)
}

fn page(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).expect("pages are text")
}

#[test]
fn buckets_are_cumulative_and_in_milliseconds() {
    let (metrics, clock) = metrics(&json!({"default_buckets": [0.5, 1, 2, 100]}));
    let route = Arc::from("1");
    let mut one = exchange(&route, None, clock.now());
    for micros in [500, 1000, 1001, 50_000, 200_000] {
        one.request_time = Duration::from_micros(micros);
        metrics.http().record(&one);
    }
    let page = page(&metrics);
    for (le, count) in [("0.5", 1), ("1", 2), ("2", 3), ("100", 4), ("+Inf", 5)] {
        let sample = format!("type=\"request\",le=\"{le}\"}} {count}\n");
        assert!(page.contains(&sample), "{sample}{page}");
    }
    assert!(page.contains("type=\"request\"} 252.501\n"), "{page}");
    assert!(page.contains("type=\"request\"} 5\n"), "{page}");
}

#[test]
fn equal_names_at_other_addresses_are_one_series() {
    let (metrics, clock) = metrics(&json!(null));
    for _ in 0..3 {
        // A reload makes every name anew.
        let route: Arc<str> = "1".to_owned().into();
        metrics.http().record(&exchange(&route, None, clock.now()));
    }
    assert!(page(&metrics).contains("response_source=\"upstream\"} 3\n"));
}

#[test]
fn threads_count_into_the_same_series() {
    let (metrics, clock) = metrics(&json!(null));
    let route: Arc<str> = "1".into();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    metrics.http().record(&exchange(&route, None, clock.now()));
                }
            });
        }
    });
    let page = page(&metrics);
    assert!(
        page.contains("response_source=\"upstream\"} 4000\n"),
        "{page}"
    );
    assert!(page.contains("type=\"egress\"} 80000\n"), "{page}");
}

#[test]
fn past_the_cap_consumers_share_a_series_but_routes_do_not() {
    let (metrics, clock) = metrics(&json!({"max_series": 2}));
    let routes: [Arc<str>; 2] = ["1".into(), "2".into()];
    for number in 0..50 {
        let consumer: Arc<str> = format!("c{number}").into();
        for route in &routes {
            metrics
                .http()
                .record(&exchange(route, Some(&consumer), clock.now()));
        }
    }
    let page = page(&metrics);
    let series = page.matches("\napisix_http_status{").count();
    assert_eq!(
        series, 4,
        "two of the first, one of overflow per route: {page}"
    );
    let overflow = "consumer=\"overflow\",node=\"overflow\"";
    assert_eq!(
        page.matches(&format!("service=\"\",{overflow}")).count() % 2,
        0
    );
    assert!(
        page.contains("response_source=\"upstream\"} 49\n"),
        "{page}"
    );
    assert!(
        page.contains("\nclaviger_metrics_overflow_total 98\n"),
        "{page}"
    );
}

#[test]
fn idle_series_expire_and_come_back_from_zero() {
    let (metrics, clock) = metrics(&json!({"metrics": {"http_status": {"expire": 60}}}));
    let route: Arc<str> = "1".into();
    metrics.http().record(&exchange(&route, None, clock.now()));
    clock.advance(Duration::from_mins(1));
    assert!(
        page(&metrics).contains("apisix_http_status{"),
        "just in time"
    );
    clock.advance(Duration::from_secs(1));
    let expired = page(&metrics);
    assert!(!expired.contains("apisix_http_status{"), "{expired}");
    assert!(
        expired.contains("apisix_bandwidth{"),
        "only that family expires"
    );
    metrics.http().record(&exchange(&route, None, clock.now()));
    assert!(page(&metrics).contains("response_source=\"upstream\"} 1\n"));
}

struct Echo;

impl VarSource for Echo {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        (*variable == Variable::parse("http_x_tenant")).then_some(Cow::Borrowed("a\"b"))
    }
}

#[test]
fn extra_labels_are_their_own_familys() {
    let (metrics, clock) = metrics(&json!({"metrics": {"http_status": {"extra_labels": [
        {"tenant": "$http_x_tenant"}, {"absent": "$http_y"},
    ]}}}));
    assert!(metrics.http().wants_vars());
    let route: Arc<str> = "1".into();
    let mut one = exchange(&route, None, clock.now());
    one.vars = Some(&Echo);
    metrics.http().record(&one);
    metrics.http().record(&one);
    let page = page(&metrics);
    let sample = "response_source=\"upstream\",tenant=\"a\\\"b\",absent=\"\"} 2\n";
    assert!(page.contains(sample), "{page}");
    assert_eq!(page.matches("tenant").count(), 1, "{page}");
}

#[test]
fn claviger_metrics_are_on_the_page() {
    let (metrics, _) = metrics(&json!({"metric_prefix": "x_"}));
    let own = metrics.own();
    own.secrets()
        .fetched("vault/main", Some("sealed"), Duration::from_millis(20));
    own.refused("two-hosts");
    own.auth_failures("key-auth", AuthFailure::Unknown).inc();
    metrics.register(Arc::new(|page: &mut Page| {
        let facts = SecretFacts {
            manager: "vault/main".to_owned(),
            fresh: 2,
            refused: 1,
            oldest: Some(Duration::from_secs(9)),
            ..SecretFacts::default()
        };
        write_secret_facts(page, &[facts]);
    }));
    let page = page(&metrics);
    for sample in [
        "claviger_secret_fetches_total{manager=\"vault/main\"} 1",
        "claviger_secret_fetch_errors_total{kind=\"sealed\",manager=\"vault/main\"} 1",
        "claviger_secret_fetch_duration_seconds_count{manager=\"vault/main\"} 1",
        "claviger_secret_references{manager=\"vault/main\",state=\"refused\"} 1",
        "claviger_secret_unresolved{manager=\"vault/main\"} 1",
        "claviger_secret_oldest_age_seconds{manager=\"vault/main\"} 9",
        "claviger_protocol_refusals_total{reason=\"two-hosts\"} 1",
        "claviger_auth_failures_total{plugin=\"key-auth\",reason=\"unknown\"} 1",
        "x_http_requests_total 0",
        "x_nginx_http_current_connections{state=\"active\"} 0",
    ] {
        assert!(page.contains(&format!("\n{sample}\n")), "{sample}\n{page}");
    }
}

#[test]
fn each_family_is_declared_once() {
    let (metrics, clock) = metrics(&json!(null));
    let route: Arc<str> = "1".into();
    metrics.http().record(&exchange(&route, None, clock.now()));
    let page = page(&metrics);
    let mut seen = std::collections::HashSet::new();
    for line in page.lines().filter(|line| line.starts_with("# TYPE")) {
        assert!(seen.insert(line.to_owned()), "{line} twice");
    }
}
