//! Lines to a file or stream, by a thread of their own. Each thread that writes has a bounded
//! buffer; the writer's thread takes them in turn. Whoever writes never waits for a disk, a pipe
//! or another thread's line: what does not fit is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use thread_local::ThreadLocal;

/// Where lines go.
pub enum Target {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to; folders on the way are made.
    File(PathBuf),
    /// Anything else; not reopened.
    Writer(Box<dyn Write + Send>),
}

impl Target {
    /// Reads a path as nginx takes it: `stderr`, `/dev/stderr`, `/dev/stdout`, or a file.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        match path {
            "stderr" | "/dev/stderr" => Self::Stderr,
            "stdout" | "/dev/stdout" => Self::Stdout,
            _ => Self::File(path.into()),
        }
    }
}

/// Bounds of a [`Sink`].
#[derive(Debug, Clone, Copy)]
pub struct SinkConfig {
    /// The writer is woken when a thread's buffer has this much. Zero wakes it for each line.
    pub wake_bytes: usize,
    /// What a thread's buffer holds at most; lines past it are dropped. One line may go over.
    pub buffer_bytes: usize,
    /// The writer takes what there is at least this often.
    pub flush_interval: Duration,
}

/// A handle to the writer. Dropping the last one writes what is left and ends the thread.
#[derive(Clone)]
pub struct Sink(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    writer: Thread,
}

struct Shared {
    config: SinkConfig,
    buffers: ThreadLocal<Mutex<Buffer>>,
    dropped: AtomicU64,
    failures: AtomicU64,
    stop: AtomicBool,
    reopen: AtomicBool,
    rounds: Mutex<Rounds>,
    round_done: Condvar,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    count: u64,
    /// The writer was woken for what is in it.
    woken: bool,
}

/// Which flush was asked for, and which is done.
#[derive(Default)]
struct Rounds {
    asked: u64,
    done: u64,
}

impl Sink {
    /// Opens the target and starts the thread, which is called `name`.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn start(name: &str, target: Target, config: SinkConfig) -> io::Result<Self> {
        let output = Output::open(target)?;
        let shared = Arc::new(Shared {
            config,
            buffers: ThreadLocal::new(),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            rounds: Mutex::default(),
            round_done: Condvar::new(),
        });
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || running.write_until_stopped(output))?;
        Ok(Self(Arc::new(Running {
            writer: thread.thread().clone(),
            shared,
        })))
    }

    /// Appends one line, written by `render` without its line feed. Returns false where it was
    /// dropped. `render` must not write to this sink.
    pub fn line(&self, render: impl FnOnce(&mut Vec<u8>)) -> bool {
        let shared = &self.0.shared;
        let mut buffer = lock(shared.buffers.get_or_default());
        let written = shared.append(&mut buffer, render);
        let wake = !buffer.woken && buffer.lines.len() >= shared.config.wake_bytes;
        buffer.woken |= wake;
        drop(buffer);
        if wake {
            self.0.writer.unpark();
        }
        written
    }

    /// Lines that were dropped because a buffer was full or the target failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.shared.dropped.load(Relaxed)
    }

    /// Times the target could not be written or reopened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.shared.failures.load(Relaxed)
    }

    /// Opens the file anew before the next line, for log rotation. A file that was renamed or
    /// removed is noticed without being told, within the flush interval.
    pub fn reopen(&self) {
        self.0.shared.reopen.store(true, Relaxed);
        self.0.writer.unpark();
    }

    /// Waits until what was written so far has left, but no longer than `limit`; whether it has.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        self.0.flush(limit)
    }
}

impl Running {
    fn flush(&self, limit: Duration) -> bool {
        let mut rounds = lock(&self.shared.rounds);
        rounds.asked += 1;
        let mine = rounds.asked;
        self.writer.unpark();
        let done = &self.shared.round_done;
        let waited = done.wait_timeout_while(rounds, limit, |rounds| rounds.done < mine);
        let (rounds, _) = waited.unwrap_or_else(PoisonError::into_inner);
        rounds.done >= mine
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        // The thread is not joined: a target that stands still must not keep the process alive.
        let _ = self.flush(LAST_FLUSH);
    }
}

impl Shared {
    fn append(&self, buffer: &mut Buffer, render: impl FnOnce(&mut Vec<u8>)) -> bool {
        if buffer.lines.len() >= self.config.buffer_bytes {
            self.dropped.fetch_add(1, Relaxed);
            return false;
        }
        render(&mut buffer.lines);
        buffer.lines.push(b'\n');
        buffer.count += 1;
        true
    }

    fn write_until_stopped(&self, mut output: Output) {
        let mut taken = Vec::new();
        loop {
            let asked = lock(&self.rounds).asked;
            let stopping = self.stop.load(Acquire);
            if (self.reopen.swap(false, Relaxed) || output.has_moved()) && output.reopen().is_err()
            {
                self.failures.fetch_add(1, Relaxed);
            }
            self.take_all(&mut output, &mut taken);
            // After the last round nobody has to wait, whenever they asked.
            lock(&self.rounds).done = if stopping { u64::MAX } else { asked };
            self.round_done.notify_all();
            if stopping {
                return;
            }
            std::thread::park_timeout(self.config.flush_interval);
        }
    }

