//! `proxy-rewrite`: changes what the upstream is asked (`spec/03` §3). The route choice stays.

use std::borrow::Cow;

use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;

use super::header_edits::HeaderEdits;
use crate::expr::{Captured, Segment, Template, VarSource};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Hooks, Rewrite, Step};
use crate::plugins::respond::Response;
use crate::plugins::target::{Groups, Rewriting, append_query, encode_path, encode_unsafe};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "proxy-rewrite",
    priority: 1008,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct ProxyRewriteConfig {
    /// New path; a template; may carry a query. Beats `regex_uri`.
    uri: Option<String>,
    /// Pairs of a pattern and a template; the first pair that matches is used.
    regex_uri: Option<Vec<String>>,
    /// `Host` to send upstream.
    host: Option<String>,
    /// Method to send upstream.
    method: Option<String>,
    /// Headers to add, set, remove.
    headers: Option<Value>,
    /// Start from the request target as received, and encode nothing.
    #[serde(default)]
    use_real_request_uri_unsafe: bool,
}

/// What becomes of the path.
enum Path {
    Keep,
    /// `uri`: the part before the template's own `?`, and the part behind it.
    Template(Template, Option<Template>),
    Regex(Box<[Rewriting]>),
}

struct ProxyRewrite {
    path: Path,
    raw: bool,
    host: Option<HeaderValue>,
    method: Option<Method>,
    headers: HeaderEdits,
}

const METHODS: [&str; 14] = [
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "LOCK",
    "UNLOCK", "PATCH", "TRACE",
];

fn build(config: &ProxyRewriteConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let regex = config.regex_uri.as_deref().map(pairs).transpose()?;
    let path = match (&config.uri, regex) {
        (Some(uri), _) => template(uri)?,
        (None, Some(pairs)) => Path::Regex(pairs),
        (None, None) => Path::Keep,
    };
    let host = config.host.as_deref().map(host).transpose()?;
    let method = config.method.as_deref().map(method).transpose()?;
    let headers = config
        .headers
        .as_ref()
        .map(HeaderEdits::parse)
        .transpose()?;
    let idle = matches!(path, Path::Keep) && host.is_none() && method.is_none();
    if idle && headers.is_none() && !config.use_real_request_uri_unsafe {
        return Err(BuildError::invalid("", "at least one property is required"));
    }
    let plugin = ProxyRewrite {
        path,
        raw: config.use_real_request_uri_unsafe,
        host,
        method,
        headers: headers.unwrap_or_default(),
    };
    Ok(Hooks::of(plugin).rewrite().done())
}

