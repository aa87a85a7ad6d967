//! Names of request variables, parsed once, and the trait that answers them.

use std::borrow::Cow;

use ::http::HeaderName;

use super::Name;

/// A parsed variable name (without `$`). Parsed at load so that a request compares no strings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// `http_<header>`: first value of a request header.
    Header(HeaderName),
    /// `arg_<name>`: first value of a query argument.
    Arg(Box<str>),
    /// `cookie_<name>`.
    Cookie(Box<str>),
    /// `uri_param_<name>`: what the parameter router captured.
    UriParam(Box<str>),
    /// `post_arg_<name>`: a field of a form body.
    PostArg(Box<str>),
    /// `post_arg.<path>`: a member of a JSON body, by dotted path; a number picks from an array.
    PostJson(Box<str>),
    /// `jwt_auth_payload.<path>`: a claim of the verified token, by name or dotted path; with an
    /// empty path, `jwt_auth_payload`, all of them.
    Claim(Box<str>),
    /// `sent_http_<header>` and `upstream_http_<header>`: a response header, once there is one.
    ResponseHeader(HeaderName),
    /// `1` to `9…`: a capture of the plugin's own regex.
    Capture(usize),
    /// A name every request has an answer to.
    Known(Name),
    /// Any other name: absent, unless the source has names of its own.
    Named(Box<str>),
}

impl Variable {
    /// Reads a name as it stands behind `$` in a template or first in a condition.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        if let Ok(number) = name.parse() {
            return Self::Capture(number);
        }
        let header = |rest: &str| HeaderName::try_from(rest.replace('_', "-")).ok();
        let prefixed = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if let Some(header) = prefixed("http_").and_then(header) {
            return Self::Header(header);
        }
        if let Some(header) = prefixed("sent_http_").and_then(header) {
            return Self::ResponseHeader(header);
        }
        if let Some(header) = prefixed("upstream_http_").and_then(header) {
            return Self::ResponseHeader(header);
        }
        if let Some(rest) = prefixed("arg_") {
            return Self::Arg(rest.into());
        }
        if let Some(rest) = prefixed("cookie_") {
            return Self::Cookie(rest.into());
        }
        if let Some(rest) = prefixed("uri_param_") {
            return Self::UriParam(rest.into());
        }
        if let Some(rest) = prefixed("post_arg_") {
            return Self::PostArg(rest.into());
        }
        if let Some(rest) = prefixed("post_arg.") {
            return Self::PostJson(rest.into());
        }
        if let Some(rest) = prefixed("jwt_auth_payload.") {
            return Self::Claim(rest.into());
        }
        if name == "jwt_auth_payload" {
            return Self::Claim("".into());
        }
        Name::find(name).map_or_else(|| Self::Named(name.into()), Self::Known)
    }
}

impl Variable {
    /// Whether answering it takes the request's body.
    #[must_use]
    pub const fn is_of_body(&self) -> bool {
        matches!(self, Self::PostArg(_) | Self::PostJson(_))
    }
}

/// Answers variables for one request. The proxy's request context is one; tests use a map.
pub trait VarSource {
    /// The variable's value, or `None` where the request has none.
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>>;

    /// The members of an array-valued variable, for the operator `has`. Most variables are texts
    /// and have none.
    fn list(&self, _variable: &Variable) -> Option<Vec<Cow<'_, str>>> {
        None
    }
}
