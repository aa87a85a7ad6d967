//! Certificates: the pairs of each `ssls` item, chosen together, and the store handshakes ask.

mod choice;
mod report;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use openssl::pkey::Id;

use super::client_auth::{self, ClientGuard};
use super::compile::{Compilation, Scope};
use super::on_demand;
use super::rest::AllUnits;
use super::unit::{self, Unit, Units};
use super::{Snapshot, parallel, quarantine, stapling, substitute};
use crate::config::Documents;
use crate::config::resource::{Item, SslConfig, SslKind};
use crate::diagnostic::{Diagnostic, Severity};
use crate::secrets::Reference;
use crate::tls::sni_store::Shadowed;
use crate::tls::{
    CertificateWarning, CertifiedKey, ClientAuth, KeySlot, Protocol, Protocols, Purpose, SniEntry,
    SniStore, TlsIdentity, TlsPolicy,
};

pub(super) use choice::{Declared, choose};
pub use report::{CertificateReport, CertificateState};

/// One `ssls` item.
pub(super) struct SslUnit {
    /// What handshakes get; `None` for items of `type: client`.
    pub identity: Option<Arc<TlsIdentity>>,
    /// What serves, by position in the item; kept so that a bad newer pair changes nothing.
    pub pairs: Arc<[Option<Arc<CertifiedKey>>]>,
    /// What is asked of clients; kept for the same reason.
    pub clients: Option<ClientGuard>,
    /// Whether the newest values wait in quarantine while others serve.
    pub quarantined: bool,
    /// Protocols that clients were served over, in rehearsal.
    pub served: Option<Protocols>,
    /// Whether the item refused when it was built.
    pub refused: bool,
    /// When time alone changes what is served or said.
    pub review: Option<SystemTime>,
}

/// Calls `found` with field and text of each reference of an item.
pub(super) fn visit(config: &SslConfig, found: &mut dyn FnMut(&str, &str)) {
    // Those of an item on demand are none before a client asks for a name.
    let pairs = config.pairs.iter().enumerate();
    for (index, (cert, key)) in pairs.filter(|_| config.on_demand.is_none()) {
        let [cert_field, key_field] = pair_fields(index);
        for (field, text) in [(cert_field, cert), (key_field, key)] {
            if Reference::is_reference(text) {
                found(&field, text);
            }
        }
    }
    if let Some(client) = &config.client {
        if Reference::is_reference(&client.ca) {
            found("client.ca", &client.ca);
        }
        if let Some(crl) = client
            .crl
            .as_deref()
            .filter(|crl| Reference::is_reference(crl))
        {
            found("client.crl", crl);
        }
    }
}

/// Where the halves of a pair stand.
pub(super) fn pair_fields(index: usize) -> [String; 2] {
    match index {
        0 => ["cert".to_owned(), "key".to_owned()],
        n => [format!("certs.{}", n - 1), format!("keys.{}", n - 1)],
    }
}

/// Builds the items that changed, or whose time has come. An item that failed its own checks
/// refuses in its place.
pub(super) fn units(
    documents: &Documents,
    before: Option<&AllUnits>,
    run: &Compilation<'_>,
) -> Units<SslUnit> {
    let before = before.map(|before| &before.ssls);
    let mut built = Units::with_capacity(documents.ssls.len());
    let mut due = Vec::new();
    for item in &documents.ssls {
        let stamp = stamp(item, documents, run);
        let previous = before.and_then(|before| before.get(&item.id));
        match previous {
            Some(unit) if unit.stamp == stamp && !run.is_due(unit.value.review) => {
                built.insert(&item.id, Arc::clone(unit));
            }
            _ => due.push((item, stamp, previous)),
        }
    }
    // Thousands may come at once, and each is parsed for a while.
    let units = parallel::map(&due, |(item, stamp, previous)| {
        build(item, *stamp, previous.map(|unit| &unit.value), run)
    });
    for ((item, ..), unit) in due.iter().zip(units) {
        built.insert(&item.id, unit);
    }
    for item in &documents.refused_ssls {
        let mut stamp = run.hasher();
        ("refused", item.fingerprint).hash(&mut stamp);
        built.reuse_or_build(before, &item.id, stamp.finish(), |_, _| {
            run.count();
            broken(item, run)
        });
    }
    built
}

