//! `aws`: AWS Secrets Manager through AWS's SDK, over our HTTP client. A secret is a document; its
//! whole value is the field without a name. Never retries, follows no redirect, prints no error of
//! the SDK's.

mod answer;
mod chain;
mod connector;
mod login;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{
    BehaviorVersion, Config, IdentityCache, Region, StalledStreamProtectionConfig,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use serde::Deserialize;
use tokio::sync::OnceCell;

use self::chain::{DefaultChain, Wall};
use self::connector::Connector;
use self::login::{Identity, Provider, Source};
use super::document::Document;
use super::http::{self, HttpClient, TlsConfig};
use super::{
    BuildCtx, BuildError, DEFAULT_TIME_LIMIT, FetchError, Location, Login, Manager, ManagerDef,
    Presence, Read, seconds, secret_text,
};
use crate::secrets::reference::{Key, ReferenceError};
use crate::secrets::value::Secret;

pub(in crate::secrets) const DEF: ManagerDef = ManagerDef {
    name: "aws",
    build: |fields, ctx| build(fields.parse()?, ctx),
    // A key that is replaced is another of the same account as a rule.
    access: &[
        "access_key_id",
        "secret_access_key",
        "session_token",
        "tls",
        "timeout",
    ],
};

#[derive(Deserialize)]
struct AwsConfig {
    /// With `secret_access_key`. Without both, the SDK's default chain finds credentials.
    #[serde(default, deserialize_with = "secret_text")]
    access_key_id: Option<Secret>,
    #[serde(default, deserialize_with = "secret_text")]
    secret_access_key: Option<Secret>,
    /// Of temporary credentials.
    #[serde(default, deserialize_with = "secret_text")]
    session_token: Option<Secret>,
    /// Default `us-east-1` (APISIX); with the default chain `AWS_REGION` goes before it.
    region: Option<String>,
    /// Default the region's own.
    endpoint_url: Option<String>,
    /// Seconds for one read, a login included. Default 5.
    #[serde(default, deserialize_with = "seconds")]
    timeout: Option<Duration>,
    #[serde(default)]
    tls: TlsConfig,
}

fn build(config: AwsConfig, ctx: &BuildCtx<'_>) -> Result<Box<dyn Manager>, BuildError> {
    let timeout = config.timeout.unwrap_or(DEFAULT_TIME_LIMIT);
    if timeout.is_zero() {
        return Err(BuildError::new("timeout", "expected more than 0 seconds"));
    }
    let credentials = own_credentials(&config)?;
    let region = match &config.region {
        Some(name) => Some(parse_region(name)?),
        None if credentials.is_some() => Some(Region::from_static(DEFAULT_REGION)),
        None => None,
    };
    let endpoint = config.endpoint_url.as_deref().map(parse_endpoint);
    let connector = Connector::new(HttpClient::client(&config.tls, timeout, ctx)?, timeout);
    let source = match credentials {
        Some(credentials) => Source::Static(credentials),
        None => Source::Asked(Box::new(DefaultChain {
            connector: connector.clone(),
            clock: Wall(Arc::clone(ctx.clock)),
            region: region.clone(),
        })),
    };
    let identity = Arc::new(Identity::new(source, ctx));
    let has_region = region.is_some();
    let mut settings = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Provider(Arc::clone(&identity)))
        // `Identity` keeps them.
        .identity_cache(IdentityCache::no_cache())
        .http_client(connector)
        .time_source(Wall(Arc::clone(ctx.clock)))
        .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    settings.set_region(region);
    settings.set_endpoint_url(endpoint.transpose()?);
    Ok(Box::new(Aws {
        settings,
        has_region,
        client: OnceCell::new(),
        identity,
        timeout,
    }))
}

/// The item's own credentials: both halves of the key, or neither.
fn own_credentials(config: &AwsConfig) -> Result<Option<Credentials>, BuildError> {
    let id = printable("access_key_id", config.access_key_id.as_ref())?;
    let key = printable("secret_access_key", config.secret_access_key.as_ref())?;
    let token = printable("session_token", config.session_token.as_ref())?;
    match (id, key, token) {
        (Some(id), Some(key), token) => Ok(Some(Credentials::new(
            id,
            key,
            token.map(str::to_owned),
            None,
            "static",
        ))),
        (Some(_), None, _) => Err(BuildError::new("secret_access_key", TOGETHER)),
        (None, Some(_), _) => Err(BuildError::new("access_key_id", TOGETHER)),
        (None, None, Some(_)) => Err(BuildError::new("session_token", TOKEN_ALONE)),
        (None, None, None) => Ok(None),
    }
}

/// What goes into a header: trimmed, visible ASCII.
fn printable<'a>(field: &str, secret: Option<&'a Secret>) -> Result<Option<&'a str>, BuildError> {
    let Some(secret) = secret else {
        return Ok(None);
    };
    match secret.expose_str().map(str::trim) {
        Some("") => Err(BuildError::new(field, "must not be empty")),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(text)),
        _ => Err(BuildError::new(
            field,
            "expected visible ASCII characters only",
        )),
    }
}

