//! Credentials for AWS: those of the item, or what the SDK's default chain finds (environment,
//! profile, web identity, container, instance). They are asked for ahead of their end; while they
//! cannot be had again, those at hand serve until they end.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_secretsmanager::config::Region;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_async::time::TimeSource;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;

use super::super::{BuildCtx, Login};
use super::DEFAULT_REGION;
use super::connector::{Broken, Connector};
use crate::clock::Clock;
use crate::secrets::settings::{Event, Observer};

/// The login of one manager.
pub(super) struct Identity {
    id: Arc<str>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    source: Source,
    region: Option<Region>,
    /// Held while the chain is asked, so that a load of many documents asks once.
    held: tokio::sync::Mutex<Held>,
    standing: Mutex<Standing>,
}

/// Where credentials come from.
pub(super) enum Source {
    /// The item's own.
    Static(Credentials),
    /// The SDK's default chain, over this transport.
    Chain(Connector),
}

#[derive(Default)]
struct Held {
    credentials: Option<Credentials>,
    /// The chain is asked again from then on; `None` is never.
    renew_at: Option<SystemTime>,
    asked_at: Option<SystemTime>,
}

impl Held {
    /// What is at hand, unless the chain has to be asked.
    fn current(&self, now: SystemTime, refused: bool) -> Option<Credentials> {
        let paused = self.asked_at.is_some_and(|at| now < at + PAUSE);
        let fresh = !refused && self.renew_at.is_none_or(|at| now < at);
        self.credentials.clone().filter(|_| fresh || paused)
    }
}

/// What metrics and the audit log are told.
#[derive(Default)]
struct Standing {
    login: Option<Login>,
    /// AWS did not accept them: others may be to be had.
    refused: bool,
    said: Option<Said>,
}

#[derive(PartialEq, Eq)]
enum Said {
    LoggedIn,
    Failed(String),
}

impl Identity {
    pub(super) fn new(source: Source, region: Option<Region>, ctx: &BuildCtx<'_>) -> Self {
        let login = match source {
            Source::Static(_) => Some(Login {
                method: STATIC,
                ends: None,
            }),
            Source::Chain(_) => None,
        };
        Self {
            id: Arc::clone(ctx.id),
            clock: Arc::clone(ctx.clock),
            observer: Arc::clone(ctx.observer),
            source,
            region,
            held: tokio::sync::Mutex::default(),
            standing: Mutex::new(Standing {
                login,
                ..Standing::default()
            }),
        }
    }

    /// The login in force.
    pub(super) fn login(&self) -> Option<Login> {
        self.standing().login
    }

    /// AWS answered a call signed by these credentials.
    pub(super) fn accepted(&self) {
        let mut standing = self.standing();
        let Some(login) = standing.login else { return };
        if standing.said.replace(Said::LoggedIn) != Some(Said::LoggedIn) {
            drop(standing);
            let method = login.method;
            self.observer.event(&self.id, Event::LoggedIn { method });
        }
    }

    /// AWS refused them, by this code.
    pub(super) fn refused(&self, code: &str) {
        self.standing().refused = true;
        let why = format!("AWS does not accept the credentials: {}", shown(code));
        self.failed(why);
    }

    fn failed(&self, why: String) {
        let mut standing = self.standing();
        let method = match (standing.login, &self.source) {
            (Some(login), _) => login.method,
            (None, Source::Static(_)) => STATIC,
            (None, Source::Chain(_)) => CHAIN,
        };
        let said = Some(Said::Failed(why.clone()));
        if standing.said != said {
            standing.said = said;
            drop(standing);
            self.observer
                .event(&self.id, Event::LoginFailed { method, why });
        }
    }

    /// The item's, else that of the environment, of the profile, or APISIX's default.
    pub(super) async fn region(&self) -> Region {
        if let Some(named) = &self.region {
            return named.clone();
        }
        let environment = EnvironmentVariableRegionProvider::new();
        let profile = ProfileFileRegionProvider::new();
        let chain = RegionProviderChain::first_try(environment).or_else(profile);
        let found = chain.region().await;
        found.unwrap_or(Region::from_static(DEFAULT_REGION))
    }

