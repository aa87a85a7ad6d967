//! Addresses that failed to authenticate too often, refused for a while (`claviger.auth.throttle`).
//! Only failures write; asking reads a table of fixed size without a lock. A success clears
//! nothing, so that whoever owns one good credential cannot guess others beside it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, header};

use crate::clock::Clock;
use crate::consumer::digest;
use crate::ip_set::IpSet;
use crate::plugins::respond::Response;
use crate::telemetry::metrics::AuthFailure;

/// What is too often, and what follows.
#[derive(Debug, Clone)]
pub struct ThrottleSettings {
    /// Failures within `window` that make an address refused; at least 1.
    pub failures: u32,
    /// Counting begins anew this long after an address' first failure.
    pub window: Duration,
    /// How long an address is refused.
    pub refuse_for: Duration,
    /// About how many addresses are remembered; beyond that the least suspicious is forgotten.
    pub addresses: usize,
    /// Addresses that are never counted, such as a balancer that hides its clients.
    pub trusted: IpSet,
}

/// Failures by address. An IPv6 client is known by its /64, since it may take any address there.
pub struct Throttle {
    settings: ThrottleSettings,
    clock: Arc<dyn Clock>,
    /// Times in records count from here.
    start: Instant,
    key: [u8; 16],
    /// As many as a power of two.
    sets: Box<[Set]>,
    /// Nobody is refused from this time on, so that usually nothing is looked up.
    latest: AtomicU64,
}

/// The places where an address may stand; which set it is nobody outside can tell.
#[derive(Default)]
struct Set {
    slots: [Slot; WAYS],
    /// Held while a slot changes.
    writing: Mutex<()>,
}

/// One address.
#[derive(Default)]
struct Slot {
    /// Hash of the address; 0 where the slot is empty.
    owner: AtomicU64,
    /// A packed [`Record`]. Cleared before the owner changes, so that nobody reads another's.
    record: AtomicU64,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    /// Milliseconds: of the first failure counted, or until when the address is refused.
    at: u64,
    refused: bool,
    failures: u32,
}

impl Throttle {
    /// Nobody has failed yet. `key` is random per process.
    #[must_use]
    pub fn new(settings: ThrottleSettings, key: [u8; 16], clock: Arc<dyn Clock>) -> Self {
        let sets = settings.addresses.div_ceil(WAYS).next_power_of_two();
        Self {
            start: clock.now(),
            sets: (0..sets).map(|_| Set::default()).collect(),
            latest: AtomicU64::new(0),
            settings,
            clock,
            key,
        }
    }

    /// The answer to this address, where it is refused at `now`.
    #[must_use]
    pub fn refusal(&self, address: IpAddr, now: Instant) -> Option<Response> {
        let left = self.refused_for(address, now)?;
        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let answer = Response::message(429, "Too many failed authentication attempts");
        Some(answer.with_header(header::RETRY_AFTER, HeaderValue::from(secs)))
    }

    /// How much longer the address is refused.
    fn refused_for(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let now = self.millis(now);
        if now >= self.latest.load(Ordering::Acquire) || self.settings.trusted.contains(address) {
            return None;
        }
        let (owner, set) = self.place(address);
        let mut slots = set.slots.iter();
        let slot = slots.find(|slot| slot.owner.load(Ordering::Acquire) == owner)?;
        let record = Record::unpack(slot.record.load(Ordering::Acquire));
        let ours = slot.owner.load(Ordering::Acquire) == owner;
        (ours && record.refused && now < record.at).then(|| Duration::from_millis(record.at - now))
    }

    /// Counts a failed attempt of this address. Reasons that are no guess at a credential do not
    /// count.
    pub fn failed(&self, address: IpAddr, reason: AuthFailure) {
        if !is_guess(reason) || self.settings.trusted.contains(address) {
            return;
        }
        let now = self.millis(self.clock.now());
        let (owner, set) = self.place(address);
        let writing = set.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = set.slot_for(owner, now);
        let before = Record::unpack(slot.record.load(Ordering::Relaxed));
        let after = self.after_failure(before, now);
        slot.record.store(after.pack(), Ordering::Release);
        drop(writing);
        if after.refused && !before.is_refused_at(now) {
            self.latest.fetch_max(after.at, Ordering::AcqRel);
            log::info!(
                "authentication of {address} is refused for {:?} after {} failed attempts",
                self.settings.refuse_for,
                self.settings.failures
            );
        }
    }

    fn after_failure(&self, before: Record, now: u64) -> Record {
        if before.is_refused_at(now) {
            // Answers that were under way do not prolong it.
            return before;
        }
        let window = millis_of(self.settings.window);
        let counts = !before.refused && before.failures > 0 && now - before.at < window;
        let (at, failures) = if counts {
            (before.at, before.failures + 1)
        } else {
            (now, 1)
        };
        if failures < self.settings.failures {
            Record {
                at,
                refused: false,
                failures,
            }
        } else {
            Record {
                at: now + millis_of(self.settings.refuse_for),
                refused: true,
                failures,
            }
        }
    }

