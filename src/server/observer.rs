//! Who the secrets room tells about its reads and events: metrics count them, the audit log keeps
//! those an auditor wants to know.

use std::sync::Arc;
use std::time::Duration;

use crate::secrets::manager::FetchError;
use crate::secrets::{Event, Observer};
use crate::telemetry::audit::Text;
use crate::telemetry::{Audit, Metrics};

/// Metrics always, the audit log where there is one.
pub(super) struct SecretObserver {
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Option<Audit>,
}

impl Observer for SecretObserver {
    fn fetch(&self, manager: &str, outcome: Result<(), &FetchError>, took: Duration) {
        let error = outcome.err().map(FetchError::kind);
        self.metrics.own().secrets().fetched(manager, error, took);
    }

    fn event(&self, manager: &str, event: Event) {
        self.count(manager, &event);
        if let Some(audit) = &self.audit {
            let (word, fields) = told(event);
            let manager = ("manager", Text::from(manager.to_owned()));
            audit.record(word, std::iter::once(manager).chain(fields).collect());
        }
    }
}

impl SecretObserver {
    fn count(&self, manager: &str, event: &Event) {
        let metrics = self.metrics.own().secrets();
        match event {
            Event::LoggedIn { method } => metrics.logged_in(manager, method, "accepted"),
            Event::Renewed { method } => metrics.logged_in(manager, method, "renewed"),
            Event::LoginFailed { method, .. } => metrics.logged_in(manager, method, "failed"),
            Event::Adopted { .. } => metrics.adopted(manager, 1),
            Event::AdoptedMany { count, .. } => metrics.adopted(manager, *count),
            Event::Refused { .. } => metrics.refused(manager, 1),
            Event::RefusedMany { count, .. } => metrics.refused(manager, *count),
            Event::ManagerRemoved => metrics.forget(manager),
            _ => {}
        }
    }
}

/// An event's word and fields in the audit log.
fn told(event: Event) -> (&'static str, Vec<(&'static str, Text)>) {
    match event {
        Event::ManagerAdded => ("manager_added", Vec::new()),
        Event::ManagerChanged => ("manager_changed", Vec::new()),
        Event::ManagerRemoved => ("manager_removed", Vec::new()),
        Event::ManagerRefused { field, why } => (
            "manager_refused",
            vec![("field", field.into()), ("why", why.into())],
        ),
        Event::LoggedIn { method } => ("logged_in", vec![("method", method.into())]),
        Event::Renewed { method } => ("login_renewed", vec![("method", method.into())]),
        Event::LoginFailed { method, why } => (
            "login_failed",
            vec![("method", method.into()), ("why", why.into())],
        ),
        Event::WentSilent { why } => ("manager_silent", vec![("why", why.into())]),
        Event::AnswersAgain => ("manager_answers", Vec::new()),
        Event::Adopted {
            reference,
            version,
            manager_version,
        } => {
            let theirs = manager_version.map(|version| ("manager_version", version.into()));
            let ours = [("reference", reference.into()), ("version", version.into())];
            ("adopted", ours.into_iter().chain(theirs).collect())
        }
        Event::Refused { reference, why } => (
            "refused",
            vec![("reference", reference.into()), ("why", why.into())],
        ),
        Event::RefusedMany { count, first, why } => (
            "refused_many",
            vec![
                ("count", count.into()),
                ("first", listed(&first)),
                ("why", why.into()),
            ],
        ),
        Event::AdoptedMany { count, first } => (
            "adopted_many",
            vec![("count", count.into()), ("first", listed(&first))],
        ),
    }
}

fn listed(references: &[Arc<str>]) -> Text {
    references.join(", ").into()
}
