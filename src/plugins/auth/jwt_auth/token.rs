//! What a token says, as far as it is asked: the members of its header and payload that decide.

use std::borrow::Cow;

use crate::jwt::{Algorithm, Member, members};
use crate::telemetry::metrics::AuthFailure;

/// A token's header.
#[derive(Debug, PartialEq)]
pub(super) struct Header<'t> {
    /// `None` where it is absent or none of ours. Only ever compared with a key's own.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) kid: Option<Cow<'t, str>>,
}

impl<'t> Header<'t> {
    /// Reads a header. `None` where it is no JSON object, has a name twice, has a `kid` that is no
    /// string, or asks for what is not understood here: extensions that are critical (RFC 7515
    /// §4.1.11), or a payload that is not encoded (RFC 7797).
    pub(super) fn read(text: &'t [u8]) -> Option<Self> {
        let mut header = Self {
            algorithm: None,
            kid: None,
        };
        let mut understood = true;
        members(text, |name, member| match (name, member) {
            ("alg", Member::Text(name)) => header.algorithm = Algorithm::named(&name),
            ("kid", Member::Text(kid)) => header.kid = Some(kid),
            ("b64", Member::Bool(true)) => {}
            ("kid" | "crit" | "b64", _) => understood = false,
            _ => {}
        })?;
        understood.then_some(header)
    }
}

/// A token's payload.
#[derive(Debug, PartialEq)]
pub(super) struct Payload<'t> {
    pub(super) user: User<'t>,
    pub(super) times: Times,
}

/// The claim that names the consumer.
#[derive(Debug, PartialEq)]
pub(super) enum User<'t> {
    /// Absent, or `false`, which is absent in Lua.
    Missing,
    /// It names nobody: a consumer's key is a string.
    Other,
    Named(Cow<'t, str>),
}

impl<'t> Payload<'t> {
    /// Reads a payload, whose claim `user` names the consumer. `None` where it is no JSON object
    /// or has a name twice (RFC 7519 §4).
    pub(super) fn read(text: &'t [u8], user: &str) -> Option<Self> {
        let mut payload = Self {
            user: User::Missing,
            times: Times {
                exp: Time::Absent,
                nbf: Time::Absent,
            },
        };
        members(text, |name, member| {
            match name {
                "exp" => payload.times.exp = Time::of(&member),
                "nbf" => payload.times.nbf = Time::of(&member),
                _ => {}
            }
            if name == user {
                payload.user = match member {
                    Member::Text(user) => User::Named(user),
                    Member::Bool(false) => User::Missing,
                    _ => User::Other,
                };
            }
        })?;
        Some(payload)
    }
}

/// When a token is valid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub(super) exp: Time,
    pub(super) nbf: Time,
}

/// A claim that should be a number of seconds since 1970, perhaps with a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Time {
    Absent,
    At(f64),
    /// Anything but a number.
    Wrong,
}

impl Time {
    const fn of(member: &Member<'_>) -> Self {
        match member {
            Member::Number(at) => Self::At(*at),
            _ => Self::Wrong,
        }
    }
}

/// Which times a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) exp: Ask,
    pub(super) nbf: Ask,
}

/// Whether a time is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Never,
    IfPresent,
    /// It must be there.
    Always,
}

impl Times {
    /// Whether a token may be used at `now`, with a leeway of `grace` seconds.
    pub(super) fn allow(self, asked: Asked, now: f64, grace: f64) -> Result<(), AuthFailure> {
        // Each comparison is false for what is no number, so that it refuses.
        Self::hold(self.exp, asked.exp, AuthFailure::Expired, |exp| {
            exp > now - grace
        })?;
        Self::hold(self.nbf, asked.nbf, AuthFailure::Early, |nbf| {
            nbf < now + grace
        })
    }

    fn hold(
        time: Time,
        asked: Ask,
        failure: AuthFailure,
        holds: impl Fn(f64) -> bool,
    ) -> Result<(), AuthFailure> {
        match (asked, time) {
            (Ask::Never, _) | (Ask::IfPresent, Time::Absent) => Ok(()),
            (_, Time::At(at)) if holds(at) => Ok(()),
            (_, Time::At(_)) => Err(failure),
            (Ask::Always, Time::Absent) => Err(AuthFailure::Expired),
            (_, Time::Wrong) => Err(AuthFailure::Malformed),
        }
    }
}
