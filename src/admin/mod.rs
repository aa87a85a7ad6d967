//! What operators and their tools ask the gateway: status, metrics. Each on a listener of its
//! own with a thread of its own; traffic never passes here.

pub mod metrics;
pub mod status;

use http::{HeaderValue, Method, Response, header};
use pingora_core::services::listening::Service;

pub use metrics::MetricsApp;
pub use status::{Readiness, StatusApp};

/// A service with one thread that serves `app` on `addresses` (`ip:port`).
#[must_use]
pub fn service<A>(name: &str, addresses: &[String], app: A) -> Service<A> {
    let mut service = Service::new(name.to_owned(), app);
    service.threads = Some(1);
    for address in addresses {
        service.add_tcp(address);
    }
    service
}

/// An answer with `Content-Length`. To HEAD the body's length is told and the body left out.
fn answer(method: &Method, status: u16, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if *method != Method::HEAD {
        *answer.body_mut() = body;
    }
    answer
}

/// 405 where the method is not one that only reads.
fn refuse_method(method: &Method) -> Option<Answer> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut refusal = answer(method, 405, TEXT, b"method not allowed\n".to_vec());
    let allowed = HeaderValue::from_static("GET, HEAD");
    refusal.headers_mut().insert(header::ALLOW, allowed);
    Some(refusal)
}

fn not_found(method: &Method) -> Answer {
    answer(method, 404, TEXT, b"not found\n".to_vec())
}

type Answer = Response<Vec<u8>>;

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pingora_core::apps::HttpServerApp;
    use pingora_core::protocols::http::ServerSession;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What the app answers over a connection that stays open on our side.
    async fn exchange(request: &str) -> String {
        let app = Arc::new(StatusApp::new(Arc::new(|| Some("not yet".to_owned()))));
        let (mut client, server) = tokio::io::duplex(4096);
        let (_running, shutdown) = tokio::sync::watch::channel(false);
        client.write_all(request.as_bytes()).await.expect("writes");
        let session = ServerSession::new_http1(Box::new(server));
        drop(app.process_new_http(session, &shutdown).await);
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("reads");
        text
    }

    #[tokio::test]
    async fn answers_are_complete_on_the_wire() {
        let get = exchange("GET /status/ready HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let body = r#"{"status":"error","error":"not yet"}"#;
        assert!(get.starts_with("HTTP/1.1 503 "), "{get}");
        assert!(get.ends_with(&format!("\r\n\r\n{body}")), "{get}");
        let length = format!("content-length: {}\r\n", body.len());
        assert!(get.to_lowercase().contains(&length), "{get}");
        let head = exchange("HEAD /status/ready HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.to_lowercase().contains(&length), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let post = exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await;
        assert!(post.starts_with("HTTP/1.1 404 "), "{post}");
    }
}
