//! `jwe-decrypt`: replaces an encrypted token by what is in it (`spec/02` §12). The token is a
//! compact JWE (RFC 7516 §7.1), `dir` with A256GCM, under the secret of the consumer its `kid`
//! names. Names no consumer to anyone.

use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderName, HeaderValue};
use openssl::symm::{Cipher, decrypt_aead};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::bearer;
use super::given::given;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict};
use crate::http::{lookalike, loose_base64};
use crate::jwt::{LONGEST_TOKEN, Member, decode_base64url, members};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{
    self, BuildCtx, BuildError, Credential, CredentialCtx, CredentialDef, PluginDef, PluginKind,
};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::sealed::Sealed;
use crate::secrets::{Reference, Secret};
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2509,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "key",
        build: |json, ctx| credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "jwe-decrypt";

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct JweDecryptConfig {
    /// Where the token stands.
    header: String,
    /// Where what is in it goes.
    forward_header: String,
    /// Refuse requests without a token.
    strict: bool,
}

impl Default for JweDecryptConfig {
    fn default() -> Self {
        Self {
            header: "Authorization".to_owned(),
            forward_header: "Authorization".to_owned(),
            strict: true,
        }
    }
}

/// Credential side.
#[derive(Deserialize)]
struct CredentialConfig {
    key: String,
    secret: String,
    #[serde(default)]
    is_base64_encoded: bool,
}

struct JweDecrypt {
    header: HeaderName,
    forward_header: HeaderName,
    strict: bool,
    missing: Response,
    invalid: Response,
    no_kid: Response,
    unknown: Response,
    failed: Response,
}

fn build(config: JweDecryptConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let name = |field, name| {
        HeaderName::try_from(name).map_err(|_| BuildError::invalid(field, "must be a header name"))
    };
    let plugin = JweDecrypt {
        header: name("header", config.header)?,
        forward_header: name("forward_header", config.forward_header)?,
        strict: config.strict,
        missing: Response::message(403, "missing JWE token in request"),
        invalid: Response::message(400, "JWE token invalid"),
        no_kid: Response::message(400, "missing kid in JWE token"),
        unknown: Response::message(400, "invalid kid in JWE token"),
        failed: Response::message(400, "failed to decrypt JWE token"),
    };
    let names = [&plugin.header, &plugin.forward_header].map(|name| name.as_str().to_owned());
    let strict = plugin.strict;
    // It has no challenge, and no anonymous consumer that would need one.
    let hooks = Auth::hooks(NAME, plugin, &HeaderValue::from_static(""), None, ctx)?;
    let hooks = hooks.redacts(names);
    let hooks = if strict { hooks } else { hooks.open() };
    Ok(hooks.done())
}

fn credential(config: CredentialConfig, _: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let (key, secret) = (Secret::from(config.key), Secret::from(config.secret));
    given("key", &key)?;
    given("secret", &secret)?;
    let refused = |message| Err(BuildError::invalid("secret", message));
    let sealed = if config.is_base64_encoded {
        let decoded = loose_base64::URL_SAFE.decode(secret.expose());
        let decoded = decoded.or_else(|_| loose_base64::STANDARD.decode(secret.expose()));
        match decoded.map(Zeroizing::new) {
            Ok(decoded) if decoded.len() == KEY_BYTES => Sealed::new(&decoded),
            Ok(_) => return refused("the secret length after base64 decode should be 32 chars"),
            Err(_) => return refused("must be base64"),
        }
    } else if secret.expose().len() == KEY_BYTES {
        Sealed::new(secret.expose())
    } else {
        return refused("the secret length should be 32 chars");
    };
    Ok(Credential {
        lookup_key: key,
        data: Arc::new(sealed),
    })
}

const KEY_BYTES: usize = 32;
/// RFC 7518 §5.3.
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

