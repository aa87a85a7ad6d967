//! References whose manager knows several places for them.

use super::tests::*;
use super::*;
use crate::secrets::report::ReferenceState;

/// As AWS splits names: the last segment of the path goes over to the field.
fn shorter(tried: &Location, why: &FetchError) -> Option<Location> {
    if !matches!(why, FetchError::NotFound | FetchError::Forbidden) {
        return None;
    }
    let (path, last) = tried.path.rsplit_once('/')?;
    let field = match &*tried.field {
        "" => last.to_owned(),
        field => format!("{last}/{field}"),
    };
    Some(Location {
        path: path.into(),
        field: field.into(),
    })
}

impl Bench {
    fn want(&mut self, name: &str) {
        let now = self.clock.now();
        let outcome = self
            .cache
            .add(now, key(name), SCHEDULE, selector(""), name.into());
        assert!(outcome.is_err(), "nothing was read yet");
    }

    /// Answers what is due until nothing is, by path; says the paths in order.
    fn run(&mut self, answer: impl Fn(&str) -> Answer) -> (Vec<String>, Plain) {
        let (mut asked, mut news) = (Vec::new(), Plain::new());
        loop {
            let due = self.due();
            if due.is_empty() {
                asked.sort();
                return (asked, news);
            }
            for job in due {
                asked.push(job.key.path.to_string());
                let now = self.clock.now();
                let answer = answer(&job.key.path);
                news.extend(plain(self.cache.complete(now, now, &job, answer, &shorter)));
            }
        }
    }

    fn path_of(&self, reference: &str) -> Arc<str> {
        let mut uses = self.cache.uses();
        let found = uses.find(|(_, _, _, user)| &***user == reference);
        let (id, ..) = found.expect("reference must be in use");
        Arc::clone(&self.cache.entries[&id].key.path)
    }

    fn out(&mut self, reference: &str) {
        let mut uses = self.cache.uses();
        let found = uses.find(|(_, _, _, user)| &***user == reference);
        let (id, _, selector, _) = found.expect("reference must be in use");
        let selector = selector.clone();
        drop(uses);
        self.cache.remove(id, &selector, reference);
    }
}

/// One secret, `app/db`, of these fields.
fn at_app_db(path: &str) -> Answer {
    match path {
        "app/db" => found(&[("user", "u"), ("pw", "p"), ("a/b", "deep")]),
        _ => denied(),
    }
}

#[test]
fn references_find_the_longest_name_and_share_its_document_from_then_on() {
    let mut bench = Bench::new();
    for name in ["app/db/user", "app/db/pw", "app/db/a/b", "app/db/none"] {
        bench.want(name);
    }
    assert_eq!(bench.cache.unsettled(), 4);
    let (asked, news) = bench.run(at_app_db);
    assert_eq!(
        asked,
        [
            "app/db",
            "app/db",
            "app/db/a",
            "app/db/a/b",
            "app/db/none",
            "app/db/pw",
            "app/db/user"
        ],
        "a/b needs a step more, which comes when the others are there"
    );
    let mut news = news;
    news.sort();
    assert_eq!(
        news,
        [
            ("app/db/a/b".into(), ok("deep")),
            ("app/db/none".into(), err("field not found")),
            ("app/db/pw".into(), ok("p")),
            ("app/db/user".into(), ok("u")),
        ],
        "nothing is said before the way ended"
    );
    assert_eq!(bench.cache.unsettled(), 0);
    for _ in 0..10 {
        bench.wait();
        assert_eq!(bench.run(at_app_db), (vec!["app/db".to_owned()], vec![]));
    }
}

#[test]
fn a_load_is_not_settled_before_the_last_place_answered() {
    let mut bench = Bench::new();
    bench.want("a/b/c");
    for path in ["a/b/c", "a/b"] {
        let job = bench.one_due();
        assert_eq!(&*job.key.path, path);
        let now = bench.clock.now();
        let news = bench.cache.complete(now, now, &job, denied(), &shorter);
        assert!(news.is_empty());
        assert_eq!(bench.cache.unsettled(), 1, "after {path}");
    }
    let job = bench.one_due();
    let now = bench.clock.now();
    let answer = found(&[("b/c", "v")]);
    let news = bench.cache.complete(now, now, &job, answer, &shorter);
    assert_eq!(plain(news), [("a/b/c".into(), ok("v"))]);
    assert_eq!(bench.cache.unsettled(), 0);
}

