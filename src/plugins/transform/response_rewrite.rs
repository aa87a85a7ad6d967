//! `response-rewrite`: changes status, headers and body of a response (`spec/03` §4), also of one
//! the gateway made itself.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{Method, StatusCode};
use pingora_http::ResponseHeader;
use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use super::decode::{self, Encoding};
use super::filter::{Filter, FilterConfig};
use super::header_edits::HeaderEdits;
use crate::expr::Expr;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{BodyFilter, HeaderFilter, Hooks};
use crate::plugins::vars::{ResponseVars, Vars};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "response-rewrite",
    priority: 899,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct ResponseRewriteConfig {
    /// New status: 200 to 598.
    status_code: Option<u16>,
    /// New body.
    body: Option<String>,
    /// Whether `body` is base64.
    #[serde(default)]
    body_base64: bool,
    /// Headers to add, set, remove.
    headers: Option<Value>,
    /// Only responses that fit are changed.
    vars: Option<Value>,
    /// Replacements in the body.
    filters: Option<Vec<FilterConfig>>,
    /// Bytes of a body that filters see, before and after decoding; the rest is cut off.
    #[serde(default = "default_max_body_bytes")]
    max_resp_body_size: usize,
}

const fn default_max_body_bytes() -> usize {
    64 << 20
}

enum BodyChange {
    Keep,
    Replace(Bytes),
    Filter(Box<[Filter]>),
}

struct ResponseRewrite {
    status: Option<StatusCode>,
    headers: HeaderEdits,
    vars: Option<Expr>,
    body: BodyChange,
    max_body_bytes: usize,
}

fn build(config: ResponseRewriteConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let status = config.status_code.map(|code| {
        let status = StatusCode::from_u16(code)
            .ok()
            .filter(|_| (200..=598).contains(&code));
        status.ok_or_else(|| BuildError::invalid("status_code", "must be 200 to 598"))
    });
    let vars = config.vars.as_ref().map(|vars| {
        Expr::parse(vars).map_err(|error| BuildError::invalid("vars", error.to_string()))
    });
    let body = match (config.body, config.filters) {
        (Some(_), Some(_)) => {
            return Err(BuildError::invalid(
                "",
                "body and filters exclude each other",
            ));
        }
        (Some(body), None) => BodyChange::Replace(new_body(body, config.body_base64)?),
        (None, Some(filters)) if filters.is_empty() => {
            return Err(BuildError::invalid("filters", "must not be empty"));
        }
        (None, Some(filters)) => {
            let filters = filters.iter().enumerate();
            let filters = filters.map(|(index, filter)| Filter::build(index, filter));
            BodyChange::Filter(filters.collect::<Result<_, _>>()?)
        }
        (None, None) => BodyChange::Keep,
    };
    if config.max_resp_body_size == 0 {
        return Err(BuildError::invalid("max_resp_body_size", "must be above 0"));
    }
    let headers = config.headers.as_ref().map(HeaderEdits::parse);
    let plugin = ResponseRewrite {
        status: status.transpose()?,
        headers: headers.transpose()?.unwrap_or_default(),
        vars: vars.transpose()?,
        body,
        max_body_bytes: config.max_resp_body_size,
    };
    let changes_body = !matches!(plugin.body, BodyChange::Keep);
    let hooks = Hooks::of(plugin).header_filter();
    Ok(if changes_body {
        hooks.body_filter().done()
    } else {
        hooks.done()
    })
}

fn new_body(body: String, base64: bool) -> Result<Bytes, BuildError> {
    if !base64 {
        return Ok(body.into());
    }
    let decoded = STANDARD
        .decode(body.trim())
        .ok()
        .filter(|body| !body.is_empty());
    let decoded = decoded.ok_or_else(|| BuildError::invalid("body", "invalid base64 content"))?;
    Ok(decoded.into())
}

/// What to do with the body of one response.
enum Work {
    /// Send the new body at the first piece, then nothing.
    Replace { sent: bool },
    /// Collect, then filter.
    Collect { held: BytesMut, encoding: Encoding },
}

