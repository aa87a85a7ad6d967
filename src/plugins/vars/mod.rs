//! Request variables (`spec/00` §9.4, `spec/05` §2): what `$name` means for a request.

mod body;
mod text;

pub(super) use body::member;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};

use super::claims::TokenPayload;
use super::ctx::{Attempt, RequestCtx, RequestState};
use crate::consumer::GroupLink;
use crate::expr::{Name, VarSource, Variable};
use crate::http::{cookie, query};
use crate::tls::ClientVerdict;

/// Variables of a request by its parts, for callers that have no [`RequestCtx`] at hand.
#[derive(Clone, Copy)]
pub struct Vars<'a> {
    /// The head, as rewritten so far.
    pub head: &'a RequestHeader,
    /// Everything else.
    pub state: &'a RequestState,
}

impl VarSource for Vars<'_> {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        self.find(variable)
    }
}

impl VarSource for RequestCtx<'_> {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let vars = Vars {
            head: self.head,
            state: self.state,
        };
        vars.find(variable)
    }
}

/// Variables of a request whose response head is at hand (phase `header_filter`).
pub struct ResponseVars<'a> {
    /// The request.
    pub request: Vars<'a>,
    /// The response head as it stands.
    pub response: &'a ResponseHeader,
}

impl VarSource for ResponseVars<'_> {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::ResponseHeader(name) => {
                self.response.headers.get(name).map(text::header_text)
            }
            Variable::Known(Name::Status) => Some(text::status(self.response.status.as_u16())),
            _ => self.request.find(variable),
        }
    }
}

