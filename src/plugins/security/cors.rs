//! `cors`: answers `OPTIONS` and tells browsers who may read responses (`spec/03` §6).

use std::collections::HashSet;

use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue, ORIGIN, VARY};
use pingora_http::ResponseHeader;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::expr::pattern;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{HeaderFilter, Hooks, Rewrite, Step};
use crate::plugins::respond::Response;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "cors",
    priority: 4000,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
#[serde(default)]
struct CorsConfig {
    /// `*`, `**` (whatever asks), `null`, or origins separated by commas.
    allow_origins: String,
    /// `*`, `**` (every method), or methods separated by commas.
    allow_methods: String,
    /// `*`, `**` (whatever is asked for), or headers separated by commas.
    allow_headers: String,
    /// Headers scripts may read.
    expose_headers: Option<String>,
    /// Seconds a browser may remember the answer.
    max_age: i64,
    /// Whether requests may carry credentials.
    allow_credential: bool,
    /// Patterns of origins; they replace `allow_origins`.
    allow_origins_by_regex: Option<Vec<String>>,
    /// Keys into `allow_origins` of the plugin's metadata, asked where nothing else fits.
    allow_origins_by_metadata: Option<Vec<String>>,
    /// As `allow_origins`, for `Timing-Allow-Origin`.
    timing_allow_origins: Option<String>,
    /// As `allow_origins_by_regex`, for `Timing-Allow-Origin`.
    timing_allow_origins_by_regex: Option<Vec<String>>,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self {
            allow_origins: "*".to_owned(),
            allow_methods: "*".to_owned(),
            allow_headers: "*".to_owned(),
            expose_headers: None,
            max_age: 5,
            allow_credential: false,
            allow_origins_by_regex: None,
            allow_origins_by_metadata: None,
            timing_allow_origins: None,
            timing_allow_origins_by_regex: None,
        }
    }
}

/// Which origins fit.
enum Origins {
    /// `*`: everyone, told so.
    Any,
    /// `**`: everyone, told its own name.
    Reflect,
    Listed(HashSet<Box<[u8]>>),
    Patterns(Box<[Regex]>),
}

struct Cors {
    origins: Origins,
    metadata: Option<Origins>,
    timing: Option<Origins>,
    methods: HeaderValue,
    /// `None` reflects what the browser asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    credentials: bool,
    /// Whether the response depends on the origin.
    varies: bool,
}

/// The `Origin` the client sent, kept before later plugins may change it.
#[derive(Default)]
struct SentOrigin(Option<HeaderValue>);

const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

fn build(config: &CorsConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let stars = [
        Some(&config.allow_origins),
        Some(&config.allow_methods),
        Some(&config.allow_headers),
        config.expose_headers.as_ref(),
        config.timing_allow_origins.as_ref(),
    ];
    if config.allow_credential && stars.into_iter().flatten().any(|option| option == "*") {
        return Err(BuildError::invalid(
            "allow_credential",
            "you can not set '*' for other option when 'allow_credential' is true",
        ));
    }
    let listed = Origins::parse("allow_origins", &config.allow_origins)?;
    let origins = match &config.allow_origins_by_regex {
        Some(patterns) => Origins::patterns("allow_origins_by_regex", patterns)?,
        None => listed,
    };
    let timing = match (
        &config.timing_allow_origins_by_regex,
        &config.timing_allow_origins,
    ) {
        (Some(patterns), _) => Some(Origins::patterns(
            "timing_allow_origins_by_regex",
            patterns,
        )?),
        (None, Some(list)) => Some(Origins::parse("timing_allow_origins", list)?),
        (None, None) => None,
    };
    let methods = match config.allow_methods.as_str() {
        "**" => ALL_METHODS,
        methods => methods,
    };
    let metadata = config.allow_origins_by_metadata.as_deref();
    let metadata = metadata.map(|keys| from_metadata(keys, ctx.metadata));
    let expose = config
        .expose_headers
        .as_deref()
        .filter(|list| !list.is_empty());
    let plugin = Cors {
        // Differs from APISIX: it leaves `Vary` out where only a pattern makes a difference, and
        // caches then mix up origins.
        varies: !matches!(origins, Origins::Any) || metadata.is_some(),
        origins,
        metadata: metadata.transpose()?,
        timing,
        methods: value("allow_methods", methods)?,
        headers: match config.allow_headers.as_str() {
            "**" => None,
            headers => Some(value("allow_headers", headers)?),
        },
        expose: expose
            .map(|list| value("expose_headers", list))
            .transpose()?,
        max_age: HeaderValue::from(config.max_age),
        credentials: config.allow_credential,
    };
    Ok(Hooks::of(plugin).rewrite().header_filter().done())
}

fn value(field: &str, text: &str) -> Result<HeaderValue, BuildError> {
    HeaderValue::from_str(text)
        .map_err(|_| BuildError::invalid(field, "must be printable ASCII characters"))
}

