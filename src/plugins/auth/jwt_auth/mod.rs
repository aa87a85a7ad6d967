//! `jwt-auth`: names the consumer whose key signed the token the request carries (`spec/02` §4).
//! A token is held to one key, which is bound to one algorithm; the token chooses neither.

mod credential;
mod jwks;
mod keys;
mod remembered;
mod token;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use self::credential::Verification;
use self::remembered::{Remembered, Seen};
use self::token::{Ask, Asked, Header, Payload, User};
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict, challenge, refusal};
use super::{bearer, hide};
use crate::consumer::{CredentialEntry, Digest};
use crate::http::{cookie, query};
use crate::jwt::{Compact, decode_base64url};
use crate::plugins::claims::TokenPayload;
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{self, BuildCtx, BuildError, CredentialDef, PluginDef, PluginKind};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::secrets::Reference;
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2510,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "key",
        build: |json, ctx| credential::build(def::parse(json)?, json, ctx),
    }),
};

const NAME: &str = "jwt-auth";

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct JwtAuthConfig {
    /// Where the token is looked for first.
    header: String,
    /// Query argument it is looked for in where the header is absent.
    query: String,
    /// Cookie it is looked for in where the argument is absent too.
    cookie: String,
    /// Take the token out of the request before it goes upstream.
    hide_credentials: bool,
    /// Claim that names the consumer.
    key_claim_name: String,
    /// Keep the payload for variables (`$jwt_auth_payload`).
    store_in_ctx: bool,
    /// Times that must be there; without it those that are there count.
    claims_to_verify: Vec<String>,
    /// Realm of the challenge.
    realm: String,
    /// Consumer of requests that fail to authenticate.
    anonymous_consumer: Option<String>,
}

impl Default for JwtAuthConfig {
    fn default() -> Self {
        Self {
            header: "authorization".to_owned(),
            query: "jwt".to_owned(),
            cookie: "jwt".to_owned(),
            hide_credentials: false,
            key_claim_name: "key".to_owned(),
            store_in_ctx: false,
            claims_to_verify: Vec::new(),
            realm: "jwt".to_owned(),
            anonymous_consumer: None,
        }
    }
}

struct JwtAuth {
    header: HeaderName,
    query: Box<str>,
    cookie: Box<str>,
    hide_credentials: bool,
    user_claim: Box<str>,
    store_in_ctx: bool,
    asked: Asked,
    remembered: Option<Arc<Remembered>>,
    answers: Answers,
}

/// What clients are told, step by step.
struct Answers {
    missing: Response,
    invalid: Response,
    no_user: Response,
    unknown: Response,
    failed: Response,
}

fn build(config: JwtAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let challenge = challenge("Bearer", &config.realm)?;
    let anonymous = config.anonymous_consumer.clone();
    let plugin = JwtAuth::new(config, &challenge, ctx)?;
    let names = [plugin.header.as_str(), &plugin.query, &plugin.cookie].map(str::to_owned);
    let hooks = Auth::hooks(NAME, plugin, &challenge, anonymous, ctx)?;
    Ok(hooks.redacts(names).done())
}

fn asked(claims: &[String]) -> Result<Asked, BuildError> {
    let otherwise = if claims.is_empty() {
        Ask::IfPresent
    } else {
        Ask::Never
    };
    let mut asked = Asked {
        exp: otherwise,
        nbf: otherwise,
    };
    for claim in claims {
        let ask = match claim.as_str() {
            "exp" => &mut asked.exp,
            "nbf" => &mut asked.nbf,
            _ => {
                let message = "must hold \"exp\" and \"nbf\" only";
                return Err(BuildError::invalid("claims_to_verify", message));
            }
        };
        if std::mem::replace(ask, Ask::Always) == Ask::Always {
            let message = "must not hold a claim twice";
            return Err(BuildError::invalid("claims_to_verify", message));
        }
    }
    Ok(asked)
}

