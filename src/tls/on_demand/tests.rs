//! What handshakes find, and what becomes of values; the keeper's part is `tests/it/tls/on_demand`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::item::Item;
use super::names::{LastUse, Standing};
use super::pairs::build;
use super::*;
use crate::clock::ManualClock;
use crate::secrets::{Interest, Resolved, Secret, Secrets, SecretsSettings};
use crate::tls::Chains;
use crate::tls::dev::{Authority, LeafOptions};
use crate::tls::rehearsal::weak;

fn limits() -> Limits {
    Limits {
        names: 2,
        wait: Duration::from_millis(50),
        negative: Duration::from_secs(60),
        idle: Duration::from_secs(100),
        unknown_per_second: 1,
        unknown_burst: 3,
        concurrency: 2,
        waiting: 2,
    }
}

fn names() -> Arc<Names> {
    Arc::new(Names::new("1".into(), Box::default()))
}

fn values(name: &str, options: &LeafOptions) -> Vec<Resolved> {
    let issued = Authority::new().and_then(|authority| authority.issue(&[name], options));
    let issued = issued.expect("leaf");
    let cert = Secret::from(issued.cert_pem);
    vec![Resolved::new(&cert, 1), Resolved::new(&issued.key_pem, 2)]
}

fn trial() -> Arc<Trial> {
    let rehearsal = Rehearsal::new(None).expect("the default ciphers are known");
    let policy = TlsPolicy::new("1", Protocols::default(), None, 0);
    Arc::new(Trial::new(Arc::new(rehearsal), policy))
}

fn built(
    name: &str,
    values: &[Resolved],
    before: Option<&Arc<Served>>,
    now: SystemTime,
) -> pairs::Built {
    build(name, values, before, now, &Chains::new(), &trial())
}

fn served(name: &str, clock: &ManualClock) -> Arc<Served> {
    let values = values(name, &LeafOptions::default());
    built(name, &values, None, clock.wall())
        .served
        .expect("fits")
}

fn door(clock: &Arc<ManualClock>) -> (Door, mpsc::Receiver<Request>) {
    let (requests, heard) = mpsc::channel(8);
    let clock: Arc<dyn Clock> = clock.clone();
    (Door { requests, clock }, heard)
}

fn on_demand(names: Arc<Names>, door: Door) -> OnDemand {
    OnDemand {
        names,
        limits: limits(),
        trial: trial(),
        door,
    }
}

#[test]
fn only_a_pair_that_covers_the_name_is_taken_and_the_last_good_one_serves_on() {
    let clock = ManualClock::new();
    let good = served("a.test", &clock);
    let expired = LeafOptions {
        starts_in_secs: -200_000,
        ends_in_secs: -100_000,
        ..LeafOptions::default()
    };
    let half = [
        values("a.test", &LeafOptions::default()),
        values("a.test", &LeafOptions::default()),
    ];
    let mixed = vec![half[0][0].clone(), half[1][1].clone()];
    for (values, finding) in [
        (values("b.test", &LeafOptions::default()), "does not cover"),
        (values("a.test", &expired), "expired"),
        (mixed, "does not belong"),
    ] {
        let alone = built("a.test", &values, None, clock.wall());
        assert!(alone.served.is_none());
        assert!(alone.finding.expect("told").contains(finding));
        let after = built("a.test", &values, Some(&good), clock.wall());
        assert_eq!(after.served.expect("serves on").generation, good.generation);
    }
    let newer = values("*.test", &LeafOptions::default());
    let newer = built("a.test", &newer, Some(&good), clock.wall());
    assert_ne!(newer.served.expect("fits").generation, good.generation);
}

/// Each parses, fits the key and covers the name, and no client could be served with it.
#[test]
fn pairs_that_fail_in_rehearsal_or_are_out_of_bounds_leave_the_last_good_one() {
    let clock = ManualClock::new();
    let good = served("a.test", &clock);
    let resolved = |(cert, key): (Vec<u8>, Vec<u8>)| {
        let [cert, key] = [cert, key].map(Secret::new);
        vec![Resolved::new(&cert, 3), Resolved::new(&key, 4)]
    };
    let issued = Authority::new().and_then(|authority| {
        let issued = authority.issue(&["a.test"], &LeafOptions::default())?;
        Ok((
            issued.cert_pem.into_bytes(),
            issued.key_pem.expose().to_vec(),
        ))
    });
    let (mut long, key) = issued.expect("leaf");
    long.resize(1 << 20, b'\n');
    for (values, finding) in [
        (weak::torn(), "no TLSv1.2 handshake succeeds"),
        (weak::small_ca(), "ca key too small"),
        ((long, key), "expected PEM of 128 to 65536 characters"),
    ] {
        let values = resolved(values);
        let alone = built("a.test", &values, None, clock.wall());
        assert!(alone.served.is_none(), "{finding}");
        let told = alone.finding.expect("told");
        assert!(told.contains(finding), "{told}");
        let after = built("a.test", &values, Some(&good), clock.wall());
        assert_eq!(after.served.expect("serves on").generation, good.generation);
        assert!(after.finding.is_some());
    }
}