/// Changes with the declaration and the values it refers to.
fn stamp(item: &Item<SslConfig>, documents: &Documents, run: &Compilation<'_>) -> u64 {
    let config = &item.value;
    let mut stamp = run.hasher();
    item.fingerprint.hash(&mut stamp);
    on_demand::stamp(config, documents, &mut stamp);
    stapling::stamp(config, run, &mut stamp);
    for (cert, key) in &config.pairs {
        substitute::stamp_text(cert, run.view, &mut stamp);
        substitute::stamp_text(key, run.view, &mut stamp);
    }
    if let Some(client) = &config.client {
        substitute::stamp_text(&client.ca, run.view, &mut stamp);
        if let Some(crl) = &client.crl {
            substitute::stamp_text(crl, run.view, &mut stamp);
        }
    }
    stamp.finish()
}

/// Builds one item. Depends on nothing but its arguments: many are built at once.
fn build(
    item: &Item<SslConfig>,
    stamp: u64,
    previous: Option<&SslUnit>,
    run: &Compilation<'_>,
) -> Arc<Unit<SslUnit>> {
    run.count();
    let owner = format!("ssls/{}", item.id);
    unit::build(stamp, |diagnostics| {
        let mut scope = Scope {
            run,
            owner: &owner,
            place: &item.place,
            diagnostics,
        };
        ssl(item, previous, &mut scope)
    })
}

/// The store of the names that units present or refuse; that of before where these are the same.
pub(super) fn store(
    documents: &Documents,
    previous: Option<&Snapshot>,
    units: &AllUnits,
) -> (Arc<SniStore>, Vec<CertificateReport>) {
    let items = documents.ssls.iter().chain(&documents.refused_ssls);
    let mut items: Vec<_> = items.filter(|item| item.value.enabled).collect();
    // Of two items with one name the first in the file has it, whichever refuses.
    items.sort_by_key(|item| item.index);
    let mut presented = Vec::with_capacity(items.len());
    let mut reports = Vec::with_capacity(items.len());
    for item in items {
        let Some(unit) = units.ssls.get(&item.id).map(|unit| &unit.value) else {
            continue;
        };
        reports.push(CertificateReport {
            ssl: Arc::clone(&item.id),
            pairs: Arc::clone(&unit.pairs),
            refused: unit.refused,
            quarantined: unit.quarantined,
            config: Arc::clone(&item.value),
        });
        let Some(identity) = &unit.identity else {
            continue;
        };
        let names = &item.value.snis;
        presented.push((names, identity));
    }
    let before = previous.map(|previous| &previous.names);
    let same = previous.is_some_and(|previous| previous.of.is(&documents.identity));
    let names = match before.and_then(|before| Some((before, changed(before, &presented)?))) {
        Some((before, changed)) if changed.is_empty() => Arc::clone(before),
        Some((before, changed)) if same => Arc::new(before.with(changed)),
        _ => {
            let entries = presented.into_iter().map(|(names, identity)| SniEntry {
                patterns: names.iter().map(|name| name.as_str().into()).collect(),
                identity: Arc::clone(identity),
            });
            Arc::new(SniStore::build(entries.collect()))
        }
    };
    (names, reports)
}

