//! One request as plugins see it: its head, and all the gateway knows about it.

use std::any::Any;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};
use pingora_http::RequestHeader;
use serde_json::Value;
use smallvec::SmallVec;

use super::body::{Ahead, BodyError, CheckBody, PendingCheck, ReadBody};
use super::respond::Source;
use crate::consumer::{Consumer, Consumers, CredentialEntry};
use crate::http::lookalike;
use crate::tls::{ClientVerdict, Presented};

/// The matched route, as variables, metrics and logs name it. Made once per snapshot.
#[derive(Debug, Default)]
pub struct RouteInfo {
    /// Route id.
    pub id: Arc<str>,
    /// Route name.
    pub name: Option<Arc<str>>,
    /// Service id.
    pub service_id: Option<Arc<str>>,
    /// Service name.
    pub service_name: Option<Arc<str>>,
    /// Auth parameters that logs must not show: header, query and cookie names that carry
    /// credentials on this route.
    pub redacted_args: Vec<Box<str>>,
}

/// Facts of the TLS connection a request came over.
#[derive(Debug, Default)]
pub struct TlsInfo {
    /// Name the client asked for, lower-cased.
    pub sni: Option<Box<str>>,
    /// Name the handshake was for: the one asked for, or `fallback_sni` where none was.
    pub served_as: Box<str>,
    /// Such as `TLSv1.3`.
    pub protocol: &'static str,
    /// Such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Cow<'static, str>,
    /// Id of the `ssls` item that served the handshake.
    pub ssl_id: Arc<str>,
    /// What the client presented; `None` where the item asked for nothing.
    pub client: Option<Presented>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Set once a request finds that the connection can serve no further one; it ends then.
    pub spent: AtomicBool,
}

/// The request line before a plugin rewrote it.
#[derive(Debug)]
pub struct Original {
    /// Method.
    pub method: Method,
    /// Request target as received.
    pub uri: Uri,
}

/// The request as the client sent it, whatever plugins made of it.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path, normalised and decoded.
    pub path: &'a str,
    /// Query without `?`; `None` where the target has none.
    pub query: Option<&'a str>,
}

/// The authenticated consumer.
#[derive(Clone)]
pub struct Attached {
    /// Who.
    pub consumer: Arc<Consumer>,
    /// By which of its credentials.
    pub credential_id: Option<Arc<str>>,
}

impl Attached {
    /// The consumer of this credential.
    #[must_use]
    pub fn by(entry: &CredentialEntry) -> Self {
        Self {
            consumer: Arc::clone(&entry.consumer),
            credential_id: entry.credential_id().cloned(),
        }
    }
}

/// A user whom an auth plugin vouches for and who is no consumer: what is known of them, as JSON.
#[derive(Default)]
struct ExternalUser(Option<Value>);

/// One try at an upstream node.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The node.
    pub addr: SocketAddr,
    /// Status it answered, or 502/504 where it did not.
    pub status: Option<u16>,
    /// When the try began.
    pub started: Instant,
    /// Time until the connection stood. Kept only where a log asks for it.
    pub connect_time: Option<Duration>,
    /// Time until its response head.
    pub header_time: Option<Duration>,
    /// Time until the end of its response.
    pub response_time: Option<Duration>,
}

/// All the gateway knows about one request besides its head.
pub struct RequestState {
    /// Client address, after any trusted forwarding header was taken into account.
    pub client: SocketAddr,
    /// Address of the connection's other end.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: Option<SocketAddr>,
    /// TLS facts; `None` on a plain connection.
    pub tls: Option<Arc<TlsInfo>>,
    /// The client's certificate, as far as it counts for the name the request is for.
    pub client_certificate: ClientVerdict,
    /// When the head was read.
    pub started: Instant,
    /// The same by the wall clock.
    pub started_wall: SystemTime,
    /// Normalised path where it differs from the head's own.
    pub path: Option<String>,
    /// What the parameter router captured.
    pub uri_params: SmallVec<[(Arc<str>, String); 2]>,
    /// The route's pattern that matched; empty where none did.
    pub matched_uri: Option<Arc<str>>,
    /// The host pattern that matched.
    pub matched_host: Option<Arc<str>>,
    /// Request line before rewriting; `None` while the head still has it.
    pub original: Option<Box<Original>>,
    /// Normalised path before a plugin rewrote it; `None` while it is [`RequestCtx::path`].
    received_path: Option<String>,
    /// The matched route.
    pub route: Option<Arc<RouteInfo>>,
    /// The authenticated consumer.
    pub consumer: Option<Attached>,
    /// All consumers, for auth plugins.
    pub consumers: Arc<Consumers>,
    /// The body, where it was read whole before anything went upstream: for a plugin, or small
    /// and for a route's conditions. This is what goes upstream.
    pub body: Option<Bytes>,
    /// Checks of a body that is held back until its end.
    pub body_checks: Vec<PendingCheck>,
    /// `apisix_request_id`.
    pub request_id: Option<HeaderValue>,
    /// `Host` to send upstream instead of what `pass_host` says.
    pub host_override: Option<HeaderValue>,
    /// Headers that request phases want on the answer, whoever makes it.
    pub answer_headers: SmallVec<[(String, HeaderValue); 0]>,
    /// Tries so far.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// Scheme spoken upstream, once chosen.
    pub upstream_scheme: Option<&'static str>,
    /// Host sent upstream, once chosen.
    pub upstream_host: Option<Box<str>>,
    /// Who made the response.
    pub source: Source,
    /// Status sent; 0 while none is.
    pub status: u16,
    /// Response head as sent, for variables of the log phase. Kept only where a log asks for it.
    pub response_headers: Option<Box<http::HeaderMap>>,
    /// Request bytes received, head and body.
    pub bytes_received: u64,
    /// Response bytes sent, head and body.
    pub bytes_sent: u64,
    /// Response body bytes sent.
    pub body_bytes_sent: u64,
    /// Time from start to end, set before the log phase.
    pub request_time: Duration,
    /// Outcome of each `_meta.filter` asked so far, by the plugin's address: it is evaluated once
    /// a request (`spec/00` §8.1).
    pub(super) filters: SmallVec<[(usize, bool); 2]>,
    /// Plugins' own state for this request.
    extensions: SmallVec<[Box<dyn Any + Send + Sync>; 2]>,
}

