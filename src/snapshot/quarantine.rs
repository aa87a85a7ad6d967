//! Whether what an `ssls` item has come to may replace what it served: a handshake is rehearsed in
//! memory first. What fails is quarantined, told, and served by nobody, until the next change:
//!
//! | fails | serves |
//! |---|---|
//! | the newest pairs | the pairs of before, under the newest policy, if that rehearses well |
//! | the policy too | all of before, unless that would undo a restriction |
//! | either, with nothing before | nothing: the item refuses |
//!
//! Restrictions are never undone: a name that asks for certificates of clients has those of its newest
//! policy looked at or refuses, and so does one that no longer allows an older protocol,
//! or its certificate past its end.

use std::sync::Arc;

use super::certificates::{SslUnit, pair_fields};
use super::compile::Scope;
use crate::tls::{
    CertifiedKey, IdentityState, Protocol, Protocols, Rehearsed, TlsIdentity, Validity,
};

/// An identity that may serve, or refuses.
pub(super) struct Settled {
    pub identity: Arc<TlsIdentity>,
    /// Whether it is another than the one that was declared.
    pub quarantined: bool,
    /// The pairs to go on from are those of before.
    pub keeps_pairs: bool,
    /// Protocols that clients were served over, in rehearsal.
    pub served: Option<Protocols>,
}

/// Why an identity must not serve, and of which pair that was found.
struct Fault {
    pair: usize,
    message: String,
}

/// Rehearses the newest identity of an item and settles what serves.
pub(super) fn settle(
    newest: TlsIdentity,
    before: Option<&SslUnit>,
    scope: &mut Scope<'_>,
) -> Settled {
    let Some(pairs) = pairs_of(&newest) else {
        return Settled::plain(newest, None);
    };
    let serving = before.and_then(|unit| Some((unit, pairs_of(unit.identity.as_deref()?)?)));
    if let Some((unit, served)) = serving
        && same(pairs, served)
        && unit.allows_as(&newest)
    {
        // Rehearsed when it came into force.
        return Settled::plain(newest, unit.served);
    }
    let expected = serving.and_then(|(unit, _)| unit.served);
    let fault = match rehearse(&newest, pairs, expected, scope) {
        Ok(rehearsed) => {
            for (pair, message) in partial(&newest, &rehearsed) {
                scope.warn("rehearsal", &pair_fields(pair)[0], &message);
            }
            return Settled::plain(newest, rehearsed.served());
        }
        Err(fault) => fault,
    };
    let settled = fall_back(&newest, pairs, before, expected, scope);
    let (settled, consequence) = settled.unwrap_or_else(|| {
        let reason = "a handshake with it fails";
        let mut refused = TlsIdentity::refused(newest.id, reason, newest.policy);
        refused.guards_clients = newest.guards_clients;
        (Settled::plain(refused, None), "its names refuse handshakes")
    });
    let message = format!("{}; {consequence}", fault.message);
    scope.error("quarantined", &pair_fields(fault.pair)[0], &message);
    settled
}

/// What serves instead of an identity that must not.
fn fall_back(
    newest: &TlsIdentity,
    pairs: &[Arc<CertifiedKey>],
    before: Option<&SslUnit>,
    expected: Option<Protocols>,
    scope: &Scope<'_>,
) -> Option<(Settled, &'static str)> {
    let unit = before?;
    let whole = unit.identity.as_ref();
    let whole = whole.filter(|identity| pairs_of(identity).is_some());
    let kept = |identity, served| Settled {
        identity,
        served,
        quarantined: true,
        keeps_pairs: true,
    };
    let older = unit.pairs.iter().cloned().collect::<Option<Vec<_>>>();
    if let Some(older) = older.filter(|older| !older.is_empty() && !same(older, pairs)) {
        const CONSEQUENCE: &str = "the pairs of before serve on";
        if let Some(whole) =
            whole.filter(|_| newest.policy.client().is_none() && unit.allows_as(newest))
        {
            return Some((kept(Arc::clone(whole), unit.served), CONSEQUENCE));
        }
        if let Ok(rehearsed) = rehearse(newest, &older, expected, scope) {
            let (id, policy) = (Arc::clone(&newest.id), newest.policy.clone());
            let mut mixed = TlsIdentity::serving(id, older, policy);
            mixed.guards_clients = newest.guards_clients;
            mixed.serve_expired = newest.serve_expired;
            mixed.stapling = newest.stapling;
            return Some((kept(Arc::new(mixed), rehearsed.served()), CONSEQUENCE));
        }
    }
    let whole = whole.filter(|whole| undoes_nothing(whole, newest))?;
    let settled = kept(Arc::clone(whole), unit.served);
    Some((settled, "what served before serves on"))
}

