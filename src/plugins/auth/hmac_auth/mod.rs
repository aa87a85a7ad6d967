//! `hmac-auth`: names the consumer who signed the request, and its body where asked
//! (`spec/02` §5). Keys are parsed at load; a secret is never seen again.

mod body;
mod params;
mod replay;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderValue, Method, header};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde::Deserialize;

use self::body::{DigestCheck, Failures};
use self::params::{Params, Unusable};
use self::replay::{Replays, Use};
use super::given::resolved;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict, challenge, refusal};
use crate::clock::{Clock, unix_secs};
use crate::plugins::body::{Ahead, BodyError};
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{
    self, BuildCtx, BuildError, Credential, CredentialCtx, CredentialDef, PluginDef, PluginKind,
};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::secrets::{Reference, Secret};
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2530,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "key_id",
        build: |json, ctx| credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "hmac-auth";

/// Stands for method and target in the list of what is signed.
const REQUEST_TARGET: &str = "@request-target";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Algorithm {
    #[serde(rename = "hmac-sha1")]
    Sha1,
    #[serde(rename = "hmac-sha256")]
    Sha256,
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct HmacAuthConfig {
    /// Algorithms a client may sign with.
    allowed_algorithms: Vec<Algorithm>,
    /// Seconds that `Date` may differ from now.
    clock_skew: u64,
    /// What must be signed, spelt as clients spell it.
    signed_headers: Vec<String>,
    /// Whether the body must have the SHA-256 that `Digest` says.
    validate_request_body: bool,
    /// Longest body that is looked at.
    max_req_body_size: u64,
    /// Take `Authorization` out of the request before it goes upstream.
    hide_credentials: bool,
    /// Realm of the challenge.
    realm: String,
    /// Consumer of requests that fail to authenticate.
    anonymous_consumer: Option<String>,
    /// Whether a signature is good for one request only. APISIX has nothing like it.
    reject_replays: bool,
}

impl Default for HmacAuthConfig {
    fn default() -> Self {
        Self {
            allowed_algorithms: vec![Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512],
            clock_skew: 300,
            signed_headers: vec!["date".to_owned()],
            validate_request_body: false,
            max_req_body_size: 64 << 20,
            hide_credentials: false,
            realm: "hmac".to_owned(),
            anonymous_consumer: None,
            reject_replays: false,
        }
    }
}

/// `plugin_attr`.
#[derive(Deserialize)]
#[serde(default)]
struct HmacAuthAttr {
    /// How many signatures are remembered for routes with `reject_replays`, in the whole process.
    replay_entries: usize,
}

impl Default for HmacAuthAttr {
    fn default() -> Self {
        Self {
            replay_entries: 1_000_000,
        }
    }
}

/// Credential side.
#[derive(Deserialize)]
struct CredentialConfig {
    key_id: String,
    secret_key: String,
}

/// A credential's secret; OpenSSL wipes it when it is dropped.
struct SigningKey(PKey<Private>);

struct HmacAuth {
    allowed: Box<[Algorithm]>,
    skew: u64,
    signed_headers: Box<[Box<str>]>,
    /// Longest body whose digest is checked; `None` where none is.
    body_limit: Option<u64>,
    hide_credentials: bool,
    replays: Option<Arc<Replays>>,
    clock: Arc<dyn Clock>,
    failures: Failures,
    missing: Response,
    other_scheme: Response,
    refused: Response,
    full: Response,
}

fn build(config: HmacAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    check(&config)?;
    let replays = config.reject_replays.then(|| replays(&config, ctx));
    let counter = |reason| ctx.metrics.own().auth_failures(NAME, reason);
    let challenge = challenge("hmac", &config.realm)?;
    let plugin = HmacAuth {
        allowed: config.allowed_algorithms.into(),
        skew: config.clock_skew,
        signed_headers: config.signed_headers.into_iter().map(Into::into).collect(),
        body_limit: config
            .validate_request_body
            .then_some(config.max_req_body_size),
        hide_credentials: config.hide_credentials,
        replays: replays.transpose()?,
        clock: Arc::clone(ctx.clock),
        failures: Failures {
            digest: counter(AuthFailure::Digest),
            too_large: counter(AuthFailure::TooLarge),
        },
        missing: unvalidated(": missing Authorization header", &challenge),
        other_scheme: unvalidated(
            ": Authorization header does not start with 'Signature'",
            &challenge,
        ),
        refused: unvalidated("", &challenge),
        full: Response::message(503, "client request can't be validated"),
    };
    let reads_body = plugin.body_limit.is_some();
    let hooks = Auth::hooks(NAME, plugin, &challenge, config.anonymous_consumer, ctx)?;
    let hooks = hooks.redacts([header::AUTHORIZATION.as_str()]);
    Ok(if reads_body {
        hooks.reads_body().done()
    } else {
        hooks.done()
    })
}

fn check(config: &HmacAuthConfig) -> Result<(), BuildError> {
    let refused = |field, message| Err(BuildError::invalid(field, message));
    if config.allowed_algorithms.is_empty() {
        return refused("allowed_algorithms", "must name at least one algorithm");
    }
    if config.clock_skew == 0 {
        return refused("clock_skew", "must be at least 1");
    }
    let fits = |name: &String| (1..=50).contains(&name.chars().count());
    if !config.signed_headers.iter().all(fits) {
        return refused("signed_headers", "names must have 1 to 50 characters");
    }
    let dated = |name: &String| name.eq_ignore_ascii_case("date");
    if config.reject_replays && !config.signed_headers.iter().any(dated) {
        // Else the date of a signature could be moved past what is remembered.
        return refused("reject_replays", "needs `date` among `signed_headers`");
    }
    Ok(())
}

fn replays(config: &HmacAuthConfig, ctx: &BuildCtx<'_>) -> Result<Arc<Replays>, BuildError> {
    let attr: HmacAuthAttr = def::parse(ctx.attr)?;
    if attr.replay_entries == 0 {
        let message = "must be at least 1";
        return Err(BuildError::invalid("plugin_attr.replay_entries", message));
    }
    let make = || Replays::new(rand::random(), attr.replay_entries);
    let replays = ctx.kept.entry("hmac-auth/replays", make);
    replays.expect_skew(config.clock_skew);
    Ok(replays)
}

fn unvalidated(why: &str, challenge: &HeaderValue) -> Response {
    refusal(
        &format!("client request can't be validated{why}"),
        challenge,
    )
}

fn credential(config: CredentialConfig, _: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let (key_id, secret) = (Secret::from(config.key_id), Secret::from(config.secret_key));
    let fits =
        |text: Option<&str>| text.is_some_and(|text| (1..=256).contains(&text.chars().count()));
    for (field, value) in [("key_id", &key_id), ("secret_key", &secret)] {
        resolved(field, value)?;
        if !fits(value.expose_str()) {
            return Err(BuildError::invalid(field, "must have 1 to 256 characters"));
        }
    }
    let key = PKey::hmac(secret.expose())
        .map_err(|_| BuildError::invalid("secret_key", "must be fit for HMAC"))?;
    Ok(Credential {
        lookup_key: key_id,
        data: Arc::new(SigningKey(key)),
    })
}

/// A request whose signature is good.
struct Signed {
    attached: Attached,
    signature: Vec<u8>,
    /// Of `Date`, in Unix seconds.
    date: u64,
    /// What was signed.
    names: Vec<String>,
}

impl Scheme for HmacAuth {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        if self.body_limit.is_some() {
            return Trial::Wait;
        }
        let signed = self.signed(req);
        signed.and_then(|signed| self.accept(req, signed)).into()
    }

    fn wait<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Verdict<'static>> {
        Box::pin(async move {
            let signed = self.signed(req).map_err(Failure::into_owned)?;
            let later = match self.body_limit {
                Some(limit) => self.check_body(req, limit).await?,
                None => None,
            };
            let accepted = self.accept(req, signed).map_err(Failure::into_owned)?;
            // Only now: who is let in some other way brings no digest to hold to.
            if let Some(check) = later {
                req.check_body_later(check);
            }
            Ok(accepted)
        })
    }

    fn hide(&self, req: &mut RequestCtx<'_>) {
        if self.hide_credentials {
            req.head.remove_header(&header::AUTHORIZATION);
        }
    }
}

