//! The servers a manager may ask: the one that answered last is asked first, the next one when it
//! cannot serve. All tries of one call share its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::header::HeaderValue;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;

use super::answer;
use super::api::Call;
use crate::clock::Clock;
use crate::secrets::manager::http::{self as client, Answer, HttpClient};
use crate::secrets::manager::{BuildError, FetchError, Step};

/// `uri`: one address, as in APISIX, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Uris {
    One(String),
    Many(Vec<String>),
}

impl Uris {
    /// The addresses, each with the name of its field.
    pub(super) fn named(&self) -> Vec<(String, &str)> {
        match self {
            Self::One(uri) => vec![("uri".to_owned(), uri)],
            Self::Many(uris) => {
                let uris = uris.iter().enumerate();
                uris.map(|(index, uri)| (format!("uri[{index}]"), uri.as_str()))
                    .collect()
            }
        }
    }
}

pub(super) struct Addresses {
    servers: Vec<HttpClient>,
    /// Index of the one that answered last.
    favourite: AtomicUsize,
    clock: Arc<dyn Clock>,
}

impl Addresses {
    pub(super) fn new(servers: Vec<HttpClient>, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        if servers.is_empty() {
            return Err(BuildError::new("uri", "expected at least one address"));
        }
        Ok(Self {
            servers,
            favourite: AtomicUsize::new(0),
            clock,
        })
    }

    /// Asks until a server says something about the matter, or all have been asked. A server gets
    /// its share of the time that is left, so that the last one still has some.
    pub(super) async fn send(
        &self,
        call: &Call,
        headers: &[(&'static str, Option<&HeaderValue>)],
        deadline: Instant,
    ) -> Result<Answer, FetchError> {
        let first = self.favourite.load(Ordering::Relaxed);
        let tries = if call.repeatable {
            self.servers.len()
        } else {
            1
        };
        let mut failures = Vec::new();
        for turn in 0..tries {
            let index = (first + turn) % self.servers.len();
            let left = deadline.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                break;
            }
            let share = left.div_f64((tries - turn) as f64);
            let mut request = self.request(index, call).timeout(share);
            for (name, value) in headers {
                if let Some(value) = value {
                    request = request.header(*name, (*value).clone());
                }
            }
            match client::send(request).await {
                Ok((status, _)) if cannot_serve(status) => failures.push(answer::of_status(status)),
                Err(error) if tries_next(&error) => failures.push(error),
                outcome => {
                    self.favourite.store(index, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        Err(most_telling(failures))
    }

    fn request(&self, index: usize, call: &Call) -> RequestBuilder {
        let request = self.servers[index].request(call.method.clone(), &call.path);
        match &call.body {
            Some(body) => request.body(client::wiped_body(body.clone())),
            None => request,
        }
    }
}

/// Sealed, standing by, or failing: another server of the cluster may do better.
fn cannot_serve(status: StatusCode) -> bool {
    status.is_server_error()
}

/// A redirect is how a standby server points at the active one.
fn tries_next(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Unreachable(..) | FetchError::TimedOut | FetchError::Redirected(_)
    )
}

/// A server that answered says more than one that did not; the first says more than the next.
fn most_telling(failures: Vec<FetchError>) -> FetchError {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return FetchError::TimedOut;
    };
    if first.step() == Step::Answer {
        return first;
    }
    failures
        .find(|failure| failure.step() == Step::Answer)
        .unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_the_first_that_is_an_answer_is_told() {
        let refused = || FetchError::Unreachable(Step::Tcp, "refused".into());
        for (failures, told) in [
            (vec![], FetchError::TimedOut),
            (vec![refused(), FetchError::TimedOut], refused()),
            (
                vec![refused(), FetchError::Sealed, FetchError::ServerError(500)],
                FetchError::Sealed,
            ),
            (vec![FetchError::Sealed, refused()], FetchError::Sealed),
        ] {
            assert_eq!(most_telling(failures), told);
        }
    }
}
