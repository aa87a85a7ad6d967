//! `prometheus`: counts the requests of its route under APISIX's names (`spec/05` §1). The page
//! and its listener are not the plugin's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::plugins::ctx::{Attempt, RequestCtx};
use crate::plugins::def::{BuildCtx, PluginDef, PluginKind, parse};
use crate::plugins::phase::{Hooks, Log};
use crate::telemetry::metrics::{Disabled, Exchange, Metrics};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "prometheus",
    priority: 500,
    kind: PluginKind::PreferRoute,
    build: |json, ctx| Ok(build(&parse(json)?, ctx)),
    credential: None,
};

#[derive(Deserialize)]
struct PrometheusConfig {
    /// Labels hold names of route and service instead of ids, where they have names.
    #[serde(default)]
    prefer_name: bool,
}

fn build(config: &PrometheusConfig, ctx: &BuildCtx<'_>) -> Hooks {
    let disabled = ctx.metadata.get("disabled_labels");
    Hooks::of(Prometheus {
        metrics: Arc::clone(ctx.metrics),
        prefer_name: config.prefer_name,
        disabled: Disabled::parse(disabled.unwrap_or(&Value::Null)),
    })
    .log()
    .done()
}

struct Prometheus {
    metrics: Arc<Metrics>,
    prefer_name: bool,
    disabled: Disabled,
}

impl Prometheus {
    fn choose<'a>(
        &self,
        id: Option<&'a Arc<str>>,
        name: Option<&'a Arc<str>>,
    ) -> Option<&'a Arc<str>> {
        if self.prefer_name { name.or(id) } else { id }
    }
}

impl Log for Prometheus {
    fn log(&self, req: &RequestCtx<'_>) {
        let state = &*req.state;
        let route = state.route.as_deref();
        let consumer = state.consumer.as_ref();
        let http = self.metrics.http();
        http.record(&Exchange {
            code: state.status,
            response_source: state.source.label(),
            route: route.and_then(|route| self.choose(Some(&route.id), route.name.as_ref())),
            service: route.and_then(|route| {
                self.choose(route.service_id.as_ref(), route.service_name.as_ref())
            }),
            matched_uri: state.matched_uri.as_ref(),
            matched_host: state.matched_host.as_ref(),
            consumer: consumer.map(|attached| &attached.consumer.username),
            node: node(&state.attempts),
            request_time: state.request_time,
            upstream_time: upstream_time(&state.attempts),
            ingress: state.bytes_received,
            egress: state.bytes_sent,
            ended: state.started + state.request_time,
            disabled: self.disabled,
            vars: Some(req),
        });
    }
}

/// The node tried last.
fn node(attempts: &[Attempt]) -> Option<IpAddr> {
    attempts.last().map(|attempt| attempt.addr.ip())
}