#[test]
fn the_place_is_remembered_while_the_reference_is_away_and_forgotten_with_the_manager() {
    let mut bench = Bench::new();
    bench.want("app/db/user");
    bench.run(at_app_db);
    bench.out("app/db/user");
    assert!(bench.cache.entries.is_empty());
    bench.want("app/db/user");
    assert_eq!(bench.run(at_app_db).0, ["app/db"]);
    bench.out("app/db/user");
    bench.cache.forget_places("vault/1");
    bench.want("app/db/user");
    assert_eq!(bench.run(at_app_db).0, ["app/db", "app/db/user"]);
}

#[test]
fn when_no_place_has_it_the_most_telling_refusal_is_said_and_all_are_tried_again_later() {
    let answer = |path: &str| match path {
        "a/b" => Answer::Denied(FetchError::Forbidden),
        _ => denied(),
    };
    let mut bench = Bench::new();
    bench.want("a/b/c");
    let refused = vec![("a/b/c".to_owned(), err("forbidden by the manager"))];
    let all = ["a", "a/b", "a/b/c"].map(str::to_owned).to_vec();
    assert_eq!(bench.run(answer), (all.clone(), refused));
    assert_eq!(bench.cache.unsettled(), 0, "a load does not wait for it");
    for _ in 0..3 {
        let pause = bench.wait();
        assert!(pause >= SCHEDULE.neg_ttl.mul_f64(0.8) && pause <= SCHEDULE.neg_ttl);
        assert_eq!(bench.run(answer), (all.clone(), vec![]), "no news");
        assert_eq!(bench.cache.unsettled(), 0);
    }
    bench.wait();
    let appeared = |path: &str| match path {
        "a/b/c" => found(&[("", "v")]),
        _ => denied(),
    };
    let news = vec![("a/b/c".to_owned(), ok("v"))];
    assert_eq!(bench.run(appeared), (vec!["a/b/c".to_owned()], news));
}

#[test]
fn a_remembered_document_that_is_deleted_for_good_is_looked_for_from_the_longest_name_again() {
    let mut bench = Bench::new();
    bench.want("app/db/user");
    bench.run(at_app_db);
    bench.wait();
    // The first "no" is not believed, so the reference stays where it is.
    assert_eq!(bench.run(|_| denied()), (vec!["app/db".to_owned()], vec![]));
    assert_eq!(bench.wait(), SCHEDULE.neg_ttl);
    let moved = |path: &str| match path {
        "app/db/user" => found(&[("", "whole")]),
        _ => denied(),
    };
    let (asked, news) = bench.run(moved);
    assert_eq!(asked, ["app/db", "app/db/user"]);
    assert_eq!(news.last(), Some(&("app/db/user".to_owned(), ok("whole"))));
    assert_eq!(&*bench.path_of("app/db/user"), "app/db/user");
}

#[test]
fn an_outage_on_the_way_is_no_reason_to_go_on() {
    let mut bench = Bench::new();
    bench.want("a/b");
    let (asked, news) = bench.run(|_| failed());
    assert_eq!(asked, ["a/b"]);
    assert_eq!(news, [("a/b".to_owned(), err("manager unreachable"))]);
    assert_eq!(&*bench.path_of("a/b"), "a/b");
}

#[test]
fn a_reference_that_joins_a_known_document_has_its_value_with_the_next_answer() {
    let mut bench = Bench::new();
    bench.want("app/db/user");
    bench.run(at_app_db);
    bench.want("app/db/pw");
    let (asked, news) = bench.run(at_app_db);
    assert_eq!(asked, ["app/db", "app/db/pw"]);
    assert_eq!(news, [("app/db/pw".to_owned(), ok("p"))]);
    assert_eq!(bench.cache.entries.len(), 1);
}

#[test]
fn a_manager_that_sends_in_circles_is_left_alone_in_the_end() {
    let around = |tried: &Location, _: &FetchError| {
        let path = if &*tried.path == "a" { "b" } else { "a" };
        Some(Location {
            path: path.into(),
            field: "".into(),
        })
    };
    let mut bench = Bench::new();
    bench.want("a");
    let mut reads = 0;
    loop {
        let due = bench.due();
        if due.is_empty() {
            break;
        }
        for job in due {
            reads += 1;
            let now = bench.clock.now();
            bench.cache.complete(now, now, &job, denied(), &around);
        }
    }
    assert!((100..10_000).contains(&reads), "{reads} reads");
    assert!(bench.wait() >= SCHEDULE.neg_ttl.mul_f64(0.8));
}

