//! All of a snapshot but its consumers: compiled as one, and kept as one while no value that
//! stands in it changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::compile::{Compilation, Scope, count};
use super::plugins::{self, PluginSet};
use super::unit::Units;
use super::{
    CertificateReport, CompiledRoute, ItemCount, Snapshot, UpstreamLink, certificates,
    client_pairs, routes, upstreams,
};
use crate::config::Documents;
use crate::config::resource::{Item, PluginSetConfig};
use crate::diagnostic::Diagnostic;
use crate::plugins::{Chain, Plugin};
use crate::routing::Router;
use crate::tls::SniStore;

/// Every compiled piece but consumers, kept for the next compilation.
#[derive(Default)]
pub(super) struct AllUnits {
    pub(super) upstreams: Units<UpstreamLink>,
    pub(super) services: Units<routes::Service>,
    pub(super) plugin_configs: Units<PluginSet>,
    pub(super) consumer_groups: Units<PluginSet>,
    pub(super) global_rules: Units<PluginSet>,
    pub(super) routes: Units<routes::RouteUnit>,
    pub(super) ssls: Units<certificates::SslUnit>,
    /// By kind and id of what the upstream stands on.
    pub(super) client_pairs: Units<client_pairs::ClientUnit>,
}

/// What a snapshot is made of besides consumers.
pub(super) struct Rest {
    pub(super) units: AllUnits,
    pub(super) router: Arc<Router<Arc<CompiledRoute>>>,
    pub(super) asks_body: bool,
    pub(super) global: Arc<Chain>,
    pub(super) global_refused: bool,
    pub(super) global_redacted: Box<[Box<str>]>,
    pub(super) names: Arc<SniStore>,
    pub(super) certificates: Arc<[CertificateReport]>,
    pub(super) counts: HashMap<&'static str, ItemCount>,
    pub(super) findings: Vec<Diagnostic>,
    /// When it was made, by the wall clock.
    pub(super) examined: SystemTime,
    /// When time alone changes it; `None` where that is never.
    pub(super) review: Option<SystemTime>,
}

impl Rest {
    /// See [`Snapshot::is_due`].
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        self.was_set_back(now) || self.review.is_some_and(|at| at <= now)
    }

    /// Whether the clock went back since, by more than clocks are corrected.
    pub(super) fn was_set_back(&self, now: SystemTime) -> bool {
        let back = self.examined.duration_since(now);
        back.is_ok_and(|back| back > CORRECTION)
    }
}

const CORRECTION: Duration = Duration::from_secs(10);

/// Compiles all but consumers.
pub(super) fn compile(
    documents: &Documents,
    previous: Option<&Snapshot>,
    run: &Compilation<'_>,
) -> Arc<Rest> {
    let before = previous.map(|snapshot| &snapshot.rest.units);
    let mut units = AllUnits::default();
    units.ssls = certificates::units(documents, before, run);
    units.client_pairs = client_pairs::compile(documents, before, run);
    units.upstreams = upstreams::compile(documents, before, &units, run);
    units.plugin_configs = sets(
        "plugin_configs",
        &documents.plugin_configs,
        before.map(|b| &b.plugin_configs),
        run,
    );
    units.consumer_groups = sets(
        "consumer_groups",
        &documents.consumer_groups,
        before.map(|b| &b.consumer_groups),
        run,
    );
    units.global_rules = sets(
        "global_rules",
        &documents.global_rules,
        before.map(|b| &b.global_rules),
        run,
    );
    units.services = routes::services(documents, before, &units, run);
    let router = routes::compile(documents, previous, &mut units, run);
    let (names, certificates) = certificates::store(documents, previous, &units);

    let mut findings = Vec::new();
    let global = global_plugins(documents, &units, run, &mut findings);
    let global_redacted = units.global_rules.iter();
    let global_redacted = global_redacted.flat_map(|(_, unit)| unit.value.redacted.iter().cloned());
    let global_redacted = global_redacted.chain(run.env.redact_args.iter().cloned());
    let global_redacted = global_redacted.collect();
    let global_refused = !documents.refused_global_rules.is_empty()
        || units
            .global_rules
            .iter()
            .any(|(_, unit)| unit.value.refused);
    collect_findings(&units, &mut findings);
    certificates::shadowed(documents, &names, &mut findings);
    let asks_body = units.routes.iter().any(|(_, unit)| unit.value.asks_body);
    Arc::new(Rest {
        router,
        asks_body,
        global: Arc::new(Chain::build(&global)),
        global_refused,
        global_redacted,
        names,
        certificates: certificates.into(),
        counts: counts(documents, &units),
        findings,
        examined: run.now,
        review: review(&units),
        units,
    })
}

