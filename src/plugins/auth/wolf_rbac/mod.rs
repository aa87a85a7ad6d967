//! `wolf-rbac`: a wolf server says who a token's bearer is and whether he may do this
//! (`spec/02` §8). The application's consumer names the server.

mod api;
mod server;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::given::given;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict};
use crate::consumer::CredentialEntry;
use crate::http::{cookie, lookalike, query};
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{
    self, BuildCtx, BuildError, Credential, CredentialCtx, CredentialDef, PluginDef, PluginKind,
};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::secrets::Secret;
use crate::telemetry::metrics::AuthFailure;
use server::{Access, Judgement, Wolf};

pub(in crate::plugins) use api::{CHANGE_PASSWORD, LOGIN, USER_INFO};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2555,
    kind: PluginKind::Auth,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "appid",
        build: |json, ctx| credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "wolf-rbac";

/// Both sides have the same fields. Those of the consumer count; those of a route are checked.
#[derive(Deserialize)]
#[serde(default)]
struct WolfConfig {
    /// The application, as wolf's console names it.
    appid: String,
    /// The wolf server, `http(s)://host[:port]`.
    server: String,
    /// What the names of the identity headers begin with.
    header_prefix: String,
    /// Whether the server must prove that it is the one. Differs from APISIX: it must, unless
    /// told otherwise.
    ssl_verify: Option<bool>,
}

impl Default for WolfConfig {
    fn default() -> Self {
        Self {
            appid: "unset".to_owned(),
            server: "http://127.0.0.1:12180".to_owned(),
            header_prefix: "X-".to_owned(),
            ssl_verify: None,
        }
    }
}

/// What is known of a consumer besides its `appid`.
struct Application {
    wolf: Wolf,
    headers: IdentityHeaders,
}

/// Names of the headers that tell an upstream, and the client, who the user is.
struct IdentityHeaders {
    id: String,
    username: String,
    nickname: String,
    /// The same in lower case.
    lower: [String; 3],
}

impl IdentityHeaders {
    fn build(prefix: &str) -> Result<Self, BuildError> {
        let name = |end: &str| {
            let name = format!("{prefix}{end}");
            HeaderName::try_from(&name)
                .map_err(|_| BuildError::invalid("header_prefix", "must begin a header's name"))?;
            Ok(name)
        };
        let [id, username, nickname] = [name("UserId")?, name("Username")?, name("Nickname")?];
        let lower = [&id, &username, &nickname].map(|name| name.to_ascii_lowercase());
        Ok(Self {
            id,
            username,
            nickname,
            lower,
        })
    }

    /// What the client says of itself goes.
    fn remove(&self, req: &mut RequestCtx<'_>) {
        lookalike::remove(req.head, self.lower.iter().map(String::as_str));
        for name in &self.lower {
            drop(req.head.remove_header(name.as_str()));
        }
    }

    /// What wolf says comes in its place, towards the client, and where it is let in towards the
    /// upstream.
    fn put(&self, req: &mut RequestCtx<'_>, user: Option<&Map<String, Value>>, let_in: bool) {
        self.remove(req);
        let username = user.and_then(|user| text(user.get("username")?));
        let nickname = user.and_then(|user| text(user.get("nickname")?));
        let nickname = nickname.or_else(|| username.clone());
        let nickname =
            nickname.map(|nickname| utf8_percent_encode(&nickname, RESERVED).to_string());
        let id = user.and_then(|user| text(user.get("id")?));
        for (name, value) in [
            (&self.id, id),
            (&self.username, username),
            (&self.nickname, nickname),
        ] {
            let value = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
            if let Some(value) = value {
                if let_in {
                    drop(req.head.insert_header(name.clone(), value.clone()));
                }
                req.state.answer_headers.push((name.clone(), value));
            }
        }
    }
}

/// A name or number as header text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What APISIX's `ngx.escape_uri` escapes.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

struct WolfRbac {
    /// What the route's upstream takes for the user's, whatever the application's headers are.
    headers: IdentityHeaders,
    missing: Response,
    malformed: Response,
    no_consumer: Response,
    unknown: Response,
}

fn build(config: &WolfConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    server::endpoint(&config.server)?;
    let plugin = WolfRbac {
        headers: IdentityHeaders::build(&config.header_prefix)?,
        missing: Response::message(401, "Missing rbac token in request"),
        malformed: Response::message(401, "invalid rbac token: parse failed"),
        no_consumer: Response::message(401, "Missing related consumer"),
        unknown: Response::message(401, "Invalid appid in rbac token"),
    };
    // Like APISIX, it challenges nobody: its token is no scheme of HTTP.
    let none = HeaderValue::from_static("");
    let hooks = Auth::hooks(NAME, plugin, &none, None, ctx)?;
    Ok(hooks.redacts([TOKEN_ARGUMENT, TOKEN_HEADER]).done())
}

