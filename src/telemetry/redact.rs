//! Takes credentials out of what logs show. Clients put them into queries, headers and cookies;
//! which names carry one is known from the auth plugins of the route, and from custom.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::expr::{Name, VarSource, Variable};

/// What stands in a log instead of a credential.
pub const MASK: &str = "***";

/// Names that carry credentials by custom. Compared without regard to case.
pub const DEFAULT_NAMES: &[&str] = &[
    "apikey",
    "api_key",
    "api-key",
    "x-api-key",
    "jwt",
    "token",
    "access_token",
    "id_token",
    "refresh_token",
    "x-access-token",
    "x-auth-token",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "session",
    "session_id",
    "sessionid",
    "jsessionid",
    "phpsessid",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "client_assertion",
    "x-amz-security-token",
    "x-amz-signature",
    "x-csrf-token",
    "x-vault-token",
];

/// Whether a value under this name is hidden: by custom, or since `names` (the route's) has it.
#[must_use]
pub fn is_sensitive(name: &str, names: &[Box<str>]) -> bool {
    DEFAULT_NAMES.iter().any(|known| same(known, name))
        || names.iter().any(|known| same(known, name))
}

/// The query (without `?`) with the values of sensitive parameters masked. Borrows where there
/// is nothing to mask. Names are compared decoded, as the plugins read them.
#[must_use]
pub fn redact_query<'a>(query: &'a str, names: &[Box<str>]) -> Cow<'a, str> {
    let mut masked = String::new();
    let mut copied = 0;
    let mut start = 0;
    for pair in query.split('&') {
        if let Some((name, value)) = pair.split_once('=')
            && !value.is_empty()
            && is_sensitive_argument(name, names)
        {
            let value_start = start + name.len() + 1;
            masked.push_str(&query[copied..value_start]);
            masked.push_str(MASK);
            copied = start + pair.len();
        }
        start += pair.len() + 1;
    }
    if copied == 0 {
        return Cow::Borrowed(query);
    }
    masked.push_str(&query[copied..]);
    Cow::Owned(masked)
}

/// The same for a text that holds a query behind its first `?`: a target, a URL, a request line.
/// The query ends at the first space.
#[must_use]
pub fn redact_target<'a>(text: &'a str, names: &[Box<str>]) -> Cow<'a, str> {
    let Some(query_start) = memchr::memchr(b'?', text.as_bytes()).map(|at| at + 1) else {
        return Cow::Borrowed(text);
    };
    let rest = &text[query_start..];
    let end = memchr::memchr2(b' ', b'#', rest.as_bytes()).unwrap_or(rest.len());
    match redact_query(&rest[..end], names) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(masked) => Cow::Owned([&text[..query_start], &masked, &rest[end..]].concat()),
    }
}

/// Answers variables as another source does, with credentials masked.
#[derive(Clone, Copy)]
pub struct Redacting<'a> {
    inner: &'a dyn VarSource,
    names: &'a [Box<str>],
}

impl<'a> Redacting<'a> {
    /// Wraps `inner`; `names` are the route's own (`RouteInfo::redacted_args`).
    #[must_use]
    pub const fn new(inner: &'a dyn VarSource, names: &'a [Box<str>]) -> Self {
        Self { inner, names }
    }
}

impl VarSource for Redacting<'_> {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = self.inner.var(variable)?;
        Some(Sensitivity::of(variable).redact(variable, value, self.names))
    }
}

/// What a variable's value may hold that must not be seen. Found once for a parsed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensitivity {
    /// Nothing, whatever the route.
    Harmless,
    /// Something, where the route's names have the variable's.
    ByRoute,
    /// A credential by custom.
    Credential,
    /// A query, or a form body.
    Query,
    /// A text with a query inside.
    Target,
}

impl Sensitivity {
    /// Of this variable.
    #[must_use]
    pub fn of(variable: &Variable) -> Self {
        match variable {
            Variable::Header(name) if name == http::header::REFERER => Self::Target,
            Variable::ResponseHeader(name) if name == http::header::LOCATION => Self::Target,
            Variable::Known(name) => match name {
                Name::Request | Name::RequestUri | Name::RealRequestUri | Name::UpstreamUri => {
                    Self::Target
                }
                Name::Args => Self::Query,
                _ => Self::Harmless,
            },
            Variable::Named(name) => match &**name {
                "request_line" => Self::Target,
                "request_body" => Self::Query,
                _ => Self::Harmless,
            },
            other => match own_name(other) {
                Some(name) if is_sensitive(name, &[]) => Self::Credential,
                Some(_) => Self::ByRoute,
                None => Self::Harmless,
            },
        }
    }