/// Whether serving the older identity lets in nobody whom the newer one would keep out.
fn undoes_nothing(older: &TlsIdentity, newer: &TlsIdentity) -> bool {
    let lowest = |identity: &TlsIdentity| identity.policy.protocols().iter().next();
    !newer.guards_clients
        && newer.policy.client().is_none()
        && lowest(newer).unwrap_or(Protocol::Tls13) <= lowest(older).unwrap_or(Protocol::Tls13)
        && (newer.serve_expired || !older.serve_expired)
}

impl Settled {
    fn plain(identity: TlsIdentity, served: Option<Protocols>) -> Self {
        Self {
            identity: Arc::new(identity),
            quarantined: false,
            keeps_pairs: false,
            served,
        }
    }
}

impl SslUnit {
    /// Whether it holds clients, and pairs past their end, to what the other would.
    fn allows_as(&self, other: &TlsIdentity) -> bool {
        self.identity.as_ref().is_some_and(|identity| {
            identity.policy == other.policy && identity.serve_expired == other.serve_expired
        })
    }
}

/// The pairs to be presented; `None` where it refuses.
fn pairs_of(identity: &TlsIdentity) -> Option<&[Arc<CertifiedKey>]> {
    match &identity.state {
        IdentityState::Serving { pairs } => Some(pairs),
        // What was fetched for a name is looked at then.
        IdentityState::OnDemand(_) | IdentityState::Refused { .. } => None,
    }
}

fn same(pairs: &[Arc<CertifiedKey>], others: &[Arc<CertifiedKey>]) -> bool {
    let mut both = pairs.iter().zip(others);
    pairs.len() == others.len() && both.all(|(pair, other)| Arc::ptr_eq(pair, other))
}

/// A rehearsal without fault, of all pairs that are presented at some time from now on. Clients that were
/// served (over the `expected` protocols) must be, as far as the policy still wants them to.
fn rehearse(
    identity: &TlsIdentity,
    pairs: &[Arc<CertifiedKey>],
    expected: Option<Protocols>,
    scope: &Scope<'_>,
) -> Result<Rehearsed, Fault> {
    let (policy, now) = (&identity.policy, scope.run.now);
    let mut positions = Vec::with_capacity(pairs.len());
    let mut lasting = Vec::with_capacity(pairs.len());
    for (position, pair) in pairs.iter().enumerate() {
        if identity.serve_expired || pair.validity(now) != Validity::Expired {
            positions.push(position);
            lasting.push(Arc::clone(pair));
        }
    }
    let mut rehearsed = scope
        .run
        .classes
        .rehearse(&lasting, policy, &scope.run.env.rehearsal, expected)
        .map_err(|errors| Fault::new(0, &format!("openssl cannot rehearse: {errors}")))?;
    for played in &mut rehearsed.0 {
        played.pair = positions[played.pair];
    }
    if let Some((pair, failure)) = rehearsed.fault(expected) {
        return Err(Fault::new(pair, failure));
    }
    Ok(rehearsed)
}

/// What deserves a word though the identity serves: protocols that nobody is served over, and pairs
/// that nobody is shown.
fn partial(identity: &TlsIdentity, rehearsed: &Rehearsed) -> Vec<(usize, String)> {
    let served = rehearsed.served();
    let serves = |protocol| served.is_some_and(|served| served.allows(protocol));
    let mut told = Vec::new();
    let mut missing: Vec<_> = identity.policy.protocols().iter().collect();
    missing.retain(|protocol| !serves(*protocol));
    for played in &rehearsed.0 {
        for failure in &played.failures {
            let of = failure.protocol();
            let unserved = of.and_then(|of| missing.iter().position(|protocol| *protocol == of));
            if let Some(unserved) = unserved {
                missing.remove(unserved);
            }
            if unserved.is_some() || played.served.is_none() {
                told.push((played.pair, failure.to_string()));
            }
        }
    }
    told
}

impl Fault {
    fn new(pair: usize, why: &impl ToString) -> Self {
        Self {
            pair,
            message: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
