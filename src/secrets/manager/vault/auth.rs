//! `auth`: by which method we log in, and with what. Checked here, used by `login`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::encoded_path;
use super::wrapping::SecretId;
use crate::secrets::manager::{BuildError, FetchError, Step, secret_text};
use crate::secrets::refresh::back_off;
use crate::secrets::value::Secret;

/// `auth` of an item.
#[derive(Default, Deserialize)]
pub(super) struct AuthConfig {
    /// `token` (default), `token_file`, `approle`, `jwt`, `kubernetes`, `cert`.
    method: Option<String>,
    /// Where the method is mounted below `auth/`. Default: its name.
    mount: Option<String>,
    /// `token_file`: the file; followed while it changes.
    token_file: Option<PathBuf>,
    /// `approle`: its id.
    role_id: Option<String>,
    /// `approle`: a secret id, or the file that holds it.
    #[serde(default, deserialize_with = "secret_text")]
    secret_id: Option<Secret>,
    secret_id_file: Option<PathBuf>,
    /// `approle`: the secret id is a response-wrapping token that holds it. Default false.
    #[serde(default)]
    wrapped: bool,
    /// `jwt`, `kubernetes`, `cert`: the role to log in for.
    role: Option<String>,
    /// `jwt`, `kubernetes`: the file that holds the token; read again at every login.
    jwt_file: Option<PathBuf>,
}

/// A method with all it needs.
pub(super) enum Method {
    /// The token of the item's field `token`.
    Token(http::header::HeaderValue),
    TokenFile(PathBuf),
    AppRole {
        mount: String,
        role_id: String,
        secret_id: SecretId,
    },
    /// `jwt` and `kubernetes`, which differ in name alone.
    Jwt {
        name: &'static str,
        mount: String,
        role: Option<String>,
        file: PathBuf,
    },
    Cert {
        mount: String,
        role: String,
    },
}

impl Method {
    /// `token` is the item's, `has_certificate` whether `tls` names one of ours.
    pub(super) fn build(
        config: AuthConfig,
        token: Option<&Secret>,
        has_certificate: bool,
    ) -> Result<Self, BuildError> {
        let name = config.method.as_deref().unwrap_or("token");
        let mount = mount(config.mount.as_deref().unwrap_or(name))?;
        match name {
            "token" => {
                let missing = || BuildError::new("token", "expected a token");
                let token = token.ok_or_else(missing)?.expose();
                Ok(Self::Token(super::config::header("token", token)?))
            }
            "token_file" => {
                let file = present("token_file", config.token_file, "the path of a file")?;
                Ok(Self::TokenFile(file))
            }
            "approle" => Ok(Self::AppRole {
                mount,
                role_id: text("role_id", config.role_id, "the id of an AppRole")?,
                secret_id: SecretId::build(
                    config.secret_id,
                    config.secret_id_file,
                    config.wrapped,
                )?,
            }),
            "jwt" => Ok(Self::Jwt {
                name: "jwt",
                mount,
                role: config.role,
                file: present("jwt_file", config.jwt_file, "the path of a file")?,
            }),
            "kubernetes" => Ok(Self::Jwt {
                name: "kubernetes",
                mount,
                role: Some(text("role", config.role, "the name of a role")?),
                file: config.jwt_file.unwrap_or_else(|| SERVICE_ACCOUNT.into()),
            }),
            "cert" if !has_certificate => {
                let message = "expected, with client_key: method cert logs in with it";
                Err(BuildError::new("tls.client_cert", message))
            }
            "cert" => Ok(Self::Cert {
                mount,
                role: config.role.unwrap_or_default(),
            }),
            _ => {
                let message = "expected token, token_file, approle, jwt, kubernetes or cert";
                Err(BuildError::new("auth.method", message))
            }
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::TokenFile(_) => "token_file",
            Self::AppRole { .. } => "approle",
            Self::Jwt { name, .. } => name,
            Self::Cert { .. } => "cert",
        }
    }

    /// Whether a login gives a token that was not there before.
    pub(super) fn makes_tokens(&self) -> bool {
        !matches!(self, Self::Token(_) | Self::TokenFile(_))
    }

    /// Whether servers answer a row of refused logins by refusing the right ones too: by default
    /// `OpenBao` and Vault do so for 15 minutes after five, to all who log in for the role.
    pub(super) fn locks_out(&self) -> bool {
        matches!(self, Self::AppRole { .. })
    }

    /// From the `failures`th failure in a row to the next try. A wrong credential must not hammer
    /// the server, nor lock its role out; a server that was away is to be noticed soon.
    pub(super) fn pause(&self, error: &FetchError, failures: u32, jitter: f64) -> Duration {
        if error.step() != Step::Login {
            return back_off(FIRST_PAUSE, failures, LONGEST_OUTAGE_PAUSE, jitter);
        }
        if !self.locks_out() {
            return back_off(FIRST_PAUSE, failures, LONGEST_REFUSAL_PAUSE, jitter);
        }
        match failures {
            ..=1 => Duration::from_secs(5),
            2 => Duration::from_secs(60),
            _ => AFTER_LOCKOUT.mul_f64(1.0 + 0.2 * jitter),
        }
    }

    /// The file a login depends on.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::TokenFile(file) | Self::Jwt { file, .. } => Some(file),
            Self::AppRole { secret_id, .. } => secret_id.file(),
            Self::Token(_) | Self::Cert { .. } => None,
        }
    }
}

fn mount(text: &str) -> Result<String, BuildError> {
    let trimmed = text.trim_matches('/');
    encoded_path(trimmed)
        .map(|segments| segments.join("/"))
        .ok_or_else(|| BuildError::new("auth.mount", "expected a mount such as approle"))
}

fn present(field: &str, path: Option<PathBuf>, what: &str) -> Result<PathBuf, BuildError> {
    path.filter(|path| !path.as_os_str().is_empty())
        .ok_or_else(|| BuildError::new(format!("auth.{field}"), format!("expected {what}")))
}

fn text(field: &str, text: Option<String>, what: &str) -> Result<String, BuildError> {
    let text = text.map(|text| text.trim().to_owned());
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| BuildError::new(format!("auth.{field}"), format!("expected {what}")))
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_REFUSAL_PAUSE: Duration = Duration::from_secs(30);
/// Longer than a lock-out, and than refused logins are counted.
const AFTER_LOCKOUT: Duration = Duration::from_secs(16 * 60);
/// Where Kubernetes puts a pod's own token.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_logins_never_lock_a_role_out_and_outages_are_retried_soon() {
        let secret = Secret::from("s".to_owned());
        let approle = Method::AppRole {
            mount: String::new(),
            role_id: String::new(),
            secret_id: SecretId::build(Some(secret), None, false).expect("must be accepted"),
        };
        let cert = Method::Cert {
            mount: String::new(),
            role: String::new(),
        };
        let refused = FetchError::LoginFailed("no".into());
        let quarter = Duration::from_secs(15 * 60);
        let within: Duration = (1..4).map(|nth| approle.pause(&refused, nth, 0.0)).sum();
        assert!(
            within > quarter,
            "three tries in a quarter of an hour, not five"
        );
        assert!(approle.pause(&refused, 99, 0.0) > quarter);
        assert!(cert.pause(&refused, 99, 0.9) <= LONGEST_REFUSAL_PAUSE);
        for method in [approle, cert] {
            assert!(method.pause(&FetchError::Sealed, 99, 0.9) <= LONGEST_OUTAGE_PAUSE);
        }
    }
}
