//! Group `auth`: holds only what its plugins share.

pub(super) mod key_auth;

use std::sync::Arc;

use http::{HeaderValue, header};

use super::ctx::{Attached, RequestCtx};
use super::def::BuildError;
use super::phase::Flow;
use super::respond::Response;

/// What happens to a request that failed to authenticate (`spec/02` §1.2).
struct Fallback {
    plugin: &'static str,
    anonymous: Option<Arc<str>>,
    no_anonymous: Response,
}

impl Fallback {
    /// Checks and takes the route-side fields `realm` and `anonymous_consumer`.
    fn build(
        plugin: &'static str,
        challenge: &HeaderValue,
        anonymous: Option<String>,
    ) -> Result<Self, BuildError> {
        if anonymous.as_deref() == Some("") {
            return Err(BuildError::invalid(
                "anonymous_consumer",
                "must not be empty",
            ));
        }
        Ok(Self {
            plugin,
            anonymous: anonymous.map(Into::into),
            no_anonymous: refusal("Invalid user authorization", challenge),
        })
    }

    /// Attaches the anonymous consumer where one is configured, else answers with `refusal`.
    fn fall_back(&self, req: &mut RequestCtx<'_>, refusal: &Response) -> Flow {
        let Some(anonymous) = &self.anonymous else {
            return refusal.clone().into();
        };
        let Some(consumer) = req.state.consumers.named(anonymous).cloned() else {
            log::warn!(
                "{} failed to authenticate the request, code: 401. error: failed to get the anonymous consumer",
                self.plugin
            );
            return self.no_anonymous.clone().into();
        };
        req.attach_consumer(Attached {
            consumer,
            credential_id: None,
        });
        Flow::Continue
    }
}

/// 401 with a message and a `WWW-Authenticate` challenge.
fn refusal(message: &str, challenge: &HeaderValue) -> Response {
    Response::message(401, message).with_header(header::WWW_AUTHENTICATE, challenge.clone())
}

/// `<scheme> realm="<realm>"`.
fn challenge(scheme: &str, realm: &str) -> Result<HeaderValue, BuildError> {
    let valid = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if !(1..=128).contains(&realm.len()) || !realm.bytes().all(valid) {
        return Err(BuildError::invalid(
            "realm",
            "must be 1 to 128 printable ASCII characters without '\"' and '\\'",
        ));
    }
    HeaderValue::try_from(format!("{scheme} realm=\"{realm}\""))
        .map_err(|_| BuildError::invalid("realm", "must fit into a header"))
}
