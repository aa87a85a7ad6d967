//! Holds passwords against slow hashes, away from traffic threads. So many at a time, so many
//! waiting, each question once however many ask it; what was found right is remembered with the
//! credential, what was found wrong for a short time. Remembers digests, never a password.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, header};
use tokio::sync::{Semaphore, watch};

use super::phc::Hash;
use crate::clock::Clock;
use crate::consumer::{Digest, digest};
use crate::kept::Kept;
use crate::plugins::respond::Response;
use crate::secrets::Secret;

/// The hashed secret of one credential.
pub(super) struct Hashed {
    hash: Hash,
    /// Differs where the hash does.
    id: Digest,
    /// Digest of the one secret it is the hash of, once that was presented. Outlives the
    /// credential's object where that is built anew with the same hash.
    right: Arc<OnceLock<Digest>>,
}

impl Hashed {
    /// `text` is what `hash` was parsed from.
    pub(super) fn new(hash: Hash, text: &str, digest_key: &[u8; 16], kept: &Kept) -> Self {
        let id = digest(digest_key, text.as_bytes());
        let key = format!("auth/right/{:x}", u128::from_ne_bytes(id));
        Self {
            hash,
            id,
            right: kept.entry(&key, OnceLock::new),
        }
    }

    /// Whether the secret of that digest was found right before.
    pub(super) fn remembers(&self, secret: &Digest) -> bool {
        let right = self.right.get();
        right.is_some_and(|right| openssl::memcmp::eq(right, secret))
    }
}

/// Which of these credentials has this secret?
pub(super) struct Question {
    id: Digest,
    candidates: Vec<Arc<Hashed>>,
    secret: Secret,
    digest: Digest,
}

impl Question {
    /// `digest` makes digests of this process. `whom` is what else was presented, such as a
    /// username: the answers to different ones are remembered apart.
    pub(super) fn new(
        candidates: Vec<Arc<Hashed>>,
        secret: &[u8],
        whom: &[u8],
        digest: impl Fn(&[u8]) -> Digest,
    ) -> Self {
        let own = digest(secret);
        let mut id = [digest(whom), own].concat();
        id.extend(candidates.iter().flat_map(|candidate| candidate.id));
        Self {
            id: digest(&id),
            candidates,
            secret: Secret::new(secret.to_vec()),
            digest: own,
        }
    }

    /// The first that remembers the secret.
    fn remembered(&self) -> Option<usize> {
        let mut candidates = self.candidates.iter();
        candidates.position(|candidate| candidate.remembers(&self.digest))
    }

