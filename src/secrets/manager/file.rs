//! `file`: a folder of JSON or YAML documents, or of files that hold one value each (as Kubernetes
//! and Docker mount secrets). `edge/tls/key` is field `key` of `edge/tls.json`, `.yaml` or `.yml`,
//! else the file `edge/tls/key`. Reads nothing that others may write, and nothing outside the folder.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use notify::{EventKind, RecursiveMode, Watcher as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::document::{Document, FieldMap, FieldValue};
use super::{
    BuildCtx, BuildError, FetchError, Location, MAX_DOCUMENT_BYTES, Manager, ManagerDef, OnChange,
    Read, Step,
};
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
    let root = Arc::from(config.path.as_path());
    Ok(Box::new(FileManager { root }))
}

struct FileManager {
    root: Arc<Path>,
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
        // A hanging network mount holds one of the runtime's blocking threads, never a worker.
        tokio::task::spawn_blocking(move || Folder::open(&root)?.document(&path, &fields))
            .await
            .unwrap_or(Err(FetchError::Garbage("reading was interrupted")))
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

/// The folder with every link on the way to it followed.
struct Folder(PathBuf);

impl Folder {
    fn open(root: &Path) -> Result<Self, FetchError> {
        let real = std::fs::canonicalize(root).map_err(|error| folder_gone(error.kind()))?;
        Ok(Self(real))
    }

    fn document(&self, path: &str, fields: &[Arc<str>]) -> Result<Document, FetchError> {
        for candidate in document_names(path) {
            if let Some(bytes) = self.read(&candidate)? {
                let fields = parse(&candidate, &bytes)?;
                return Ok(Document::new(fields, None));
            }
        }
        self.one_value_per_file(path, fields)
    }

    fn one_value_per_file(&self, path: &str, fields: &[Arc<str>]) -> Result<Document, FetchError> {
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
            let value = match self.read(&relative) {
                Ok(Some(bytes)) => {
                    FieldValue::Text(Secret::new(without_last_newline(&bytes).to_vec()))
                }
                Ok(None) => continue,
                // Only this value is to be refused, not its neighbours.
                Err(FetchError::Insecure(what)) => FieldValue::Other(what),
                Err(FetchError::TooLarge(_)) => FieldValue::Other("file is too large"),
                Err(error) => return Err(error),
            };
            found.insert((&**field).into(), value);
        }
        if found.is_empty() && !self.0.join(path).is_dir() {
            return Err(FetchError::NotFound);
        }
        Ok(Document::new(found, None))
    }

    /// The bytes of a file below the folder, unless it is not there.
    fn read(&self, relative: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FetchError> {
        let real = match std::fs::canonicalize(self.0.join(relative)) {
            Ok(real) => real,
            Err(error) if is_absent(error.kind()) => {
                // The folder itself gone is an outage, not an answer.
                std::fs::metadata(&self.0).map_err(|error| folder_gone(error.kind()))?;
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error.kind())),
        };
        let inside = real
            .strip_prefix(&self.0)
            .map_err(|_| FetchError::Insecure("link leads out of the folder"))?;
        let mut folder = self.0.clone();
        check_folder(&folder)?;
        for part in inside.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            check_folder(&folder)?;
        }
        read_file(&real)
    }
}

fn read_file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FetchError> {
    // Not to hang on a pipe; not to follow a link that was put there meanwhile.
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
    if metadata.is_dir() {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Err(FetchError::Insecure("not a regular file"));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(FetchError::Insecure("others may write the file"));
    }
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    read_bounded(&file, size).map(Some)
}

fn read_bounded(file: &File, size: usize) -> Result<Zeroizing<Vec<u8>>, FetchError> {
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

/// A small file that a manager's field names, such as a CA bundle.
pub(super) fn read_named(path: &Path) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    let file = File::open(path).map_err(|error| unreadable(error.kind()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.kind()))?;
    if !metadata.is_file() {
        return Err(FetchError::Insecure("not a regular file"));
    }
    read_bounded(&file, usize::try_from(metadata.len()).unwrap_or(usize::MAX))
}

fn check_folder(path: &Path) -> Result<(), FetchError> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.kind()))?;
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(FetchError::Insecure("others may write the folder"));
    }
    Ok(())
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

fn is_absent(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

fn unreadable(kind: ErrorKind) -> FetchError {
    FetchError::Unreadable(kind.to_string().into())
}

fn folder_gone(kind: ErrorKind) -> FetchError {
    FetchError::Unreachable(Step::Tcp, format!("folder: {kind}").into())
}

const EXTENSIONS: &[&str] = &["json", "yaml", "yml"];
const OTHERS_WRITE: u32 = 0o002;
const GROWTH_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_looked_for_by_name_and_by_extension() {
        assert_eq!(document_names("a/b"), ["a/b.json", "a/b.yaml", "a/b.yml"]);
        assert_eq!(document_names("a.json")[0], "a.json");
        assert!(document_names("").is_empty());
    }

    #[test]
    fn one_newline_at_the_end_is_the_editors_not_the_values() {
        for (bytes, value) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            assert_eq!(without_last_newline(bytes.as_bytes()), value.as_bytes());
        }
    }
}
