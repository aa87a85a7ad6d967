//! Outgoing HTTP calls of plugins: a client made at load, bounded in time and size, that tells
//! what failed without a word of what was said. It follows no redirect, uses no proxy from the
//! environment and keeps no cookies; an error holds neither URL, header nor body.
//!
//! A [`Caller`] is made of [`Settings`] and a [`Trust`]; equal ones share their connections
//! through [`Kept`]. Calls run on the runtime of the request. A connection is driven by the
//! runtime that opened it, so each runtime has its own: one that is busy never holds up another.

mod body;
mod endpoint;
mod failure;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, ClientBuilder, redirect};
use tokio::runtime::{Handle, Id};
use zeroize::Zeroizing;

use crate::kept::Kept;
use trust::Connector;

pub use body::{Unread, read};
pub use endpoint::{Endpoint, NotAnEndpoint};
pub use failure::{CallError, Reached, reached};
pub use trust::{NotTrust, Trust};

/// What a caller is held to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Longest time for the whole of a call: name, connection, TLS, answer with its body.
    pub timeout: Duration,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// Connections kept for later calls; `None` closes each after its answer.
    pub keepalive: Option<Keepalive>,
    /// Longest body of an answer.
    pub max_body: usize,
}

/// Bounds of the connections that wait for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// Longest wait.
    pub idle: Duration,
    /// How many may wait, per server and runtime.
    pub connections: usize,
}

/// A call about to be made.
pub struct Call {
    /// Method.
    pub method: Method,
    /// Where to.
    pub endpoint: Endpoint,
    /// Headers. `Host` and the framing ones are made out of the rest where they are missing.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: reqwest::Body,
}

impl Call {
    /// A `GET` without headers of its own.
    #[must_use]
    pub fn get(endpoint: Endpoint) -> Self {
        Self {
            method: Method::GET,
            endpoint,
            headers: HeaderMap::new(),
            body: reqwest::Body::default(),
        }
    }

    /// A `POST` of this body.
    #[must_use]
    pub fn post(endpoint: Endpoint, body: impl Into<reqwest::Body>) -> Self {
        Self {
            method: Method::POST,
            body: body.into(),
            ..Self::get(endpoint)
        }
    }
}

/// A whole answer. The body is wiped when dropped (the transport's own buffers apart).
pub struct Answer {
    /// Status; never an interim one.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Zeroizing<Vec<u8>>,
}

/// Makes calls. Cheap to clone.
#[derive(Clone)]
pub struct Caller(Arc<Transport>);

impl Caller {
    /// A caller with these settings; it shares connections with others that have the same.
    ///
    /// # Errors
    /// The TLS library does not take the trusted certificates.
    pub fn build(settings: &Settings, trust: &Trust, kept: &Kept) -> Result<Self, NotTrust> {
        let connector = Connector::build(trust, settings.verify, kept)?;
        let key = format!("callout/{}/{settings:?}", connector.id());
        let transport = || Transport::new(settings.clone(), connector);
        Ok(Self(kept.entry(&key, transport)))
    }

    /// Makes the call and reads the answer whole.
    ///
    /// # Errors
    /// No whole answer came in time, or its body is over the bound.
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        self.call_seeing(call, &mut None).await
    }

    /// The same; `seen` holds the status as soon as it came, also where the rest of the answer
    /// does not: for callers who must not take half a refusal for silence.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub async fn call_seeing(
        &self,
        call: Call,
        seen: &mut Option<StatusCode>,
    ) -> Result<Answer, CallError> {
        let transport = &*self.0;
        let attempts = transport.attempts(call, seen);
        tokio::time::timeout(transport.settings.timeout, attempts)
            .await
            .unwrap_or(Err(CallError::TimedOut))
    }
}

struct Transport {
    settings: Settings,
    connector: Connector,
    /// One client for each runtime that made a call so far: a handful in a process.
    clients: ArcSwap<Vec<(Id, Client)>>,
}

impl Transport {
    fn new(settings: Settings, connector: Connector) -> Self {
        Self {
            settings,
            connector,
            clients: ArcSwap::default(),
        }
    }

    async fn attempts(
        &self,
        call: Call,
        seen: &mut Option<StatusCode>,
    ) -> Result<Answer, CallError> {
        let client = self.client()?;
        let mut request = reqwest::Request::new(call.method, call.endpoint.into_url());
        *request.headers_mut() = call.headers;
        *request.body_mut() = Some(call.body);
        // A kept connection may be closed by the server at the moment it is used again. A call
        // that may be repeated (RFC 9110 §9.2.2) is, once.
        let again = request
            .method()
            .is_idempotent()
            .then(|| request.try_clone())
            .flatten();
        match (self.attempt(&client, request, seen).await, again) {
            (Err(CallError::Closed(_)), Some(again)) => self.attempt(&client, again, seen).await,
            (outcome, _) => outcome,
        }
    }

    async fn attempt(
        &self,
        client: &Client,
        request: reqwest::Request,
        seen: &mut Option<StatusCode>,
    ) -> Result<Answer, CallError> {
        let response = client.execute(request).await;
        let mut response = response.map_err(|error| CallError::of(&error))?;
        let status = response.status();
        if status.is_informational() {
            return Err(CallError::Interim(status.as_u16()));
        }
        *seen = Some(status);
        let headers = std::mem::take(response.headers_mut());
        let body = body::read(response, self.settings.max_body).await?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// The client of the runtime we are on.
    fn client(&self) -> Result<Client, CallError> {
        let runtime = Handle::try_current().map_err(|_| CallError::NoClient)?.id();
        let find = |clients: &[(Id, Client)]| {
            let mut clients = clients.iter();
            clients
                .find(|(id, _)| *id == runtime)
                .map(|(_, client)| client.clone())
        };
        if let Some(client) = find(&self.clients.load()) {
            return Ok(client);
        }
        let fresh = self.build_client().map_err(|_| CallError::NoClient)?;
        let mut chosen = fresh.clone();
        self.clients.rcu(|clients| {
            let mut clients = Vec::clone(clients);
            match find(&clients) {
                Some(first) => chosen = first,
                None => {
                    chosen = fresh.clone();
                    clients.push((runtime, fresh.clone()));
                }
            }
            clients
        });
        Ok(chosen)
    }

    fn build_client(&self) -> reqwest::Result<Client> {
        let keepalive = self.settings.keepalive;
        let idle = keepalive.map(|keepalive| keepalive.idle);
        builder()
            .http1_only()
            .connect_timeout(self.settings.timeout)
            .pool_idle_timeout(idle)
            .pool_max_idle_per_host(keepalive.map_or(0, |keepalive| keepalive.connections))
            .tls_backend_preconfigured(self.connector.tls())
            .build()
    }
}

/// What holds for every client of the gateway: it goes where it is sent and nowhere else.
pub fn builder() -> ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent("claviger")
}

#[cfg(test)]
mod tests;
