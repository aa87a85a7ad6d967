use super::*;
pub(super) use crate::clock::{Clock as _, ManualClock};
use crate::secrets::manager::FieldValue;
use crate::secrets::reference::Decode;
use crate::secrets::report::ReferenceState;
use crate::secrets::value::Secret;

pub(super) const SCHEDULE: Schedule = Schedule {
    ttl: Duration::from_secs(100),
    neg_ttl: Duration::from_secs(10),
    max_stale: Duration::from_secs(1000),
};

pub(super) struct Bench {
    pub(super) clock: ManualClock,
    pub(super) cache: Cache,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            clock: ManualClock::new(),
            cache: Cache::new(Box::new(|| 0.5)),
        }
    }

    pub(super) fn add(&mut self, path: &str, field: &str) -> EntryId {
        self.add_selector(path, selector(field)).0
    }

    pub(super) fn add_selector(&mut self, path: &str, selector: Selector) -> (EntryId, Outcome) {
        let reference = format!("{path}/{}{:?}", selector.field, selector.decode);
        let now = self.clock.now();
        let outcome = self
            .cache
            .add(now, key(path), SCHEDULE, selector, reference.into());
        (self.cache.ids[&key(path)], outcome)
    }

    pub(super) fn due(&mut self) -> Vec<Job> {
        self.cache.take_due(self.clock.now())
    }

    pub(super) fn one_due(&mut self) -> Job {
        let mut due = self.due();
        assert_eq!(due.len(), 1, "one document must be due");
        due.remove(0)
    }

    pub(super) fn answer(&mut self, job: &Job, answer: Answer) -> Plain {
        let now = self.clock.now();
        plain(self.cache.complete(now, now, job, answer, &nowhere))
    }

    /// Waits for the document's next turn and gives the answer then.
    pub(super) fn next(&mut self, answer: Answer) -> Plain {
        self.wait();
        let job = self.one_due();
        self.answer(&job, answer)
    }

    /// Moves to the next turn and says how long that took.
    pub(super) fn wait(&mut self) -> Duration {
        let (at, _) = *self.cache.due.first().expect("something must be due");
        let pause = at.saturating_duration_since(self.clock.now());
        self.clock.advance(pause);
        pause
    }

    pub(super) fn expire(&mut self) -> Plain {
        plain(self.cache.expire(self.clock.now()))
    }

    pub(super) fn state(&self, id: EntryId, field: &str) -> ReferenceState {
        let report = self
            .cache
            .report(self.clock.now(), id, &selector(field), &"r".into());
        report.expect("reference must be in use").state
    }
}

/// News as text.
pub(super) type Plain = Vec<(String, Result<String, String>)>;

pub(super) fn selector(field: &str) -> Selector {
    Selector {
        field: field.into(),
        decode: None,
    }
}

pub(super) fn key(path: &str) -> DocumentKey {
    DocumentKey {
        manager: "vault/1".into(),
        path: path.into(),
        version: None,
    }
}

pub(super) fn found(fields: &[(&str, &str)]) -> Answer {
    let text = |value: &str| FieldValue::Text(Secret::from(value.to_owned()));
    let fields = fields
        .iter()
        .map(|(name, value)| (Box::from(*name), text(value)));
    Answer::Found(Document::new(fields.collect(), None))
}

pub(super) fn denied() -> Answer {
    Answer::Denied(FetchError::NotFound)
}

/// A manager that knows one place for everything.
pub(super) fn nowhere(_: &Location, _: &FetchError) -> Option<Location> {
    None
}

pub(super) fn failed() -> Answer {
    Answer::Failed("manager unreachable".into())
}

pub(super) fn plain(news: News) -> Plain {
    let text = |resolved: crate::secrets::view::Resolved| {
        resolved.open().as_str().expect("UTF-8").to_owned()
    };
    let mut news: Vec<_> = news
        .into_iter()
        .map(|told| {
            let outcome = told.outcome.map(text);
            let outcome = outcome.map_err(|unresolved| unresolved.to_string());
            (told.reference.to_string(), outcome)
        })
        .collect();
    news.sort();
    news
}

