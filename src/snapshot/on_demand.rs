//! Items of `ssls` whose certificates are fetched when a client asks for their name: where they
//! would be. Asks for nothing.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::certificates::pair_fields;
use super::compile::Scope;
use super::references::MISSING_MANAGER;
use crate::config::Documents;
use crate::config::resource::{Item, OnDemandConfig, SslConfig};
use crate::secrets::reference::Template;
use crate::tls::on_demand::{Limits, Names, Trial};
use crate::tls::{OnDemand, TlsPolicy};

/// What handshakes ask for the item's names. What was fetched stays while id and references stay as
/// they are. `Err` where no name could ever be fetched, which was reported.
pub(super) fn build(
    item: &Item<SslConfig>,
    settings: &OnDemandConfig,
    policy: &TlsPolicy,
    scope: &mut Scope<'_>,
) -> Result<OnDemand, ()> {
    let mut templates = Vec::with_capacity(item.value.pairs.len());
    for (index, (cert, key)) in item.value.pairs.iter().enumerate() {
        let [cert_field, key_field] = pair_fields(index);
        let cert = template(&cert_field, cert, scope);
        let key = template(&key_field, key, scope);
        templates.extend(cert.ok().zip(key.ok()));
    }
    if templates.len() != item.value.pairs.len() {
        return Err(());
    }
    let mut owner = format!("ssls/{}/on-demand", item.id);
    for (cert, key) in &templates {
        owner.extend([" ", cert.as_str(), " ", key.as_str()]);
    }
    let id = Arc::clone(&item.id);
    let env = scope.run.env;
    let names = env.kept.entry(&owner, || Names::new(id, templates.into()));
    let limits = Limits {
        names: settings.max_names,
        wait: settings.timeout,
        negative: settings.neg_ttl.min(LONGEST),
        idle: settings.idle.min(LONGEST),
        unknown_per_second: settings.unknown_per_second,
        unknown_burst: settings.unknown_burst,
        concurrency: settings.concurrency,
        waiting: settings.waiting,
    };
    let trial = Trial::new(Arc::clone(&env.rehearsal), policy.clone());
    Ok(OnDemand::new(names, limits, trial, env.on_demand.clone()))
}

fn template(field: &str, text: &str, scope: &mut Scope<'_>) -> Result<Template, ()> {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            scope.error("bad-reference", field, &error.to_string());
            return Err(());
        }
    };
    let manager = template.manager();
    if !is_declared(manager, scope.run.documents) {
        let message = format!(
            "expected a reference into a declared manager; there is no valid item secrets/{manager}"
        );
        scope.error(MISSING_MANAGER, field, &message);
        return Err(());
    }
    Ok(template)
}

/// Adds what an item on demand stands on besides its own declaration.
pub(super) fn stamp(config: &SslConfig, documents: &Documents, stamp: &mut impl Hasher) {
    if config.on_demand.is_none() {
        return;
    }
    for (cert, key) in &config.pairs {
        for half in [cert, key] {
            let template = Template::parse(half).ok();
            let declared = template.map(|template| is_declared(template.manager(), documents));
            declared.hash(stamp);
        }
    }
}

/// Longer means the same, and clocks can be reckoned with.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn is_declared(manager: &str, documents: &Documents) -> bool {
    documents.secrets.iter().any(|item| *item.id == *manager)
}