/// Where a token was found.
#[derive(Clone, Copy)]
enum Place {
    Header,
    Query,
    Cookie,
}

/// A token as it was found.
enum Presented {
    /// In the header, perhaps behind `Bearer`.
    Header(HeaderValue),
    Text(String),
    /// Two in one place: the upstream might read the other than was verified.
    Unusable,
}

/// What a place holds; `None` where that is nothing.
fn alone<T>(
    values: &mut impl Iterator<Item = T>,
    presented: impl FnOnce(T) -> Presented,
) -> Option<Presented> {
    let first = values.next()?;
    Some(match values.next() {
        Some(_) => Presented::Unusable,
        None => presented(first),
    })
}

impl Presented {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Header(value) => bearer::token(value.as_bytes()),
            Self::Text(text) => text.as_bytes(),
            Self::Unusable => &[],
        }
    }
}

impl Scheme for JwtAuth {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        let Some((place, presented)) = self.presented(req) else {
            return Err(Failure::ready(AuthFailure::Missing, &self.answers.missing)).into();
        };
        let attached = self.judge(req, presented.bytes());
        if attached.is_ok() && self.hide_credentials {
            self.hide_from(req, place);
        }
        attached.map(Some).into()
    }

    fn hide(&self, req: &mut RequestCtx<'_>) {
        if self.hide_credentials {
            for place in [Place::Header, Place::Query, Place::Cookie] {
                self.hide_from(req, place);
            }
        }
    }
}

impl JwtAuth {
    fn new(
        config: JwtAuthConfig,
        challenge: &HeaderValue,
        ctx: &BuildCtx<'_>,
    ) -> Result<Self, BuildError> {
        let header = HeaderName::try_from(config.header)
            .map_err(|_| BuildError::invalid("header", "must be a header name"))?;
        if config.key_claim_name.is_empty() {
            return Err(BuildError::invalid("key_claim_name", "must not be empty"));
        }
        let answer = |message| refusal(message, challenge);
        Ok(Self {
            header,
            query: config.query.into(),
            cookie: config.cookie.into(),
            hide_credentials: config.hide_credentials,
            user_claim: config.key_claim_name.into(),
            store_in_ctx: config.store_in_ctx,
            asked: asked(&config.claims_to_verify)?,
            remembered: Remembered::asked(ctx.attr, ctx.kept)?,
            answers: Answers {
                missing: answer("Missing JWT token in request"),
                invalid: answer("JWT token invalid"),
                no_user: answer("missing user key in JWT token"),
                unknown: answer("Invalid user key in JWT token"),
                failed: answer("failed to verify jwt"),
            },
        })
    }