impl RequestState {
    /// The state of a request that was just read.
    #[must_use]
    pub fn new(
        peer: SocketAddr,
        consumers: Arc<Consumers>,
        started: Instant,
        started_wall: SystemTime,
    ) -> Self {
        Self {
            client: peer,
            peer,
            local: None,
            tls: None,
            client_certificate: ClientVerdict::Absent,
            started,
            started_wall,
            path: None,
            uri_params: SmallVec::new(),
            matched_uri: None,
            matched_host: None,
            original: None,
            received_path: None,
            route: None,
            consumer: None,
            consumers,
            body: None,
            body_checks: Vec::new(),
            request_id: None,
            host_override: None,
            answer_headers: SmallVec::new(),
            attempts: SmallVec::new(),
            upstream_scheme: None,
            upstream_host: None,
            source: Source::Upstream,
            status: 0,
            response_headers: None,
            bytes_received: 0,
            bytes_sent: 0,
            body_bytes_sent: 0,
            request_time: Duration::ZERO,
            filters: SmallVec::new(),
            extensions: SmallVec::new(),
        }
    }

    /// This request's state of type `T`, made on first use. Plugins use a private type each.
    pub fn extension<T: Any + Default + Send + Sync>(&mut self) -> &mut T {
        let position = self.extensions.iter().position(|state| state.is::<T>());
        let position = position.unwrap_or_else(|| {
            self.extensions.push(Box::<T>::default());
            self.extensions.len() - 1
        });
        self.extensions[position]
            .downcast_mut()
            .expect("the position was found by this very type")
    }

    /// The same where it was made before.
    pub fn extension_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.extensions
            .iter_mut()
            .find_map(|state| state.downcast_mut())
    }

    /// This request's state of type `T` where a plugin has made one.
    #[must_use]
    pub fn extension_ref<T: Any>(&self) -> Option<&T> {
        self.extensions
            .iter()
            .find_map(|state| state.downcast_ref())
    }
}

/// One request: its head and its state. Lives for one phase.
pub struct RequestCtx<'a> {
    /// The head. Request-phase hooks may change headers; those changes go upstream and are seen
    /// by later plugins and variables.
    pub head: &'a mut RequestHeader,
    /// Everything else.
    pub state: &'a mut RequestState,
    /// The body still to come, where a plugin of the chain said that it may ask for it.
    body: Option<&'a mut dyn ReadBody>,
}

impl<'a> RequestCtx<'a> {
    /// A request whose body stays where it is.
    pub fn new(head: &'a mut RequestHeader, state: &'a mut RequestState) -> Self {
        Self {
            head,
            state,
            body: None,
        }
    }

    /// A request whose body plugins may ask for.
    #[must_use]
    pub fn with_body(self, body: &'a mut dyn ReadBody) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }
}

impl RequestCtx<'_> {
    /// Reads the body whole before anything goes upstream; it is still forwarded. Only plugins
    /// that were built with [`super::phase::HooksOf::reads_body`] may ask.
    ///
    /// # Errors
    /// It is longer than `limit` bytes, or the client did not send it.
    pub async fn whole_body(&mut self, limit: u64) -> Result<Ahead, BodyError> {
        if let Some(body) = &self.state.body {
            return if body.len() as u64 > limit {
                Err(BodyError::TooLarge(body.len() as u64))
            } else {
                Ok(Ahead::Whole(body.clone()))
            };
        }
        let Some(source) = self.body.as_deref_mut() else {
            return Err(BodyError::Broken(500));
        };
        let ahead = source.read(limit).await?;
        if let Ahead::Whole(body) = &ahead {
            self.state.body = Some(body.clone());
        }
        Ok(ahead)
    }

    /// Holds the body back from the upstream until its end, and lets it through only where `check`
    /// does. For bodies that are [`Ahead::Later`].
    pub fn check_body_later(&mut self, check: impl CheckBody + 'static) {
        self.state.body_checks.push(PendingCheck {
            check: Box::new(check),
            error_body: None,
        });
    }

