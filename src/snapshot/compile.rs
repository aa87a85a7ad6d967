//! Documents and secret values in, snapshot out. Pure: no clock, no socket.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use pingora_core::protocols::tls::CaType;
use serde_json::Value;

use super::references::unresolved;
use super::substitute::{self, Missing};
use super::uses::Uses;
use super::{ItemCount, Snapshot, advice, consumers, duplicates, plugins, rest, tickets};
use crate::callout;
use crate::clock::Clock;
use crate::config::bootstrap::{
    CipherKeys, PLUGIN_ATTR, TICKET_KEYS, TRUSTED_CERTIFICATE, TlsExtras,
};
use crate::config::resource::{Item, KeepalivePoolConfig};
use crate::config::{Documents, Places};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::kept::Kept;
use crate::plugins::Throttle;
use crate::routing::RouterMode;
use crate::secrets::View;
use crate::telemetry::metrics::Metrics;
use crate::tls::rehearsal::Classes;
use crate::tls::{CaBundle, CertificateError, Chains, Rehearsal, on_demand};
use crate::upstream::dns::Resolver;

/// What compilation needs besides documents and values: the bootstrap's word and shared parts.
pub struct CompileEnv {
    /// `claviger.log.redact_args`: names that logs mask on every route.
    pub redact_args: Vec<Box<str>>,
    /// Enabled plugins; `None` enables all there are.
    pub plugins: Option<HashSet<String>>,
    /// `plugin_attr`.
    pub plugin_attr: serde_json::Map<String, Value>,
    /// TLS ports, for redirects.
    pub https_ports: Vec<u16>,
    /// `apisix.router.http`.
    pub router: RouterMode,
    /// `apisix.ssl.ssl_protocols`.
    pub ssl_protocols: Vec<String>,
    /// Kinds of keys that `apisix.ssl.ssl_ciphers` has ciphers for.
    pub cipher_keys: CipherKeys,
    /// Keep-alive towards upstreams that say nothing of their own.
    pub keepalive: KeepalivePoolConfig,
    /// Key of the consumer indexes, random per process.
    pub index_key: [u8; 16],
    /// Seed of the stamps, random per process.
    pub hasher: ahash::RandomState,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// State that outlives snapshots.
    pub kept: Arc<Kept>,
    /// Time, for plugins; compilation itself takes the moment it is told.
    pub clock: Arc<dyn Clock>,
    /// Names of nodes to addresses.
    pub resolver: Arc<Resolver>,
    /// Addresses that failed to authenticate too often; `None` refuses none.
    pub throttle: Option<Arc<Throttle>>,
    /// What servers that plugins call must prove, where the setting is no reference.
    pub trust: callout::Trust,
    /// Where handshakes ask for certificates that are fetched on demand.
    pub on_demand: on_demand::Door,
    /// What holds for certificates of all items.
    pub certificates: CertificateRules,
    /// Handshakes in memory, under the listeners' settings.
    pub rehearsal: Arc<Rehearsal>,
}

/// What holds for the certificates of all items (`claviger.tls`).
pub struct CertificateRules {
    /// A certificate that ends sooner is warned about.
    pub expiry_notice: Duration,
    /// Whether a certificate is presented past its end, for want of a better one; an item may say
    /// otherwise.
    pub serve_expired: bool,
    /// The chains in use.
    pub chains: Chains,
}

impl Default for CertificateRules {
    /// As `config.yaml` without `claviger.tls`.
    fn default() -> Self {
        let settings = TlsExtras::default();
        Self {
            expiry_notice: settings.expiry_notice,
            serve_expired: settings.serve_expired,
            chains: Chains::new(),
        }
    }
}

/// One compilation's view of the environment, metadata resolved.
pub struct Compilation<'a> {
    /// The environment.
    pub env: &'a CompileEnv,
    /// The documents.
    pub documents: &'a Documents,
    /// Values.
    pub view: &'a View,
    /// Where things stand.
    pub places: &'a Places,
    /// The moment, for certificates.
    pub now: SystemTime,
    /// Enabled plugins of this document.
    plugins: Option<HashSet<String>>,
    metadata: HashMap<Arc<str>, Resolved>,
    /// Settings of `config.yaml` that hold references, by dotted path.
    settings: HashMap<Arc<str>, Resolved>,
    /// Trust of verified upstreams that name none, where it is a reference.
    pub(super) trust: Option<Trust>,
    /// The clock was set back since the previous snapshot: what that said of validity may be wrong.
    pub(super) was_set_back: bool,
    /// What was rehearsed of handshakes.
    pub(super) classes: Classes,
    /// Pieces that were built and not reused, consumers aside.
    built: AtomicUsize,
}

