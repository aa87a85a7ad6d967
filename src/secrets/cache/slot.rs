//! One wanted value inside a document, and the rules by which it comes, stays and goes.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::sealed::Sealed;
use crate::secrets::manager::FieldValue;
use crate::secrets::reference::Decode;
use crate::secrets::refresh::Schedule;
use crate::secrets::report::ReferenceState;
use crate::secrets::value::Secret;
use crate::secrets::view::{Outcome, Resolved, Unresolved};

/// Which value of a document: its field, and how it is unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::secrets) struct Selector {
    pub(in crate::secrets) field: Arc<str>,
    pub(in crate::secrets) decode: Option<Decode>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// References that mean this value; nearly always one.
    pub(super) users: SmallVec<[Arc<str>; 1]>,
    /// A read that asked for it has ended.
    pub(super) asked: bool,
    held: Option<Held>,
    absent: Option<Box<Absent>>,
    /// What the users were told last.
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Held {
    value: Arc<Sealed>,
    version: u64,
    /// Start of the last read that found it.
    seen: Instant,
    /// The manager's item was replaced since.
    doubted: bool,
}

#[derive(Debug, Clone)]
struct Absent {
    since: Instant,
    reason: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
enum Shown {
    Value(u64),
    Missing(Box<Arc<str>>),
}

impl Slot {
    /// The manager has it. Equal bytes keep their version.
    pub(super) fn found(&mut self, value: &Secret, seen: Instant, versions: &mut u64) {
        self.absent = None;
        if let Some(held) = &mut self.held
            && held.value.is(value.expose())
        {
            held.seen = seen;
            held.doubted = false;
            return;
        }
        *versions += 1;
        self.held = Some(Held {
            value: value.seal(),
            version: *versions,
            seen,
            doubted: false,
        });
    }

    /// The manager says there is no such value. A value it gave before is kept until it has
    /// insisted for `neg_ttl`.
    pub(super) fn denied(&mut self, reason: &Arc<str>, now: Instant, schedule: &Schedule) {
        match &mut self.absent {
            None => {
                self.absent = Some(Box::new(Absent {
                    since: now,
                    reason: Arc::clone(reason),
                }));
            }
            Some(absent) => {
                absent.reason = Arc::clone(reason);
                if now >= absent.since + schedule.confirmation() {
                    self.held = None;
                }
            }
        }
    }

    /// The manager's item was replaced: a value serves on as a stale one, all else is open again.
    pub(super) fn doubt(&mut self) {
        self.absent = None;
        match &mut self.held {
            Some(held) => held.doubted = true,
            None => {
                self.asked = false;
                self.shown = None;
            }
        }
    }

    /// The slot of one of its users, for another place. Until that answers, what was said of the
    /// value last still holds.
    pub(super) fn for_mover(&self) -> Self {
        let mut absent = self.absent.clone();
        if let (Some(absent), Some(Shown::Missing(reason))) = (&mut absent, &self.shown) {
            absent.reason = Arc::clone(reason);
        }
        Self {
            shown: self.shown.clone(),
            absent,
            ..Self::default()
        }
    }

    /// A "no" that says more than the last one.
    pub(super) fn denied_before(&mut self, reason: Arc<str>, since: Instant) {
        self.asked = true;
        self.absent = Some(Box::new(Absent { since, reason }));
    }

    /// Whether the users were told something.
    pub(super) fn has_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Whether users of both were told the same.
    pub(super) fn shows_as(&self, other: &Self) -> bool {
        self.shown == other.shown
    }

    /// When a "no" has to be confirmed, if one has.
    pub(super) fn confirm_at(&self, schedule: &Schedule) -> Option<Instant> {
        let absent = self.absent.as_ref().filter(|_| self.held.is_some())?;
        Some(absent.since + schedule.confirmation())
    }

    /// Whether the manager said last that there is no such value.
    pub(super) fn is_denied(&self) -> bool {
        self.absent.is_some()
    }

    pub(super) fn is_missing(&self) -> bool {
        self.held.is_none()
    }

    /// When the value grows too old, unless it already is.
    pub(super) fn lapses_at(&self, now: Instant, schedule: &Schedule) -> Option<Instant> {
        let at = self.held.as_ref()?.seen + schedule.limit();
        (at > now).then_some(at)
    }

