//! The file an audit log is appended to. Holds the chain together over restarts, crashes,
//! rotation, and several processes that write one file while they hand over to each other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::chain::{Entry, Head, Line, Seal, hex, write_line};

pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    seal: Seal,
    /// The newest line we know of.
    head: Head,
    /// Where it ends; `None` before the file was looked at.
    end: Option<u64>,
}

impl AuditFile {
    /// Opens or makes the file, and folders on the way.
    pub(super) fn open(path: &Path, seal: Seal) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self {
            head: noted_head(path),
            path: path.to_owned(),
            file,
            seal,
            end: None,
        })
    }

    /// Appends these entries and waits until the disk has them. On an error nothing was appended.
    pub(super) fn append(&mut self, entries: &[Entry], now: SystemTime) -> io::Result<Head> {
        self.lock_current()?;
        let done = self.append_locked(entries, now);
        // Without the lock a successor would wait for us for ever; closing the file ends it too.
        self.file.unlock()?;
        done
    }

    /// Makes a new file where the path names none, or another one.
    pub(super) fn follow_rotation(&mut self) -> io::Result<()> {
        if self.has_moved() {
            self.file = open(&self.path)?;
            self.end = None;
            // Another process may have written the old file's last line.
            self.head = newer(self.head, noted_head(&self.path));
        }
        Ok(())
    }

    fn lock_current(&mut self) -> io::Result<()> {
        loop {
            self.follow_rotation()?;
            self.file.lock()?;
            if !self.has_moved() {
                return Ok(());
            }
            self.file.unlock()?;
        }
    }

    fn append_locked(&mut self, entries: &[Entry], now: SystemTime) -> io::Result<Head> {
        let length = self.file.metadata()?.len();
        let mut head = self.head;
        let mut lines = Vec::new();
        if self.end != Some(length) {
            let tail = self.read_tail(length)?;
            if tail.unended {
                lines.push(b'\n');
            }
            let known = self.head;
            head = tail.head.unwrap_or(known);
            let mut note = |event, fields| {
                let entry = Entry {
                    time: now,
                    event,
                    fields,
                };
                head = write_line(&mut lines, head, &entry, &self.seal);
            };
            if let Some(torn) = &tail.torn {
                let sha256 = hex(&openssl::sha::sha256(torn));
                let bytes = torn.len() as u64;
                note(
                    TORN,
                    vec![("bytes", bytes.into()), ("sha256", sha256.into())],
                );
            }
            // An empty file is a new one; one that was emptied under our hands is not.
            let emptied = length == 0 && self.end.is_some();
            let rewound = tail.head.is_some_and(|found| {
                found.seq < known.seq || (found.seq == known.seq && found != known)
            });
            if emptied || rewound {
                let fields = vec![
                    ("expected_seq", known.seq.into()),
                    ("expected_hash", known.hash().into()),
                ];
                note(ALTERED, fields);
            }
        }
        for entry in entries {
            head = write_line(&mut lines, head, entry, &self.seal);
        }
        let written = self.file.write_all(&lines);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Half a batch must not stay: it is written again.
            self.file.set_len(length)?;
            return Err(error);
        }
        self.head = head;
        self.end = Some(length + lines.len() as u64);
        // What it is good for survives without it: a failure is no reason to stop.
        let _ = note_head(&self.path, head);
        Ok(head)
    }

    /// The end of the file as somebody else may have left it.
    fn read_tail(&mut self, length: u64) -> io::Result<Tail> {
        let mut window = WINDOW;
        loop {
            let from = length.saturating_sub(window);
            self.file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            (&self.file).take(length - from).read_to_end(&mut bytes)?;
            let tail = Tail::of(&bytes, &self.seal);
            if tail.head.is_some() || from == 0 {
                return Ok(tail);
            }
            window = window.saturating_mul(16);
        }
    }

    fn has_moved(&self) -> bool {
        let identity =
            |meta: io::Result<std::fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
        identity(std::fs::metadata(&self.path)) != identity(self.file.metadata())
    }
}

/// What stands at the end of a file.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    /// The last line that holds.
    head: Option<Head>,
    /// What stands behind it, without a line feed at its end.
    torn: Option<Vec<u8>>,
    /// The last line has no line feed yet.
    unended: bool,
}

