//! Values to what a name presents. Takes a core for a while, so it runs where nobody waits in line.

use std::sync::Arc;
use std::time::SystemTime;

use openssl::sha::Sha256;

use super::{Served, Trial};
use crate::config::resource::Pem;
use crate::secrets::{Resolved, Secret};
use crate::tls::Chains;
use crate::tls::certificate::CertifiedKey;
use crate::tls::pair::{Newest, choose_pair};
use crate::tls::policy::Protocols;

/// What came of the newest values of a name.
pub(super) struct Built {
    /// What serves now.
    pub served: Option<Arc<Served>>,
    /// Why the newest values do not; never a value.
    pub finding: Option<Box<str>>,
}

/// Chooses what serves `name`: the pairs of these values (cert and key of each, in turn), or those of
/// before while one of them does not fit. All or none: a client must not be shown the pair that was
/// withdrawn because its signature algorithms lead there.
pub(super) fn build(
    name: &str,
    values: &[Resolved],
    before: Option<&Arc<Served>>,
    now: SystemTime,
    chains: &Chains,
    trial: &Trial,
) -> Built {
    let stays = |finding: String| Built {
        served: before.cloned(),
        finding: Some(finding.into()),
    };
    let mut pairs = Vec::with_capacity(values.len() / 2);
    for (index, halves) in values.chunks_exact(2).enumerate() {
        let [cert, key] = [&halves[0], &halves[1]].map(|half| Secret::new(half.open().to_vec()));
        if let Err(bounds) = in_bounds(&cert, &key) {
            return stays(bounds);
        }
        let newest = Newest::Values {
            cert: &cert,
            key: &key,
        };
        let served = before.and_then(|before| before.pairs.get(index));
        let choice = choose_pair(newest, served, now, chains);
        let finding = choice.finding.map(|finding| finding.to_string());
        let finding = match (finding, &choice.serving) {
            (None, Some(pair)) => check(name, pair).err(),
            (finding, _) => Some(finding.unwrap_or_else(|| "no pair".to_owned())),
        };
        if let Some(finding) = finding {
            return stays(finding);
        }
        pairs.extend(choice.serving);
    }
    if let Some(before) = before.filter(|before| same(&before.pairs, &pairs)) {
        // It passed when it came.
        return Built {
            served: Some(Arc::clone(before)),
            finding: None,
        };
    }
    match trial.pass(&pairs, before.and_then(|before| before.protocols)) {
        Ok(protocols) => Built {
            served: Served::of(pairs, protocols),
            finding: None,
        },
        Err(finding) => stays(finding),
    }
}

fn same(pairs: &[Arc<CertifiedKey>], others: &[Arc<CertifiedKey>]) -> bool {
    let mut both = pairs.iter().zip(others);
    pairs.len() == others.len() && both.all(|(pair, other)| Arc::ptr_eq(pair, other))
}

/// The bounds of pairs that are declared: what is longer takes long to read, and much memory for
/// each of ten thousand names.
fn in_bounds(cert: &Secret, key: &Secret) -> Result<(), String> {
    Pem::Certificate.check(cert.expose())?;
    Pem::Key.check(key.expose())
}

/// Whether a pair may be presented for a name, beyond what it is in itself. A certificate of another
/// name is no answer: else whatever a client makes up would be kept with it.
fn check(name: &str, pair: &CertifiedKey) -> Result<(), String> {
    if pair.covers(name) {
        return Ok(());
    }
    Err("the certificate does not cover the name".to_owned())
}

impl Served {
    /// These pairs; `None` where there is none.
    fn of(pairs: Vec<Arc<CertifiedKey>>, protocols: Option<Protocols>) -> Option<Arc<Self>> {
        let not_after = pairs.iter().map(|pair| pair.not_after()).min()?;
        let mut generation = Sha256::new();
        for pair in &pairs {
            generation.update(pair.fingerprint());
        }
        Some(Arc::new(Self {
            pairs: pairs.into(),
            generation: generation.finish(),
            not_after,
            protocols,
        }))
    }
}
