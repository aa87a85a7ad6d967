//! Answers a plugin gives instead of the upstream.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

/// Who made a response; becomes the metric label `response_source` (`spec/05` §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// The upstream.
    #[default]
    Upstream,
    /// A plugin or the gateway's own rule (label `apisix`, kept for dashboards).
    Gateway,
    /// The server core, such as a 502 page (label `nginx`, kept for dashboards).
    Core,
}

impl Source {
    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Gateway => "apisix",
            Self::Core => "nginx",
        }
    }
}

/// A complete answer. The proxy adds `Content-Length`, `Date` and `Server`, and runs the header
/// and body filters over it.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; `None` asks for the stock HTML page where the status is 400 or above.
    pub body: Option<Bytes>,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Response {
    /// A status without a body of its own: the stock page for errors, empty otherwise.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
        }
    }

    /// A JSON object and a newline as `text/plain`, as APISIX answers (`spec/00` §7.3).
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, format!("{body}\n"))
    }

    /// `{"message":"…"}`.
    #[must_use]
    pub fn message(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "message": message }))
    }

    /// `{"error_msg":"…"}`.
    #[must_use]
    pub fn error_msg(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error_msg": message }))
    }

    /// Text as it is, `text/plain; charset=utf-8`.
    #[must_use]
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![(header::CONTENT_TYPE, TEXT)],
            body: Some(body.into()),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets `Content-Type`.
    #[must_use]
    pub fn content_type(mut self, value: HeaderValue) -> Self {
        self.headers
            .retain(|(name, _)| name != header::CONTENT_TYPE);
        self.headers.push((header::CONTENT_TYPE, value));
        self
    }
}
