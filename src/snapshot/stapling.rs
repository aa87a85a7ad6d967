//! `ocsp_stapling` of `ssls` items: whether responses are stapled, and what stands in the way.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::certificates::pair_fields;
use super::compile::{Compilation, Scope};
use crate::config::resource::SslConfig;
use crate::tls::ocsp::Question;
use crate::tls::stapling::PLUGIN;
use crate::tls::{CertifiedKey, Stapling};

/// Changes with what [`build`] reads besides the item and its pairs.
pub(super) fn stamp(config: &SslConfig, run: &Compilation<'_>, stamp: &mut impl Hasher) {
    if config.ocsp_stapling.is_some() {
        run.plugin_listed(PLUGIN).hash(stamp);
    }
}

/// How the item's certificates are stapled. What cannot be is told, and served without.
pub(super) fn build(
    config: &SslConfig,
    pairs: &[Option<Arc<CertifiedKey>>],
    scope: &mut Scope<'_>,
) -> Option<Stapling> {
    let settings = config.ocsp_stapling?;
    if !scope.run.plugin_listed(PLUGIN) {
        let message = "the plugin ocsp-stapling is not in the list of plugins (plugins in \
                       config.yaml): nothing is stapled";
        scope.warn("ocsp-stapling", "ocsp_stapling", message);
        return None;
    }
    for (index, pair) in pairs.iter().enumerate() {
        if let Some(Err(why)) = pair.as_deref().map(Question::about) {
            let [cert, _] = pair_fields(index);
            let message = format!("no OCSP response is stapled to the certificate: {why}");
            scope.warn("ocsp-stapling", &cert, &message);
        }
    }
    Some(Stapling {
        skip_verify: settings.skip_verify,
        cache_ttl: settings.cache_ttl,
    })
}
