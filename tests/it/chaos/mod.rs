//! The gateway among managers that misbehave at random, under load. `make chaos` runs the long
//! form; `CLAVIGER_CHAOS_SEED` repeats a run's faults, `CLAVIGER_CHAOS_SECONDS` sets its length.

mod history;
mod load;
mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::tls::dev::Authority;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use history::History;
use load::{Load, Tally};
use setting::{Place, Use};

use crate::harness::chaos::{Climate, FORGED, Fault};
use crate::harness::{Behaviour, Gateway, Upstream, client, wait_until};

/// Seconds of the short form, at least: on a busy machine what must be seen may take longer.
const SHORT: u64 = 3;
/// A run in which something was not seen yet goes on for so long.
const LONGEST: Duration = Duration::from_secs(60);
/// No answer takes so long; every stall of a manager is longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// From the end of the faults until the newest values are in use: the ttl and a second, the
/// longest pause of a circuit, and a read that was stalled before.
const HEALED: Duration = Duration::from_secs(1 + 1 + 8 + 4);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_but_current_values_are_used_while_managers_misbehave() {
    let seed = number("CLAVIGER_CHAOS_SEED").unwrap_or_else(rand::random);
    let seconds = number("CLAVIGER_CHAOS_SECONDS").unwrap_or(SHORT).max(SHORT);
    eprintln!("CLAVIGER_CHAOS_SEED={seed} CLAVIGER_CHAOS_SECONDS={seconds}");

    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    // A line per request would be all there is in the log of a failure.
    let builder =
        Gateway::builder().bootstrap("nginx_config: { http: { enable_access_log: false } }");
    let climate = Climate::Mixed(Duration::from_secs((seconds / 4).clamp(1, 4)));
    let began = Instant::now();
    let places = setting::places(seed, climate, builder.dir()).await;
    let history = History::default();
    for place in &places {
        for of in place.uses {
            place.rotate(&history, &authority, *of).await;
        }
    }
    let resources = setting::resources(&places, upstream.addr);
    let gateway = builder.resources(&*resources).start();
    eprintln!("all is up after {:?}", began.elapsed());
    let load = Load {
        http: gateway.http(),
        https: gateway.https(),
        ca: &ca,
        history: &history,
        places: &places,
        ended: AtomicBool::new(false),
        tally: Mutex::new(Tally::default()),
    };
    let mut states = BTreeSet::new();

    let handle = tokio::runtime::Handle::current();
    let weather = || {
        std::thread::scope(|scope| {
            let _ended = End(&load.ended);
            for place in &places {
                scope.spawn(|| load.present_keys(place));
                scope.spawn(|| load.read_fields(place));
                if place.uses.contains(&Use::Tls) {
                    scope.spawn(|| load.shake_hands(place));
                }
            }
            scope.spawn(|| load.intrude());
            scope.spawn(|| load.receive(&upstream));

            places.iter().for_each(|place| place.proxy.storm());
            let mut storm = Storm {
                rng: StdRng::seed_from_u64(seed),
                gateway: &gateway,
                resources: &resources,
                rotations: 0,
                reloads: 0,
            };
            // Little seen proves little: a run in which something did not happen yet goes on.
            let started = Instant::now();
            let length = Duration::from_secs(seconds);
            let enough = |states: &BTreeSet<String>| {
                started.elapsed() > length && unseen(&places, states, seconds).is_empty()
                    || started.elapsed() > LONGEST.max(length * 2)
                    || !history.findings().is_empty()
            };
            while !enough(&states) {
                let turn = Instant::now() + Duration::from_millis(100);
                handle.block_on(storm.rotate_some(&places, &history, &authority));
                storm.disturb();
                look(&gateway, &mut states);
                std::thread::sleep(turn.saturating_duration_since(Instant::now()));
            }
            eprintln!(
                "{} rotations, {} reloads in {:?}",
                storm.rotations,
                storm.reloads,
                started.elapsed()
            );

            places.iter().for_each(|place| place.proxy.calm());
            let calm = Instant::now();
            healed(&gateway, &places, &history);
            eprintln!("healed within {:?}", calm.elapsed());
            assert!(calm.elapsed() < HEALED, "healing took {:?}", calm.elapsed());
        })
    };
    tokio::task::block_in_place(weather);
    deletions_count(&gateway, &places[0], &history, &authority).await;
    eprintln!("all was over after {:?}", began.elapsed());

    assert_eq!(history.findings(), [""; 0], "seed {seed}");
    let tally = load.tally.into_inner().unwrap();
    eprintln!(
        "{tally:?}, means {:?} and {:?}",
        tally.stalled.mean(),
        tally.otherwise.mean()
    );
    // A busy machine does little in a second.
    let least = usize::try_from(seconds * 10).unwrap_or(usize::MAX);
    assert!(tally.stalled.count > least, "{tally:?} proves little");
    for times in [&tally.stalled, &tally.otherwise] {
        assert!(
            times.longest < PATIENCE,
            "a request took {:?}",
            times.longest
        );
    }
    let log = gateway.log();
    for word in ["panicked", FORGED] {
        assert!(!log.contains(word), "{word} is in the log");
    }
    tell(&places, &states, &log, seconds);
}