impl<'a> Vars<'a> {
    fn find(self, variable: &Variable) -> Option<Cow<'a, str>> {
        let Self { head, state } = self;
        match variable {
            Variable::Header(name) if name == header::HOST => self.http_host(),
            Variable::Header(name) if name == header::COOKIE => cookies(&head.headers),
            Variable::Header(name) => header_var(&head.headers, name),
            Variable::Arg(name) => query::first(head.uri.query()?, name),
            Variable::Cookie(name) => cookie::find_in(&head.headers, name).map(Cow::Borrowed),
            Variable::UriParam(name) => {
                let mut params = state.uri_params.iter();
                params
                    .find(|(found, _)| **found == **name)
                    .map(|(_, value)| Cow::Borrowed(value.as_str()))
            }
            Variable::ResponseHeader(name) => header_var(state.response_headers.as_deref()?, name),
            Variable::PostArg(name) => body::form_field(head, state.body.as_deref()?, name),
            Variable::PostJson(path) => body::json_member(head, state.body.as_deref()?, path),
            Variable::Claim(path) => {
                let payload = state.extension_ref::<TokenPayload>()?;
                match &**path {
                    "" => payload.text(),
                    path => payload.claim(path),
                }
            }
            Variable::Known(name) => self.known(*name),
            Variable::Capture(_) | Variable::Named(_) => None,
        }
    }

    fn known(self, name: Name) -> Option<Cow<'a, str>> {
        self.request_line(name)
            .or_else(|| self.exchange(name))
            .or_else(|| self.connection(name))
            .or_else(|| self.client_certificate(name))
            .or_else(|| self.gateway(name))
    }

    /// What the request line and the head say.
    fn request_line(self, name: Name) -> Option<Cow<'a, str>> {
        let Self { head, state } = self;
        let original = state.original.as_deref();
        Some(match name {
            Name::Uri => Cow::Borrowed(self.path()),
            Name::RequestUri => self.request_uri(),
            Name::RealRequestUri => Cow::Borrowed(self.real_request_uri()),
            Name::Args => Cow::Borrowed(head.uri.query()?),
            Name::IsArgs => Cow::Borrowed(if head.uri.query().is_some() { "?" } else { "" }),
            Name::Method => Cow::Borrowed(head.method.as_str()),
            Name::ServerProtocol => Cow::Borrowed(protocol(head.version)),
            Name::Request => {
                let method = original.map_or(&head.method, |original| &original.method);
                let uri = self.real_request_uri();
                Cow::Owned([method.as_str(), " ", uri, " ", protocol(head.version)].concat())
            }
            Name::Host => self.host()?,
            Name::ContentType => header_var(&head.headers, &header::CONTENT_TYPE)?,
            Name::ContentLength => header_var(&head.headers, &header::CONTENT_LENGTH)?,
            Name::RemoteUser => {
                Cow::Owned(text::basic_user(head.headers.get(header::AUTHORIZATION)?)?)
            }
            _ => return None,
        })
    }

    /// What the connection says.
    fn connection(self, name: Name) -> Option<Cow<'a, str>> {
        let state = self.state;
        let tls = || state.tls.as_deref();
        Some(match name {
            Name::RemoteAddr => text::ip(state.client.ip().to_canonical()),
            Name::RemotePort => text::number(state.client.port().into()),
            Name::PeerAddr => text::ip(state.peer.ip().to_canonical()),
            Name::PeerPort => text::number(state.peer.port().into()),
            Name::ServerAddr => text::ip(state.local?.ip().to_canonical()),
            Name::ServerPort => text::number(state.local?.port().into()),
            Name::ServerName => Cow::Borrowed("_"),
            Name::Scheme => Cow::Borrowed(if state.tls.is_some() { "https" } else { "http" }),
            Name::Https => Cow::Borrowed(if state.tls.is_some() { "on" } else { "" }),
            Name::SslProtocol => Cow::Borrowed(tls()?.protocol),
            Name::SslCipher => Cow::Borrowed(&tls()?.cipher),
            Name::SslServerName => Cow::Borrowed(tls()?.sni.as_deref()?),
            Name::SslSessionReused => Cow::Borrowed(if tls()?.resumed { "r" } else { "." }),
            Name::Hostname => Cow::Owned(text::hostname()),
            Name::Pid => text::number(std::process::id().into()),
            _ => return None,
        })
    }

    /// What is known of the client's certificate, in nginx's forms. Differs from nginx: what a
    /// certificate says is told only of one that was verified, for this name.
    fn client_certificate(self, name: Name) -> Option<Cow<'a, str>> {
        let state = self.state;
        if name == Name::SslClientVerify {
            state.tls.as_ref()?;
            return Some(match &state.client_certificate {
                ClientVerdict::Absent => Cow::Borrowed("NONE"),
                ClientVerdict::Failed(reason) => Cow::Owned(["FAILED:", reason].concat()),
                ClientVerdict::Verified(_) => Cow::Borrowed("SUCCESS"),
            });
        }
        let ClientVerdict::Verified(certificate) = &state.client_certificate else {
            return None;
        };
        Some(Cow::Borrowed(match name {
            Name::SslClientSubject => certificate.subject(),
            Name::SslClientIssuer => certificate.issuer(),
            Name::SslClientSerial => certificate.serial(),
            Name::SslClientFingerprint => certificate.fingerprint(),
            Name::SslClientRawCert => certificate.pem(),
            Name::SslClientCert => certificate.indented_pem(),
            Name::SslClientEscapedCert => certificate.escaped_pem(),
            Name::SslClientStart => certificate.starts(),
            Name::SslClientEnd => certificate.ends(),
            Name::SslClientRemain => {
                return Some(text::number(certificate.days_left(state.started_wall)));
            }
            _ => return None,
        }))
    }

    /// What the gateway found out.
    fn gateway(self, name: Name) -> Option<Cow<'a, str>> {
        let state = self.state;
        let route = || state.route.as_deref();
        let attached = || state.consumer.as_ref();
        Some(match name {
            Name::RequestId => text::header_text(state.request_id.as_ref()?),
            Name::RouteId => Cow::Borrowed(&*route()?.id),
            Name::RouteName => Cow::Borrowed(route()?.name.as_deref()?),
            Name::ServiceId => Cow::Borrowed(route()?.service_id.as_deref()?),
            Name::ServiceName => Cow::Borrowed(route()?.service_name.as_deref()?),
            Name::ConsumerName => Cow::Borrowed(&*attached()?.consumer.username),
            Name::ConsumerGroupId => match &attached()?.consumer.group {
                GroupLink::Member(id) => Cow::Borrowed(&**id),
                GroupLink::Alone | GroupLink::Missing(_) => return None,
            },
            Name::CredentialId => Cow::Borrowed(attached()?.credential_id.as_deref()?),
            Name::BalancerIp => text::ip(state.attempts.last()?.addr.ip()),
            Name::BalancerPort => text::number(state.attempts.last()?.addr.port().into()),
            _ => return None,
        })
    }

    /// What became of it: sizes, times, attempts.
    fn exchange(self, name: Name) -> Option<Cow<'a, str>> {
        let state = self.state;
        let wall = || state.started_wall + state.request_time;
        Some(match name {
            Name::Status => text::status(state.status),
            Name::BodyBytesSent => text::number(state.body_bytes_sent),
            Name::BytesSent => text::number(state.bytes_sent),
            Name::RequestLength => text::number(state.bytes_received),
            Name::RequestTime => Cow::Owned(text::seconds(state.request_time)),
            Name::TimeLocal => Cow::Owned(text::time_local(wall())),
            Name::TimeIso8601 => Cow::Owned(text::time_iso8601(wall())),
            Name::Milliseconds => Cow::Owned(text::epoch_millis(wall())),
            Name::UpstreamAddr => self.attempts(|attempt, out| {
                text::push_address(attempt.addr, out);
                Some(())
            })?,
            Name::UpstreamStatus => self.attempts(|attempt, out| {
                text::push_number(attempt.status?.into(), out);
                Some(())
            })?,
            Name::UpstreamResponseTime => self.times(|attempt| attempt.response_time)?,
            Name::UpstreamConnectTime => self.times(|attempt| attempt.connect_time)?,
            Name::UpstreamHeaderTime => self.times(|attempt| attempt.header_time)?,
            // Before an upstream is chosen these are what APISIX's nginx.conf sets them to.
            Name::UpstreamScheme => Cow::Borrowed(state.upstream_scheme.unwrap_or("http")),
            Name::UpstreamHost => match &state.upstream_host {
                Some(host) => Cow::Borrowed(&**host),
                None => self.http_host()?,
            },
            Name::UpstreamUri => Cow::Borrowed(match state.upstream_scheme {
                Some(_) => target(&self.head.uri),
                None => "",
            }),
            _ => return None,
        })
    }

    /// One value per attempt, joined as nginx does; `None` before the first.
    fn attempts(self, push: impl Fn(&Attempt, &mut String) -> Option<()>) -> Option<Cow<'a, str>> {
        let mut joined = String::with_capacity(24);
        for attempt in &self.state.attempts {
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            if push(attempt, &mut joined).is_none() {
                joined.push('-');
            }
        }
        (!joined.is_empty()).then_some(Cow::Owned(joined))
    }

    fn times(self, time: impl Fn(&Attempt) -> Option<Duration>) -> Option<Cow<'a, str>> {
        self.attempts(|attempt, out| {
            text::push_seconds(time(attempt)?, out);
            Some(())
        })
    }

    fn path(self) -> &'a str {
        self.state.path.as_deref().unwrap_or(self.head.uri.path())
    }

    fn request_uri(self) -> Cow<'a, str> {
        match (&self.state.path, self.head.uri.query()) {
            (None, _) => Cow::Borrowed(target(&self.head.uri)),
            (Some(path), None) => Cow::Borrowed(path),
            (Some(path), Some(query)) => Cow::Owned([path, "?", query].concat()),
        }
    }

    fn real_request_uri(self) -> &'a str {
        let original = self.state.original.as_deref();
        target(original.map_or(&self.head.uri, |original| &original.uri))
    }

    fn http_host(self) -> Option<Cow<'a, str>> {
        match self.head.headers.get(header::HOST) {
            Some(host) => Some(text::header_text(host)),
            None => Some(Cow::Borrowed(self.head.uri.authority()?.as_str())),
        }
    }

    /// Host without port, in lower case.
    fn host(self) -> Option<Cow<'a, str>> {
        let lower = |host: &str| host.to_ascii_lowercase();
        Some(match self.http_host()? {
            Cow::Borrowed(host) => {
                let host = crate::http::host::without_port(host);
                if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    Cow::Owned(lower(host))
                } else {
                    Cow::Borrowed(host)
                }
            }
            Cow::Owned(host) => Cow::Owned(lower(crate::http::host::without_port(&host))),
        })
    }
}

fn header_var<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    headers
        .get(name)
        .map(|value: &HeaderValue| text::header_text(value))
}

/// All cookies as one text: HTTP/2 may split them over several lines (RFC 9113 §8.2.3).
fn cookies(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let mut all = text::header_text(lines.next()?);
    for line in lines {
        let joined = all.to_mut();
        joined.push_str("; ");
        joined.push_str(&text::header_text(line));
    }
    Some(all)
}

/// Path and query of a request target.
fn target(uri: &http::Uri) -> &str {
    uri.path_and_query().map_or("", |target| target.as_str())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests;
