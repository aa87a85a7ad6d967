//! `vault`: `HashiCorp` Vault and `OpenBao`, KV version 1 and 2, by every login a gateway may have.
//! Never follows a redirect.

mod addresses;
mod answer;
mod api;
mod auth;
mod config;
mod kv;
mod login;
mod probe;
mod session;
mod tend;
mod token;
mod watch;
mod wrapping;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::StatusCode;

use super::http::{Answer, encode};
use super::{Document, FetchError, Location, Login, Manager, ManagerDef, Presence, Read};
use crate::secrets::reference::{Key, Reference, ReferenceError};
use api::Call;
use config::VaultConfig;
use kv::{Engine, Kv};
use session::Session;

pub(in crate::secrets) const DEF: ManagerDef = ManagerDef {
    name: "vault",
    build: |fields, ctx| {
        let config: VaultConfig = fields.parse()?;
        Ok(Box::new(config.build(ctx)?))
    },
    access: &["token", "auth", "tls", "timeout"],
};

struct Vault {
    session: Arc<Session>,
    kv: Kv,
}

#[async_trait]
impl Manager for Vault {
    fn locate(&self, key: &Key) -> Result<Location, ReferenceError> {
        let location = Location::split_last(key);
        if location.path.is_empty() {
            return Err(ReferenceError::KeyFormat(key.path.clone()));
        }
        let number = |version: &Arc<str>| version.parse::<u64>().is_ok_and(|number| number > 0);
        if key.version.as_ref().is_some_and(|version| !number(version)) {
            return Err(ReferenceError::Query(
                "version of a vault secret is a number",
            ));
        }
        Ok(location)
    }

    async fn fetch(&self, read: Read<'_>) -> Result<Document, FetchError> {
        self.read(read, self.session.api.deadline()).await
    }

    async fn probe(&self, read: Read<'_>) -> Result<Presence, FetchError> {
        let deadline = self.session.api.deadline();
        if let Engine::V2 { mount_len } = self.engine(deadline).await? {
            let question = Call::get(self.kv.subkeys_path(mount_len, read));
            match self.ask(&question, deadline).await {
                Ok((StatusCode::OK, body)) => return probe::presence(&body),
                Ok((StatusCode::NOT_FOUND, body)) if !answer::is_unsupported(&body) => {
                    return Err(kv::missing(&body));
                }
                // Not allowed, or older than `subkeys`: the document itself may be readable.
                Err(FetchError::ForbiddenPath(_))
                | Ok((StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _)) => {}
                Ok((status, _)) => return Err(answer::of_status(status)),
                Err(error) => return Err(error),
            }
        }
        Ok(self.read(read, deadline).await?.presence())
    }

    async fn tend(&self) {
        self.session.tend().await;
    }

    fn login(&self) -> Option<Login> {
        self.session.login()
    }

    fn time_limit(&self) -> Duration {
        self.session.api.timeout
    }
}

impl Vault {
    async fn read(&self, read: Read<'_>, deadline: Instant) -> Result<Document, FetchError> {
        let engine = self.engine(deadline).await?;
        let question = match engine {
            Engine::V1 if read.version.is_some() => {
                return Err(FetchError::Unsupported("KV version 1 keeps no versions"));
            }
            Engine::V1 => Call::of(&self.kv.v1_request(read))?,
            Engine::V2 { mount_len } => Call::of(&self.kv.v2_request(mount_len, read))?,
        };
        match self.ask(&question, deadline).await? {
            (StatusCode::OK, body) => kv::document(engine, &body),
            (StatusCode::NOT_FOUND, body) => {
                // The mount may have been replaced or upgraded.
                self.kv.learn(None);
                Err(kv::missing(&body))
            }
            (status, _) => Err(answer::of_status(status)),
        }
    }

    /// What the prefix is mounted as. Asked once; a token that may not ask means version 1, as in
    /// APISIX, unless version 2 was declared.
    async fn engine(&self, deadline: Instant) -> Result<Engine, FetchError> {
        if let Some(engine) = self.kv.engine() {
            return Ok(engine);
        }
        let _asking = self.kv.asking.lock().await;
        if let Some(engine) = self.kv.engine() {
            return Ok(engine);
        }
        let question = Call::get(self.kv.mount_question());
        let engine = match self.ask(&question, deadline).await {
            Ok((StatusCode::OK, body)) => self.kv.of_mount(&body)?,
            // Somebody else's page says nothing, and what is guessed here stays.
            Ok((StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST, body))
                if answer::speaks_vault(&body) =>
            {
                self.kv.declared.unwrap_or(Engine::V1)
            }
            Err(FetchError::ForbiddenPath(_)) => self.kv.declared.unwrap_or(Engine::V1),
            Ok((status, _)) => return Err(answer::of_status(status)),
            Err(error) => return Err(error),
        };
        self.kv.learn(Some(engine));
        Ok(engine)
    }

    /// Asks with the token in force. What a 403 means is sorted out: where the token lives, a
    /// policy forbids the path; where it is dead, another login is made, once.
    async fn ask(&self, call: &Call, deadline: Instant) -> Result<Answer, FetchError> {
        let session = &self.session;
        for _ in 0..2 {
            let token = session.token(deadline).await?;
            let (status, body) = session
                .api
                .call(Some(&token.header), call, deadline)
                .await?;
            if status != StatusCode::FORBIDDEN {
                return Ok((status, body));
            }
            if !answer::speaks_vault(&body) {
                return Err(FetchError::UnexpectedStatus(403));
            }
            if session.lives(&token, deadline).await? {
                return Err(FetchError::ForbiddenPath(call.api_path().into()));
            }
            session.discard(&token);
        }
        Err(FetchError::TokenRefused)
    }
}

/// Segments of a path, each encoded by itself, if each passes the check of a reference's.
fn encoded_path(path: &str) -> Option<Vec<String>> {
    let as_reference = format!("$secret://vault/path/{path}");
    if path.is_empty() || path.contains(['?', '#']) || Reference::parse(&as_reference).is_err() {
        return None;
    }
    Some(path.split('/').map(encode).collect())
}