pub(super) fn ok(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

pub(super) fn err(reason: &str) -> Result<String, String> {
    Err(reason.to_owned())
}

#[test]
fn references_into_one_document_share_one_read() {
    let mut bench = Bench::new();
    let first = bench.add("a", "x");
    assert_eq!(bench.add("a", "y"), first);
    assert_eq!(bench.cache.unsettled(), 1);
    let job = bench.one_due();
    assert_eq!(job.fields, ["x", "y"].map(Arc::from));
    assert!(bench.due().is_empty(), "a read under way is not made again");
    let news = bench.answer(&job, found(&[("x", "1"), ("y", "2"), ("z", "3")]));
    assert_eq!(
        news,
        [("a/xNone".into(), ok("1")), ("a/yNone".into(), ok("2"))]
    );
    assert_eq!(bench.cache.unsettled(), 0);
}

#[test]
fn a_version_changes_exactly_when_the_value_does() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    let mut versions = Vec::new();
    for value in ["1", "1", "2", "1"] {
        bench.wait();
        let job = bench.one_due();
        let now = bench.clock.now();
        let answer = found(&[("x", value)]);
        bench.cache.complete(now, now, &job, answer, &nowhere);
        let report = bench
            .cache
            .report(now, job.entry, &selector("x"), &"r".into());
        versions.push(report.expect("in use").version.expect("resolved"));
    }
    assert_eq!(versions[0], versions[1]);
    assert!(versions[1] < versions[2] && versions[2] < versions[3]);
}

#[test]
fn equal_bytes_are_no_news() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    assert_eq!(bench.next(found(&[("x", "1")])).len(), 1);
    assert!(bench.next(found(&[("x", "1")])).is_empty());
    assert_eq!(
        bench.next(found(&[("x", "2")])),
        [("a/xNone".into(), ok("2"))]
    );
}

#[test]
fn the_next_read_begins_before_the_ttl_is_over_counted_from_the_start_of_the_last() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    let job = bench.one_due();
    let started = bench.clock.now();
    bench.clock.advance(Duration::from_secs(4));
    let now = bench.clock.now();
    bench
        .cache
        .complete(now, started, &job, found(&[("x", "1")]), &nowhere);
    bench.wait();
    assert!(bench.clock.now() < started + SCHEDULE.ttl);
}

#[test]
fn an_outage_serves_the_last_good_value_up_to_max_stale() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    let start = bench.clock.now();
    bench.next(found(&[("x", "1")]));
    assert_eq!(bench.state(id, "x"), ReferenceState::Fresh);
    while bench.clock.now() < start + SCHEDULE.max_stale - Duration::from_secs(20) {
        assert!(bench.next(failed()).is_empty(), "a stale value is served");
    }
    assert_eq!(bench.state(id, "x"), ReferenceState::Stale);
    assert!(bench.expire().is_empty());
    bench.clock.advance(Duration::from_secs(30));
    let reason = "older than max_stale: manager unreachable";
    assert_eq!(bench.expire(), [("a/xNone".into(), err(reason))]);
    assert!(bench.expire().is_empty(), "told once");
    assert_eq!(bench.state(id, "x"), ReferenceState::Refused);
    assert_eq!(
        bench.next(found(&[("x", "1")])),
        [("a/xNone".into(), ok("1"))]
    );
    assert_eq!(bench.state(id, "x"), ReferenceState::Fresh);
}

#[test]
fn a_no_ends_a_value_only_when_it_is_confirmed_after_neg_ttl() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    bench.next(found(&[("x", "1")]));
    assert!(
        bench.next(denied()).is_empty(),
        "the first no is not believed"
    );
    assert_eq!(bench.state(id, "x"), ReferenceState::Stale);
    assert_eq!(bench.wait(), SCHEDULE.neg_ttl);
    let job = bench.one_due();
    let news = bench.answer(&job, denied());
    assert_eq!(news, [("a/xNone".into(), err("document not found"))]);
    assert_eq!(bench.state(id, "x"), ReferenceState::Refused);
}

#[test]
fn a_no_that_is_taken_back_leaves_no_trace() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    bench.next(found(&[("x", "1")]));
    for _ in 0..3 {
        assert!(bench.next(denied()).is_empty());
        assert!(bench.next(found(&[("x", "1")])).is_empty());
        assert_eq!(bench.state(id, "x"), ReferenceState::Fresh);
    }
}

#[test]
fn an_outage_between_two_noes_does_not_confirm_by_itself() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    bench.next(found(&[("x", "1")]));
    bench.next(denied());
    for _ in 0..5 {
        assert!(bench.next(failed()).is_empty());
    }
    assert_eq!(bench.next(denied()).len(), 1, "the second no ends it");
}

#[test]
fn a_missing_field_is_a_no_about_that_field_alone() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    bench.add("a", "y");
    bench.next(found(&[("x", "1"), ("y", "2")]));
    bench.next(found(&[("x", "3")]));
    let news = bench.next(found(&[("x", "3")]));
    assert_eq!(news, [("a/yNone".into(), err("field not found"))]);
    assert_eq!(bench.state(id, "x"), ReferenceState::Fresh);
    assert!(
        bench.wait() <= SCHEDULE.neg_ttl,
        "the missing one is looked for again soon"
    );
}