/// A trust store out of a reference; without a value nothing is trusted.
pub(super) struct Trust {
    /// Changes with the value.
    pub stamp: u64,
    /// The certificates; `None` where there is no usable value.
    pub ca: Option<Arc<CaType>>,
    /// The same for servers that plugins call.
    callouts: callout::Trust,
}

/// Plugin metadata, or a setting of `config.yaml`, with values in place.
struct Resolved {
    /// Changes with the declaration and the values it refers to.
    stamp: u64,
    /// `None` where a reference has no value.
    values: Option<substitute::Substituted>,
    /// Whether it holds references at all.
    refers: bool,
}

/// Where findings about one object go.
pub struct Scope<'a> {
    /// The compilation.
    pub run: &'a Compilation<'a>,
    /// Stable key of the object, such as `routes/1`.
    pub owner: &'a str,
    /// Where the object starts.
    pub place: &'a Place,
    /// Findings.
    pub diagnostics: &'a mut Vec<Diagnostic>,
}

impl Compilation<'_> {
    /// A piece is being built.
    pub(super) fn count(&self) {
        self.built.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a piece that is to be looked at again then must be built anew.
    pub(super) fn is_due(&self, review: Option<SystemTime>) -> bool {
        self.was_set_back || review.is_some_and(|at| at <= self.now)
    }

    /// Whether resources may use the plugin.
    #[must_use]
    pub fn plugin_enabled(&self, name: &str) -> bool {
        let enabled = self.plugins.as_ref().or(self.env.plugins.as_ref());
        enabled.is_none_or(|enabled| enabled.contains(name))
    }

    /// Whether a list of plugins names this one; without any list none does. For plugins that are off
    /// by default.
    #[must_use]
    pub fn plugin_listed(&self, name: &str) -> bool {
        let enabled = self.plugins.as_ref().or(self.env.plugins.as_ref());
        enabled.is_some_and(|enabled| enabled.contains(name))
    }

    /// The plugin's metadata, values in place; `None` where a reference in it has no value, so
    /// that the plugin cannot run.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&Value> {
        match self.metadata.get(name) {
            None => Some(&Value::Null),
            Some(metadata) => metadata.values.as_ref().map(|values| values.expose()),
        }
    }

    /// The plugin's `plugin_attr`, values in place; `None` where a reference in it has no value.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&Value> {
        match self.settings.get(&*attr_id(name)) {
            None => Some(self.env.plugin_attr.get(name).unwrap_or(&Value::Null)),
            Some(attr) => attr.values.as_ref().map(|values| values.expose()),
        }
    }

    /// Whether values of references stand in what the plugin shares with its other users.
    #[must_use]
    pub fn shares_values(&self, name: &str) -> bool {
        let metadata = self.metadata.get(name);
        metadata.is_some_and(|metadata| metadata.refers)
            || self.settings.contains_key(&*attr_id(name))
    }

    /// Changes with the plugin's metadata, its `plugin_attr`, what it trusts by reference, and
    /// whether the plugin is enabled.
    #[must_use]
    pub fn plugin_stamp(&self, name: &str) -> u64 {
        let metadata = self.metadata.get(name).map_or(0, |metadata| metadata.stamp);
        let attr = if self.settings.is_empty() {
            0
        } else {
            let attr = self.settings.get(&*attr_id(name));
            attr.map_or(0, |attr| attr.stamp.rotate_left(1))
        };
        let trust = self
            .trust
            .as_ref()
            .map_or(0, |trust| trust.stamp.rotate_left(2));
        metadata ^ attr ^ trust ^ u64::from(self.plugin_enabled(name))
    }

    /// What servers that plugins call must prove. Without a value of its reference, nothing is
    /// proof.
    #[must_use]
    pub fn callout_trust(&self) -> &callout::Trust {
        match &self.trust {
            Some(trust) => &trust.callouts,
            None => &self.env.trust,
        }
    }

    /// A hasher of this process's seed.
    #[must_use]
    pub fn hasher(&self) -> ahash::AHasher {
        self.env.hasher.build_hasher()
    }
}

