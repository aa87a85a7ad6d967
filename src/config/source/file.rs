//! A resource file, or a folder whose files are read as one document. Files whose content did not
//! change are not parsed again.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::{content_hash, files_of, read_bounded};
use crate::config::Documents;
use crate::config::assemble::assemble;
use crate::config::bootstrap::Declared;
use crate::config::node::At;
use crate::config::parse::{ParsedFile, SharedEnv, parse_file, process_env, refusal, utf8};
use crate::config::places::{Places, Retained};
use crate::diagnostic::Diagnostic;

/// Why a source gave no documents. What was in force stays in force.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{diagnostic}")]
pub struct LoadError {
    /// Where and why.
    pub diagnostic: Diagnostic,
}

/// How a source reads.
#[derive(Clone)]
pub struct SourceOptions {
    /// All files together may be no larger, in bytes. Default 64 MiB.
    pub max_bytes: u64,
    /// Answers `${{VAR}}`. Default: the process's environment.
    pub env: SharedEnv,
    /// What `config.yaml` adds to the files. Default: nothing.
    pub declared: Arc<Declared>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            env: process_env(),
            declared: Arc::default(),
        }
    }
}

/// A resource file or folder. Reading blocks; call it where blocking is fine.
pub struct Source {
    path: PathBuf,
    options: SourceOptions,
    parsed: HashMap<PathBuf, Parsed>,
}

#[derive(Clone)]
struct Parsed {
    hash: u64,
    bytes: u64,
    file: Arc<ParsedFile>,
}

impl Source {
    /// A source that has read nothing yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, options: SourceOptions) -> Self {
        Self {
            path: path.into(),
            options,
            parsed: HashMap::new(),
        }
    }

    /// Reads everything and parses what changed since the last time.
    ///
    /// # Errors
    /// A file cannot be read, is too large or does not parse; then nothing of the source counts.
    pub fn load(&mut self) -> Result<Documents, LoadError> {
        let paths = files_of(&self.path).map_err(|error| self.unreadable(&self.path, &error))?;
        let mut left = self.options.max_bytes;
        let mut parsed = HashMap::with_capacity(paths.len());
        let (mut files, mut retained) = (
            Vec::with_capacity(paths.len()),
            Vec::with_capacity(paths.len()),
        );
        let mut content = SipHasher13::new();
        for path in paths {
            let bytes =
                read_bounded(&path, left).map_err(|error| self.unreadable(&path, &error))?;
            left -= bytes.len() as u64;
            let entry = self.parse(&path, &bytes)?;
            (&path, entry.hash).hash(&mut content);
            let name = entry.file.file.clone();
            retained.push(Retained::on_disk(
                name,
                path.clone(),
                entry.hash,
                entry.bytes,
            ));
            files.push(entry.file.clone());
            parsed.insert(path, entry);
        }
        // A single file is parsed again as a whole, so its items need not stand here as well.
        self.parsed = if files.len() > 1 {
            parsed
        } else {
            HashMap::new()
        };
        let places = Places::new(retained, self.options.env.clone());
        let mut documents = assemble(&files, places);
        documents.content = content.finish();
        self.options.declared.join(&mut documents);
        Ok(documents)
    }

    fn parse(&self, path: &Path, bytes: &[u8]) -> Result<Parsed, LoadError> {
        let hash = content_hash(bytes);
        if let Some(same) = self.parsed.get(path).filter(|parsed| parsed.hash == hash) {
            return Ok(same.clone());
        }
        let file: Arc<str> = path.to_string_lossy().into();
        let refused = |diagnostic| LoadError { diagnostic };
        let text = utf8(bytes, &file).map_err(refused)?;
        let parsed = parse_file(text, &file, &*self.options.env).map_err(refused)?;
        Ok(Parsed {
            hash,
            bytes: bytes.len() as u64,
            file: Arc::new(parsed),
        })
    }

    fn unreadable(&self, path: &Path, error: &io::Error) -> LoadError {
        let file: Arc<str> = path.to_string_lossy().into();
        let (code, message) = if error.kind() == io::ErrorKind::FileTooLarge {
            let limit = self.options.max_bytes;
            (
                "too-large",
                format!("resources are larger than claviger.max_resource_bytes ({limit} bytes)"),
            )
        } else {
            ("unreadable", format!("cannot be read: {error}"))
        };
        LoadError {
            diagnostic: refusal(&file, code, At::default(), message),
        }
    }
}
