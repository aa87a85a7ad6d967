//! `forward-auth`'s fields, read into what a request needs.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::ForwardAuth;
use crate::callout::{Caller, Endpoint, Keepalive, Settings};
use crate::expr::{Segment, Template};
use crate::http::hop_by_hop;
use crate::plugins::def::{BuildCtx, BuildError};

/// As `spec/03` §9.
#[derive(Deserialize)]
pub(super) struct ForwardAuthConfig {
    /// The authorisation server.
    uri: String,
    #[serde(default = "get")]
    request_method: String,
    /// Client headers that the server gets.
    #[serde(default)]
    request_headers: Vec<String>,
    /// Headers made for the server: templates.
    #[serde(default)]
    extra_headers: Map<String, Value>,
    /// Headers of its answer that go upstream.
    #[serde(default)]
    upstream_headers: Vec<String>,
    /// Headers of its refusal that the client gets.
    #[serde(default)]
    client_headers: Vec<String>,
    /// Let the request through where the server does not answer.
    #[serde(default)]
    allow_degradation: bool,
    #[serde(default = "forbidden")]
    status_on_error: u16,
    #[serde(default = "yes")]
    ssl_verify: bool,
    /// Milliseconds for the whole of a call.
    #[serde(default = "three_seconds")]
    timeout: u64,
    #[serde(default = "yes")]
    keepalive: bool,
    /// Milliseconds a connection may wait.
    #[serde(default = "a_minute")]
    keepalive_timeout: u64,
    #[serde(default = "five")]
    keepalive_pool: usize,
    /// Longest body that is sent along.
    #[serde(default = "max_body")]
    max_req_body_size: u64,
}

fn get() -> String {
    "GET".to_owned()
}

const fn forbidden() -> u16 {
    403
}

const fn yes() -> bool {
    true
}

const fn three_seconds() -> u64 {
    3000
}

const fn a_minute() -> u64 {
    60_000
}

const fn five() -> usize {
    5
}

const fn max_body() -> u64 {
    64 << 20
}

/// Longest answer: it is held whole, for each request that waits for one.
const MAX_ANSWER: usize = 1 << 20;

/// The value of a header made for the server.
pub(super) enum Text {
    Ready(HeaderValue),
    Template(Template),
}

pub(super) fn build(
    config: &ForwardAuthConfig,
    ctx: &BuildCtx<'_>,
) -> Result<ForwardAuth, BuildError> {
    let endpoint = Endpoint::parse(&config.uri)
        .map_err(|error| BuildError::invalid("uri", error.to_string()))?;
    let method = match config.request_method.as_str() {
        "GET" => Method::GET,
        "POST" => Method::POST,
        _ => return Err(BuildError::invalid("request_method", "must be GET or POST")),
    };
    let between = |field: &str, holds: bool, expected: &str| {
        holds
            .then_some(())
            .ok_or_else(|| BuildError::invalid(field, format!("must be {expected}")))
    };
    let status = config.status_on_error;
    between(
        "status_on_error",
        (200..600).contains(&status),
        "200 to 599",
    )?;
    let timeout = config.timeout;
    between("timeout", (1..=60_000).contains(&timeout), "1 to 60000")?;
    let idle = config.keepalive_timeout;
    between("keepalive_timeout", idle >= 1000, "at least 1000")?;
    let pool = config.keepalive_pool;
    between("keepalive_pool", pool >= 1, "at least 1")?;
    let limit = config.max_req_body_size;
    between("max_req_body_size", limit >= 1, "at least 1")?;
    let extra_headers = extra_headers(&config.extra_headers)?;
    let settings = Settings {
        timeout: Duration::from_millis(timeout),
        verify: config.ssl_verify,
        keepalive: config.keepalive.then_some(Keepalive {
            idle: Duration::from_millis(idle),
            connections: pool,
        }),
        max_body: MAX_ANSWER,
    };
    let caller = Caller::build(&settings, ctx.trust, ctx.kept)
        .map_err(|error| BuildError::invalid("ssl_verify", error.to_string()))?;
    Ok(ForwardAuth {
        reads_body: method == Method::POST || extra_headers.iter().any(|(_, text)| asks_body(text)),
        caller,
        endpoint,
        method,
        extra_headers,
        request_headers: names("request_headers", &config.request_headers)?,
        upstream_headers: names("upstream_headers", &config.upstream_headers)?,
        client_headers: names("client_headers", &config.client_headers)?,
        allow_degradation: config.allow_degradation,
        status_on_error: status,
        max_body: limit,
    })
}

fn asks_body(text: &Text) -> bool {
    let Text::Template(template) = text else {
        return false;
    };
    template
        .segments()
        .iter()
        .any(|segment| matches!(segment, Segment::Var { variable, .. } if variable.is_of_body()))
}

fn extra_headers(json: &Map<String, Value>) -> Result<Vec<(HeaderName, Text)>, BuildError> {
    let read = |(name, value): (&String, &Value)| {
        let field = format!("extra_headers.{name}");
        let parsed = header_name(&field, name)?;
        let text = match value {
            Value::String(text) => Zeroizing::new(text.clone()),
            Value::Number(number) => Zeroizing::new(number.to_string()),
            _ => return Err(BuildError::invalid(field, "expected a string or a number")),
        };
        let template = Template::parse(&text);
        let Some(literal) = template.literal() else {
            return Ok((parsed, Text::Template(template)));
        };
        let bytes = Bytes::from_owner(Zeroizing::new(literal.as_bytes().to_vec()));
        let mut value = HeaderValue::from_maybe_shared(bytes)
            .map_err(|_| BuildError::invalid(field, "must be a header value"))?;
        value.set_sensitive(true);
        Ok((parsed, Text::Ready(value)))
    };
    json.iter().map(read).collect()
}

fn names(field: &str, texts: &[String]) -> Result<Box<[HeaderName]>, BuildError> {
    let read = |(index, text): (usize, &String)| {
        let field = format!("{field}[{index}]");
        let name = header_name(&field, text)?;
        if name == header::HOST {
            let message =
                "must not be Host, which belongs to each server; X-Forwarded-Host tells it";
            return Err(BuildError::invalid(field, message));
        }
        Ok(name)
    };
    texts.iter().enumerate().map(read).collect()
}

/// A header that may go from one message to another.
fn header_name(field: &str, text: &str) -> Result<HeaderName, BuildError> {
    let name = HeaderName::try_from(text)
        .map_err(|_| BuildError::invalid(field, "must be a header name"))?;
    if hop_by_hop::is_of_one_hop(&name) || name == header::EXPECT {
        let message = "must not be a header of one connection or of a message's length";
        return Err(BuildError::invalid(field, message));
    }
    Ok(name)
}
