//! A service account's key as Google hands it out (`spec/01` §2.3): inline, or a file that is
//! looked at again while the program runs. Nothing of it appears in an error.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::encode;
use crate::jwt::{Algorithm, SigningKey};
use crate::secrets::manager::file::read_named;
use crate::secrets::manager::http::base;
use crate::secrets::manager::{BuildError, Fields, secret_text};
use crate::secrets::value::Secret;

/// A key's members. Others, such as `private_key_id`, are tolerated.
#[derive(Deserialize)]
pub(super) struct AccountConfig {
    /// In a file: what kind of credential it is.
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: String,
    #[serde(default, deserialize_with = "secret_text")]
    private_key: Option<Secret>,
    project_id: String,
    token_uri: Option<String>,
    entries_uri: Option<String>,
    scope: Option<Scope>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scope {
    One(String),
    Many(Vec<String>),
}

/// What stands beside the key and goes before it.
pub(super) struct Overrides {
    pub(super) project_id: Option<String>,
    /// Checked.
    pub(super) entries_uri: Option<String>,
}

/// A service account that can log in.
pub(super) struct Account {
    pub(super) client_email: String,
    pub(super) key: SigningKey,
    pub(super) token_uri: String,
    pub(super) scope: String,
    pub(super) secrets_uri: String,
}

impl Account {
    pub(super) fn build(config: AccountConfig, over: &Overrides) -> Result<Self, BuildError> {
        if config.kind.is_some_and(|kind| kind != "service_account") {
            let message = "expected service_account: no other credential is understood";
            return Err(BuildError::new("type", message));
        }
        if config.client_email.trim().is_empty() {
            return Err(BuildError::new("client_email", "must not be empty"));
        }
        if !is_project(&config.project_id) {
            let message = "expected the id of a project";
            return Err(BuildError::new("project_id", message));
        }
        let expected = || BuildError::new("private_key", "expected an RSA private key in PEM");
        let pem = with_line_ends(&config.private_key.ok_or_else(expected)?);
        let key = SigningKey::from_pem(Algorithm::RS256, &pem)
            .map_err(|error| BuildError::new("private_key", error.to_string()))?;
        let token_uri = config.token_uri.as_deref().unwrap_or(TOKEN_URI).trim();
        base("token_uri", token_uri)?;
        let project = over.project_id.as_ref().unwrap_or(&config.project_id);
        let entries_uri = match (&over.entries_uri, &config.entries_uri) {
            (Some(uri), _) => uri.clone(),
            (None, Some(uri)) => base("entries_uri", uri)?,
            (None, None) => ENTRIES_URI.to_owned(),
        };
        Ok(Self {
            client_email: config.client_email.trim().to_owned(),
            key,
            token_uri: token_uri.to_owned(),
            scope: match config.scope {
                None => SCOPE.to_owned(),
                Some(Scope::One(scope)) => scope,
                Some(Scope::Many(scopes)) => scopes.join(" "),
            },
            secrets_uri: secrets_uri(&entries_uri, project),
        })
    }
}

/// Where a project's secrets stand; a name and what follows it are appended.
pub(super) fn secrets_uri(entries_uri: &str, project: &str) -> String {
    format!("{entries_uri}/projects/{}/secrets/", encode(project))
}

/// Whether it can be a project's id or number (`example.com:project` is an old form).
pub(super) fn is_project(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(fits) && id.starts_with(char::is_alphanumeric)
}

/// A file with an account's key, and the account as it was when the file was last good.
pub(super) struct KeyFile {
    path: PathBuf,
    overrides: Overrides,
    state: Mutex<FileState>,
}

struct FileState {
    account: Arc<Account>,
    seen: Stamp,
}

/// What tells one state of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    changed: (i64, i64),
    size: u64,
}

/// What a look at the file came to.
pub(super) enum Look {
    Same,
    Changed,
    /// It changed, and the account before it stays.
    Bad(FileError),
}

/// Why a file is no key. Holds the name of a field, never a value.
#[derive(Debug)]
pub(super) struct FileError(String);

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<FileError> for String {
    fn from(error: FileError) -> Self {
        error.0
    }
}

impl KeyFile {
    pub(super) fn open(path: PathBuf, overrides: Overrides) -> Result<Self, FileError> {
        let seen = Stamp::of(&path)?;
        let account = Arc::new(load(&path, &overrides)?);
        let state = Mutex::new(FileState { account, seen });
        Ok(Self {
            path,
            overrides,
            state,
        })
    }

    pub(super) fn account(&self) -> Arc<Account> {
        Arc::clone(&self.lock().account)
    }

    /// Reads the file again if it changed. Blocks.
    pub(super) fn look(&self) -> Look {
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) if stamp == self.lock().seen => return Look::Same,
            // Between two states, as while it is replaced; what was read serves on.
            Err(_) => return Look::Same,
            Ok(stamp) => stamp,
        };
        let loaded = load(&self.path, &self.overrides);
        let mut state = self.lock();
        state.seen = stamp;
        match loaded {
            Ok(account) => {
                state.account = Arc::new(account);
                Look::Changed
            }
            Err(error) => Look::Bad(error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, FileError> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| FileError(format!("cannot be read: {}", error.kind())))?;
        // Whoever writes it names the servers that our secrets come from.
        if metadata.mode() & OTHERS_WRITE != 0 {
            return Err(FileError("not trusted: others may write it".to_owned()));
        }
        Ok(Self {
            file: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.len(),
        })
    }
}

fn load(path: &Path, overrides: &Overrides) -> Result<Account, FileError> {
    let bytes = read_named(path).map_err(|error| FileError(error.to_string()))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|_| FileError("expected a service account's key in JSON".to_owned()))?;
    let config = Fields::new(value).parse::<AccountConfig>();
    config
        .and_then(|config| Account::build(config, overrides))
        .map_err(|error| FileError(error.to_string()))
}

/// A PEM whose line ends are written `\n`, as a variable of an environment file has to hold them.
fn with_line_ends(pem: &Secret) -> Zeroizing<Vec<u8>> {
    let pem = pem.expose();
    let mut text = Zeroizing::new(Vec::with_capacity(pem.len()));
    let mut rest = pem;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\n") {
            text.push(b'\n');
            rest = after;
        } else {
            text.push(first);
            rest = after;
        }
    }
    text
}

const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
pub(super) const ENTRIES_URI: &str = "https://secretmanager.googleapis.com/v1";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const OTHERS_WRITE: u32 = 0o002;
