//! The HTTP client managers share: trust and identity from memory, a time limit, bounded answers.
//! It never follows a redirect, never uses a proxy from the environment, and never puts a URL or
//! an answer into an error. An answer is wiped where the transport put it, too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Body, Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder, Response,
    StatusCode, Url,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::file::read_named;
use super::{BuildCtx, BuildError, FetchError, MAX_DOCUMENT_BYTES, Step, secret_text};
use crate::callout::{self, Reached, Unread};
use crate::secrets::value::Secret;

/// `tls` of a manager.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TlsConfig {
    /// PEM text or path of the certificates to trust, and no others.
    ca: Option<String>,
    /// PEM text or path of our certificate and its chain.
    client_cert: Option<String>,
    /// PEM text or path of its key.
    #[serde(default, deserialize_with = "secret_text")]
    client_key: Option<Secret>,
    /// Name to ask for and to verify in place of the URL's host.
    server_name: Option<String>,
    /// Default true. False accepts any certificate: for experiments only.
    verify: Option<bool>,
}

impl TlsConfig {
    /// Whether it names a certificate of ours.
    pub(super) fn has_identity(&self) -> bool {
        self.client_cert.is_some()
    }

    /// As `verify: false`.
    pub(super) fn accept_any_certificate(&mut self) {
        self.verify = Some(false);
    }
}

/// A client bound to one server.
pub(super) struct HttpClient {
    client: Client,
    /// Base address, without a slash at the end.
    base: String,
    /// `Host` where the address had to carry another name.
    host: Option<String>,
}

/// A segment of a path as it stands in a URL.
pub(super) fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, UNSAFE).to_string()
}

/// Everything but RFC 3986 §2.3's unreserved characters.
const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Status and body.
pub(super) type Answer = (StatusCode, Zeroizing<Vec<u8>>);

impl HttpClient {
    pub(super) fn build(
        uri: &str,
        tls: &TlsConfig,
        timeout: Duration,
        ctx: &BuildCtx<'_>,
    ) -> Result<Self, BuildError> {
        let mut url = parse_uri(uri)?;
        let mut builder = builder(tls, timeout, ctx)?;
        let mut host = None;
        if let Some(name) = &tls.server_name {
            host = Some(rename(&mut url, name)?);
            let original = host.clone().unwrap_or_default();
            builder = builder.dns_resolver(Arc::new(Renamed(original)));
        }
        let client = finish(builder)?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, host })
    }

    /// The same trust, identity and limits, bound to no server. A `tls.server_name` is refused.
    pub(super) fn client(
        tls: &TlsConfig,
        timeout: Duration,
        ctx: &BuildCtx<'_>,
    ) -> Result<Client, BuildError> {
        if tls.server_name.is_some() {
            let message = "expected none: more than one server is asked";
            return Err(BuildError::new("tls.server_name", message));
        }
        finish(builder(tls, timeout, ctx)?)
    }

    /// A request for a path that starts with `/` and is encoded already.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.host {
            Some(host) => request.header(reqwest::header::HOST, host),
            None => request,
        }
    }
}

/// A body that is wiped when it was sent (the transport's own buffers apart).
pub(super) fn wiped_body(bytes: Zeroizing<Vec<u8>>) -> Body {
    Bytes::from_owner(bytes).into()
}

/// A header's value that is wiped when dropped and hidden from debug output; `None` when it is
/// not visible ASCII.
pub(super) fn wiped_header(secret: &[u8]) -> Option<HeaderValue> {
    if !secret.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    wiped_words(secret)
}

/// The same for visible ASCII with blanks in it, as `Bearer <token>` has them.
pub(super) fn wiped_words(secret: &[u8]) -> Option<HeaderValue> {
    let mut bytes = secret.iter();
    if !bytes.all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return None;
    }
    let shared = Bytes::from_owner(Zeroizing::new(secret.to_vec()));
    let mut value = HeaderValue::from_maybe_shared(shared).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn builder(
    tls: &TlsConfig,
    timeout: Duration,
    ctx: &BuildCtx<'_>,
) -> Result<ClientBuilder, BuildError> {
    let builder = callout::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE);
    let builder = trust(builder, tls, ctx)?;
    Ok(match identity(tls)? {
        Some(identity) => builder.identity(identity),
        None => builder,
    })
}

fn finish(builder: ClientBuilder) -> Result<Client, BuildError> {
    builder
        .build()
        .map_err(|_| BuildError::new("tls", "not accepted by the TLS library"))
}

/// Sends and reads at most [`MAX_DOCUMENT_BYTES`].
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, FetchError> {
    let response = open(request).await?;
    let status = response.status();
    Ok((status, read(response).await?))
}

/// Sends and reads the head, which is no redirect.
pub(super) async fn open(request: RequestBuilder) -> Result<Response, FetchError> {
    let response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    if status.is_redirection() {
        return Err(FetchError::Redirected(status.as_u16()));
    }
    Ok(response)
}

/// The body, if it is at most [`MAX_DOCUMENT_BYTES`] long.
pub(super) async fn read(response: Response) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    let body = callout::read(response, MAX_DOCUMENT_BYTES).await;
    body.map_err(|unread| match unread {
        Unread::TooLarge => FetchError::TooLarge(MAX_DOCUMENT_BYTES),
        Unread::Broken(error) => unreachable(&error),
    })
}

