//! Word of changes to a file or folder: inotify on the folders, since a watch on a file is dead
//! after the first rename or Kubernetes `..data` swap, and a poll of the files' state behind it
//! for file systems that tell nothing.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use siphasher::sip::SipHasher13;
use tokio::sync::Notify;

use super::files_of;
use crate::config::parse::has_end_marker;

/// How often files are looked at without being told.
const POLL: Duration = Duration::from_secs(1);
/// How long a file without `#END` must be still before it counts as complete.
const STILL: Duration = Duration::from_millis(200);

/// Watches a file or folder. Start it before the first load, so that no change falls between.
pub struct Watcher {
    path: PathBuf,
    told: Arc<Notify>,
    inotify: Option<RecommendedWatcher>,
    folders: Vec<PathBuf>,
    seen: u64,
}

impl Watcher {
    /// Remembers the files' present state; changes are those from now on.
    #[must_use]
    pub fn start(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let told = Arc::new(Notify::new());
        let tell = told.clone();
        let listen = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                tell.notify_one();
            }
        };
        let seen = state(&path);
        let mut watcher = Self {
            path,
            told,
            inotify: notify::recommended_watcher(listen).ok(),
            folders: Vec::new(),
            seen,
        };
        watcher.watch_folders();
        watcher
    }

    /// Waits until the files differ from what they were when this last returned, and are
    /// complete: at once where every file ends with `#END`, else once they are still for 200 ms.
    /// May return without a change of content (a file was touched). Needs a Tokio runtime.
    ///
    /// # Cancel safety
    /// A change is told by the next call where this one was dropped.
    pub async fn changed(&mut self) {
        loop {
            let _ = tokio::time::timeout(POLL, self.told.notified()).await;
            let mut now = self.look().await;
            if now == self.seen {
                continue;
            }
            while !self.is_complete().await {
                tokio::time::sleep(STILL).await;
                let later = self.look().await;
                if later == now {
                    break;
                }
                now = later;
            }
            self.seen = now;
            // The file may have become a link into another folder.
            self.watch_folders();
            return;
        }
    }

    async fn look(&self) -> u64 {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || state(&path))
            .await
            .unwrap_or(self.seen)
    }

    async fn is_complete(&self) -> bool {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || all_marked(&path))
            .await
            .unwrap_or(false)
    }

    /// Watches the folder of the path and those its links lead through.
    fn watch_folders(&mut self) {
        let folders = folders_of(&self.path);
        let Some(inotify) = self.inotify.as_mut().filter(|_| folders != self.folders) else {
            return;
        };
        for gone in self.folders.iter().filter(|old| !folders.contains(old)) {
            // It may be gone already, which ended the watch.
            let _ = inotify.unwatch(gone);
        }
        for new in &folders {
            // Where a watch fails the poll still sees the change.
            let _ = inotify.watch(new, RecursiveMode::NonRecursive);
        }
        self.folders = folders;
    }
}

/// Our own reading raises access events, which must not wake us again.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The folder a path stands in, the path itself where it is a folder, and the same for the
/// targets of links.
fn folders_of(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut add = |folder: PathBuf| {
        let folder = if folder.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            folder
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    };
    let targets = std::iter::once(path.to_owned()).chain(files_of(path).unwrap_or_default());
    for target in targets {
        if target.is_dir() {
            add(target.clone());
        }
        let real = std::fs::canonicalize(&target).unwrap_or_else(|_| target.clone());
        for end in [target, real] {
            add(end.parent().map(Path::to_owned).unwrap_or_default());
        }
    }
    folders
}

/// Hash of which files there are and of what tells a changed one: inode, size, times.
fn state(path: &Path) -> u64 {
    let mut hasher = SipHasher13::new();
    for file in files_of(path).unwrap_or_default() {
        file.hash(&mut hasher);
        if let Ok(metadata) = std::fs::metadata(&file) {
            (metadata.dev(), metadata.ino(), metadata.len()).hash(&mut hasher);
            (metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
            (metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn all_marked(path: &Path) -> bool {
    files_of(path).is_ok_and(|files| !files.is_empty() && files.iter().all(|file| is_marked(file)))
}

/// Whether the file's last bytes hold `#END`. JSON has no marker.
fn is_marked(path: &Path) -> bool {
    let Ok(mut file) = File::open(path) else {
        return false;
    };
    let Ok(length) = file.seek(SeekFrom::End(0)) else {
        return false;
    };
    let mut tail = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(16)))
        .and_then(|_| file.take(16).read_to_end(&mut tail));
    read.is_ok() && has_end_marker(&tail)
}
