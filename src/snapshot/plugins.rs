//! Builds the plugins that stand on one object, references replaced by values.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::compile::{Compilation, Scope};
use super::substitute;
use crate::config::resource::{PluginMap, Settings};
use crate::plugins::{
    self, BuildCtx, BuildError, Credential, Hooks, Meta, Plugin, PluginDef, PluginKind,
};
use crate::secrets::View;

/// The plugins of one route, service, plugin_config, group, global rule or consumer.
#[derive(Default)]
pub(super) struct PluginSet {
    /// Those that run in phases, by name, in file order.
    pub plugins: IndexMap<&'static str, Arc<Plugin>>,
    /// The object itself is invalid: a plugin is unknown or its configuration does not hold.
    pub refused: bool,
    /// Header, query and cookie names that carry credentials.
    pub redacted: Vec<Box<str>>,
}

/// One auth plugin's credential on a consumer or credential object.
pub(super) struct BuiltCredential {
    /// The plugin.
    pub plugin: &'static str,
    /// Digest of its lookup key.
    pub digest: u128,
    /// What the plugin needs once it is found.
    pub data: Arc<dyn std::any::Any + Send + Sync>,
}

/// Stamp of a plugin map: the declaration's own hash and the versions of what it refers to.
pub(super) fn stamp(fingerprint: u64, map: &PluginMap, run: &Compilation<'_>) -> u64 {
    let mut hasher = run.hasher();
    fingerprint.hash(&mut hasher);
    for (name, settings) in map.iter() {
        substitute::stamp_settings(settings, run.view, &mut hasher);
        run.plugin_stamp(name).hash(&mut hasher);
    }
    hasher.finish()
}

/// Builds a set. Everything wrong with it is reported; a reference without value makes only its
/// plugin refuse.
pub(super) fn build(map: &PluginMap, scope: &mut Scope<'_>) -> PluginSet {
    let mut set = PluginSet::default();
    for (name, settings) in map.iter() {
        match build_one(name, settings, scope) {
            Ok((def, plugin, redacted)) => {
                set.plugins.insert(def.name, Arc::new(plugin));
                set.redacted.extend(redacted);
            }
            Err(()) => set.refused = true,
        }
    }
    set
}

fn build_one(
    name: &str,
    settings: &Settings,
    scope: &mut Scope<'_>,
) -> Result<(&'static PluginDef, Plugin, Vec<Box<str>>), ()> {
    let field = format!("plugins.{name}");
    let (ordinal, def) = known(name, &field, scope)?;
    let json = settings.json();
    let has_references = substitute::has_references(&json);
    let meta = Meta::parse(&json).map_err(|error| {
        scope.error("plugin-config", &at(&field, &error), &failed(name, &error))
    })?;
    if let Some(problem) = &meta.filter_problem {
        scope.warn("plugin-meta", &format!("{field}._meta.filter"), problem);
    }
    if meta.disable {
        // Its configuration may be wrong: it does not run (`spec/00` §1.3).
        if let Ok(values) = values(json, scope.run.view)
            && let Err(error) = build_hooks(def, values.expose(), scope)
        {
            scope.warn("plugin-config", &at(&field, &error), &failed(name, &error));
        }
        return Ok((
            def,
            Plugin::new(ordinal, def, meta, Hooks::default()),
            Vec::new(),
        ));
    }
    let values = match values(json, scope.run.view) {
        Ok(values) => values,
        Err(missing) => {
            let field = join(&field, &missing.field);
            scope.unresolved(&field, &missing);
            return Ok((def, Plugin::refusing(ordinal, def, meta), Vec::new()));
        }
    };
    match build_hooks(def, values.expose(), scope) {
        Ok(hooks) => {
            let redacted = hooks.redacted().to_vec();
            Ok((def, Plugin::new(ordinal, def, meta, hooks), redacted))
        }
        Err(error) if has_references => {
            // The value a reference brought does not fit; only its user refuses.
            scope.error("secret-value", &at(&field, &error), &failed(name, &error));
            Ok((def, Plugin::refusing(ordinal, def, meta), Vec::new()))
        }
        Err(error) => {
            scope.error("plugin-config", &at(&field, &error), &failed(name, &error));
            Err(())
        }
    }
}

