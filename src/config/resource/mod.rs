//! What each kind of resource declares (`spec/00` §2–§6). A `*Config` holds no behaviour;
//! references stay plain strings here.

pub mod consumer;
pub mod plugins;
pub mod route;
pub mod secret;
pub mod ssl;
pub mod upstream;

use std::sync::Arc;

use crate::diagnostic::Place;

pub use consumer::{ConsumerConfig, CredentialConfig};
pub use plugins::{PluginMap, PluginSetConfig};
pub use route::{RouteConfig, ServiceConfig};
pub use secret::SecretConfig;
pub use ssl::{SslConfig, SslKind};
pub use upstream::{NodeConfig, PassHost, Scheme, TimeoutConfig, UpstreamConfig};

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
