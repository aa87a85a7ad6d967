//! `basic-auth`: names the consumer whose name and password the request carries (`spec/02` §3,
//! RFC 7617). Keeps digests or the configured hashes of passwords, and says of no name whether
//! there is such a consumer: not by its answer, and not by the work an answer costs.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use super::basic::{Presented, has_controls};
use super::given::{given, is_reference};
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict, challenge, refusal};
use super::stored::Stored;
use super::verifier::{Answer, Question, Verifier, busy};
use crate::consumer::{CredentialEntry, CredentialIndex};
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{
    self, BuildCtx, BuildError, Credential, CredentialCtx, CredentialDef, PluginDef, PluginKind,
};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::secrets::Secret;
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2520,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "username",
        build: |json, ctx| credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "basic-auth";

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct BasicAuthConfig {
    /// Take the credential out of the request before it goes upstream.
    hide_credentials: bool,
    /// Realm of the challenge.
    realm: String,
    /// Consumer of requests that fail to authenticate.
    anonymous_consumer: Option<String>,
}

impl Default for BasicAuthConfig {
    fn default() -> Self {
        Self {
            hide_credentials: false,
            realm: "basic".to_owned(),
            anonymous_consumer: None,
        }
    }
}

/// Credential side.
#[derive(Deserialize)]
struct CredentialConfig {
    username: String,
    /// The password, or a hash of it.
    password: String,
}

struct BasicAuth {
    hide_credentials: bool,
    missing: Response,
    malformed: Response,
    unknown: Response,
    busy: Response,
    verifier: Arc<Verifier>,
}

fn build(config: BasicAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let challenge = challenge("Basic", &config.realm)?;
    let plugin = BasicAuth {
        hide_credentials: config.hide_credentials,
        missing: refusal("Missing authorization in request", &challenge),
        malformed: refusal("Invalid authorization in request", &challenge),
        unknown: refusal("Invalid user authorization", &challenge),
        busy: busy(),
        verifier: Verifier::shared(ctx.kept, ctx.clock),
    };
    let hooks = Auth::hooks(NAME, plugin, &challenge, config.anonymous_consumer, ctx)?;
    Ok(hooks.redacts([AUTHORIZATION.as_str()]).done())
}

fn credential(config: CredentialConfig, ctx: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let (username, password) = (Secret::from(config.username), Secret::from(config.password));
    given("username", &username)?;
    let refused = if username.expose().contains(&b':') {
        // RFC 7617 §2: a name ends at the first colon, so nobody could present this one.
        Some("must not contain a colon")
    } else if has_controls(username.expose()) {
        Some(NO_CONTROLS)
    } else {
        None
    };
    if let Some(message) = refused {
        return Err(BuildError::invalid("username", message));
    }
    if has_controls(password.expose()) {
        return Err(BuildError::invalid("password", NO_CONTROLS));
    }
    let stored = Stored::new("password", &password, ctx)?;
    Ok(Credential {
        lookup_key: username,
        data: Arc::new(stored),
    })
}

const NO_CONTROLS: &str = "must not contain control characters, such as a line break at its end";

impl Scheme for BasicAuth {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        let presented = match self.presented(req) {
            Ok(presented) => presented,
            Err(failure) => return Err(failure).into(),
        };
        let found = match Found::of(req, &presented) {
            Ok(found) => found,
            Err(reason) => return Err(self.refused(reason)).into(),
        };
        let right = match found.stored {
            Stored::Plain(digest) => {
                openssl::memcmp::eq(digest, &found.index.digest(presented.password()))
            }
            Stored::Hashed(hashed) => {
                if !hashed.remembers(&found.index.digest(presented.password())) {
                    return Trial::Wait;
                }
                true
            }
        };
        let verdict = found.verdict(right);
        self.finish(req, verdict).into()
    }

    fn wait<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Verdict<'static>> {
        Box::pin(async move {
            let verdict = match self.asked(req) {
                Ok((question, attached)) => match self.verifier.ask(question).await {
                    Answer::Right(_) => attached,
                    Answer::Wrong => attached.and(Err(AuthFailure::Mismatch)),
                    Answer::Busy => Err(AuthFailure::Unavailable),
                },
                Err(failure) => return Err(failure.into_owned()),
            };
            self.finish(req, verdict).map_err(Failure::into_owned)
        })
    }

    fn hide(&self, req: &mut RequestCtx<'_>) {
        if self.hide_credentials {
            drop(req.head.remove_header(&AUTHORIZATION));
        }
    }
}

impl BasicAuth {
    fn presented(&self, req: &RequestCtx<'_>) -> Result<Presented, Failure<'_>> {
        let presented = Presented::of(&req.head.headers, &AUTHORIZATION, "Basic");
        presented.map_err(|reason| self.refused(reason))
    }

    /// What has to be computed, and what a right password leads to.
    fn asked(
        &self,
        req: &RequestCtx<'_>,
    ) -> Result<(Question, Result<Attached, AuthFailure>), Failure<'_>> {
        let presented = self.presented(req)?;
        let found = Found::of(req, &presented).map_err(|reason| self.refused(reason))?;
        let Stored::Hashed(hashed) = found.stored else {
            // The consumers are those of the request's start, so it was a hash before.
            return Err(self.refused(AuthFailure::Unavailable));
        };
        let question = Question::new(
            vec![Arc::clone(hashed)],
            presented.password(),
            presented.username(),
            |text| found.index.digest(text),
        );
        Ok((question, found.verdict(true)))
    }

    fn finish(
        &self,
        req: &mut RequestCtx<'_>,
        verdict: Result<Attached, AuthFailure>,
    ) -> Verdict<'_> {
        let attached = verdict.map_err(|reason| self.refused(reason))?;
        self.hide(req);
        Ok(Some(attached))
    }

    fn refused(&self, reason: AuthFailure) -> Failure<'_> {
        let answer = match reason {
            AuthFailure::Missing => &self.missing,
            AuthFailure::Malformed => &self.malformed,
            AuthFailure::Unavailable => &self.busy,
            _ => &self.unknown,
        };
        Failure::ready(reason, answer)
    }
}

/// The credential a name leads to; of an unknown name another's, so that it costs the same.
struct Found<'r> {
    index: &'r CredentialIndex,
    entry: &'r CredentialEntry,
    stored: &'r Stored,
    is_theirs: bool,
}

impl<'r> Found<'r> {
    fn of(req: &'r RequestCtx<'_>, presented: &Presented) -> Result<Self, AuthFailure> {
        if is_reference(presented.username()) || is_reference(presented.password()) {
            return Err(AuthFailure::Unknown);
        }
        let index = req.state.consumers.index(NAME);
        let index = index.ok_or(AuthFailure::Unknown)?;
        let theirs = index.find(presented.username());
        let entry = theirs.or_else(|| index.decoy(presented.username()));
        let entry = entry.ok_or(AuthFailure::Unknown)?;
        let stored = entry.data().and_then(|data| data.downcast_ref());
        Ok(Self {
            index,
            entry,
            stored: stored.ok_or(AuthFailure::Unknown)?,
            is_theirs: theirs.is_some(),
        })
    }

    fn verdict(&self, right: bool) -> Result<Attached, AuthFailure> {
        match (self.is_theirs, right) {
            (true, true) => Ok(Attached::by(self.entry)),
            (true, false) => Err(AuthFailure::Mismatch),
            (false, _) => Err(AuthFailure::Unknown),
        }
    }
}
