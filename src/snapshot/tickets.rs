//! Keys of session tickets out of `config.yaml`'s reference to them.

use std::sync::Arc;

use super::Snapshot;
use crate::config::Documents;
use crate::config::bootstrap::TICKET_KEYS;
use crate::diagnostic::{Diagnostic, Severity};
use crate::tls::SharedKeys;

/// What the reference is worth.
#[derive(Clone, Default)]
pub(super) struct Tickets {
    /// Changes with the value.
    stamp: u64,
    /// `None` where there is no value, or no reference.
    pub(super) keys: Option<Arc<SharedKeys>>,
    finding: Option<Diagnostic>,
}

/// The keys in this value; those of `previous` where it holds none, as with certificates. Without a
/// value there are none.
pub(super) fn compile(
    documents: &Documents,
    setting: Option<(u64, Option<&str>)>,
    previous: Option<&Snapshot>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Tickets {
    let Some((stamp, value)) = setting else {
        return Tickets::default();
    };
    let before = previous.map(|previous| &previous.tickets);
    let tickets = match (before, value) {
        (Some(before), _) if before.stamp == stamp => before.clone(),
        (_, None) => Tickets {
            stamp,
            ..Tickets::default()
        },
        (before, Some(value)) => match SharedKeys::parse(value) {
            Ok(keys) => Tickets {
                stamp,
                keys: Some(Arc::new(keys)),
                finding: None,
            },
            Err(error) => {
                let keys = before.and_then(|before| before.keys.clone());
                let so = match keys {
                    Some(_) => "the last good keys serve on",
                    None => "no tickets are issued or accepted",
                };
                let mut settings = documents.settings.iter();
                let item = settings.find(|item| &*item.id == TICKET_KEYS);
                Tickets {
                    stamp,
                    keys,
                    finding: Some(Diagnostic {
                        severity: Severity::Error,
                        code: "session-tickets",
                        place: item.map(|item| item.place.clone()).unwrap_or_default(),
                        object: String::new(),
                        field: TICKET_KEYS.to_owned(),
                        message: format!("{error}; {so}"),
                    }),
                }
            }
        },
    };
    diagnostics.extend(tickets.finding.clone());
    tickets
}
