//! The task that fetches, checks and forgets names, for all items. It is the only writer of what
//! handshakes read, so that a name is fetched once however many ask for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::counts::Counts;
use super::item::{Item, Tended};
use super::pairs::{Built, build};
use super::{Door, Refusal, Request};
use crate::clock::Clock;
use crate::secrets::{Answered, DemandId, Lack, Resolved, Secrets};
use crate::tls::Chains;

/// See the file's docs. Give [`Keeper::run`] a runtime whose threads wipe what they free.
pub struct Keeper {
    secrets: Arc<Secrets>,
    clock: Arc<dyn Clock>,
    requests: mpsc::Receiver<Request>,
    looked_at: mpsc::UnboundedReceiver<LookedAt>,
    /// Where [`Keeper::looked_at`] comes from. As many are on their way as names changed at once.
    say: mpsc::UnboundedSender<LookedAt>,
    items: HashMap<ItemKey, Item>,
    demands: HashMap<DemandId, (ItemKey, Box<str>)>,
    complaints: Complaints,
    chains: Arc<Chains>,
}

/// Where an item's names stand in memory; they are held for as long as the item is known.
type ItemKey = usize;

/// Values that were looked at.
struct LookedAt {
    demand: DemandId,
    built: Built,
}

/// A keeper that dies leaves no name behind that nobody would refresh, or refuse once it is deleted.
impl Drop for Keeper {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.items.values().for_each(|item| item.names.clear());
        }
    }
}