/// Time spent with upstreams, all tries together; `None` where none answered.
fn upstream_time(attempts: &[Attempt]) -> Option<Duration> {
    let times = attempts.iter().filter_map(|attempt| {
        let whole = attempt.response_time;
        whole.or(attempt.header_time)
    });
    times.reduce(|sum, time| sum.saturating_add(time))
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use pingora_http::RequestHeader;
    use serde_json::json;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::consumer::{Consumer, GroupLink};
    use crate::kept::Kept;
    use crate::plugins::ctx::{Attached, RequestState, RouteInfo};
    use crate::plugins::respond::Source;

    struct Built {
        metrics: Arc<Metrics>,
        hooks: Hooks,
    }

    fn built(config: &Value, metadata: &Value) -> Built {
        let metrics = Arc::new(Metrics::new("apisix_"));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ctx = BuildCtx {
            owner: &crate::plugins::def::Owner::new("routes/1"),
            metadata,
            attr: &Value::Null,
            attr_of: &|_| Some(&Value::Null),
            https_ports: &[],
            metrics: &metrics,
            kept: &Kept::new(),
            trust: &crate::callout::Trust::System,
            clock: &clock,
            throttle: None,
        };
        let hooks = (DEF.build)(config, &ctx).expect("builds");
        Built { metrics, hooks }
    }

    fn page(built: &Built, state: &mut RequestState) -> String {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        let log = built.hooks.log.as_ref().expect("has the log phase");
        log.log(&RequestCtx::new(&mut head, state));
        String::from_utf8(built.metrics.render()).expect("pages are text")
    }

    fn state() -> RequestState {
        let peer = ([127, 0, 0, 1], 4000).into();
        let now = Instant::now();
        let mut state = RequestState::new(peer, Arc::default(), now, SystemTime::now());
        state.status = 200;
        state.bytes_received = 100;
        state.bytes_sent = 300;
        state.request_time = Duration::from_millis(7);
        state
    }

    fn matched() -> RequestState {
        let mut state = state();
        state.route = Some(Arc::new(RouteInfo {
            id: "1".into(),
            name: Some("orders".into()),
            service_id: Some("s1".into()),
            service_name: None,
            redacted_args: Vec::new(),
        }));
        state.matched_uri = Some("/orders/*".into());
        state.consumer = Some(Attached {
            consumer: Arc::new(Consumer {
                username: "alice".into(),
                plugins: None,
                group: GroupLink::Alone,
                labels: None,
            }),
            credential_id: None,
        });
        for (last_octet, time) in [(1, None), (2, Some(Duration::from_millis(4)))] {
            state.attempts.push(Attempt {
                addr: ([10, 0, 0, last_octet], 80).into(),
                status: Some(200),
                started: state.started,
                connect_time: None,
                header_time: time,
                response_time: time,
            });
        }
        state
    }

    #[test]
    fn a_proxied_request_is_counted_under_apisix_labels() {
        let built = built(&json!({}), &Value::Null);
        let page = page(&built, &mut matched());
        let tail = "consumer=\"alice\",node=\"10.0.0.2\",request_type=\"traditional_http\",\
                    request_llm_model=\"\",llm_model=\"\"";
        for sample in [
            format!(
                "apisix_http_status{{code=\"200\",route=\"1\",matched_uri=\"/orders/*\",\
                 matched_host=\"\",service=\"s1\",{tail},response_source=\"upstream\"}} 1"
            ),
            format!("apisix_bandwidth{{route=\"1\",service=\"s1\",{tail},type=\"ingress\"}} 100"),
            format!("apisix_bandwidth{{route=\"1\",service=\"s1\",{tail},type=\"egress\"}} 300"),
            format!(
                "apisix_http_latency_sum{{route=\"1\",service=\"s1\",{tail},type=\"request\"}} 7"
            ),
            format!(
                "apisix_http_latency_sum{{route=\"1\",service=\"s1\",{tail},type=\"upstream\"}} 4"
            ),
            format!(
                "apisix_http_latency_sum{{route=\"1\",service=\"s1\",{tail},type=\"apisix\"}} 3"
            ),
        ] {
            assert!(page.contains(&format!("{sample}\n")), "{sample}\n{page}");
        }
    }

    #[test]
    fn an_unmatched_request_has_empty_labels_and_no_upstream_time() {
        let built = built(&Value::Null, &Value::Null);
        let mut state = state();
        state.status = 404;
        state.source = Source::Gateway;
        let page = page(&built, &mut state);
        assert!(
            page.contains("code=\"404\",route=\"\",matched_uri=\"\""),
            "{page}"
        );
        assert!(page.contains("response_source=\"apisix\"} 1\n"), "{page}");
        assert!(!page.contains("type=\"upstream\""), "{page}");
    }

    #[test]
    fn names_stand_for_ids_where_wanted_and_known() {
        let built = built(&json!({"prefer_name": true}), &Value::Null);
        let page = page(&built, &mut matched());
        assert!(page.contains("route=\"orders\""), "{page}");
        assert!(page.contains("service=\"s1\""), "{page}");
    }

    #[test]
    fn metadata_empties_labels_except_code() {
        let metadata = json!({"disabled_labels": {
            "http_status": ["node", "consumer", "code", "unknown"],
        }});
        let built = built(&json!({}), &metadata);
        let page = page(&built, &mut matched());
        assert!(page.contains("code=\"200\""), "{page}");
        assert!(
            page.contains("service=\"s1\",consumer=\"\",node=\"\",request_type"),
            "{page}"
        );
        assert!(page.contains("apisix_bandwidth{route=\"1\",service=\"s1\",consumer=\"alice\""));
    }

    #[test]
    fn a_wrong_type_is_refused() {
        let error = parse::<PrometheusConfig>(&json!({"prefer_name": "yes"}));
        assert_eq!(error.err().expect("refused").field, "prefer_name");
    }
}