/// Builds what stands on a consumer or credential: credentials of auth plugins, and the rest.
pub(super) fn build_consumer(
    map: &PluginMap,
    scope: &mut Scope<'_>,
) -> (PluginSet, Vec<BuiltCredential>) {
    let mut set = PluginSet::default();
    let mut credentials = Vec::new();
    for (name, settings) in map.iter() {
        let field = format!("plugins.{name}");
        let Ok((_, def)) = known(name, &field, scope) else {
            set.refused = true;
            continue;
        };
        if def.kind != PluginKind::Auth {
            match build_one(name, settings, scope) {
                Ok((def, plugin, _)) => {
                    set.plugins.insert(def.name, Arc::new(plugin));
                }
                Err(()) => set.refused = true,
            }
            continue;
        }
        match build_credential(def, settings, &field, scope) {
            Ok(credential) => credentials.extend(credential),
            Err(()) => set.refused = true,
        }
    }
    (set, credentials)
}

/// A reference without value leaves the entry out, so that it is an unknown credential (401).
fn build_credential(
    def: &'static PluginDef,
    settings: &Settings,
    field: &str,
    scope: &mut Scope<'_>,
) -> Result<Option<BuiltCredential>, ()> {
    let Some(build) = def.credential else {
        scope.error(
            "plugin-config",
            field,
            "this plugin has no credentials for consumers",
        );
        return Err(());
    };
    let json = settings.json();
    let has_references = substitute::has_references(&json);
    if Meta::parse(&json).is_ok_and(|meta| meta.disable) {
        return Ok(None);
    }
    let values = match values(json, scope.run.view) {
        Ok(values) => values,
        Err(missing) => {
            let field = join(field, &missing.field);
            scope.unresolved(&field, &missing);
            return Ok(None);
        }
    };
    match build(values.expose()) {
        Ok(Credential { lookup_key, data }) => Ok(Some(BuiltCredential {
            plugin: def.name,
            digest: crate::consumer::digest(&scope.run.env.index_key, lookup_key.expose()),
            data,
        })),
        Err(error) if has_references => {
            scope.error(
                "secret-value",
                &at(field, &error),
                &failed(def.name, &error),
            );
            Ok(None)
        }
        Err(error) => {
            scope.error(
                "plugin-config",
                &at(field, &error),
                &failed(def.name, &error),
            );
            Err(())
        }
    }
}

fn known(
    name: &str,
    field: &str,
    scope: &mut Scope<'_>,
) -> Result<(usize, &'static PluginDef), ()> {
    match plugins::find(name) {
        Some(found) if scope.run.plugin_enabled(name) => Ok(found),
        Some(_) => {
            scope.error(
                "unknown-plugin",
                field,
                &format!("unknown plugin [{name}]: it is not in the list of enabled plugins"),
            );
            Err(())
        }
        None => {
            scope.error("unknown-plugin", field, &format!("unknown plugin [{name}]"));
            Err(())
        }
    }
}

fn values(json: Value, view: &View) -> Result<substitute::Substituted, substitute::Missing> {
    substitute::substitute(json, view)
}

fn build_hooks(def: &PluginDef, json: &Value, scope: &Scope<'_>) -> Result<Hooks, BuildError> {
    let env = scope.run.env;
    let ctx = BuildCtx {
        owner: scope.owner,
        metadata: scope.run.metadata(def.name),
        attr: env.plugin_attr.get(def.name).unwrap_or(&Value::Null),
        https_ports: &env.https_ports,
        metrics: &env.metrics,
        kept: &env.kept,
        clock: &env.clock,
    };
    if json.get("_meta").is_some() {
        (def.build)(substitute::without_meta(json).expose(), &ctx)
    } else {
        (def.build)(json, &ctx)
    }
}

fn failed(name: &str, error: &BuildError) -> String {
    format!("failed to check the configuration of plugin {name} err: {error}")
}

fn at(field: &str, error: &BuildError) -> String {
    join(field, &error.field)
}

fn join(field: &str, inner: &str) -> String {
    if inner.is_empty() {
        return field.to_owned();
    }
    // Decoders write `list[0].name`; findings of the parser have dots throughout.
    let mut path = format!("{field}.{inner}");
    path.retain(|c| c != ']');
    path.replace(".[", ".").replace('[', ".")
}
