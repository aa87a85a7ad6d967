//! `file`: a folder of JSON or YAML documents, or of files that hold one value each (as Kubernetes
//! and Docker mount secrets). `edge/tls/key` is field `key` of `edge/tls.json`, `.yaml` or `.yml`,
//! else the file `edge/tls/key`. Reads nothing that others may write, and nothing outside the folder.
//! A file that is not there, or that we may not read, is an answer; a folder that is gone is none.

mod folder;

use std::any::Any;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use notify::{EventKind, RecursiveMode, Watcher as _};
use serde::Deserialize;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::document::{Document, FieldMap, FieldValue};
use super::{BuildCtx, BuildError, FetchError, Location, Manager, ManagerDef, OnChange, Read};
use folder::{Folder, read_bounded, unreadable};

use crate::secrets::reference::{Key, ReferenceError};
use crate::secrets::value::Secret;

pub(in crate::secrets) const DEF: ManagerDef = ManagerDef {
    name: "file",
    build: |fields, ctx| build(&fields.parse()?, ctx),
    access: &[],
};

#[derive(Deserialize)]
struct FileConfig {
    /// The folder; relative to the working directory.
    path: PathBuf,
}

fn build(config: &FileConfig, _ctx: &BuildCtx<'_>) -> Result<Box<dyn Manager>, BuildError> {
    if config.path.as_os_str().is_empty() {
        return Err(BuildError::new("path", "expected the path of a folder"));
    }
    Ok(Box::new(FileManager {
        root: Arc::from(config.path.as_path()),
        readers: Arc::new(Semaphore::new(MOST_READERS)),
    }))
}

struct FileManager {
    root: Arc<Path>,
    /// Held by a read until it ends, also when nobody waits for it any more.
    readers: Arc<Semaphore>,
}

#[async_trait]
impl Manager for FileManager {
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        if key.version.is_some() {
            return Err(ReferenceError::Query("files have no versions"));
        }
        Ok(Location::split_last(key))
    }

    async fn fetch(&self, read: Read<'_>) -> Result<Document, FetchError> {
        let root = Arc::clone(&self.root);
        let path = read.path.to_owned();
        let fields = read.fields.to_vec();
        let interrupted = || FetchError::Garbage("reading was interrupted");
        let readers = Arc::clone(&self.readers);
        let turn = readers.acquire_owned().await.map_err(|_| interrupted())?;
        // A hanging network mount holds some of the runtime's blocking threads, never a worker, and
        // never so many that others (the resolver is one) have none.
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            document(&Folder::open(&root)?, &path, &fields)
        });
        read.await.unwrap_or_else(|_| Err(interrupted()))
    }

    fn watch(&self, on_change: OnChange) -> Option<Box<dyn Any + Send>> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading makes `Access` events.
                if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
                    on_change();
                }
            })
            .ok()?;
        watcher.watch(&self.root, RecursiveMode::Recursive).ok()?;
        Some(Box::new(watcher))
    }
}

/// Reads a document, or the values asked for where each is a file.
fn document(folder: &Folder, path: &str, fields: &[Arc<str>]) -> Result<Document, FetchError> {
    for candidate in document_names(path) {
        if let Some(bytes) = folder.read(&candidate)? {
            let fields = parse(&candidate, &bytes)?;
            return Ok(Document::new(fields, None));
        }
    }
    let mut swaps = 0;
    loop {
        let before = folder.generation(path);
        let found = one_value_per_file(folder, path, fields);
        // A certificate and its key must come from the same side of a swap.
        if folder.generation(path) == before || swaps == MOST_SWAPS {
            return found;
        }
        swaps += 1;
    }
}

