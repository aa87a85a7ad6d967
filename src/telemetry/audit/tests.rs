use std::path::PathBuf;

use super::*;
use crate::clock::SystemClock;

struct Log {
    path: PathBuf,
    dir: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("audit.log");
        Self { path, dir }
    }

    fn start(&self, seal: Seal) -> Audit {
        Audit::start(&self.path, seal, Arc::new(SystemClock)).expect("starts")
    }

    /// A log of this many lines.
    fn of(lines: u64, seal: Seal) -> Self {
        let log = Self::new();
        let audit = log.start(seal);
        for n in 1..=lines {
            audit.record("adopted", vec![("n", n.into())]);
        }
        assert!(audit.close(PATIENCE), "must be written");
        log
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).expect("is there");
        text.lines().map(str::to_owned).collect()
    }

    fn write(&self, lines: &[String]) {
        std::fs::write(&self.path, lines.join("\n") + "\n").expect("is written");
    }

    fn forget_head(&self) {
        std::fs::remove_file(file::head_path(&self.path)).expect("is removed");
    }

    fn verdict(&self, seal: &Seal, known: Option<&str>) -> Vec<String> {
        let verdict = verify(std::slice::from_ref(&self.path), seal, known).expect("is readable");
        assert_eq!(verdict.wrong, verdict.findings.len());
        let told = |found: &Finding| format!("{}: {}", found.line, found.what);
        verdict.findings.iter().map(told).collect()
    }

    fn wrong(&self) -> Vec<String> {
        self.verdict(&Seal::Plain, None)
    }
}

#[test]
fn a_log_nobody_touched_holds() {
    let log = Log::of(1000, Seal::Plain);
    let paths = [log.path.clone()];
    let verdict = verify(&paths, &Seal::Plain, None).expect("is readable");
    assert_eq!(verdict.findings, []);
    assert_eq!((verdict.head.seq, verdict.files[0].lines), (1000, 1000));
    let last = log.lines().pop().expect("a line");
    assert!(last.contains(&verdict.head.hash()), "{last}");
    assert!(last.contains(&verdict.last_time.expect("a time")), "{last}");
    assert_eq!(
        log.verdict(&Seal::Plain, Some(&verdict.head.hash())),
        [""; 0]
    );
}

/// What an attacker may do to the lines, and what is said of it.
type Tampering = (&'static str, fn(&mut Vec<String>), &'static str);

#[test]
fn every_way_to_tamper_is_found() {
    let cases: &[Tampering] = &[
        (
            "a field is edited",
            |lines| lines[3] = lines[3].replace("\"n\":4", "\"n\":5"),
            "4: changed",
        ),
        (
            "a time is edited",
            |lines| lines[3] = lines[3].replace("\"time\":\"2", "\"time\":\"1"),
            "4: changed",
        ),
        (
            "a line is deleted",
            |lines| drop(lines.remove(3)),
            "4: missing: line 4 before it",
        ),
        (
            "lines are deleted",
            |lines| drop(lines.drain(3..6)),
            "4: missing: lines 4 to 6 before it",
        ),
        (
            "two lines are swapped",
            |lines| lines.swap(3, 4),
            "4: out of order: line 4",
        ),
        (
            "a line is moved",
            |lines| {
                let line = lines.remove(2);
                lines.insert(7, line);
            },
            "8: inserted or out of order: line 3",
        ),
        (
            "a line is repeated",
            |lines| lines.insert(4, lines[3].clone()),
            "5: inserted or out of order",
        ),
        (
            "text is put in",
            |lines| lines.insert(4, "hello".into()),
            "5: no line",
        ),
        ("a line is emptied", |lines| lines[4].clear(), "5: no line"),
        (
            "the beginning is cut off",
            |lines| drop(lines.drain(..4)),
            "",
        ),
        (
            "the end is cut off",
            |lines| lines.truncate(8),
            "8: cut off: the head noted",
        ),
        (
            "the hash is made anew",
            |lines| {
                let line = lines[3].replace("\"n\":4", "\"n\":5");
                let (content, _) = line.split_at(line.len() - 75);
                let hash = chain::hex(&openssl::sha::sha256(content.as_bytes()));
                lines[3] = format!("{content},\"hash\":\"{hash}\"}}");
            },
            "5: the line before it was changed",
        ),
    ];
    for (name, tamper, expected) in cases {
        let log = Log::of(10, Seal::Plain);
        let mut lines = log.lines();
        tamper(&mut lines);
        log.write(&lines);
        let wrong = log.wrong();
        if expected.is_empty() {
            // The files before may have been left out: it is told, and is no proof.
            assert_eq!(wrong, [""; 0], "{name}");
        } else {
            let found = wrong.iter().any(|what| what.starts_with(expected));
            assert!(found, "{name}: {wrong:?}");
        }
    }
}

