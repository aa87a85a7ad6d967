//! Whether the lines of audit logs are those that were written: all of them, unchanged, in order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::chain::{Digest, Head, Line, Seal};
use super::file::{ALTERED, TORN, noted_head};
use super::{DROPPED, chain};

/// What was found in files given in order, oldest first.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Each file.
    pub files: Vec<FileReport>,
    /// What is wrong; empty where the chain holds. At most 100, the rest is counted.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub wrong: usize,
    /// What is worth knowing and not wrong: a line torn by a crash, events that were dropped.
    pub notes: Vec<Finding>,
    /// Time of the first line.
    pub first_time: Option<String>,
    /// Time of the last line.
    pub last_time: Option<String>,
    /// The last line's number and hash, to be kept elsewhere and given to a later check.
    pub head: Head,
    /// Lines that carry an HMAC.
    pub keyed: u64,
}

/// One file.
#[derive(Debug)]
pub struct FileReport {
    /// As given.
    pub path: PathBuf,
    /// Lines of the chain in it.
    pub lines: u64,
    /// Number of its first line.
    pub first: Option<u64>,
    /// Number of its last line.
    pub last: Option<u64>,
}

/// Something about one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What it is.
    pub what: String,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Lines carry an HMAC and no key was given.
    #[error("{}:{line}: the line is sealed with a key; say which", path.display())]
    NeedsKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// Checks the files as one chain. `seal` is the key lines may be sealed with. `known` is a hash
