//! What each kind of resource declares (`spec/00` §2–§6). A `*Config` holds no behaviour;
//! references stay plain strings here.

pub mod consumer;
mod health;
mod jwks;
mod ocsp_stapling;
mod on_demand;
pub mod plugins;
pub mod proto;
pub mod route;
pub mod secret;
mod shape;
pub mod ssl;
pub mod upstream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use super::check::{Check, Finding};
use super::node::{At, Entry, Node, Tree};
use crate::diagnostic::Place;

pub use consumer::{ConsumerConfig, CredentialConfig};
pub use ocsp_stapling::OcspStaplingConfig;
pub use on_demand::OnDemandConfig;
pub use plugins::{PluginMap, PluginSetConfig, Settings};
pub use proto::ProtoConfig;
pub use route::{RouteConfig, ServiceConfig};
pub use secret::SecretConfig;
pub use shape::{Labels, Pem};
pub use ssl::{ForwardConfig, SslClientConfig, SslConfig, SslKind};
pub use upstream::{
    KeepalivePoolConfig, NodeConfig, PassHost, Scheme, TimeoutConfig, UpstreamAlpn, UpstreamConfig,
    UpstreamTlsConfig,
};

pub(super) use shape::is_reference;
use shape::{Head, Shared};

/// One entry of a top-level list that passed its own checks.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// The id, synthesised (`arr_<n>`) where the file gives none.
    pub id: Arc<str>,
    /// Zero-based position in its list.
    pub index: usize,
    /// Where the item starts.
    pub place: Place,
    /// Hash of the item's content; equal content gives an equal fingerprint within one process.
    pub fingerprint: u64,
    /// The declaration.
    pub value: Arc<T>,
}

/// A kind of resource: a top-level list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `routes`.
    Routes,
    /// `services`.
    Services,
    /// `upstreams`.
    Upstreams,
    /// `plugin_configs`.
    PluginConfigs,
    /// `consumer_groups`.
    ConsumerGroups,
    /// `global_rules`.
    GlobalRules,
    /// `consumers`: consumers and credentials.
    Consumers,
    /// `ssls`.
    Ssls,
    /// `secrets`.
    Secrets,
    /// `plugin_metadata`.
    PluginMetadata,
    /// `protos`.
    Protos,
}

/// Top-level keys and what they hold, in the order findings about missing pieces are told.
pub const KINDS: &[(&str, Kind)] = &[
    ("routes", Kind::Routes),
    ("services", Kind::Services),
    ("upstreams", Kind::Upstreams),
    ("plugin_configs", Kind::PluginConfigs),
    ("consumer_groups", Kind::ConsumerGroups),
    ("global_rules", Kind::GlobalRules),
    ("consumers", Kind::Consumers),
    ("ssls", Kind::Ssls),
    ("secrets", Kind::Secrets),
    ("plugin_metadata", Kind::PluginMetadata),
    ("protos", Kind::Protos),
];

impl Kind {
    /// The top-level key.
    #[must_use]
    pub fn key(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(key, _)| key)
    }

    /// The kind under a top-level key.
    #[must_use]
    pub fn find(key: &str) -> Option<Self> {
        KINDS
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, kind)| *kind)
    }
}

/// A declaration of any kind.
#[derive(Debug, Clone)]
pub(super) enum Declared {
    Route(Arc<RouteConfig>),
    Service(Arc<ServiceConfig>),
    Upstream(Arc<UpstreamConfig>),
    PluginSet(Arc<PluginSetConfig>),
    Consumer(Arc<ConsumerConfig>),
    Credential(Arc<CredentialConfig>),
    Ssl(Arc<SslConfig>),
    Secret(Arc<SecretConfig>),
    Metadata(Arc<Value>),
    Proto(Arc<ProtoConfig>),
    /// Not even an object.
    Nothing,
}

/// One entry of a list as parsed, valid or not.
#[derive(Debug, Clone)]
pub(super) struct ParsedItem {
    pub(super) kind: Kind,
    pub(super) id: Option<Arc<str>>,
    pub(super) at: At,
    pub(super) fingerprint: u64,
    pub(super) refused: bool,
    pub(super) declared: Declared,
    /// A secret manager that one of its fields is short for.
    pub(super) manager: Option<Arc<SecretConfig>>,
    pub(super) findings: Box<[Finding]>,
}

/// Decodes one entry of a list. An entry that fails keeps what could be read of it.
pub(super) fn parse_item(kind: Kind, node: Node, mut check: Check) -> ParsedItem {
    let (at, fingerprint) = (node.at, node.fingerprint());
    let (head, declared) = match node.tree {
        Tree::Map(entries) => parse_object(kind, &mut check, entries, at),
        _ => {
            check.error(at, "wrong-type", "it should be an object");
            (Head::default(), Declared::Nothing)
        }
    };
    ParsedItem {
        kind,
        id: head.id.map(Arc::from),
        at,
        fingerprint,
        refused: check.refused(),
        declared,
        manager: head.manager,
        findings: check.findings.into(),
    }
}

/// A secret manager that stands outside the resource files: id and declaration.
pub(super) fn parse_secret(
    check: &mut Check,
    entries: Vec<Entry>,
    at: At,
) -> (Option<String>, SecretConfig) {
    let (head, config) = secret::parse(check, entries, at);
    (head.id, config)
}

fn parse_object(kind: Kind, check: &mut Check, entries: Vec<Entry>, at: At) -> (Head, Declared) {
    fn of<T>((head, config): (Head, T), declare: fn(Arc<T>) -> Declared) -> (Head, Declared) {
        (head, declare(Arc::new(config)))
    }
    match kind {
        Kind::Routes => of(route::parse(check, entries, at), Declared::Route),
        Kind::Services => of(route::parse_service(check, entries), Declared::Service),
        Kind::Upstreams => of(upstream::parse(check, entries, at), Declared::Upstream),
        Kind::PluginConfigs | Kind::ConsumerGroups => of(
            plugins::parse(check, entries, at, Shared::All),
            Declared::PluginSet,
        ),
        Kind::GlobalRules => of(
            plugins::parse(check, entries, at, Shared::IdOnly),
            Declared::PluginSet,
        ),
        Kind::Consumers => match credential_entry(&entries) {
            Some(id) => of(
                consumer::parse_credential(check, &id, entries, at),
                Declared::Credential,
            ),
            None => of(
                consumer::parse_consumer(check, entries, at),
                Declared::Consumer,
            ),
        },
        Kind::Ssls => of(ssl::parse(check, entries, at), Declared::Ssl),
        Kind::Secrets => of(secret::parse(check, entries, at), Declared::Secret),
        Kind::PluginMetadata => of(
            secret::parse_metadata(check, entries, at),
            Declared::Metadata,
        ),
        Kind::Protos => of(proto::parse(check, entries, at), Declared::Proto),
    }
}

/// The id of an entry of `consumers` that is a credential: its id holds a slash.
fn credential_entry(entries: &[Entry]) -> Option<String> {
    let id = entries.iter().find(|entry| &*entry.key == "id")?;
    id.node
        .as_text()
        .filter(|id| id.contains('/'))
        .map(str::to_owned)
}