#[test]
fn an_end_that_was_cut_off_is_found_by_a_head_kept_elsewhere() {
    let log = Log::of(10, Seal::Plain);
    let lines = log.lines();
    log.write(&lines[..8]);
    log.forget_head();
    assert_eq!(log.wrong(), [""; 0], "nothing in the file can tell");
    let kept = &lines[9][lines[9].len() - 66..][..64];
    let wrong = log.verdict(&Seal::Plain, Some(kept));
    assert_eq!(
        wrong,
        ["8: cut off: the head that was given is not in the log (any more)"]
    );
    let still_there = &lines[4][lines[4].len() - 66..][..64];
    assert_eq!(log.verdict(&Seal::Plain, Some(still_there)), [""; 0]);
    assert_eq!(log.verdict(&Seal::Plain, Some("nonsense")).len(), 1);
}

#[test]
fn with_a_key_not_even_a_chain_made_anew_holds() {
    let seal = Seal::keyed(b"a key of sixteen bytes or more").expect("long");
    let log = Log::of(10, seal.clone());
    assert_eq!(log.verdict(&seal, None), [""; 0]);
    let keyless = verify(std::slice::from_ref(&log.path), &Seal::Plain, None);
    assert!(matches!(
        keyless,
        Err(VerifyError::NeedsKey { line: 1, .. })
    ));
    // The same ten events, made anew without the key.
    std::fs::remove_file(&log.path).expect("is removed");
    log.forget_head();
    let audit = log.start(Seal::Plain);
    for n in 1..=10_u64 {
        audit.record("adopted", vec![("n", n.into())]);
    }
    assert!(audit.close(PATIENCE));
    assert_eq!(log.wrong(), [""; 0]);
    assert_eq!(
        log.verdict(&seal, None),
        ["10: no line is sealed with the key"]
    );
}

#[test]
fn a_key_may_come_later_but_not_go() {
    let seal = Seal::keyed(b"a key of sixteen bytes or more").expect("long");
    let log = Log::of(3, Seal::Plain);
    let write = |seal: &Seal| {
        let audit = log.start(seal.clone());
        audit.record("started", Vec::new());
        assert!(audit.close(PATIENCE));
    };
    write(&seal);
    assert_eq!(log.verdict(&seal, None), [""; 0]);
    write(&Seal::Plain);
    let wrong = log.verdict(&seal, None);
    assert_eq!(
        wrong,
        ["5: not sealed with the key, though lines before it are"]
    );
}

#[test]
fn rotated_files_are_one_chain() {
    let log = Log::of(5, Seal::Plain);
    let old = log.dir.path().join("audit.log.1");
    std::fs::rename(&log.path, &old).expect("is renamed");
    let audit = log.start(Seal::Plain);
    audit.record("started", Vec::new());
    assert!(audit.close(PATIENCE));
    let paths = [old.clone(), log.path.clone()];
    let verdict = verify(&paths, &Seal::Plain, None).expect("is readable");
    assert_eq!((verdict.findings, verdict.head.seq), (vec![], 6));
    // One alone says where it goes on from.
    let alone = verify(&paths[1..], &Seal::Plain, None).expect("is readable");
    assert_eq!(alone.findings, []);
    assert!(
        alone.notes[0].what.starts_with("goes on from line 5"),
        "{:?}",
        alone.notes
    );
    // And the end of an old file is bound by the new one.
    let text = std::fs::read_to_string(&old).expect("is there");
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&old, lines[..4].join("\n") + "\n").expect("is written");
    let cut = verify(&paths, &Seal::Plain, None).expect("is readable");
    assert_eq!(cut.findings[0].what, "missing: line 5 before it");
}