/// that was read from the log earlier: it must still be in it. The head noted beside the last
/// file must be, too.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(paths: &[PathBuf], seal: &Seal, known: Option<&str>) -> Result<Verdict, VerifyError> {
    let mut wanted = Vec::new();
    // Read before the file is: lines may be added meanwhile.
    let noted = paths.last().map(|path| noted_head(path));
    if let Some(noted) = noted.filter(|noted| noted.seq > 0) {
        wanted.push((noted.hash, "the head noted beside the file"));
    }
    if let Some(known) = known {
        // What is no hash is the hash of no line.
        let hash = chain::unhex(known).unwrap_or([0xff; 32]);
        wanted.push((hash, "the head that was given"));
    }
    let mut reader = Reader {
        seal,
        wanted,
        verdict: Verdict::default(),
        before: None,
        torn: None,
        seen: BTreeSet::new(),
        gaps: Vec::new(),
    };
    for path in paths {
        reader.file(path)?;
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    seal: &'a Seal,
    /// Hashes that must be met.
    wanted: Vec<(Digest, &'static str)>,
    verdict: Verdict,
    /// The line before.
    before: Option<Head>,
    /// Lines that are none, gathered until a note explains them.
    torn: Option<(Place, Vec<u8>)>,
    /// Numbers of lines that came too late to be in order.
    seen: BTreeSet<u64>,
    /// Numbers that were left out, where that was noticed.
    gaps: Vec<(Place, std::ops::Range<u64>)>,
}

#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    line: u64,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> Result<(), VerifyError> {
        let failed = |source| VerifyError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        // So that no half-written batch is met. Where locks are not to be had it is done without.
        let _ = file.lock_shared();
        self.verdict.files.push(FileReport {
            path: path.to_owned(),
            lines: 0,
            first: None,
            last: None,
        });
        let mut lines = BufReader::new(file);
        let mut text = Vec::new();
        let mut number = 0;
        loop {
            text.clear();
            let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut text);
            if read.map_err(failed)? == 0 {
                return Ok(());
            }
            number += 1;
            let place = Place {
                path: path.to_owned(),
                line: number,
            };
            self.line(place, text.strip_suffix(b"\n").unwrap_or(&text))?;
        }
    }

    fn line(&mut self, place: Place, text: &[u8]) -> Result<(), VerifyError> {
        let Some(line) = Line::parse(text) else {
            match &mut self.torn {
                Some((_, torn)) => {
                    torn.push(b'\n');
                    torn.extend_from_slice(text);
                }
                None => self.torn = Some((place, text.to_vec())),
            }
            return Ok(());
        };
        let Some(holds) = line.holds(self.seal) else {
            return Err(VerifyError::NeedsKey {
                path: place.path,
                line: place.line,
            });
        };
        self.explain_torn(&line, &place);
        if !holds {
            self.wrong(
                &place,
                "changed: the line does not fit its own hash".to_owned(),
            );
        } else if self.verdict.keyed > 0 && !line.keyed {
            let what = "not sealed with the key, though lines before it are";
            self.wrong(&place, what.to_owned());
        }
        self.verdict.keyed += u64::from(line.keyed);
        if self.link(&line, &place) {
            self.before = Some(line.head);
        }
        self.remark(&line, &place);
        self.wanted.retain(|(hash, _)| *hash != line.head.hash);
        if let Some(file) = self.verdict.files.last_mut() {
            file.lines += 1;
            file.first.get_or_insert(line.head.seq);
            file.last = Some(line.head.seq);
        }
        let first = self.verdict.first_time.get_or_insert_default();
        if first.is_empty() {
            first.clone_from(&line.time);
        }
        self.verdict.last_time = Some(line.time);
        Ok(())
    }

    /// Whether the line stands where it belongs, so that the next one is measured by it.
    fn link(&mut self, line: &Line<'_>, place: &Place) -> bool {
        let begins = line.prev == Digest::default();
        let seq = line.head.seq;
        let Some(before) = self.before else {
            if begins != (seq == 1) {
                let what = "the beginning is missing: line 1 alone has nothing before it";
                self.wrong(place, what.to_owned());
            } else if !begins {
                let prev = chain::hex(&line.prev);
                self.note(place, format!("goes on from line {} ({prev})", seq - 1));
            }
            return true;
        };
        let follows = before.seq + 1;
        if seq == 1 && begins {
            let what = "a new chain begins here; nothing links it to the lines before";
            self.wrong(place, what.to_owned());
            return true;
        }
        if seq > follows {
            self.gaps.push((place.clone(), follows..seq));
            return true;
        }
        if seq < follows {
            self.seen.insert(seq);
            let what = format!(
                "inserted or out of order: line {seq} after line {}",
                before.seq
            );
            self.wrong(place, what);
            return false;
        }
        if line.prev != before.hash {
            let what = "the line before it was changed, or this one was put in its place";
            self.wrong(place, what.to_owned());
        }
        true
    }

    fn remark(&mut self, line: &Line<'_>, place: &Place) {
        match (&*line.event, line.count, line.expected) {
            (DROPPED, count, _) => {
                let count = count.unwrap_or_default();
                self.note(place, format!("{count} events could not be kept"));
            }
            (ALTERED, _, expected) => {
                let expected = expected.unwrap_or_default();
                let what = format!(
                    "the gateway found the log altered: line {expected} had been written before"
                );
                self.wrong(place, what);
            }
            _ => {}
        }
    }

    /// What stands before this line and is none: a crash may leave such, and the next start notes
    /// it.
    fn explain_torn(&mut self, line: &Line<'_>, place: &Place) {
        match self.torn.take() {
            Some((start, torn)) => {
                let fits = line.event == TORN
                    && line.bytes == Some(torn.len() as u64)
                    && line.sha256 == Some(openssl::sha::sha256(&torn));
                if fits {
                    let what = format!("{} bytes torn by a crash", torn.len());
                    self.note(&start, what);
                } else {
                    self.wrong(&start, "no line of an audit log".to_owned());
                }
            }
            None if line.event == TORN => {
                let what = "speaks of a torn line before it, which is not there any more";
                self.wrong(place, what.to_owned());
            }
            None => {}
        }
    }

    fn finish(mut self) -> Verdict {
        if let Some((place, torn)) = self.torn.take() {
            let bytes = torn.len();
            let what = format!(
                "the end is no whole line ({bytes} bytes): a crash leaves that, and the next start \
                 notes it"
            );
            self.wrong(&place, what);
        }
        for (place, gap) in std::mem::take(&mut self.gaps) {
            let (first, last) = (gap.start, gap.end - 1);
            let lines = if first == last {
                format!("line {first}")
            } else {
                format!("lines {first} to {last}")
            };
            let elsewhere = self.seen.range(gap).count() as u64 == last - first + 1;
            let what = if elsewhere {
                format!("out of order: {lines} stands behind it")
            } else {
                format!("missing: {lines} before it")
            };
            self.wrong(&place, what);
        }
        for (_, whose) in std::mem::take(&mut self.wanted) {
            let end = self.verdict.files.last();
            let place = Place {
                path: end.map(|file| file.path.clone()).unwrap_or_default(),
                line: end.map_or(0, |file| file.lines),
            };
            self.wrong(
                &place,
                format!("cut off: {whose} is not in the log (any more)"),
            );
        }
        if let (Seal::Keyed(_), 0) = (self.seal, self.verdict.keyed)
            && let Some(file) = self.verdict.files.last()
        {
            let place = Place {
                path: file.path.clone(),
                line: file.lines,
            };
            self.wrong(&place, "no line is sealed with the key".to_owned());
        }
        let mut verdict = self.verdict;
        verdict.head = self.before.unwrap_or_default();
        let order = |finding: &Finding| {
            let at = verdict.files.iter();
            let file = at.take_while(|file| file.path != finding.path).count();
            (file, finding.line)
        };
        verdict.findings.sort_by_key(order);
        verdict
    }

    fn wrong(&mut self, place: &Place, what: String) {
        self.verdict.wrong += 1;
        if self.verdict.findings.len() < MOST_TOLD {
            self.verdict.findings.push(place.with(what));
        }
    }

    fn note(&mut self, place: &Place, what: String) {
        if self.verdict.notes.len() < MOST_TOLD {
            self.verdict.notes.push(place.with(what));
        }
    }
}

impl Place {
    fn with(&self, what: String) -> Finding {
        Finding {
            path: self.path.clone(),
            line: self.line,
            what,
        }
    }
}

const MOST_TOLD: usize = 100;
/// Far longer than any line of ours.
const LONGEST_LINE: u64 = 1 << 20;
