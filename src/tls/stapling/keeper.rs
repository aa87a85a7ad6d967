//! The task that asks authorities, for all items: ahead of the end of what it knows, and again and
//! again, ever more seldom, where it learns nothing. The only writer of what handshakes read.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use openssl::error::ErrorStack;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Counts, Staple, Stapling};
use crate::callout::{Call, CallError, Caller, NotTrust, Settings, Trust};
use crate::clock::Clock;
use crate::kept::Kept;
use crate::telemetry::LineBudget;
use crate::tls::ocsp::{Good, Question, Unfit};
use crate::tls::{CertifiedKey, IdentityState, Moment, SniStore};

/// Where the keeper finds the items in force now.
pub type CurrentItems = Box<dyn Fn() -> Option<Arc<SniStore>> + Send>;

/// See the file's docs.
pub struct Keeper {
    items: CurrentItems,
    clock: Arc<dyn Clock>,
    caller: Caller,
    counts: Arc<Counts>,
    lines: LineBudget,
    /// The items that `tended` was made of. Holds no key in memory, and its place.
    surveyed: Weak<SniStore>,
    tended: HashMap<PairKey, Tended>,
    flights: JoinSet<Landed>,
}

/// Where a pair stands in memory; nothing else does while its [`Tended`] is there.
type PairKey = usize;

/// A pair to be stapled. Keeps no key in memory.
struct Tended {
    pair: Weak<CertifiedKey>,
    id: Arc<str>,
    settings: Stapling,
    question: Arc<Question>,
    due: Instant,
    in_flight: bool,
    /// Questions in a row that brought nothing.
    failures: u32,
    /// What the last one brought instead.
    trouble: Option<Trouble>,
}

/// A question that came to its end.
struct Landed {
    key: PairKey,
    settings: Stapling,
    outcome: Result<Good, Trouble>,
}

/// Why there is nothing to staple.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("the responder answers with status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("openssl makes no request")]
    NoRequest,
}

impl Keeper {
    /// A keeper of the items that `items` has, and what it counts. Responders over TLS prove
    /// themselves to `trust`.
    ///
    /// # Errors
    /// TLS towards responders cannot be set up.
    pub fn new(
        items: CurrentItems,
        trust: &Trust,
        kept: &Kept,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Arc<Counts>), NotTrust> {
        let settings = Settings {
            timeout: PATIENCE,
            verify: true,
            keepalive: None,
            max_body: MOST_BYTES,
        };
        let counts = Arc::new(Counts::default());
        let keeper = Self {
            items,
            caller: Caller::build(&settings, trust, kept)?,
            lines: LineBudget::new(MOST_LINES, Arc::clone(&clock)),
            clock,
            counts: Arc::clone(&counts),
            surveyed: Weak::new(),
            tended: HashMap::new(),
            flights: JoinSet::new(),
        };
        Ok((keeper, counts))
    }

    /// Keeps responses until `shutdown` turns true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*shutdown.borrow() {
            tokio::select! {
                changed = shutdown.changed() => if changed.is_err() { return },
                Some(landed) = self.flights.join_next() => {
                    if let Ok(landed) = landed {
                        self.land(landed);
                    }
                }
                _ = tick.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        if let Some(items) = (self.items)()
            && !std::ptr::eq(Arc::as_ptr(&items), self.surveyed.as_ptr())
        {
            self.survey(&items);
            self.surveyed = Arc::downgrade(&items);
        }
        if self.tended.is_empty() {
            return;
        }
        let now = self.clock.now();
        let due = self.tended.iter();
        let due = due.filter(|(_, tended)| !tended.in_flight && tended.due <= now);
        let mut due: Vec<_> = due.map(|(key, tended)| (tended.due, *key)).collect();
        due.sort_unstable();
        let room = MOST_FLIGHTS.saturating_sub(self.flights.len());
        for (_, key) in due.into_iter().take(room) {
            self.ask(key);
        }
    }

    /// Takes up pairs that have come, and drops those that went.
    fn survey(&mut self, items: &SniStore) {
        let now = self.clock.now();
        let mut before = std::mem::take(&mut self.tended);
        for identity in items.identities() {
            let (Some(settings), IdentityState::Serving { pairs }) =
                (identity.stapling, &identity.state)
            else {
                continue;
            };
            for pair in pairs {
                let key = Arc::as_ptr(pair).addr();
                let known = before.remove(&key);
                let known = known.filter(|known| known.settings == settings);
                // Why nothing can be asked was told at load.
                let tended = known.or_else(|| Tended::new(&identity.id, pair, settings, now));
                self.tended.extend(tended.map(|tended| (key, tended)));
            }
        }
    }

    fn ask(&mut self, key: PairKey) {
        let Some(tended) = self.tended.get_mut(&key) else {
            return;
        };
        tended.in_flight = true;
        let (settings, question) = (tended.settings, Arc::clone(&tended.question));
        let (caller, clock) = (self.caller.clone(), Arc::clone(&self.clock));
        self.flights.spawn(async move {
            Landed {
                key,
                settings,
                outcome: ask(&caller, &question, settings, &*clock).await,
            }
        });
    }