/// Ten thousand references, a hundred documents: a read each, at load and per ttl.
#[test]
fn references_into_one_document_cost_one_read() {
    let mut bench = Bench::new();
    for number in 0..10_000 {
        bench.add(&format!("d{}", number / 100), &format!("f{}", number % 100));
    }
    let fields: Vec<_> = (0..100).map(|number| format!("f{number}")).collect();
    let pairs: Vec<_> = fields.iter().map(|field| (field.as_str(), "v")).collect();
    let (asked, news) = bench.run(|_| found(&pairs));
    assert_eq!((asked.len(), news.len()), (100, 10_000));
    for _ in 0..5 {
        bench.wait();
        assert_eq!(bench.run(|_| found(&pairs)).0.len(), 100, "per ttl");
    }
}

#[test]
fn a_replaced_item_reads_everything_now_and_serves_the_old_values_as_stale_ones() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    bench.add("b", "y");
    bench.run(|path| match path {
        "a" => found(&[("x", "1")]),
        _ => denied(),
    });
    let clocks = Schedule {
        max_stale: Duration::from_secs(300),
        ..SCHEDULE
    };
    bench.clock.advance(Duration::from_secs(5));
    let started = bench.clock.now();
    bench.cache.touch(started, Some("vault/1"));
    let late = bench.due();
    let news = bench.cache.rehome(started, "vault/1", clocks);
    assert!(news.is_empty(), "values serve on");
    assert_eq!(bench.state(id, "x"), ReferenceState::Stale);
    assert_eq!(
        bench.cache.unsettled(),
        1,
        "only what has no value is waited for"
    );

    // The old manager's answers are nobody's any more.
    for job in &late {
        assert!(
            bench
                .answer(job, found(&[("x", "2"), ("y", "2")]))
                .is_empty()
        );
    }
    assert_eq!(bench.state(id, "x"), ReferenceState::Stale);
    let (asked, news) = bench.run(|_| failed());
    assert_eq!(asked, ["a", "b"]);
    assert_eq!(news, [("b/yNone".to_owned(), err("manager unreachable"))]);
    bench.clock.advance(Duration::from_secs(296));
    assert_eq!(bench.expire().len(), 1, "the new clocks rule");
    let (_, mut news) = bench.run(|_| found(&[("x", "1"), ("y", "2")]));
    news.sort();
    assert_eq!(
        news,
        [("a/xNone".into(), ok("1")), ("b/yNone".into(), ok("2"))]
    );
    assert_eq!(bench.state(id, "x"), ReferenceState::Fresh);
}

#[test]
fn a_reference_is_found_where_it_was_sent_on_to() {
    let mut bench = Bench::new();
    bench.want("app/db/user");
    bench.run(at_app_db);
    let likely = key("app/db/user");
    let found = bench.cache.find(&likely, &selector(""), "app/db/user");
    let (id, selector) = found.expect("it is in use");
    let path = &bench.cache.entries[&id].key.path;
    assert_eq!((&**path, &*selector.field), ("app/db", "user"));
}

#[test]
fn parked_documents_are_not_read_and_their_values_lapse_in_time() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    bench.run(|_| found(&[("x", "1")]));
    bench.cache.park("vault/1", &"waits for a value".into());
    assert_eq!(bench.state(id, "x"), ReferenceState::Stale);
    bench.cache.touch(bench.clock.now(), None);
    bench.cache.hasten(bench.clock.now(), "vault/1");
    bench
        .clock
        .advance(SCHEDULE.max_stale - Duration::from_secs(1));
    assert!(bench.due().is_empty() && bench.expire().is_empty());
    bench.clock.advance(Duration::from_secs(2));
    let reason = "older than max_stale: waits for a value";
    assert_eq!(bench.expire(), [("a/xNone".into(), err(reason))]);
    bench.cache.rehome(bench.clock.now(), "vault/1", SCHEDULE);
    let news = bench.run(|_| found(&[("x", "1")])).1;
    assert_eq!(news, [("a/xNone".to_owned(), ok("1"))]);
}
