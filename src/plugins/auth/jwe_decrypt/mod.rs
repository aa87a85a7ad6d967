//! `jwe-decrypt`: replaces an encrypted token by what is in it (`spec/02` §12). The token is a
//! compact JWE (RFC 7516 §7.1), `dir` with A256GCM, under the secret of the consumer its `kid`
//! names. Names no consumer to anyone.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderName, HeaderValue};
use openssl::symm::{Cipher, decrypt_aead};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::bearer;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict};
use crate::http::lookalike;
use crate::jwt::{LONGEST_TOKEN, Member, decode_base64url, members};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{
    self, BuildCtx, BuildError, Credential, CredentialCtx, PluginDef, PluginKind,
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
    credential: Some(|json, ctx| credential(def::parse(json)?, ctx)),
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
    // It has no challenge, and no anonymous consumer that would need one.
    let hooks = Auth::hooks(NAME, plugin, &HeaderValue::from_static(""), None, ctx)?;
    let hooks = names.iter().fold(hooks, |hooks, name| hooks.redacts(name));
    Ok(hooks.done())
}

fn credential(config: CredentialConfig, _: &CredentialCtx<'_>) -> Result<Credential, BuildError> {
    let (key, secret) = (Secret::from(config.key), Secret::from(config.secret));
    for (field, text) in [("key", &key), ("secret", &secret)] {
        if text.is_empty() {
            return Err(BuildError::invalid(field, "must not be empty"));
        }
        if text.expose_str().is_some_and(Reference::is_reference) {
            return Err(BuildError::invalid(field, "reference has no value"));
        }
    }
    let refused = |message| Err(BuildError::invalid("secret", message));
    let sealed = if config.is_base64_encoded {
        let decoded = base64(URL_SAFE).decode(secret.expose());
        let decoded = decoded.or_else(|_| base64(STANDARD).decode(secret.expose()));
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

fn base64(alphabet: Alphabet) -> GeneralPurpose {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet, config)
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
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use openssl::symm::encrypt_aead;
    use serde_json::{Value, json};

    use super::*;
    use crate::consumer::{Consumer, Consumers, CredentialEntry, CredentialIndex, GroupLink};
    use crate::plugins::testing::{self, Exchange, answered, body_text, built, refusal};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn sealed(header: &str, key: &str, iv: &[u8], plain: &[u8]) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let header = encode(header.as_bytes());
        let mut tag = [0; TAG_BYTES];
        let cipher = Cipher::aes_256_gcm();
        let text = encrypt_aead(
            cipher,
            key.as_bytes(),
            Some(iv),
            header.as_bytes(),
            plain,
            &mut tag,
        );
        let text = text.expect("encrypts");
        format!(
            "{header}..{}.{}.{}",
            encode(iv),
            encode(&text),
            encode(&tag)
        )
    }

    fn token(plain: &[u8]) -> String {
        let header = r#"{"alg":"dir","enc":"A256GCM","kid":"alice"}"#;
        sealed(header, SECRET, &[7; 12], plain)
    }

    fn with_consumers(mut exchange: Exchange) -> Exchange {
        let consumer = Arc::new(Consumer {
            username: "alice".into(),
            plugins: None,
            group: GroupLink::Alone,
            labels: None,
        });
        let mut index = CredentialIndex::new([1; 16]);
        let json = json!({"key": "alice", "secret": SECRET});
        let credential = testing::credential(&DEF, &json).expect("credential is valid");
        let entry = CredentialEntry::new(consumer.clone(), 0, None, Some(credential.data.clone()));
        index.insert(&credential.lookup_key, entry);
        // Not possible through `credential`; shows that the request side refuses too.
        for key in ["", "$secret://vault/1/a/b"] {
            let entry =
                CredentialEntry::new(consumer.clone(), 1, None, Some(credential.data.clone()));
            index.insert(&Secret::from(key.to_owned()), entry);
        }
        let mut consumers = Consumers::of([consumer].into_iter());
        consumers.by_plugin.insert(NAME, index);
        exchange.state.consumers = Arc::new(consumers);
        exchange
    }

    #[test]
    fn what_is_in_the_token_takes_its_place() {
        let hooks = built(&DEF, &json!(null));
        let token = token(b"hello world");
        for value in [
            token.clone(),
            format!("Bearer {token}"),
            format!("bearer {token}"),
        ] {
            let mut exchange = with_consumers(Exchange::get("/").header("Authorization", &value));
            assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
            assert_eq!(exchange.values("authorization"), ["hello world"]);
            assert!(exchange.state.consumer.is_none(), "it names no consumer");
            assert!(exchange.values("x-consumer-username").is_empty());
        }
        let hooks = built(&DEF, &json!({"header": "X-In", "forward_header": "X-Out"}));
        let exchange = Exchange::get("/")
            .header("X-In", &token)
            .header("X_Out", "forged")
            .header("X-Out", "forged");
        let mut exchange = with_consumers(exchange);
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.values("x-out"), ["hello world"]);
        assert!(exchange.values("x_out").is_empty());
        assert_eq!(exchange.values("x-in"), [token]);
    }

    #[test]
    fn a_request_without_token_is_refused_where_strict() {
        let mut exchange = with_consumers(Exchange::get("/"));
        let answer = exchange
            .rewrite(&built(&DEF, &json!({})))
            .expect("request is refused");
        assert_eq!(answer.status, 403);
        assert_eq!(
            body_text(&answer),
            "{\"message\":\"missing JWE token in request\"}\n"
        );
        assert_eq!(answered(&answer, "www-authenticate"), None);

        let hooks = built(&DEF, &json!({"strict": false, "forward_header": "X-Out"}));
        let mut exchange = with_consumers(Exchange::get("/").header("X-Out", "forged"));
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert!(
            exchange.values("x-out").is_empty(),
            "a client's own value goes"
        );
        let mut exchange = with_consumers(Exchange::get("/").header("Authorization", "x"));
        assert!(
            exchange.rewrite(&hooks).is_some(),
            "a token that is there must be good"
        );
    }

    #[test]
    fn every_step_has_its_refusal() {
        let hooks = built(&DEF, &json!({}));
        let good = token(b"x");
        let parts: Vec<&str> = good.split('.').collect();
        let with = |place: usize, part: &str| {
            let mut parts = parts.clone();
            parts[place] = part;
            parts.join(".")
        };
        let of_header = |header: &str| sealed(header, SECRET, &[7; 12], b"x");
        let dir =
            |rest: &str| of_header(&format!("{{\"alg\":\"dir\",\"enc\":\"A256GCM\",{rest}}}"));
        let (invalid, failed) = ("JWE token invalid", "failed to decrypt JWE token");
        let (missing, unknown) = ("missing kid in JWE token", "invalid kid in JWE token");
        for (token, message) in [
            (String::new(), invalid),
            ("Bearer ".to_owned(), invalid),
            (parts[..4].join("."), invalid),
            (format!("{good}."), invalid),
            (with(0, "!"), invalid),
            (with(0, "e30="), invalid),
            (with(0, "W10"), invalid),
            (with(1, "AAAA"), invalid),
            (with(2, "AAAA"), invalid),
            (with(2, "!"), invalid),
            (with(3, "A"), invalid),
            (with(4, "AAAA"), invalid),
            (with(4, ""), invalid),
            (dir("\"kid\":\"alice\",\"kid\":\"alice\""), invalid),
            (dir("\"kid\":\"alice\",\"crit\":[\"x\"]"), invalid),
            (dir("\"kid\":\"alice\",\"zip\":\"DEF\""), invalid),
            ("a".repeat(LONGEST_TOKEN + 1), invalid),
            (dir("\"a\":1"), missing),
            (dir("\"kid\":false"), missing),
            (dir("\"kid\":7"), unknown),
            (dir("\"kid\":null"), unknown),
            (dir("\"kid\":\"bob\""), unknown),
            (dir("\"kid\":\"\""), unknown),
            (dir("\"kid\":\"$secret://vault/1/a/b\""), unknown),
            (of_header(r#"{"kid":"alice"}"#), failed),
            (
                of_header(r#"{"alg":"dir","enc":"A128GCM","kid":"alice"}"#),
                failed,
            ),
            (
                of_header(r#"{"alg":"A256KW","enc":"A256GCM","kid":"alice"}"#),
                failed,
            ),
            (with(3, "AAAA"), failed),
            (with(4, &"A".repeat(22)), failed),
            (with(2, &"A".repeat(16)), failed),
            (
                with(
                    0,
                    &URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM","kid":"alice","a":1}"#),
                ),
                failed,
            ),
            (token_under("f".repeat(32).as_str()), failed),
            (token(b"a\r\nX-Injected: 1"), failed),
        ] {
            let mut exchange = with_consumers(Exchange::get("/").header("Authorization", &token));
            let answer = exchange.rewrite(&hooks).expect("request is refused");
            assert_eq!(answer.status, 400, "{token}");
            let expected = format!("{{\"message\":\"{message}\"}}\n");
            assert_eq!(body_text(&answer), expected, "{token}");
        }
    }

    fn token_under(secret: &str) -> String {
        let header = r#"{"alg":"dir","enc":"A256GCM","kid":"alice"}"#;
        sealed(header, secret, &[7; 12], b"x")
    }

    #[test]
    fn the_secret_has_32_bytes() {
        let side = |secret: &str, encoded: bool| {
            let json = json!({"key": "k", "secret": secret, "is_base64_encoded": encoded});
            let built = testing::credential(&DEF, &json);
            built
                .map(drop)
                .map_err(|error| (error.field, error.message))
        };
        let bytes: Vec<u8> = (200..232).collect();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
        assert_eq!(side(SECRET, false), Ok(()));
        assert_eq!(side(&encoded, true), Ok(()));
        assert_eq!(side(&URL_SAFE_NO_PAD.encode(&bytes), true), Ok(()));
        let after = "the secret length after base64 decode should be 32 chars";
        for (secret, encoded, message) in [
            ("short", false, "the secret length should be 32 chars"),
            (
                encoded.as_str(),
                false,
                "the secret length should be 32 chars",
            ),
            ("c2hvcnQ=", true, after),
            ("not base64!", true, "must be base64"),
            ("", false, "must not be empty"),
            (
                "$secret://vault/1/jwe/secretttt",
                false,
                "reference has no value",
            ),
        ] {
            let expected = Err(("secret".to_owned(), message.to_owned()));
            assert_eq!(side(secret, encoded), expected, "{secret}");
        }
        for json in [
            json!({"secret": SECRET}),
            json!({"key": "", "secret": SECRET}),
            Value::Null,
        ] {
            assert!(testing::credential(&DEF, &json).is_err(), "{json}");
        }
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        for (json, expected) in [
            (json!({"header": ""}), "header: must be a header name"),
            (
                json!({"forward_header": "a b"}),
                "forward_header: must be a header name",
            ),
            (json!({"strict": "hunter2"}), "strict: expected a boolean"),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