#[test]
fn empty_and_unfit_values_are_never_values() {
    for (value, reason) in [
        (
            FieldValue::Text(Secret::from(String::new())),
            "value is empty",
        ),
        (
            FieldValue::Other("value is an object"),
            "value is an object",
        ),
    ] {
        let mut bench = Bench::new();
        bench.add("a", "x");
        let document = Document::new([("x".into(), value)].into(), None);
        let news = bench.next(Answer::Found(document));
        assert_eq!(news, [("a/xNone".into(), err(reason))]);
    }
}

#[test]
fn a_value_nobody_had_is_asked_for_again_after_a_growing_pause() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pauses.push(bench.wait().as_millis());
        let job = bench.one_due();
        bench.answer(&job, failed());
    }
    assert_eq!(pauses, [0, 375, 750, 1500, 3000, 6000, 7500, 7500]);
    assert_eq!(
        bench.next(found(&[("x", "1")])),
        [("a/xNone".into(), ok("1"))]
    );
}

#[test]
fn a_postponed_read_waits_for_the_circuit() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    let until = bench.clock.now() + Duration::from_secs(7);
    bench.next(Answer::Postponed(until, "down".into()));
    assert_eq!(bench.cache.unsettled(), 0, "a load does not wait for it");
    assert!(bench.wait() >= Duration::from_secs(7));
}

#[test]
fn a_manager_that_answers_again_is_asked_for_everything_soon() {
    let mut bench = Bench::new();
    for path in ["a", "b", "c"] {
        bench.add(path, "x");
    }
    for _ in 0..6 {
        bench.clock.advance(Duration::from_secs(20));
        for job in bench.due() {
            bench.answer(&job, failed());
        }
    }
    let now = bench.clock.now();
    bench.cache.hasten(now, "vault/2");
    assert!(
        bench.wait() > Duration::from_secs(1),
        "another manager's answer says nothing"
    );
    bench.cache.hasten(bench.clock.now(), "vault/1");
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.due().len(), 3);
}

#[test]
fn a_field_wanted_while_its_document_is_read_is_read_right_after() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    let job = bench.one_due();
    bench.add("a", "y");
    let news = bench.answer(&job, found(&[("x", "1"), ("y", "2")]));
    assert_eq!(news, [("a/xNone".into(), ok("1"))], "y was not asked for");
    assert_eq!(bench.cache.unsettled(), 1);
    let job = bench.one_due();
    assert_eq!(job.fields.len(), 2);
    bench.answer(&job, found(&[("x", "1"), ("y", "2")]));
    assert_eq!(bench.cache.unsettled(), 0);
}

#[test]
fn a_touch_during_a_read_makes_another() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    let job = bench.one_due();
    bench.cache.touch(bench.clock.now(), Some("vault/1"));
    assert!(bench.due().is_empty());
    bench.answer(&job, found(&[("x", "1")]));
    assert_eq!(bench.due().len(), 1);
}

#[test]
fn decoded_and_plain_values_have_versions_of_their_own() {
    let mut bench = Bench::new();
    let decoded = Selector {
        decode: Some(Decode::Base64),
        ..selector("x")
    };
    bench.add("a", "x");
    let _ = bench.add_selector("a", decoded);
    assert_eq!(
        bench.next(found(&[("x", "Zm9v")])),
        [
            ("a/xNone".into(), ok("Zm9v")),
            ("a/xSome(Base64)".into(), ok("foo"))
        ]
    );
    // Padding and line ends change the text, not what it means.
    assert_eq!(
        bench.next(found(&[("x", "Zm9v\n")])),
        [("a/xNone".into(), ok("Zm9v\n"))]
    );
}

#[test]
fn what_nobody_refers_to_is_forgotten_and_a_late_answer_finds_nobody() {
    let mut bench = Bench::new();
    let id = bench.add("a", "x");
    let job = bench.one_due();
    bench.cache.remove(id, &selector("x"), "a/xNone");
    assert_eq!(bench.cache.unsettled(), 0);
    assert!(bench.answer(&job, found(&[("x", "1")])).is_empty());
    assert!(bench.cache.entries.is_empty() && bench.cache.ids.is_empty());
    assert!(bench.cache.due.is_empty() && bench.cache.lapses.is_empty());
    assert_ne!(bench.add("a", "x"), id, "numbers are never used twice");
}

#[test]
fn a_second_reference_to_a_known_value_has_it_at_once() {
    let mut bench = Bench::new();
    bench.add("a", "x");
    bench.next(found(&[("x", "1")]));
    let (_, outcome) = bench.add_selector("a", selector("x"));
    assert!(outcome.is_ok());
    assert!(bench.due().is_empty());
    assert_eq!(bench.cache.unsettled(), 0);
}

