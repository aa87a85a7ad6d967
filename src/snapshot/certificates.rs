//! Certificates: the pairs of each `ssls` item, chosen together, and the store handshakes ask.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use openssl::pkey::Id;

use super::client_auth::{self, ClientGuard};
use super::compile::{Compilation, Scope};
use super::on_demand;
use super::rest::AllUnits;
use super::substitute;
use super::unit::Units;
use super::{CertificateReport, Snapshot, quarantine};
use crate::config::Documents;
use crate::config::resource::{Item, Pem, SslConfig, SslKind};
use crate::diagnostic::{Diagnostic, Severity};
use crate::secrets::{Reference, Secret};
use crate::tls::sni_store::Shadowed;
use crate::tls::{
    CertifiedKey, ClientAuth, IdentityState, Newest, PairError, Protocol, Protocols, SniEntry,
    SniStore, TlsIdentity, TlsPolicy, choose_pair,
};

/// A certificate that ends sooner than this deserves a warning.
const EXPIRING: Duration = Duration::from_secs(14 * 24 * 3600);

/// One `ssls` item.
pub(super) struct SslUnit {
    /// What handshakes get; `None` for items of `type: client`.
    pub identity: Option<Arc<TlsIdentity>>,
    /// What serves, by position in the item; kept so that a bad newer pair changes nothing.
    pub pairs: Vec<Option<Arc<CertifiedKey>>>,
    /// What is asked of clients; kept for the same reason.
    pub clients: Option<ClientGuard>,
    /// Whether the newest values wait in quarantine while others serve.
    pub quarantined: bool,
    /// Protocols that clients were served over, in rehearsal.
    pub served: Option<Protocols>,
}

impl SslUnit {
    /// Whether the item refuses handshakes.
    #[must_use]
    pub(super) fn refused(&self) -> bool {
        match &self.identity {
            Some(identity) => matches!(identity.state, IdentityState::Refused { .. }),
            None => self.pairs.iter().any(Option::is_none),
        }
    }
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

/// Builds the items that changed. An item that failed its own checks refuses in its place.
pub(super) fn units(
    documents: &Documents,
    before: Option<&AllUnits>,
    run: &Compilation<'_>,
) -> Units<SslUnit> {
    let before = before.map(|before| &before.ssls);
    let mut built = Units::with_capacity(documents.ssls.len());
    for item in &documents.ssls {
        let config = &item.value;
        let mut stamp = run.hasher();
        item.fingerprint.hash(&mut stamp);
        on_demand::stamp(config, documents, &mut stamp);
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
        built.reuse_or_build(before, &item.id, stamp.finish(), |previous, diagnostics| {
            run.count();
            let owner = format!("ssls/{}", item.id);
            let mut scope = Scope {
                run,
                owner: &owner,
                place: &item.place,
                diagnostics,
            };
            ssl(item, previous, &mut scope)
        });
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
        let unit = units.ssls.get(&item.id);
        let Some(identity) = unit.and_then(|unit| unit.value.identity.as_ref()) else {
            continue;
        };
        let names = &item.value.snis;
        reports.push(CertificateReport {
            ssl: Arc::clone(&item.id),
            names: names.clone(),
            not_after: identity.not_after,
            quarantined: unit.is_some_and(|unit| unit.value.quarantined),
        });
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
        pairs: Vec::new(),
        clients: None,
        quarantined: false,
        served: None,
    }
}

fn ssl(item: &Item<SslConfig>, previous: Option<&SslUnit>, scope: &mut Scope<'_>) -> SslUnit {
    let config = &item.value;
    let served = |index: usize| previous.and_then(|unit| unit.pairs.get(index)?.as_ref());
    let fetched = config.pairs.iter().enumerate();
    let pairs: Vec<_> = fetched
        .filter(|_| config.on_demand.is_none())
        .map(|(index, (cert, key))| {
            let fields = pair_fields(index);
            choose((cert, key), &fields, served(index), &config.snis, scope)
        })
        .collect();
    if config.kind == SslKind::Client {
        return SslUnit {
            identity: None,
            pairs,
            clients: None,
            quarantined: false,
            served: None,
        };
    }
    let before = previous.and_then(|unit| unit.clients.as_ref());
    let clients = client_auth::build(config, before, scope);
    let auth = clients
        .as_ref()
        .map(|clients| clients.as_ref().map(|guard| &guard.auth));
    let mut identity = identity(item, &pairs, auth.map_err(|_| ()), scope);
    identity.guards_clients = config.client.is_some();
    let settled = quarantine::settle(identity, previous, scope);
    let kept = previous.filter(|_| settled.keeps_pairs);
    SslUnit {
        identity: Some(settled.identity),
        pairs: kept.map_or(pairs, |kept| kept.pairs.clone()),
        clients: clients.unwrap_or(None),
        quarantined: settled.quarantined,
        served: settled.served,
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
        return match on_demand::build(item, settings, scope) {
            Ok(names) => TlsIdentity::on_demand(id, names, policy(clients)),
            Err(()) => {
                let reason = "a certificate or key cannot be fetched";
                TlsIdentity::refused(id, reason, policy(clients))
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

/// Chooses what serves of a pair declared in these fields: the newest values, or the pair of before
/// while they do not fit. Without a value nothing does.
pub(super) fn choose(
    (cert, key): (&str, &str),
    [cert_field, key_field]: &[String; 2],
    served: Option<&Arc<CertifiedKey>>,
    names: &[String],
    scope: &mut Scope<'_>,
) -> Option<Arc<CertifiedKey>> {
    let view = scope.run.view;
    let cert = substitute::pem(cert, Pem::Certificate, cert_field, view);
    let key = substitute::pem(key, Pem::Key, key_field, view);
    for missing in [&cert, &key]
        .into_iter()
        .filter_map(|half| half.as_ref().err())
    {
        scope.unresolved(&missing.field, missing);
    }
    let (Ok(cert), Ok(key)) = (cert, key) else {
        return None;
    };
    let (cert, key) = match (cert, key) {
        (Ok(cert), Ok(key)) => (cert, key),
        (Err(bounds), _) => {
            scope.error("certificate", cert_field, &and_serves(&bounds, served));
            return served.cloned();
        }
        (_, Err(bounds)) => {
            scope.error("certificate", key_field, &and_serves(&bounds, served));
            return served.cloned();
        }
    };
    // Literal halves are wrapped too: a key is a secret however it got here.
    let (cert, key) = (Secret::new(cert.to_vec()), Secret::new(key.to_vec()));
    let choice = choose_pair(
        Newest::Values {
            cert: &cert,
            key: &key,
        },
        served,
        scope.run.now,
    );
    if let Some(finding) = &choice.finding {
        let field = match finding {
            PairError::Unusable(error) if error.is_about_key() => key_field,
            _ => cert_field,
        };
        let message = and_serves(&finding.to_string(), choice.serving.as_ref());
        scope.error("certificate", field, &message);
    }
    if let Some(pair) = &choice.serving {
        for warning in pair.warnings(scope.run.now, EXPIRING, names) {
            scope.warn("certificate", cert_field, &warning.to_string());
        }
    }
    choice.serving
}

/// The finding, and whether a pair serves in spite of it.
fn and_serves(finding: &str, serving: Option<&Arc<CertifiedKey>>) -> String {
    match serving {
        Some(_) => format!("{finding}; the last good pair serves on"),
        None => finding.to_owned(),
    }
}
