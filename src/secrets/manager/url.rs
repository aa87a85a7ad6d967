//! `http`: one document at one address, such as an identity provider's key set. `$secret://http/<name>/body`
//! is its whole body. Never follows a redirect, and asks over plain HTTP only where the item allows
//! it or the server is this machine: whoever can change an answer on its way chooses the value.

use std::net::IpAddr;
use std::time::Duration;

use ::http::header::{HeaderName, HeaderValue};
use async_trait::async_trait;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::document::{Document, FieldMap, FieldValue};
use super::http::{self, HttpClient, TlsConfig, wiped_words};
use super::{
    BuildCtx, BuildError, DEFAULT_TIME_LIMIT, FetchError, Location, Manager, ManagerDef, Read,
    seconds,
};
use crate::secrets::reference::{Key, ReferenceError};
use crate::secrets::value::Secret;

pub(in crate::secrets) const DEF: ManagerDef = ManagerDef {
    name: "http",
    build: |fields, ctx| build(fields.parse()?, ctx),
    access: &[
        "headers.authorization",
        "headers.Authorization",
        "plain_http",
        "tls",
        "timeout",
    ],
};

#[derive(Deserialize)]
struct UrlConfig {
    /// Address of the document, with its query if it has one.
    uri: String,
    /// Sent along with each read.
    #[serde(default)]
    headers: FieldMap,
    /// What the document is. With `json`, an answer that is none, such as a page that says sorry, is a
    /// fault of the server and no value. Default: any bytes.
    #[serde(default)]
    format: Format,
    /// Default false: `http://` is for this machine only.
    #[serde(default)]
    plain_http: bool,
    #[serde(default)]
    tls: TlsConfig,
    /// Seconds for one read. Default 5.
    #[serde(default, deserialize_with = "seconds")]
    timeout: Option<Duration>,
}

/// See [`UrlConfig::format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Any,
    Json,
}

fn build(config: UrlConfig, ctx: &BuildCtx<'_>) -> Result<Box<dyn Manager>, BuildError> {
    let timeout = config.timeout.unwrap_or(DEFAULT_TIME_LIMIT);
    if timeout.is_zero() {
        return Err(BuildError::new("timeout", "expected more than 0 seconds"));
    }
    let url = address(&config.uri, config.plain_http)?;
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let server = url.origin().ascii_serialization();
    Ok(Box::new(HttpDocument {
        http: HttpClient::build(&server, &config.tls, timeout, ctx)?,
        target,
        headers: headers(config.headers)?,
        format: config.format,
        timeout,
    }))
}

/// The address, if it may be asked.
fn address(uri: &str, plain_http: bool) -> Result<Url, BuildError> {
    let refused = |message: &str| BuildError::new("uri", message);
    let expected = "expected https://host[:port]/path, without user or fragment";
    let url = Url::parse(uri.trim()).map_err(|_| refused(expected))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
        return Err(refused(expected));
    }
    if url.scheme() == "http" && !plain_http && !is_this_machine(&url) {
        return Err(refused(
            "expected https://: whoever can change an answer on its way would choose the value \
             (plain_http: true asks all the same)",
        ));
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn headers(fields: FieldMap) -> Result<Vec<(HeaderName, HeaderValue)>, BuildError> {
    let header = |(name, value): (Box<str>, FieldValue)| {
        let refused = |message| BuildError::new(format!("headers.{name}"), message);
        let parsed = HeaderName::try_from(&*name);
        let parsed = parsed.map_err(|_| refused("expected the name of a header"))?;
        if OURS.contains(&parsed.as_str()) {
            return Err(refused("expected none: the connection's own"));
        }
        let FieldValue::Text(value) = value else {
            return Err(refused("expected a string"));
        };
        let value = wiped_words(value.expose());
        let value = value.ok_or_else(|| refused("expected visible ASCII and blanks"))?;
        Ok((parsed, value))
    };
    fields.into_iter().map(header).collect()
}

struct HttpDocument {
    http: HttpClient,
    /// Path and query, encoded.
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    format: Format,
    timeout: Duration,
}

#[async_trait]
impl Manager for HttpDocument {
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        if key.version.is_some() {
            return Err(ReferenceError::Query(
                "documents over HTTP have no versions",
            ));
        }
        if &*key.path != BODY || key.field.is_some() {
            return Err(ReferenceError::KeyFormat(key.path.clone()));
        }
        Ok(Location {
            path: "".into(),
            field: BODY.into(),
        })
    }

    async fn fetch(&self, _: Read<'_>) -> Result<Document, FetchError> {
        let request = self.http.request(Method::GET, &self.target);
        let headers = self.headers.iter();
        let request = headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        let (status, body) = http::send(request).await?;
        if status != StatusCode::OK {
            return Err(refusal(status));
        }
        self.format.check(&body)?;
        let body = FieldValue::Text(Secret::new(body.to_vec()));
        Ok(Document::new(FieldMap::from([(BODY.into(), body)]), None))
    }

    fn time_limit(&self) -> Duration {
        self.timeout
    }
}

