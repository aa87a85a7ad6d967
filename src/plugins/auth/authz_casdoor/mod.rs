//! `authz-casdoor`: sends browsers to Casdoor to log in (`spec/02` §9). What the browser carries
//! meanwhile and afterwards is sealed ([`session`]); where it goes back to is a path of ours, read
//! out of that seal, so that no link can send it elsewhere.

mod session;
mod token;
mod used;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, header};
use openssl::memcmp;
use openssl::sha::sha256;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use serde::Deserialize;

use super::hide;
use crate::callout::{Caller, Endpoint, Keepalive, Settings};
use crate::http::{cookie, path, query};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Hooks, Step};
use crate::plugins::respond::Response;
use crate::secrets::Secret;
use session::{Cookie, Sealer, fresh_state};
use token::TokenEndpoint;
use used::Used;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "authz-casdoor",
    priority: 2559,
    kind: PluginKind::Ordinary,
    build: |json, ctx| {
        let plugin = build(def::parse(json)?, ctx)?;
        let cookie = plugin.cookie.clone();
        let hooks = Hooks::of(plugin).access();
        Ok(hooks.redacts([&cookie, "code", "state"]).done())
    },
    credential: None,
};

#[derive(Deserialize)]
struct AuthzCasdoorConfig {
    /// Casdoor's address, for us and for browsers.
    endpoint_addr: String,
    client_id: String,
    client_secret: String,
    /// Where Casdoor sends browsers back to: an address of this route.
    callback_url: String,
}

struct AuthzCasdoor {
    endpoint: Endpoint,
    callback_url: String,
    /// Path of the callback, decoded.
    callback: String,
    client_id: String,
    /// Name of the cookie, and what stands behind its value.
    cookie: String,
    attributes: &'static str,
    sealer: Sealer,
    tokens: TokenEndpoint,
    used: Arc<Used>,
}

/// Time to log in.
const LOGIN: Duration = Duration::from_secs(600);
/// Time for Casdoor's answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of Casdoor.
const MAX_ANSWER: usize = 1 << 20;
/// Longest way back that a cookie takes along; browsers drop cookies beyond 4 KiB.
const MAX_TARGET: usize = 2048;

fn build(config: AuthzCasdoorConfig, ctx: &BuildCtx<'_>) -> Result<AuthzCasdoor, BuildError> {
    let client_secret = Secret::from(config.client_secret);
    let endpoint = address("endpoint_addr", &config.endpoint_addr)?;
    let callback = address("callback_url", &config.callback_url)?;
    if config.client_id.is_empty() {
        return Err(BuildError::invalid("client_id", "must not be empty"));
    }
    if client_secret.expose().is_empty() {
        return Err(BuildError::invalid("client_secret", "must not be empty"));
    }
    let normal = path::normalize(callback.path(), &path::PathRules::default());
    let normal = normal.map_err(|_| BuildError::invalid("callback_url", "has no valid path"))?;
    let callback_path = normal.decoded.into_owned();
    if callback_path == "/" {
        return Err(BuildError::invalid("callback_url", "must have a path"));
    }
    let unavailable = |_| BuildError::invalid("", "the TLS library gives no key");
    // Sessions of one host are none of another's, also where both have the same client.
    let host = callback.origin();
    let owner = [config.client_id.as_str(), endpoint.as_str(), &host];
    let sealer = Sealer::new(client_secret.expose(), &owner).map_err(unavailable)?;
    let settings = Settings {
        timeout: TIMEOUT,
        verify: true,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(60),
            connections: 5,
        }),
        max_body: MAX_ANSWER,
    };
    let caller = Caller::build(&settings, ctx.trust, ctx.kept)
        .map_err(|error| BuildError::invalid("endpoint_addr", error.to_string()))?;
    let digest: String = sha256(config.client_id.as_bytes())[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let cookie = format!("authz_casdoor_session_{digest}");
    Ok(AuthzCasdoor {
        callback: callback_path,
        attributes: if callback.is_https() {
            "; Path=/; HttpOnly; SameSite=Lax; Secure"
        } else {
            "; Path=/; HttpOnly; SameSite=Lax"
        },
        sealer,
        tokens: TokenEndpoint {
            caller,
            endpoint: endpoint.at("/api/login/oauth/access_token", &[]),
            client_id: config.client_id.clone(),
            client_secret,
        },
        used: ctx
            .kept
            .entry(&format!("authz-casdoor/used/{digest}"), Used::default),
        endpoint,
        callback_url: config.callback_url,
        client_id: config.client_id,
        cookie,
    })
}

/// An address as APISIX takes it: without query and without `/` at its end.
fn address(field: &str, text: &str) -> Result<Endpoint, BuildError> {
    let expected = || {
        BuildError::invalid(
            field,
            "expected http(s)://host[:port][/path] without '?' and without '/' at the end",
        )
    };
    if text.contains('?') || text.ends_with('/') {
        return Err(expected());
    }
    Endpoint::parse(text).map_err(|_| expected())
}

impl Access for AuthzCasdoor {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let now = req.state.started_wall;
        let carried = self
            .take_cookie(req)
            .and_then(|value| self.sealer.open(&value, now));
        let received = req.received();
        if received.path == self.callback {
            let query = received.query.unwrap_or_default().to_owned();
            return Step::Wait(Box::pin(async move {
                let outcome = self.come_back(&query, carried, now).await;
                outcome.unwrap_or_else(|refusal| refusal).into()
            }));
        }
        match carried {
            Some(Cookie::Session) => Step::CONTINUE,
            carried => self.send_away(req, carried).into(),
        }
    }
}

