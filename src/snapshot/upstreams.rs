//! Upstreams, standing alone or inline, with their TLS material resolved.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::UpstreamLink;
use super::client_pairs::{self, Refusal};
use super::compile::{Compilation, Scope};
use super::rest::AllUnits;
use super::substitute;
use super::unit::Units;
use crate::config::Documents;
use crate::config::resource::{Pem, UpstreamConfig, UpstreamTlsConfig};
use crate::secrets::Reference;
use crate::tls::CaBundle;
use crate::upstream::{BuildError, Upstream, UpstreamParts, UpstreamTls};

/// Calls `found` with field and text of each reference of an upstream.
pub(super) fn visit(config: Option<&UpstreamConfig>, found: &mut dyn FnMut(&str, &str)) {
    for (field, text) in config
        .and_then(|config| config.tls.as_ref())
        .into_iter()
        .flat_map(tls_texts)
    {
        if Reference::is_reference(text) {
            found(field, text);
        }
    }
}

fn tls_texts(tls: &UpstreamTlsConfig) -> impl Iterator<Item = (&'static str, &str)> {
    let texts = [
        ("tls.client_cert", &tls.client_cert),
        ("tls.client_key", &tls.client_key),
        ("tls.ca_certs", &tls.ca_certs),
    ];
    texts
        .into_iter()
        .filter_map(|(field, text)| Some((field, text.as_deref()?)))
}

/// What an inline upstream or a link to one stands for: changes with either. `owner` is the kind
/// and the id of what it stands on.
pub(super) fn stamp(
    config: Option<&UpstreamConfig>,
    id: Option<&str>,
    owner: (&str, &str),
    units: &AllUnits,
    run: &Compilation<'_>,
) -> u64 {
    let mut stamp = run.hasher();
    if let Some(id) = id {
        units
            .upstreams
            .get(id)
            .map(|unit| Arc::as_ptr(unit).addr())
            .hash(&mut stamp);
    } else if let Some(tls) = config.and_then(|config| config.tls.as_ref()) {
        hash_tls(tls, owner, units, run, &mut stamp);
    }
    stamp.finish()
}

fn hash_tls(
    tls: &UpstreamTlsConfig,
    owner: (&str, &str),
    units: &AllUnits,
    run: &Compilation<'_>,
    stamp: &mut impl Hasher,
) {
    run.trust.as_ref().map(|trust| trust.stamp).hash(stamp);
    if let Some(ca) = &tls.ca_certs {
        substitute::stamp_text(ca, run.view, stamp);
    }
    client_pairs::stamp(tls, owner, units, stamp);
}

/// Builds the upstreams that changed.
pub(super) fn compile(
    documents: &Documents,
    before: Option<&AllUnits>,
    units: &AllUnits,
    run: &Compilation<'_>,
) -> Units<UpstreamLink> {
    let mut built = Units::with_capacity(documents.upstreams.len());
    for item in &documents.upstreams {
        let mut stamp = run.hasher();
        item.fingerprint.hash(&mut stamp);
        if let Some(tls) = &item.value.tls {
            hash_tls(tls, ("upstreams", &item.id), units, run, &mut stamp);
        }
        built.reuse_or_build(
            before.map(|b| &b.upstreams),
            &item.id,
            stamp.finish(),
            |_, diagnostics| {
                run.count();
                let owner = format!("upstreams/{}", item.id);
                let mut scope = Scope {
                    run,
                    owner: &owner,
                    place: &item.place,
                    diagnostics,
                };
                build(&item.value, "", units, &mut scope)
            },
        );
    }
    built
}

/// The upstream of a route or service: the id wins over the inline one.
pub(super) fn link(
    config: Option<&UpstreamConfig>,
    id: Option<&str>,
    units: &AllUnits,
    scope: &mut Scope<'_>,
) -> UpstreamLink {
    match (id, config) {
        (Some(id), _) => units.upstreams.get(id).map_or_else(
            || {
                scope.error(
                    "missing-upstream",
                    "upstream_id",
                    &format!("upstream {id} does not exist or is invalid; requests answer 502"),
                );
                UpstreamLink::NotFound
            },
            |unit| unit.value.clone(),
        ),
        (None, Some(config)) => build(config, "upstream.", units, scope),
        (None, None) => UpstreamLink::None,
    }
}

fn build(
    config: &UpstreamConfig,
    prefix: &str,
    units: &AllUnits,
    scope: &mut Scope<'_>,
) -> UpstreamLink {
    let tls = match config
        .tls
        .as_ref()
        .map(|tls| material(tls, prefix, units, scope))
        .transpose()
    {
        Ok(tls) => tls.unwrap_or_default(),
        Err(link) => return link,
    };
    if config.scheme.is_tls()
        && !tls.verify
        && config.tls.as_ref().is_none_or(|tls| tls.verify.is_none())
    {
        scope.warn("unverified-upstream", &format!("{prefix}tls.verify"), "the node's certificate is not verified; set verify to true (or false, to silence this)");
    }
    let env = scope.run.env;
    let parts = UpstreamParts {
        id: scope.owner,
        tls,
        keepalive: env.keepalive,
        resolver: &env.resolver,
        kept: &env.kept,
    };
    match Upstream::build(config, &parts) {
        Ok(upstream) => UpstreamLink::Ready(Arc::new(upstream)),
        Err(error) => {
            let field = format!("{prefix}{}", error.field());
            scope.error("upstream", &field, &error.to_string());
            match error {
                BuildError::Discovery => UpstreamLink::Refused,
                _ => UpstreamLink::NotFound,
            }
        }
    }
}

fn material(
    tls: &UpstreamTlsConfig,
    prefix: &str,
    units: &AllUnits,
    scope: &mut Scope<'_>,
) -> Result<UpstreamTls, UpstreamLink> {
    let ca = match (&tls.ca_certs, &scope.run.trust) {
        (None, None) => None,
        // It was told where the trust store is declared.
        (None, Some(trust)) if trust.ca.is_none() && tls.verify == Some(true) => {
            return Err(UpstreamLink::Refused);
        }
        (None, Some(trust)) => trust.ca.clone(),
        (Some(text), _) => {
            let field = format!("{prefix}tls.ca_certs");
            let pem = substitute::pem(text, Pem::Certificate, &field, scope.run.view);
            let pem = pem.map_err(|missing| {
                scope.unresolved(&field, &missing);
                UpstreamLink::Refused
            })?;
            let bundle =
                pem.and_then(|pem| CaBundle::parse(&pem).map_err(|error| error.to_string()));
            let bundle = bundle.map_err(|error| {
                scope.error("certificate", &field, &error);
                UpstreamLink::Refused
            })?;
            Some(bundle.for_upstream())
        }
    };
    let client = client_pairs::of(tls, prefix, units, scope).map_err(|refusal| match refusal {
        Refusal::NotFound => UpstreamLink::NotFound,
        Refusal::NoValue => UpstreamLink::Refused,
    })?;
    Ok(UpstreamTls {
        verify: tls.verify.unwrap_or_default(),
        ca,
        client: client.map(|client| Arc::new(client.for_upstream())),
        alpn: tls.alpn,
    })
}
