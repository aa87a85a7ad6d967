//! Why requests fail to authenticate: fixed words, so that counters are found at load.

/// Label `reason` of `claviger_auth_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// No credential was presented.
    Missing,
    /// A credential was presented that cannot be read.
    Malformed,
    /// Nobody has such a credential.
    Unknown,
    /// Password, signature or tag does not fit.
    Mismatch,
    /// The algorithm is not the one configured, or not allowed.
    Algorithm,
    /// A token is past its end, or a claim that must be there is not.
    Expired,
    /// A token is not valid yet.
    Early,
    /// The date is missing or too far from now.
    Skew,
    /// A part that must be signed is not.
    Unsigned,
    /// The body's digest is missing or differs.
    Digest,
    /// The body is too large to be checked.
    TooLarge,
    /// The same signed request was seen before.
    Replayed,
    /// Another server knows the client and denies the access.
    Denied,
    /// What has to be asked does not answer.
    Unavailable,
    /// The address failed too often lately.
    Throttled,
}

impl AuthFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Mismatch,
        Self::Algorithm,
        Self::Expired,
        Self::Early,
        Self::Skew,
        Self::Unsigned,
        Self::Digest,
        Self::TooLarge,
        Self::Replayed,
        Self::Denied,
        Self::Unavailable,
        Self::Throttled,
    ];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Mismatch => "mismatch",
            Self::Algorithm => "algorithm",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Skew => "skew",
            Self::Unsigned => "unsigned",
            Self::Digest => "digest",
            Self::TooLarge => "too_large",
            Self::Replayed => "replayed",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_number() {
        for (number, reason) in AuthFailure::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.label());
        }
    }
}