impl Format {
    fn check(self, body: &[u8]) -> Result<(), FetchError> {
        match self {
            Self::Any => Ok(()),
            Self::Json => serde_json::from_slice(body)
                .map(|IgnoredAny| ())
                .map_err(|_| FetchError::Garbage("not JSON")),
        }
    }
}

/// What an answer means that brings no document. Redirects do not get here.
fn refusal(status: StatusCode) -> FetchError {
    match status {
        StatusCode::NOT_FOUND => FetchError::NotFound,
        StatusCode::GONE => FetchError::Deleted,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => FetchError::Throttled,
        status if status.is_server_error() => FetchError::ServerError(status.as_u16()),
        status => FetchError::UnexpectedStatus(status.as_u16()),
    }
}

/// The one field a document has.
const BODY: &str = "body";
/// Headers that say how the message stands on the wire.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_unless_the_item_allows_it() {
        for (uri, plain_http, good) in [
            ("https://idp.test/keys", false, true),
            ("https://idp.test:8443/keys?p=a%2Fb&q", false, true),
            (" https://[2001:db8::1]/\n", false, true),
            ("http://127.0.0.1:8080/keys", false, true),
            ("http://127.9.9.9/keys", false, true),
            ("http://[::1]:1/keys", false, true),
            ("http://localhost/keys", false, true),
            ("http://idp.test/keys", false, false),
            ("http://localhost.idp.test/keys", false, false),
            ("http://127.0.0.1.idp.test/keys", false, false),
            ("http://10.0.0.1/keys", false, false),
            ("http://idp.test/keys", true, true),
            ("https://user@idp.test/keys", true, false),
            ("https://user:hunter2@idp.test/keys", true, false),
            ("https://idp.test/keys#x", true, false),
            ("ftp://idp.test/keys", true, false),
            ("file:///etc/passwd", true, false),
            ("/keys", true, false),
            ("", true, false),
        ] {
            let address = address(uri, plain_http);
            assert_eq!(address.is_ok(), good, "{uri}");
            let told = address.err().map(|error| error.to_string());
            assert!(!told.is_some_and(|told| told.contains("hunter2")));
        }
    }

    #[test]
    fn headers_are_checked_and_their_values_hidden() {
        let text = |text: &str| FieldValue::Text(Secret::from(text.to_owned()));
        let one = |name: &str, value| headers(FieldMap::from([(name.into(), value)]));
        let good = one("Authorization", text("Bearer hunter2")).expect("header must be accepted");
        assert_eq!(good[0].0, "authorization");
        assert!(!format!("{good:?}").contains("hunter2"));
        for (name, value) in [
            ("a b", text("x")),
            ("Host", text("x")),
            ("Transfer-Encoding", text("chunked")),
            ("x", text("a\r\nb: c")),
            ("x", FieldValue::Other("value is null")),
        ] {
            let error = one(name, value).expect_err("header must be refused");
            assert_eq!(error.field, format!("headers.{name}"));
        }
    }

    #[test]
    fn a_page_that_is_no_json_is_no_value_where_json_is_expected() {
        for (body, is_json) in [
            (r#"{"keys":[]}"#, true),
            ("[1]\n", true),
            ("", false),
            ("<html>sorry</html>", false),
            (r#"{"keys":["#, false),
            ("{} {}", false),
        ] {
            assert_eq!(
                Format::Json.check(body.as_bytes()).is_ok(),
                is_json,
                "{body}"
            );
            assert_eq!(Format::Any.check(body.as_bytes()), Ok(()));
        }
        assert!(
            !Format::Json
                .check(b"x")
                .is_err_and(|error| error.is_authoritative())
        );
    }

    #[test]
    fn only_the_servers_own_word_ends_a_value() {
        for (status, authoritative) in [
            (404, true),
            (410, true),
            (401, true),
            (403, true),
            (429, false),
            (500, false),
            (503, false),
            (204, false),
            (206, false),
            (400, false),
        ] {
            let status = StatusCode::from_u16(status).expect("status is one");
            assert_eq!(
                refusal(status).is_authoritative(),
                authoritative,
                "{status}"
            );
        }
    }
}