    fn take_all(&self, output: &mut Output, taken: &mut Vec<u8>) {
        for buffer in &self.buffers {
            let count = {
                let mut buffer = lock(buffer);
                buffer.woken = false;
                std::mem::swap(&mut buffer.lines, taken);
                std::mem::take(&mut buffer.count)
            };
            if !taken.is_empty() && output.write(taken).is_err() {
                self.dropped.fetch_add(count, Relaxed);
                self.failures.fetch_add(1, Relaxed);
            }
            taken.clear();
            taken.shrink_to(KEPT_CAPACITY);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open target.
enum Output {
    Stderr(io::Stderr),
    Stdout(io::Stdout),
    File { path: PathBuf, file: File },
    Writer(Box<dyn Write + Send>),
}

impl Output {
    fn open(target: Target) -> io::Result<Self> {
        Ok(match target {
            Target::Stderr => Self::Stderr(io::stderr()),
            Target::Stdout => Self::Stdout(io::stdout()),
            Target::File(path) => Self::File {
                file: open(&path)?,
                path,
            },
            Target::Writer(writer) => Self::Writer(writer),
        })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr(stream) => stream.write_all(lines),
            Self::Stdout(stream) => stream.write_all(lines).and_then(|()| stream.flush()),
            Self::File { file, .. } => file.write_all(lines),
            Self::Writer(writer) => writer.write_all(lines).and_then(|()| writer.flush()),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file } = self {
            *file = open(path)?;
        }
        Ok(())
    }

    /// Whether the path names another file than the open one.
    fn has_moved(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Self::File { path, file } = self else {
            return false;
        };
        let identity =
            |meta: io::Result<std::fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
        !is_device(path) && identity(std::fs::metadata(path)) != identity(file.metadata())
    }
}

fn is_device(path: &Path) -> bool {
    path.starts_with("/dev") || path.starts_with("/proc")
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(LOG_MODE).open(path)
}

/// Logs name clients and paths: not for everyone's eyes.
const LOG_MODE: u32 = 0o640;

/// Memory a buffer keeps after a burst.
const KEPT_CAPACITY: usize = 256 * 1024;

/// How long the last handle waits for the target.
const LAST_FLUSH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SinkConfig = SinkConfig {
        wake_bytes: 0,
        buffer_bytes: 64,
        flush_interval: Duration::from_secs(3),
    };

    fn push(sink: &Sink, text: &str) -> bool {
        sink.line(|line| line.extend_from_slice(text.as_bytes()))
    }

    /// A target that writes only while its gate is open.
    struct Gate(Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_target_costs_lines_and_never_time() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink::start("t", Target::Writer(Box::new(Gate(written.clone()))), CONFIG)
            .expect("starts");
        let stalled = lock(&written);
        for _ in 0..1000 {
            push(&sink, "0123456789");
        }
        assert!(!sink.flush(Duration::from_millis(10)), "nothing can leave");
        // What the writer took before it stalled, and what fits the buffer.
        assert!(sink.dropped() >= 1000 - 2 * 7, "{}", sink.dropped());
        drop(stalled);
        assert!(sink.flush(Duration::from_secs(5)));
        let text = String::from_utf8(lock(&written).clone()).expect("lines are text");
        let lines = text.lines().count();
        assert_eq!(
            lines as u64 + sink.dropped(),
            1000,
            "each line is accounted for"
        );
        assert!(push(&sink, "again"), "there is room again");
    }

    #[test]
    fn lines_arrive_whole_from_all_threads() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let config = SinkConfig {
            buffer_bytes: 1 << 20,
            ..CONFIG
        };
        let sink = Sink::start("t", Target::Writer(Box::new(Gate(written.clone()))), config)
            .expect("starts");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| assert!(push(&sink, "abcdef"))));
            }
        });
        drop(sink);
        assert_eq!(*lock(&written), "abcdef\n".repeat(2000).into_bytes());
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("logs/access.log");
        let sink = Sink::start("t", Target::File(path.clone()), CONFIG).expect("starts");
        push(&sink, "one");
        assert!(sink.flush(Duration::from_secs(5)));
        let moved = folder.path().join("logs/access.log.1");
        std::fs::rename(&path, &moved).expect("renames");
        sink.reopen();
        push(&sink, "two");
        drop(sink);
        let read = |path| std::fs::read_to_string(path).expect("reads");
        assert_eq!(
            (read(&moved), read(&path)),
            ("one\n".into(), "two\n".into())
        );
    }

    #[test]
    fn a_full_disk_is_counted() {
        let sink = Sink::start("t", Target::File("/dev/full".into()), CONFIG).expect("starts");
        push(&sink, "lost");
        assert!(sink.flush(Duration::from_secs(5)));
        assert_eq!((sink.dropped(), sink.failures()), (1, 1));
    }
}
