//! The login of one manager: credentials at hand, when to ask for others, and what is told about
//! them. They are asked for ahead of their end; while others cannot be had, those at hand serve
//! until they end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};

use super::super::{BuildCtx, Login};
use super::chain::{self, CHAIN};
use crate::clock::Clock;
use crate::secrets::settings::{Event, Observer};

/// See the file's text.
pub(super) struct Identity {
    id: Arc<str>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    source: Source,
    /// Held while the source is asked, so that a load of many documents asks once.
    held: tokio::sync::Mutex<Held>,
    standing: Mutex<Standing>,
}

/// Where credentials come from.
pub(super) enum Source {
    /// The item's own.
    Static(Credentials),
    /// Something that is asked and may give others each time.
    Asked(Box<dyn ProvideCredentials>),
}

#[derive(Default)]
struct Held {
    credentials: Option<Credentials>,
    /// The source is asked again from then on; `None` is never.
    renew_at: Option<SystemTime>,
    asked_at: Option<SystemTime>,
    /// When and why the source gave nothing, until it gives something.
    failed: Option<(SystemTime, String)>,
}

impl Held {
    /// What is at hand, unless the source has to be asked.
    fn current(&self, now: SystemTime, refused: bool) -> Option<&Credentials> {
        let due = refused || self.renew_at.is_some_and(|at| at <= now);
        let paused = self.asked_at.is_some_and(|at| now < at + PAUSE);
        self.living(now).filter(|_| !due || paused)
    }

    fn living(&self, now: SystemTime) -> Option<&Credentials> {
        let lives = |held: &&Credentials| held.expiry().is_none_or(|ends| now < ends);
        self.credentials.as_ref().filter(lives)
    }
}

/// What metrics and the audit log are told.
struct Standing {
    login: Option<Login>,
    opinion: Opinion,
    /// Why there are no (other) credentials, once told.
    failure: Option<String>,
}

/// What AWS thinks of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opinion {
    None,
    Accepted,
    Refused,
}

/// Why there are no credentials, as it travels inside the SDK's errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoCredentials(pub(super) String);

impl Identity {
    pub(super) fn new(source: Source, ctx: &BuildCtx<'_>) -> Self {
        let method = "static";
        let login = match source {
            Source::Static(_) => Some(Login { method, ends: None }),
            Source::Asked(_) => None,
        };
        Self {
            id: Arc::clone(ctx.id),
            clock: Arc::clone(ctx.clock),
            observer: Arc::clone(ctx.observer),
            source,
            held: tokio::sync::Mutex::default(),
            standing: Mutex::new(Standing {
                login,
                opinion: Opinion::None,
                failure: None,
            }),
        }
    }

    /// The login in force.
    pub(super) fn login(&self) -> Option<Login> {
        let standing = self.standing();
        let refused = standing.opinion == Opinion::Refused;
        standing.login.filter(|_| !refused)
    }

    /// AWS answered a call signed by these credentials.
    pub(super) fn accepted(&self) {
        let mut standing = self.standing();
        let Some(Login { method, .. }) = standing.login else {
            return;
        };
        if standing.opinion != Opinion::Accepted {
            standing.opinion = Opinion::Accepted;
            standing.failure = None;
            drop(standing);
            self.observer.event(&self.id, Event::LoggedIn { method });
        }
    }

    /// AWS refused them, by this code.
    pub(super) fn refused(&self, code: &str) {
        self.standing().opinion = Opinion::Refused;
        let code = chain::shown(code);
        self.failed(format!("AWS does not accept the credentials: {code}"));
    }

    /// Tells it, unless it was the last thing told.
    fn failed(&self, why: String) {
        let mut standing = self.standing();
        let method = standing.login.map_or(CHAIN, |login| login.method);
        if standing.failure.as_ref() != Some(&why) {
            standing.failure = Some(why.clone());
            drop(standing);
            self.observer
                .event(&self.id, Event::LoginFailed { method, why });
        }
    }

    async fn credentials(&self) -> Result<Credentials, NoCredentials> {
        let source = match &self.source {
            Source::Static(credentials) => return Ok(credentials.clone()),
            Source::Asked(source) => source,
        };
        let came = self.clock.wall();
        let mut held = self.held.lock().await;
        let now = self.clock.wall();
        let refused = self.standing().opinion == Opinion::Refused;
        if let Some(credentials) = held.current(now, refused) {
            return Ok(credentials.clone());
        }
        // Asked in vain while we waited: the answer is ours, too.
        if let Some((at, why)) = &held.failed
            && came <= *at
        {
            return Err(NoCredentials(why.clone()));
        }
        held.asked_at = Some(now);
        match source.provide_credentials().await {
            Ok(credentials) => {
                let ends = credentials.expiry();
                held.renew_at = ends.map(|ends| renew_at(self.clock.wall(), ends));
                held.credentials = Some(credentials.clone());
                held.failed = None;
                self.obtained(&credentials);
                Ok(credentials)
            }
            Err(error) => {
                let why = chain::words(&error);
                self.failed(why.clone());
                held.failed = Some((self.clock.wall(), why.clone()));
                let serving = held.living(now).filter(|_| !refused);
                serving.cloned().ok_or(NoCredentials(why))
            }
        }
    }