    /// Computes. Slow.
    fn answer(&self) -> Answer {
        let is_right = |candidate: &Arc<Hashed>| candidate.hash.is_of(self.secret.expose());
        let Some(at) = self.candidates.iter().position(is_right) else {
            return Answer::Wrong;
        };
        // Another thread may have remembered the same.
        let _ = self.candidates[at].right.set(self.digest);
        Answer::Right(at)
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The candidate at this place.
    Right(usize),
    /// None of them.
    Wrong,
    /// Too many are waiting, or it took too long.
    Busy,
}

/// What a client gets for [`Answer::Busy`].
pub(super) fn busy() -> Response {
    Response::message(503, "Authentication is busy")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// Answers questions, for all routes of the process.
pub(super) struct Verifier {
    limits: Limits,
    clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

/// Bounds.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Questions that wait or are computed.
    pending: usize,
    /// How long a request waits.
    patience: Duration,
}

#[derive(Default)]
struct State {
    /// Questions under way.
    pending: HashMap<Digest, watch::Receiver<Option<Answer>>>,
    /// Questions whose answer was [`Answer::Wrong`], until then.
    wrong: HashMap<Digest, Instant>,
    /// The same in order, so that the oldest goes first.
    order: VecDeque<(Instant, Digest)>,
}

impl Verifier {
    /// The verifier that all plugins share. Half of the processors compute at most.
    pub(super) fn shared(kept: &Kept, clock: &Arc<dyn Clock>) -> Arc<Self> {
        let limits = Limits {
            pending: PENDING,
            patience: PATIENCE,
        };
        kept.entry("auth/verifier", || {
            let processors = std::thread::available_parallelism();
            let computing = processors.map_or(1, |count| count.get().div_ceil(2));
            Self::new(computing, limits, Arc::clone(clock))
        })
    }

    /// One that has room for so many questions.
    #[cfg(test)]
    pub(super) fn with_places(pending: usize, clock: &Arc<dyn Clock>) -> Arc<Self> {
        let limits = Limits {
            pending,
            patience: PATIENCE,
        };
        Arc::new(Self::new(1, limits, Arc::clone(clock)))
    }

    fn new(computing: usize, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            limits,
            clock,
            permits: Arc::new(Semaphore::new(computing)),
            state: Mutex::default(),
        }
    }

    /// Answers at once what is remembered; else computes, or waits for whoever does.
    pub(super) async fn ask(self: &Arc<Self>, question: Question) -> Answer {
        let mut answer = {
            let mut state = self.state();
            // Under the lock: who is done remembers before it leaves `pending`.
            if let Some(right) = question.remembered() {
                return Answer::Right(right);
            }
            if state.is_wrong(&question.id, self.clock.now()) {
                return Answer::Wrong;
            }
            match state.pending.get(&question.id) {
                Some(answer) => answer.clone(),
                None if state.pending.len() >= self.limits.pending => return Answer::Busy,
                None => {
                    let (tell, answer) = watch::channel(None);
                    state.pending.insert(question.id, answer.clone());
                    // Whoever asked may leave; others may be waiting for the same.
                    tokio::spawn(Arc::clone(self).compute(question, tell));
                    answer
                }
            }
        };
        let told = answer.wait_for(Option::is_some);
        match tokio::time::timeout(self.limits.patience, told).await {
            Ok(Ok(answer)) => (*answer).unwrap_or(Answer::Busy),
            // The runtime is going away, or the computation died.
            Ok(Err(_)) | Err(_) => Answer::Busy,
        }
    }

    async fn compute(self: Arc<Self>, question: Question, tell: watch::Sender<Option<Answer>>) {
        let id = question.id;
        let _leaving = Leaving {
            verifier: &self,
            id,
        };
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return;
        };
        let computed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            question.answer()
        });
        let Ok(answer) = computed.await else {
            log::error!("a password could not be verified: the computation failed");
            return;
        };
        if answer == Answer::Wrong {
            self.state().remember_wrong(id, self.clock.now());
        }
        tell.send_replace(Some(answer));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a question out of those under way, however its task ends.
struct Leaving<'a> {
    verifier: &'a Verifier,
    id: Digest,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.verifier.state().pending.remove(&self.id);
    }
}

impl State {
    fn is_wrong(&self, id: &Digest, now: Instant) -> bool {
        self.wrong.get(id).is_some_and(|until| now < *until)
    }

    /// The oldest goes where there are too many.
    fn remember_wrong(&mut self, id: Digest, now: Instant) {
        while let Some((until, oldest)) = self.order.front().copied() {
            if now < until && self.order.len() < MOST_WRONG {
                break;
            }
            self.order.pop_front();
            if self.wrong.get(&oldest) == Some(&until) {
                self.wrong.remove(&oldest);
            }
        }
        let until = now + WRONG_FOR;
        self.wrong.insert(id, until);
        self.order.push_back((until, id));
    }
}