/// Ends the clients, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What happens besides the faults.
struct Storm<'a> {
    rng: StdRng,
    gateway: &'a Gateway,
    resources: &'a str,
    rotations: usize,
    reloads: usize,
}

impl Storm<'_> {
    /// A document of each place gets a new version every 300 ms or so.
    async fn rotate_some(&mut self, places: &[Place], history: &History, authority: &Authority) {
        for place in places {
            if self.rng.random_ratio(1, 3) {
                let of = place.uses[self.rng.random_range(0..place.uses.len())];
                place.rotate(history, authority, of).await;
                self.rotations += 1;
            }
        }
    }

    /// Now and then the file changes, or somebody hangs up.
    fn disturb(&mut self) {
        if self.rng.random_ratio(1, 20) {
            self.reloads += 1;
            let route = format!(
                "  - {{ id: turn, host: turn.test, uri: '/{}', upstream_id: up }}\n",
                self.reloads
            );
            self.gateway
                .write_resources(&format!("{}{route}", self.resources));
        }
        if self.rng.random_ratio(1, 40) {
            self.gateway.signal(rustix::process::Signal::HUP);
        }
    }
}

/// Which states references and managers are seen in.
fn look(gateway: &Gateway, states: &mut BTreeSet<String>) {
    for line in gateway.metrics_page().lines() {
        let of_interest = line.starts_with("claviger_secret_references{") && !line.ends_with(" 0");
        if let Some(at) = line.find("state=\"").filter(|_| of_interest) {
            states.insert(
                line[at + 7..]
                    .split('"')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
    let status = client::get(gateway.status(), "/status/ready", &[("Host", "status")]);
    if status.text().contains("warning") {
        states.insert(WARNS.to_owned());
    }
    if status.status != 200 {
        states.insert("not ready".to_owned());
    }
}

/// Waits until everything is as if nothing had happened.
fn healed(gateway: &Gateway, places: &[Place], history: &History) {
    let newest: BTreeMap<String, usize> = places
        .iter()
        .flat_map(|place| place.uses.iter().map(|of| place.document(*of)))
        .map(|name| (name.clone(), history.newest(&name)))
        .collect();
    wait_until("the newest values are in use", || {
        newest
            .iter()
            .all(|(name, newest)| history.floor(name) == *newest)
            || !history.findings().is_empty()
    });
    wait_until("readiness has nothing to say", || {
        let status = client::get(gateway.status(), "/status/ready", &[("Host", "status")]);
        status.status == 200 && !status.text().contains("warning")
    });
    wait_until("every reference is fresh", || {
        let mut states = BTreeSet::new();
        look(gateway, &mut states);
        states.iter().all(|state| state == "fresh")
    });
}

/// A real "no" is one: nothing of the above may have made the gateway deaf to it.
async fn deletions_count(
    gateway: &Gateway,
    place: &Place,
    history: &History,
    authority: &Authority,
) {
    let name = place.document(Use::Key);
    let status = |number| {
        let key = history.text(&name, number, "key");
        gateway.get("guarded.test", "/", &[("apikey", &key)]).status
    };
    let last = history.newest(&name);
    place.delete_key().await;
    wait_until("the deleted key ends", || status(last) == 401);
    place.rotate(history, authority, Use::Key).await;
    wait_until("a new key begins", || status(last + 1) == 200);
}

/// What must happen in a run of so many seconds, and did not yet.
fn unseen(places: &[Place], states: &BTreeSet<String>, seconds: u64) -> Vec<String> {
    let all = faults(places);
    let least = usize::try_from(seconds / 16).unwrap_or_default().max(1);
    let is_rare = |fault: &&Fault| all.get(*fault).is_none_or(|count| *count < least);
    let mut rare: Vec<&Fault> = OF_REQUESTS.iter().filter(is_rare).collect();
    let rare_of_tls: Vec<&Fault> = OF_TLS.iter().filter(is_rare).collect();
    // Connections are rarer than requests: the short form takes any of theirs.
    if seconds > SHORT || rare_of_tls.len() > OF_TLS.len() - FEW_OF_TLS {
        rare.extend(rare_of_tls);
    }
    let rare = rare.into_iter().map(|fault| format!("{fault:?}"));
    let missed = STATES
        .iter()
        .filter(|state| !states.contains(**state) && (seconds > SHORT || **state != WARNS))
        .map(ToString::to_string);
    rare.chain(missed).collect()
}

/// How often each fault happened, at all places together.
fn faults(places: &[Place]) -> BTreeMap<Fault, usize> {
    let mut all = BTreeMap::new();
    for (fault, count) in places.iter().flat_map(|place| place.proxy.counts()) {
        *all.entry(fault).or_default() += count;
    }
    all
}

/// Tells what happened, and fails where too little did.
fn tell(places: &[Place], states: &BTreeSet<String>, log: &str, seconds: u64) {
    for place in places {
        let said = |words: &str| {
            let line = format!("secret manager {} {words}", place.id);
            log.matches(&line).count()
        };
        eprintln!(
            "{}: {} times silent, {} times back, faults {:?}",
            place.id,
            said("does not answer"),
            said("answers again"),
            place.proxy.counts()
        );
    }
    eprintln!("faults: {:?}\nstates: {states:?}", faults(places));
    let unseen = unseen(places, states, seconds);
    assert!(unseen.is_empty(), "did not happen often enough: {unseen:?}");
    for (words, whenever) in [
        ("does not answer", states.contains(WARNS)),
        ("answers again", states.contains(WARNS)),
        ("trigger=Secrets", true),
        ("trigger=Source", true),
    ] {
        assert!(!whenever || log.contains(words), "never said: {words}");
    }
}

/// States of references and of the whole that a run must have seen.
const STATES: &[&str] = &["fresh", "stale", "refused", WARNS, "not ready"];
/// A manager failed five times in a row, which a short run need not see.
const WARNS: &str = "readiness warns";
const OF_REQUESTS: &[Fault] = &[
    Fault::Pass,
    Fault::DelayBefore,
    Fault::DelayAfter,
    Fault::Stall,
    Fault::Reset,
    Fault::Close,
    Fault::TruncateReset,
    Fault::TruncateClose,
    Fault::Drip,
    Fault::Status,
    Fault::Stranger,
    Fault::Garbage,
    Fault::Malformed,
];
/// How many of the following the short form must have seen.
const FEW_OF_TLS: usize = 4;
const OF_TLS: &[Fault] = &[
    Fault::WrongAuthority,
    Fault::WrongName,
    Fault::Expired,
    Fault::CutHandshake,
    Fault::NotTls,
    Fault::CutStream,
    Fault::Corrupt,
];
