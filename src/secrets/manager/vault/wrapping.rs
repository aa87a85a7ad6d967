//! An AppRole's secret id: as it stands, or inside a response-wrapping token that is opened once.
//! What was in it is kept in memory, for the logins that follow.

use std::path::{Path, PathBuf};
use std::time::Instant;

use openssl::sha::sha256;
use reqwest::StatusCode;
use serde::Deserialize;
use vaultrs::api::sys::requests::{UnwrapRequest, WrappingLookupRequest};
use zeroize::{Zeroize as _, Zeroizing};

use super::answer;
use super::api::{Api, Call};
use super::login::{read_secret, refused};
use crate::secrets::manager::http::wiped_header;
use crate::secrets::manager::{BuildError, FetchError, secret_text};
use crate::secrets::value::Secret;

/// Where the secret id comes from.
pub(super) struct SecretId {
    source: Source,
    wrapped: bool,
    /// Digest of the wrapping token opened last, and what was in it.
    opened: tokio::sync::Mutex<Option<([u8; 32], Secret)>>,
}

enum Source {
    Literal(Secret),
    File(PathBuf),
}

impl SecretId {
    pub(super) fn build(
        literal: Option<Secret>,
        file: Option<PathBuf>,
        wrapped: bool,
    ) -> Result<Self, BuildError> {
        let expected = |message| Err(BuildError::new("auth.secret_id", message));
        let source = match (literal, file) {
            (Some(_), Some(_)) => return expected("expected either this or secret_id_file"),
            (Some(literal), None) if !literal.expose().trim_ascii().is_empty() => {
                Source::Literal(Secret::new(literal.expose().trim_ascii().to_vec()))
            }
            (None, Some(file)) if !file.as_os_str().is_empty() => Source::File(file),
            _ => return expected("expected a secret id, or its file as secret_id_file"),
        };
        Ok(Self {
            source,
            wrapped,
            opened: tokio::sync::Mutex::new(None),
        })
    }

    pub(super) fn file(&self) -> Option<&Path> {
        match &self.source {
            Source::Literal(_) => None,
            Source::File(file) => Some(file),
        }
    }

    /// The secret id itself. `mount` is the AppRole method's.
    pub(super) async fn value(
        &self,
        api: &Api,
        mount: &str,
        deadline: Instant,
    ) -> Result<Secret, FetchError> {
        let written = match &self.source {
            Source::Literal(secret) => secret.clone(),
            Source::File(file) => read_secret("secret_id_file", file).await?,
        };
        if !self.wrapped {
            return Ok(written);
        }
        let mut opened = self.opened.lock().await;
        let digest = sha256(written.expose());
        match &*opened {
            Some((same, secret)) if *same == digest => Ok(secret.clone()),
            _ => {
                let secret = unwrap(api, mount, &written, deadline).await?;
                *opened = Some((digest, secret.clone()));
                Ok(secret)
            }
        }
    }
}

/// Opens a wrapping token, after a look at what wrapped it: one that was made elsewhere, by who
/// opened the real one, would give us a secret id of that stranger's choice.
async fn unwrap(
    api: &Api,
    mount: &str,
    wrapping: &Secret,
    deadline: Instant,
) -> Result<Secret, FetchError> {
    let not_a_token = || refused("approle: the wrapped secret_id is not a wrapping token");
    let text = wrapping.expose_str().ok_or_else(not_a_token)?;
    let mut lookup = WrappingLookupRequest {
        token: text.to_owned(),
    };
    let question = Call::of(&lookup);
    lookup.token.zeroize();
    let (status, body) = api.call(None, &question?, deadline).await?;
    check(status, &body)?;
    let origin: Wrapped<Origin> = answer::parse(&body)?;
    let path = origin.data.creation_path;
    let of_role = path.strip_prefix(&format!("auth/{mount}/role/"));
    if !of_role.is_some_and(|rest| rest.ends_with("/secret-id")) {
        let why = "approle: the wrapping token was not made by this role's secret-id endpoint; \
                   somebody may have put it in the place of the real one";
        return Err(refused(why));
    }

    let header = wiped_header(wrapping.expose()).ok_or_else(not_a_token)?;
    // A second try would find the token used: by the first.
    let opening = Call::of(&UnwrapRequest { token: None })?.once();
    let (status, body) = api.call(Some(&header), &opening, deadline).await?;
    check(status, &body)?;
    let answer: Wrapped<Content> = answer::parse(&body)?;
    let secret = answer.data.secret_id.filter(|secret| !secret.is_empty());
    secret.ok_or_else(|| refused("approle: no secret_id was wrapped"))
}

fn check(status: StatusCode, body: &Zeroizing<Vec<u8>>) -> Result<(), FetchError> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN if answer::speaks_vault(body) => {
            let why = "approle: the wrapping token was used already or has ended; \
                       if it was not us, somebody else may have unwrapped the secret_id";
            Err(refused(why))
        }
        status => Err(answer::of_status(status)),
    }
}

#[derive(Deserialize)]
struct Wrapped<T> {
    data: T,
}

#[derive(Deserialize)]
struct Origin {
    #[serde(default)]
    creation_path: String,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default, deserialize_with = "secret_text")]
    secret_id: Option<Secret>,
}
