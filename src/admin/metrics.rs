//! The Prometheus listener (`spec/05` §1): one path, read only.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use super::{Answer, answer, not_found, refuse_method};
use crate::telemetry::metrics::Metrics;

/// Answers `export_uri` with the page, everything else with 404.
pub struct MetricsApp {
    metrics: Arc<Metrics>,
    path: String,
}

impl MetricsApp {
    /// `path` is `plugin_attr.prometheus.export_uri` (default `/apisix/prometheus/metrics`).
    pub fn new(metrics: Arc<Metrics>, path: impl Into<String>) -> Self {
        Self {
            metrics,
            path: path.into(),
        }
    }

    fn respond(&self, method: &Method, path: &str) -> Answer {
        if path != self.path {
            return not_found(method);
        }
        refuse_method(method)
            .unwrap_or_else(|| answer(method, 200, EXPOSITION, self.metrics.render()))
    }
}

#[async_trait]
impl ServeHttp for MetricsApp {
    async fn response(&self, session: &mut ServerSession) -> Answer {
        let head = session.req_header();
        self.respond(&head.method, head.uri.path())
    }
}

/// Text format 0.0.4.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configured_path_answers_and_only_to_readers() {
        let app = MetricsApp::new(Arc::new(Metrics::new("apisix_")), "/m");
        for (method, path, status) in [
            (Method::GET, "/m", 200),
            (Method::HEAD, "/m", 200),
            (Method::POST, "/m", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/m/", 404),
        ] {
            let response = app.respond(&method, path);
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            let length = &response.headers()["content-length"];
            let length: usize = length
                .to_str()
                .expect("a number")
                .parse()
                .expect("a number");
            assert!(length > 0);
            let body = if method == Method::HEAD { 0 } else { length };
            assert_eq!(response.body().len(), body, "{method} {path}");
        }
        let page = app.respond(&Method::GET, "/m");
        assert_eq!(page.headers()["content-type"], EXPOSITION);
        let text = String::from_utf8_lossy(page.body());
        assert!(text.contains("apisix_node_info{"), "{text}");
    }
}
