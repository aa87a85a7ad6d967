//! Group `auth`: plugins that tell who a client is. What they share stands in [`scheme`].

pub(super) mod authz_casdoor;
pub(super) mod forward_auth;
pub(super) mod key_auth;
pub(super) mod multi_auth;
mod scheme;
pub(super) mod throttle;
