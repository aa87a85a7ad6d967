//! What the observer has to be told, in order. What happens to many references of a manager at
//! once, such as an outage at the first load, is told of some and counted for the rest. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::secrets::cache::{Cache, Told};
use crate::secrets::settings::Event;
use crate::secrets::view::Outcome;

#[derive(Default)]
pub(super) struct Ledger {
    outbox: Vec<(Arc<str>, Event)>,
    /// References known to have no value.
    refused: HashMap<Arc<str>, Refusal>,
    /// What was told lately, by manager; ends [`WINDOW`] after it began.
    windows: HashMap<Arc<str>, Window>,
}

struct Refusal {
    why: Arc<str>,
    /// It had an event of its own.
    told: bool,
}

struct Window {
    ends: Instant,
    told: usize,
    /// Refusals without an event of their own, by reason.
    refused: HashMap<Arc<str>, Crowd>,
    /// First values after such a refusal.
    adopted: Crowd,
}

#[derive(Default)]
struct Crowd {
    count: u64,
    first: Vec<Arc<str>>,
}

impl Crowd {
    fn join(&mut self, reference: &Arc<str>) {
        self.count += 1;
        if self.first.len() < MOST_NAMED {
            self.first.push(Arc::clone(reference));
        }
    }
}

impl Ledger {
    /// Behind all that is to be told already.
    pub(super) fn push(&mut self, manager: Arc<str>, event: Event) {
        self.outbox.push((manager, event));
    }

    /// See [`Ledger::push`].
    pub(super) fn extend(&mut self, events: impl IntoIterator<Item = (Arc<str>, Event)>) {
        self.outbox.extend(events);
    }

    /// Takes what is to be told now.
    pub(super) fn take(&mut self) -> Vec<(Arc<str>, Event)> {
        std::mem::take(&mut self.outbox)
    }

    /// A reference is worth something else; `was` is what it was worth. Its first value is no
    /// news, its first lack of one is.
    pub(super) fn enter(&mut self, now: Instant, told: &Told, was: Option<&Outcome>) {
        match &told.outcome {
            Ok(is) => {
                let refusal = self.refused.remove(&told.reference);
                let was = was.and_then(|was| was.as_ref().ok());
                let changed = was.is_some_and(|was| was.version != is.version);
                match refusal {
                    Some(Refusal { told: false, .. }) if !changed => {
                        let window = self.window(now, &told.manager);
                        window.adopted.join(&told.reference);
                    }
                    None if !changed => {}
                    _ => self.push(
                        Arc::clone(&told.manager),
                        Event::Adopted {
                            reference: Arc::clone(&told.reference),
                            version: is.version,
                            manager_version: told.manager_version.clone(),
                        },
                    ),
                }
            }
            Err(is) if Cache::is_unread(&is.reason) => {}
            Err(is) => self.refuse(now, told, &is.reason),
        }
    }

    fn refuse(&mut self, now: Instant, told: &Told, why: &Arc<str>) {
        let (reference, manager) = (&told.reference, &told.manager);
        let known = self.refused.get(reference);
        if known.is_some_and(|known| known.why == *why) {
            return;
        }
        let was_told = known.is_some_and(|known| known.told);
        let window = self.window(now, manager);
        let tells = window.told < MOST_TOLD;
        if tells {
            window.told += 1;
        } else {
            let knows = window.refused.len() < MOST_REASONS || window.refused.contains_key(why);
            let why = if knows {
                Arc::clone(why)
            } else {
                OTHER_REASONS.into()
            };
            window.refused.entry(why).or_default().join(reference);
        }
        if tells {
            self.push(
                Arc::clone(manager),
                Event::Refused {
                    reference: Arc::clone(reference),
                    why: Arc::clone(why),
                },
            );
        }
        let refusal = Refusal {
            why: Arc::clone(why),
            told: tells || was_told,
        };
        self.refused.insert(Arc::clone(reference), refusal);
    }

    fn window(&mut self, now: Instant, manager: &Arc<str>) -> &mut Window {
        let windows = self.windows.entry(Arc::clone(manager));
        windows.or_insert_with(|| Window {
            ends: now + WINDOW,
            told: 0,
            refused: HashMap::new(),
            adopted: Crowd::default(),
        })
    }

    /// Tells what was counted so far. With `all` also what is still being counted; who was told
    /// of singly is remembered for the rest of the window.
    pub(super) fn close(&mut self, now: Instant, all: bool) {
        let mut ids: Vec<_> = self.windows.keys().cloned().collect();
        ids.sort();
        for id in ids {
            let Some(window) = self.windows.get_mut(&id) else {
                continue;
            };
            let is_over = now >= window.ends;
            if !is_over && !all {
                continue;
            }
            let mut refused: Vec<_> = std::mem::take(&mut window.refused).into_iter().collect();
            refused.sort_by(|(a, _), (b, _)| a.cmp(b));
            let adopted = std::mem::take(&mut window.adopted);
            if is_over {
                self.windows.remove(&id);
            }
            for (why, Crowd { count, first }) in refused {
                self.push(Arc::clone(&id), Event::RefusedMany { count, first, why });
            }
            let Crowd { count, first } = adopted;
            if count > 0 {
                self.push(id, Event::AdoptedMany { count, first });
            }
        }
    }