impl HmacAuth {
    /// Checks 0 to 7 of `spec/02` §5, in that order.
    fn signed(&self, req: &RequestCtx<'_>) -> Result<Signed, Failure<'_>> {
        let refused = |reason| Failure::ready(reason, &self.refused);
        let mut presented = req.head.headers.get_all(header::AUTHORIZATION).iter();
        let alone = presented.next().map(|first| (first, presented.next()));
        let presented = match alone {
            None => return Err(Failure::ready(AuthFailure::Missing, &self.missing)),
            Some((first, None)) => first,
            // Of two, the upstream might read the other (RFC 9110 §11.6.2 knows one).
            Some((_, Some(_))) => return Err(refused(AuthFailure::Malformed)),
        };
        let params = Params::parse(presented.as_bytes()).map_err(|unusable| match unusable {
            Unusable::OtherScheme => Failure::ready(AuthFailure::Malformed, &self.other_scheme),
            Unusable::Malformed => refused(AuthFailure::Malformed),
        })?;
        // A text that looks like a reference names nobody.
        let entry = (!Reference::is_reference(&params.key_id))
            .then(|| req.state.consumers.find(NAME, params.key_id.as_bytes()))
            .flatten();
        let entry = entry.ok_or_else(|| refused(AuthFailure::Unknown))?;
        let key = entry
            .data()
            .and_then(|data| data.downcast_ref::<SigningKey>());
        let key = key.ok_or_else(|| refused(AuthFailure::Unknown))?;
        let algorithm = Algorithm::named(&params.algorithm)
            .filter(|algorithm| self.allowed.contains(algorithm))
            .ok_or_else(|| refused(AuthFailure::Algorithm))?;
        let date = self.date(req).ok_or_else(|| refused(AuthFailure::Skew))?;
        let signs = |name: &str| params.headers.iter().any(|signed| signed == name);
        if !self.signed_headers.iter().all(|name| signs(name)) {
            return Err(refused(AuthFailure::Unsigned));
        }
        let text = signing_text(req, &params);
        if !key.signed(algorithm, &text, &params.signature) {
            return Err(refused(AuthFailure::Mismatch));
        }
        Ok(Signed {
            attached: Attached::by(entry),
            signature: params.signature,
            date,
            names: params.headers,
        })
    }

    /// `Date` in Unix seconds, where it is near enough to now. RFC 9110 §5.6.7: in any of the
    /// three forms.
    fn date(&self, req: &RequestCtx<'_>) -> Option<u64> {
        let date = req.header(&header::DATE)?.to_str().ok()?;
        let date = unix_secs(httpdate::parse_http_date(date).ok()?);
        (date.abs_diff(unix_secs(req.state.started_wall)) <= self.skew).then_some(date)
    }

    /// Checks 8 and 9, and the size. What has to be checked later comes back.
    async fn check_body(
        &self,
        req: &mut RequestCtx<'_>,
        limit: u64,
    ) -> Result<Option<DigestCheck>, Failure<'static>> {
        let refused = || Failure::owned(AuthFailure::Digest, self.refused.clone());
        let expected = req
            .head
            .headers
            .get("digest")
            .and_then(|digest| params::sha256_of(digest.as_bytes()))
            .ok_or_else(refused)?;
        match req.whole_body(limit).await {
            Ok(Ahead::Whole(body)) if body::sha256(&body).await == expected => Ok(None),
            Ok(Ahead::Whole(_)) => Err(refused()),
            Ok(Ahead::Later) => Ok(Some(DigestCheck {
                expected,
                limit,
                refused: self.refused.clone(),
                failures: self.failures.clone(),
            })),
            Err(BodyError::TooLarge(received)) => Err(Failure::owned(
                AuthFailure::TooLarge,
                body::too_large(received, limit),
            )),
            // Whose body does not come, or finds no room here, has made no guess.
            Err(BodyError::Broken(status)) => {
                let reason = if status == 413 {
                    AuthFailure::TooLarge
                } else {
                    AuthFailure::Unavailable
                };
                Err(Failure::owned(reason, Response::status(status)))
            }
        }
    }

