use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::secrets::manager::{Document, Manager};
use crate::secrets::reference::ReferenceError;
use crate::secrets::refresh::Schedule;

type Answer = fn(&str) -> Result<Presence, FetchError>;

/// Answers by path; the whole key is the path, and the part before its last slash the next place.
struct Folders {
    answer: Answer,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Manager for Folders {
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        Ok(Location {
            path: (&*key.path).into(),
            field: Arc::default(),
        })
    }

    async fn fetch(&self, _: Read<'_>) -> Result<Document, FetchError> {
        panic!("a probe must read no value");
    }

    async fn probe(&self, read: Read<'_>) -> Result<Presence, FetchError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        (self.answer)(read.path)
    }

    fn elsewhere(&self, tried: &Location, why: &FetchError) -> Option<Location> {
        let (path, last) = tried.path.rsplit_once('/')?;
        let field = match &*tried.field {
            "" => last.to_owned(),
            field => format!("{last}/{field}"),
        };
        why.is_authoritative().then(|| Location {
            path: path.into(),
            field: field.into(),
        })
    }
}

async fn probe(keys: &[&str], answer: Answer) -> (Vec<ProbeReport>, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let folders = Folders {
        answer,
        asked: Arc::clone(&asked),
    };
    let day = Duration::from_secs(86400);
    let schedule = Schedule {
        ttl: day,
        neg_ttl: day,
        max_stale: day,
    };
    let runner = Arc::new(Runner::new("t/m".into(), Box::new(folders), schedule, 4));
    let pending = keys.iter().map(|key| {
        let reference: Arc<str> = format!("$secret://t/m/{key}").into();
        let parsed = Reference::parse_shared(&reference).expect("a reference");
        let Target::Managed(key) = parsed.target().clone() else {
            panic!("a reference into a manager");
        };
        Pending {
            location: runner.manager.locate(&key).expect("any key will do"),
            runner: Arc::clone(&runner),
            reference,
            key,
            worst: None,
        }
    });
    let mut reports = Vec::new();
    probe_all(pending.collect(), &mut reports).await;
    reports.sort_by(|a, b| a.reference.cmp(&b.reference));
    (reports, asked.load(Ordering::Relaxed))
}

fn said(reports: &[ProbeReport]) -> Vec<String> {
    let result = |report: &ProbeReport| match &report.result {
        Ok(presumed) => format!("{}#{} {presumed:?}", report.path, report.field),
        Err(fault) => format!("{}#{} {fault}", report.path, report.field),
    };
    reports.iter().map(result).collect()
}

#[tokio::test]
async fn a_value_is_looked_for_wherever_its_manager_says() {
    let (reports, asked) = probe(
        &["a/b", "a/b/c", "a/b/d", "a/b/gone", "lost", "x/y"],
        |path| match path {
            "a/b" => Ok(Presence {
                fields: Some([("c".into(), None), ("d".into(), Some("value is null"))].into()),
                version: Some("7".into()),
            }),
            "x/y" => Ok(Presence::default()),
            _ => Err(FetchError::NotFound),
        },
    )
    .await;
    assert_eq!(
        said(&reports),
        [
            "a/b# field: field not found",
            "a/b#c Value",
            "a/b#d shape: value is null",
            "a/b#gone field: field not found",
            "lost# path: document not found",
            "x/y# Value",
        ]
    );
    assert_eq!(reports[1].version.as_deref(), Some("7"));
    assert_eq!(
        asked, 7,
        "each place once per round, however many look there"
    );
}

/// A name that was only tried is rightly not found: it must not hide what wants mending.
#[tokio::test]
async fn the_most_telling_refusal_on_the_way_is_told_with_its_place() {
    let (reports, _) = probe(&["a/b/c", "x/y", "d/down"], |path| match path {
        "a/b" => Err(FetchError::Forbidden),
        "x/y" => Err(FetchError::Unsupported("not so")),
        "d" => Err(FetchError::Sealed),
        _ => Err(FetchError::NotFound),
    })
    .await;
    assert_eq!(
        said(&reports),
        [
            "a/b#c policy: forbidden by the manager",
            "d#down answer: manager is sealed or unavailable",
            "x/y# path: not so",
        ]
    );
}

#[tokio::test]
async fn fields_that_cannot_be_told_are_no_fault() {
    let (reports, _) = probe(&["a/b"], |path| match path {
        "a" => Ok(Presence::default()),
        _ => Err(FetchError::NotFound),
    })
    .await;
    assert_eq!(said(&reports), ["a#b Document"]);
}

#[tokio::test]
async fn a_manager_that_is_down_is_not_asked_about_everything() {
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (reports, asked) = probe(&keys, |_| {
        Err(FetchError::Unreachable(Step::Dns, "no such host".into()))
    })
    .await;
    assert!(asked < 20, "asked {asked} times");
    assert_eq!(reports.len(), 200);
    for report in &reports {
        let fault = report.result.as_ref().expect_err("it is down");
        assert_eq!(fault.to_string(), "dns: manager unreachable: no such host");
    }
}