impl Scope<'_> {
    /// A finding that makes the object refuse.
    pub fn error(&mut self, code: &'static str, field: &str, message: &str) {
        self.report(Severity::Error, code, field, message);
    }

    /// A finding that does not.
    pub fn warn(&mut self, code: &'static str, field: &str, message: &str) {
        self.report(Severity::Warning, code, field, message);
    }

    /// A reference without value: a mistake where none could ever give it one; else an error for
    /// `check --resolve` only, and gone once the value is there.
    pub fn unresolved(&mut self, field: &str, missing: &Missing) {
        let (severity, code, message) = unresolved(missing, self.run.documents);
        self.report(severity, code, field, &message);
    }

    fn report(&mut self, severity: Severity, code: &'static str, field: &str, message: &str) {
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            place: self.run.places.locate(self.place, field),
            object: self.owner.to_owned(),
            field: field.to_owned(),
            message: message.to_owned(),
        });
    }
}

/// Compiles. Pieces of `previous` whose declaration and secrets are unchanged are reused.
#[must_use]
pub fn compile(
    documents: &Documents,
    view: &View,
    previous: Option<&Snapshot>,
    env: &CompileEnv,
    now: SystemTime,
) -> Snapshot {
    let mut diagnostics = documents.diagnostics.clone();
    let metadata = resolved(
        &documents.plugin_metadata,
        documents,
        view,
        env,
        &mut diagnostics,
        |item, found| Diagnostic {
            place: documents.places.locate(&item.place, &found.field),
            object: format!("plugin_metadata/{}", item.id),
            ..found
        },
    );
    let settings = resolved(
        &documents.settings,
        documents,
        view,
        env,
        &mut diagnostics,
        |item, found| Diagnostic {
            field: plugins::join(&item.id, &found.field),
            ..found
        },
    );
    let trust = trust(documents, &settings, &mut diagnostics);
    let keys = settings.get(TICKET_KEYS).map(|setting| {
        let value = setting.values.as_ref();
        (
            setting.stamp,
            value.map(|value| value.expose().as_str().unwrap_or_default()),
        )
    });
    let tickets = tickets::compile(documents, keys, previous, &mut diagnostics);
    let run = Compilation {
        env,
        documents,
        view,
        places: &documents.places,
        now,
        plugins: documents
            .plugins
            .as_ref()
            .map(|names| names.iter().cloned().collect()),
        metadata,
        settings,
        trust,
        was_set_back: previous.is_some_and(|previous| previous.rest.was_set_back(now)),
        classes: Classes::default(),
        built: AtomicUsize::new(0),
    };
    // Of documents that were compiled before, only what holds a changed value can differ.
    let same = previous.filter(|previous| previous.of.is(&documents.identity));
    let touched = same.map(|same| same.uses.touched_by(&view.changed_since(&same.view)));
    let rest = match (same, &touched) {
        (Some(same), Some(touched)) if !touched.rest && !same.is_due(now) => same.rest.clone(),
        _ => rest::compile(documents, previous, &run),
    };
    let consumers = match (same, &touched) {
        (Some(same), Some(touched)) if !touched.base => {
            consumers::compile_rows(documents, same, &touched.rows, &rest.units, &run)
        }
        _ => consumers::compile(documents, previous, &rest.units, &run),
    };

    diagnostics.extend(rest.findings.iter().cloned());
    for unit in consumers.roster.with_findings() {
        diagnostics.extend(
            unit.diagnostics
                .iter()
                .flat_map(|found| found.iter())
                .cloned(),
        );
    }
    let advice = match same {
        Some(same) => Arc::clone(&same.advice),
        None => advice::advise(documents, &run).into(),
    };
    diagnostics.extend(advice.iter().cloned());
    let duplicates = duplicates::duplicates(documents, &consumers.consumers, previous, &run);
    diagnostics.extend(duplicates);
    sort(&mut diagnostics);
    let mut counts = HashMap::clone(&rest.counts);
    let declared = documents.consumers.len() + documents.credentials.len();
    counts.insert(
        "consumers",
        count(documents, "consumers", declared, consumers.roster.refused()),
    );
    Snapshot {
        revision: previous.map_or(1, |snapshot| snapshot.revision + 1),
        router: Arc::clone(&rest.router),
        asks_body: rest.asks_body,
        global: Arc::clone(&rest.global),
        global_refused: rest.global_refused,
        global_redacted: rest.global_redacted.clone(),
        consumers: consumers.consumers,
        names: Arc::clone(&rest.names),
        certificates: Arc::clone(&rest.certificates),
        counts,
        diagnostics,
        consumers_built: consumers.built,
        others_built: run.built.into_inner(),
        advice,
        of: documents.identity.note(),
        view: view.clone(),
        tickets,
        uses: match same {
            Some(same) => Arc::clone(&same.uses),
            None => Arc::new(Uses::of(documents)),
        },
        roster: consumers.roster,
        rest,
    }
}