#[test]
fn a_name_in_memory_is_found_until_it_ends_and_a_refused_one_is_asked_for_again() {
    let clock = Arc::new(ManualClock::new());
    let (names, interest) = (names(), Arc::new(Interest::default()));
    let on_demand = on_demand(Arc::clone(&names), door(&clock).0);
    assert!(matches!(on_demand.find("a.test"), Found::Ask));
    let until = clock.now() + Duration::from_secs(9);
    names.put("b.test", Standing::Refused { until });
    names.put(
        "a.test",
        Standing::Serving {
            served: served("a.test", &clock),
            interest: Arc::clone(&interest),
            last_use: Arc::new(LastUse::new(clock.now())),
        },
    );
    assert!(matches!(on_demand.find("a.test"), Found::Serving(_)));
    assert!(matches!(
        on_demand.find("b.test"),
        Found::Refused(Refusal::Unknown)
    ));
    for odd in ["a/b", "..", "a%2ftest", "a_b.test", "1.2.3.4", ""] {
        assert!(matches!(
            on_demand.find(odd),
            Found::Refused(Refusal::BadName)
        ));
    }
    clock.advance(Duration::from_secs(10));
    assert!(matches!(on_demand.find("b.test"), Found::Ask));
    clock.advance(Duration::from_secs(366 * 24 * 3600));
    assert!(
        matches!(on_demand.find("a.test"), Found::Refused(_)),
        "expired"
    );
    let tally = on_demand.tally();
    assert_eq!((tally.names, tally.refused), (1, 1));
    names.remove_refused([(until, "a.test"), (until, "b.test")]);
    assert_eq!(on_demand.tally().refused, 0);
    assert_eq!(on_demand.tally().names, 1);
}

#[tokio::test]
async fn no_more_wait_than_may_and_none_longer_than_it_should() {
    let clock = Arc::new(ManualClock::new());
    let (door, mut heard) = door(&clock);
    let on_demand = on_demand(names(), door);
    let asked = ["a.test", "b.test", "c.test"].map(|name| on_demand.obtain(name));
    let outcomes = futures::future::join_all(asked).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(|one| one.err()).collect();
    let late = Some(Refusal::TimedOut);
    assert_eq!(outcomes, [late, late, Some(Refusal::Crowded)]);
    assert_eq!(on_demand.tally().waiting, 0, "all left");
    assert_eq!(&*heard.recv().await.expect("asked").name, "a.test");
    drop(heard);
    assert_eq!(
        on_demand.obtain("d.test").await.err(),
        Some(Refusal::Crowded)
    );
}

#[test]
fn names_take_turns_and_those_nobody_waits_for_lose_theirs() {
    let clock = ManualClock::new();
    let mut item = Item::new(names(), limits(), trial(), clock.now());
    let admit = |item: &mut Item, name: &str| {
        let (reply, answer) = oneshot::channel();
        item.admit(clock.now(), name.into(), reply);
        answer
    };
    let refusal = |answer: &mut oneshot::Receiver<Result<Arc<Served>, Refusal>>| {
        let answer = answer.try_recv().expect("an answer");
        answer.err().expect("a refusal")
    };
    let first = admit(&mut item, "a.test");
    let second = admit(&mut item, "b.test");
    let mut third = admit(&mut item, "c.test");
    assert_eq!(refusal(&mut third), Refusal::Crowded);
    drop(first);
    assert_eq!(item.next().as_deref(), Some("b.test"));
    assert_eq!(item.next(), None);
    // Two turns are left of three: the one that nobody waited for was given back.
    let fourth = admit(&mut item, "d.test");
    assert_eq!(item.next().as_deref(), Some("d.test"));
    let fifth = admit(&mut item, "e.test");
    assert_eq!(item.next(), None, "two are under way");
    let mut sixth = admit(&mut item, "f.test");
    assert_eq!(refusal(&mut sixth), Refusal::Cap);
    drop((second, fourth, fifth));
}

/// Of this the keeper dies.
struct Mortal {
    clock: ManualClock,
    dead: AtomicBool,
}

impl Clock for Mortal {
    fn now(&self) -> Instant {
        assert!(!self.dead.load(Ordering::Relaxed), "the clock is broken");
        self.clock.now()
    }

    fn wall(&self) -> SystemTime {
        self.clock.wall()
    }
}

/// Names would be served that nobody refreshes, or takes away once they are deleted.
#[tokio::test]
async fn a_keeper_that_dies_leaves_no_name_behind() {
    let mortal = Arc::new(Mortal {
        clock: ManualClock::new(),
        dead: AtomicBool::new(false),
    });
    let clock = Arc::new(ManualClock::new());
    let secrets = Secrets::new(SecretsSettings::default(), clock.clone(), Arc::new(()));
    let (keeper, door) = Keeper::new(secrets, mortal.clone());
    let names = names();
    let door = Door {
        clock: clock.clone(),
        ..door
    };
    let on_demand = on_demand(Arc::clone(&names), door);
    let (_running, shutdown) = watch::channel(false);
    let keeper = tokio::spawn(keeper.run(shutdown));
    // Whatever comes of it: the keeper knows the item from now on.
    assert!(on_demand.obtain("a.test").await.is_err());
    names.put(
        "b.test",
        Standing::Serving {
            served: served("b.test", &clock),
            interest: Arc::default(),
            last_use: Arc::new(LastUse::new(clock.now())),
        },
    );
    assert!(matches!(on_demand.find("b.test"), Found::Serving(_)));
    mortal.dead.store(true, Ordering::Relaxed);
    assert!(keeper.await.expect_err("it dies").is_panic());
    assert!(matches!(on_demand.find("b.test"), Found::Ask));
    assert!(on_demand.obtain("b.test").await.is_err());
}
