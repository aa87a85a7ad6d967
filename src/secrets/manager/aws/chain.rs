//! The SDK's default chain of credentials: environment, profile, web identity, container,
//! instance. What it answers with is named here in our words; it is never printed.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

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

use super::connector::{Broken, Connector};
use crate::clock::Clock;

/// The default chain over our transport. It keeps nothing: each question goes through it anew, so
/// that a profile's files are read again.
#[derive(Debug)]
pub(super) struct DefaultChain {
    pub(super) connector: Connector,
    pub(super) clock: Wall,
    /// The item's; else the process's.
    pub(super) region: Option<Region>,
}

impl DefaultChain {
    async fn ask(&self) -> provider::Result {
        let region = match &self.region {
            Some(named) => named.clone(),
            None => region_of_process().await,
        };
        let config = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_http_client(self.connector.clone())
            .with_time_source(self.clock.clone())
            .with_retry_config(RetryConfig::disabled());
        // Machines without a metadata address must hear so within the time of one read.
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
}

impl ProvideCredentials for DefaultChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}

/// The region of the environment or of the profile, else APISIX's default.
pub(super) async fn region_of_process() -> Region {
    let environment = EnvironmentVariableRegionProvider::new();
    let profile = ProfileFileRegionProvider::new();
    let chain = RegionProviderChain::first_try(environment).or_else(profile);
    let found = chain.region().await;
    found.unwrap_or(Region::from_static(super::DEFAULT_REGION))
}

/// Our clock, for the SDK.
#[derive(Clone)]
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

/// Which link of the chain gave them.
pub(super) fn method(credentials: &Credentials) -> &'static str {
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
pub(super) fn shown(code: &str) -> &str {
    let plain = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { code } else { "a code of its own" }
}

/// Name of the chain as a whole.
pub(super) const CHAIN: &str = "default_chain";

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
