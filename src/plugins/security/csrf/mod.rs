//! `csrf`: a request that changes something must carry the cookie's token in a header too, which a
//! page of another site cannot (`spec/03` §7). Keeps nothing: a token vouches for itself.

mod token;

use http::{HeaderName, HeaderValue, Method, header};
use pingora_http::ResponseHeader;
use serde::Deserialize;

use crate::clock::unix_secs;
use crate::http::cookie;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, HeaderFilter, Hooks, Step};
use crate::plugins::respond::Response;
use crate::secrets::Secret;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "csrf",
    priority: 2980,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct CsrfConfig {
    /// Signs the tokens.
    key: String,
    /// Seconds a token is good for; 0 (and below, as in APISIX) is for ever.
    #[serde(default = "default_expires")]
    expires: i64,
    /// Name of the cookie and of the header.
    #[serde(default = "default_name")]
    name: String,
}

const fn default_expires() -> i64 {
    7200
}

fn default_name() -> String {
    "apisix-csrf-token".to_owned()
}

struct Csrf {
    key: Secret,
    /// Seconds; `None` is for ever.
    lifetime: Option<u64>,
    /// The cookie, whose name has a case.
    cookie: Box<str>,
    header: HeaderName,
    no_header: Response,
    no_cookie: Response,
    mismatch: Response,
    invalid: Response,
}

fn build(config: CsrfConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let key = Secret::from(config.key);
    // Differs from APISIX: without a key anyone makes tokens.
    if key.is_empty() {
        return Err(BuildError::invalid("key", "must not be empty"));
    }
    // Names of cookies and headers follow one rule: RFC 6265 §4.1.1, RFC 9110 §5.1.
    let header = HeaderName::try_from(&config.name)
        .map_err(|_| BuildError::invalid("name", "must be a header name"))?;
    let refusal = |text: &str| Response::error_msg(401, text);
    let plugin = Csrf {
        key,
        lifetime: u64::try_from(config.expires).ok().filter(|secs| *secs > 0),
        cookie: config.name.into(),
        header,
        no_header: refusal("no csrf token in headers"),
        no_cookie: refusal("no csrf cookie"),
        mismatch: refusal("csrf token mismatch"),
        invalid: refusal("Failed to verify the csrf token signature"),
    };
    let name = plugin.cookie.clone();
    let hooks = Hooks::of(plugin).access().header_filter();
    Ok(hooks.redacts([name]).done())
}

impl Access for Csrf {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        match self.check(req) {
            Ok(()) => Step::CONTINUE,
            Err(refusal) => refusal.clone().into(),
        }
    }
}

impl Csrf {
    fn check(&self, req: &RequestCtx<'_>) -> Result<(), &Response> {
        if matches!(
            req.head.method,
            Method::GET | Method::HEAD | Method::OPTIONS
        ) {
            return Ok(());
        }
        let sent = req.header(&self.header).map(HeaderValue::as_bytes);
        let sent = sent.filter(|token| !token.is_empty());
        let sent = sent.ok_or(&self.no_header)?;
        let cookie = cookie::find_in(&req.head.headers, &self.cookie);
        let cookie = cookie.ok_or(&self.no_cookie)?.as_bytes();
        if sent.len() != cookie.len() || !openssl::memcmp::eq(sent, cookie) {
            return Err(&self.mismatch);
        }
        let now = unix_secs(req.state.started_wall);
        if token::is_good(cookie, &self.key, self.lifetime, now) {
            Ok(())
        } else {
            Err(&self.invalid)
        }
    }
}

impl HeaderFilter for Csrf {
    fn header_filter(&self, req: &mut RequestCtx<'_>, response: &mut ResponseHeader) {
        let now = unix_secs(req.state.started_wall);
        let token = token::issue(&self.key, now);
        let cookie = &self.cookie;
        let cookie = match self.lifetime {
            Some(lifetime) => {
                let end = token::http_date(now.saturating_add(lifetime));
                format!("{cookie}={token};path=/;SameSite=Lax;Expires={end}")
            }
            // Differs from APISIX, whose date is then the present one, so that the cookie is gone
            // as it comes: this one lasts as long as the browser runs.
            None => format!("{cookie}={token};path=/;SameSite=Lax"),
        };
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            // The name is valid, so this cannot fail.
            drop(response.append_header(header::SET_COOKIE, cookie));
        }
    }
}

#[cfg(test)]
mod tests;