/// All origins that the metadata lists under these keys.
fn from_metadata(keys: &[String], metadata: &Value) -> Result<Origins, BuildError> {
    if keys.is_empty() {
        return Err(BuildError::invalid(
            "allow_origins_by_metadata",
            "must not be empty",
        ));
    }
    let lists = keys
        .iter()
        .filter_map(|key| metadata.get("allow_origins")?.get(key)?.as_str());
    let mut all = HashSet::new();
    for list in lists {
        match Origins::parse("allow_origins_by_metadata", list)? {
            Origins::Listed(origins) => all.extend(origins),
            any => return Ok(any),
        }
    }
    Ok(Origins::Listed(all))
}

impl Origins {
    fn parse(field: &str, text: &str) -> Result<Self, BuildError> {
        match text {
            "*" => return Ok(Self::Any),
            "**" => return Ok(Self::Reflect),
            _ => {}
        }
        let origin = |origin: &str| {
            let valid = text == "null"
                || origin.split_once("://").is_some_and(|(scheme, host)| {
                    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                    !scheme.is_empty() && scheme.bytes().all(word) && !host.is_empty()
                });
            valid.then(|| origin.as_bytes().into())
        };
        let origins: Option<_> = text.split(',').map(origin).collect();
        origins.map(Self::Listed).ok_or_else(|| {
            BuildError::invalid(
                field,
                "must be '*', '**', 'null', or scheme://host[:port] separated by commas",
            )
        })
    }

    fn patterns(field: &str, patterns: &[String]) -> Result<Self, BuildError> {
        if patterns.is_empty() {
            return Err(BuildError::invalid(field, "must not be empty"));
        }
        let compile = |(index, text): (usize, &String)| {
            pattern::compile(text, false).map_err(|error| {
                BuildError::invalid(format!("{field}[{index}]"), error.to_string())
            })
        };
        let compiled: Result<_, _> = patterns.iter().enumerate().map(compile).collect();
        compiled.map(Self::Patterns)
    }

    /// What to tell this origin; `None` where it does not fit.
    fn answer(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let origin = match self {
            Self::Any => return Some(ANY),
            Self::Reflect => return Some(origin.cloned().unwrap_or(ANY)),
            Self::Listed(_) | Self::Patterns(_) => origin?,
        };
        let fits = match self {
            Self::Any | Self::Reflect => true,
            Self::Listed(origins) => origins.contains(origin.as_bytes()),
            Self::Patterns(patterns) => origin
                .to_str()
                .is_ok_and(|origin| patterns.iter().any(|pattern| pattern.is_match(origin))),
        };
        fits.then(|| origin.clone())
    }
}

impl Rewrite for Cors {
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        if let Some(origin) = req.header(&ORIGIN).cloned() {
            req.state.extension::<SentOrigin>().0.get_or_insert(origin);
        }
        if req.head.method == Method::OPTIONS {
            return Response::status(200).into();
        }
        Step::CONTINUE
    }
}

impl HeaderFilter for Cors {
    fn header_filter(&self, req: &mut RequestCtx<'_>, response: &mut ResponseHeader) {
        let sent = req.state.extension_ref::<SentOrigin>();
        let origin = sent.map_or_else(|| req.header(&ORIGIN), |sent| sent.0.as_ref());
        let by_metadata = || self.metadata.as_ref()?.answer(origin);
        if self.varies {
            vary_by_origin(response);
        }
        if let Some(allowed) = self.origins.answer(origin).or_else(by_metadata) {
            let asked = req.header(&ACCESS_CONTROL_REQUEST_HEADERS);
            self.tell(allowed, asked, response);
        }
        if let Some(allowed) = self
            .timing
            .as_ref()
            .and_then(|timing| timing.answer(origin))
        {
            insert(response, "Timing-Allow-Origin", allowed);
        }
    }
}

impl Cors {
    fn tell(
        &self,
        origin: HeaderValue,
        asked: Option<&HeaderValue>,
        response: &mut ResponseHeader,
    ) {
        insert(response, "Access-Control-Allow-Origin", origin);
        insert(
            response,
            "Access-Control-Allow-Methods",
            self.methods.clone(),
        );
        insert(response, "Access-Control-Max-Age", self.max_age.clone());
        if let Some(expose) = &self.expose {
            insert(response, "Access-Control-Expose-Headers", expose.clone());
        }
        if let Some(headers) = self.headers.as_ref().or(asked) {
            insert(response, "Access-Control-Allow-Headers", headers.clone());
        }
        if self.credentials {
            insert(response, "Access-Control-Allow-Credentials", TRUE);
        }
    }
}

fn insert(response: &mut ResponseHeader, name: &'static str, value: HeaderValue) {
    let inserted = response.insert_header(name, value);
    debug_assert!(inserted.is_ok(), "constant names are valid");
}

fn vary_by_origin(response: &mut ResponseHeader) {
    let varies = response.headers.get_all(VARY).iter().any(|value| {
        let names = value.to_str().unwrap_or_default().split(',');
        names
            .map(str::trim)
            .any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    });
    if !varies {
        let appended = response.append_header("Vary", VARY_ORIGIN);
        debug_assert!(appended.is_ok(), "constant names are valid");
    }
}

#[cfg(test)]
mod tests;