/// Declarations with values in place, by id. `told` says what a finding is about.
fn resolved(
    items: &[Item<Value>],
    documents: &Documents,
    view: &View,
    env: &CompileEnv,
    diagnostics: &mut Vec<Diagnostic>,
    told: impl Fn(&Item<Value>, Diagnostic) -> Diagnostic,
) -> HashMap<Arc<str>, Resolved> {
    let of = |item: &Item<Value>| {
        resolve(item, documents, view, env, |found| {
            diagnostics.push(told(item, found));
        })
    };
    items.iter().map(of).collect()
}

/// Puts values into a declaration. Its finding has the item's place and the field inside it.
fn resolve(
    item: &Item<Value>,
    documents: &Documents,
    view: &View,
    env: &CompileEnv,
    tell: impl FnOnce(Diagnostic),
) -> (Arc<str>, Resolved) {
    let mut stamp = env.hasher.build_hasher();
    item.fingerprint.hash(&mut stamp);
    substitute::stamp(&item.value, view, &mut stamp);
    let values = substitute::substitute((*item.value).clone(), view).map_err(|missing| {
        let (severity, code, message) = unresolved(&missing, documents);
        tell(Diagnostic {
            severity,
            code,
            place: item.place.clone(),
            object: String::new(),
            field: missing.field,
            message,
        });
    });
    let resolved = Resolved {
        stamp: stamp.finish(),
        values: values.ok(),
        refers: substitute::has_references(&item.value),
    };
    (Arc::clone(&item.id), resolved)
}

fn trust(
    documents: &Documents,
    settings: &HashMap<Arc<str>, Resolved>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Trust> {
    let resolved = settings.get(TRUSTED_CERTIFICATE)?;
    let pem = resolved.values.as_ref();
    let bundle = pem.and_then(|pem| {
        let text = pem.expose().as_str().unwrap_or_default();
        let told = |error: CertificateError| {
            let item = documents.settings.iter();
            let mut item = item.filter(|item| &*item.id == TRUSTED_CERTIFICATE);
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                code: "certificate",
                place: item
                    .next()
                    .map(|item| item.place.clone())
                    .unwrap_or_default(),
                object: String::new(),
                field: TRUSTED_CERTIFICATE.to_owned(),
                message: format!("{error}; verified upstreams that name no ca_certs refuse"),
            });
        };
        CaBundle::parse(text.as_bytes()).map_err(told).ok()
    });
    let callouts = match &bundle {
        Some(bundle) => callout::Trust::Only(bundle.certificates().into()),
        None => callout::Trust::nothing(),
    };
    Some(Trust {
        stamp: resolved.stamp,
        ca: bundle.map(|bundle| bundle.for_upstream()),
        callouts,
    })
}

fn attr_id(plugin: &str) -> String {
    format!("{PLUGIN_ATTR}{plugin}")
}

fn sort(diagnostics: &mut [Diagnostic]) {
    let place = |d: &Diagnostic| (d.place.line, d.place.column);
    diagnostics.sort_by(|a, b| {
        a.place
            .file
            .cmp(&b.place.file)
            .then_with(|| place(a).cmp(&place(b)))
            .then_with(|| a.object.cmp(&b.object))
            .then_with(|| a.field.cmp(&b.field))
    });
}

/// What the parser refused of a kind counts with what compilation did.
pub(super) fn count(
    documents: &Documents,
    kind: &str,
    items: usize,
    built_refused: usize,
) -> ItemCount {
    let parse_refused = documents.refused.get(kind).copied().unwrap_or_default();
    ItemCount {
        items: items + parse_refused,
        refused: parse_refused + built_refused,
    }
}
