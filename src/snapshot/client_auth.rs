//! Client mutual TLS of an `ssls` item: whose certificates its names accept.

use std::sync::Arc;

use super::compile::Scope;
use super::substitute;
use crate::config::resource::{ForwardConfig, Pem, SslClientConfig, SslConfig};
use crate::expr::pattern;
use crate::tls::{CaBundle, ClientAuth, ClientRules, Forward, RevocationLists};

/// What an item asks of clients, and the declaration it was made of.
pub(super) struct ClientGuard {
    declared: SslClientConfig,
    /// What handshakes and requests are held to.
    pub auth: Arc<ClientAuth>,
}

/// What the item asks of clients; `None` where it asks for nothing. `Err` where that cannot be set
/// up, which was reported: its names refuse.
///
/// A new value that cannot be used (no PEM, a torn one) leaves `previous` in force, as it is with
/// pairs, unless the declaration is another one. Without any value nothing is.
pub(super) fn build(
    config: &SslConfig,
    previous: Option<&ClientGuard>,
    scope: &mut Scope<'_>,
) -> Result<Option<ClientGuard>, ()> {
    let Some(client) = &config.client else {
        return Ok(None);
    };
    let previous = previous.filter(|previous| previous.declared == *client);
    let auth = match rules(client, scope)? {
        Ok(rules) => {
            warn(&rules, scope);
            ClientAuth::build(rules)
                .map_err(|_| ("client.ca", "cannot be trusted as a CA".to_owned()))
        }
        Err(unusable) => Err(unusable),
    };
    let auth = match (auth, previous) {
        (Ok(auth), _) => Arc::new(auth),
        (Err((field, error)), Some(previous)) => {
            let message = format!("{error}; the last good value serves on");
            scope.error("certificate", field, &message);
            Arc::clone(&previous.auth)
        }
        (Err((field, error)), None) => {
            scope.error("certificate", field, &error);
            return Err(());
        }
    };
    Ok(Some(ClientGuard {
        declared: client.clone(),
        auth,
    }))
}

/// A field and what is wrong with its value.
type Unusable = (&'static str, String);

/// The rules with values in place. The outer error: a reference without value, which was reported.
fn rules(
    client: &SslClientConfig,
    scope: &mut Scope<'_>,
) -> Result<Result<ClientRules, Unusable>, ()> {
    let ca = parsed(&client.ca, Pem::Certificate, CA, scope, |pem| {
        CaBundle::parse(pem).map_err(|error| error.to_string())
    })?;
    let revoked = match &client.crl {
        None => Ok(None),
        Some(text) => parsed(text, Pem::Revocations, CRL, scope, |pem| {
            let lists = RevocationLists::parse(pem);
            lists.map(Some).map_err(|error| error.to_string())
        })?,
    };
    let (ca, revoked) = match (ca, revoked) {
        (Ok(ca), Ok(revoked)) => (ca, revoked),
        (Err(unusable), _) | (_, Err(unusable)) => return Ok(Err(unusable)),
    };
    let patterns = client.skip_mtls_uri_regex.iter();
    let exempt = patterns
        .map(|text| pattern::compile(text, false))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ("client.skip_mtls_uri_regex", error.to_string()));
    Ok(exempt.map(|exempt| ClientRules {
        ca,
        depth: client.depth,
        revoked,
        exempt: (!exempt.is_empty()).then_some(exempt),
        forward: match client.forward {
            ForwardConfig::None => Forward::Nothing,
            ForwardConfig::Leaf => Forward::Leaf,
            ForwardConfig::Chain => Forward::Chain,
        },
    }))
}

fn parsed<T>(
    text: &str,
    kind: Pem,
    field: &'static str,
    scope: &mut Scope<'_>,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Result<T, Unusable>, ()> {
    match substitute::pem(text, kind, field, scope.run.view) {
        Ok(pem) => {
            let parsed = pem.and_then(|pem| parse(&pem));
            Ok(parsed.map_err(|error| (field, error)))
        }
        Err(missing) => {
            scope.unresolved(field, &missing);
            Err(())
        }
    }
}

/// What parses and lets nobody in.
fn warn(rules: &ClientRules, scope: &mut Scope<'_>) {
    if !rules.ca.has_root() {
        let message = "no certificate of the bundle is a root, so that no client can be verified: expected a self-signed CA";
        scope.warn("certificate", CA, message);
    }
    let ends = rules
        .revoked
        .as_ref()
        .and_then(RevocationLists::fresh_until);
    if ends.is_some_and(|ends| ends < scope.run.now) {
        let message = "a revocation list has ended, so that no client can be verified: expected lists whose nextUpdate is to come";
        scope.warn("certificate", CRL, message);
    }
}

const CA: &str = "client.ca";
const CRL: &str = "client.crl";
