//! What the keeper knows of one item: names that are served, fetched or refused, and whose turn it is.
//! Makes no call and starts no task.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::counts::Counts;
use super::names::{LastUse, Names, Standing};
use super::{Limits, Refusal, Reply, Served, Trial};
use crate::secrets::{Demand, Resolved};

pub(super) struct Item {
    pub names: Arc<Names>,
    pub limits: Limits,
    pub trial: Arc<Trial>,
    pub allowance: Allowance,
    pub tended: HashMap<Box<str>, Tended>,
    /// Names whose fetch has not begun.
    queue: VecDeque<Box<str>>,
    /// First fetches under way.
    in_flight: usize,
    /// Names that are served.
    serving: usize,
    /// Names refused from memory, by the end of that.
    refused: BTreeSet<(Instant, Box<str>)>,
}

/// A name that is served, or about to be.
#[derive(Default)]
pub(super) struct Tended {
    /// `None` while it waits for its turn.
    pub demand: Option<Demand>,
    pub served: Option<Arc<Served>>,
    pub last_use: Option<Arc<LastUse>>,
    /// Of the values that were looked at last.
    pub versions: Vec<u64>,
    /// Those did not fit.
    pub unfit: bool,
    /// They are being looked at.
    pub building: bool,
    /// Values that came meanwhile.
    pub newer: Option<Vec<Resolved>>,
    pub waiters: Vec<Reply>,
}

impl Tended {
    pub(super) fn answer(&mut self, answer: &Result<Arc<Served>, Refusal>) {
        for waiter in self.waiters.drain(..) {
            // One that left needs none.
            let _ = waiter.send(answer.clone());
        }
    }

    /// A handshake waits for it, too.
    pub(super) fn join(&mut self, waiter: Reply, most: usize) {
        if self.waiters.len() >= most {
            // Those that gave up: no more than that many wait at any time.
            self.waiters.retain(|waiter| !waiter.is_closed());
        }
        self.waiters.push(waiter);
    }
}

impl Item {
    pub(super) fn new(names: Arc<Names>, limits: Limits, trial: Arc<Trial>, now: Instant) -> Self {
        Self {
            names,
            allowance: Allowance::new(now, limits.unknown_burst),
            limits,
            trial,
            tended: HashMap::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            serving: 0,
            refused: BTreeSet::new(),
        }
    }

    /// Whether no snapshot has it any more.
    pub(super) fn is_gone(&self) -> bool {
        Arc::strong_count(&self.names) == 1
    }

    /// Lets a name in that nothing is known of; [`Item::next`] says when its turn is.
    pub(super) fn admit(&mut self, now: Instant, name: Box<str>, waiter: Reply) {
        let refusal = if self.queue.len() >= self.limits.waiting {
            Counts::add(&self.names.counts.crowded);
            Refusal::Crowded
        } else if self.allowance.take(
            now,
            self.limits.unknown_per_second,
            self.limits.unknown_burst,
        ) {
            let tended = Tended {
                waiters: vec![waiter],
                ..Tended::default()
            };
            self.queue.push_back(name.clone());
            self.tended.insert(name, tended);
            return;
        } else {
            Counts::add(&self.names.counts.cap);
            Refusal::Cap
        };
        let _ = waiter.send(Err(refusal));
    }

    /// The next name to be fetched, where one more may be. It is under way then.
    pub(super) fn next(&mut self) -> Option<Box<str>> {
        while self.in_flight < self.limits.concurrency {
            let name = self.queue.pop_front()?;
            let tended = self.tended.get(&name);
            let wanted = tended.is_some_and(|one| one.waiters.iter().any(|one| !one.is_closed()));
            if wanted {
                self.in_flight += 1;
                return Some(name);
            }
            // Nobody waits for it any more, and nothing was asked.
            self.tended.remove(&name);
            self.allowance.give_back();
        }
        None
    }