    /// What the value is worth. `failure` is why the last read failed, if it did.
    pub(super) fn outcome(
        &self,
        now: Instant,
        schedule: &Schedule,
        failure: Option<&Arc<str>>,
    ) -> Outcome {
        match &self.held {
            Some(held) if now < held.seen + schedule.limit() => Ok(Resolved {
                value: Arc::clone(&held.value),
                version: held.version,
            }),
            Some(_) => {
                let why = self
                    .reason(failure)
                    .map_or("not refreshed", |reason| reason);
                Err(Unresolved::because(format!("older than max_stale: {why}")))
            }
            None => {
                let reason = self.reason(failure).cloned();
                Err(Unresolved::because(
                    reason.unwrap_or_else(|| super::UNREAD.into()),
                ))
            }
        }
    }

    /// The outcome, if the users were not told it yet.
    pub(super) fn news(
        &mut self,
        now: Instant,
        schedule: &Schedule,
        failure: Option<&Arc<str>>,
    ) -> Option<Outcome> {
        let outcome = self.outcome(now, schedule, failure);
        let shown = match &outcome {
            Ok(resolved) => Shown::Value(resolved.version),
            Err(unresolved) => Shown::Missing(Box::new(Arc::clone(&unresolved.reason))),
        };
        if self.shown.as_ref() == Some(&shown) {
            return None;
        }
        self.shown = Some(shown);
        Some(outcome)
    }

    /// State and age for a report.
    pub(super) fn state(
        &self,
        now: Instant,
        schedule: &Schedule,
    ) -> (ReferenceState, Option<std::time::Duration>) {
        let Some(held) = &self.held else {
            return (ReferenceState::Refused, None);
        };
        let age = now.saturating_duration_since(held.seen);
        let state = if age >= schedule.limit() {
            ReferenceState::Refused
        } else if age > schedule.ttl || self.absent.is_some() || held.doubted {
            ReferenceState::Stale
        } else {
            ReferenceState::Fresh
        };
        (state, Some(age))
    }

    /// Why it is not fresh. A failure is newer than a "no", and the other way round both speak of
    /// the last read, since a read that ends clears the other.
    pub(super) fn reason<'a>(&'a self, failure: Option<&'a Arc<str>>) -> Option<&'a Arc<str>> {
        failure.or(self.absent.as_ref().map(|absent| &absent.reason))
    }
}

/// Turns what the manager holds into the value, or says why it is none.
pub(super) fn value_of(
    field: Option<FieldValue>,
    decode: Option<Decode>,
) -> Result<Secret, &'static str> {
    let secret = match field {
        None => return Err("field not found"),
        Some(FieldValue::Other(what)) => return Err(what),
        Some(FieldValue::Text(secret)) => secret,
    };
    let secret = match decode {
        None => secret,
        Some(Decode::Base64) => decode_base64(&secret).ok_or("value is not base64")?,
    };
    // An empty password is never a credential (`spec/01` §5.1).
    if secret.is_empty() {
        return Err("value is empty");
    }
    Ok(secret)
}

fn decode_base64(text: &Secret) -> Option<Secret> {
    use base64::Engine as _;

    let compact = zeroize::Zeroizing::new(
        text.expose()
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                other => *other,
            })
            .collect::<Vec<u8>>(),
    );
    let decoded = crate::http::loose_base64::STANDARD.decode(compact.as_slice());
    decoded.ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_is_not_empty_is_a_value() {
        let text = |text: &str| Some(FieldValue::Text(Secret::from(text.to_owned())));
        let ok = value_of(text("x"), None).expect("text is a value");
        assert_eq!(ok.expose(), b"x");
        assert_eq!(value_of(text(""), None).err(), Some("value is empty"));
        assert_eq!(value_of(None, None).err(), Some("field not found"));
        let other = Some(FieldValue::Other("value is a boolean"));
        assert_eq!(value_of(other, None).err(), Some("value is a boolean"));
    }

    #[test]
    fn base64_is_read_in_all_its_dresses() {
        for text in ["+/8=", "+/8", "-_8=", "-_8", " +/\n8=\r\n"] {
            let field = Some(FieldValue::Text(Secret::from(text.to_owned())));
            let value = value_of(field, Some(Decode::Base64)).expect("must decode");
            assert_eq!(value.expose(), [0xfb, 0xff], "{text:?}");
        }
        for text in ["!", "a", "===="] {
            let field = Some(FieldValue::Text(Secret::from(text.to_owned())));
            let error = value_of(field, Some(Decode::Base64)).err();
            assert_eq!(error, Some("value is not base64"), "{text:?}");
        }
    }
}