    /// The token the request carries, in the first place that has one.
    fn presented(&self, req: &RequestCtx<'_>) -> Option<(Place, Presented)> {
        let headers = &req.head.headers;
        let mut values = headers.get_all(&self.header).iter();
        if let Some(found) = alone(&mut values, |value| Presented::Header(value.clone())) {
            return Some((Place::Header, found));
        }
        let args = req.query().into_iter().flat_map(query::args);
        let mut values = args.filter(|(name, _)| **name == *self.query);
        let text = |(_, value): (_, Cow<'_, str>)| Presented::Text(value.into_owned());
        if let Some(found) = alone(&mut values, text) {
            return Some((Place::Query, found));
        }
        let mut values = cookie::all_in(headers, &self.cookie);
        let found = alone(&mut values, |value| Presented::Text(value.to_owned()))?;
        Some((Place::Cookie, found))
    }

    fn hide_from(&self, req: &mut RequestCtx<'_>, place: Place) {
        match place {
            Place::Header => drop(req.head.remove_header(&self.header)),
            Place::Query => hide::from_query(req, &self.query),
            Place::Cookie => hide::from_cookies(req, &self.cookie),
        }
    }

    /// Whose the token is, or the first step it fails at.
    fn judge(&self, req: &mut RequestCtx<'_>, token: &[u8]) -> Verdict<'_, Attached> {
        let now = seconds(req.state.started_wall);
        let memory = self.remembered.as_deref();
        let memory = memory.map(|memory| (memory, memory.id(&self.user_claim, token)));
        if let Some((memory, id)) = memory
            && let Some(seen) = memory.find(id, req.state.started)
            && let Some((attached, grace)) = still_signed(req, &seen)
        {
            let times = seen.times.allow(self.asked, now, grace);
            times.map_err(|reason| self.failed(reason))?;
            self.store(req, token);
            return Ok(attached);
        }
        let invalid = || Failure::ready(AuthFailure::Malformed, &self.answers.invalid);
        let compact = Compact::split(token).ok_or_else(invalid)?;
        let header = decode_base64url(compact.header).ok_or_else(invalid)?;
        let header = Header::read(&header).ok_or_else(invalid)?;
        let payload = decode_base64url(compact.payload).ok_or_else(invalid)?;
        let payload = Payload::read(&payload, &self.user_claim).ok_or_else(invalid)?;
        let signature = decode_base64url(compact.signature).ok_or_else(invalid)?;

        let unknown = || Failure::ready(AuthFailure::Unknown, &self.answers.unknown);
        let user = match payload.user {
            User::Named(user) => user,
            User::Other => return Err(unknown()),
            User::Missing => {
                return Err(Failure::ready(
                    AuthFailure::Malformed,
                    &self.answers.no_user,
                ));
            }
        };
        let (user, entry) = known(req, &user).ok_or_else(unknown)?;
        let verification = Verification::of(entry).ok_or_else(unknown)?;
        let key = verification
            .keys
            .choose(header.algorithm, header.kid.as_deref());
        let key = key.map_err(|reason| {
            if reason == AuthFailure::Unknown
                && let Some(again) = &verification.again
            {
                again.ask();
            }
            self.failed(reason)
        })?;
        if !key.verify(compact.message, &signature) {
            return Err(self.failed(AuthFailure::Mismatch));
        }
        let times = payload.times;
        let allowed = times.allow(self.asked, now, verification.grace);
        allowed.map_err(|reason| self.failed(reason))?;
        if let Some((memory, id)) = memory {
            let keys = verification.keys.identity();
            memory.insert(id, Seen { user, keys, times }, req.state.started);
        }
        let attached = Attached::by(entry);
        self.store(req, token);
        Ok(attached)
    }

    fn failed(&self, reason: AuthFailure) -> Failure<'_> {
        Failure::ready(reason, &self.answers.failed)
    }

    fn store(&self, req: &mut RequestCtx<'_>, token: &[u8]) {
        if self.store_in_ctx
            && let Some(compact) = Compact::split(token)
            && let Some(payload) = decode_base64url(compact.payload)
        {
            *req.state.extension() = TokenPayload::new(&payload);
        }
    }
}

/// Seconds since 1970.
fn seconds(wall: SystemTime) -> f64 {
    let since = wall.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The credential of that name. A text that looks like a reference is never one.
fn known<'r>(req: &'r RequestCtx<'_>, user: &str) -> Option<(Digest, &'r CredentialEntry)> {
    if user.is_empty() || Reference::is_reference(user) {
        return None;
    }
    let index = req.state.consumers.index(NAME)?;
    let digest = index.digest(user.as_bytes());
    Some((digest, index.find_digest(&digest)?))
}

/// Whose a remembered token is, and the leeway of its times, where its keys are still these.
fn still_signed(req: &RequestCtx<'_>, seen: &Seen) -> Option<(Attached, f64)> {
    let index = req.state.consumers.index(NAME)?;
    let entry = index.find_digest(&seen.user)?;
    let verification = Verification::of(entry)?;
    let same = verification.keys.identity() == seen.keys;
    same.then(|| (Attached::by(entry), verification.grace))
}

#[cfg(test)]
mod tests;