#[test]
fn a_torn_line_is_a_note_once_the_next_start_saw_it() {
    let log = Log::of(3, Seal::Plain);
    let text = std::fs::read_to_string(&log.path).expect("is there");
    let half = text.len() - 40;
    std::fs::write(&log.path, &text[..half]).expect("is written");
    // Killed before the line was on the disk, so before its head was noted.
    let lines = log.lines();
    let head = &lines[1][lines[1].len() - 66..][..64];
    std::fs::write(file::head_path(&log.path), format!("2 {head}\n")).expect("is written");
    assert!(log.wrong()[0].starts_with("3: the end is no whole line"));
    let audit = log.start(Seal::Plain);
    audit.record("started", Vec::new());
    assert!(audit.close(PATIENCE));
    let verdict = verify(std::slice::from_ref(&log.path), &Seal::Plain, None);
    let verdict = verdict.expect("is readable");
    assert_eq!(verdict.findings, []);
    assert!(
        verdict.notes[0].what.ends_with("torn by a crash"),
        "{:?}",
        verdict.notes
    );
    // The torn text is bound, too.
    let mut lines = log.lines();
    lines[2].push('x');
    log.write(&lines);
    assert_eq!(log.wrong()[0], "3: no line of an audit log");
    lines.remove(2);
    log.write(&lines);
    assert!(log.wrong()[0].starts_with("3: speaks of a torn line"));
}

#[test]
fn what_cannot_be_kept_is_said_in_its_place() {
    let log = Log::new();
    let audit = log.start(Seal::Plain);
    audit.record("started", Vec::new());
    assert!(audit.flush(PATIENCE));
    // The writer waits for the lock as it would for a disk that stands still.
    let held = std::fs::File::open(&log.path).expect("opens");
    held.lock().expect("is locked");
    for n in 0..MOST_WAITING as u64 * 2 + 100 {
        audit.record("adopted", vec![("n", n.into())]);
    }
    assert!(!audit.flush(Duration::from_millis(10)));
    held.unlock().expect("is unlocked");
    assert!(audit.close(PATIENCE));
    let verdict = verify(std::slice::from_ref(&log.path), &Seal::Plain, None);
    let verdict = verdict.expect("is readable");
    assert_eq!(verdict.findings, []);
    let dropped = audit.0.dropped.load(Relaxed);
    let said = format!("{dropped} events could not be kept");
    assert!(dropped >= 100, "{dropped}");
    assert!(
        verdict.notes.iter().any(|note| note.what == said),
        "{:?}",
        verdict.notes
    );
    let events = verdict.head.seq;
    assert_eq!(events, 1 + MOST_WAITING as u64 * 2 + 100 - dropped + 1);
}

#[test]
fn a_failing_disk_is_told_and_tried_again() {
    let log = Log::new();
    std::fs::create_dir(log.dir.path().join("sub")).expect("is made");
    let path = log.dir.path().join("sub/audit.log");
    let audit = Audit::start(&path, Seal::Plain, Arc::new(SystemClock)).expect("starts");
    audit.record("started", Vec::new());
    assert!(audit.flush(PATIENCE));
    // A folder in the file's place cannot be opened for writing.
    std::fs::remove_file(&path).expect("is removed");
    std::fs::create_dir(&path).expect("is made");
    audit.record("adopted", Vec::new());
    assert!(!audit.flush(Duration::from_millis(200)));
    assert!(audit.failure().is_some());
    std::fs::remove_dir(&path).expect("is removed");
    assert!(audit.flush(PATIENCE), "it heals by itself");
    assert_eq!(audit.failure(), None);
    assert!(audit.0.failures.load(Relaxed) > 0);
    assert!(audit.close(PATIENCE));
}

const PATIENCE: Duration = Duration::from_secs(10);