    async fn credentials(&self) -> provider::Result {
        let connector = match &self.source {
            Source::Static(credentials) => return Ok(credentials.clone()),
            Source::Chain(connector) => connector,
        };
        let mut held = self.held.lock().await;
        let now = self.clock.wall();
        let refused = self.standing().refused;
        if let Some(credentials) = held.current(now, refused) {
            return Ok(credentials);
        }
        held.asked_at = Some(now);
        let config = ProviderConfig::without_region()
            .with_http_client(connector.clone())
            .with_time_source(Wall(Arc::clone(&self.clock)))
            .with_retry_config(RetryConfig::disabled());
        match ask(config, self.region().await).await {
            Ok(credentials) => {
                let ends = credentials.expiry();
                held.renew_at = ends.map(|ends| renew_at(self.clock.wall(), ends));
                held.credentials = Some(credentials.clone());
                self.obtained(&credentials);
                Ok(credentials)
            }
            Err(error) => {
                self.failed(words(&error));
                let serves =
                    |held: &Credentials| !refused && held.expiry().is_none_or(|ends| now < ends);
                held.credentials.clone().filter(serves).ok_or(error)
            }
        }
    }

    fn obtained(&self, credentials: &Credentials) {
        let ends = credentials.expiry().map(|ends| {
            let left = ends.duration_since(self.clock.wall()).unwrap_or_default();
            self.clock.now() + left.min(LONGEST)
        });
        let mut standing = self.standing();
        standing.login = Some(Login {
            method: method(credentials),
            ends,
        });
        standing.refused = false;
        standing.said = None;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// Our clock, for the SDK.
pub(super) struct Wall(pub(super) Arc<dyn Clock>);

impl TimeSource for Wall {
    fn now(&self) -> SystemTime {
        self.0.wall()
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

/// For the SDK, which holds its provider by value.
#[derive(Debug)]
pub(super) struct Provider(pub(super) Arc<Identity>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.credentials())
    }
}

/// Asks the SDK's default chain anew, so that a profile's files are read again. The instance's
/// metadata address is tried once: machines that lack it must hear so within the time of a read.
async fn ask(config: ProviderConfig, region: Region) -> provider::Result {
    let config = config.with_region(Some(region.clone()));
    let instance = imds::Client::builder()
        .configure(&config)
        .max_attempts(1)
        .build();
    let chain = DefaultCredentialsChain::builder()
        .configure(config)
        .region(region)
        .imds_client(instance);
    chain.build().await.provide_credentials().await
}

/// When to ask again for credentials that end then.
fn renew_at(now: SystemTime, ends: SystemTime) -> SystemTime {
    let left = ends.duration_since(now).unwrap_or_default();
    now + (left - AHEAD.min(left / 3)).max(PAUSE)
}

/// Which link of the chain gave them.
fn method(credentials: &Credentials) -> &'static str {
    let features = credentials.get_property::<Vec<Feature>>();
    let features = features.map_or(&[][..], Vec::as_slice);
    let known = |(of, _): &&(Feature, &str)| features.contains(of);
    METHODS.iter().find(known).map_or(CHAIN, |(_, name)| name)
}

/// Why there are no credentials, without a part of an answer.
pub(super) fn words(error: &CredentialsError) -> String {
    if matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
        return NOWHERE.to_owned();
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(Broken(why)) = link.downcast_ref() {
            return format!("credentials are not to be had: {why}");
        }
        if let Some(why) = link.downcast_ref::<std::io::Error>() {
            return format!("a file of credentials cannot be read: {}", why.kind());
        }
        let web = link.downcast_ref::<AssumeRoleWithWebIdentityError>();
        let role = link.downcast_ref::<AssumeRoleError>();
        let code = web.and_then(ProvideErrorMetadata::code);
        if let Some(code) = code.or_else(|| role.and_then(ProvideErrorMetadata::code)) {
            return format!("STS gives no credentials: {}", shown(code));
        }
        cause = link.source();
    }
    match error {
        CredentialsError::InvalidConfiguration(_) => "the settings of the default chain do not fit",
        CredentialsError::ProviderTimedOut(_) => "no credentials were given in time",
        _ => "the answer with credentials was not understood",
    }
    .to_owned()
}

/// A code as AWS's are; anything else is not repeated.
fn shown(code: &str) -> &str {
    let plain = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { code } else { "a code of its own" }
}

const STATIC: &str = "static";
const CHAIN: &str = "default_chain";

/// The most telling first: credentials of a profile that assumes a role carry several.
const METHODS: &[(Feature, &str)] = &[
    (Feature::CredentialsStsAssumeRole, "assume_role"),
    (Feature::CredentialsEnvVarsStsWebIdToken, "web_identity"),
    (Feature::CredentialsProfileStsWebIdToken, "web_identity"),
    (Feature::CredentialsHttp, "container"),
    (Feature::CredentialsImds, "instance"),
    (Feature::CredentialsProfile, "profile"),
    (Feature::CredentialsEnvVars, "environment"),
];

const NOWHERE: &str =
    "no credentials in environment, profile, web identity, container or instance metadata";

/// Credentials are asked for again this long before they end, or in the last third of short ones.
const AHEAD: Duration = Duration::from_secs(300);
/// Least time between two questions while those at hand serve.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest life that is told.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
