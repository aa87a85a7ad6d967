//! Errors to statuses, in one place.

use pingora_error::{Error, ErrorSource, ErrorType};

/// The status a client gets for an error, or 0 where nothing can be sent any more.
#[must_use]
pub(super) fn status_of(error: &Error) -> u16 {
    match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(status)) => *status,
        (ErrorSource::Upstream, kind) if is_timeout(kind) => 504,
        (ErrorSource::Upstream, _) => 502,
        (
            ErrorSource::Downstream,
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::ConnectionClosed
            | ErrorType::WriteTimedout,
        ) => 0,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => 408,
        (ErrorSource::Downstream, _) => 400,
        (ErrorSource::Internal | ErrorSource::Unset, _) => 500,
    }
}

/// Whether the upstream was too slow rather than broken.
#[must_use]
pub(super) const fn is_timeout(kind: &ErrorType) -> bool {
    matches!(
        kind,
        ErrorType::ConnectTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::TLSHandshakeTimedout
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_decides_the_status() {
        for (error, status) in [
            (Error::new(ErrorType::ConnectTimedout).into_up(), 504),
            (Error::new(ErrorType::ReadTimedout).into_up(), 504),
            (Error::new(ErrorType::ConnectRefused).into_up(), 502),
            (Error::new(ErrorType::InvalidHTTPHeader).into_up(), 502),
            (Error::new(ErrorType::ReadTimedout).into_down(), 408),
            (Error::new(ErrorType::ConnectionClosed).into_down(), 0),
            (Error::new(ErrorType::InvalidHTTPHeader).into_down(), 400),
            (Error::new(ErrorType::HTTPStatus(413)), 413),
            (Error::new(ErrorType::InternalError).into_in(), 500),
        ] {
            assert_eq!(status_of(&error), status, "{error:?}");
        }
    }
}
