//! `key-auth`: names the consumer whose API key the request carries (`spec/02` §2).
//! Never compares keys itself: the consumer index does, by keyed digest; a key that is kept as a
//! slow hash is held against it by the [`Verifier`].

mod places;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderValue;
use serde::Deserialize;

use self::places::{Found, Places};
use super::given::is_reference;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict, challenge, refusal};
use super::stored::Stored;
use super::verifier::{Answer, Hashed, Question, Verifier, busy};
use crate::consumer::{ByPrefix, CredentialEntry, CredentialIndex};
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
    priority: 2500,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "key",
        build: |json, ctx| credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "key-auth";

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct KeyAuthConfig {
    /// Headers the key is looked for in first; the first that is there counts.
    #[serde(deserialize_with = "places::headers")]
    header: Vec<String>,
    /// Whether `Authorization: Bearer <key>` is asked too, after the headers. Ours.
    bearer: bool,
    /// Query argument it is looked for in where no header is there.
    query: String,
    /// Take the key out of the request before it goes upstream.
    hide_credentials: bool,
    /// Realm of the challenge.
    realm: String,
    /// Consumer of requests that fail to authenticate.
    anonymous_consumer: Option<String>,
}

impl Default for KeyAuthConfig {
    fn default() -> Self {
        Self {
            header: vec!["apikey".to_owned()],
            bearer: false,
            query: "apikey".to_owned(),
            hide_credentials: false,
            realm: "key".to_owned(),
            anonymous_consumer: None,
        }
    }
}

/// Credential side.
#[derive(Deserialize)]
struct CredentialConfig {
    /// The key, or a hash of it.
    key: String,
    /// How a key begins of which only the hash is known. Ours.
    #[serde(default)]
    key_prefix: String,
}

struct KeyAuth {
    places: Places,
    hide_credentials: bool,
    missing: Response,
    unknown: Response,
    busy: Response,
    verifier: Arc<Verifier>,
}

fn build(config: KeyAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let challenge = challenges(&config.realm, config.bearer)?;
    let places = Places::new(&config.header, config.bearer, config.query)?;
    let redacted = places.names();
    let plugin = KeyAuth {
        places,
        hide_credentials: config.hide_credentials,
        missing: refusal("Missing API key in request", &challenge),
        unknown: refusal("Invalid API key in request", &challenge),
        busy: busy(),
        verifier: Verifier::shared(ctx.kept, ctx.clock),
    };
    let hooks = Auth::hooks(NAME, plugin, &challenge, config.anonymous_consumer, ctx)?;
    Ok(hooks.redacts(redacted).done())
}

fn challenges(realm: &str, bearer: bool) -> Result<HeaderValue, BuildError> {
    let own = challenge("apikey", realm)?;
    if !bearer {
        return Ok(own);
    }
    let both = [own.as_bytes(), challenge("Bearer", realm)?.as_bytes()].join(&b", "[..]);
    HeaderValue::from_bytes(&both)
        .map_err(|_| BuildError::invalid("realm", "must fit into a header"))
}

fn credential(config: CredentialConfig, ctx: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let key = Secret::from(config.key);
    let prefix = config.key_prefix;
    if !prefix.is_empty() && !PREFIX.contains(&prefix.len()) {
        let message = "must be the first characters of the key, 4 to 64 bytes";
        return Err(BuildError::invalid("key_prefix", message));
    }
    match Stored::new("key", &key, ctx)? {
        Stored::Plain(_) if !key.expose().starts_with(prefix.as_bytes()) => {
            let message = "must be the first characters of the key";
            Err(BuildError::invalid("key_prefix", message))
        }
        // The index makes the same digest of it.
        Stored::Plain(_) => Ok(Credential {
            lookup_key: key,
            data: Arc::new(()),
        }),
        Stored::Hashed(secret) => Ok(Credential {
            lookup_key: Secret::new(prefix.as_bytes().to_vec()),
            data: Arc::new(ByPrefix {
                prefix: prefix.into(),
                secret,
            }),
        }),
    }
}

