//! From a declared manager to one that runs: its `$env://` fields replaced, its clocks read, the
//! rest handed to its kind.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::fetch::Runner;
use super::manager::env::Env;
use super::manager::{BuildCtx, BuildError, Fields, MANAGERS, seconds};
use super::reference::{Reference, Target};
use super::refresh::Schedule;
use super::settings::{ManagerSpec, Observer, SecretsSettings};
use crate::clock::Clock;

/// Clocks that any manager may override.
#[derive(Deserialize)]
struct Timing {
    #[serde(default, deserialize_with = "seconds")]
    ttl: Option<Duration>,
    #[serde(default, deserialize_with = "seconds")]
    neg_ttl: Option<Duration>,
    #[serde(default, deserialize_with = "seconds")]
    max_stale: Option<Duration>,
}

/// Makes a manager out of its declaration.
pub(super) fn build(
    spec: &ManagerSpec,
    settings: &SecretsSettings,
    env: &Env,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
) -> Result<Runner, BuildError> {
    let def = MANAGERS.iter().find(|def| def.name == spec.kind);
    let def =
        def.ok_or_else(|| BuildError::new("id", format!("no secret manager: {}", spec.kind)))?;
    let mut fields = spec.fields.clone();
    let replaced = replace_references(&mut fields, "", env);
    let fields = Fields::new(fields);
    replaced?;
    let timing: Timing = fields.parse()?;
    let schedule = Schedule {
        ttl: timing.ttl.unwrap_or(settings.ttl),
        neg_ttl: timing.neg_ttl.unwrap_or(settings.neg_ttl),
        max_stale: timing.max_stale.unwrap_or(settings.max_stale),
    };
    let ctx = BuildCtx {
        id: &spec.id,
        clock,
        trusted_ca: settings.trusted_ca.as_deref(),
        observer,
    };
    let manager = (def.build)(&fields, &ctx)?;
    let concurrency = settings.concurrency;
    Ok(Runner::new(
        Arc::clone(&spec.id),
        manager,
        schedule,
        concurrency,
    ))
}

/// Digest of what a manager is made of, whatever the order of its fields.
pub(super) fn fingerprint(spec: &ManagerSpec) -> [u8; 32] {
    let mut fields = spec.fields.clone();
    fields.sort_all_objects();
    let fields = Fields::new(fields);
    let text = zeroize::Zeroizing::new(format!("{}\n{}", spec.kind, fields.as_json()));
    openssl::sha::sha256(text.as_bytes())
}

/// Puts values of the environment in the place of `$env://` references.
fn replace_references(value: &mut Value, path: &str, env: &Env) -> Result<(), BuildError> {
    match value {
        Value::String(text) if Reference::is_reference(text) => {
            *text = env_value(text, env).map_err(|message| BuildError::new(path, message))?;
            Ok(())
        }
        Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(index, item)| {
            replace_references(item, &format!("{path}[{index}]"), env)
        }),
        Value::Object(fields) => fields.iter_mut().try_for_each(|(name, field)| {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            replace_references(field, &path, env)
        }),
        _ => Ok(()),
    }
}

fn env_value(text: &str, env: &Env) -> Result<String, String> {
    let reference = Reference::parse(text).map_err(|error| error.to_string())?;
    let Target::Env { name, json_key } = reference.target() else {
        return Err(
            "a manager's field may be an $env:// reference, not a $secret:// one".to_owned(),
        );
    };
    let value = env
        .resolve(name, json_key.as_deref())
        .map_err(|why| format!("{text}: {why}"))?;
    let value = value
        .expose_str()
        .ok_or_else(|| format!("{text}: value is not text"))?;
    Ok(value.to_owned())
}
