//! Why a call got no answer, in words that hold nothing of what was sent or received.

use std::error::Error as _;
use std::io::ErrorKind;

use super::body::Unread;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Not in time.
    #[error("no whole answer in time")]
    TimedOut,
    /// The server's name was not found.
    #[error("the server's name was not found: {0}")]
    Dns(Box<str>),
    /// No connection.
    #[error("no connection: {0}")]
    Tcp(Box<str>),
    /// The server's certificate was not trusted, or there is no common protocol.
    #[error("TLS failed: {0}")]
    Tls(Box<str>),
    /// The server closed before its answer.
    #[error("the connection was closed: {0}")]
    Closed(Box<str>),
    /// What came is no HTTP, or was cut short.
    #[error("the answer is not whole or not HTTP: {0}")]
    Garbled(Box<str>),
    /// An interim answer in the place of a final one.
    #[error("the answer is an interim one ({0})")]
    Interim(u16),
    /// The body is over the bound.
    #[error("the answer's body is longer than allowed")]
    TooLarge,
    /// No client could be made.
    #[error("no client could be made")]
    NoClient,
}

impl CallError {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let (reached, words) = reached(error);
        match reached {
            Reached::TimedOut => Self::TimedOut,
            Reached::Dns => Self::Dns(words),
            Reached::Tls => Self::Tls(words),
            Reached::Tcp if error.is_connect() => Self::Tcp(words),
            Reached::Tcp if is_closed(error) => Self::Closed(words),
            Reached::Tcp => Self::Garbled(words),
        }
    }
}

impl From<Unread> for CallError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::TooLarge,
            Unread::Broken(error) if error.is_timeout() => Self::TimedOut,
            Unread::Broken(error) => Self::Garbled(reached(&error).1),
        }
    }
}

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It ran out of time.
    TimedOut,
    /// The name was not found.
    Dns,
    /// No connection, or it broke.
    Tcp,
    /// The TLS library refused.
    Tls,
}

/// How far the call got and what broke, in the words of the cause itself: the outer ones repeat
/// the URL.
#[must_use]
pub fn reached(error: &reqwest::Error) -> (Reached, Box<str>) {
    if error.is_timeout() {
        return (Reached::TimedOut, "timed out".into());
    }
    let mut step = Reached::Tcp;
    let mut words = "request failed".to_owned();
    let mut cause = error.source();
    while let Some(link) = cause {
        words = link.to_string();
        if is_tls(link) {
            // The library's inner errors lack why a certificate was not trusted.
            return (Reached::Tls, words.into());
        }
        if words == "dns error" || words.starts_with("failed to lookup address") {
            step = Reached::Dns;
        }
        cause = link.source();
    }
    (step, words.into())
}

/// Whether the error is the TLS library's. `hyper-tls` and `native-tls` put it inside an I/O error.
fn is_tls(link: &(dyn std::error::Error + 'static)) -> bool {
    fn of_library(error: &(dyn std::error::Error + 'static)) -> bool {
        error.is::<native_tls::Error>()
            || error.is::<openssl::ssl::Error>()
            || error.is::<openssl::error::ErrorStack>()
    }
    let inside = link.downcast_ref::<std::io::Error>();
    let inside = inside.and_then(std::io::Error::get_ref);
    of_library(link) || inside.is_some_and(|inner| of_library(inner))
}

/// Whether the server closed the connection instead of answering.
fn is_closed(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(link) = cause {
        let hyper = link.downcast_ref::<hyper::Error>();
        let closed = |error: &hyper::Error| {
            error.is_incomplete_message() || error.is_closed() || error.is_canceled()
        };
        let io = link.downcast_ref::<std::io::Error>();
        if hyper.is_some_and(closed) || io.is_some_and(|error| CLOSED.contains(&error.kind())) {
            return true;
        }
        cause = link.source();
    }
    false
}

const CLOSED: [ErrorKind; 4] = [
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::BrokenPipe,
    ErrorKind::NotConnected,
];