    fn land(&mut self, landed: Landed) {
        self.count(&landed.outcome);
        let tended = self.tended.get_mut(&landed.key);
        // Others may have taken its place.
        let Some(tended) = tended.filter(|tended| tended.settings == landed.settings) else {
            return;
        };
        let Some(pair) = tended.pair.upgrade() else {
            return;
        };
        tended.in_flight = false;
        let (now, wall) = (self.clock.now(), self.clock.wall());
        match landed.outcome {
            Ok(good) => {
                let staple = tended.staple(good, wall);
                let left = staple.until.duration_since(wall).unwrap_or_default();
                pair.set_staple(Some(Arc::new(staple)));
                tended.due = now + refresh_after(left, rand::random());
                tended.failures = 0;
                if tended.trouble.take().is_some() {
                    let id = &tended.id;
                    say(&self.lines, log::Level::Info, || {
                        format!("ssl {id}: ocsp: the responder says again that it is good")
                    });
                }
            }
            Err(trouble) => {
                // What was said before is not true any more.
                if let Trouble::Unfit(Unfit::Revoked | Unfit::Unknown) = trouble {
                    pair.set_staple(None);
                }
                tended.failures = tended.failures.saturating_add(1);
                tended.due = now + pause(tended.failures, rand::random());
                if tended.trouble.as_ref() != Some(&trouble) {
                    let (id, settings) = (&tended.id, tended.settings);
                    let so = match pair.staple(settings, wall) {
                        Some(_) => "the response of before is sent on",
                        None => "none is sent",
                    };
                    say(&self.lines, log::Level::Warn, || {
                        let not_after = Moment(pair.not_after());
                        format!(
                            "ssl {id}: ocsp: {trouble} (its certificate ends on {not_after}); {so}"
                        )
                    });
                    tended.trouble = Some(trouble);
                }
            }
        }
    }

    fn count(&self, outcome: &Result<Good, Trouble>) {
        let count = match outcome {
            Ok(_) => &self.counts.good,
            Err(Trouble::Unfit(Unfit::Revoked)) => &self.counts.revoked,
            Err(Trouble::Unfit(Unfit::Unknown)) => &self.counts.unknown,
            Err(Trouble::Unfit(_) | Trouble::NoRequest) => &self.counts.invalid,
            Err(Trouble::Call(_) | Trouble::Status(_)) => &self.counts.unreachable,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Tended {
    fn new(
        id: &Arc<str>,
        pair: &Arc<CertifiedKey>,
        settings: Stapling,
        now: Instant,
    ) -> Option<Self> {
        Some(Self {
            question: Arc::new(Question::about(pair).ok()?),
            pair: Arc::downgrade(pair),
            id: Arc::clone(id),
            settings,
            due: now,
            in_flight: false,
            failures: 0,
            trouble: None,
        })
    }

    /// The response, to be sent for as long as both the authority and the item want it to.
    fn staple(&self, good: Good, now: SystemTime) -> Staple {
        let ttl = now + self.settings.cache_ttl;
        Staple {
            der: good.der,
            until: good.next_update.map_or(ttl, |end| end.min(ttl)),
            verified: !self.settings.skip_verify,
        }
    }
}

async fn ask(
    caller: &Caller,
    question: &Question,
    settings: Stapling,
    clock: &dyn Clock,
) -> Result<Good, Trouble> {
    let request = question.request();
    let request = request.map_err(|_: ErrorStack| Trouble::NoRequest)?;
    let mut call = Call::post(question.responder().clone(), request);
    let kind = HeaderValue::from_static("application/ocsp-request");
    call.headers.insert(CONTENT_TYPE, kind);
    let answer = caller.call(call).await?;
    if answer.status != StatusCode::OK {
        return Err(Trouble::Status(answer.status));
    }
    let good = question.judge(&answer.body, !settings.skip_verify, clock.wall())?;
    Ok(good)
}

/// One line, unless there were too many of late.
fn say(lines: &LineBudget, level: log::Level, line: impl FnOnce() -> String) {
    if log::log_enabled!(level)
        && let Some(held_back) = lines.admit()
    {
        log::log!(level, "{}{held_back}", line());
    }
}

/// When a response is asked for anew of which so much is left: between half and three quarters of it,
/// at a moment of its own, so that thousands do not come at once.
fn refresh_after(left: Duration, draw: f64) -> Duration {
    left.mul_f64(0.5 + draw / 4.0).max(FIRST_PAUSE)
}

/// How long nothing is asked after so many failures in a row.
fn pause(failures: u32, draw: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + draw / 2.0)
}

/// Between two looks at the items.
const TICK: Duration = Duration::from_millis(500);
/// Longest time for a question, and longest answer: responders send a few kilobytes.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 64 << 10;
/// Questions under way.
const MOST_FLIGHTS: usize = 32;
/// Lines in a second.
const MOST_LINES: u32 = 20;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_asked_for_again_well_before_its_end() {
        let hour = Duration::from_secs(3600);
        assert_eq!(refresh_after(hour, 0.0), hour / 2);
        assert!(refresh_after(hour, 0.999) <= hour * 3 / 4);
        assert_eq!(refresh_after(Duration::ZERO, 0.5), FIRST_PAUSE);
    }

    #[test]
    fn failures_are_asked_about_ever_more_seldom() {
        let pauses = [1, 2, 3, 9, 10, u32::MAX].map(|failures| pause(failures, 1.0));
        assert_eq!(
            pauses.map(|pause| pause.as_secs()),
            [1, 2, 4, 256, 300, 300]
        );
        assert_eq!(pause(1, 0.0), FIRST_PAUSE / 2);
    }
}
