//! Where resources come from. Today: a file or a folder, and word of their changes.

mod file;
mod watch;

#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

pub use file::{LoadError, Source, SourceOptions};
pub use watch::Watcher;

/// Reads a file that may be no larger than `max` bytes, without reading a larger one whole.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let message = format!("file is larger than the limit of {max} bytes");
        io::Error::new(io::ErrorKind::FileTooLarge, message)
    };
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Hash of a file's content.
pub(super) fn content_hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x636f_6e74, 0x656e_7473);
    hasher.write(bytes);
    hasher.finish()
}

/// The files of a source in the order they are joined: the file itself, or what a folder holds of
/// `*.yaml`, `*.yml` and `*.json`, by name. Hidden files are left out, and with them what
/// Kubernetes and editors keep there.
///
/// # Errors
/// The path cannot be read.
pub(super) fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = file.extension().and_then(|extension| extension.to_str());
        if !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
