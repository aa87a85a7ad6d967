//! A folder that is read without being left, and in which nothing counts that somebody else could
//! have put there. Links are followed one by one, since who may change a link chooses the value.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use crate::secrets::manager::{FetchError, MAX_DOCUMENT_BYTES, Step};

/// The folder with every link on the way to it followed.
pub(super) struct Folder {
    root: PathBuf,
    /// Users whose files count: root, ourselves, and whom the folder belongs to.
    trusted: [u32; 3],
}

impl Folder {
    pub(super) fn open(root: &Path) -> Result<Self, FetchError> {
        let gone = |error: io::Error| folder_gone(error.kind());
        let root = fs::canonicalize(root).map_err(gone)?;
        let owner = fs::metadata(&root).map_err(gone)?.uid();
        // Who may write a folder above can put another one in the place of this.
        for above in root.ancestors().skip(1) {
            let mode = fs::metadata(above).map_err(gone)?.mode();
            if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
                return Err(FetchError::Insecure("others may write a folder above"));
            }
        }
        let ourselves = rustix::process::geteuid().as_raw();
        Ok(Self {
            root,
            trusted: [0, ourselves, owner],
        })
    }

    /// The bytes of a file below the folder, unless it is not there.
    pub(super) fn read(&self, relative: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FetchError> {
        match self.find(relative)? {
            Some(path) => self.read_file(&path),
            None => Ok(None),
        }
    }

    /// Whether there is a folder of that path below this one.
    pub(super) fn has_folder(&self, relative: &str) -> bool {
        let found = self.find(relative);
        matches!(found, Ok(Some(path)) if path.is_dir())
    }

    /// Where Kubernetes' link to the files in force leads, if the folder below has one. A mount is
    /// swapped as a whole by turning this link.
    pub(super) fn generation(&self, relative: &str) -> Option<PathBuf> {
        fs::read_link(self.root.join(relative).join("..data")).ok()
    }

    /// Walks to a path, with every link on the way replaced by what it leads to.
    fn find(&self, relative: &str) -> Result<Option<PathBuf>, FetchError> {
        let mut steps: VecDeque<PathBuf> = steps(Path::new(relative));
        let mut at = self.root.clone();
        let mut links = 0;
        while let Some(step) = steps.pop_front() {
            if step.as_os_str() == ".." {
                if at == self.root {
                    return Err(OUTSIDE);
                }
                at.pop();
                continue;
            }
            let folder = match fs::metadata(&at) {
                Ok(metadata) => metadata,
                Err(error) => return self.not_seen(&at, &error),
            };
            let next = at.join(step);
            let found = match fs::symlink_metadata(&next) {
                Ok(metadata) => metadata,
                Err(error) => return self.not_seen(&at, &error),
            };
            self.check_folder(&folder, &found)?;
            if !found.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(FetchError::Insecure("too many links"));
            }
            let target = match fs::read_link(&next) {
                Ok(target) => target,
                Err(error) => return self.not_seen(&at, &error),
            };
            let mut rest = if target.is_absolute() {
                at.clone_from(&self.root);
                match fs::canonicalize(&target) {
                    Ok(real) => {
                        let inside = real.strip_prefix(&self.root).map_err(|_| OUTSIDE)?;
                        self::steps(inside)
                    }
                    Err(error) if is_absent(error.kind()) => return Ok(None),
                    Err(error) => return Err(unreadable(error.kind())),
                }
            } else {
                self::steps(&target)
            };
            rest.append(&mut steps);
            steps = rest;
        }
        Ok(Some(at))
    }

    /// What it means that something below `at` cannot be looked at.
    fn not_seen(&self, at: &Path, error: &io::Error) -> Result<Option<PathBuf>, FetchError> {
        match error.kind() {
            // The folder itself gone or closed is an outage, not an answer.
            kind if is_absent(kind) => match fs::metadata(&self.root) {
                Ok(_) => Ok(None),
                Err(error) => Err(folder_gone(error.kind())),
            },
            ErrorKind::PermissionDenied if at == self.root => {
                Err(folder_gone(ErrorKind::PermissionDenied))
            }
            kind => Err(unreadable(kind)),
        }
    }

    /// Whether an entry of a folder stands there by the will of somebody trusted.
    fn check_folder(&self, folder: &Metadata, entry: &Metadata) -> Result<(), FetchError> {
        if !self.trusted.contains(&folder.uid()) {
            return Err(FetchError::Insecure("the folder is somebody else's"));
        }
        if folder.mode() & OTHERS_WRITE != 0 && folder.mode() & STICKY == 0 {
            return Err(FetchError::Insecure("others may write the folder"));
        }
        // In a sticky folder (Kubernetes mounts secrets as such) others may add, but not replace.
        if !self.trusted.contains(&entry.uid()) {
            return Err(FetchError::Insecure("it is somebody else's"));
        }
        Ok(())
    }

    fn read_file(&self, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FetchError> {
        // Looked at before it is opened: opening a device may already do something.
        let before = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(error.kind()) => return Ok(None),
            Err(error) => return Err(unreadable(error.kind())),
        };
        if before.is_dir() {
            return Ok(None);
        }
        if !before.is_file() {
            return Err(FetchError::Insecure("not a regular file"));
        }
        // Not to hang on a pipe, nor to follow a link, that was put there meanwhile.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absent(error.kind()) => return Ok(None),
            Err(error) => return Err(unreadable(error.kind())),
        };
        let metadata = file.metadata().map_err(|error| unreadable(error.kind()))?;
        if !metadata.is_file() {
            return Err(FetchError::Insecure("not a regular file"));
        }
        if !self.trusted.contains(&metadata.uid()) {
            return Err(FetchError::Insecure("it is somebody else's"));
        }
        if metadata.mode() & OTHERS_WRITE != 0 {
            return Err(FetchError::Insecure("others may write the file"));
        }
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        read_bounded(&file, size).map(Some)
    }
}

/// Reads a file of about that size, up to the bound of documents.
pub(super) fn read_bounded(file: &File, size: usize) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    if size > MAX_DOCUMENT_BYTES {
        return Err(FetchError::TooLarge(MAX_DOCUMENT_BYTES));
    }
    // Room for what it grows to meanwhile, so that the buffer never moves unwiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + GROWTH_BYTES));
    let limit = u64::try_from(size + GROWTH_BYTES).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.kind()))?;
    if bytes.len() >= size + GROWTH_BYTES {
        return Err(FetchError::Garbage("file grows while it is read"));
    }
    Ok(bytes)
}

/// The steps of a relative path, `..` among them.
fn steps(path: &Path) -> VecDeque<PathBuf> {
    let step = |component| match component {
        Component::Normal(name) => Some(name.into()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(step).collect()
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

/// A file the system does not let us read is an answer, as a manager's 403 is; anything else says
/// nothing about the value.
pub(super) fn unreadable(kind: ErrorKind) -> FetchError {
    match kind {
        ErrorKind::PermissionDenied => FetchError::Forbidden,
        kind => FetchError::Unreadable(kind.to_string().into()),
    }
}

fn folder_gone(kind: ErrorKind) -> FetchError {
    FetchError::Unreachable(Step::Tcp, format!("folder: {kind}").into())
}

const OUTSIDE: FetchError = FetchError::Insecure("link leads out of the folder");
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
/// As Linux: more are a circle.
const MOST_LINKS: usize = 40;
const GROWTH_BYTES: usize = 4096;