/// Cookies that were taken out of the request, by name: another plugin of the same client may
/// stand behind this one.
#[derive(Default)]
struct Taken(Vec<(String, String)>);

impl AuthzCasdoor {
    /// The cookie's value. It is nobody else's: whoever has it is logged in, so it goes neither
    /// upstream nor to another server.
    fn take_cookie(&self, req: &mut RequestCtx<'_>) -> Option<String> {
        let Some(value) = cookie::find_in(&req.head.headers, &self.cookie) else {
            let Taken(taken) = req.state.extension_ref()?;
            let mut taken = taken.iter();
            let (_, value) = taken.find(|(name, _)| *name == self.cookie)?;
            return Some(value.clone());
        };
        let value = value.to_owned();
        hide::from_cookies(req, &self.cookie);
        let taken = req.state.extension::<Taken>();
        taken.0.push((self.cookie.clone(), value.clone()));
        Some(value)
    }

    /// To Casdoor, with a state that the browser has to bring back. One login serves all that a
    /// browser asks for meanwhile: its icon must not take the place of the page.
    fn send_away(&self, req: &RequestCtx<'_>, carried: Option<Cookie>) -> Response {
        let under_way = match carried {
            Some(Cookie::Login { state, target }) if !self.used.knows(&state) => {
                Some((state, target))
            }
            _ => None,
        };
        let (state, target) = match under_way {
            Some((state, _)) if asks_for_page(req) => (state, target(req)),
            Some(login) => login,
            None => match fresh_state() {
                Ok(state) => (state, target(req)),
                Err(_) => return Response::status(503),
            },
        };
        let query = [
            ("response_type", "code"),
            ("scope", "read"),
            ("state", &*state),
            ("client_id", &*self.client_id),
            ("redirect_uri", &*self.callback_url),
        ];
        let authorize = self.endpoint.at("/login/oauth/authorize", &query);
        let login = Cookie::Login { state, target };
        self.redirect(authorize.as_str(), &login, LOGIN, req.state.started_wall)
    }

    /// From Casdoor, with a code for the state that went there.
    async fn come_back(
        &self,
        query: &str,
        carried: Option<Cookie>,
        now: SystemTime,
    ) -> Result<Response, Response> {
        let Some(Cookie::Login { state, target }) = carried else {
            log::warn!("authz-casdoor: a callback came without its login");
            return Err(Response::status(503));
        };
        let argument = |name| query::first(query, name);
        let (Some(code), Some(brought)) = (argument("code"), argument("state")) else {
            let message = "failed when accessing token. Invalid code or state";
            return Err(Response::text(400, message));
        };
        let same = brought.len() == state.len() && memcmp::eq(brought.as_bytes(), state.as_bytes());
        if !same {
            return Err(Response::text(400, "invalid state"));
        }
        if code.is_empty() {
            return Err(Response::text(400, "invalid code"));
        }
        if !self.used.take(&state) {
            return Err(Response::text(400, "invalid state"));
        }
        match self.tokens.exchange(&code).await {
            Ok(lifetime) => Ok(self.redirect(&target, &Cookie::Session, lifetime, now)),
            Err(error) => {
                log::warn!("authz-casdoor: no token: {error}");
                Err(Response::status(503))
            }
        }
    }

    /// 302 to `location`, with the cookie for so long.
    fn redirect(
        &self,
        location: &str,
        cookie: &Cookie,
        lifetime: Duration,
        now: SystemTime,
    ) -> Response {
        let sealed = self.sealer.seal(cookie, now + lifetime);
        let set_cookie = sealed.ok().and_then(|sealed| {
            let (name, attributes, age) = (&self.cookie, self.attributes, lifetime.as_secs());
            HeaderValue::try_from(format!("{name}={sealed}; Max-Age={age}{attributes}")).ok()
        });
        let (Some(set_cookie), Ok(location)) = (set_cookie, HeaderValue::from_str(location)) else {
            return Response::status(503);
        };
        let never = HeaderValue::from_static("no-store");
        Response::status(302)
            .with_header(header::LOCATION, location)
            .with_header(header::SET_COOKIE, set_cookie)
            .with_header(header::CACHE_CONTROL, never)
    }
}

/// Whether a person is to see the answer.
fn asks_for_page(req: &RequestCtx<'_>) -> bool {
    req.header(&header::ACCEPT)
        .and_then(|accepted| accepted.to_str().ok())
        .is_some_and(|accepted| accepted.contains("text/html"))
}

/// Where the browser was on its way to: always a path of ours. Encoded anew, it starts with one
/// slash and holds no backslash, which browsers would take for the start of a host.
fn target(req: &RequestCtx<'_>) -> String {
    // A query may come unencoded, which a `Location` cannot.
    let mut target = utf8_percent_encode(&req.received_target(), CONTROLS).to_string();
    let path = target.find('?').unwrap_or(target.len());
    if !target.starts_with('/') || path > MAX_TARGET {
        return "/".to_owned();
    }
    if target.len() > MAX_TARGET {
        target.truncate(path);
    }
    target
}

#[cfg(test)]
mod tests;
