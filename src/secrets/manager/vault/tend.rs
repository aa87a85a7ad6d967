//! Work beside the reads: renews the token, replaces it ahead of its end, follows the file that a
//! login depends on.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use vaultrs::api::token::requests::RenewTokenSelfRequest;

use super::answer;
use super::api::Call;
use super::auth::Method;
use super::session::Session;
use super::token::{Grant, Lease, Need, Token};
use super::watch::Watch;
use crate::secrets::manager::FetchError;
use crate::secrets::manager::http::Answer;
use crate::secrets::settings::Event;

impl Session {
    /// Renews the token, replaces it before it ends, and follows the file it comes from.
    pub(super) async fn tend(self: &Arc<Self>) {
        let file = self.method.file();
        let mut watch = file.map(|file| Watch::start(file, self.file_seen));
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let need = self.need();
            let pause = match need {
                Need::Nothing => Duration::MAX,
                Need::Renewal(at) | Need::Replacement(at) | Need::Warning(at) => {
                    at.saturating_duration_since(self.now())
                }
            };
            tokio::select! {
                () = &mut changed => continue,
                () = file_changed(&mut watch) => {
                    self.file_changed();
                    continue;
                }
                () = tokio::time::sleep(pause) => {}
            }
            match need {
                Need::Nothing => {}
                Need::Renewal(_) => self.renew().await,
                Need::Replacement(_) => self.replace(),
                Need::Warning(_) => self.warn(),
            }
        }
    }

    /// What is to be done next, and when.
    fn need(&self) -> Need {
        let now = self.now();
        let state = self.state();
        if state.flying {
            return Need::Nothing;
        }
        let retry_at = state
            .refusal
            .as_ref()
            .map_or(now, |refusal| refusal.retry_at);
        let lease = state.token.as_ref().map(|token| token.lease);
        match lease {
            // No token; or one that was given, of which nothing is known yet.
            None | Some(None) => Need::Replacement(retry_at),
            Some(Some(lease)) => {
                let replaceable = self.method.makes_tokens();
                match lease.need(replaceable, rand::random()) {
                    Need::Renewal(at) => Need::Renewal(at.max(retry_at)),
                    Need::Replacement(at) => Need::Replacement(at.max(retry_at)),
                    Need::Warning(_) if state.warned == Some(lease.since) => match lease.ends() {
                        Some(end) => Need::Replacement(retry_at.max(end + AFTER_END)),
                        None => Need::Nothing,
                    },
                    other => other,
                }
            }
        }
    }

    async fn renew(self: &Arc<Self>) {
        let Some(token) = self.state().token.clone() else {
            return;
        };
        let Some(lease) = token.lease else { return };
        let since = self.now();
        let renewed = match self.ask_for_more(&token).await {
            Ok((StatusCode::OK, body)) => {
                Grant::parse(&body).map(|grant| lease.renewed(since, &grant))
            }
            Ok((StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, body))
                if answer::speaks_vault(&body) =>
            {
                match self.lives(&token, self.api.deadline()).await {
                    Ok(true) => Ok(lease.for_good()),
                    Ok(false) => return self.discard(&token),
                    Err(error) => Err(error),
                }
            }
            Ok((status, _)) => Err(answer::of_status(status)),
            // So `OpenBao` answers for a token on its last second; another login does not need it.
            Err(FetchError::ServerError(_)) if self.method.makes_tokens() => Ok(lease.for_good()),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(lease) => {
                self.put(&token, lease);
                if lease.renewable {
                    let method = self.method.name();
                    self.observer.event(&self.id, Event::Renewed { method });
                }
            }
            // What became of a token that is in force no longer hinders no login.
            Err(_) if !self.state().holds(&token) => {}
            Err(error) => {
                let soon = lease.ttl.unwrap_or(LONGEST_PAUSE) / 8;
                self.failed(error, Some(soon));
            }
        }
    }

    async fn ask_for_more(&self, token: &Token) -> Result<Answer, FetchError> {
        let call = Call::of(&RenewTokenSelfRequest { increment: None })?;
        let deadline = self.api.deadline();
        self.api.call(Some(&token.header), &call, deadline).await
    }

    /// Puts another lease of the same token in force.
    fn put(&self, token: &Token, lease: Lease) {
        let mut state = self.state();
        if state.holds(token) {
            state.token = Some(Arc::new(token.with(lease)));
            state.refusal = None;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn warn(&self) {
        let now = self.now();
        let mut state = self.state();
        let lease = state.token.as_ref().and_then(|token| token.lease);
        state.warned = lease.map(|lease| lease.since);
        drop(state);
        let Some(end) = lease.and_then(|lease| lease.ends()) else {
            return;
        };
        let left = end.saturating_duration_since(now).as_secs();
        let why = format!("token ends in {left} s and cannot be renewed");
        log::warn!("secret manager {}: {why}", self.id);
        let method = self.method.name();
        let event = Event::LoginFailed { method, why };
        self.observer.event(&self.id, event);
    }

    fn file_changed(self: &Arc<Self>) {
        let mut state = self.state();
        state.refusal = None;
        // Only a token is in itself a reason to log in; what logs in is read when that is due.
        if matches!(self.method, Method::TokenFile(_)) || state.token.is_none() {
            self.fly(&mut state);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn replace(self: &Arc<Self>) {
        self.fly(&mut self.state());
    }
}

async fn file_changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// After a token's end, whether it has really ended is asked once more, for the log.
const AFTER_END: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
