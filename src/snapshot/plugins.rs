//! Builds the plugins that stand on one object, references replaced by values.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::compile::{Compilation, Scope};
use super::substitute;
use crate::config::resource::{PluginMap, Settings};
use crate::consumer::Digest;
use crate::plugins::def::{CredentialCtx, Owner};
use crate::plugins::{
    self, BuildCtx, BuildError, Credential, Hooks, Meta, Plugin, PluginDef, PluginKind,
};
use crate::telemetry::redact;

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
    pub plugin: &'static PluginDef,
    /// Digest of its lookup key.
    pub digest: Digest,
    /// What the plugin needs once it is found, where it needs anything.
    pub data: Option<Arc<dyn std::any::Any + Send + Sync>>,
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
                set.plugins.insert(def.name, plugin);
                set.redacted.extend(redacted);
            }
            Err(()) => set.refused = true,
        }
    }
    set
}

/// A plugin, and the names that carry its credentials.
type BuiltPlugin = (&'static PluginDef, Arc<Plugin>, Vec<Box<str>>);

fn build_one(name: &str, settings: &Settings, scope: &mut Scope<'_>) -> Result<BuiltPlugin, ()> {
    let field = format!("plugins.{name}");
    let (ordinal, def) = known(name, &field, scope)?;
    let invalid = |scope: &mut Scope<'_>, code, error: &BuildError| {
        let message = substitute::told(&failed(name, error), &settings.json(), scope.run.view);
        scope.error(code, &at(&field, error), &message);
    };
    let json = settings.json();
    let has_references = substitute::has_references(&json);
    let meta_refers = json.get("_meta").is_some_and(substitute::has_references);
    let values_of_others = scope.run.shares_values(def.name);
    let values = match substitute::substitute(json, scope.run.view) {
        Ok(values) => values,
        Err(missing) => {
            let json = settings.json();
            let meta =
                Meta::parse(&json).map_err(|error| invalid(scope, "plugin-config", &error))?;
            if meta.disable {
                let idle = Plugin::new(ordinal, def, meta, Hooks::default());
                return Ok((def, Arc::new(idle), Vec::new()));
            }
            let field = join(&field, &missing.field);
            scope.unresolved(&field, &missing);
            let meta = meta_of_refusal(&json, meta);
            let refusing = Plugin::refusing(ordinal, def, meta);
            return Ok((def, Arc::new(refusing), Vec::new()));
        }
    };
    // Values are in place in `_meta` too: the text of a reference is never compared or sent.
    let meta = match Meta::parse(values.expose()) {
        Ok(meta) => meta,
        Err(error) if meta_refers => {
            invalid(scope, "secret-value", &error);
            let refusing = Plugin::refusing(ordinal, def, Meta::default());
            return Ok((def, Arc::new(refusing), Vec::new()));
        }
        Err(error) => {
            invalid(scope, "plugin-config", &error);
            return Err(());
        }
    };
    if let Some(problem) = &meta.filter_problem {
        let error = BuildError::invalid("_meta.filter", problem);
        if meta_refers {
            // A filter out of a value that is none must not make the plugin run everywhere.
            invalid(scope, "secret-value", &error);
            let refusing = Plugin::refusing(ordinal, def, Meta::default());
            return Ok((def, Arc::new(refusing), Vec::new()));
        }
        scope.warn("plugin-meta", &at(&field, &error), problem);
    }
    let owner = Owner::new(scope.owner);
    let built = build_hooks(def, values.expose(), &owner, scope);
    if meta.disable {
        // Its configuration may be wrong: it does not run (`spec/00` §1.3).
        if let Built::Invalid(error) = &built {
            let message = substitute::told(&failed(name, error), &settings.json(), scope.run.view);
            scope.warn("plugin-config", &at(&field, error), &message);
        }
        let idle = Plugin::new(ordinal, def, meta, Hooks::default());
        return Ok((def, Arc::new(idle), Vec::new()));
    }
    match built {
        Built::Hooks(hooks) => {
            for (inner, message) in hooks.warnings() {
                scope.warn("insecure-setting", &join(&field, inner), message);
            }
            let redacted = hooks.redacted().iter();
            // What is masked by custom need not be named.
            let redacted = redacted
                .filter(|name| !redact::is_sensitive(name, &[]))
                .cloned();
            let redacted = redacted.collect();
            let plugin = Plugin::new(ordinal, def, meta, hooks);
            let plugin = if has_references || owner.was_asked() {
                Arc::new(plugin)
            } else {
                shared(name, settings, plugin, scope)
            };
            Ok((def, plugin, redacted))
        }
        Built::NoMetadata => {
            let refusing = Plugin::refusing(ordinal, def, meta);
            Ok((def, Arc::new(refusing), Vec::new()))
        }
        Built::Invalid(error) if has_references || values_of_others => {
            // The value a reference brought does not fit; only its user refuses.
            invalid(scope, "secret-value", &error);
            let refusing = Plugin::refusing(ordinal, def, meta);
            Ok((def, Arc::new(refusing), Vec::new()))
        }
        Built::Invalid(error) => {
            invalid(scope, "plugin-config", &error);
            Err(())
        }
    }
}