fn credential(config: WolfConfig, ctx: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let lookup_key = Secret::from(config.appid);
    given("appid", &lookup_key)?;
    if lookup_key.expose().contains(&b'#') {
        let message = "must not hold '#', which ends it in a token";
        return Err(BuildError::invalid("appid", message));
    }
    let application = Application {
        headers: IdentityHeaders::build(&config.header_prefix)?,
        wolf: Wolf::build(&config.server, config.ssl_verify != Some(false), ctx)?,
    };
    Ok(Credential {
        lookup_key,
        data: Arc::new(application),
    })
}

impl Scheme for WolfRbac {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        Trial::wait_for(self.presented(req))
    }

    fn wait<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Verdict<'static>> {
        Box::pin(async move {
            let (token, known) = self.presented(req).map_err(Failure::into_owned)?;
            let access = Access {
                appid: &token.appid,
                resource: req.received().path,
                action: req.head.method.as_str(),
                client: req.client_ip().to_canonical(),
            };
            let question = known.application.wolf.question(&access);
            let judgement = known.application.wolf.judge(question, &token.wolf).await;
            let user = judgement.user();
            let let_in = matches!(judgement, Judgement::Allowed(_));
            let headers = &known.application.headers;
            headers.put(req, user.as_ref(), let_in);
            conclude(judgement, known.attached)
        })
    }

    fn remove_forged(&self, req: &mut RequestCtx<'_>) {
        self.headers.remove(req);
    }

    /// The token goes on to the upstream, as in APISIX.
    fn hide(&self, _: &mut RequestCtx<'_>) {}
}

fn conclude(judgement: Judgement, attached: Attached) -> Verdict<'static> {
    match judgement {
        Judgement::Allowed(_) => Ok(Some(attached)),
        Judgement::Denied(status, reason, user) => {
            let answer = refusal(status, &reason, user.as_ref());
            Err(Failure::owned(AuthFailure::Denied, answer))
        }
        Judgement::Silent(message) => {
            let answer = Response::message(500, &message);
            Err(Failure::owned(AuthFailure::Unavailable, answer))
        }
    }
}

/// Wolf's reason, and whom it knew.
fn refusal(status: u16, reason: &Value, user: Option<&Map<String, Value>>) -> Response {
    let mut body = Map::new();
    if let Some(user) = user {
        let username = user.get("username");
        let nickname = user.get("nickname").filter(|name| !name.is_null());
        let names = [("username", username), ("nickname", nickname.or(username))];
        for (field, value) in names {
            body.extend(value.map(|value| (field.to_owned(), value.clone())));
        }
    }
    if !reason.is_null() {
        body.insert("message".to_owned(), reason.clone());
    }
    Response::json(status, &Value::Object(body))
}

/// A consumer with its application.
struct Known {
    attached: Attached,
    application: Arc<Application>,
}

impl WolfRbac {
    fn presented(&self, req: &RequestCtx<'_>) -> Result<(Token, Known), Failure<'_>> {
        let Some(text) = token_text(req) else {
            return Err(Failure::ready(AuthFailure::Missing, &self.missing));
        };
        let token = Token::parse(&text);
        let token = token.ok_or_else(|| Failure::ready(AuthFailure::Malformed, &self.malformed))?;
        let unknown = |answer| Failure::ready(AuthFailure::Unknown, answer);
        if !req.state.consumers.has_any(NAME) {
            return Err(unknown(&self.no_consumer));
        }
        let known = known(req, &token.appid).ok_or_else(|| unknown(&self.unknown))?;
        Ok((token, known))
    }
}

/// The consumer of an application.
fn known(req: &RequestCtx<'_>, appid: &str) -> Option<Known> {
    let entry: &CredentialEntry = req.state.consumers.find(NAME, appid.as_bytes())?;
    let application = Arc::clone(entry.data()?).downcast().ok()?;
    Some(Known {
        attached: Attached::by(entry),
        application,
    })
}

/// `V1#<appid>#<wolf's own token>`.
struct Token {
    appid: String,
    /// Fits into a header.
    wolf: HeaderValue,
}

impl Token {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.splitn(3, |byte| *byte == b'#');
        let (version, appid, wolf) = (parts.next()?, parts.next()?, parts.next()?);
        if version != b"V1" {
            return None;
        }
        let mut wolf = HeaderValue::from_bytes(wolf).ok()?;
        wolf.set_sensitive(true);
        Some(Self {
            appid: std::str::from_utf8(appid).ok()?.to_owned(),
            wolf,
        })
    }
}

/// The token from the first place that has one.
fn token_text(req: &RequestCtx<'_>) -> Option<Vec<u8>> {
    let argument = req
        .query()
        .and_then(|text| query::first(text, TOKEN_ARGUMENT));
    if let Some(argument) = argument {
        return Some(argument.into_owned().into_bytes());
    }
    for name in [header::AUTHORIZATION, HeaderName::from_static(TOKEN_HEADER)] {
        if let Some(value) = req.header(&name) {
            return Some(value.as_bytes().to_owned());
        }
    }
    let cookie = cookie::find_in(&req.head.headers, TOKEN_HEADER)?;
    Some(cookie.as_bytes().to_owned())
}

const TOKEN_ARGUMENT: &str = "rbac_token";
/// Also the cookie's name, and the header wolf itself takes its token from.
const TOKEN_HEADER: &str = "x-rbac-token";

#[cfg(test)]
mod tests;