    /// Client address.
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.state.client.ip()
    }

    /// First value of a request header, if it is there; bytes need not be UTF-8.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.head.headers.get(name)
    }

    /// Normalised, decoded path, as the route was matched (or as a plugin rewrote it).
    #[must_use]
    pub fn path(&self) -> &str {
        self.state.path.as_deref().unwrap_or(self.head.uri.path())
    }

    /// Query without `?`; `None` where the target has none.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// What the client asked for, before any rewriting.
    #[must_use]
    pub fn received(&self) -> Received<'_> {
        let original = self.state.original.as_deref();
        let uri = original.map_or(&self.head.uri, |original| &original.uri);
        let path = self.state.received_path.as_deref();
        Received {
            method: original.map_or(&self.head.method, |original| &original.method),
            path: path.unwrap_or_else(|| self.path()),
            query: uri.query(),
        }
    }

    /// Path and query the client asked for, before any rewriting: the path as the route was
    /// matched, spelled as in URLs.
    #[must_use]
    pub fn received_target(&self) -> String {
        let original = self.state.original.as_deref();
        let raw = original.map_or(&self.head.uri, |original| &original.uri);
        let received = self.received();
        let mut target = crate::http::path::spelled(raw.path(), received.path);
        if let Some(query) = received.query {
            target.push('?');
            target.push_str(query);
        }
        target
    }

    /// Host the client asked for, as received: `Host`, or `:authority` over HTTP/2.
    #[must_use]
    pub fn host_and_port(&self) -> Option<&str> {
        match self.head.headers.get(http::header::HOST) {
            Some(host) => host.to_str().ok(),
            None => Some(self.head.uri.authority()?.as_str()),
        }
    }

    /// The same without port.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host_and_port().map(crate::http::host::without_port)
    }

    /// `https` or `http`, by the connection.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.state.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Replaces the request target, path and query; the first call keeps the original for logs.
    /// The authority stays: over HTTP/2 it is where the host stands.
    ///
    /// # Errors
    /// The text is not a valid request target.
    pub fn set_target(&mut self, target: &str) -> Result<(), http::Error> {
        let mut uri: Uri = target.parse()?;
        if self.head.uri.authority().is_some() && uri.authority().is_none() {
            let mut parts = self.head.uri.clone().into_parts();
            parts.path_and_query = uri.into_parts().path_and_query;
            uri = Uri::from_parts(parts)?;
        }
        self.keep_original();
        if self.state.received_path.is_none() {
            self.state.received_path = Some(self.path().to_owned());
        }
        self.state.path = None;
        self.head.set_uri(uri);
        Ok(())
    }

    /// Replaces the method; the first call keeps the original for logs.
    pub fn set_method(&mut self, method: Method) {
        self.keep_original();
        self.head.set_method(method);
    }

    fn keep_original(&mut self) {
        if self.state.original.is_none() {
            self.state.original = Some(Box::new(Original {
                method: self.head.method.clone(),
                uri: self.head.uri.clone(),
            }));
        }
    }

    /// What an auth plugin knows of a user who is no consumer (`ctx.external_user` of APISIX), for
    /// plugins that decide by it.
    pub fn set_external_user(&mut self, user: Value) {
        self.state.extension::<ExternalUser>().0 = Some(user);
    }

    /// The user that [`Self::set_external_user`] told of.
    #[must_use]
    pub fn external_user(&self) -> Option<&Value> {
        self.state.extension_ref::<ExternalUser>()?.0.as_ref()
    }

    /// Takes out the identity headers of `spec/02` §1.1 that the client made up, where a client
    /// was let in who is no consumer.
    pub fn remove_identity(&mut self) {
        lookalike::remove(self.head, IDENTITY.into_iter());
        for name in IDENTITY {
            drop(self.head.remove_header(name));
        }
    }

    /// Attaches the consumer and the identity headers of `spec/02` §1.1, removing forged ones, also
    /// those that an application behind CGI or WSGI would take for them.
    pub fn attach_consumer(&mut self, attached: Attached) {
        if lookalike::has_any(self.head, &IDENTITY) {
            self.remove_identity();
        }
        let consumer = &attached.consumer;
        self.identify("X-Consumer-Username", Some(&consumer.username));
        self.identify("X-Credential-Identifier", attached.credential_id.as_deref());
        self.identify("X-Consumer-Custom-ID", consumer.custom_id());
        self.state.consumer = Some(attached);
    }

    /// The name as a text: Pingora keeps a static one as it is, where it would copy a `HeaderName`.
    fn identify(&mut self, name: &'static str, value: Option<&str>) {
        let value = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        if let Some(value) = value {
            // The name is valid, so this cannot fail.
            drop(self.head.insert_header(name, value));
        }
    }
}

/// Headers that name the consumer to the upstream, in lower case.
const IDENTITY: [&str; 3] = [
    "x-consumer-username",
    "x-credential-identifier",
    "x-consumer-custom-id",
];
