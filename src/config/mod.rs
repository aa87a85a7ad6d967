//! Files and what they declare. References stay plain strings here: this room knows no secret.

mod assemble;
pub mod bootstrap;
mod check;
pub mod node;
pub mod parse;
pub mod places;
pub mod resource;
mod scalar;
pub mod source;
pub mod substitute;
pub mod yaml;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Place};
use resource::{
    ConsumerConfig, CredentialConfig, Item, PluginSetConfig, ProtoConfig, RouteConfig,
    SecretConfig, ServiceConfig, SslConfig, UpstreamConfig,
};

pub use places::Places;

/// A route that failed its own checks. It keeps its place in the routing table, where it answers
/// 404, so that a broader route cannot take over what it protected (`style.md` §1.3).
#[derive(Debug, Clone)]
pub struct RefusedRoute {
    /// The id.
    pub id: Arc<str>,
    /// Zero-based position in the list.
    pub index: usize,
    /// Where the item starts.
    pub place: Place,
    /// Path, host, method predicates as far as they could be read.
    pub matches: Arc<RouteConfig>,
}

/// Tells documents apart that were read at different times, whatever they say. A copy is another,
/// since it may be changed.
#[derive(Debug, Default)]
pub struct Identity(Arc<()>);

impl Identity {
    /// The same identity, to be recognised by.
    #[must_use]
    pub fn note(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Whether the two are one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The whole resource document, item by item, after shape checks.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// Routes in file order.
    pub routes: Vec<Item<RouteConfig>>,
    /// Routes that refuse.
    pub refused_routes: Vec<RefusedRoute>,
    /// Services.
    pub services: Vec<Item<ServiceConfig>>,
    /// Services that failed their own checks, for their hosts: the routes that stand on one refuse
    /// where they would have served, so that no route of that host takes over.
    pub refused_services: Vec<Item<ServiceConfig>>,
    /// Upstreams.
    pub upstreams: Vec<Item<UpstreamConfig>>,
    /// Shared plugin sets.
    pub plugin_configs: Vec<Item<PluginSetConfig>>,
    /// Consumer groups.
    pub consumer_groups: Vec<Item<PluginSetConfig>>,
    /// Global rules.
    pub global_rules: Vec<Item<PluginSetConfig>>,
    /// Ids of global rules that failed their own checks; each makes every request refuse.
    pub refused_global_rules: Vec<Arc<str>>,
    /// Consumers.
    pub consumers: Vec<Item<ConsumerConfig>>,
    /// Credentials whose consumer exists.
    pub credentials: Vec<Item<CredentialConfig>>,
    /// Certificates.
    pub ssls: Vec<Item<SslConfig>>,
    /// Certificates that failed their own checks and were to be presented to clients. Their names,
    /// as far as they could be read, refuse handshakes, so that no wildcard beside them takes over.
    pub refused_ssls: Vec<Item<SslConfig>>,
    /// Secret managers.
    pub secrets: Vec<Item<SecretConfig>>,
    /// Settings of `config.yaml` that hold references; see [`bootstrap::Declared`].
    pub settings: Vec<Item<Value>>,
    /// Per-plugin metadata: id is the plugin's name.
    pub plugin_metadata: Vec<Item<Value>>,
    /// Protobuf definitions.
    pub protos: Vec<Item<ProtoConfig>>,
    /// `plugins:` of the resource file: names that replace the bootstrap's list.
    pub plugins: Option<Vec<String>>,
    /// How many items of each kind failed their own checks and were left out or refuse.
    pub refused: HashMap<&'static str, usize>,
    /// Hash of the files' names and content; equal ones declare the same.
    pub content: u64,
    /// Which reading this is. Whoever changes a document makes it another.
    pub identity: Identity,
    /// Findings made while parsing.
    pub diagnostics: Vec<Diagnostic>,
    /// Places of fields inside items, for findings made later by `snapshot::compile`.
    pub places: Places,
}