fn one_value_per_file(
    folder: &Folder,
    path: &str,
    fields: &[Arc<str>],
) -> Result<Document, FetchError> {
    let mut found = FieldMap::new();
    for field in fields {
        // A field named behind `#` did not pass the check of segments.
        let is_name = !field.contains(['/', '\\', '\0']) && !field.starts_with('.');
        let relative = match path {
            "" => field.to_string(),
            path => format!("{path}/{field}"),
        };
        if !is_name {
            continue;
        }
        let value = match folder.read(&relative) {
            Ok(Some(bytes)) => FieldValue::Text(Secret::new(without_last_newline(&bytes).to_vec())),
            Ok(None) => continue,
            // Only this value is to be refused, not its neighbours.
            Err(FetchError::Insecure(what)) => FieldValue::Other(what),
            Err(FetchError::TooLarge(_)) => FieldValue::Other("file is too large"),
            Err(FetchError::Forbidden) => FieldValue::Other("we may not read the file"),
            Err(error) => return Err(error),
        };
        found.insert((&**field).into(), value);
    }
    if found.is_empty() && !path.is_empty() && !folder.has_folder(path) {
        return Err(FetchError::NotFound);
    }
    Ok(Document::new(found, None))
}

/// A small file that a manager's field names, such as a CA bundle.
pub(super) fn read_named(path: &Path) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    // Not to hang on a pipe.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(|error| unreadable(error.kind()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.kind()))?;
    if !metadata.is_file() {
        return Err(FetchError::Insecure("not a regular file"));
    }
    read_bounded(&file, usize::try_from(metadata.len()).unwrap_or(usize::MAX))
}

fn document_names(path: &str) -> Vec<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        return Vec::new();
    }
    let written = is_document(name).then(|| path.to_owned());
    let implied = EXTENSIONS
        .iter()
        .map(|extension| format!("{path}.{extension}"));
    written.into_iter().chain(implied).collect()
}

fn is_document(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn parse(name: &str, bytes: &[u8]) -> Result<FieldMap, FetchError> {
    if name.ends_with(".json") {
        serde_json::from_slice(bytes).map_err(|_| FetchError::Garbage("not a JSON object"))
    } else {
        serde_yaml::from_slice(bytes).map_err(|_| FetchError::Garbage("not a YAML mapping"))
    }
}

fn without_last_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

const EXTENSIONS: &[&str] = &["json", "yaml", "yml"];
/// Reads of one folder at a time, those that hang included.
const MOST_READERS: usize = 16;
/// A folder that is swapped more often than this while it is read is taken as it is.
const MOST_SWAPS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_looked_for_by_name_and_by_extension() {
        assert_eq!(document_names("a/b"), ["a/b.json", "a/b.yaml", "a/b.yml"]);
        assert_eq!(document_names("a.json")[0], "a.json");
        assert!(document_names("").is_empty());
    }

    fn pipe(folder: &Path) -> PathBuf {
        let path = folder.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo is in coreutils").success());
        path
    }

    /// It blocked whoever loaded a configuration, for ever.
    #[test]
    fn a_pipe_that_a_field_names_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = read_named(&pipe(folder.path()));
        assert_eq!(read.err(), Some(FetchError::Insecure("not a regular file")));
    }

    /// Each try on a mount that hangs took a thread for good, until the resolver had none.
    #[tokio::test(start_paused = true)]
    async fn reads_that_hang_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let readers = Arc::new(Semaphore::new(MOST_READERS));
        let manager = FileManager {
            root: Arc::from(folder.path()),
            readers: Arc::clone(&readers),
        };
        let fields = ["k".into()];
        let read = Read {
            path: "a",
            version: None,
            fields: &fields,
        };
        let hung = readers.acquire_many(MOST_READERS as u32).await;
        let limit = manager.time_limit();
        let waits = tokio::time::timeout(limit, manager.fetch(read)).await;
        waits.expect_err("no further thread must be taken");
        drop(hung);
        assert_eq!(manager.fetch(read).await.err(), Some(FetchError::NotFound));
        assert_eq!(readers.available_permits(), MOST_READERS);
    }

    #[test]
    fn one_newline_at_the_end_is_the_editors_not_the_values() {
        for (bytes, value) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            assert_eq!(without_last_newline(bytes.as_bytes()), value.as_bytes());
        }
    }
}
