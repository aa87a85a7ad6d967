//! One login by each method, and what its refusals mean. Keeps nothing.

use std::path::Path;
use std::time::Instant;

use http::header::HeaderValue;
use reqwest::StatusCode;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::cert::requests::LoginRequest as LoginWithCertRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;
use zeroize::Zeroize as _;

use super::answer;
use super::api::{Api, Call};
use super::auth::Method;
use super::token::{Grant, Lease, Token, looked_up};
use crate::secrets::manager::FetchError;
use crate::secrets::manager::file::read_named;
use crate::secrets::manager::http::wiped_header;
use crate::secrets::value::Secret;

impl Method {
    /// Gets a token that the server has just accepted.
    pub(super) async fn log_in(&self, api: &Api, deadline: Instant) -> Result<Token, FetchError> {
        match self {
            Self::Token(header) => adopt(api, header.clone(), deadline).await,
            Self::TokenFile(file) => {
                let text = read_secret("token_file", file).await?;
                let header = wiped_header(text.expose())
                    .ok_or_else(|| refused("token_file: expected visible ASCII characters only"))?;
                adopt(api, header, deadline).await
            }
            _ => {
                let since = api.clock.now();
                let call = self.request(api, deadline).await?;
                let (status, body) = api.call(None, &call, deadline).await?;
                let grant = match status {
                    StatusCode::OK => Grant::parse(&body)?,
                    _ => return Err(self.refusal(status, &body)),
                };
                let token = grant.token(since)?;
                match look_up(api, &token.header, deadline).await? {
                    Standing::Lives(_) | Standing::LivesUnseen => Ok(token),
                    Standing::Dead => Err(refused("a token just issued is not accepted")),
                }
            }
        }
    }

    /// The login as a call; what it needs is read anew.
    async fn request(&self, api: &Api, deadline: Instant) -> Result<Call, FetchError> {
        match self {
            Self::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let secret_id = secret_id.value(api, mount, deadline).await?;
                let mut endpoint = LoginWithApproleRequest {
                    mount: mount.clone(),
                    role_id: role_id.clone(),
                    secret_id: text_of("secret_id", &secret_id)?,
                };
                let call = Call::of(&endpoint);
                endpoint.secret_id.zeroize();
                call
            }
            Self::Jwt {
                name: "kubernetes",
                mount,
                role,
                file,
            } => {
                let jwt = read_secret("jwt_file", file).await?;
                let mut endpoint = LoginWithKubernetesRequest {
                    mount: mount.clone(),
                    role: role.clone().unwrap_or_default(),
                    jwt: text_of("jwt_file", &jwt)?,
                };
                let call = Call::of(&endpoint);
                endpoint.jwt.zeroize();
                call
            }
            Self::Jwt {
                mount, role, file, ..
            } => {
                let jwt = read_secret("jwt_file", file).await?;
                let mut endpoint = JWTLoginRequest {
                    mount: mount.clone(),
                    jwt: text_of("jwt_file", &jwt)?,
                    role: role.clone(),
                };
                let call = Call::of(&endpoint);
                endpoint.jwt.zeroize();
                call
            }
            Self::Cert { mount, role } => {
                let endpoint = LoginWithCertRequest {
                    mount: mount.clone(),
                    cert_name: role.clone(),
                };
                Call::of(&endpoint)
            }
            Self::Token(_) | Self::TokenFile(_) => Err(FetchError::TokenRefused),
        }
    }

    /// In our own words: an error's text is a part of an answer.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> FetchError {
        let is_refusal = matches!(status.as_u16(), 400 | 401 | 403 | 404);
        if !is_refusal || !answer::speaks_vault(body) {
            return answer::of_status(status);
        }
        let (mount, expected) = match self {
            Self::AppRole { mount, .. } => (mount, "role_id and secret_id"),
            Self::Jwt { mount, .. } => (mount, "role and jwt_file"),
            Self::Cert { mount, .. } => (mount, "tls.client_cert and role"),
            Self::Token(_) | Self::TokenFile(_) => return FetchError::TokenRefused,
        };
        // What a server also says where it does not want to tell which names exist.
        let or_else = match status {
            StatusCode::FORBIDDEN if self.locks_out() => {
                ", or is not there, or locks the role out for a while after refused logins"
            }
            StatusCode::FORBIDDEN => ", or is not there",
            _ => "",
        };
        refused(&format!(
            "{} at auth/{mount} does not accept {expected}{or_else} (status {})",
            self.name(),
            status.as_u16()
        ))
    }
}

/// What `lookup-self` says of a token.
pub(super) enum Standing {
    Lives(Lease),
    /// No policy lets it look itself up.
    LivesUnseen,
    Dead,
}

/// Asks whether a token lives.
///
/// # Errors
/// It could not be asked, or the answer proves nothing.
pub(super) async fn look_up(
    api: &Api,
    token: &HeaderValue,
    deadline: Instant,
) -> Result<Standing, FetchError> {
    let since = api.clock.now();
    let question = Call::of(&LookupTokenSelfRequest {})?;
    let (status, body) = api.call(Some(token), &question, deadline).await?;
    match status {
        StatusCode::OK => looked_up(&body, since).map(Standing::Lives),
        StatusCode::FORBIDDEN if answer::denied_by_policy(&body) => Ok(Standing::LivesUnseen),
        StatusCode::FORBIDDEN if answer::speaks_vault(&body) => Ok(Standing::Dead),
        status => Err(answer::of_status(status)),
    }
}

/// A token that was given to us.
async fn adopt(api: &Api, header: HeaderValue, deadline: Instant) -> Result<Token, FetchError> {
    let lease = match look_up(api, &header, deadline).await? {
        Standing::Lives(lease) => lease,
        Standing::LivesUnseen => Lease::unseen(api.clock.now()),
        Standing::Dead => return Err(FetchError::TokenRefused),
    };
    Ok(Token::new(header, Some(lease)))
}

pub(super) fn refused(why: &str) -> FetchError {
    FetchError::LoginFailed(why.into())
}

/// A file's content without the white space around it.
pub(super) async fn read_secret(field: &str, file: &Path) -> Result<Secret, FetchError> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read_named(&path)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(refused(&format!("{field}: {error}"))),
        Err(_) => return Err(refused(&format!("{field}: reading was interrupted"))),
    };
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Err(refused(&format!("{field}: file is empty")));
    }
    Ok(Secret::new(text.to_vec()))
}

/// For `vaultrs`, whose endpoints take text; it is wiped once the call is written.
fn text_of(field: &str, secret: &Secret) -> Result<String, FetchError> {
    let text = secret.expose_str().map(str::to_owned);
    text.ok_or_else(|| refused(&format!("{field}: expected text")))
}
