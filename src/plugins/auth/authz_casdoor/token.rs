//! Casdoor's token endpoint: a code for the life of a login.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use crate::callout::{Answer, Call, CallError, Caller, Endpoint};
use crate::secrets::Secret;

/// Longest life of a session, whatever the token says: what browsers keep a cookie for at most.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Why a code was worth nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Worthless {
    /// Nobody said so.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A status that is no success.
    #[error("the token endpoint answered {0}")]
    Status(u16),
    /// No JSON object, or one without what was asked for.
    #[error("the token endpoint answered with {0}")]
    Answer(&'static str),
}

/// Where codes are exchanged, and as whom.
pub(super) struct TokenEndpoint {
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
}

/// What is read of the answer. Wiped after use.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.access_token.zeroize();
    }
}

impl TokenEndpoint {
    /// How long the login holds that `code` stands for.
    pub(super) async fn exchange(&self, code: &str) -> Result<Duration, Worthless> {
        let body = Bytes::from_owner(self.form(code));
        let mut call = Call::post(self.endpoint.clone(), body);
        call.headers.insert(header::CONTENT_TYPE, FORM);
        let accepted = HeaderValue::from_static("application/json");
        call.headers.insert(header::ACCEPT, accepted);
        lifetime(&self.caller.call(call).await?)
    }

    fn form(&self, code: &str) -> Zeroizing<Vec<u8>> {
        let mut form = Zeroizing::new(Vec::with_capacity(1024));
        for (name, value) in [
            ("code", code.as_bytes()),
            ("grant_type", b"authorization_code"),
            ("client_id", self.client_id.as_bytes()),
            ("client_secret", self.client_secret.expose()),
        ] {
            if !form.is_empty() {
                form.push(b'&');
            }
            form.extend_from_slice(name.as_bytes());
            form.push(b'=');
            for piece in percent_encoding::percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
            {
                form.extend_from_slice(piece.as_bytes());
            }
        }
        form
    }
}

/// The life of the token in a good answer. Casdoor tells a refusal with status 200 and
/// `expires_in: 0`.
fn lifetime(answer: &Answer) -> Result<Duration, Worthless> {
    if !answer.status.is_success() {
        return Err(Worthless::Status(answer.status.as_u16()));
    }
    let token: Token =
        serde_json::from_slice(&answer.body).map_err(|_| Worthless::Answer("something else"))?;
    if token.access_token.as_deref().is_none_or(str::is_empty) {
        return Err(Worthless::Answer("no access_token"));
    }
    match token.expires_in {
        Some(seconds) if seconds >= 1.0 => Ok(Duration::try_from_secs_f64(seconds.floor())
            .unwrap_or(LONGEST)
            .min(LONGEST)),
        _ => Err(Worthless::Answer("a token that is not valid")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn of(status: u16, body: &str) -> Option<u64> {
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        lifetime(&answer).ok().map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn only_a_valid_token_has_a_life() {
        let good = r#"{"access_token":"t","expires_in":3600}"#;
        assert_eq!(of(200, good), Some(3600));
        assert_eq!(of(200, r#"{"access_token":"t","expires_in":1.9}"#), Some(1));
        let year = 400 * 24 * 60 * 60;
        for endless in ["1e300", "99999999999"] {
            let body = format!(r#"{{"access_token":"t","expires_in":{endless}}}"#);
            assert_eq!(of(200, &body), Some(year), "{endless}");
        }
        for (status, body) in [
            (500, good),
            (302, good),
            (200, ""),
            (200, "[]"),
            (200, "<html>"),
            (200, "{}"),
            (200, r#"{"access_token":"t"}"#),
            (200, r#"{"expires_in":3600}"#),
            (200, r#"{"access_token":"","expires_in":3600}"#),
            (200, r#"{"access_token":null,"expires_in":3600}"#),
            (200, r#"{"access_token":7,"expires_in":3600}"#),
            (
                200,
                r#"{"access_token":"error: invalid code","expires_in":0}"#,
            ),
            (200, r#"{"access_token":"t","expires_in":-5}"#),
            (200, r#"{"access_token":"t","expires_in":"3600"}"#),
            (200, r#"{"error":"invalid_grant"}"#),
        ] {
            assert_eq!(of(status, body), None, "{status} {body}");
        }
    }
}