/// A region is a part of the host's name: nothing else may get into it.
fn parse_region(name: &str) -> Result<Region, BuildError> {
    let name = name.trim();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = name.starts_with('-') || name.ends_with('-');
    if !(1..=63).contains(&name.len()) || edges || !name.bytes().all(fits) {
        return Err(BuildError::new(
            "region",
            "expected a name such as us-east-1",
        ));
    }
    Ok(Region::new(name.to_owned()))
}

fn parse_endpoint(url: &str) -> Result<String, BuildError> {
    let field = |error: BuildError| BuildError::new("endpoint_url", error.message);
    let url = http::parse_uri(url).map_err(field)?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

struct Aws {
    /// Of the client, but for the region where the process decides on it.
    settings: aws_sdk_secretsmanager::config::Builder,
    has_region: bool,
    client: OnceCell<Client>,
    identity: Arc<Identity>,
    timeout: Duration,
}

/// Which version of a secret is meant.
#[derive(Debug, PartialEq, Eq)]
enum Version<'a> {
    /// By AWS's own name for it.
    Id(&'a str),
    /// By a staging label.
    Stage(&'a str),
}

impl<'a> Version<'a> {
    /// AWS's names of versions have 32 to 64 characters; what is shorter is a label.
    fn of(text: Option<&'a str>) -> Self {
        match text {
            None => Self::Stage(CURRENT),
            Some(text) if VERSION_ID_LEN.contains(&text.len()) => Self::Id(text),
            Some(label) => Self::Stage(label),
        }
    }
}

#[async_trait]
impl Manager for Aws {
    /// The longest part of the key that can be a secret's name; [`Manager::elsewhere`] shortens it.
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        let refused = || ReferenceError::KeyFormat(key.path.clone());
        if let Some(field) = &key.field {
            let whole = Some(&*key.path).filter(|path| is_name(path));
            return Ok(Location {
                path: whole.ok_or_else(refused)?.into(),
                field: (&**field).into(),
            });
        }
        let mut location = Location {
            path: (&*key.path).into(),
            field: "".into(),
        };
        while !is_name(&location.path) {
            location = shorter(&location).ok_or_else(refused)?;
        }
        Ok(location)
    }

    async fn fetch(&self, read: Read<'_>) -> Result<Document, FetchError> {
        let version = Version::of(read.version);
        let call = self.client().await.get_secret_value().secret_id(read.path);
        let call = match version {
            Version::Id(id) => call.version_id(id),
            Version::Stage(label) => call.version_stage(label),
        };
        let output = call.send().await.map_err(|error| self.failure(&error))?;
        self.identity.accepted();
        answer::document(output, read.fields)
    }

    async fn probe(&self, read: Read<'_>) -> Result<Presence, FetchError> {
        let call = self.client().await.describe_secret().secret_id(read.path);
        let output = call.send().await.map_err(|error| self.failure(&error))?;
        self.identity.accepted();
        answer::presence(&output, &Version::of(read.version))
    }

    /// APISIX's longest name first (#13519): the last segment goes to the field. Also where access
    /// is denied, since a policy for some names alone denies those that do not exist.
    fn elsewhere(&self, tried: &Location, why: &FetchError) -> Option<Location> {
        let absent = matches!(why, FetchError::NotFound | FetchError::Forbidden);
        absent.then(|| shorter(tried)).flatten()
    }

    fn login(&self) -> Option<Login> {
        self.identity.login()
    }

    fn time_limit(&self) -> Duration {
        self.timeout
    }
}

impl Aws {
    async fn client(&self) -> &Client {
        let make = || async {
            let mut settings = self.settings.clone();
            if !self.has_region {
                settings.set_region(Some(chain::region_of_process().await));
            }
            Client::from_conf(settings.build())
        };
        self.client.get_or_init(make).await
    }

    fn failure<E>(&self, error: &SdkError<E, HttpResponse>) -> FetchError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (why, code) = answer::failure(error);
        match code {
            Some(code) if why == FetchError::TokenRefused => self.identity.refused(code),
            Some(_) => self.identity.accepted(),
            None => {}
        }
        why
    }
}

/// The same place with one segment less in the name and one more in the field.
fn shorter(location: &Location) -> Option<Location> {
    let (path, last) = location.path.rsplit_once('/')?;
    let field = match &*location.field {
        "" => last.to_owned(),
        field => format!("{last}/{field}"),
    };
    Some(Location {
        path: path.into(),
        field: field.into(),
    })
}

/// Whether AWS could have a secret of this name, or this ARN.
fn is_name(path: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-!:".contains(&byte);
    path.len() <= MAX_SECRET_ID && path.bytes().all(fits)
}

/// APISIX's default.
const DEFAULT_REGION: &str = "us-east-1";
/// The label of the version in force.
const CURRENT: &str = "AWSCURRENT";
const VERSION_ID_LEN: std::ops::RangeInclusive<usize> = 32..=64;
/// Longest `SecretId` of AWS's API.
const MAX_SECRET_ID: usize = 2048;

const TOGETHER: &str = "access_key_id and secret_access_key go together";
const TOKEN_ALONE: &str = "goes with access_key_id and secret_access_key";