/// Random answers at every turn: bookkeeping stays whole, and no value outlives its bound.
#[test]
fn any_sequence_of_answers_keeps_the_books() {
    use rand::{Rng as _, SeedableRng as _};

    for seed in 0..200 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut bench = Bench::new();
        let id = bench.add("a", "x");
        bench.add("a", "y");
        let mut last_good = None;
        for _ in 0..60 {
            bench.wait();
            let job = bench.one_due();
            let answer = match random.random_range(0..5) {
                0 => {
                    last_good = Some(bench.clock.now());
                    found(&[("x", "1")])
                }
                1 => found(&[("y", "1")]),
                2 => denied(),
                3 => Answer::Postponed(bench.clock.now() + Duration::from_secs(300), "open".into()),
                _ => failed(),
            };
            bench.answer(&job, answer);
            bench.expire();
            assert_eq!(bench.cache.due.len(), 1, "seed {seed}");
            assert!(bench.cache.lapses.len() <= 1, "seed {seed}");
            let now = bench.clock.now();
            let old = last_good.is_none_or(|at| now >= at + SCHEDULE.max_stale);
            if old {
                assert_eq!(bench.state(id, "x"), ReferenceState::Refused, "seed {seed}");
            }
        }
    }
}

/// Reads of one manager, as many at a time as it is allowed, each as long as the last.
struct Readers {
    waiting: std::collections::VecDeque<Job>,
    reading: std::collections::VecDeque<(Instant, Job)>,
    most: usize,
    latency: Duration,
}

impl Readers {
    fn begin(&mut self, now: Instant) {
        while self.reading.len() < self.most
            && let Some(job) = self.waiting.pop_front()
        {
            self.reading.push_back((now, job));
        }
    }

    fn next_end(&self) -> Option<Instant> {
        let (started, _) = self.reading.front()?;
        Some(*started + self.latency)
    }
}

/// From the start of the read that may have missed a change to the end of the one that sees it is
/// what a change can take. Half of the time is spent reading here, and all begins in one burst.
#[test]
fn ten_thousand_documents_of_a_slow_manager_are_read_within_their_ttl_and_spread_out() {
    use rand::{Rng as _, SeedableRng as _};

    const DOCUMENTS: usize = 10_000;
    let schedule = Schedule {
        ttl: Duration::from_secs(60),
        ..SCHEDULE
    };
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let mut bench = Bench::new();
    bench.cache = Cache::new(Box::new(move || random.random()));
    for number in 0..DOCUMENTS {
        let path = format!("d{number}");
        let (now, selector) = (bench.clock.now(), selector("x"));
        let _ = bench
            .cache
            .add(now, key(&path), schedule, selector, path.as_str().into());
    }
    let mut readers = Readers {
        waiting: [].into(),
        reading: [].into(),
        most: 16,
        latency: Duration::from_millis(50),
    };
    let start = bench.clock.now();
    let mut last: HashMap<EntryId, Instant> = HashMap::new();
    let (mut longest, mut reads, mut most_waiting) = (Duration::ZERO, 0, 0);
    while bench.clock.now() < start + 5 * schedule.ttl {
        let now = bench.clock.now();
        readers.waiting.extend(bench.due());
        readers.begin(now);
        // The load itself is a queue; behind it there must be none to speak of.
        if now > start + schedule.ttl {
            most_waiting = most_waiting.max(readers.waiting.len());
        }
        while readers.next_end().is_some_and(|end| end <= now) {
            let Some((started, job)) = readers.reading.pop_front() else {
                break;
            };
            reads += 1;
            if let Some(before) = last.insert(job.entry, started) {
                longest = longest.max(now - before);
            }
            let answer = found(&[("x", "1")]);
            bench.cache.complete(now, started, &job, answer, &nowhere);
            readers.begin(now);
        }
        let due = bench.cache.due.first().map(|(at, _)| *at);
        let next = due.into_iter().chain(readers.next_end()).min();
        let pause = next
            .expect("something must follow")
            .saturating_duration_since(now);
        bench.clock.advance(pause);
    }
    let bound = schedule.ttl + Duration::from_secs(1);
    assert!(longest <= bound, "a change took {longest:?}");
    assert!(longest > schedule.ttl.mul_f64(0.8), "and the ttl is used");
    // 320 a second can be read; the burst at load must not be repeated.
    assert!(
        most_waiting < 1000,
        "{most_waiting} documents waited for a reader"
    );
    assert!(
        (4 * DOCUMENTS..7 * DOCUMENTS).contains(&reads),
        "{reads} reads"
    );
}
