//! APISIX's token: base64 of JSON with a random number, the moment of issue and a signature over
//! both. Tokens of either side are good at the other.

use base64::Engine as _;
use openssl::sha::Sha256;
use rand::Rng as _;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::http::loose_base64::STANDARD as BASE64;
use crate::secrets::Secret;

/// What a token says. `expires` is the moment of issue: APISIX's word for it.
#[derive(Deserialize)]
struct Token<'a> {
    random: f64,
    expires: f64,
    #[serde(borrow)]
    sign: &'a str,
}

/// A token issued at this second.
pub(super) fn issue(key: &Secret, now: u64) -> String {
    let random = random();
    let expires = now.to_string();
    let sign = sign(&random, &expires, key);
    let json = format!("{{\"random\":{random},\"expires\":{expires},\"sign\":\"{sign}\"}}");
    BASE64.encode(json)
}

/// Whether the token was signed with this key, and that not longer ago than its life lasts.
pub(super) fn is_good(token: &[u8], key: &Secret, lifetime: Option<u64>, now: u64) -> bool {
    let Ok(json) = BASE64.decode(token) else {
        return false;
    };
    let Ok(token) = serde_json::from_slice::<Token<'_>>(&json) else {
        return false;
    };
    let expected = sign(&number(token.random), &number(token.expires), key);
    let (expected, sign) = (expected.as_bytes(), token.sign.as_bytes());
    if expected.len() != sign.len() || !openssl::memcmp::eq(expected, sign) {
        return false;
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds stay below 2^53")]
    lifetime.is_none_or(|lifetime| now as f64 - token.expires <= lifetime as f64)
}

/// Lower-case hex of the digest.
fn sign(random: &str, expires: &str, key: &Secret) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{{expires:{expires},random:{random},key:").as_bytes());
    digest.update(key.expose());
    digest.update(b"}");
    let digest = digest.finish();
    let hex = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex = hex.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    hex.collect()
}

/// A number between 0.1 and 1 of just the 14 digits that Lua writes, the last of them no zero: it
/// is written the same by whoever reads it. Some 46 bits out of the operating system's seed.
fn random() -> String {
    let digits: u64 = rand::rng().random_range(1_000_000_000_000..10_000_000_000_000);
    let last: u8 = rand::rng().random_range(1..10);
    format!("0.{digits}{last}")
}

/// A number as Lua writes it: C's `%.14g`.
fn number(value: f64) -> String {
    const DIGITS: i32 = 14;
    let text = format!("{value:.13e}");
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if !(-4..DIGITS).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.unsigned_abs();
        return format!("{}e{sign}{exponent:02}", trimmed(mantissa));
    }
    let places = usize::try_from(DIGITS - 1 - exponent).unwrap_or_default();
    trimmed(&format!("{value:.places$}"))
}

/// `Sun, 22 Nov 2026 02:50:20 GMT` (RFC 9110 §5.6.7).
pub(super) fn http_date(second: u64) -> String {
    let at = i64::try_from(second).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(at).unwrap_or(LAST);
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (hour, minute, second) = at.to_hms();
    let (day, year) = (at.day(), at.year());
    format!("{weekday:.3}, {day:02} {month:.3} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// The last moment that the form of the date can tell.
const LAST: OffsetDateTime = time::PrimitiveDateTime::MAX.assume_utc();

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn a_token_of_apisix_is_good() {
        // Of APISIX's own tests, t/plugin/csrf.t.
        let token = b"eyJyYW5kb20iOjAuNDI5ODYzMTk3MTYxMzksInNpZ24iOiI0ODRlMDY4NTkxMWQ5NmJhMDc5YzQ1ZGI0OTE2NmZkYjQ0ODhjODVkNWQ0NmE1Y2FhM2UwMmFhZDliNjE5OTQ2IiwiZXhwaXJlcyI6MjY0MzExOTYyNH0=";
        let now = 2_643_119_624;
        assert!(is_good(token, &key("userkey"), Some(60), now + 60));
        assert!(!is_good(token, &key("userkey"), Some(60), now + 61));
        assert!(is_good(token, &key("userkey"), None, now + 1_000_000));
        assert!(!is_good(token, &key("userkex"), None, now));
    }

    #[test]
    fn our_tokens_are_good_until_they_are_touched() {
        let key = key("k");
        for _ in 0..200 {
            let token = issue(&key, 1_700_000_000);
            assert!(is_good(token.as_bytes(), &key, Some(10), 1_700_000_010));
            let bare = token.trim_end_matches('=');
            assert!(is_good(bare.as_bytes(), &key, Some(10), 1_700_000_010));
            let json = BASE64.decode(&token).expect("is base64");
            let json = String::from_utf8(json).expect("is text");
            for (from, to) in [
                ("\"expires\":1700000000", "\"expires\":1700000001"),
                ("\"expires\":1700000000", "\"expires\":\"1700000000\""),
                ("\"random\":0.", "\"random\":0.1"),
                ("\"sign\":\"", "\"sign\":\"0"),
                ("{", "["),
            ] {
                let other = json.replace(from, to);
                assert_ne!(other, json);
                let other = BASE64.encode(other);
                assert!(!is_good(other.as_bytes(), &key, None, 0), "{to}");
            }
        }
        for junk in [&b""[..], b"%", b"e30=", b"bnVsbA=="] {
            assert!(!is_good(junk, &key, None, 0));
        }
    }

    #[test]
    fn numbers_are_written_as_lua_does() {
        for (value, expected) in [
            (0.429_863_197_161_39, "0.42986319716139"),
            (0.000_061_035_156_25, "6.103515625e-05"),
            (0.000_123_4, "0.0001234"),
            (1e-100, "1e-100"),
            (2_643_119_624.0, "2643119624"),
            (1e14, "1e+14"),
            (99_999_999_999_999.0, "99999999999999"),
            (0.0, "0"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.3"),
        ] {
            assert_eq!(number(value), expected);
        }
        for _ in 0..1000 {
            let text = random();
            let value: f64 = text.parse().expect("is a number");
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
