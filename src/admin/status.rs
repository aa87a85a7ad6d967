//! Liveness and readiness (`spec/05` §5), and what is known of references.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::{Answer, answer, not_found, refuse_method};

/// Says whether the gateway may be sent traffic. Asked for each probe; must not wait.
pub trait Readiness: Send + Sync {
    /// Why not, in words for an operator (no configuration yet, a manager without values,
    /// shutting down); `None` when it may.
    fn obstacle(&self) -> Option<String>;

    /// What an operator should know although traffic flows, such as a manager that does not
    /// answer while its values still serve. Shown beside a 200.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Further members of the answer, for machines.
    fn details(&self) -> Option<Value> {
        None
    }

    /// References in use with state, age and version, as this query asks for them; never a value.
    fn references(&self, query: &str) -> Value {
        let _ = query;
        json!({"references": []})
    }
}

impl<F: Fn() -> Option<String> + Send + Sync> Readiness for F {
    fn obstacle(&self) -> Option<String> {
        self()
    }
}

/// Answers `/status`, `/status/ready` and `/status/secrets`.
pub struct StatusApp {
    readiness: Arc<dyn Readiness>,
}

impl StatusApp {
    /// `/status/ready` answers what `readiness` says.
    #[must_use]
    pub fn new(readiness: Arc<dyn Readiness>) -> Self {
        Self { readiness }
    }

    fn respond(&self, method: &Method, path: &str, query: &str) -> Answer {
        let obstacle = match path {
            "/status/secrets" => {
                return refuse_method(method).unwrap_or_else(|| {
                    let body = self.readiness.references(query).to_string();
                    answer(method, 200, JSON, body.into_bytes())
                });
            }
            "/status" => None,
            "/status/ready" => self.readiness.obstacle(),
            _ => return not_found(method),
        };
        if let Some(refusal) = refuse_method(method) {
            return refusal;
        }
        let (remark, details) = match path {
            "/status/ready" => (self.readiness.remark(), self.readiness.details()),
            _ => (None, None),
        };
        let (status, mut body) = match obstacle {
            None => match remark {
                None => (200, json!({"status": "ok"})),
                Some(remark) => (200, json!({"status": "ok", "warning": remark})),
            },
            Some(error) => (503, json!({"status": "error", "error": error})),
        };
        if let (Value::Object(body), Some(Value::Object(details))) = (&mut body, details) {
            body.extend(details);
        }
        answer(method, status, JSON, body.to_string().into_bytes())
    }
}

#[async_trait]
impl ServeHttp for StatusApp {
    async fn response(&self, session: &mut ServerSession) -> Answer {
        let head = session.req_header();
        self.respond(
            &head.method,
            head.uri.path(),
            head.uri.query().unwrap_or_default(),
        )
    }
}

const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_decides_ready_and_nothing_else() {
        let ready = StatusApp::new(Arc::new(|| None));
        let unready = StatusApp::new(Arc::new(|| Some("no \"configuration\" yet".to_owned())));
        let none = r#"{"references":[]}"#;
        let ok = r#"{"status":"ok"}"#;
        let error = r#"{"status":"error","error":"no \"configuration\" yet"}"#;
        for (app, method, path, status, body) in [
            (&ready, Method::GET, "/status", 200, ok),
            (&unready, Method::GET, "/status", 200, ok),
            (&ready, Method::GET, "/status/ready", 200, ok),
            (&unready, Method::GET, "/status/ready", 503, error),
            (&unready, Method::HEAD, "/status/ready", 503, ""),
            (&ready, Method::POST, "/status", 405, "method not allowed\n"),
            (&ready, Method::GET, "/status/secrets", 200, none),
            (
                &ready,
                Method::POST,
                "/status/secrets",
                405,
                "method not allowed\n",
            ),
            (&ready, Method::GET, "/status/", 404, "not found\n"),
            (&ready, Method::GET, "/", 404, "not found\n"),
        ] {
            let response = app.respond(&method, path, "");
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            let text = String::from_utf8_lossy(response.body());
            assert_eq!(text, body, "{method} {path}");
        }
    }
}