/// Questions that wait or are computed, at most; more are refused.
const PENDING: usize = 64;
/// How long a request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a wrong secret is known to be wrong.
const WRONG_FOR: Duration = Duration::from_secs(10);
/// How many wrong secrets are known.
const MOST_WRONG: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const KEY: [u8; 16] = [1; 16];
    /// Of `hunter2`, by libxcrypt.
    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    fn hashed(text: &str) -> Arc<Hashed> {
        hashed_in(&Kept::new(), text)
    }

    fn hashed_in(kept: &Kept, text: &str) -> Arc<Hashed> {
        let hash = Hash::parse(text).expect("text is a hash");
        let hash = hash.expect("hash is supported");
        Arc::new(Hashed::new(hash, text, &KEY, kept))
    }

    fn question(candidates: &[&Arc<Hashed>], secret: &str) -> Question {
        let candidates = candidates.iter().map(|one| Arc::clone(one)).collect();
        Question::new(candidates, secret.as_bytes(), b"", |text| {
            digest(&KEY, text)
        })
    }

    fn verifier(computing: usize, pending: usize, patience: Duration) -> Arc<Verifier> {
        let limits = Limits { pending, patience };
        let clock = Arc::new(ManualClock::new());
        Arc::new(Verifier::new(computing, limits, clock))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_right_secret_is_computed_once_and_goes_with_its_hash() {
        let kept = Kept::new();
        let (verifier, alice) = (verifier(1, 4, LONG), hashed_in(&kept, BCRYPT));
        let digest = digest(&KEY, b"hunter2");
        assert!(!alice.remembers(&digest));
        assert_eq!(
            verifier.ask(question(&[&alice], "hunter2")).await,
            Answer::Right(0)
        );
        assert!(alice.remembers(&digest));
        // Nothing can be computed any more.
        verifier.permits.close();
        let again = verifier.ask(question(&[&alice], "hunter2")).await;
        assert_eq!(again, Answer::Right(0));
        // A credential that is built anew with the same hash knows it too.
        let renewed = hashed_in(&kept, BCRYPT);
        drop(alice);
        let again = verifier.ask(question(&[&renewed], "hunter2")).await;
        assert_eq!(again, Answer::Right(0));
        drop(renewed);
        let later = hashed_in(&kept, BCRYPT);
        let later = verifier.ask(question(&[&later], "hunter2")).await;
        assert_eq!(later, Answer::Busy, "nobody held it meanwhile");
    }

    #[tokio::test]
    async fn a_wrong_secret_is_remembered_for_a_while() {
        let limits = Limits {
            pending: 4,
            patience: LONG,
        };
        let clock = Arc::new(ManualClock::new());
        let verifier = Arc::new(Verifier::new(1, limits, clock.clone()));
        let alice = hashed(BCRYPT);
        for secret in ["hunter3", BCRYPT, ""] {
            let answer = verifier.ask(question(&[&alice], secret)).await;
            assert_eq!(answer, Answer::Wrong, "{secret:?}");
        }
        verifier.permits.close();
        let again = verifier.ask(question(&[&alice], "hunter3")).await;
        assert_eq!(again, Answer::Wrong);
        let other = verifier.ask(question(&[&alice], "hunter4")).await;
        assert_eq!(other, Answer::Busy, "another secret is another question");
        clock.advance(WRONG_FOR);
        let later = verifier.ask(question(&[&alice], "hunter3")).await;
        assert_eq!(later, Answer::Busy, "it is forgotten");
    }

    #[tokio::test]
    async fn what_many_ask_is_computed_once() {
        let (verifier, alice) = (verifier(1, 1, LONG), hashed(BCRYPT));
        // Nobody computes yet; a second question would have no place.
        let permit = Arc::clone(&verifier.permits).acquire_owned().await;
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let (verifier, question) = (verifier.clone(), question(&[&alice], "hunter2"));
                tokio::spawn(async move { verifier.ask(question).await })
            })
            .collect();
        while verifier.state().pending.is_empty() {
            tokio::task::yield_now().await;
        }
        let other = verifier.ask(question(&[&alice], "hunter3")).await;
        assert_eq!(other, Answer::Busy, "places are bounded");
        drop(permit);
        for answer in asked {
            assert_eq!(answer.await.expect("task ends"), Answer::Right(0));
        }
        assert!(verifier.state().pending.is_empty());
    }

    #[tokio::test]
    async fn patience_ends_and_the_answer_is_kept_for_the_next() {
        let patience = Duration::from_millis(50);
        let (verifier, alice) = (verifier(1, 4, patience), hashed(BCRYPT));
        let permit = Arc::clone(&verifier.permits).acquire_owned().await;
        let answer = verifier.ask(question(&[&alice], "hunter2")).await;
        assert_eq!(answer, Answer::Busy);
        drop(permit);
        while !verifier.state().pending.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(alice.remembers(&digest(&KEY, b"hunter2")));
    }

    #[tokio::test]
    async fn of_several_candidates_the_right_one_is_named() {
        let verifier = verifier(1, 4, LONG);
        let other = hashed("$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe");
        let alice = hashed(BCRYPT);
        for _ in 0..2 {
            let asked = question(&[&other, &alice], "hunter2");
            assert_eq!(verifier.ask(asked).await, Answer::Right(1));
        }
        assert!(!other.remembers(&digest(&KEY, b"hunter2")));
    }

    #[test]
    fn the_memory_of_wrong_secrets_is_bounded() {
        let now = ManualClock::new().now();
        let mut state = State::default();
        for n in 0..MOST_WRONG + 100 {
            state.remember_wrong(digest(&KEY, &n.to_ne_bytes()), now);
        }
        assert_eq!(state.wrong.len(), MOST_WRONG);
        assert_eq!(state.order.len(), MOST_WRONG);
        assert!(!state.is_wrong(&digest(&KEY, &0_usize.to_ne_bytes()), now));
        state.remember_wrong(KEY, now + WRONG_FOR);
        assert_eq!(state.wrong.len(), 1, "what is over goes");
    }
}