    /// Forgets one reference.
    pub(super) fn forget(&mut self, reference: &str) {
        self.refused.remove(reference);
    }

    /// Forgets references that are out of use.
    pub(super) fn retain(&mut self, in_use: impl Fn(&str) -> bool) {
        self.refused.retain(|reference, _| in_use(reference));
    }
}

/// From a manager's first refusal to the summary of those without an event of their own.
const WINDOW: Duration = Duration::from_secs(3);
/// References of one manager with an event of their own in a window.
const MOST_TOLD: usize = 50;
/// Reasons told apart in the summaries of a window.
const MOST_REASONS: usize = 16;
/// References named in a summary.
const MOST_NAMED: usize = 10;
const OTHER_REASONS: &str = "other reasons";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::secrets::value::Secret;
    use crate::secrets::view::{Resolved, Unresolved};

    fn told(n: usize, outcome: Result<u64, &str>) -> Told {
        Told {
            reference: format!("$secret://vault/main/d/{n}").into(),
            outcome: match outcome {
                Ok(version) => Ok(Resolved::new(&Secret::from("v".to_owned()), version)),
                Err(why) => Err(Unresolved::because(why)),
            },
            denied: false,
            manager: "vault/main".into(),
            manager_version: None,
        }
    }

    fn summaries(ledger: &mut Ledger) -> (usize, Vec<String>) {
        let (many, single): (Vec<_>, Vec<_>) = ledger.take().into_iter().partition(|(_, event)| {
            matches!(event, Event::RefusedMany { .. } | Event::AdoptedMany { .. })
        });
        let text = |(_, event)| match event {
            Event::RefusedMany { count, first, why } => {
                format!("{count} refused, {} named: {why}", first.len())
            }
            Event::AdoptedMany { count, first } => {
                format!("{count} adopted, {} named", first.len())
            }
            other => format!("{other:?}"),
        };
        (single.len(), many.into_iter().map(text).collect())
    }

    #[test]
    fn a_manager_that_is_away_is_some_events_and_a_count_however_many_references_it_has() {
        let (clock, mut ledger) = (ManualClock::new(), Ledger::default());
        let all = 10_000;
        for why in ["down", "timed out"] {
            for n in 0..all {
                ledger.enter(clock.now(), &told(n, Err(why)), None);
                ledger.enter(clock.now(), &told(n, Err(why)), None);
            }
        }
        ledger.close(clock.now(), false);
        let (single, many) = summaries(&mut ledger);
        assert_eq!((single, many.len()), (MOST_TOLD, 0), "the window is open");
        clock.advance(WINDOW);
        ledger.close(clock.now(), false);
        let (single, many) = summaries(&mut ledger);
        assert_eq!(single, 0);
        let rest = all - MOST_TOLD;
        assert_eq!(
            many,
            [
                format!("{rest} refused, 10 named: down"),
                format!("{all} refused, 10 named: timed out"),
            ]
        );

        // It heals: who was told of singly is so again, the rest is counted.
        for n in 0..all {
            ledger.enter(clock.now(), &told(n, Ok(n as u64)), None);
        }
        ledger.close(clock.now(), true);
        let (single, many) = summaries(&mut ledger);
        assert_eq!(single, MOST_TOLD);
        assert_eq!(many, [format!("{rest} adopted, 10 named")]);
        clock.advance(WINDOW);
        ledger.close(clock.now(), false);
        assert!(ledger.windows.is_empty() && ledger.refused.is_empty());
    }

    #[test]
    fn reasons_that_name_documents_do_not_make_a_summary_each() {
        let (clock, mut ledger) = (ManualClock::new(), Ledger::default());
        for n in 0..1000 {
            let why = format!("no policy lets it read d/{n}");
            ledger.enter(clock.now(), &told(n, Err(&why)), None);
        }
        ledger.close(clock.now(), true);
        let (single, many) = summaries(&mut ledger);
        assert_eq!((single, many.len()), (MOST_TOLD, MOST_REASONS + 1));
        let rest = 1000 - MOST_TOLD - MOST_REASONS;
        let expected = format!("{rest} refused, 10 named: {OTHER_REASONS}");
        assert!(many.contains(&expected), "{many:?}");
    }

    #[test]
    fn a_rotation_always_has_an_event_of_its_own() {
        let (clock, mut ledger) = (ManualClock::new(), Ledger::default());
        for n in 0..1000 {
            let was = told(n, Ok(1)).outcome;
            ledger.enter(clock.now(), &told(n, Ok(1)), None);
            ledger.enter(clock.now(), &told(n, Ok(2)), Some(&was));
        }
        let (single, many) = summaries(&mut ledger);
        assert_eq!((single, many.len()), (1000, 0));
    }
}
