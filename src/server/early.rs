//! Settings of `config.yaml` that are references and without which nothing can start: the trust
//! store, and where metrics are served. A start without their values is refused.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::environment::Environment;
use super::loading;
use super::settings::{SettingsError, secrets_settings, with_environment};
use crate::clock::Clock;
use crate::config::bootstrap::{AUDIT_KEY, Bootstrap, Declared, TRUSTED_CERTIFICATE};
use crate::config::resource::Item;
use crate::reload;
use crate::secrets::{Secret, Secrets, View};
use crate::snapshot::substitute;
use crate::tls::CaBundle;

/// The bootstrap with essential references replaced by their values as they are now. They are read
/// on a runtime and over connections of their own, which end with this call.
///
/// # Errors
/// One of them has no value, or one that does not fit.
pub(super) fn settle<'a>(
    bootstrap: &'a Bootstrap,
    declared: &Declared,
    clock: &Arc<dyn Clock>,
    environment: &Environment,
) -> Result<Cow<'a, Bootstrap>, SettingsError> {
    let prometheus = declared.setting(PROMETHEUS);
    let trusted = declared.setting(TRUSTED_CERTIFICATE);
    let essential: Vec<_> = trusted.into_iter().chain(prometheus).collect();
    if essential.is_empty() {
        return Ok(Cow::Borrowed(bootstrap));
    }
    let view = fetch(bootstrap, declared, &essential, clock, environment)?;
    if let Some(item) = trusted {
        let values = values(item, &view)?;
        let pem = values.expose().as_str().unwrap_or_default();
        CaBundle::parse(pem.as_bytes()).map_err(|error| misfit(item, error.to_string()))?;
    }
    let mut settled = Cow::Borrowed(bootstrap);
    if let Some(item) = prometheus {
        let attr = values(item, &view)?.expose().clone();
        settled.to_mut().plugin_attr.put("prometheus", attr);
    }
    Ok(settled)
}

/// The key of the audit log as it is now; `None` where none is set.
///
/// # Errors
/// It has no value.
pub(super) fn audit_key(
    bootstrap: &Bootstrap,
    declared: &Declared,
    clock: &Arc<dyn Clock>,
    environment: &Environment,
) -> Result<Option<Secret>, SettingsError> {
    let Some(item) = declared.setting(AUDIT_KEY) else {
        return Ok(None);
    };
    let view = fetch(bootstrap, declared, &[item], clock, environment)?;
    let values = values(item, &view)?;
    let key = values.expose().as_str().unwrap_or_default();
    Ok(Some(Secret::from(key.to_owned())))
}

fn fetch(
    bootstrap: &Bootstrap,
    declared: &Declared,
    essential: &[&Item<Value>],
    clock: &Arc<dyn Clock>,
    environment: &Environment,
) -> Result<View, SettingsError> {
    let settings = with_environment(secrets_settings(bootstrap)?, environment);
    let secrets = Secrets::new(settings, Arc::clone(clock), Arc::new(()));
    // A refused manager is told as the reason of its references.
    let _ = secrets.configure(&reload::managers(&declared.managers));
    let mut references = BTreeSet::new();
    for item in essential {
        substitute::visit(&item.value, &mut |reference| {
            references.insert(reference.into());
        });
    }
    let wait = bootstrap.claviger.secrets.load_wait.max(SHORTEST_WAIT);
    let runtime = loading::runtime().map_err(SettingsError::Runtime)?;
    let view = runtime.block_on(secrets.ensure(&references, wait));
    runtime.shutdown_background();
    Ok(view)
}

fn values(item: &Item<Value>, view: &View) -> Result<substitute::Substituted, SettingsError> {
    substitute::substitute((*item.value).clone(), view)
        .map_err(|missing| misfit(item, missing.to_string()))
}

fn misfit(item: &Item<Value>, why: String) -> SettingsError {
    SettingsError::Reference {
        place: item.place.clone(),
        field: Arc::clone(&item.id),
        why,
    }
}

const PROMETHEUS: &str = "plugin_attr.prometheus";

/// The start waits at least this long for a value it cannot do without.
const SHORTEST_WAIT: Duration = Duration::from_secs(5);
