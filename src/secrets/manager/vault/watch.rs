//! Follows one small file: told by the kernel where that works, looked at every second besides.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Signature {
    /// Of the file a path leads to, if there is one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

pub(super) struct Watch {
    path: PathBuf,
    seen: Option<Signature>,
    noticed: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// `seen` is the state that is known already.
    pub(super) fn start(path: &Path, seen: Option<Signature>) -> Self {
        let noticed = Arc::new(Notify::new());
        Self {
            path: path.to_owned(),
            seen,
            _watcher: watcher(path, Arc::clone(&noticed)),
            noticed,
        }
    }

    /// Ends when the file is another than before.
    ///
    /// # Cancel safety
    /// A change is not lost, but may be noticed a second later.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                // Writers need a moment between emptying a file and filling it.
                () = self.noticed.notified() => tokio::time::sleep(WRITER_PAUSE).await,
                () = tokio::time::sleep(POLL) => {}
            }
            let path = self.path.clone();
            let looked = tokio::task::spawn_blocking(move || Signature::of(&path)).await;
            if let Ok(now) = looked
                && now != self.seen
            {
                self.seen = now;
                return;
            }
        }
    }
}

/// Watches the folder, so that renames and Kubernetes' swapped links count.
fn watcher(path: &Path, noticed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        // Our own reading makes `Access` events.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            noticed.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).ok()?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

const POLL: Duration = Duration::from_secs(1);
const WRITER_PAUSE: Duration = Duration::from_millis(50);
