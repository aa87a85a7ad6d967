//! The HTTP interface of a wolf server, and what its answers mean.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value};

use super::TOKEN_HEADER;
use crate::callout::{Answer, Call, CallError, Caller, Endpoint, Keepalive, Settings};
use crate::plugins::def::{BuildError, CredentialCtx};

/// A wolf server.
pub(super) struct Wolf {
    endpoint: Endpoint,
    checks: Caller,
    calls: Caller,
}

/// What somebody wants to do.
pub(super) struct Access<'a> {
    pub(super) appid: &'a str,
    pub(super) resource: &'a str,
    pub(super) action: &'a str,
    pub(super) client: IpAddr,
}

/// What wolf says to that.
pub(super) enum Judgement {
    /// Who it is.
    Allowed(Option<Map<String, Value>>),
    /// Status, reason, and who it is.
    Denied(u16, Value, Option<Map<String, Value>>),
    /// Nothing that can be trusted: what the client is told.
    Silent(String),
}

impl Judgement {
    /// Who it is.
    pub(super) fn user(&self) -> Option<Map<String, Value>> {
        match self {
            Self::Allowed(user) | Self::Denied(_, _, user) => user.clone(),
            Self::Silent(_) => None,
        }
    }
}

/// The address of a server.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, BuildError> {
    Endpoint::parse(text).map_err(|error| BuildError::invalid("server", error.to_string()))
}

impl Wolf {
    pub(super) fn build(
        server: &str,
        verify: bool,
        ctx: &CredentialCtx<'_>,
    ) -> Result<Self, BuildError> {
        let caller = |timeout| {
            let settings = Settings {
                timeout,
                verify,
                keepalive: Some(KEEPALIVE),
                max_body: MAX_BODY,
            };
            Caller::build(&settings, ctx.trust, ctx.kept)
                .map_err(|error| BuildError::invalid("", error.to_string()))
        };
        Ok(Self {
            endpoint: endpoint(server)?,
            checks: caller(CHECK_TIMEOUT)?,
            calls: caller(CALL_TIMEOUT)?,
        })
    }

    /// Where to ask whether this is allowed.
    pub(super) fn question(&self, access: &Access<'_>) -> Endpoint {
        let client = access.client.to_string();
        self.endpoint.at(
            "/wolf/rbac/access_check",
            &[
                ("appID", access.appid),
                ("resName", access.resource),
                ("action", access.action),
                ("clientIP", &client),
            ],
        )
    }

    /// Asks; again where the server has trouble.
    pub(super) async fn judge(&self, question: Endpoint, token: &HeaderValue) -> Judgement {
        let mut tries = 1;
        loop {
            let mut call = Call::get(question.clone());
            call.headers = headers(Some(token));
            let answer = match self.checks.call(call).await {
                Ok(answer) => answer,
                Err(error) => {
                    log::error!("wolf-rbac: no answer to an access check: {error}");
                    let word = word(&error);
                    return Judgement::Silent(format!("request to wolf-server failed, err:{word}"));
                }
            };
            if !answer.status.is_server_error() {
                return judgement(&answer);
            }
            if tries == MAX_TRIES {
                let status = answer.status.as_u16();
                log::error!("wolf-rbac: an access check was answered with status {status}");
                let message = format!("request to wolf-server failed, status:{status}");
                return Judgement::Silent(message);
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Calls one of the other interfaces: the answer's `data`, or what the client gets instead.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&HeaderValue>,
        body: Option<Vec<u8>>,
    ) -> Result<Map<String, Value>, Trouble> {
        let mut call = Call::get(self.endpoint.at(path, &[]));
        call.method = method;
        call.headers = headers(token);
        call.body = body.map(Into::into).unwrap_or_default();
        let answer = self.calls.call(call).await.map_err(|error| {
            log::error!("wolf-rbac: no answer from {path}: {error}");
            Trouble::Failed
        })?;
        let status = answer.status.as_u16();
        if status != 200 {
            log::error!("wolf-rbac: {path} was answered with status {status}");
            return Err(Trouble::Failed);
        }
        let Some(mut body) = object(&answer.body) else {
            log::error!("wolf-rbac: the answer of {path} is not JSON");
            return Err(Trouble::Failed);
        };
        if body.get("ok") != Some(&Value::Bool(true)) {
            return Err(Trouble::NotOk);
        }
        match body.remove("data") {
            Some(Value::Object(data)) => Ok(data),
            _ => Ok(Map::new()),
        }
    }
}

/// Why a call brought nothing.
pub(super) enum Trouble {
    /// The server has trouble.
    Failed,
    /// It understood, and says no.
    NotOk,
}

fn headers(token: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, json);
    if let Some(token) = token {
        headers.insert(HeaderName::from_static(TOKEN_HEADER), token.clone());
    }
    headers
}

/// What an answer below 500 means. Differs from APISIX: one that cannot be read, or says that it
/// is not ok, lets nobody in, also where its status is 200.
fn judgement(answer: &Answer) -> Judgement {
    let unread = "check permission failed! parse response json failed!";
    let status = answer.status.as_u16();
    let denied = if answer.status.is_client_error() {
        status
    } else {
        401
    };
    let Some(mut body) = object(&answer.body) else {
        return match answer.status.is_client_error() {
            true => Judgement::Denied(status, unread.into(), None),
            false => Judgement::Silent(unread.to_owned()),
        };
    };
    let user = match body.remove("data") {
        Some(Value::Object(mut data)) => data.remove("userInfo"),
        _ => None,
    };
    let user = match user {
        Some(Value::Object(user)) => Some(user),
        _ => None,
    };
    let ok = body.get("ok").is_none_or(|ok| *ok == Value::Bool(true));
    if status == 200 && ok {
        return Judgement::Allowed(user);
    }
    let reason = body.remove("reason").unwrap_or_default();
    Judgement::Denied(denied, reason, user)
}

fn object(body: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(body).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// APISIX's words for what broke.
const fn word(error: &CallError) -> &'static str {
    match error {
        CallError::TimedOut => "timeout",
        CallError::Tcp(_) => "connection refused",
        CallError::Closed(_) => "closed",
        _ => "failed",
    }
}

const MAX_TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY: usize = 1024 * 1024;
const KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(60),
    connections: 16,
};