/// This request's work, by instance: the plugin may stand on a global rule and on the route.
#[derive(Default)]
struct Pending(SmallVec<[(usize, Work); 1]>);

impl HeaderFilter for ResponseRewrite {
    fn header_filter(&self, req: &mut RequestCtx<'_>, response: &mut ResponseHeader) {
        // A response that broke before it was sent is answered anew: nothing of it remains.
        if let Some(Pending(pending)) = req.state.extension_mut() {
            pending.retain(|(owner, _)| *owner != self.instance());
        }
        let vars = ResponseVars {
            request: Vars {
                head: req.head,
                state: req.state,
            },
            response,
        };
        if self.vars.as_ref().is_some_and(|expr| !expr.matches(&vars)) {
            return;
        }
        let planned = self.headers.plan(&vars);
        if let Some(status) = self.status {
            let set = response.set_status(status);
            debug_assert!(set.is_ok(), "status was checked at load");
        }
        if let Some(work) = self.work(response) {
            for name in [CONTENT_LENGTH, CONTENT_ENCODING, ETAG, LAST_MODIFIED] {
                response.remove_header(&name);
            }
            // A response without a body keeps having none.
            let bodiless = req.head.method == Method::HEAD
                || response.status.is_informational()
                || matches!(response.status.as_u16(), 204 | 304);
            if !bodiless {
                let pending = &mut req.state.extension::<Pending>().0;
                pending.push((self.instance(), work));
            }
        }
        planned.apply(response);
    }
}

impl BodyFilter for ResponseRewrite {
    fn body_filter(&self, req: &mut RequestCtx<'_>, body: &mut Option<Bytes>, end: bool) {
        let instance = self.instance();
        let pending = &mut req.state.extension::<Pending>().0;
        let work = pending.iter_mut().find(|(owner, _)| *owner == instance);
        let Some((_, work)) = work else { return };
        match (&self.body, work) {
            (BodyChange::Replace(new), Work::Replace { sent }) => {
                *body = (!std::mem::replace(sent, true)).then(|| new.clone());
            }
            (BodyChange::Filter(filters), Work::Collect { held, encoding }) => {
                if let Some(piece) = body.take() {
                    let room = self.max_body_bytes - held.len();
                    held.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                if end {
                    let whole = std::mem::take(held).freeze();
                    *body = Some(self.filtered(filters, whole, *encoding));
                }
            }
            _ => {}
        }
    }
}

impl ResponseRewrite {
    /// Tells instances apart; each lives as long as the snapshot the request holds.
    fn instance(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn work(&self, response: &ResponseHeader) -> Option<Work> {
        match &self.body {
            BodyChange::Keep => None,
            BodyChange::Replace(_) => Some(Work::Replace { sent: false }),
            BodyChange::Filter(_) => {
                let Some(encoding) = Encoding::of(&response.headers) else {
                    log::warn!("response-rewrite: filters do not know this content encoding");
                    return None;
                };
                Some(Work::Collect {
                    held: BytesMut::new(),
                    encoding,
                })
            }
        }
    }

    fn filtered(&self, filters: &[Filter], body: Bytes, encoding: Encoding) -> Bytes {
        let decoded = match decode::decode(encoding, &body, self.max_body_bytes) {
            Ok(None) => Cow::Borrowed(&*body),
            Ok(Some(decoded)) => Cow::Owned(decoded),
            Err(error) => {
                // Its Content-Encoding is gone already, so what could be decoded is all there is.
                log::error!("response-rewrite: body cannot be decoded: {}", error.source);
                Cow::Owned(error.decoded)
            }
        };
        let mut text = decoded;
        for filter in filters {
            if let Some(changed) = filter.apply(&text) {
                text = Cow::Owned(changed);
            }
        }
        match text {
            Cow::Borrowed(_) => body,
            Cow::Owned(text) => text.into(),
        }
    }
}

#[cfg(test)]
mod tests;
