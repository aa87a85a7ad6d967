//! Group `auth`: plugins that tell who a client is. What they share stands in [`scheme`].

pub(super) mod authz_casdoor;
mod basic;
pub(super) mod basic_auth;
mod bearer;
pub(super) mod forward_auth;
mod given;
mod hide;
pub(super) mod hmac_auth;
pub(super) mod jwe_decrypt;
pub(super) mod jwt_auth;
pub(super) mod key_auth;
mod ldap;
pub(super) mod ldap_auth;
pub(super) mod ldap_auth_advanced;
pub(super) mod multi_auth;
mod phc;
mod scheme;
mod stored;
pub(super) mod throttle;
mod verifier;
pub(super) mod wolf_rbac;
