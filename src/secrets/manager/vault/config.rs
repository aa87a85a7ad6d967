//! The fields of a `vault` item, and the manager they make.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use serde::Deserialize;

use super::addresses::{Addresses, Uris};
use super::api::Api;
use super::auth::{AuthConfig, Method};
use super::kv::{Engine, Kv};
use super::session::Session;
use super::{Vault, encoded_path};
use crate::secrets::manager::http::{HttpClient, TlsConfig, wiped_header};
use crate::secrets::manager::{BuildCtx, BuildError, DEFAULT_TIME_LIMIT, seconds, secret_text};
use crate::secrets::value::Secret;

#[derive(Deserialize)]
pub(super) struct VaultConfig {
    /// `http(s)://host[:port]`, or a list of them: the next is asked where one cannot serve.
    uri: Uris,
    /// Mount and leading path.
    prefix: String,
    /// Static token; not needed where `auth` names another method.
    #[serde(default, deserialize_with = "secret_text")]
    token: Option<Secret>,
    namespace: Option<String>,
    /// Seconds for one read, all its requests together. Default 5 (APISIX).
    #[serde(default, deserialize_with = "seconds")]
    timeout: Option<Duration>,
    /// `auto` (default), 1 or 2.
    kv_version: Option<KvVersion>,
    #[serde(default)]
    auth: AuthConfig,
    #[serde(default)]
    tls: TlsConfig,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KvVersion {
    Number(u8),
    Word(String),
}

impl VaultConfig {
    pub(super) fn build(self, ctx: &BuildCtx<'_>) -> Result<Vault, BuildError> {
        let timeout = self.timeout.unwrap_or(DEFAULT_TIME_LIMIT);
        if timeout.is_zero() {
            return Err(BuildError::new("timeout", "expected more than 0 seconds"));
        }
        let has_certificate = self.tls.has_identity();
        let method = Method::build(self.auth, self.token.as_ref(), has_certificate)?;
        let namespace = match &self.namespace {
            Some(name) if !name.trim().is_empty() => Some(header("namespace", name.as_bytes())?),
            _ => None,
        };
        let declared = declared(self.kv_version.as_ref())?;
        let prefix = prefix(&self.prefix)?;
        let mut servers = Vec::new();
        for (field, uri) in self.uri.named() {
            let server = HttpClient::build(uri, &self.tls, timeout, ctx);
            servers.push(server.map_err(|error| at_address(error, &field))?);
        }
        let api = Api {
            addresses: Addresses::new(servers, Arc::clone(ctx.clock))?,
            namespace,
            clock: Arc::clone(ctx.clock),
            timeout,
        };
        let observer = Arc::clone(ctx.observer);
        Ok(Vault {
            session: Session::new(Arc::clone(ctx.id), api, method, observer),
            kv: Kv::new(prefix, declared),
        })
    }
}

/// Names the address at fault where there are several.
fn at_address(mut error: BuildError, field: &str) -> BuildError {
    if error.field == "uri" {
        field.clone_into(&mut error.field);
    }
    error
}

fn declared(version: Option<&KvVersion>) -> Result<Option<Engine>, BuildError> {
    // The mount is asked for; until it can be, its first segment is taken for it.
    let second = Engine::V2 { mount_len: 1 };
    Ok(match version {
        None => None,
        Some(KvVersion::Number(1)) => Some(Engine::V1),
        Some(KvVersion::Number(2)) => Some(second),
        Some(KvVersion::Word(word)) if word == "auto" => None,
        Some(KvVersion::Word(word)) if word == "1" => Some(Engine::V1),
        Some(KvVersion::Word(word)) if word == "2" => Some(second),
        Some(_) => return Err(BuildError::new("kv_version", "expected auto, 1 or 2")),
    })
}

/// A header's value out of a configuration: trimmed, visible ASCII, hidden from debug output.
pub(super) fn header(field: &str, text: &[u8]) -> Result<HeaderValue, BuildError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(BuildError::new(field, "must not be empty"));
    }
    let message = "expected visible ASCII characters only";
    wiped_header(text).ok_or_else(|| BuildError::new(field, message))
}

/// Leading and doubled slashes are normalised, as by APISIX.
fn prefix(text: &str) -> Result<Vec<String>, BuildError> {
    let segments: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let message = "expected a mount and maybe a path, such as kv/apisix";
    encoded_path(&segments.join("/")).ok_or_else(|| BuildError::new("prefix", message))
}
