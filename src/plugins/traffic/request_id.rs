//! `request-id`: gives each request an id that both sides see (`spec/03` §7).

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora_http::ResponseHeader;
use rand::{Rng, RngCore};
use serde::Deserialize;
use uuid::{NoContext, Timestamp, Uuid};

use crate::clock::unix_secs;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{HeaderFilter, Hooks, Rewrite, Step};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "request-id",
    priority: 12015,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
#[serde(default)]
struct RequestIdConfig {
    /// Header the id travels in.
    header_name: String,
    /// Whether the response carries it too.
    include_in_response: bool,
    /// How a missing id is made.
    algorithm: Algorithm,
    /// Shape of ids made by `range_id`.
    range_id: RangeIdConfig,
}

impl Default for RequestIdConfig {
    fn default() -> Self {
        Self {
            header_name: "X-Request-Id".to_owned(),
            include_in_response: true,
            algorithm: Algorithm::Uuid,
            range_id: RangeIdConfig::default(),
        }
    }
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Uuid,
    Nanoid,
    #[serde(rename = "range_id")]
    RangeId,
    Ksuid,
    Uuidv7,
}

#[derive(Deserialize)]
#[serde(default)]
struct RangeIdConfig {
    /// Characters of an id; at least 6.
    length: usize,
    /// Characters to choose from; at least 6.
    char_set: String,
}

impl Default for RangeIdConfig {
    fn default() -> Self {
        Self {
            length: 16,
            char_set: String::from_utf8_lossy(BASE62).into_owned(),
        }
    }
}

/// Makes ids.
enum Generator {
    Uuid,
    UuidV7,
    Ksuid,
    Alphabet { chars: Box<[u8]>, length: usize },
}

struct RequestId {
    header: HeaderName,
    /// The name as configured, for HTTP/1.
    case: Bytes,
    in_response: bool,
    generator: Generator,
}

const NANOID: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Longest id made; longer ones would fill the header space of every hop.
const MAX_LENGTH: usize = 256;

/// KSUID counts seconds from here.
const KSUID_EPOCH_SECS: u64 = 1_400_000_000;

fn build(config: RequestIdConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let header = HeaderName::try_from(&config.header_name)
        .map_err(|_| BuildError::invalid("header_name", "must be a header name"))?;
    let generator = match config.algorithm {
        Algorithm::Uuid => Generator::Uuid,
        Algorithm::Uuidv7 => Generator::UuidV7,
        Algorithm::Ksuid => Generator::Ksuid,
        Algorithm::Nanoid => Generator::Alphabet {
            chars: NANOID.as_slice().into(),
            length: 21,
        },
        Algorithm::RangeId => range(&config.range_id)?,
    };
    let plugin = RequestId {
        header,
        case: config.header_name.into(),
        in_response: config.include_in_response,
        generator,
    };
    let hooks = Hooks::of(plugin).rewrite();
    Ok(if config.include_in_response {
        hooks.header_filter().done()
    } else {
        hooks.done()
    })
}

fn range(config: &RangeIdConfig) -> Result<Generator, BuildError> {
    if !(6..=MAX_LENGTH).contains(&config.length) {
        return Err(BuildError::invalid("range_id.length", "must be 6 to 256"));
    }
    let chars = config.char_set.as_bytes();
    if chars.len() < 6 || !chars.iter().all(u8::is_ascii_graphic) {
        return Err(BuildError::invalid(
            "range_id.char_set",
            "must be at least 6 printable ASCII characters",
        ));
    }
    Ok(Generator::Alphabet {
        chars: chars.into(),
        length: config.length,
    })
}

impl Generator {
    /// A new id. Its randomness comes from a cryptographic generator: ids must not be guessable.
    fn id(&self, now: SystemTime) -> Option<HeaderValue> {
        let mut buffer = Uuid::encode_buffer();
        let uuid = match self {
            Self::Uuid => Uuid::new_v4(),
            Self::UuidV7 => {
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                let time = Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos());
                Uuid::new_v7(time)
            }
            Self::Ksuid => return HeaderValue::from_bytes(&ksuid(now)).ok(),
            Self::Alphabet { chars, length } => {
                let mut random = rand::rng();
                let pick = |_| chars[random.random_range(0..chars.len())];
                let id: Vec<u8> = (0..*length).map(pick).collect();
                return HeaderValue::try_from(id).ok();
            }
        };
        HeaderValue::from_str(uuid.hyphenated().encode_lower(&mut buffer)).ok()
    }
}

/// 4 bytes of seconds and 16 random ones, as 27 digits to the base 62.
fn ksuid(now: SystemTime) -> [u8; 27] {
    let seconds =
        u32::try_from(unix_secs(now).saturating_sub(KSUID_EPOCH_SECS)).unwrap_or(u32::MAX);
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    rand::rng().fill_bytes(&mut bytes[4..]);
    base62(bytes)
}

/// Long division by 62, digit by digit from the end.
fn base62(mut number: [u8; 20]) -> [u8; 27] {
    let mut digits = [b'0'; 27];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("remainder is below 62, so this fits a byte");
            remainder = value % 62;
        }
        *digit = BASE62[remainder as usize];
    }
    digits
}

