//! The SDK's HTTP client, over ours: one TLS library, no proxy, no redirect, bounded answers that
//! are wiped when the SDK lets go of them. It carries the calls to Secrets Manager and those that
//! fetch credentials (STS, container, instance).

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::super::FetchError;
use super::super::http;

/// See the file's text.
#[derive(Clone)]
pub(super) struct Connector {
    client: reqwest::Client,
    /// For one request, its answer included.
    limit: Duration,
}

impl Connector {
    pub(super) fn new(client: reqwest::Client, limit: Duration) -> Self {
        Self { client, limit }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // The metadata addresses are asked with little patience, since most machines lack them.
        let asked = match (settings.connect_timeout(), settings.read_timeout()) {
            (Some(connect), Some(read)) => Some(connect + read),
            (connect, read) => connect.or(read),
        };
        SharedHttpConnector::new(Self {
            client: self.client.clone(),
            limit: asked.map_or(self.limit, |asked| asked.min(self.limit)),
        })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, limit) = (self.client.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            carry(&client, request, limit).await.map_err(|error| {
                let timed_out = error == FetchError::TimedOut;
                let broken = Box::new(Broken(error));
                if timed_out {
                    ConnectorError::timeout(broken)
                } else {
                    ConnectorError::io(broken)
                }
            })
        })
    }
}

/// How the transport failed, as it travels inside the SDK's errors.
#[derive(Debug)]
pub(super) struct Broken(pub(super) FetchError);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Broken {}

async fn carry(
    client: &reqwest::Client,
    request: HttpRequest,
    limit: Duration,
) -> Result<HttpResponse, FetchError> {
    let request = outgoing(request, limit).ok_or(NOT_HTTP)?;
    let sent = client.execute(request).await;
    let mut response = sent.map_err(|error| http::unreachable(&error))?;
    let status = response
        .status()
        .as_u16()
        .try_into()
        .map_err(|_| NOT_HTTP)?;
    let headers = std::mem::take(response.headers_mut());
    let body = http::read(response).await?;
    let mut answer = HttpResponse::new(status, SdkBody::from(Bytes::from_owner(body)));
    for (name, value) in &headers {
        let Ok(value) = value.to_str() else { continue };
        // What the SDK cannot hold it does not need either.
        let _ = answer
            .headers_mut()
            .try_append(name.as_str().to_owned(), value.to_owned());
    }
    Ok(answer)
}

fn outgoing(request: HttpRequest, limit: Duration) -> Option<reqwest::Request> {
    let (parts, body) = request.try_into_http1x().ok()?.into_parts();
    let body = Bytes::copy_from_slice(body.bytes()?);
    let request = ::http::Request::from_parts(parts, body);
    let mut request = reqwest::Request::try_from(request).ok()?;
    for value in request.headers_mut().values_mut() {
        value.set_sensitive(true);
    }
    *request.timeout_mut() = Some(limit);
    Some(request)
}

/// The SDK made something that is no plain HTTP; nothing it does for Secrets Manager is.
const NOT_HTTP: FetchError = FetchError::Garbage("not plain HTTP");
