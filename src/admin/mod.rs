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