impl Scheme for KeyAuth {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        let (found, known) = match self.presented(req) {
            None => return Err(self.refused(AuthFailure::Missing)).into(),
            Some((found, None)) => (found, None),
            Some((found, Some(key))) => {
                let index = req.state.consumers.index(NAME);
                match index.map(|index| (index, index.find(&key))) {
                    None => (found, None),
                    Some((_, Some(entry))) => (found, Some(Attached::by(entry))),
                    Some((index, None)) => match Candidates::of(index, &key) {
                        None => (found, None),
                        Some(candidates) => match candidates.remembered(index, &key) {
                            Some(entry) => (found, Some(Attached::by(entry))),
                            None => return Trial::Wait,
                        },
                    },
                }
            }
        };
        let verdict = known.ok_or(AuthFailure::Unknown);
        self.finish(req, found, verdict).into()
    }

    fn wait<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Verdict<'static>> {
        Box::pin(async move {
            let Some((found, question, mut entries)) = self.asked(req) else {
                // Only what has candidates is waited for.
                return Err(self.refused(AuthFailure::Unavailable).into_owned());
            };
            let verdict = match self.verifier.ask(question).await {
                Answer::Right(at) if at < entries.len() => Ok(entries.swap_remove(at)),
                Answer::Right(_) | Answer::Wrong => Err(AuthFailure::Unknown),
                Answer::Busy => Err(AuthFailure::Unavailable),
            };
            let verdict = self.finish(req, found, verdict);
            verdict.map_err(Failure::into_owned)
        })
    }

    fn hide(&self, req: &mut RequestCtx<'_>) {
        if self.hide_credentials {
            self.places.clear(req);
        }
    }
}

impl KeyAuth {
    /// Where a key is, and its text; `None` where it can match nothing. A text that looks like a
    /// reference is never a key: what could not be resolved must not become a password.
    fn presented<'r>(&self, req: &'r RequestCtx<'_>) -> Option<places::Presented<'r>> {
        let (found, key) = self.places.presented(req)?;
        let key = key.filter(|key| !key.is_empty() && !is_reference(key));
        Some((found, key))
    }

    /// What has to be computed, and whom each candidate is.
    fn asked(&self, req: &RequestCtx<'_>) -> Option<(Found, Question, Vec<Attached>)> {
        let (found, key) = self.presented(req)?;
        let key = key?;
        let index = req.state.consumers.index(NAME)?;
        let candidates = Candidates::of(index, &key)?;
        let entries = candidates.0.iter().map(|(entry, _)| Attached::by(entry));
        let entries = entries.collect();
        let hashed = candidates.0.into_iter().map(|(_, hashed)| hashed).collect();
        let question = Question::new(hashed, &key, b"", |text| index.digest(text));
        Some((found, question, entries))
    }

    fn finish(
        &self,
        req: &mut RequestCtx<'_>,
        found: Found,
        verdict: Result<Attached, AuthFailure>,
    ) -> Verdict<'_> {
        let attached = verdict.map_err(|reason| self.refused(reason))?;
        if self.hide_credentials {
            self.places.remove(req, found);
        }
        Ok(Some(attached))
    }

    fn refused(&self, reason: AuthFailure) -> Failure<'_> {
        let answer = match reason {
            AuthFailure::Missing => &self.missing,
            AuthFailure::Unavailable => &self.busy,
            _ => &self.unknown,
        };
        Failure::ready(reason, answer)
    }
}

/// Hashed keys that a key may be; never none.
struct Candidates<'r>(Vec<(&'r CredentialEntry, Arc<Hashed>)>);

impl<'r> Candidates<'r> {
    /// The later in the list first: of equal keys that one is in force.
    fn of(index: &'r CredentialIndex, key: &'r [u8]) -> Option<Self> {
        let hashed = |entry: &'r CredentialEntry| {
            let secret = Arc::clone(&entry.by_prefix()?.secret);
            Some((entry, secret.downcast::<Hashed>().ok()?))
        };
        let mut candidates: Vec<_> = index.candidates(key).filter_map(hashed).collect();
        candidates.sort_unstable_by_key(|(entry, _)| std::cmp::Reverse(entry.order));
        (!candidates.is_empty()).then_some(Self(candidates))
    }

    /// The one that was found right for this key before.
    fn remembered(&self, index: &CredentialIndex, key: &[u8]) -> Option<&'r CredentialEntry> {
        let digest = index.digest(key);
        let mut candidates = self.0.iter();
        let found = candidates.find(|(_, hashed)| hashed.remembers(&digest));
        found.map(|(entry, _)| *entry)
    }
}

/// Length of a `key_prefix`, in bytes.
const PREFIX: std::ops::RangeInclusive<usize> = 4..=64;
