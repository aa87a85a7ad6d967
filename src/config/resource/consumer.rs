//! Consumers and their credentials, which share the list `consumers` (`spec/00` §1.1, §3).

use std::collections::HashMap;

use super::plugins::PluginMap;

/// A consumer. Its id is its `username`.
#[derive(Debug, Clone, Default)]
pub struct ConsumerConfig {
    /// Consumer group.
    pub group_id: Option<String>,
    /// Auth plugins (its credentials) and others (merged into the route after authentication).
    pub plugins: PluginMap,
    /// Labels; `custom_id` is sent upstream.
    pub labels: HashMap<String, String>,
}

/// A credential. Its id is `<username>/credentials/<cred-id>`.
#[derive(Debug, Clone, Default)]
pub struct CredentialConfig {
    /// The consumer it belongs to.
    pub username: String,
    /// Last part of the id.
    pub credential_id: String,
    /// At most one, and an auth plugin.
    pub plugins: PluginMap,
}