    fn place(&self, address: IpAddr) -> (u64, &Set) {
        let digest = match address.to_canonical() {
            IpAddr::V4(address) => digest(&self.key, &address.octets()),
            IpAddr::V6(address) => digest(&self.key, &address.octets()[..8]),
        };
        let digest = u128::from_ne_bytes(digest);
        let (owner, place) = ((digest >> 64) as u64, digest as usize);
        (owner.max(1), &self.sets[place % self.sets.len()])
    }

    fn millis(&self, at: Instant) -> u64 {
        millis_of(at.saturating_duration_since(self.start))
    }
}

impl Set {
    /// The owner's slot, or one made free for it. Called while `writing` is held.
    fn slot_for(&self, owner: u64, now: u64) -> &Slot {
        let owned = |slot: &&Slot| slot.owner.load(Ordering::Relaxed) == owner;
        if let Some(slot) = self.slots.iter().find(owned) {
            return slot;
        }
        let [first, rest @ ..] = &self.slots;
        let slot = rest.iter().fold(first, |least, slot| {
            if slot.suspicion(now) < least.suspicion(now) {
                slot
            } else {
                least
            }
        });
        slot.record.store(0, Ordering::Release);
        slot.owner.store(owner, Ordering::Release);
        slot
    }
}

impl Slot {
    /// Who is forgotten first: nobody, who was refused once, who failed seldom, who is refused.
    fn suspicion(&self, now: u64) -> (bool, u32, u64) {
        let record = Record::unpack(self.record.load(Ordering::Relaxed));
        if record.is_refused_at(now) {
            (true, 0, record.at)
        } else if record.refused {
            (false, 0, record.at)
        } else {
            (false, record.failures, record.at)
        }
    }
}

impl Record {
    const fn is_refused_at(self, now: u64) -> bool {
        self.refused && now < self.at
    }

    const fn pack(self) -> u64 {
        let failures = if self.failures > MOST {
            MOST
        } else {
            self.failures
        };
        (self.at << AT) | ((self.refused as u64) << FAILURES) | failures as u64
    }

    const fn unpack(packed: u64) -> Self {
        Self {
            at: packed >> AT,
            refused: (packed >> FAILURES) & 1 == 1,
            failures: (packed & MOST as u64) as u32,
        }
    }
}

