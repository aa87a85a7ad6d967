//! The KV engine, version 1 and 2: what the prefix is mounted as, where a document stands, and what
//! the answers hold.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;

use super::{answer, encode};
use crate::secrets::manager::document::{Document, FieldMap};
use crate::secrets::manager::{FetchError, Read};

pub(super) struct Kv {
    /// Encoded segments.
    prefix: Vec<String>,
    pub(super) declared: Option<Engine>,
    /// What the mount turned out to be, until a read says otherwise.
    known: Mutex<Option<Engine>>,
    /// Held while the mount is asked for, so that a load of many documents asks once.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    V1,
    V2 {
        /// Segments of the prefix that are the mount's path.
        mount_len: usize,
    },
}

impl Kv {
    pub(super) fn new(prefix: Vec<String>, declared: Option<Engine>) -> Self {
        Self {
            prefix,
            declared,
            known: Mutex::new(None),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The engine, where that is known without asking.
    pub(super) fn engine(&self) -> Option<Engine> {
        match self.declared {
            Some(Engine::V1) => Some(Engine::V1),
            _ => *self.known.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Remembers, or forgets, what the prefix is mounted as.
    pub(super) fn learn(&self, engine: Option<Engine>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    /// Where to ask what the prefix is mounted as.
    pub(super) fn mount_question(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.prefix.join("/"))
    }

    /// What the answer to that says.
    pub(super) fn of_mount(&self, body: &[u8]) -> Result<Engine, FetchError> {
        let mount = answer::parse::<MountAnswer>(body)?.data;
        let segments = mount.path.split('/').filter(|part| !part.is_empty());
        let mount_len = segments.count();
        if mount_len == 0 || mount_len > self.prefix.len() {
            return Err(FetchError::Garbage("mount is not a part of the prefix"));
        }
        let version = mount.options.and_then(|options| options.version);
        if self.declared.is_some() || version.as_deref() == Some("2") {
            return Ok(Engine::V2 { mount_len });
        }
        Ok(Engine::V1)
    }

    /// Mount and path of a document, both encoded.
    fn place(&self, mount_len: usize, path: &str) -> (String, String) {
        let wanted = path.split('/').map(encode);
        let mut segments: Vec<String> = self.prefix.iter().cloned().chain(wanted).collect();
        let path = segments.split_off(mount_len).join("/");
        (segments.join("/"), path)
    }

    pub(super) fn v1_request(&self, read: Read<'_>) -> GetSecretRequest {
        let (mount, path) = self.place(1, read.path);
        GetSecretRequest { mount, path }
    }

    pub(super) fn v2_request(&self, mount_len: usize, read: Read<'_>) -> ReadSecretRequest {
        let (mount, path) = self.place(mount_len, read.path);
        ReadSecretRequest {
            mount,
            path,
            version: read.version.and_then(|version| version.parse().ok()),
        }
    }

    /// Where KV version 2 tells a document's field names without their values.
    pub(super) fn subkeys_path(&self, mount_len: usize, read: Read<'_>) -> String {
        let (mount, path) = self.place(mount_len, read.path);
        // Two levels are enough to tell an object from a value.
        let mut path = format!("{mount}/subkeys/{path}?depth=2");
        if let Some(version) = read.version.and_then(|version| version.parse::<u64>().ok()) {
            path.push_str(&format!("&version={version}"));
        }
        path
    }
}

/// The document in an answer that is one.
pub(super) fn document(engine: Engine, body: &[u8]) -> Result<Document, FetchError> {
    match engine {
        Engine::V1 => {
            let answer: V1Answer = answer::parse(body)?;
            let fields = answer.data.ok_or(FetchError::Garbage("no data in it"))?;
            Ok(Document::new(fields, None))
        }
        Engine::V2 { .. } => {
            let answer: V2Answer = answer::parse(body)?;
            let outer = answer.data.ok_or(FetchError::Garbage("no data in it"))?;
            let version = outer.metadata.map(|metadata| metadata.version.to_string());
            // `data: null` is how some versions show a deleted one.
            match (outer.data, version) {
                (Some(fields), version) => Ok(Document::new(fields, version.map(Into::into))),
                (None, Some(_)) => Err(FetchError::Deleted),
                (None, None) => Err(FetchError::Garbage("no data in it")),
            }
        }
    }
}

/// A 404 comes in two shapes: with the metadata of a deleted version, and with errors.
pub(super) fn missing(body: &[u8]) -> FetchError {
    let metadata = serde_json::from_slice::<MetadataAnswer>(body)
        .ok()
        .and_then(|answer| answer.data)
        .and_then(|data| data.metadata);
    match metadata {
        Some(metadata) if metadata.is_gone() => FetchError::Deleted,
        _ => answer::not_found(body),
    }
}

#[derive(Deserialize)]
struct V1Answer {
    data: Option<FieldMap>,
}

#[derive(Deserialize)]
struct V2Answer {
    data: Option<V2Data>,
}

#[derive(Deserialize)]
struct V2Data {
    data: Option<FieldMap>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct MetadataAnswer {
    data: Option<MetadataOnly>,
}

#[derive(Deserialize)]
struct MetadataOnly {
    metadata: Option<Metadata>,
}

/// Of one version.
#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

impl Metadata {
    fn is_gone(&self) -> bool {
        self.destroyed || !self.deletion_time.is_empty()
    }
}

#[derive(Deserialize)]
struct MountAnswer {
    data: Mount,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    version: Option<String>,
}
