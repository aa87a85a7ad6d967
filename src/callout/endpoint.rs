//! Addresses of servers, read at load.

use reqwest::Url;

/// An absolute `http` or `https` URL without user and fragment. Has no `Debug`: paths and queries
/// may hold what logs must not.
#[derive(Clone)]
pub struct Endpoint(Url);

/// The text is no endpoint. Says what was expected, never what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected http(s)://host[:port][/path] without user and fragment")]
pub struct NotAnEndpoint;

impl Endpoint {
    /// Reads the text.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn parse(text: &str) -> Result<Self, NotAnEndpoint> {
        let url = Url::parse(text).map_err(|_| NotAnEndpoint)?;
        let plain =
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
            return Err(NotAnEndpoint);
        }
        Ok(Self(url))
    }

    /// A path below this one, and a query in the place of its own. Both are encoded here.
    #[must_use]
    pub fn at(&self, path: &str, query: &[(&str, &str)]) -> Self {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Self(url)
    }

    /// The whole as it is sent: with what a query holds.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The path, encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Whether it is reached over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub(super) fn into_url(self) -> Url {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_endpoints() {
        for text in [
            "http://a",
            "https://a:8443/auth?x=1",
            "http://[::1]:80/",
            "HTTP://A",
        ] {
            assert!(Endpoint::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a",
            "/auth",
            "ftp://a",
            "file:///etc/passwd",
            "http://u:p@a",
            "http://u@a",
            "http://a#x",
            "http://",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_and_queries_are_encoded() {
        let base = Endpoint::parse("http://a:81/base/?old=1").expect("a URL");
        let made = base.at("/x y?", &[("a b", "1&2=#"), ("c", "\r\nü")]);
        assert_eq!(
            made.as_str(),
            "http://a:81/base/x%20y%3F?a+b=1%262%3D%23&c=%0D%0A%C3%BC"
        );
        assert_eq!(base.at("/p", &[]).as_str(), "http://a:81/base/p");
    }
}