/// What of an unresolved plugin's `_meta` still holds: a filter or a body that is itself made of
/// references is no filter and no body.
fn meta_of_refusal(json: &Value, meta: Meta) -> Meta {
    let readable = json
        .get("_meta")
        .is_none_or(|meta| !substitute::has_references(meta));
    if readable {
        meta
    } else {
        Meta {
            priority: meta.priority,
            ..Meta::default()
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
                    set.plugins.insert(def.name, plugin);
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
    let Some(side) = def.credential else {
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
    let mut again = None;
    if has_references {
        let view = scope.run.view;
        substitute::visit(&json, &mut |found| {
            again = again.take().or_else(|| view.again(found));
        });
    }
    let values = match substitute::substitute(json, scope.run.view) {
        Ok(values) => values,
        Err(missing) => {
            let field = join(field, &missing.field);
            scope.unresolved(&field, &missing);
            return Ok(None);
        }
    };
    let env = scope.run.env;
    let ctx = CredentialCtx {
        digest_key: &env.index_key,
        kept: &env.kept,
        trust: scope.run.callout_trust(),
        clock: &env.clock,
        again,
        warnings: &RefCell::default(),
    };
    let built = (side.build)(values.expose(), &ctx);
    for warning in ctx.warnings.take() {
        let message = substitute::told(&warning.message, &settings.json(), scope.run.view);
        scope.warn("weak-credential", &at(field, &warning), &message);
    }
    match built {
        Ok(Credential { lookup_key, data }) => Ok(Some(BuiltCredential {
            plugin: def,
            digest: crate::consumer::digest(&scope.run.env.index_key, lookup_key.expose()),
            data: Some(data).filter(|data| !data.is::<()>()),
        })),
        Err(error) if has_references => {
            let message = failed(def.name, &error);
            let message = substitute::told(&message, &settings.json(), scope.run.view);
            scope.error("secret-value", &at(field, &error), &message);
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

/// What became of a plugin's configuration.
enum Built {
    Hooks(Hooks),
    /// A reference in the plugin's metadata or `plugin_attr` has no value; it was reported there.
    NoMetadata,
    Invalid(BuildError),
}

/// The plugin of that name and these settings which other objects use already, or this one. Ten
/// thousand routes with `prometheus: {}` share one object, so that a request to any of them finds
/// it in the processor's cache. Global rules share among themselves only: the same object must
/// not run twice for one request.
fn shared(name: &str, settings: &Settings, plugin: Plugin, scope: &Scope<'_>) -> Arc<Plugin> {
    let run = scope.run;
    let class = if scope.owner.starts_with("global_rules/") {
        "global"
    } else {
        "own"
    };
    let digest = |text: &str| crate::consumer::digest(&run.env.index_key, text.as_bytes());
    let settings = settings.with_text(digest);
    let stamp = run.plugin_stamp(name);
    let settings = u128::from_ne_bytes(settings);
    let key = format!("plugin/{class}/{name}/{stamp:x}/{settings:x}");
    run.env.kept.entry(&key, || plugin)
}

fn build_hooks(def: &PluginDef, json: &Value, owner: &Owner<'_>, scope: &Scope<'_>) -> Built {
    let env = scope.run.env;
    let shared = scope.run.metadata(def.name).zip(scope.run.attr(def.name));
    let Some((metadata, attr)) = shared else {
        return Built::NoMetadata;
    };
    let ctx = BuildCtx {
        owner,
        metadata,
        attr,
        attr_of: &|name| scope.run.attr(name),
        https_ports: &env.https_ports,
        metrics: &env.metrics,
        kept: &env.kept,
        trust: scope.run.callout_trust(),
        clock: &env.clock,
        throttle: env.throttle.as_ref(),
    };
    let built = if json.get("_meta").is_some() {
        (def.build)(substitute::without_meta(json).expose(), &ctx)
    } else {
        (def.build)(json, &ctx)
    };
    built.map_or_else(Built::Invalid, Built::Hooks)
}

fn failed(name: &str, error: &BuildError) -> String {
    format!("failed to check the configuration of plugin {name} err: {error}")
}

fn at(field: &str, error: &BuildError) -> String {
    join(field, &error.field)
}

/// A field's path and a path inside it, as one.
pub(super) fn join(field: &str, inner: &str) -> String {
    if inner.is_empty() {
        return field.to_owned();
    }
    // Decoders write `list[0].name`; findings of the parser have dots throughout.
    let mut path = format!("{field}.{inner}");
    path.retain(|c| c != ']');
    path.replace(".[", ".").replace('[', ".")
}