    fn accept(&self, req: &mut RequestCtx<'_>, signed: Signed) -> Verdict<'_> {
        if let Some(replays) = &self.replays {
            // By the time now: the body may have taken long to come.
            let now = unix_secs(self.clock.wall());
            match replays.take(&signed.signature, signed.date, now) {
                Use::First => {}
                Use::Again => return Err(Failure::ready(AuthFailure::Replayed, &self.refused)),
                Use::Late => return Err(Failure::ready(AuthFailure::Skew, &self.refused)),
                Use::Full => return Err(Failure::ready(AuthFailure::Unavailable, &self.full)),
            }
        }
        self.hide(req);
        keep_signed_values(req, &signed.names);
        Ok(Some(signed.attached))
    }
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "hmac-sha1" => Some(Self::Sha1),
            "hmac-sha256" => Some(Self::Sha256),
            "hmac-sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }
}

impl SigningKey {
    fn signed(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        let own = Signer::new(algorithm.digest(), &self.0)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(text));
        own.is_ok_and(|own| own.len() == signature.len() && openssl::memcmp::eq(&own, signature))
    }
}

/// Key id and what `headers` names, a line each. Of a header that came several times the first.
fn signing_text(req: &RequestCtx<'_>, params: &Params) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    let mut line = |parts: &[&[u8]]| {
        for part in parts {
            text.extend_from_slice(part);
        }
        text.push(b'\n');
    };
    line(&[params.key_id.as_bytes()]);
    for name in &params.headers {
        let value = req
            .head
            .headers
            .get(name.as_str())
            .map(HeaderValue::as_bytes);
        if let Some(value) = value.or_else(|| authority(req, name)) {
            line(&[name.as_bytes(), b": ", value]);
        } else if name == REQUEST_TARGET {
            let received = req.received();
            let query = received.query.filter(|query| !query.is_empty());
            let mark: &[u8] = if query.is_some() { b"?" } else { b"" };
            let path = match received.path {
                "" => "/",
                path => path,
            };
            let method = Method::as_str(received.method).as_bytes();
            let query = query.unwrap_or_default().as_bytes();
            line(&[method, b" ", path.as_bytes(), mark, query]);
        }
    }
    text
}

/// Over HTTP/2 `host` is `:authority`.
fn authority<'a>(req: &'a RequestCtx<'_>, name: &str) -> Option<&'a [u8]> {
    let host = name
        .eq_ignore_ascii_case("host")
        .then(|| req.host_and_port());
    host.flatten().map(str::as_bytes)
}

/// Of a signed header only the value that was signed goes on. Differs from APISIX, where others
/// of that name pass unsigned.
fn keep_signed_values(req: &mut RequestCtx<'_>, names: &[String]) {
    for name in names {
        let mut values = req.head.headers.get_all(name.as_str()).iter();
        let (Some(first), Some(_)) = (values.next().cloned(), values.next()) else {
            continue;
        };
        // Name and value stood in the request, so this cannot fail.
        drop(req.head.insert_header(name.clone(), first));
    }
}

#[cfg(test)]
mod tests;
