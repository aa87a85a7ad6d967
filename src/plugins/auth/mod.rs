//! Group `auth`: plugins that tell who a client is. What they share stands in [`scheme`].

mod basic;
pub(super) mod key_auth;
mod ldap;
pub(super) mod ldap_auth;
pub(super) mod ldap_auth_advanced;
pub(super) mod multi_auth;
mod scheme;
pub(super) mod throttle;
pub(super) mod wolf_rbac;