fn template(uri: &str) -> Result<Path, BuildError> {
    if !uri.starts_with('/') || uri.len() > 4096 {
        return Err(BuildError::invalid(
            "uri",
            "must start with '/' and have at most 4096 characters",
        ));
    }
    // A `?` inside `${name ?? default}` does not start the query.
    let mut depth = 0_usize;
    let query = uri.char_indices().find(|(at, sign)| {
        match sign {
            '{' if uri[..*at].ends_with('$') => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        *sign == '?' && depth == 0
    });
    Ok(match query {
        Some((at, _)) => Path::Template(
            Template::parse(&uri[..at]),
            Some(Template::parse(&uri[at + 1..])),
        ),
        None => Path::Template(Template::parse(uri), None),
    })
}

fn pairs(texts: &[String]) -> Result<Box<[Rewriting]>, BuildError> {
    if texts.is_empty() || !texts.len().is_multiple_of(2) {
        let message = "must be pairs of a regular expression and a template";
        return Err(BuildError::invalid("regex_uri", message));
    }
    let pair = |(index, pair): (usize, &[String])| {
        Rewriting::build(&format!("regex_uri[{}]", index * 2), &pair[0], &pair[1])
    };
    texts.chunks_exact(2).enumerate().map(pair).collect()
}

fn host(text: &str) -> Result<HeaderValue, BuildError> {
    let (name, port) = text
        .split_once(':')
        .map_or((text, None), |(name, port)| (name, Some(port)));
    let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let valid = !name.is_empty()
        && name.bytes().all(name_byte)
        && port.is_none_or(|port| {
            (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
        });
    let value = HeaderValue::from_str(text).ok().filter(|_| valid);
    value.ok_or_else(|| BuildError::invalid("host", "must be a host name, with or without a port"))
}

fn method(text: &str) -> Result<Method, BuildError> {
    let known = METHODS.contains(&text).then(|| text.parse().ok()).flatten();
    known.ok_or_else(|| {
        BuildError::invalid("method", format!("must be one of {}", METHODS.join(", ")))
    })
}

impl Rewrite for ProxyRewrite {
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let groups = match self.rewrite_target(req) {
            Ok(groups) => groups,
            Err(answer) => return (*answer).into(),
        };
        if let Some(host) = &self.host {
            req.state.host_override = Some(host.clone());
        }
        if !self.headers.is_empty() {
            let planned = if self.headers.uses_captures() {
                let source = Captured {
                    source: req,
                    groups: &groups,
                };
                self.headers.plan(&source)
            } else {
                self.headers.plan(req)
            };
            planned.apply(req.head);
        }
        if let Some(method) = &self.method {
            req.set_method(method.clone());
        }
        Step::CONTINUE
    }
}

/// A new request target, and its path decoded where that is another text.
struct NewTarget {
    target: String,
    path: Option<String>,
}

impl ProxyRewrite {
    fn rewrite_target(&self, req: &mut RequestCtx<'_>) -> Result<Groups, Box<Response>> {
        let (new, groups) = match &self.path {
            Path::Keep if self.raw => (Some(received(req)), Groups::new()),
            Path::Keep => (None, Groups::new()),
            Path::Template(path, query) => (
                Some(self.render_target(path, query.as_ref(), req)),
                Groups::new(),
            ),
            Path::Regex(pairs) => self.match_target(pairs, req),
        };
        if let Some(new) = new {
            // A target that starts otherwise would name another host, or nothing.
            if !new.target.starts_with('/') || req.set_target(&new.target).is_err() {
                return Err(Box::new(Response::error_msg(
                    500,
                    "failed to rewrite the request uri",
                )));
            }
            req.state.path = new.path;
        }
        Ok(groups)
    }

    fn render_target(
        &self,
        path: &Template,
        query: Option<&Template>,
        req: &RequestCtx<'_>,
    ) -> NewTarget {
        let rendered = path.text(req);
        let mut new = if self.raw {
            NewTarget {
                target: rendered.into_owned(),
                path: None,
            }
        } else {
            encoded(rendered.into_owned())
        };
        if let Some(query) = query {
            new.target.push('?');
            push_query(query, req, &mut new.target);
        }
        append_query(&mut new.target, req.query());
        new
    }

    fn match_target(
        &self,
        pairs: &[Rewriting],
        req: &RequestCtx<'_>,
    ) -> (Option<NewTarget>, Groups) {
        let subject: Cow<'_, str> = if self.raw {
            received(req).target.into()
        } else {
            req.path().into()
        };
        let Some((text, groups)) = pairs.iter().find_map(|pair| pair.rewrite(&subject, req)) else {
            // Without a match `raw` still sends what was received.
            return (self.raw.then(|| received(req)), Groups::new());
        };
        if self.raw {
            // What was received had its query in it already.
            let new = NewTarget {
                target: text,
                path: None,
            };
            return (Some(new), groups);
        }
        // A `?` of the decoded path is data; only one that the rewriting brought starts a query.
        let mut new = match text.split_once('?') {
            Some((path, query)) if !subject.contains('?') => {
                let mut new = encoded(path.to_owned());
                new.target.push('?');
                new.target.push_str(&encode_unsafe(query));
                new
            }
            _ => encoded(text),
        };
        append_query(&mut new.target, req.query());
        (Some(new), groups)
    }
}

/// The request target as the client sent it.
fn received(req: &RequestCtx<'_>) -> NewTarget {
    let original = req.state.original.as_deref();
    let uri = original.map_or(&req.head.uri, |original| &original.uri);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    NewTarget {
        target: target.to_owned(),
        path: original.is_none().then(|| req.state.path.clone()).flatten(),
    }
}

fn encoded(path: String) -> NewTarget {
    match encode_path(&path) {
        Cow::Borrowed(_) => NewTarget {
            target: path,
            path: None,
        },
        Cow::Owned(target) => NewTarget {
            target,
            path: Some(path),
        },
    }
}

/// Renders a query: its literals as configured, values so that they stay inside their argument.
fn push_query(query: &Template, source: &dyn VarSource, out: &mut String) {
    for segment in query.segments() {
        match segment {
            Segment::Literal(text) => out.push_str(&encode_unsafe(text)),
            Segment::Var { variable, default } => {
                let value = source.var(variable);
                let value = value.as_deref().unwrap_or(default);
                out.push_str(&encode_unsafe(value).replace('#', "%23"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