/// Which identities differ from those of the store, by position; `None` where they are not as many.
fn changed(
    before: &SniStore,
    presented: &[Presented<'_>],
) -> Option<Vec<(usize, Arc<TlsIdentity>)>> {
    let identities = before.identities();
    if identities.len() != presented.len() {
        return None;
    }
    let pairs = identities.zip(presented).enumerate();
    let changed = pairs.filter(|(_, (before, (_, now)))| !Arc::ptr_eq(before, now));
    let changed = changed.map(|(position, (_, (_, now)))| (position, Arc::clone(now)));
    Some(changed.collect())
}

/// Names of an item, and what they present.
type Presented<'a> = (&'a Vec<String>, &'a Arc<TlsIdentity>);

/// In the place of an item that failed its own checks. Whether it was to ask for client
/// certificates may be what could not be read, so no other name's handshake leads to its names.
fn broken(item: &Item<SslConfig>, run: &Compilation<'_>) -> SslUnit {
    let protocols = run.env.ssl_protocols.iter().map(String::as_str);
    let protocols = Protocols::parse(protocols).unwrap_or_default();
    let policy = TlsPolicy::new(&item.id, protocols, None, 0);
    let mut identity = TlsIdentity::refused(Arc::clone(&item.id), "the item is invalid", policy);
    identity.guards_clients = true;
    SslUnit {
        identity: Some(Arc::new(identity)),
        pairs: Arc::new([]),
        clients: None,
        quarantined: false,
        served: None,
        refused: true,
        review: None,
    }
}

fn ssl(item: &Item<SslConfig>, previous: Option<&SslUnit>, scope: &mut Scope<'_>) -> SslUnit {
    let config = &item.value;
    let run = scope.run;
    let purpose = match config.kind {
        SslKind::Server => Purpose::Server,
        SslKind::Client => Purpose::Client,
    };
    let mut choices = Vec::with_capacity(config.pairs.len());
    // Those of names on demand come later.
    let fetched = config.pairs.iter().enumerate();
    for (index, (cert, key)) in fetched.filter(|_| config.on_demand.is_none()) {
        let fields = pair_fields(index);
        let declared = Declared {
            texts: (cert, key),
            fields: &fields,
            names: &config.snis,
            purpose,
            serve_expired: serve_expired(config, run),
        };
        let served = previous.and_then(|unit| unit.pairs.get(index)?.as_ref());
        let mut choice = choose(&declared, served, scope);
        if config.kind == SslKind::Client {
            choice.pair = choice.shown(&declared, run);
        }
        choices.push(choice);
    }
    let review = choices.iter().filter_map(|choice| choice.review).min();
    let pairs: Arc<[_]> = choices.into_iter().map(|choice| choice.pair).collect();
    outdone(&pairs, scope);
    if config.kind == SslKind::Client {
        return SslUnit {
            identity: None,
            refused: pairs.iter().any(Option::is_none),
            pairs,
            clients: None,
            quarantined: false,
            served: None,
            review,
        };
    }
    let before = previous.and_then(|unit| unit.clients.as_ref());
    let clients = client_auth::build(config, before, scope);
    let auth = clients
        .as_ref()
        .map(|clients| clients.as_ref().map(|guard| &guard.auth));
    let mut identity = identity(item, &pairs, auth.map_err(|_| ()), scope);
    identity.guards_clients = config.client.is_some();
    identity.serve_expired = serve_expired(config, run);
    identity.stapling = stapling::build(config, &pairs, scope);
    let settled = quarantine::settle(identity, previous, scope);
    let kept = previous.filter(|_| settled.keeps_pairs);
    let refused = !settled.identity.serves(run.now);
    SslUnit {
        refused,
        identity: Some(settled.identity),
        pairs: kept.map_or(pairs, |kept| Arc::clone(&kept.pairs)),
        clients: clients.unwrap_or(None),
        quarantined: settled.quarantined,
        served: settled.served,
        review: match kept {
            Some(kept) => review.into_iter().chain(next_change(kept, run)).min(),
            None => review,
        },
    }
}

/// When time changes what is served of the pairs of an item, or is to be said of them. Reckoned
/// anew: a moment that has passed would come again and again.
fn next_change(unit: &SslUnit, run: &Compilation<'_>) -> Option<SystemTime> {
    let notice = run.env.certificates.expiry_notice;
    let pairs = unit.pairs.iter().flatten();
    pairs
        .filter_map(|pair| pair.next_change(run.now, notice))
        .min()
}

/// What the item says, else what `config.yaml` does.
fn serve_expired(config: &SslConfig, run: &Compilation<'_>) -> bool {
    let everywhere = run.env.certificates.serve_expired;
    config.serve_expired.unwrap_or(everywhere)
}

/// Tells of pairs that an earlier one of the same kind of key stands before.
fn outdone(pairs: &[Option<Arc<CertifiedKey>>], scope: &mut Scope<'_>) {
    let mut taken: Vec<KeySlot> = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let Some(pair) = pair else { continue };
        let slot = pair.algorithm().slot();
        if taken.contains(&slot) {
            let [cert, _] = pair_fields(index);
            let warning = CertificateWarning::Shadowed { slot };
            scope.warn("certificate", &cert, &warning.to_string());
        }
        taken.push(slot);
    }
}