    /// The value as a log may show it; `names` are the route's own.
    #[must_use]
    pub fn redact<'a>(
        self,
        variable: &Variable,
        value: Cow<'a, str>,
        names: &[Box<str>],
    ) -> Cow<'a, str> {
        match self {
            Self::Harmless => value,
            Self::Credential => Cow::Borrowed(MASK),
            Self::Query => map(value, |text| redact_query(text, names)),
            Self::Target => map(value, |text| redact_target(text, names)),
            Self::ByRoute => {
                let name = own_name(variable).unwrap_or_default();
                if names.iter().any(|known| same(known, name)) {
                    Cow::Borrowed(MASK)
                } else {
                    value
                }
            }
        }
    }
}

/// The client's name of what the variable shows.
fn own_name(variable: &Variable) -> Option<&str> {
    match variable {
        Variable::Header(name) | Variable::ResponseHeader(name) => Some(name.as_str()),
        Variable::Arg(name)
        | Variable::Cookie(name)
        | Variable::PostArg(name)
        | Variable::PostJson(name)
        | Variable::Claim(name) => Some(name),
        Variable::UriParam(_) | Variable::Capture(_) | Variable::Known(_) | Variable::Named(_) => {
            None
        }
    }
}

fn map(value: Cow<'_, str>, redact: impl Fn(&str) -> Cow<'_, str>) -> Cow<'_, str> {
    match redact(&value) {
        Cow::Borrowed(_) => value,
        Cow::Owned(masked) => Cow::Owned(masked),
    }
}

fn is_sensitive_argument(name: &str, names: &[Box<str>]) -> bool {
    if name.bytes().any(|c| c == b'%' || c == b'+') {
        let name = name.replace('+', " ");
        return is_sensitive(&percent_decode_str(&name).decode_utf8_lossy(), names);
    }
    is_sensitive(name, names)
}

const fn same(known: &str, name: &str) -> bool {
    known.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sensitive_arguments_are_masked() {
        let names: Vec<Box<str>> = vec!["mykey".into()];
        for (query, expected) in [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("apikey=s3cret", "apikey=***"),
            ("a=1&MyKey=s3cret&b=2", "a=1&MyKey=***&b=2"),
            ("jwt=x&jwt=y", "jwt=***&jwt=***"),
            ("api%6bey=s3cret", "api%6bey=***"),
            ("apikey=a=b&c", "apikey=***&c"),
            ("apikey=&c=1", "apikey=&c=1"),
            ("apikey", "apikey"),
            ("&&token=x&", "&&token=***&"),
            ("tokens=x", "tokens=x"),
        ] {
            assert_eq!(redact_query(query, &names), expected, "{query}");
        }
        assert!(matches!(redact_query("a=1", &names), Cow::Borrowed(_)));
    }

    #[test]
    fn a_request_line_keeps_all_but_the_value() {
        for (line, expected) in [
            ("GET /a HTTP/1.1", "GET /a HTTP/1.1"),
            ("GET /a?b=1 HTTP/1.1", "GET /a?b=1 HTTP/1.1"),
            (
                "GET /a?token=x&b=1 HTTP/1.1",
                "GET /a?token=***&b=1 HTTP/1.1",
            ),
            ("https://h/a?jwt=x#f", "https://h/a?jwt=***#f"),
            ("/a?jwt=x", "/a?jwt=***"),
        ] {
            assert_eq!(redact_target(line, &[]), expected);
        }
    }

    struct Echo;

    impl VarSource for Echo {
        fn var(&self, _variable: &Variable) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed("GET /?sig=s3cret HTTP/1.1"))
        }
    }

    #[test]
    fn variables_that_are_credentials_are_masked_whole() {
        let names: Vec<Box<str>> = vec!["sig".into(), "X-Sig".into()];
        let vars = Redacting::new(&Echo, &names);
        let answer = |name: &str| vars.var(&Variable::parse(name)).expect("echo answers all");
        for name in [
            "http_authorization",
            "http_cookie",
            "http_x_sig",
            "http_x_api_key",
            "arg_sig",
            "arg_apikey",
            "cookie_sig",
            "cookie_jwt",
            "sent_http_set_cookie",
            "post_arg_password",
        ] {
            assert_eq!(answer(name), MASK, "{name}");
        }
        for name in ["request", "request_uri", "http_referer", "upstream_uri"] {
            assert_eq!(answer(name), "GET /?sig=*** HTTP/1.1", "{name}");
        }
        assert_eq!(answer("http_host"), "GET /?sig=s3cret HTTP/1.1");
    }
}
