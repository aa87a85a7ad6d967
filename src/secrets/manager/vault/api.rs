//! Vault's HTTP API. The endpoints (paths, queries, bodies) are `vaultrs`'; they are sent by our own
//! client, so that an answer is bounded and its status and body are seen by us alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use reqwest::Method;
use rustify::endpoint::Endpoint;
use zeroize::Zeroizing;

use super::addresses::Addresses;
use crate::clock::Clock;
use crate::secrets::manager::FetchError;
use crate::secrets::manager::http::Answer;

/// One call, whoever makes it.
pub(super) struct Call {
    pub(super) method: Method,
    /// Starts with `/v1/`; encoded.
    pub(super) path: String,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    /// False where a second try could do harm: then one server is asked, once.
    pub(super) repeatable: bool,
}

impl Call {
    /// A call of an endpoint.
    ///
    /// # Errors
    /// The endpoint cannot be written down; none of ours.
    pub(super) fn of(endpoint: &impl Endpoint) -> Result<Self, FetchError> {
        let unsendable = |_| FetchError::Garbage("request could not be written");
        // One of vaultrs' paths begins with a tab.
        let mut path = endpoint.path().trim().trim_start_matches('/').to_owned();
        path.insert_str(0, API);
        if let Some(query) = endpoint.query().map_err(unsendable)?
            && !query.is_empty()
        {
            path.push('?');
            path.push_str(&query);
        }
        Ok(Self {
            method: endpoint.method().into(),
            path,
            body: endpoint.body().map_err(unsendable)?.map(Zeroizing::new),
            repeatable: true,
        })
    }

    /// A read of a path, encoded and without the API's own prefix.
    pub(super) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path: format!("{API}{path}"),
            body: None,
            repeatable: true,
        }
    }

    /// The same, never tried again.
    pub(super) fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    /// The path as policies name it, encoded.
    pub(super) fn api_path(&self) -> &str {
        let path = self.path.strip_prefix(API).unwrap_or(&self.path);
        path.split('?').next().unwrap_or(path)
    }
}

pub(super) struct Api {
    pub(super) addresses: Addresses,
    pub(super) namespace: Option<HeaderValue>,
    pub(super) clock: Arc<dyn Clock>,
    /// For all the calls of one read, or of one login.
    pub(super) timeout: Duration,
}

impl Api {
    /// When what begins now has to be over.
    pub(super) fn deadline(&self) -> Instant {
        self.clock.now() + self.timeout
    }

    /// Makes a call with this token.
    ///
    /// # Errors
    /// No server could answer; see [`Addresses::send`].
    pub(super) async fn call(
        &self,
        token: Option<&HeaderValue>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Answer, FetchError> {
        // Vault's own protection against being reached through someone else's redirect.
        let mark = HeaderValue::from_static("true");
        let headers = [
            ("X-Vault-Request", Some(&mark)),
            ("X-Vault-Token", token),
            ("X-Vault-Namespace", self.namespace.as_ref()),
        ];
        self.addresses.send(call, &headers, deadline).await
    }
}

const API: &str = "/v1/";
