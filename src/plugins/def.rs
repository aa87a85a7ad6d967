//! What a plugin declares about itself, and what it may hold when it is built.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use futures::future::BoxFuture;
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::auth::throttle::Throttle;
use super::ctx::RequestCtx;
use super::phase::Hooks;
use super::respond::Response;
use crate::callout::Trust;
use crate::clock::Clock;
use crate::kept::Kept;
use crate::secrets::{Again, Secret};
use crate::telemetry::metrics::Metrics;

/// Kinds the engine treats apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginKind {
    /// Nothing special.
    Ordinary,
    /// Authenticates: on a consumer or credential its configuration is a credential.
    Auth,
    /// A global instance is skipped where the route has its own (`spec/00` §7.2).
    PreferRoute,
}

/// A plugin's entry in [`super::ALL`].
pub struct PluginDef {
    /// APISIX's name.
    pub name: &'static str,
    /// APISIX's priority; higher runs first.
    pub priority: i32,
    /// What the engine must know about it.
    pub kind: PluginKind,
    /// Builds the route side from its configuration, references already replaced by values.
    pub build: fn(&Value, &BuildCtx<'_>) -> Result<Hooks, BuildError>,
    /// Builds the credential side (on consumers and credentials). `None` where there is none.
    pub credential: Option<CredentialDef>,
}

/// The credential side of a plugin.
#[derive(Clone, Copy)]
pub struct CredentialDef {
    /// The field whose value a credential is found by (`spec/02` §1).
    pub lookup_field: &'static str,
    /// Builds a credential from its configuration, references already replaced by values.
    pub build: fn(&Value, &CredentialCtx<'_>) -> Result<Credential, BuildError>,
}

/// What a plugin offers to clients itself, on routes with `public-api`.
pub struct PublicApi {
    /// The plugin's name.
    pub plugin: &'static str,
    /// Method.
    pub method: Method,
    /// Path.
    pub uri: &'static str,
    /// Headers, arguments and cookies it takes credentials from.
    pub redacts: &'static [&'static str],
    /// Answers a request.
    pub serve: for<'a, 'b> fn(&'a mut RequestCtx<'b>) -> BoxFuture<'a, Response>,
}

/// What the credential side may hold.
pub struct CredentialCtx<'a> {
    /// Key of the digests of this process ([`crate::consumer::digest`]).
    pub digest_key: &'a [u8; 16],
    /// State that outlives snapshots.
    pub kept: &'a Kept,
    /// What servers that plugins call must prove, where the plugin does not say otherwise.
    pub trust: &'a Trust,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// Has what a reference of the settings stands for read ahead of time, where it is a single
    /// document.
    pub again: Option<Again>,
    /// What is to be told of a credential that serves all the same.
    pub warnings: &'a RefCell<Vec<BuildError>>,
}

impl CredentialCtx<'_> {
    /// Tells something about `field`; the credential still serves.
    pub fn warn(&self, field: impl Into<String>, message: impl Into<String>) {
        let warning = BuildError::invalid(field, message);
        self.warnings.borrow_mut().push(warning);
    }
}

/// The credential side of an auth plugin.
pub struct Credential {
    /// What the index finds it by (`spec/02` §1): key-auth `key`, basic-auth `username`, …
    pub lookup_key: Secret,
    /// What else the plugin needs once it is found; `()` where nothing.
    pub data: Arc<dyn Any + Send + Sync>,
}

/// Why a configuration was refused. Names fields and expectations, never a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct BuildError {
    /// Dotted path inside the plugin's configuration; empty for the whole.
    pub field: String,
    /// What was expected.
    pub message: String,
}

impl BuildError {
    /// Refuses `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// The object a plugin stands on. Plugins with equal settings are one object, unless the plugin
/// asks whose it is: then each owner gets its own.
pub struct Owner<'a> {
    name: &'a str,
    asked: Cell<bool>,
}

impl<'a> Owner<'a> {
    /// An owner nobody has asked for.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self {
            name,
            asked: Cell::new(false),
        }
    }

    /// Stable key of the object (`routes/1`).
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.asked.set(true);
        self.name
    }

    /// Whether [`Self::name`] was called.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.asked.get()
    }
}

/// What a plugin may hold.
pub struct BuildCtx<'a> {
    /// The object the plugin stands on, for kept state.
    pub owner: &'a Owner<'a>,
    /// This plugin's `plugin_metadata`, references replaced; `Null` where there is none.
    pub metadata: &'a Value,
    /// This plugin's `plugin_attr` of the bootstrap; `Null` where there is none.
    pub attr: &'a Value,
    /// `plugin_attr` of any plugin, for one that holds others; `None` where a reference in it has
    /// no value.
    pub attr_of: &'a dyn Fn(&str) -> Option<&'a Value>,
    /// TLS ports the gateway listens on, for redirects.
    pub https_ports: &'a [u16],
    /// Metrics of the process.
    pub metrics: &'a Arc<Metrics>,
    /// State that outlives snapshots.
    pub kept: &'a Kept,
    /// What servers that plugins call must prove, where the plugin does not say otherwise.
    pub trust: &'a Trust,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// Addresses that failed too often, where `claviger.auth.throttle` asks for that.
    pub throttle: Option<&'a Arc<Throttle>>,
}

/// Decodes a configuration object; `null` counts as `{}` (`spec/00` §1.3). Unknown fields are
/// tolerated as in APISIX.
///
/// # Errors
/// The path of the field and what was expected there. serde's messages quote values of the wrong
/// type, so those are cut away.
pub fn parse<T: DeserializeOwned>(json: &Value) -> Result<T, BuildError> {
    let empty = Value::Object(serde_json::Map::new());
    let json = if json.is_null() { &empty } else { json };
    serde_path_to_error::deserialize(json).map_err(|error| {
        let field = error.path().to_string();
        BuildError {
            field: if field == "." { String::new() } else { field },
            message: crate::diagnostic::without_values(&error.inner().to_string()),
        }
    })
}
