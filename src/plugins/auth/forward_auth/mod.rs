//! `forward-auth`: asks another server whether a request may pass (`spec/03` §9).
//!
//! The server is told of the request in `X-Forwarded-*` headers that no client can set. What it
//! says with 2xx lets the request pass; each of `upstream_headers` then has the server's value or
//! none, so that a client's own never passes for it. Any other status is the client's answer.
//! No whole answer in time is a refusal, unless `allow_degradation` says otherwise.

mod config;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::callout::{Answer, Call, Caller, Endpoint};
use crate::expr::{Name, VarSource, Variable};
use crate::http::hop_by_hop::{is_nominated, is_of_one_hop};
use crate::http::{lookalike, path};
use crate::plugins::body::{Ahead, BodyError};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Flow, Hooks, Step};
use crate::plugins::respond::Response;
use config::Text;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "forward-auth",
    priority: 2002,
    kind: PluginKind::Ordinary,
    build: |json, ctx| {
        let plugin = config::build(&def::parse(json)?, ctx)?;
        let reads_body = plugin.reads_body;
        let hooks = Hooks::of(plugin).access();
        Ok(if reads_body {
            hooks.reads_body()
        } else {
            hooks
        }
        .done())
    },
    credential: None,
};

struct ForwardAuth {
    caller: Caller,
    endpoint: Endpoint,
    method: Method,
    request_headers: Box<[HeaderName]>,
    extra_headers: Vec<(HeaderName, Text)>,
    upstream_headers: Box<[HeaderName]>,
    client_headers: Box<[HeaderName]>,
    allow_degradation: bool,
    status_on_error: u16,
    /// The body goes along, or a template names a part of it.
    reads_body: bool,
    max_body: u64,
}

const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Access for ForwardAuth {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        Step::Wait(Box::pin(async move {
            match self.decide(req).await {
                Ok(()) => Flow::Continue,
                Err(refusal) => refusal.into(),
            }
        }))
    }
}

impl ForwardAuth {
    async fn decide(&self, req: &mut RequestCtx<'_>) -> Result<(), Response> {
        let call = self.call(req).await?;
        match self.caller.call(call).await {
            Ok(answer) if answer.status.is_success() => {
                self.hand_on(req, &answer.headers);
                Ok(())
            }
            Ok(answer) if (300..600).contains(&answer.status.as_u16()) => Err(self.refusal(answer)),
            Ok(_) => self.unanswered(req, "the status is none that HTTP knows"),
            Err(error) => self.unanswered(req, &error.to_string()),
        }
    }

    /// The question. A request that cannot be put into it is refused.
    async fn call(&self, req: &mut RequestCtx<'_>) -> Result<Call, Response> {
        let body = if self.reads_body {
            match req.whole_body(self.max_body).await {
                Ok(Ahead::Whole(body)) => body,
                // RFC 9110 §15.5.12: the client may try again with a `Content-Length`.
                Ok(Ahead::Later) => return Err(Response::status(411)),
                Err(BodyError::TooLarge(size)) => return Err(self.too_large(size)),
                Err(BodyError::Broken(status)) => return Err(Response::status(status)),
            }
        } else {
            bytes::Bytes::new()
        };
        let headers = self.headers(req).ok_or_else(|| Response::status(400))?;
        let body = if self.method == Method::POST {
            body.into()
        } else {
            reqwest::Body::default()
        };
        Ok(Call {
            method: self.method.clone(),
            endpoint: self.endpoint.clone(),
            headers,
            body,
        })
    }

    fn too_large(&self, size: u64) -> Response {
        let limit = self.max_body;
        let message =
            format!("request size {size} is greater than the maximum size {limit} allowed");
        Response::message(413, &message)
    }

    /// `None` where something of the request cannot stand in a header.
    fn headers(&self, req: &RequestCtx<'_>) -> Option<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(PROTO, HeaderValue::from_static(req.scheme()));
        headers.insert(METHOD, req.head.method.as_str().parse().ok()?);
        if let Some(host) = req.var(&Variable::Known(Name::Host)) {
            headers.insert(HOST, HeaderValue::from_str(&host).ok()?);
        }
        headers.insert(URI, forwarded_uri(req)?);
        let client = req.client_ip().to_canonical().to_string();
        headers.insert(FOR, client.parse().ok()?);
        if self.method == Method::POST {
            copy(&header::CONTENT_ENCODING, &req.head.headers, &mut headers);
        }
        for (name, text) in &self.extra_headers {
            let value = match text {
                Text::Ready(value) => value.clone(),
                Text::Template(template) => HeaderValue::from_str(&template.text(req)).ok()?,
            };
            headers.insert(name, value);
        }
        for name in &self.request_headers {
            if !headers.contains_key(name) {
                copy(name, &req.head.headers, &mut headers);
            }
        }
        Some(headers)
    }

    /// Puts the server's values into the request, and takes the client's own out.
    fn hand_on(&self, req: &mut RequestCtx<'_>, answered: &HeaderMap) {
        let names = self.upstream_headers.iter().map(HeaderName::as_str);
        lookalike::remove(req.head, names);
        for name in &self.upstream_headers {
            req.head.remove_header(name);
            if is_nominated(name, answered) {
                continue;
            }
            for value in answered.get_all(name) {
                // Name and value were headers already, so this cannot fail.
                drop(req.head.append_header(name.clone(), value.clone()));
            }
        }
    }

    /// The server's refusal as the client gets it.
    fn refusal(&self, mut answer: Answer) -> Response {
        let mut response = Response::status(answer.status.as_u16());
        for name in &self.client_headers {
            if is_of_one_hop(name) || is_nominated(name, &answer.headers) {
                continue;
            }
            for value in answer.headers.get_all(name) {
                response = response.with_header(name.clone(), value.clone());
            }
        }
        response.body = Some(std::mem::take(&mut *answer.body).into());
        response
    }

    /// Nobody vouches for the request.
    fn unanswered(&self, req: &mut RequestCtx<'_>, why: &str) -> Result<(), Response> {
        log::warn!("forward-auth got no decision: {why}");
        if !self.allow_degradation {
            return Err(Response::status(self.status_on_error));
        }
        self.hand_on(req, &HeaderMap::new());
        Ok(())
    }
}

/// Path, as it was matched and spelled as in URLs, and query.
fn forwarded_uri(req: &RequestCtx<'_>) -> Option<HeaderValue> {
    let uri = &req.head.uri;
    let Some(normal) = &req.state.path else {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        return HeaderValue::from_str(target).ok();
    };
    let mut target = path::spelled(uri.path(), normal);
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    HeaderValue::try_from(target).ok()
}

/// Copies all values of a header, `Cookie` as the one line that HTTP/1.1 has (RFC 9113 §8.2.3).
fn copy(name: &HeaderName, from: &HeaderMap, to: &mut HeaderMap) {
    let mut values = from.get_all(name).iter();
    if *name == header::COOKIE {
        let lines: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
        if let Ok(line) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
            && !lines.is_empty()
        {
            to.insert(name, line);
        }
        return;
    }
    if let Some(first) = values.next() {
        to.insert(name, first.clone());
    }
    for value in values {
        to.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests;
