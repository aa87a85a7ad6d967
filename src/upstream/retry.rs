//! Whether a failed attempt is followed by another (`spec/00` §4.1).

use std::time::Duration;

use ::http::Method;

/// How far an attempt had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or the handshake failed: nothing of the request was sent.
    Connecting,
    /// Something was sent, no response head came back.
    Sent,
    /// A response head had come: the client may have seen it.
    Answered,
}

/// An upstream's bounds on tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Further attempts after the first.
    pub retries: u32,
    /// No further attempt once this has passed since the first began; `None` is no limit.
    pub timeout: Option<Duration>,
}

impl RetryPolicy {
    /// Whether another attempt may follow. `attempts` counts those made, the failed one included;
    /// `elapsed` runs from the start of the first.
    #[must_use]
    pub fn allows(
        &self,
        attempts: usize,
        elapsed: Duration,
        failure: Failure,
        method: &Method,
    ) -> bool {
        let resendable = match failure {
            Failure::Connecting => true,
            Failure::Sent => is_resendable(method),
            Failure::Answered => false,
        };
        resendable
            && attempts <= self.retries as usize
            && self.timeout.is_none_or(|timeout| elapsed < timeout)
    }
}

/// nginx's list: all but POST, LOCK and PATCH may be sent twice.
fn is_resendable(method: &Method) -> bool {
    !matches!(method.as_str(), "POST" | "LOCK" | "PATCH" | "CONNECT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        retries: 2,
        timeout: Some(Duration::from_secs(5)),
    };

    #[test]
    fn tries_are_bounded_by_number_and_time() {
        let allows = |attempts, secs| {
            let elapsed = Duration::from_secs(secs);
            POLICY.allows(attempts, elapsed, Failure::Connecting, &Method::POST)
        };
        assert!(allows(1, 0) && allows(2, 4));
        assert!(!allows(3, 0), "two retries are three attempts");
        assert!(!allows(1, 5), "the time is up");
    }

    #[test]
    fn a_sent_request_is_repeated_only_if_that_is_harmless() {
        let allows = |failure, method| POLICY.allows(1, Duration::ZERO, failure, &method);
        assert!(allows(Failure::Sent, Method::GET));
        assert!(allows(Failure::Sent, Method::PUT));
        assert!(!allows(Failure::Sent, Method::POST));
        assert!(!allows(Failure::Sent, Method::PATCH));
        assert!(!allows(Failure::Answered, Method::GET));
    }
}