impl Keeper {
    /// A keeper, and the door to it.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>, clock: Arc<dyn Clock>) -> (Self, Door) {
        let (asking, requests) = mpsc::channel(MOST_REQUESTS);
        let (say, looked_at) = mpsc::unbounded_channel();
        let door = Door {
            requests: asking,
            clock: Arc::clone(&clock),
        };
        let keeper = Self {
            secrets,
            clock,
            requests,
            looked_at,
            say,
            items: HashMap::new(),
            demands: HashMap::new(),
            complaints: Complaints::default(),
            chains: Arc::default(),
        };
        (keeper, door)
    }

    /// Keeps names until `shutdown` turns true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let secrets = Arc::clone(&self.secrets);
        while !*shutdown.borrow() {
            tokio::select! {
                changed = shutdown.changed() => if changed.is_err() { return },
                Some(request) = self.requests.recv() => self.take(request),
                Some(looked_at) = self.looked_at.recv() => self.adopt(looked_at),
                answered = secrets.answered() => {
                    answered.into_iter().for_each(|answered| self.hear(answered));
                }
                _ = tick.tick() => self.sweep(),
            }
        }
    }

    fn take(&mut self, request: Request) {
        let now = self.clock.now();
        let key = Arc::as_ptr(&request.names).addr();
        let item = self.items.entry(key);
        let (limits, trial) = (request.limits, request.trial);
        let item =
            item.or_insert_with(|| Item::new(request.names, limits, Arc::clone(&trial), now));
        (item.limits, item.trial) = (limits, trial);
        let waiting = item.limits.waiting;
        let (name, reply) = (request.name, request.reply);
        let Some(tended) = item.tended.get_mut(&name) else {
            if item.names.refuses(&name, now) {
                let _ = reply.send(Err(Refusal::Unknown));
                return;
            }
            item.admit(now, name, reply);
            return self.start(key);
        };
        match (&tended.served, &tended.demand) {
            (Some(served), Some(demand)) if !demand.interest().rests() => {
                let _ = reply.send(Ok(Arc::clone(served)));
            }
            (Some(_), Some(demand)) => {
                self.secrets.revive(demand);
                tended.join(reply, waiting);
            }
            _ => tended.join(reply, waiting),
        }
    }

    /// Begins fetches whose turn it is.
    fn start(&mut self, key: ItemKey) {
        let Some(item) = self.items.get_mut(&key) else {
            return;
        };
        while let Some(name) = item.next() {
            let templates = item.names.templates.iter();
            let references = templates.flat_map(|(cert, key)| [cert, key]);
            let references = references.map(|template| template.for_name(&name));
            let demand = self.secrets.demand(references.collect());
            self.demands.insert(demand.id(), (key, name.clone()));
            if let Some(tended) = item.tended.get_mut(&name) {
                tended.demand = Some(demand);
            }
        }
    }

    /// The manager answered.
    fn hear(&mut self, answered: Answered) {
        let Some((key, name)) = self.demands.get(&answered.demand).cloned() else {
            return;
        };
        let values: Result<Vec<_>, _> = answered.outcomes.into_iter().collect();
        let values = match values {
            Ok(values) => values,
            Err(lack) => return self.lose(key, &name, &lack),
        };
        let Some(tended) = self.tended(key, &name) else {
            return;
        };
        let same = values.iter().map(|value| value.version);
        if let Some(served) = &tended.served
            && !tended.unfit
            && same.eq(tended.versions.iter().copied())
        {
            let served = Ok(Arc::clone(served));
            return tended.answer(&served);
        }
        if tended.building {
            tended.newer = Some(values);
        } else {
            self.look_at(key, &name, values);
        }
    }

    /// Has values looked at where nobody waits for a core.
    fn look_at(&mut self, key: ItemKey, name: &str, values: Vec<Resolved>) {
        let (now, say) = (self.clock.wall(), self.say.clone());
        let Some(item) = self.items.get_mut(&key) else {
            return;
        };
        let trial = Arc::clone(&item.trial);
        let Some(tended) = item.tended.get_mut(name) else {
            return;
        };
        let Some(demand) = tended.demand.as_ref().map(|demand| demand.id()) else {
            return;
        };
        tended.versions = values.iter().map(|value| value.version).collect();
        tended.building = true;
        let (name, before) = (name.to_owned(), tended.served.clone());
        let chains = Arc::clone(&self.chains);
        tokio::task::spawn_blocking(move || {
            let built = build(&name, &values, before.as_ref(), now, &chains, &trial);
            // Nobody listens at the end of the process.
            let _ = say.send(LookedAt { demand, built });
        });
    }

    /// Values were looked at.
    fn adopt(&mut self, looked_at: LookedAt) {
        let LookedAt { demand, built } = looked_at;
        let now = self.clock.now();
        let Some((key, name)) = self.demands.get(&demand).cloned() else {
            return;
        };
        if let Some(finding) = &built.finding {
            let id = self.items.get(&key).map(|item| Arc::clone(&item.names.id));
            let id = id.unwrap_or_default();
            let serves = match built.served {
                Some(_) => "the last good pair serves on",
                None => "it is refused",
            };
            self.complaints
                .say(now, || format!("ssl {id}: {name}: {finding}; {serves}"));
        }
        let Some(item) = self.items.get_mut(&key) else {
            return;
        };
        let Some(served) = built.served else {
            Counts::add(&item.names.counts.unusable);
            let pause = item.limits.negative;
            return self.refuse(key, &name, pause, Refusal::Unknown);
        };
        item.serve(now, &name, &served);
        let dropped = item.shrink();
        self.forget(dropped);
        let Some(tended) = self.tended(key, &name) else {
            return;
        };
        tended.building = false;
        tended.unfit = built.finding.is_some();
        tended.answer(&Ok(served));
        if let Some(newer) = tended.newer.take() {
            self.look_at(key, &name, newer);
        }
        self.start(key);
    }

    /// A value of the name is not to be had.
    fn lose(&mut self, key: ItemKey, name: &str, lack: &Lack) {
        let now = self.clock.now();
        let Some(item) = self.items.get_mut(&key) else {
            return;
        };
        let served = item
            .tended
            .get(name)
            .is_some_and(|one| one.served.is_some());
        let id = Arc::clone(&item.names.id);
        let (pause, refusal) = match lack {
            Lack::Denied(_) => (item.limits.negative, Refusal::Unknown),
            Lack::Failed(_) => (item.limits.negative.min(FAILED), Refusal::Failed),
            Lack::Void(_) => (Duration::ZERO, Refusal::Failed),
        };
        if !served {
            let counts = &item.names.counts;
            Counts::add(match lack {
                Lack::Denied(_) => &counts.unknown,
                Lack::Failed(_) | Lack::Void(_) => &counts.failed,
            });
        }
        let reason = lack.reason();
        self.complaints.say(now, || {
            format!("failed to find any SSL certificate by SNI: {name}: ssl {id}: {reason}")
        });
        self.refuse(key, name, pause, refusal);
    }

    fn refuse(&mut self, key: ItemKey, name: &str, pause: Duration, refusal: Refusal) {
        let now = self.clock.now();
        let Some(item) = self.items.get_mut(&key) else {
            return;
        };
        if let Some(mut tended) = item.refuse(now, name, pause) {
            tended.answer(&Err(refusal));
            self.forget(vec![tended]);
        }
        self.start(key);
    }

    /// Takes values out of use that no name needs any more.
    fn forget(&mut self, tended: Vec<Tended>) {
        for demand in tended.iter().filter_map(|one| one.demand.as_ref()) {
            self.demands.remove(&demand.id());
        }
    }

    fn sweep(&mut self) {
        let now = self.clock.now();
        self.complaints.flush(now);
        let mut dropped = Vec::new();
        for item in self.items.values_mut() {
            dropped.extend(item.sweep(now));
        }
        let gone = self.items.extract_if(|_, item| item.is_gone());
        for (_, mut item) in gone.collect::<Vec<_>>() {
            // A snapshot may just be taking it up again: it finds nothing that nobody tends.
            item.names.clear();
            dropped.extend(item.tended.drain().map(|(_, tended)| tended));
        }
        self.forget(dropped);
        let keys: Vec<_> = self.items.keys().copied().collect();
        keys.into_iter().for_each(|key| self.start(key));
    }

    fn tended(&mut self, key: ItemKey, name: &str) -> Option<&mut Tended> {
        self.items.get_mut(&key)?.tended.get_mut(name)
    }
}

/// Lines for the log, one per [`QUIET`]: clients decide how many there would be.
#[derive(Default)]
struct Complaints {
    next: Option<Instant>,
    muted: u64,
}

impl Complaints {
    fn say(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if self.next.is_some_and(|next| now < next) {
            self.muted += 1;
            return;
        }
        self.flush(now);
        self.next = Some(now + QUIET);
        log::warn!("{}", line());
    }

    fn flush(&mut self, now: Instant) {
        if self.muted > 0 && self.next.is_none_or(|next| now >= next) {
            let muted = std::mem::take(&mut self.muted);
            log::warn!("certificates on demand: {muted} more findings like the one before");
        }
    }
}

/// Handshakes that asked and were not heard yet; the next one is refused.
const MOST_REQUESTS: usize = 4096;
/// How long a name rests whose manager could not be asked.
const FAILED: Duration = Duration::from_secs(2);
/// Between two looks for what is over.
const TICK: Duration = Duration::from_millis(500);
/// Between two lines in the log.
const QUIET: Duration = Duration::from_secs(1);