/// Whether a failure for that reason may be a guess at a credential: not what holds none, what
/// was signed rightly once, what another server denies, or what is our own doing.
#[must_use]
pub(super) const fn is_guess(reason: AuthFailure) -> bool {
    match reason {
        AuthFailure::Malformed
        | AuthFailure::Unknown
        | AuthFailure::Mismatch
        | AuthFailure::Algorithm
        | AuthFailure::Skew
        | AuthFailure::Unsigned
        | AuthFailure::Digest
        | AuthFailure::Replayed => true,
        AuthFailure::Missing
        | AuthFailure::Expired
        | AuthFailure::Early
        | AuthFailure::TooLarge
        | AuthFailure::Denied
        | AuthFailure::Unavailable
        | AuthFailure::Throttled => false,
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(LONGEST, |millis| millis.min(LONGEST))
}

/// Addresses to a set.
const WAYS: usize = 8;
/// Bits of a record's count.
const FAILURES: u32 = 23;
/// Bits below a record's time.
const AT: u32 = FAILURES + 1;
/// The largest count.
const MOST: u32 = (1 << FAILURES) - 1;
/// 17 years, so that two of them fit into a record.
const LONGEST: u64 = (1 << (u64::BITS - AT - 1)) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    struct Setting {
        clock: Arc<ManualClock>,
        throttle: Throttle,
    }

    impl Setting {
        fn new(addresses: usize) -> Self {
            let clock = Arc::new(ManualClock::new());
            let settings = ThrottleSettings {
                failures: 3,
                window: Duration::from_secs(10),
                refuse_for: Duration::from_secs(30),
                addresses,
                trusted: IpSet::parse(["10.0.0.0/8"]).expect("network is valid"),
            };
            let throttle = Throttle::new(settings, [1; 16], clock.clone());
            Self { clock, throttle }
        }

        fn fail(&self, address: &str, times: usize) {
            for _ in 0..times {
                self.throttle.failed(ip(address), AuthFailure::Unknown);
            }
        }

        fn left(&self, address: &str) -> Option<u64> {
            let left = self.throttle.refused_for(ip(address), self.clock.now());
            left.map(|left| left.as_secs())
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address is valid")
    }

    #[test]
    fn an_address_is_refused_after_that_many_failures_and_then_no_longer() {
        let setting = Setting::new(1024);
        setting.fail("192.0.2.1", 2);
        assert_eq!(setting.left("192.0.2.1"), None);
        setting.fail("192.0.2.1", 1);
        assert_eq!(setting.left("192.0.2.1"), Some(30));
        assert_eq!(setting.left("::ffff:192.0.2.1"), Some(30));
        assert_eq!(setting.left("192.0.2.2"), None, "others are not meant");

        setting.clock.advance(Duration::from_secs(29));
        setting.fail("192.0.2.1", 5);
        assert_eq!(setting.left("192.0.2.1"), Some(1), "nothing prolongs it");
        setting.clock.advance(Duration::from_secs(1));
        assert_eq!(setting.left("192.0.2.1"), None);
        setting.fail("192.0.2.1", 2);
        assert_eq!(setting.left("192.0.2.1"), None, "counting began anew");
        setting.fail("192.0.2.1", 1);
        assert_eq!(setting.left("192.0.2.1"), Some(30));
    }

    #[test]
    fn counting_begins_anew_when_the_window_is_over() {
        let setting = Setting::new(1024);
        setting.fail("192.0.2.1", 2);
        setting.clock.advance(Duration::from_secs(10));
        setting.fail("192.0.2.1", 2);
        assert_eq!(setting.left("192.0.2.1"), None);
        setting.clock.advance(Duration::from_secs(9));
        setting.fail("192.0.2.1", 1);
        assert_eq!(setting.left("192.0.2.1"), Some(30));
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_trusted_ones_are_never_counted() {
        let setting = Setting::new(1024);
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"] {
            setting.fail(address, 1);
        }
        assert_eq!(setting.left("2001:db8::4"), Some(30));
        assert_eq!(setting.left("2001:db8:0:1::1"), None);
        setting.fail("10.1.2.3", 9);
        assert_eq!(setting.left("10.1.2.3"), None);
    }

    #[test]
    fn what_is_no_guess_does_not_count() {
        let setting = Setting::new(1024);
        for reason in AuthFailure::ALL
            .into_iter()
            .filter(|reason| !is_guess(*reason))
        {
            for _ in 0..9 {
                setting.throttle.failed(ip("192.0.2.1"), reason);
            }
            assert_eq!(setting.left("192.0.2.1"), None, "{}", reason.label());
        }
        assert!(is_guess(AuthFailure::Malformed) && is_guess(AuthFailure::Mismatch));
        assert!(!is_guess(AuthFailure::Missing) && !is_guess(AuthFailure::Throttled));
    }

    #[test]
    fn a_full_table_forgets_who_failed_seldom_first() {
        let setting = Setting::new(WAYS);
        setting.fail("192.0.2.1", 3);
        setting.fail("192.0.2.2", 2);
        for n in 0..200 {
            setting.fail(&format!("198.51.100.{n}"), 1);
        }
        assert_eq!(setting.left("192.0.2.1"), Some(30), "refused ones stay");
        setting.fail("192.0.2.2", 1);
        assert_eq!(setting.left("192.0.2.2"), Some(30), "its count stood");
        // More refused ones than places: the first of them goes.
        for n in 0..WAYS {
            setting.clock.advance(Duration::from_millis(10));
            setting.fail(&format!("203.0.113.{n}"), 3);
        }
        assert_eq!(setting.left("192.0.2.1"), None);
        assert!(setting.left("203.0.113.0").is_some());
        assert_eq!(setting.throttle.sets.len(), 1);
    }

    #[test]
    fn the_answer_says_when_to_come_back() {
        let setting = Setting::new(1024);
        setting.fail("192.0.2.1", 3);
        setting.clock.advance(Duration::from_millis(500));
        let now = setting.clock.now();
        let answer = setting.throttle.refusal(ip("192.0.2.1"), now);
        let answer = answer.expect("address is refused");
        assert_eq!(answer.status, 429);
        let retry = crate::plugins::testing::answered(&answer, "retry-after");
        assert_eq!(retry, Some("30"));
    }

    #[test]
    fn readers_never_see_a_refusal_of_another_while_slots_change_hands() {
        let setting = Setting::new(WAYS);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000_u32 {
                    let [.., a, b] = n.to_be_bytes();
                    setting.fail(&format!("198.51.{a}.{b}"), 3);
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                assert_eq!(setting.left("192.0.2.1"), None);
            }
        });
    }

    #[test]
    fn a_record_is_packed_without_loss() {
        for record in [
            Record::default(),
            Record {
                at: 2 * LONGEST,
                refused: true,
                failures: MOST,
            },
            Record {
                at: 12_345,
                refused: false,
                failures: 7,
            },
        ] {
            assert_eq!(Record::unpack(record.pack()), record);
        }
    }
}