impl Tail {
    /// `bytes` begins anywhere in a line.
    fn of(bytes: &[u8], seal: &Seal) -> Self {
        let unended = bytes.last().is_some_and(|last| *last != b'\n');
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let mut end = text.len();
        loop {
            let start = memchr::memrchr(b'\n', &text[..end]).map_or(0, |at| at + 1);
            let line = Line::parse(&text[start..end]);
            if let Some(line) = line.filter(|line| line.holds(seal) != Some(false)) {
                let torn = text.get(end + 1..).filter(|_| end < text.len());
                return Self {
                    head: Some(line.head),
                    torn: torn.map(<[u8]>::to_vec),
                    unended,
                };
            }
            if start == 0 {
                let torn = Some(text.to_vec()).filter(|text| !text.is_empty());
                return Self {
                    head: None,
                    torn,
                    unended,
                };
            }
            end = start - 1;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true);
    options.mode(MODE).open(path)
}

/// Where the newest head is noted, so that the chain goes on when the file was rotated while
/// nobody wrote, and an end that was cut off is noticed.
pub(super) fn head_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

/// The noted head; the beginning of a chain where there is none.
pub(super) fn noted_head(path: &Path) -> Head {
    let text = std::fs::read_to_string(head_path(path)).unwrap_or_default();
    Head::parse(&text).unwrap_or_default()
}

fn note_head(path: &Path, head: Head) -> io::Result<()> {
    let path = head_path(path);
    let fresh = path.with_extension("head.new");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    let mut file = options.mode(MODE).open(&fresh)?;
    file.write_all(head.to_text().as_bytes())?;
    std::fs::rename(fresh, path)
}

fn newer(one: Head, other: Head) -> Head {
    if other.seq > one.seq { other } else { one }
}

/// Event of a line that follows what a crash left half-written.
pub(super) const TORN: &str = "torn";
/// Event of a line that follows something else than was written last.
pub(super) const ALTERED: &str = "altered";

/// Nobody's business but the operator's.
const MODE: u32 = 0o600;
/// How much of the end is looked at first; more where no line holds in it.
const WINDOW: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: &'static str) -> Entry {
        Entry {
            time: SystemTime::UNIX_EPOCH,
            event,
            fields: Vec::new(),
        }
    }

    fn append(file: &mut AuditFile, event: &'static str) -> Head {
        let head = file.append(&[entry(event)], SystemTime::UNIX_EPOCH);
        head.expect("is written")
    }

    fn events(path: &Path) -> Vec<String> {
        let text = std::fs::read(path).expect("is there");
        let lines = text.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
        let event = |line| Line::parse(line).map_or("?".to_owned(), |line| line.event);
        lines.map(event).collect()
    }

    struct Log {
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join("logs/audit.log");
            Self { path, _dir: dir }
        }

        fn open(&self) -> AuditFile {
            AuditFile::open(&self.path, Seal::Plain).expect("opens")
        }

        fn push(&self, bytes: &[u8]) {
            let mut file = open(&self.path).expect("opens");
            file.write_all(bytes).expect("is written");
        }
    }

    #[test]
    fn a_chain_goes_on_over_restarts() {
        let log = Log::new();
        append(&mut log.open(), "one");
        let head = append(&mut log.open(), "two");
        assert_eq!(
            (head.seq, events(&log.path)),
            (2, vec!["one".into(), "two".into()])
        );
        let mode = std::fs::metadata(&log.path).expect("is there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn processes_that_write_in_turn_make_one_chain() {
        let log = Log::new();
        let (mut one, mut two) = (log.open(), log.open());
        for seq in (1..7).step_by(2) {
            assert_eq!(append(&mut one, "one").seq, seq);
            assert_eq!(append(&mut two, "two").seq, seq + 1);
        }
        assert_eq!(events(&log.path).len(), 6, "and nothing is noted");
    }

    #[test]
    fn a_line_torn_by_a_crash_is_kept_and_noted() {
        for (torn, ended) in [
            ("{\"time\":\"20", false),
            ("\0\0\0\n\0\0", false),
            ("x\n", true),
        ] {
            let log = Log::new();
            append(&mut log.open(), "one");
            log.push(torn.as_bytes());
            let head = append(&mut log.open(), "two");
            assert_eq!(head.seq, 3, "the note is a line too");
            let text = std::fs::read_to_string(&log.path).expect("is text");
            assert!(text.contains(torn), "{text:?}");
            let noted = format!("\"bytes\":{}", torn.len() - usize::from(ended));
            assert!(text.contains(&noted), "{text:?}");
            assert!(events(&log.path).ends_with(&["torn".into(), "two".into()]));
        }
    }

    #[test]
    fn a_whole_line_without_its_line_feed_is_no_torn_one() {
        let log = Log::new();
        append(&mut log.open(), "one");
        let text = std::fs::read(&log.path).expect("is there");
        std::fs::write(&log.path, &text[..text.len() - 1]).expect("is written");
        append(&mut log.open(), "two");
        assert_eq!(events(&log.path), ["one", "two"]);
    }

    #[test]
    fn a_rotated_file_is_followed_and_the_new_one_goes_on() {
        let log = Log::new();
        let mut file = log.open();
        append(&mut file, "one");
        let old = log.path.with_extension("log.1");
        std::fs::rename(&log.path, &old).expect("is renamed");
        assert_eq!(append(&mut file, "two").seq, 2);
        assert_eq!(
            (events(&old), events(&log.path)),
            (vec!["one".into()], vec!["two".into()])
        );
        // The same while nobody writes.
        drop(file);
        std::fs::rename(&log.path, &old).expect("is renamed");
        assert_eq!(append(&mut log.open(), "three").seq, 3);
        assert_eq!(events(&log.path), ["three"]);
    }

    #[test]
    fn an_end_that_was_cut_off_is_noted() {
        let log = Log::new();
        let mut file = log.open();
        let lengths = ["one", "two", "three"].map(|event| {
            append(&mut file, event);
            std::fs::metadata(&log.path).expect("is there").len()
        });
        let cut = open(&log.path).expect("opens");
        cut.set_len(lengths[0]).expect("is cut");
        append(&mut file, "four");
        assert_eq!(events(&log.path), ["one", "altered", "four"]);
        // Also between two processes.
        let length = std::fs::metadata(&log.path).expect("is there").len();
        append(&mut file, "five");
        cut.set_len(length).expect("is cut");
        append(&mut log.open(), "six");
        assert_eq!(events(&log.path)[3..], ["altered", "six"]);
        // And emptied under our hands.
        let mut file = log.open();
        append(&mut file, "seven");
        cut.set_len(0).expect("is cut");
        append(&mut file, "eight");
        assert_eq!(events(&log.path), ["altered", "eight"]);
    }

    #[test]
    fn what_the_disk_did_not_take_leaves_nothing_behind() {
        let full = AuditFile::open(Path::new("/dev/full"), Seal::Plain);
        // A device cannot be cut back, and says so; all the same nothing is lost silently.
        let mut full = full.expect("opens");
        assert!(
            full.append(&[entry("one")], SystemTime::UNIX_EPOCH)
                .is_err()
        );
        assert_eq!(full.head, Head::default());
    }
}
