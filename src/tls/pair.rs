//! Which certificate and key serve, when the values behind them change one after the other:
//! they switch together, and only when they fit (`design.md` §3). Pure.

use std::sync::Arc;
use std::time::SystemTime;

use super::certificate::{CertificateError, CertifiedKey, fingerprint};
use super::chains::Chains;
use crate::secrets::Secret;

/// What the configuration says a pair is now.
#[derive(Debug, Clone, Copy)]
pub enum Newest<'a> {
    /// Both values are at hand.
    Values {
        /// The chain, PEM.
        cert: &'a Secret,
        /// The key, PEM.
        key: &'a Secret,
    },
    /// A value is missing, and its manager's last word is that it is: nothing may serve.
    Missing {
        /// Why, without values.
        reason: &'a str,
    },
}

/// Why the newest values do not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// A reference has no value.
    #[error("{0}")]
    Missing(Box<str>),
    /// The values are at hand and cannot be used.
    #[error(transparent)]
    Unusable(#[from] CertificateError),
}

/// What serves, and what should be said about it.
#[derive(Debug)]
pub struct PairChoice {
    /// The pair to present; `None` refuses.
    pub serving: Option<Arc<CertifiedKey>>,
    /// Why the newest values do not serve, or serve though they should not for long.
    pub finding: Option<PairError>,
}

/// Chooses between the newest values and the pair that served before. What serves may have expired
/// meanwhile, or not have begun: whether it is presented then, each handshake decides
/// ([`super::TlsIdentity::presented`]).
///
/// | newest | serves |
/// |---|---|
/// | the texts that serve already | the same object, not parsed again; a finding once it expired |
/// | parse, fit each other, are valid now | the newest |
/// | parse and fit, expired or not valid yet | what served before if that is valid; else the newest, with a finding |
/// | anything else | what served before, with a finding; nothing where nothing did |
/// | missing | nothing |
#[must_use]
pub fn choose_pair(
    newest: Newest<'_>,
    served: Option<&Arc<CertifiedKey>>,
    now: SystemTime,
    chains: &Chains,
) -> PairChoice {
    let (cert, key) = match newest {
        Newest::Values { cert, key } => (cert, key),
        Newest::Missing { reason } => {
            return PairChoice {
                serving: None,
                finding: Some(PairError::Missing(reason.into())),
            };
        }
    };
    let standing = served.filter(|pair| *pair.fingerprint() == fingerprint(cert.expose(), key));
    let newest = match standing {
        Some(pair) => Arc::clone(pair),
        None => match CertifiedKey::parse_sharing(cert.expose(), key, chains) {
            Ok(pair) => Arc::new(pair),
            Err(error) => {
                return PairChoice {
                    serving: served.cloned(),
                    finding: Some(error.into()),
                };
            }
        },
    };
    let finding = newest.check_validity(now).err().map(PairError::from);
    let better = served.filter(|pair| finding.is_some() && pair.check_validity(now).is_ok());
    PairChoice {
        serving: Some(better.cloned().unwrap_or(newest)),
        finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::tls::dev::{Authority, LeafOptions};

    fn leaf(options: &LeafOptions) -> (Secret, Secret) {
        let issued = Authority::new()
            .and_then(|authority| authority.issue(&["a.test"], options))
            .expect("leaf");
        (Secret::from(issued.cert_pem), issued.key_pem)
    }

    fn expired() -> LeafOptions {
        LeafOptions {
            starts_in_secs: -200_000,
            ends_in_secs: -100_000,
            ..LeafOptions::default()
        }
    }

    #[test]
    fn a_pair_switches_only_when_both_halves_have_changed() {
        let now = ManualClock::new().wall();
        let (old_cert, old_key) = leaf(&LeafOptions::default());
        let (new_cert, new_key) = leaf(&LeafOptions::default());
        let choose = |cert, key, served: Option<&Arc<CertifiedKey>>| {
            choose_pair(Newest::Values { cert, key }, served, now, &Chains::new())
        };
        let old = choose(&old_cert, &old_key, None).serving.expect("serves");

        let half = choose(&new_cert, &old_key, Some(&old));
        assert!(Arc::ptr_eq(&half.serving.expect("serves"), &old));
        assert_eq!(half.finding, Some(CertificateError::Mismatch.into()));

        let both = choose(&new_cert, &new_key, Some(&old));
        assert_eq!(both.finding, None);
        assert!(!Arc::ptr_eq(&both.serving.expect("serves"), &old));

        let same = choose(&old_cert, &old_key, Some(&old));
        assert!(Arc::ptr_eq(&same.serving.expect("serves"), &old));
    }

    #[test]
    fn garbage_and_expired_values_leave_the_last_good_pair_serving() {
        let now = ManualClock::new().wall();
        let (cert, key) = leaf(&LeafOptions::default());
        let newest = Newest::Values {
            cert: &cert,
            key: &key,
        };
        let good = choose_pair(newest, None, now, &Chains::new())
            .serving
            .expect("serves");
        let garbage = Secret::from("garbage".to_owned());
        let (old_cert, old_key) = leaf(&expired());
        for (cert, key) in [(&garbage, &key), (&cert, &garbage), (&old_cert, &old_key)] {
            let newest = Newest::Values { cert, key };
            let choice = choose_pair(newest, Some(&good), now, &Chains::new());
            assert!(choice.finding.is_some());
            assert!(Arc::ptr_eq(&choice.serving.expect("serves"), &good));
            let alone = choose_pair(newest, None, now, &Chains::new()).serving;
            assert!(alone.is_none_or(|pair| pair.check_validity(now).is_err()));
        }
    }

    #[test]
    fn a_value_that_is_gone_refuses_even_after_it_served() {
        let now = ManualClock::new().wall();
        let (cert, key) = leaf(&LeafOptions::default());
        let newest = Newest::Values {
            cert: &cert,
            key: &key,
        };
        let good = choose_pair(newest, None, now, &Chains::new())
            .serving
            .expect("serves");
        let reason = "field not found";
        let choice = choose_pair(Newest::Missing { reason }, Some(&good), now, &Chains::new());
        assert!(choice.serving.is_none());
        assert_eq!(choice.finding, Some(PairError::Missing(reason.into())));
    }

    #[test]
    fn of_pairs_that_are_not_valid_the_newest_is_kept_for_its_time() {
        let clock = ManualClock::new();
        let now = clock.wall();
        let (cert, key) = leaf(&LeafOptions {
            starts_in_secs: 1000,
            ..LeafOptions::default()
        });
        let newest = Newest::Values {
            cert: &cert,
            key: &key,
        };
        let early = choose_pair(newest, None, now, &Chains::new());
        let pair = early.serving.expect("kept");
        let at = pair.not_before();
        let finding = CertificateError::NotYetValid { at };
        assert_eq!(early.finding, Some(finding.into()));
        let (old_cert, old_key) = leaf(&LeafOptions::default());
        let old = CertifiedKey::parse(old_cert.expose(), &old_key).expect("pair");
        let old = Arc::new(old);
        let meanwhile = choose_pair(newest, Some(&old), now, &Chains::new());
        assert!(Arc::ptr_eq(&meanwhile.serving.expect("serves"), &old));
        let then = choose_pair(newest, Some(&old), at, &Chains::new());
        assert_eq!(
            then.serving.expect("serves").fingerprint(),
            pair.fingerprint()
        );
        assert_eq!(then.finding, None);
    }
}
