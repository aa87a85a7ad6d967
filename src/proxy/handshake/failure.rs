//! Why a handshake failed. Pingora tells it as text alone; in it stand OpenSSL's error codes, whose
//! numbers do not change, and these are read.

use std::fmt;

use crate::telemetry::metrics::HandshakeFailure;

/// A handshake failed; the connection is closed, with an alert where one can still be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeError {
    /// What kind of failure it is.
    pub failure: HandshakeFailure,
    /// OpenSSL's words.
    said: Box<str>,
}

impl HandshakeError {
    pub(super) fn read(error: &pingora_error::Error) -> Self {
        let text = error
            .context
            .as_ref()
            .map_or("", |context| context.as_str());
        let first = entries(text).next();
        Self {
            failure: entries(text)
                .find_map(|entry| kind_of(entry.code))
                .unwrap_or(match first {
                    Some(_) => HandshakeFailure::Protocol,
                    // The socket failed, not OpenSSL.
                    None => HandshakeFailure::Closed,
                }),
            said: first
                .map_or("the connection was closed", |entry| entry.reason)
                .into(),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for HandshakeError {}

struct Entry<'t> {
    code: u32,
    reason: &'t str,
}

/// `error:0A0000C1:SSL routines:tls_post_process_client_hello:no shared cipher:file:line`, one or
/// more of them.
fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.split("error:").skip(1).filter_map(|entry| {
        let mut fields = entry.split(':');
        Some(Entry {
            code: u32::from_str_radix(fields.next()?, 16).ok()?,
            reason: fields.nth(2)?,
        })
    })
}

/// What a code of OpenSSL's error queue stands for; `None` where it is a detail of another.
fn kind_of(code: u32) -> Option<HandshakeFailure> {
    const REASON: u32 = (1 << 23) - 1;
    if code >> 23 != SSL {
        return None;
    }
    // `SSL_R_…` in OpenSSL's sslerr.h.
    Some(match code & REASON {
        199 | 134 | 176 => HandshakeFailure::ClientCertificate,
        // Protocol versions; then ciphers, groups, signatures, ALPN.
        166 | 191 | 258 | 259 | 373 | 396 | 101 | 118 | 193 | 235 | 295 | 376 | 410 => {
            HandshakeFailure::NothingInCommon
        }
        234 => HandshakeFailure::Refused,
        294 => HandshakeFailure::Closed,
        ALERTS..ALERTS_END => HandshakeFailure::ClientAlert,
        _ => return None,
    })
}

/// `ERR_LIB_SSL`.
const SSL: u32 = 20;

/// `SSL_AD_REASON_OFFSET`: an alert that came is this and its number.
const ALERTS: u32 = 1000;
const ALERTS_END: u32 = ALERTS + 256;

#[cfg(test)]
mod tests {
    use pingora_error::{Error, ErrorType};

    use super::*;

    fn read(text: &str) -> HandshakeError {
        let text = format!("TLS accept() failed: {text}");
        HandshakeError::read(&Error::explain(ErrorType::TLSHandshakeFailure, text))
    }

    #[test]
    fn codes_are_read_from_what_pingora_says() {
        use HandshakeFailure::{
            ClientAlert, ClientCertificate, Closed, NothingInCommon, Protocol, Refused,
        };
        let at = "ssl/statem/statem_srvr.c:1:";
        for (code, failure) in [
            ("0A0000C7", ClientCertificate),
            ("0A000086", ClientCertificate),
            ("0A0000C1", NothingInCommon),
            ("0A000102", NothingInCommon),
            ("0A0000EA", Refused),
            ("0A000126", Closed),
            ("0A000418", ClientAlert),
            ("0A00010B", Protocol),
            // The number is another library's.
            ("030000C7", Protocol),
        ] {
            let error = read(&format!("error:{code}:SSL routines:f:what it says:{at}"));
            assert_eq!(error.failure, failure, "{code}");
            assert_eq!(error.to_string(), "what it says");
        }
        let two =
            format!("error:03000086:a:b:first:{at}, error:0A000086:SSL routines:f:second:{at}");
        assert_eq!(read(&two).failure, ClientCertificate);
        for text in [
            "Connection reset by peer (os error 104)",
            "unexpected EOF",
            "error:",
            "",
        ] {
            assert_eq!(read(text).failure, Closed, "{text}");
            assert_eq!(read(text).to_string(), "the connection was closed");
        }
    }
}