impl Rewrite for RequestId {
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let sent = req.header(&self.header).filter(|id| !id.is_empty());
        if let Some(sent) = sent.cloned() {
            req.state.request_id = Some(sent);
        } else if let Some(id) = self.generator.id(req.state.started_wall) {
            let inserted = req.head.insert_header(self.case.clone(), id.clone());
            debug_assert!(inserted.is_ok(), "name was checked at load");
            req.state.request_id = Some(id);
        }
        Step::CONTINUE
    }
}

impl HeaderFilter for RequestId {
    fn header_filter(&self, req: &mut RequestCtx<'_>, response: &mut ResponseHeader) {
        if !self.in_response || response.headers.contains_key(&self.header) {
            return;
        }
        // The request's own header first: two instances may use two names.
        let id = req.header(&self.header).filter(|id| !id.is_empty());
        if let Some(id) = id.or(req.state.request_id.as_ref()) {
            let inserted = response.insert_header(self.case.clone(), id.clone());
            debug_assert!(inserted.is_ok(), "name was checked at load");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Exchange, built, refusal, response_head};

    fn made(config: &serde_json::Value) -> String {
        let hooks = built(&DEF, config);
        let mut exchange = Exchange::get("/");
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        let id = exchange.values("x-request-id")[0].to_owned();
        let variable = exchange.state.request_id.as_ref();
        assert_eq!(variable.expect("variable is set"), id.as_str());
        id
    }

    #[test]
    fn each_algorithm_makes_ids_of_its_shape() {
        type Shape = fn(u8) -> bool;
        let word = |byte: u8| byte.is_ascii_alphanumeric();
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        let nano = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let cases: [(serde_json::Value, usize, Shape); 7] = [
            (json!(null), 36, hex),
            (json!({"algorithm": "uuid"}), 36, hex),
            (json!({"algorithm": "uuidv7"}), 36, hex),
            (json!({"algorithm": "nanoid"}), 21, nano),
            (json!({"algorithm": "ksuid"}), 27, word),
            (json!({"algorithm": "range_id"}), 16, word),
            (
                json!({"algorithm": "range_id", "range_id": {"length": 30, "char_set": "abcdef"}}),
                30,
                |byte| matches!(byte, b'a'..=b'f'),
            ),
        ];
        for (config, length, shape) in cases {
            let ids: HashSet<_> = (0..50).map(|_| made(&config)).collect();
            assert_eq!(ids.len(), 50, "{config} repeats itself");
            let fits = |id: &String| id.len() == length && id.bytes().all(shape);
            assert!(ids.iter().all(fits), "{config}: {ids:?}");
        }
    }

    #[test]
    fn ids_with_a_time_in_them_carry_the_requests() {
        // 1 700 000 000 s, the time of `Exchange`.
        let id = made(&json!({"algorithm": "uuidv7"}));
        assert!(id.starts_with("018bcfe5-6800-7"), "{id}");
        let id = made(&json!({"algorithm": "ksuid"}));
        assert!(id.starts_with("2YBXZ"), "{id}");
    }

    #[test]
    fn base62_is_that_of_ksuid() {
        assert_eq!(&base62([0; 20]), b"000000000000000000000000000");
        // The largest KSUID of its specification.
        assert_eq!(&base62([0xff; 20]), b"aWgEPTl1tmebfsQzFP4bxwgy80V");
    }

    #[test]
    fn an_incoming_id_is_kept_unless_it_is_empty() {
        let hooks = built(&DEF, &json!({"header_name": "X-Trace"}));
        let mut exchange = Exchange::get("/").header("x-trace", "abc");
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.values("x-trace"), ["abc"]);
        let mut exchange = Exchange::get("/").header("x-trace", "");
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        assert_eq!(exchange.values("x-trace")[0].len(), 36);
    }

    #[test]
    fn the_response_gets_the_id_unless_the_upstream_set_one() {
        let hooks = built(&DEF, &json!({}));
        let mut exchange = Exchange::get("/").header("X-Request-Id", "abc");
        assert!(exchange.rewrite(&hooks).is_none(), "request goes on");
        let mut response = response_head(200, &[]);
        exchange.header_filter(&hooks, &mut response);
        assert_eq!(response.headers["x-request-id"], "abc");
        let mut response = response_head(200, &[("x-request-id", "own")]);
        exchange.header_filter(&hooks, &mut response);
        assert_eq!(response.headers["x-request-id"], "own");

        let hooks = built(&DEF, &json!({"include_in_response": false}));
        assert!(hooks.header_filter.is_none(), "nothing to do there");
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        let chars = "range_id.char_set: must be at least 6 printable ASCII characters";
        let range = |range: serde_json::Value| json!({"algorithm": "range_id", "range_id": range});
        for (json, expected) in [
            (
                json!({"header_name": "a b"}),
                "header_name: must be a header name",
            ),
            (
                range(json!({"length": 5})),
                "range_id.length: must be 6 to 256",
            ),
            (
                range(json!({"length": 257})),
                "range_id.length: must be 6 to 256",
            ),
            (range(json!({"char_set": "abcde"})), chars),
            (range(json!({"char_set": "abcdefü"})), chars),
            (
                json!({"include_in_response": 1}),
                "include_in_response: expected a boolean",
            ),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
        let refused = refusal(&DEF, &json!({"algorithm": "snowflake"}));
        assert!(
            refused.starts_with("algorithm: expected one of `uuid`, `nanoid`"),
            "{refused}"
        );
    }
}
