//! Secret managers and references: what is counted as it happens, and what is known when asked.
//! Labels are ids of managers, and words of ours: their number is bounded by the configuration.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::claviger::{counters, histograms};
use super::page::{Kind, Page};

/// Counts what happens at secret managers. A manager's series go when [`SecretMetrics::forget`]
/// is told that it is gone.
pub struct SecretMetrics {
    fetches: IntCounterVec,
    errors: IntCounterVec,
    latency: HistogramVec,
    logins: IntCounterVec,
    adoptions: IntCounterVec,
    refusals: IntCounterVec,
    managers: Mutex<HashMap<Box<str>, Handles>>,
}

/// One manager's series.
struct Handles {
    fetches: IntCounter,
    latency: Histogram,
    adoptions: IntCounter,
    refusals: IntCounter,
    errors: HashMap<&'static str, IntCounter>,
    logins: HashMap<(&'static str, &'static str), IntCounter>,
}

impl SecretMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let of_manager = |name, help| counters(registry, name, help, &["manager"]);
        Self {
            fetches: of_manager("secret_fetches_total", "Reads of secret managers."),
            errors: counters(
                registry,
                "secret_fetch_errors_total",
                "Reads of secret managers that gave no document, by kind.",
                &["manager", "kind"],
            ),
            latency: histograms(
                registry,
                "secret_fetch_duration_seconds",
                "Time of reads of secret managers.",
                "manager",
            ),
            logins: counters(
                registry,
                "secret_logins_total",
                "Logins at secret managers, by method and result (accepted, renewed, failed).",
                &["manager", "method", "result"],
            ),
            adoptions: of_manager(
                "secret_adoptions_total",
                "Times a new value of a reference came into use.",
            ),
            refusals: of_manager(
                "secret_refusals_total",
                "Times a reference was left without a value, so that its users refuse.",
            ),
            managers: Mutex::default(),
        }
    }

    /// A read ended after `took`, with an error of this kind where it gave no document.
    pub fn fetched(&self, manager: &str, error: Option<&'static str>, took: Duration) {
        self.with(manager, |handles| {
            handles.fetches.inc();
            handles.latency.observe(took.as_secs_f64());
            if let Some(kind) = error {
                let errors = &self.errors;
                let series = || errors.with_label_values(&[manager, kind]);
                handles.errors.entry(kind).or_insert_with(series).inc();
            }
        });
    }

    /// A login ended so: `accepted`, `renewed` or `failed`.
    pub fn logged_in(&self, manager: &str, method: &'static str, result: &'static str) {
        self.with(manager, |handles| {
            let logins = &self.logins;
            let series = || logins.with_label_values(&[manager, method, result]);
            let counter = handles.logins.entry((method, result));
            counter.or_insert_with(series).inc();
        });
    }

    /// A new value of a reference is in use.
    pub fn adopted(&self, manager: &str, count: u64) {
        self.with(manager, |handles| handles.adoptions.inc_by(count));
    }

    /// A reference is without a value.
    pub fn refused(&self, manager: &str, count: u64) {
        self.with(manager, |handles| handles.refusals.inc_by(count));
    }

    /// The manager is declared no longer.
    pub fn forget(&self, manager: &str) {
        let Some(handles) = self.lock().remove(manager) else {
            return;
        };
        // An error means that there is no such series.
        let _ = self.fetches.remove_label_values(&[manager]);
        let _ = self.latency.remove_label_values(&[manager]);
        let _ = self.adoptions.remove_label_values(&[manager]);
        let _ = self.refusals.remove_label_values(&[manager]);
        for kind in handles.errors.keys() {
            let _ = self.errors.remove_label_values(&[manager, kind]);
        }
        for (method, result) in handles.logins.keys() {
            let _ = self.logins.remove_label_values(&[manager, method, result]);
        }
    }

    fn with(&self, manager: &str, count: impl FnOnce(&mut Handles)) {
        let mut managers = self.lock();
        if let Some(handles) = managers.get_mut(manager) {
            return count(handles);
        }
        let handles = Handles {
            fetches: self.fetches.with_label_values(&[manager]),
            latency: self.latency.with_label_values(&[manager]),
            adoptions: self.adoptions.with_label_values(&[manager]),
            refusals: self.refusals.with_label_values(&[manager]),
            errors: HashMap::new(),
            logins: HashMap::new(),
        };
        count(managers.entry(manager.into()).or_insert(handles));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Handles>> {
        self.managers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of a manager and its references at the time of a scrape.
#[derive(Debug, Clone, Default)]
pub struct SecretFacts {
    /// Id (`vault/main`), or `env`.
    pub manager: String,
    /// 0 closed, 1 open, 2 probing; `None` for what has no circuit.
    pub circuit: Option<u8>,
    /// Method of the login in force, and how long it lives on unless it is renewed.
    pub login: Option<(&'static str, Duration)>,
    /// Documents in use.
    pub documents: Option<usize>,
    /// References with a value read within its ttl.
    pub fresh: usize,
    /// References with an older value that still serves.
    pub stale: usize,
    /// References without a value.
    pub refused: usize,
    /// Age of the value that was confirmed longest ago.
    pub oldest: Option<Duration>,
}

/// Writes what is known of managers now; `server` calls it from its collector.
pub fn write_secret_facts(page: &mut Page, managers: &[SecretFacts]) {
    type Samples = fn(&SecretFacts, &mut dyn FnMut(&[(&str, &str)], f64));
    let families: [(&str, &str, Samples); 6] = [
        (
            "references",
            "References in use, by state.",
            |facts, sample| {
                for (state, count) in [
                    ("fresh", facts.fresh),
                    ("stale", facts.stale),
                    ("refused", facts.refused),
                ] {
                    sample(&[("state", state)], count_of(count));
                }
            },
        ),
        (
            "unresolved",
            "References without a usable value.",
            |facts, sample| {
                sample(&[], count_of(facts.refused));
            },
        ),
        ("documents", "Documents in use.", |facts, sample| {
            if let Some(documents) = facts.documents {
                sample(&[], count_of(documents));
            }
        }),
        (
            "oldest_age_seconds",
            "Time since the value in use that was confirmed longest ago was.",
            |facts, sample| {
                if let Some(age) = facts.oldest {
                    sample(&[], age.as_secs_f64());
                }
            },
        ),
        (
            "circuit_state",
            "0: the manager is asked; 1: it does not answer and is left alone for a moment; \
             2: one read tries whether it answers again.",
            |facts, sample| {
                if let Some(state) = facts.circuit {
                    sample(&[], f64::from(state));
                }
            },
        ),
        (
            "login_left_seconds",
            "How long the login in force lives on unless it is renewed.",
            |facts, sample| {
                if let Some((method, left)) = facts.login {
                    sample(&[("method", method)], left.as_secs_f64());
                }
            },
        ),
    ];
    for (name, help, samples) in families {
        page.family(&format!("claviger_secret_{name}"), help, Kind::Gauge);
        for facts in managers {
            samples(facts, &mut |labels, value| {
                let manager = [("manager", facts.manager.as_str())];
                page.sample(&[&manager, labels].concat(), value);
            });
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn count_of(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder, TextEncoder};

    fn page(registry: &Registry) -> String {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&registry.gather(), &mut text);
        encoded.expect("can be written");
        String::from_utf8(text).expect("is text")
    }

    #[test]
    fn what_happened_is_counted_by_manager_and_forgotten_with_it() {
        let registry = Registry::new();
        let metrics = SecretMetrics::new(&registry);
        metrics.fetched("vault/a", None, Duration::from_millis(3));
        metrics.fetched("vault/a", Some("sealed"), Duration::from_millis(3));
        metrics.logged_in("vault/a", "approle", "accepted");
        metrics.adopted("vault/a", 1);
        metrics.refused("vault/b", 1);
        let text = page(&registry);
        for line in [
            "claviger_secret_fetches_total{manager=\"vault/a\"} 2",
            "claviger_secret_fetch_errors_total{kind=\"sealed\",manager=\"vault/a\"} 1",
            "claviger_secret_fetch_duration_seconds_count{manager=\"vault/a\"} 2",
            "claviger_secret_logins_total{manager=\"vault/a\",method=\"approle\",result=\"accepted\"} 1",
            "claviger_secret_adoptions_total{manager=\"vault/a\"} 1",
            "claviger_secret_refusals_total{manager=\"vault/b\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        metrics.forget("vault/a");
        let text = page(&registry);
        assert!(
            !text.contains("vault/a") && text.contains("vault/b"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_known_has_no_sample() {
        let facts = [
            SecretFacts {
                manager: "vault/a".to_owned(),
                circuit: Some(1),
                login: Some(("token", Duration::from_secs(90))),
                documents: Some(2),
                refused: 3,
                ..SecretFacts::default()
            },
            SecretFacts {
                manager: "env".to_owned(),
                fresh: 1,
                ..SecretFacts::default()
            },
        ];
        let mut page = Page::new("", 0);
        write_secret_facts(&mut page, &facts);
        let text = String::from_utf8(page.into_text()).expect("is text");
        for line in [
            "claviger_secret_references{manager=\"vault/a\",state=\"refused\"} 3",
            "claviger_secret_references{manager=\"env\",state=\"fresh\"} 1",
            "claviger_secret_unresolved{manager=\"vault/a\"} 3",
            "claviger_secret_documents{manager=\"vault/a\"} 2",
            "claviger_secret_circuit_state{manager=\"vault/a\"} 1",
            "claviger_secret_login_left_seconds{manager=\"vault/a\",method=\"token\"} 90",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
        assert!(!text.contains("circuit_state{manager=\"env\"}"), "{text}");
    }
}
