//! Where references are looked for whose manager knows several places for them, such as the AWS
//! secret's name that may or may not include the last segment. The longest comes first; the first
//! that has a document is remembered.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::manager::{FetchError, Location};
use super::super::reference::Reference;

/// The manager's answer to "where next?"; see `Manager::elsewhere`.
pub(in crate::secrets) type Elsewhere<'a> = &'a dyn Fn(&Location, &FetchError) -> Option<Location>;

/// References that are not, or not known to be, in their first place.
#[derive(Debug, Default)]
pub(super) struct Places {
    roads: HashMap<Arc<str>, Road>,
    /// Roads of references that are out of use, kept for their return.
    left: usize,
}

#[derive(Debug)]
struct Road {
    manager: Arc<str>,
    first: Location,
    /// Where a document was found.
    found: Option<Location>,
    hops: usize,
    /// The most telling refusal on the way.
    worst: Option<FetchError>,
    in_use: bool,
}

/// What becomes of a reference whose place has no document for us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is no other place.
    Stay,
    /// To be looked for there at once.
    Go(Location),
    /// This was the last place: from the start, after a pause. The reason tells of all places.
    GiveUp(Location, Arc<str>),
}

impl Places {
    /// Where to look for a reference that comes into use.
    pub(super) fn enter(&mut self, reference: &str, first: Location) -> Location {
        let Some(road) = self.roads.get_mut(reference) else {
            return first;
        };
        self.left -= usize::from(!road.in_use);
        match &road.found {
            Some(found) if road.first == first => {
                road.in_use = true;
                found.clone()
            }
            _ => {
                self.roads.remove(reference);
                first
            }
        }
    }

    /// The reference is out of use; a place that was found is kept for its return.
    pub(super) fn leave(&mut self, reference: &str) {
        if self.roads.is_empty() {
            return;
        }
        match self.roads.get_mut(reference) {
            Some(road) if road.found.is_some() && road.in_use => {
                road.in_use = false;
                self.left += 1;
            }
            Some(road) if road.in_use => {
                self.roads.remove(reference);
            }
            _ => {}
        }
        if self.left > MOST_LEFT {
            self.roads.retain(|_, road| road.in_use);
            self.left = 0;
        }
    }

    /// Nothing known about this manager's places holds any longer.
    pub(super) fn forget(&mut self, manager: &str) {
        self.roads.retain(|_, road| &*road.manager != manager);
        self.left = self.roads.values().filter(|road| !road.in_use).count();
    }

    /// Whether no reference is anywhere but in its first place.
    pub(super) fn is_empty(&self) -> bool {
        self.roads.is_empty()
    }

    /// Where a document was found for the reference.
    pub(super) fn found_in(&self, reference: &str) -> Option<&Location> {
        self.roads.get(reference)?.found.as_ref()
    }

    /// A document was found here.
    pub(super) fn found(&mut self, reference: &str, here: impl FnOnce() -> Location) {
        if let Some(road) = self.roads.get_mut(reference)
            && road.found.is_none()
        {
            road.found = Some(here());
            road.worst = None;
        }
    }

    /// The document is authoritatively not to be had here.
    pub(super) fn denied(
        &mut self,
        reference: &Arc<str>,
        manager: &Arc<str>,
        here: &Location,
        why: &FetchError,
        elsewhere: Elsewhere<'_>,
    ) -> Next {
        let road = self.roads.get(reference);
        let hops = road.map_or(0, |road| road.hops);
        // A place remembered, and lost: another may have it now.
        if road.is_some_and(|road| road.found.is_some())
            && let Some(road) = self.roads.remove(reference)
        {
            return Next::Go(road.first);
        }
        let may_go = hops < MOST_HOPS && !Reference::is_exact(reference);
        let next = may_go.then(|| elsewhere(here, why)).flatten();
        let Some(next) = next else {
            return match self.roads.remove(reference) {
                Some(mut road) => {
                    let reason = road.note(why).to_string();
                    Next::GiveUp(road.first, reason.into())
                }
                None => Next::Stay,
            };
        };
        let road = self.roads.entry(Arc::clone(reference));
        let road = road.or_insert_with(|| Road {
            manager: Arc::clone(manager),
            first: here.clone(),
            found: None,
            hops: 0,
            worst: None,
            in_use: true,
        });
        road.note(why);
        road.hops += 1;
        Next::Go(next)
    }
}

impl Road {
    fn note(&mut self, why: &FetchError) -> &FetchError {
        let worst = self.worst.get_or_insert_with(|| why.clone());
        if why.tells_more_than(worst) {
            *worst = why.clone();
        }
        worst
    }
}

/// More places than a reference of 4096 bytes has segments would be a circle.
const MOST_HOPS: usize = 4096;
/// Places remembered for references that are out of use.
const MOST_LEFT: usize = 10_000;