    /// The name is served with this now.
    pub(super) fn serve(&mut self, now: Instant, name: &str, served: &Arc<Served>) {
        let Some(tended) = self.tended.get_mut(name) else {
            return;
        };
        let counts = &self.names.counts;
        match &tended.served {
            None => {
                Counts::add(&counts.fetched);
                self.in_flight -= 1;
                self.serving += 1;
                self.allowance.give_back();
            }
            Some(before) if before.generation == served.generation => return,
            Some(_) => Counts::add(&counts.changed),
        }
        let Some(demand) = &tended.demand else {
            return;
        };
        let last_use = tended
            .last_use
            .get_or_insert_with(|| Arc::new(LastUse::new(now)));
        let standing = Standing::Serving {
            served: Arc::clone(served),
            interest: Arc::clone(demand.interest()),
            last_use: Arc::clone(last_use),
        };
        tended.served = Some(Arc::clone(served));
        self.names.put(name, standing);
    }

    /// The name is served no more, or never was, and is refused for a while. Returns what was kept of
    /// it.
    pub(super) fn refuse(&mut self, now: Instant, name: &str, pause: Duration) -> Option<Tended> {
        let tended = self.forget(name)?;
        let until = now + pause;
        self.names.put(name, Standing::Refused { until });
        self.refused.insert((until, name.into()));
        if self.refused.len() > MOST_REFUSED
            && let Some((until, name)) = self.refused.pop_first()
        {
            self.names.remove_refused([(until, &*name)]);
        }
        Some(tended)
    }

    fn forget(&mut self, name: &str) -> Option<Tended> {
        let tended = self.tended.remove(name)?;
        match (&tended.served, &tended.demand) {
            (Some(_), _) => self.serving -= 1,
            (None, Some(_)) => self.in_flight -= 1,
            (None, None) => {}
        }
        Some(tended)
    }

    /// Forgets the names used longest ago, if there are too many. Returns what was kept of them.
    pub(super) fn shrink(&mut self) -> Vec<Tended> {
        let over = self.serving.saturating_sub(self.limits.names);
        if over == 0 {
            return Vec::new();
        }
        let uses = self.tended.iter();
        let uses = uses.filter(|(_, tended)| tended.served.is_some());
        let mut uses: Vec<_> = uses
            .filter_map(|(name, tended)| Some((tended.last_use.as_ref()?.at(), name.clone())))
            .collect();
        // Some more, since finding them is a walk over all.
        let count = (over + self.limits.names / 64).min(uses.len());
        if count < uses.len() {
            uses.select_nth_unstable(count);
            uses.truncate(count);
        }
        self.drop_served(uses.into_iter().map(|(_, name)| name).collect())
    }

    /// Forgets what was unused for too long, and refusals that are over. Returns what was kept.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Tended> {
        let mut over = Vec::new();
        while let Some(first) = self.refused.pop_first() {
            if first.0 > now {
                self.refused.insert(first);
                break;
            }
            over.push(first);
        }
        if !over.is_empty() {
            let over = over.iter().map(|(until, name)| (*until, &**name));
            self.names.remove_refused(over);
        }
        let idle = self.limits.idle;
        let unused = self.tended.iter().filter(|(_, tended)| {
            let last_use = tended.last_use.as_ref();
            tended.served.is_some() && last_use.is_some_and(|last| last.at() + idle < now)
        });
        let unused: Vec<_> = unused.map(|(name, _)| name.clone()).collect();
        self.drop_served(unused)
    }

    fn drop_served(&mut self, names: Vec<Box<str>>) -> Vec<Tended> {
        if names.is_empty() {
            return Vec::new();
        }
        self.names.remove(names.iter().map(|name| &**name));
        let dropped: Vec<_> = names.iter().filter_map(|name| self.forget(name)).collect();
        for _ in &dropped {
            Counts::add(&self.names.counts.dropped);
        }
        dropped
    }
}

/// Refused names remembered at most. The allowance keeps a flood far below it.
const MOST_REFUSED: usize = 10_000;