/// The plugins of all global rules, in file order. Differs from APISIX, which runs none of the
/// instances where two rules hold the same plugin: with both running, no protection is lost.
fn global_plugins(
    documents: &Documents,
    units: &AllUnits,
    run: &Compilation<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Arc<Plugin>> {
    let mut plugins = Vec::new();
    let mut holders: HashMap<&str, &Arc<str>> = HashMap::new();
    for item in &documents.global_rules {
        let Some(unit) = units.global_rules.get(&item.id) else {
            continue;
        };
        for (name, plugin) in &unit.value.plugins {
            if let Some(holder) = holders.insert(*name, &item.id) {
                let owner = format!("global_rules/{}", item.id);
                let mut scope = Scope {
                    run,
                    owner: &owner,
                    place: &item.place,
                    diagnostics,
                };
                let message = format!(
                    "plugin {name} stands in global rule {holder} too; both run (APISIX runs neither)"
                );
                scope.error("duplicate-plugin", &format!("plugins.{name}"), &message);
            }
            plugins.push(Arc::clone(plugin));
        }
    }
    plugins
}

fn sets(
    kind: &str,
    items: &[Item<PluginSetConfig>],
    before: Option<&Units<PluginSet>>,
    run: &Compilation<'_>,
) -> Units<PluginSet> {
    let mut units = Units::with_capacity(items.len());
    for item in items {
        let stamp = plugins::stamp(item.fingerprint, &item.value.plugins, run);
        units.reuse_or_build(before, &item.id, stamp, |_, diagnostics| {
            run.count();
            let owner = format!("{kind}/{}", item.id);
            let mut scope = Scope {
                run,
                owner: &owner,
                place: &item.place,
                diagnostics,
            };
            plugins::build(&item.value.plugins, &mut scope)
        });
    }
    units
}

/// The first moment at which a certificate is to be looked at again.
fn review(units: &AllUnits) -> Option<SystemTime> {
    let served = units.ssls.iter().filter_map(|(_, unit)| unit.value.review);
    let shown = units.client_pairs.iter();
    served
        .chain(shown.filter_map(|(_, unit)| unit.value.review))
        .min()
}

fn collect_findings(units: &AllUnits, diagnostics: &mut Vec<Diagnostic>) {
    fn of<T>(units: &Units<T>, diagnostics: &mut Vec<Diagnostic>) {
        for (_, unit) in units.iter() {
            diagnostics.extend(
                unit.diagnostics
                    .iter()
                    .flat_map(|found| found.iter())
                    .cloned(),
            );
        }
    }
    of(&units.upstreams, diagnostics);
    of(&units.services, diagnostics);
    of(&units.plugin_configs, diagnostics);
    of(&units.consumer_groups, diagnostics);
    of(&units.global_rules, diagnostics);
    of(&units.routes, diagnostics);
    of(&units.ssls, diagnostics);
    of(&units.client_pairs, diagnostics);
}

fn counts(documents: &Documents, units: &AllUnits) -> HashMap<&'static str, ItemCount> {
    let count = |kind: &'static str, items: usize, built_refused: usize| {
        (kind, count(documents, kind, items, built_refused))
    };
    let refusing = |routes: &Units<routes::RouteUnit>| {
        routes
            .iter()
            .filter(|(_, unit)| !matches!(unit.value.route.outcome, super::Outcome::Serve { .. }))
            .count()
    };
    let refused_sets =
        |sets: &Units<PluginSet>| sets.iter().filter(|(_, unit)| unit.value.refused).count();
    HashMap::from([
        count("routes", documents.routes.len(), refusing(&units.routes)),
        count(
            "services",
            documents.services.len(),
            units
                .services
                .iter()
                .filter(|(_, unit)| unit.value.plugins.refused)
                .count(),
        ),
        count(
            "upstreams",
            documents.upstreams.len(),
            units
                .upstreams
                .iter()
                .filter(|(_, unit)| !matches!(unit.value, UpstreamLink::Ready(_)))
                .count(),
        ),
        count(
            "plugin_configs",
            documents.plugin_configs.len(),
            refused_sets(&units.plugin_configs),
        ),
        count(
            "consumer_groups",
            documents.consumer_groups.len(),
            refused_sets(&units.consumer_groups),
        ),
        count(
            "global_rules",
            documents.global_rules.len(),
            refused_sets(&units.global_rules),
        ),
        count(
            "ssls",
            documents.ssls.len(),
            documents
                .ssls
                .iter()
                .filter_map(|item| units.ssls.get(&item.id))
                .filter(|unit| unit.value.refused)
                .count(),
        ),
        count("secrets", documents.secrets.len(), 0),
        count("plugin_metadata", documents.plugin_metadata.len(), 0),
    ])
}
