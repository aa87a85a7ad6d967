//! Group `auth`: plugins that tell who a client is. What they share stands in [`scheme`].

pub(super) mod hmac_auth;
pub(super) mod basic_auth;
pub(super) mod key_auth;
pub(super) mod multi_auth;
mod phc;
mod scheme;
mod stored;
pub(super) mod throttle;
mod verifier;
