//! Plugins: one file each, in APISIX's groups, and the engine that runs them in APISIX's order
//! (`spec/00` §7–§8). A plugin knows neither the proxy nor another plugin's code.

pub mod body;
pub mod chain;
pub mod claims;
pub mod ctx;
pub mod def;
pub mod mentions;
pub mod meta;
pub mod phase;
pub mod respond;
mod target;
pub mod vars;

#[cfg(test)]
mod testing;

mod auth;
mod observe;
mod security;
mod traffic;
mod transform;

pub use auth::throttle::{Throttle, ThrottleSettings};
pub use chain::{Chain, Plugin, Scopes};
pub use ctx::{RequestCtx, RequestState, RouteInfo};
pub use def::{BuildCtx, BuildError, Credential, CredentialDef, PluginDef, PluginKind};
pub use meta::Meta;
pub use phase::{Flow, Hooks, Step};
pub use respond::Response;

/// Every plugin, by priority. The proxy knows none of them by name.
pub const ALL: &[&PluginDef] = &[
    &traffic::request_id::DEF,
    &traffic::mocking::DEF,
    &security::cors::DEF,
    &security::ip_restriction::DEF,
    &security::csrf::DEF,
    &auth::multi_auth::DEF,
    &auth::authz_casdoor::DEF,
    &auth::wolf_rbac::DEF,
    &auth::ldap_auth_advanced::DEF,
    &auth::ldap_auth::DEF,
    &auth::hmac_auth::DEF,
    &auth::basic_auth::DEF,
    &auth::jwt_auth::DEF,
    &auth::jwe_decrypt::DEF,
    &auth::key_auth::DEF,
    &security::acl::DEF,
    &security::consumer_restriction::DEF,
    &transform::attach_consumer_label::DEF,
    &auth::forward_auth::DEF,
    &transform::proxy_rewrite::DEF,
    &traffic::redirect::DEF,
    &transform::response_rewrite::DEF,
    &security::public_api::DEF,
    &observe::prometheus::DEF,
];

/// What plugins offer to clients themselves.
const APIS: &[def::PublicApi] = &[
    auth::wolf_rbac::LOGIN,
    auth::wolf_rbac::CHANGE_PASSWORD,
    auth::wolf_rbac::USER_INFO,
];

/// The plugin of that name.
#[must_use]
pub fn find(name: &str) -> Option<(usize, &'static PluginDef)> {
    ALL.iter()
        .enumerate()
        .find(|(_, def)| def.name == name)
        .map(|(ordinal, def)| (ordinal, *def))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_listed_once_by_priority() {
        assert!(
            ALL.is_sorted_by(|a, b| a.priority > b.priority),
            "higher runs first"
        );
        for def in ALL {
            let (_, found) = find(def.name).expect("plugin is listed");
            assert_eq!(found.priority, def.priority, "{} is listed once", def.name);
        }
    }
}