fn identity(
    item: &Item<SslConfig>,
    pairs: &[Option<Arc<CertifiedKey>>],
    clients: Result<Option<&Arc<ClientAuth>>, ()>,
    scope: &mut Scope<'_>,
) -> TlsIdentity {
    let (config, run) = (&item.value, scope.run);
    let id = Arc::clone(&item.id);
    let names = if config.ssl_protocols.is_empty() {
        &run.env.ssl_protocols
    } else {
        &config.ssl_protocols
    };
    let protocols = Protocols::parse(names.iter().map(String::as_str)).unwrap_or_default();
    let policy = |clients: Option<&Arc<ClientAuth>>| {
        TlsPolicy::new(&item.id, protocols, clients.cloned(), 0)
    };
    let Ok(clients) = clients else {
        return TlsIdentity::refused(id, "client verification cannot be set up", policy(None));
    };
    if let Some(settings) = &config.on_demand {
        let policy = policy(clients);
        return match on_demand::build(item, settings, &policy, scope) {
            Ok(names) => TlsIdentity::on_demand(id, names, policy),
            Err(()) => {
                let reason = "a certificate or key cannot be fetched";
                TlsIdentity::refused(id, reason, policy)
            }
        };
    }
    // One unresolved pair refuses the whole item (`spec/01` §5.3). Connections that stand are held
    // to the same clients.
    let Some(pairs) = pairs.iter().cloned().collect::<Option<Vec<_>>>() else {
        let reason = "a certificate or key has no usable value";
        return TlsIdentity::refused(id, reason, policy(clients));
    };
    if !pairs.iter().any(|pair| has_cipher(pair, protocols, scope)) {
        let message = "apisix.ssl.ssl_ciphers has no cipher for a key of this kind: clients that do \
                       not speak TLS 1.3 are refused";
        scope.warn("certificate", "cert", message);
    }
    TlsIdentity::serving(id, pairs, policy(clients))
}

/// Whether clients of every allowed protocol can be served with this pair.
fn has_cipher(pair: &CertifiedKey, protocols: Protocols, scope: &Scope<'_>) -> bool {
    let keys = scope.run.env.cipher_keys;
    let has_one = match pair.key().id() {
        Id::RSA | Id::RSA_PSS => keys.rsa,
        _ => keys.ecdsa,
    };
    has_one || !(protocols.allows(Protocol::Tls11) || protocols.allows(Protocol::Tls12))
}

/// Names that an earlier item has, so that later ones never serve them.
pub(super) fn shadowed(documents: &Documents, names: &SniStore, diagnostics: &mut Vec<Diagnostic>) {
    if names.shadowed().is_empty() {
        return;
    }
    let items = documents.ssls.iter().chain(&documents.refused_ssls);
    let items: HashMap<&str, _> = items.map(|item| (&*item.id, item)).collect();
    for Shadowed { pattern, id, by } in names.shadowed() {
        let Some((item, first)) = items.get(&**id).zip(items.get(&**by)) else {
            continue;
        };
        diagnostics.push(Diagnostic {
            severity: Severity::Warning,
            code: "shadowed-name",
            place: item.place.clone(),
            object: format!("ssls/{id}"),
            field: "snis".to_owned(),
            message: format!(
                "{pattern} stands in ssls/{by} ({}) too, which is first and serves it",
                first.place
            ),
        });
    }
}