/// An address that paths can be appended to, out of the field of that name.
pub(super) fn base(field: &str, uri: &str) -> Result<String, BuildError> {
    let url = parse_uri(uri).map_err(|error| BuildError::new(field, error.message))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(super) fn parse_uri(uri: &str) -> Result<Url, BuildError> {
    let expected = || BuildError::new("uri", "expected http(s)://host[:port]");
    let url = Url::parse(uri.trim()).map_err(|_| expected())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
        return Err(expected());
    }
    Ok(url)
}

fn trust(
    builder: ClientBuilder,
    tls: &TlsConfig,
    ctx: &BuildCtx<'_>,
) -> Result<ClientBuilder, BuildError> {
    if tls.verify == Some(false) {
        return Ok(builder
            .tls_danger_accept_invalid_certs(true)
            .tls_danger_accept_invalid_hostnames(true));
    }
    let named = tls
        .ca
        .as_deref()
        .map(|ca| pem("tls.ca", ca.as_bytes()))
        .transpose()?;
    let Some(bundle) = named.as_ref().map(|pem| pem.as_slice()).or(ctx.trusted_ca) else {
        return Ok(builder);
    };
    match Certificate::from_pem_bundle(bundle) {
        Ok(certificates) if !certificates.is_empty() => Ok(builder.tls_certs_only(certificates)),
        _ => Err(BuildError::new("tls.ca", "expected PEM certificates")),
    }
}

fn identity(tls: &TlsConfig) -> Result<Option<Identity>, BuildError> {
    let (certificate, key) = match (&tls.client_cert, &tls.client_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            let message = "client_cert and client_key go together";
            return Err(BuildError::new("tls", message));
        }
    };
    let certificate = pem("tls.client_cert", certificate.as_bytes())?;
    let key = pem("tls.client_key", key.expose())?;
    let bad_key = |_| BuildError::new("tls.client_key", "expected an unencrypted PEM key");
    // An empty passphrase keeps OpenSSL from asking for one on the terminal.
    let key = openssl::pkey::PKey::private_key_from_pem_passphrase(&key, b"").map_err(bad_key)?;
    let key = Zeroizing::new(key.private_key_to_pem_pkcs8().map_err(bad_key)?);
    Identity::from_pkcs8_pem(&certificate, &key)
        .map(Some)
        .map_err(|_| BuildError::new("tls.client_cert", "expected a PEM certificate of the key"))
}

/// The PEM itself, or the content of the file it names.
fn pem(field: &str, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, BuildError> {
    if text
        .windows(PEM_MARK.len())
        .any(|window| window == PEM_MARK)
    {
        return Ok(Zeroizing::new(text.to_vec()));
    }
    let path = std::str::from_utf8(text).map_err(|_| BuildError::new(field, "expected PEM"))?;
    read_named(Path::new(path)).map_err(|error| {
        BuildError::new(field, format!("expected PEM or a readable path: {error}"))
    })
}

/// Puts `name` in the place of the URL's host and gives the host as it was.
fn rename(url: &mut Url, name: &str) -> Result<String, BuildError> {
    let expected = || BuildError::new("tls.server_name", "expected a DNS name");
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err(expected());
    }
    let original = url.host_str().unwrap_or_default().to_owned();
    url.set_host(Some(name)).map_err(|_| expected())?;
    Ok(match url.port() {
        Some(port) => format!("{original}:{port}"),
        None => original,
    })
}

/// Looks up the host that `tls.server_name` hides; the port is the URL's own.
struct Renamed(String);

impl reqwest::dns::Resolve for Renamed {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let host = match self.0.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => &self.0,
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            let addresses: reqwest::dns::Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// What broke, in the words of the cause itself.
pub(super) fn unreachable(error: &reqwest::Error) -> FetchError {
    let (reached, words) = callout::reached(error);
    let step = match reached {
        Reached::TimedOut => return FetchError::TimedOut,
        Reached::Dns => Step::Dns,
        Reached::Tcp => Step::Tcp,
        Reached::Tls => Step::Tls,
    };
    FetchError::Unreachable(step, words)
}

const PEM_MARK: &[u8] = b"-----BEGIN ";
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_accepted() {
        for uri in [
            "http://a",
            "https://a:8200",
            "https://[::1]:8200/base/",
            " http://a\n",
        ] {
            assert!(parse_uri(uri).is_ok(), "{uri}");
        }
        for uri in [
            "",
            "a",
            "ftp://a",
            "http://u:p@a",
            "http://a?x",
            "http://a#x",
            "file:///a",
        ] {
            assert!(parse_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_renamed_address_keeps_port_and_host_header() {
        let mut url = parse_uri("https://127.0.0.1:8200/x").expect("address must parse");
        let host = rename(&mut url, "vault.test").expect("name must be accepted");
        assert_eq!(
            (url.as_str(), &*host),
            ("https://vault.test:8200/x", "127.0.0.1:8200")
        );
        assert!(rename(&mut url, "10.0.0.1").is_err());
    }
}