impl Scheme for JweDecrypt {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        let decrypted = match req.header(&self.header) {
            Some(value) => self
                .decrypted(req, bearer::token(value.as_bytes()))
                .map(Some),
            None if self.strict => Err(Failure::ready(AuthFailure::Missing, &self.missing)),
            None => Ok(None),
        };
        decrypted
            .map(|value| {
                // Never a client's own in the place of what was in a token.
                let names = std::iter::once(self.forward_header.as_str());
                lookalike::remove(req.head, names);
                drop(req.head.remove_header(&self.forward_header));
                if let Some(value) = value {
                    // The name is valid, so this cannot fail.
                    drop(req.head.insert_header(self.forward_header.clone(), value));
                }
                None
            })
            .into()
    }

    fn hide(&self, _: &mut RequestCtx<'_>) {}
}

impl JweDecrypt {
    /// What is in the token, or the first step it fails at.
    fn decrypted(&self, req: &RequestCtx<'_>, token: &[u8]) -> Verdict<'_, HeaderValue> {
        let invalid = || Failure::ready(AuthFailure::Malformed, &self.invalid);
        let failed = |reason| Failure::ready(reason, &self.failed);
        let [header, key, iv, text, tag] = split(token).ok_or_else(invalid)?;
        let json = decode_base64url(header).ok_or_else(invalid)?;
        let read = Header::read(&json).ok_or_else(invalid)?;
        let kid = match &read.kid {
            Kid::Missing => return Err(Failure::ready(AuthFailure::Malformed, &self.no_kid)),
            Kid::Text(kid) => Some(&**kid),
            Kid::Other => None,
        };
        let entry = kid
            .filter(|kid| !kid.is_empty() && !Reference::is_reference(kid))
            .and_then(|kid| req.state.consumers.find(NAME, kid.as_bytes()));
        let secret = entry.and_then(|entry| entry.data()?.downcast_ref::<Sealed>());
        let secret = secret.ok_or(Failure::ready(AuthFailure::Unknown, &self.unknown))?;
        if !read.is_dir || !read.is_a256gcm {
            return Err(failed(AuthFailure::Algorithm));
        }
        let parts = (
            decode_base64url(iv),
            decode_base64url(text),
            decode_base64url(tag),
        );
        let (Some(iv), Some(text), Some(tag)) = parts else {
            return Err(invalid());
        };
        // With `dir` there is no encrypted key (RFC 7516 §5.2, step 10).
        if !key.is_empty() || iv.len() != IV_BYTES || tag.len() != TAG_BYTES {
            return Err(invalid());
        }
        let plain = decrypt_aead(
            Cipher::aes_256_gcm(),
            &secret.open(),
            Some(&iv),
            header,
            &text,
            &tag,
        );
        let plain = plain.map(Zeroizing::new);
        let plain = plain.map_err(|_| failed(AuthFailure::Mismatch))?;
        HeaderValue::from_bytes(&plain).map_err(|_| failed(AuthFailure::Malformed))
    }
}

fn split(token: &[u8]) -> Option<[&[u8]; 5]> {
    if token.len() > LONGEST_TOKEN {
        return None;
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let mut next = || parts.next();
    let all = [next()?, next()?, next()?, next()?, next()?];
    next().is_none().then_some(all)
}

/// A token's header.
struct Header<'t> {
    kid: Kid<'t>,
    is_dir: bool,
    is_a256gcm: bool,
}

enum Kid<'t> {
    Missing,
    /// It names nobody: a consumer's key is a string.
    Other,
    Text(std::borrow::Cow<'t, str>),
}

impl<'t> Header<'t> {
    /// `None` where it is no JSON object, has a name twice, or asks for what is not understood
    /// here: critical extensions (RFC 7516 §4.1.13), compression.
    fn read(text: &'t [u8]) -> Option<Self> {
        let mut header = Self {
            kid: Kid::Missing,
            is_dir: false,
            is_a256gcm: false,
        };
        let mut understood = true;
        members(text, |name, member| match (name, member) {
            ("alg", Member::Text(name)) => header.is_dir = name == "dir",
            ("enc", Member::Text(name)) => header.is_a256gcm = name == "A256GCM",
            ("kid", Member::Text(kid)) => header.kid = Kid::Text(kid),
            ("kid", Member::Bool(false)) => {}
            ("kid", _) => header.kid = Kid::Other,
            ("crit" | "zip", _) => understood = false,
            _ => {}
        })?;
        understood.then_some(header)
    }
}

#[cfg(test)]
mod tests;
