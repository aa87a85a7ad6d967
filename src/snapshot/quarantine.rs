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
//! policy looked at or refuses, and so does one that no longer allows an older protocol.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;

use super::certificates::{SslUnit, pair_fields};
use super::compile::Scope;
use crate::tls::rehearsal::Class;
use crate::tls::{
    CertifiedKey, IdentityState, Protocol, Protocols, Rehearsal, Rehearsed, TlsIdentity, TlsPolicy,
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
    /// Whether it holds clients to what the other would.
    fn allows_as(&self, other: &TlsIdentity) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| identity.policy == other.policy)
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

/// A rehearsal without fault. Clients that were served (over the `expected` protocols) must be, as far
/// as the policy still wants them to.
fn rehearse(
    identity: &TlsIdentity,
    pairs: &[Arc<CertifiedKey>],
    expected: Option<Protocols>,
    scope: &Scope<'_>,
) -> Result<Rehearsed, Fault> {
    let policy = &identity.policy;
    let rehearsed = scope
        .run
        .classes
        .rehearse(pairs, policy, &scope.run.env.rehearsal)
        .map_err(|errors| Fault::new(0, &format!("openssl cannot rehearse: {errors}")))?;
    let served = rehearsed.served();
    let serves = |protocol| served.is_some_and(|served| served.allows(protocol));
    let was_served = |protocol| expected.is_some_and(|expected| expected.allows(protocol));
    let grave = rehearsed.failures().find(|(_, failure)| failure.is_grave());
    let fault = grave.or_else(|| {
        rehearsed.failures().find(|(_, failure)| {
            let of = failure.protocol();
            served.is_none() || of.is_some_and(|of| was_served(of) && !serves(of))
        })
    });
    if let Some((pair, failure)) = fault {
        return Err(Fault::new(pair, failure));
    }
    Ok(rehearsed)
}

/// Classes that were rehearsed whole in this compilation: ten thousand certificates of one kind are
/// rehearsed over each protocol once, and over one of them each.
#[derive(Default)]
pub(super) struct Classes(Mutex<HashSet<Class>>);

impl Classes {
    fn rehearse(
        &self,
        pairs: &[Arc<CertifiedKey>],
        policy: &TlsPolicy,
        rehearsal: &Rehearsal,
    ) -> Result<Rehearsed, ErrorStack> {
        let class = Class::of(pairs, policy);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&class) {
            return rehearsal.rehearse_another(pairs, policy);
        }
        let rehearsed = rehearsal.rehearse(pairs, policy)?;
        if rehearsed.failures().next().is_none() {
            known().insert(class);
        }
        Ok(rehearsed)
    }
}

/// What deserves a word though the identity serves: protocols that nobody is served over, and pairs
/// that nobody is shown.
fn partial(identity: &TlsIdentity, rehearsed: &Rehearsed) -> Vec<(usize, String)> {
    let served = rehearsed.served();
    let serves = |protocol| served.is_some_and(|served| served.allows(protocol));
    let mut told = Vec::new();
    let mut missing: Vec<_> = identity.policy.protocols().iter().collect();
    missing.retain(|protocol| !serves(*protocol));
    for (pair, failure) in rehearsed.failures() {
        let of = failure.protocol();
        let unserved = of.and_then(|of| missing.iter().position(|protocol| *protocol == of));
        let unseen = rehearsed.0[pair].served.is_none();
        if let Some(unserved) = unserved {
            missing.remove(unserved);
        }
        if unserved.is_some() || unseen {
            told.push((pair, failure.to_string()));
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