    fn obtained(&self, credentials: &Credentials) {
        let ends = credentials.expiry().map(|ends| {
            let left = ends.duration_since(self.clock.wall()).unwrap_or_default();
            self.clock.now() + left.min(LONGEST)
        });
        let method = chain::method(credentials);
        *self.standing() = Standing {
            login: Some(Login { method, ends }),
            opinion: Opinion::None,
            failure: None,
        };
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

/// For the SDK, which holds its provider by value.
#[derive(Debug)]
pub(super) struct Provider(pub(super) Arc<Identity>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let asked = async { self.0.credentials().await };
        future::ProvideCredentials::new(async {
            let given: provider::Result = asked.await.map_err(CredentialsError::provider_error);
            given
        })
    }
}

/// When to ask again for credentials that end then.
fn renew_at(now: SystemTime, ends: SystemTime) -> SystemTime {
    let left = ends.duration_since(now).unwrap_or_default();
    now + (left - AHEAD.min(left / 3)).max(PAUSE)
}

/// Credentials are asked for again this long before they end, or in the last third of short ones.
const AHEAD: Duration = Duration::from_secs(300);
/// Least time between two questions while those at hand serve.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest life that is told.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::clock::ManualClock;

    /// Lives of the credentials it gives, in seconds; `None` is a failure.
    #[derive(Debug)]
    struct Script(Arc<Mutex<VecDeque<Option<u64>>>>, SystemTime);

    impl ProvideCredentials for Script {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let next = self.0.lock().expect("no panic").pop_front().flatten();
            future::ProvideCredentials::ready(match next {
                Some(ends) => {
                    let expiry = self.1 + Duration::from_secs(ends);
                    let id = format!("until-{ends}");
                    Ok(Credentials::new(id, "key", None, Some(expiry), "test"))
                }
                None => Err(CredentialsError::not_loaded("hunter2")),
            })
        }
    }

    #[derive(Default)]
    struct Told(Mutex<Vec<&'static str>>);

    impl Observer for Told {
        fn fetch(&self, _: &str, _: Result<(), &super::super::super::FetchError>, _: Duration) {}

        fn event(&self, _: &str, event: Event) {
            assert!(!format!("{event:?}").contains("hunter2"));
            self.0.lock().expect("no panic").push(match event {
                Event::LoggedIn { .. } => "in",
                Event::LoginFailed { .. } => "failed",
                _ => "other",
            });
        }
    }

    struct Fixture {
        identity: Identity,
        clock: Arc<ManualClock>,
        told: Arc<Told>,
        script: Arc<Mutex<VecDeque<Option<u64>>>>,
    }

    impl Fixture {
        fn new(script: &[Option<u64>]) -> Self {
            let clock = Arc::new(ManualClock::new());
            let told = Arc::new(Told::default());
            let script = Arc::new(Mutex::new(script.iter().copied().collect()));
            let source = Script(Arc::clone(&script), clock.wall());
            let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
            let observer: Arc<dyn Observer> = Arc::clone(&told) as _;
            let ctx = BuildCtx {
                id: &"aws/main".into(),
                clock: &shared,
                trusted_ca: None,
                observer: &observer,
            };
            let identity = Identity::new(Source::Asked(Box::new(source)), &ctx);
            Self {
                identity,
                clock,
                told,
                script,
            }
        }

        async fn given(&self) -> String {
            match self.identity.credentials().await {
                Ok(credentials) => credentials.access_key_id().to_owned(),
                Err(NoCredentials(why)) => why,
            }
        }

        fn pass(&self, secs: u64) {
            self.clock.advance(Duration::from_secs(secs));
        }

        fn told(&self) -> Vec<&'static str> {
            std::mem::take(&mut *self.told.0.lock().expect("no panic"))
        }
    }

    #[tokio::test]
    async fn credentials_are_renewed_ahead_and_old_ones_serve_while_there_are_no_others() {
        let fixture = Fixture::new(&[Some(3600), None, None, Some(7200)]);
        assert_eq!(fixture.given().await, "until-3600");
        fixture.identity.accepted();
        fixture.identity.accepted();
        assert_eq!(fixture.told(), ["in"]);
        let login = fixture.identity.login().expect("a login");
        let left = login.ends.map(|ends| ends - fixture.clock.now());
        assert_eq!(left, Some(Duration::from_secs(3600)));

        fixture.pass(3299);
        assert_eq!(fixture.given().await, "until-3600");
        assert_eq!(
            fixture.script.lock().expect("no panic").len(),
            3,
            "not asked"
        );
        // Two failures, ten seconds apart, are one event; the old credentials serve.
        for _ in 0..2 {
            fixture.pass(10);
            for _ in 0..3 {
                assert_eq!(fixture.given().await, "until-3600");
            }
        }
        fixture.identity.accepted();
        assert_eq!(fixture.told(), ["failed"]);
        fixture.pass(10);
        assert_eq!(fixture.given().await, "until-7200");
        fixture.identity.accepted();
        assert_eq!(fixture.told(), ["in"]);
    }

    #[tokio::test]
    async fn ended_credentials_serve_no_longer() {
        let fixture = Fixture::new(&[Some(600), None, None]);
        assert_eq!(fixture.given().await, "until-600");
        fixture.pass(595);
        assert_eq!(fixture.given().await, "until-600");
        fixture.pass(5);
        assert!(fixture.given().await.starts_with("no credentials in"));
        assert_eq!(fixture.told(), ["failed"]);
    }

    #[tokio::test]
    async fn refused_credentials_are_replaced_without_a_storm() {
        let fixture = Fixture::new(&[Some(3600), Some(3601), Some(3602)]);
        assert_eq!(fixture.given().await, "until-3600");
        fixture.identity.refused("ExpiredTokenException");
        fixture.identity.refused("ExpiredTokenException");
        assert_eq!(fixture.identity.login(), None);
        assert_eq!(fixture.told(), ["failed"]);
        assert_eq!(fixture.given().await, "until-3600");
        fixture.pass(10);
        assert_eq!(fixture.given().await, "until-3601");
        fixture.identity.accepted();
        assert_eq!(fixture.given().await, "until-3601");
        assert_eq!(fixture.told(), ["in"]);
        assert!(fixture.identity.login().is_some());
    }
}
