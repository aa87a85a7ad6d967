//! What handshakes find, and what becomes of values; the keeper's part is `tests/it/tls/on_demand`.

use super::item::Item;
use super::names::{LastUse, Standing};
use super::pairs::build;
use super::*;
use crate::clock::ManualClock;
use crate::secrets::{Interest, Resolved, Secret};
use crate::tls::Chains;
use crate::tls::dev::{Authority, LeafOptions};

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

fn served(name: &str, clock: &ManualClock) -> Arc<Served> {
    let values = values(name, &LeafOptions::default());
    build(name, &values, None, clock.wall(), &Chains::new())
        .served
        .expect("fits")
}

fn door(clock: &Arc<ManualClock>) -> (Door, mpsc::Receiver<Request>) {
    let (requests, heard) = mpsc::channel(8);
    let clock: Arc<dyn Clock> = clock.clone();
    (Door { requests, clock }, heard)
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
        let alone = build("a.test", &values, None, clock.wall(), &Chains::new());
        assert!(alone.served.is_none());
        assert!(alone.finding.expect("told").contains(finding));
        let after = build("a.test", &values, Some(&good), clock.wall(), &Chains::new());
        assert_eq!(after.served.expect("serves on").generation, good.generation);
    }
    let newer = values("*.test", &LeafOptions::default());
    let newer = build("a.test", &newer, Some(&good), clock.wall(), &Chains::new());
    assert_ne!(newer.served.expect("fits").generation, good.generation);
}

#[test]
fn a_name_in_memory_is_found_until_it_ends_and_a_refused_one_is_asked_for_again() {
    let clock = Arc::new(ManualClock::new());
    let (names, interest) = (names(), Arc::new(Interest::default()));
    let on_demand = OnDemand::new(Arc::clone(&names), limits(), door(&clock).0);
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
    let on_demand = OnDemand::new(names(), limits(), door);
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
    let mut item = Item::new(names(), limits(), clock.now());
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
