//! `/status/ready`: whether the gateway may be sent traffic, and what an operator should know
//! although it may. Also `/status/secrets`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::sockets::Sockets;
use crate::admin::Readiness;
use crate::config::bootstrap::ReadyWhen;
use crate::proxy::drain::Drain;
use crate::reload::{Missing, SnapshotCell, Status};
use crate::secrets::{ReferenceReport, ReferenceState, Secrets};
use crate::telemetry::Audit;

/// Asked for each probe.
pub(super) struct Ready {
    pub(super) cell: Arc<SnapshotCell>,
    pub(super) status: Arc<Status>,
    pub(super) drain: Arc<Drain>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) audit: Option<Audit>,
    pub(super) when: ReadyWhen,
}

impl Readiness for Ready {
    /// References without value that traffic can reach count (`spec/01` §6.5); what does not need
    /// them serves all the same.
    fn obstacle(&self) -> Option<String> {
        if self.drain.is_draining() {
            return Some("draining".to_owned());
        }
        if self.cell.current().is_none() {
            return Some("worker id: 0 has not received configuration".to_owned());
        }
        if !self.drain.is_listening() || !self.sockets.all_listen() {
            return Some("not listening yet".to_owned());
        }
        let status = self.status.report();
        let missing = &status.missing;
        if missing.required == 0 || self.tolerates(status.was_resolved) {
            return None;
        }
        let mut text = unresolved(missing);
        if let Some(remark) = self.others() {
            text.push_str("; ");
            text.push_str(&remark);
        }
        Some(text)
    }

    fn remark(&self) -> Option<String> {
        let status = self.status.report();
        let missing = &status.missing;
        let required = missing.required > 0 && self.tolerates(status.was_resolved);
        let remarks = [
            required.then(|| unresolved(missing)),
            (missing.unused > 0).then(|| {
                format!(
                    "{} without value that nothing in use needs",
                    references(missing.unused)
                )
            }),
            self.others(),
        ];
        let remarks: Vec<_> = remarks.into_iter().flatten().collect();
        Some(remarks.join("; ")).filter(|remark| !remark.is_empty())
    }

    fn details(&self) -> Option<Value> {
        let missing = self.status.report().missing;
        (missing.required > 0 || missing.unused > 0).then(|| {
            json!({"unresolved": {
                "required": missing.required,
                "not_in_use": missing.unused,
                "places": missing.places,
            }})
        })
    }

    /// `state=fresh|stale|refused`, `manager=<id>` and `reference=<text>` narrow it; `limit=<n>`
    /// (1000) bounds it, and `total` says how many there are.
    fn references(&self, query: &str) -> Value {
        let mut wanted = HashMap::new();
        for pair in query.split('&') {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
            wanted.insert(name, text.into_owned());
        }
        let is = |name: &str, found: &str| wanted.get(name).is_none_or(|text| text == found);
        let limit = wanted.get("limit").and_then(|limit| limit.parse().ok());
        let mut found = self.secrets.report();
        found.retain(|one| {
            is("state", word(one.state))
                && is("manager", &one.manager)
                && is("reference", &one.reference)
        });
        let shown = found.iter().take(limit.unwrap_or(MOST_SHOWN));
        json!({
            "total": found.len(),
            "references": shown.map(reference).collect::<Vec<_>>(),
        })
    }
}

fn word(state: ReferenceState) -> &'static str {
    match state {
        ReferenceState::Fresh => "fresh",
        ReferenceState::Stale => "stale",
        ReferenceState::Refused => "refused",
    }
}

fn reference(report: &ReferenceReport) -> Value {
    json!({
        "reference": &*report.reference,
        "manager": &*report.manager,
        "path": &*report.path,
        "state": word(report.state),
        "age_seconds": report.age.map(|age| age.as_secs()),
        "version": report.version,
        "manager_version": report.manager_version.as_deref(),
        "reason": report.reason.as_deref(),
    })
}

/// How many references an answer holds unless it is asked for more.
const MOST_SHOWN: usize = 1000;

impl Ready {
    fn tolerates(&self, was_resolved: bool) -> bool {
        self.when == ReadyWhen::Started && was_resolved
    }

    /// Managers that do not answer, and an audit log that cannot be written.
    fn others(&self) -> Option<String> {
        let silent = self.secrets.silent_managers();
        let silent = silent
            .iter()
            .map(|(id, why)| format!("secret manager {id} does not answer: {why}"));
        let audit = self.audit.as_ref().and_then(Audit::failure);
        let audit = audit.map(|why| format!("the audit log cannot be written: {why}"));
        let remark = silent.chain(audit).collect::<Vec<_>>().join("; ");
        Some(remark).filter(|remark| !remark.is_empty())
    }
}

fn unresolved(missing: &Missing) -> String {
    let more = if missing.places.len() < missing.uses {
        ", …"
    } else {
        ""
    };
    let are = if missing.required == 1 { "is" } else { "are" };
    format!(
        "{} {are} not resolved: {}{more}",
        references(missing.required),
        missing.places.join(", ")
    )
}

fn references(count: usize) -> String {
    match count {
        1 => "1 secret reference".to_owned(),
        count => format!("{count} secret references"),
    }
}
