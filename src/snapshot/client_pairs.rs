//! Certificates shown to upstreams: each is chosen with the one of before at hand, as those shown
//! to clients are, so that a rotation whose halves arrive one after the other breaks nothing.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use super::certificates::{self, Declared};
use super::compile::{Compilation, Scope};
use super::rest::AllUnits;
use super::substitute::{self, Missing};
use super::unit::{self, Units};
use crate::config::Documents;
use crate::config::resource::{Pem, SslConfig, SslKind, UpstreamConfig, UpstreamTlsConfig};
use crate::diagnostic::Place;
use crate::secrets::Secret;
use crate::tls::{CertifiedKey, Newest, Purpose, choose_pair};

/// What an upstream shows whose own fields hold the pair; `None` refuses, which was told.
pub(super) type ClientPair = Option<Arc<CertifiedKey>>;

/// The same, and when it is to be looked at again.
pub(super) struct ClientUnit {
    pub(super) pair: ClientPair,
    pub(super) review: Option<SystemTime>,
}

/// Builds the pairs that changed, by the objects their upstreams stand on.
pub(super) fn compile(
    documents: &Documents,
    before: Option<&AllUnits>,
    run: &Compilation<'_>,
) -> Units<ClientUnit> {
    let mut built = Units::default();
    let mut take = |kind: &str, id: &str, place: &Place, config: Option<&UpstreamConfig>| {
        let Some((cert, key)) = config
            .and_then(|config| config.tls.as_ref())
            .and_then(own_pair)
        else {
            return;
        };
        let mut stamp = run.hasher();
        (cert, key).hash(&mut stamp);
        substitute::stamp_text(cert, run.view, &mut stamp);
        substitute::stamp_text(key, run.view, &mut stamp);
        let owner = owner(kind, id);
        let before = before.and_then(|before| before.client_pairs.get(&owner));
        let stamp = stamp.finish();
        let unit = before.filter(|unit| unit.stamp == stamp && !run.is_due(unit.value.review));
        if let Some(unit) = unit {
            built.insert(&owner, Arc::clone(unit));
            return;
        }
        let unit = unit::build(stamp, |diagnostics| {
            let mut scope = Scope {
                run,
                owner: &owner,
                place,
                diagnostics,
            };
            let prefix = if kind == "upstreams" { "" } else { "upstream." };
            let fields = ["tls.client_cert", "tls.client_key"].map(|f| format!("{prefix}{f}"));
            let declared = Declared {
                texts: (cert, key),
                fields: &fields,
                names: &[],
                purpose: Purpose::Client,
                serve_expired: run.env.certificates.serve_expired,
            };
            let served = before.and_then(|unit| unit.value.pair.as_ref());
            let choice = certificates::choose(&declared, served, &mut scope);
            ClientUnit {
                pair: choice.shown(&declared, run),
                review: choice.review,
            }
        });
        built.insert(&owner, unit);
    };
    for item in &documents.upstreams {
        take("upstreams", &item.id, &item.place, Some(&item.value));
    }
    for item in &documents.services {
        take(
            "services",
            &item.id,
            &item.place,
            item.value.upstream.as_ref(),
        );
    }
    for item in &documents.routes {
        take(
            "routes",
            &item.id,
            &item.place,
            item.value.upstream.as_ref(),
        );
    }
    built
}

fn owner(kind: &str, id: &str) -> Arc<str> {
    format!("{kind}/{id}").into()
}

/// The pair in the upstream's own fields; that of an `ssls` item wins over it.
fn own_pair(tls: &UpstreamTlsConfig) -> Option<(&str, &str)> {
    if tls.client_cert_id.is_some() {
        return None;
    }
    tls.client_cert.as_deref().zip(tls.client_key.as_deref())
}

/// Changes with what an upstream shows. `owner` is the kind and the id of what it stands on.
pub(super) fn stamp(
    tls: &UpstreamTlsConfig,
    (kind, id): (&str, &str),
    units: &AllUnits,
    stamp: &mut impl Hasher,
) {
    // A unit is a new object exactly when it was rebuilt.
    if let Some(ssl) = &tls.client_cert_id {
        let unit = units.ssls.get(ssl);
        unit.map(|unit| Arc::as_ptr(unit).addr()).hash(stamp);
    } else if own_pair(tls).is_some() {
        let unit = units.client_pairs.get(&owner(kind, id));
        unit.map(|unit| Arc::as_ptr(unit).addr()).hash(stamp);
    }
}

/// Why an upstream cannot show its certificate (`spec/04` §5).
pub(super) enum Refusal {
    /// There is no such item, or it is for something else: 502.
    NotFound,
    /// It has no usable value: 503.
    NoValue,
}

/// What an upstream shows; `None` where it shows nothing.
pub(super) fn of(
    tls: &UpstreamTlsConfig,
    prefix: &str,
    units: &AllUnits,
    scope: &mut Scope<'_>,
) -> Result<ClientPair, Refusal> {
    let Some(id) = &tls.client_cert_id else {
        if own_pair(tls).is_none() {
            return Ok(None);
        }
        let pair = units.client_pairs.get(scope.owner);
        let pair = pair.and_then(|unit| unit.value.pair.clone());
        return pair.map(Some).ok_or(Refusal::NoValue);
    };
    let field = format!("{prefix}tls.client_cert_id");
    let config = match client_item(id, scope.run) {
        Ok(config) => config,
        Err(message) => {
            scope.error("certificate", &field, &message);
            return Err(Refusal::NotFound);
        }
    };
    let pair = units.ssls.get(id).and_then(|unit| unit.value.pairs.first());
    if let Some(Some(pair)) = pair {
        return Ok(Some(Arc::clone(pair)));
    }
    match why_none(config, &field, scope.run) {
        Ok(missing) => scope.unresolved(&field, &missing),
        Err(message) => scope.error("certificate", &field, &message),
    }
    Err(Refusal::NoValue)
}

/// The item of that id.
///
/// # Errors
/// APISIX's text for what is wrong.
fn client_item<'a>(id: &str, run: &Compilation<'a>) -> Result<&'a SslConfig, String> {
    let documents: &'a Documents = run.documents;
    let mut items = documents.ssls.iter();
    let item = items
        .find(|item| &*item.id == id)
        .ok_or_else(|| format!("ssl id [{id}] not exits"))?;
    if item.value.kind != SslKind::Client {
        return Err("ssl type should be 'client'".to_owned());
    }
    Ok(&item.value)
}

/// Why the first pair of an item cannot be shown.
fn why_none(config: &SslConfig, field: &str, run: &Compilation<'_>) -> Result<Missing, String> {
    let Some((cert, key)) = config.pairs.first() else {
        return Err("the item has no certificate".to_owned());
    };
    let halves = substitute::pem(cert, Pem::Certificate, field, run.view)
        .and_then(|cert| Ok((cert, substitute::pem(key, Pem::Key, field, run.view)?)));
    let (cert, key) = match halves {
        Err(missing) => return Ok(missing),
        Ok((cert, key)) => (cert?, key?),
    };
    let (cert, key) = (Secret::new(cert.to_vec()), Secret::new(key.to_vec()));
    let newest = Newest::Values {
        cert: &cert,
        key: &key,
    };
    let chains = &run.env.certificates.chains;
    let finding = choose_pair(newest, None, run.now, chains).finding;
    Err(finding.map_or_else(String::new, |finding| finding.to_string()))
}
