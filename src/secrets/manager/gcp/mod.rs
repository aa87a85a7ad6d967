//! `gcp`: Google Secret Manager, as the service account of a key (inline or in a file) or as the
//! one the machine runs under. `$secret://gcp/<name>/<secret>` is the whole secret; what follows
//! its first slash is a member of the JSON object in it. Never follows a redirect.

mod account;
mod answer;
mod exchange;
mod login;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use super::document::Document;
use super::http::{self, HttpClient, TlsConfig, encode};
use super::{
    BuildCtx, BuildError, DEFAULT_TIME_LIMIT, FetchError, Location, Login, Manager, ManagerDef,
    Presence, Read, seconds,
};
use crate::secrets::reference::{Key, ReferenceError};
use account::{Account, AccountConfig, KeyFile, Overrides, is_project};
use exchange::{Metadata, Session, Source};
use login::Logins;

pub(in crate::secrets) const DEF: ManagerDef = ManagerDef {
    name: "gcp",
    build: |fields, ctx| build(fields.parse()?, ctx),
    access: &[
        "auth_config.client_email",
        "auth_config.private_key",
        "auth_config.token_uri",
        "auth_config.scope",
        "metadata_uri",
        "ssl_verify",
        "tls",
        "timeout",
    ],
};

#[derive(Deserialize)]
struct GcpConfig {
    /// A service account's key, its members here.
    auth_config: Option<AccountConfig>,
    /// The same as a file; read again when it changes.
    auth_file: Option<PathBuf>,
    /// Ours: the project, where it is not the account's own.
    project_id: Option<String>,
    /// Ours: goes before that of the key. Default `https://secretmanager.googleapis.com/v1`.
    entries_uri: Option<String>,
    /// Ours: address of the metadata server, asked when there is neither `auth_config` nor
    /// `auth_file`. Default `http://$GCE_METADATA_HOST`, else `http://metadata.google.internal`.
    metadata_uri: Option<String>,
    /// False accepts any certificate: for experiments only.
    ssl_verify: Option<bool>,
    #[serde(default)]
    tls: TlsConfig,
    /// Seconds for one read, a login included. Default 5.
    #[serde(default, deserialize_with = "seconds")]
    timeout: Option<Duration>,
}

fn build(mut config: GcpConfig, ctx: &BuildCtx<'_>) -> Result<Box<dyn Manager>, BuildError> {
    let timeout = config.timeout.unwrap_or(DEFAULT_TIME_LIMIT);
    if timeout.is_zero() {
        return Err(BuildError::new("timeout", "expected more than 0 seconds"));
    }
    if config.ssl_verify == Some(false) {
        config.tls.accept_any_certificate();
    }
    if config
        .project_id
        .as_deref()
        .is_some_and(|id| !is_project(id))
    {
        return Err(BuildError::new(
            "project_id",
            "expected the id of a project",
        ));
    }
    let entries_uri = config.entries_uri.as_deref();
    let overrides = Overrides {
        project_id: config.project_id,
        entries_uri: entries_uri
            .map(|uri| http::base("entries_uri", uri))
            .transpose()?,
    };
    let source = match (config.auth_config, config.auth_file) {
        (Some(_), Some(_)) => {
            let message = "expected one of auth_config and auth_file, not both";
            return Err(BuildError::new("auth_file", message));
        }
        (None, None) => Source::Metadata(Metadata::new(config.metadata_uri.as_deref(), overrides)?),
        _ if config.metadata_uri.is_some() => {
            let message = "expected none beside auth_config or auth_file";
            return Err(BuildError::new("metadata_uri", message));
        }
        (Some(account), None) => {
            let account = Account::build(account, &overrides).map_err(|error| {
                BuildError::new(format!("auth_config.{}", error.field), error.message)
            })?;
            Source::Account(Arc::new(account))
        }
        (None, Some(path)) => {
            let file = KeyFile::open(path, overrides)
                .map_err(|error| BuildError::new("auth_file", error))?;
            Source::File(Arc::new(file))
        }
    };
    let http = HttpClient::client(&config.tls, timeout, ctx)?;
    Ok(Box::new(Gcp {
        logins: Logins::new(source, http.clone(), ctx),
        http,
        timeout,
    }))
}

struct Gcp {
    logins: Logins,
    http: Client,
    timeout: Duration,
}

#[async_trait]
impl Manager for Gcp {
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        // A number, `latest`, or an alias: none of them has a dot.
        if key
            .version
            .as_ref()
            .is_some_and(|version| version.contains('.'))
        {
            return Err(ReferenceError::Query(
                "version of a gcp secret is a number or an alias",
            ));
        }
        let (path, field) = match (&key.field, key.path.split_once('/')) {
            // A secret's name has no slash.
            (Some(_), Some(_)) => return Err(ReferenceError::KeyFormat(key.path.clone())),
            (Some(field), None) => (&*key.path, &**field),
            (None, Some(split)) => split,
            (None, None) => (&*key.path, answer::WHOLE),
        };
        Ok(Location {
            path: path.into(),
            field: field.into(),
        })
    }

    async fn fetch(&self, read: Read<'_>) -> Result<Document, FetchError> {
        let (status, body) = self.ask(&format!("{}:access", version_path(read))).await?;
        match status {
            StatusCode::OK => answer::document(&body, read.fields),
            status => Err(answer::refusal(status, &body)),
        }
    }

    async fn probe(&self, read: Read<'_>) -> Result<Presence, FetchError> {
        let (status, body) = self.ask(&version_path(read)).await?;
        match status {
            StatusCode::OK => answer::presence(&body),
            status => match answer::refusal(status, &body) {
                // Google's role `secretAccessor` may read values and nothing else.
                FetchError::Forbidden => Ok(self.fetch(read).await?.presence()),
                error => Err(error),
            },
        }
    }

    async fn tend(&self) {
        self.logins.tend().await;
    }

    fn login(&self) -> Option<Login> {
        self.logins.login()
    }

    fn time_limit(&self) -> Duration {
        self.timeout
    }
}

impl Gcp {
    /// A token may have been revoked before its time: then one more login, and one more try.
    async fn ask(&self, path: &str) -> Result<http::Answer, FetchError> {
        let session = self.logins.session(None).await?;
        let answer = self.get(&session, path).await?;
        if answer.0 != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let session = self.logins.session(Some(session.number)).await?;
        self.get(&session, path).await
    }

    async fn get(&self, session: &Session, path: &str) -> Result<http::Answer, FetchError> {
        let request = self.http.get(format!("{}{path}", session.secrets_uri));
        http::send(request.header(
            reqwest::header::AUTHORIZATION,
            session.authorization.clone(),
        ))
        .await
    }
}

fn version_path(read: Read<'_>) -> String {
    let version = read.version.unwrap_or("latest");
    format!("{}/versions/{}", encode(read.path), encode(version))
}
