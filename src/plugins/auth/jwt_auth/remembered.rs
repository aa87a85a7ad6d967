//! Tokens whose signature was verified lately, so that it is not verified for each request.
//!
//! What is remembered is that a token is signed by one of a set of keys, and its times. Whose the
//! token is, whether the keys are still these, and the times are looked at for each request, in
//! the snapshot the request took: whatever changes there counts at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use thread_local::ThreadLocal;

use super::keys::KeySetId;
use super::token::Times;
use crate::consumer::Digest;
use crate::kept::Kept;
use crate::plugins::def::{self, BuildError};

/// `plugin_attr.jwt-auth` of the bootstrap.
#[derive(Deserialize)]
#[serde(default)]
struct Attr {
    /// How many tokens each thread remembers; 0 for none.
    remembered_tokens: usize,
    /// How long, at most.
    remembered_secs: u64,
}

impl Default for Attr {
    fn default() -> Self {
        Self {
            remembered_tokens: 10_000,
            remembered_secs: 300,
        }
    }
}

/// The memory, one part per thread: nothing is shared for writing. A thread holds no more than
/// the number of tokens it was made for; past half of them those not used lately go.
pub(super) struct Remembered {
    /// Random: whoever does not know it can make no two tokens look alike.
    key: [u8; 16],
    half: usize,
    longest: Duration,
    threads: ThreadLocal<RefCell<Halves>>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<TokenId, Entry, ahash::RandomState>,
    old: HashMap<TokenId, Entry, ahash::RandomState>,
}

/// What is remembered, and until when.
type Entry = (Seen, Instant);

/// Digest of a token and the name of the claim it was read by, under the memory's key.
pub(super) type TokenId = u128;

/// What was found out about a token. Of a size, so that the number of tokens bounds the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// By what the consumer index finds the one it names.
    pub(super) user: Digest,
    /// The keys one of which signed it.
    pub(super) keys: KeySetId,
    pub(super) times: Times,
}

impl Remembered {
    /// The memory `plugin_attr` asks for, the same for all routes; `None` where it asks for none.
    pub(super) fn asked(attr: &Value, kept: &Kept) -> Result<Option<Arc<Self>>, BuildError> {
        let attr: Attr = def::parse(attr).map_err(|error| {
            let message = format!("plugin_attr.jwt-auth.{}: {error}", error.field);
            BuildError::invalid("", message)
        })?;
        let (tokens, secs) = (attr.remembered_tokens, attr.remembered_secs);
        if tokens == 0 || secs == 0 {
            return Ok(None);
        }
        let key = format!("jwt-auth/remembered/{tokens}/{secs}");
        Ok(Some(kept.entry(&key, || {
            Self::new(tokens, Duration::from_secs(secs))
        })))
    }

    fn new(tokens: usize, longest: Duration) -> Self {
        Self {
            key: rand::random(),
            half: tokens.div_ceil(2),
            longest,
            threads: ThreadLocal::new(),
        }
    }

    /// What the token is remembered by.
    pub(super) fn id(&self, user_claim: &str, token: &[u8]) -> TokenId {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        // The length keeps the name's end apart from the token.
        hasher.write(&user_claim.len().to_be_bytes());
        hasher.write(user_claim.as_bytes());
        hasher.write(token);
        hasher.finish128().as_u128()
    }

    /// What is remembered of a token at `now`.
    pub(super) fn find(&self, id: TokenId, now: Instant) -> Option<Seen> {
        let mut halves = self.threads.get_or_default().borrow_mut();
        let (seen, until) = match halves.young.get(&id) {
            Some(found) => *found,
            None => {
                let found = halves.old.remove(&id)?;
                self.put(&mut halves, id, found);
                found
            }
        };
        (now < until).then_some(seen)
    }

    /// Remembers a token whose signature was verified at `now`.
    pub(super) fn insert(&self, id: TokenId, seen: Seen, now: Instant) {
        let Some(until) = now.checked_add(self.longest) else {
            return;
        };
        let mut halves = self.threads.get_or_default().borrow_mut();
        self.put(&mut halves, id, (seen, until));
    }

    /// Forgets what was not used since the young half was last full.
    fn put(&self, halves: &mut Halves, id: TokenId, entry: Entry) {
        if halves.young.len() >= self.half && !halves.young.contains_key(&id) {
            std::mem::swap(&mut halves.young, &mut halves.old);
            halves.young.clear();
        }
        halves.young.insert(id, entry);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::auth::jwt_auth::token::Time;

    fn seen(n: u8) -> Seen {
        Seen {
            user: [n; 16],
            keys: [n; 16],
            times: Times {
                exp: Time::At(n.into()),
                nbf: Time::Absent,
            },
        }
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn plugin_attr_sets_its_size_and_switches_it_off() {
        let kept = Kept::new();
        let asked = |attr| Remembered::asked(&attr, &kept);
        let memory = asked(Value::Null)
            .expect("defaults hold")
            .expect("it is on");
        assert_eq!(
            (memory.half, memory.longest),
            (5000, Duration::from_secs(300))
        );
        let same = asked(json!({})).expect("defaults hold").expect("it is on");
        assert!(Arc::ptr_eq(&memory, &same), "all routes share one");
        let small = asked(json!({"remembered_tokens": 3, "remembered_secs": 7}));
        let small = small.expect("numbers hold").expect("it is on");
        assert_eq!((small.half, small.longest), (2, Duration::from_secs(7)));
        for attr in [
            json!({"remembered_tokens": 0}),
            json!({"remembered_secs": 0}),
        ] {
            assert!(asked(attr).expect("numbers hold").is_none());
        }
        let error = asked(json!({"remembered_tokens": "hunter2"}))
            .err()
            .expect("is refused");
        let expected = "plugin_attr.jwt-auth.remembered_tokens: expected ";
        assert!(error.message.starts_with(expected), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_token_is_remembered_for_its_time() {
        let (memory, start) = (Remembered::new(10, Duration::from_secs(300)), now());
        let id = memory.id("key", b"token");
        assert!(memory.find(id, start).is_none());
        memory.insert(id, seen(1), start);
        let found = memory.find(id, start + Duration::from_secs(299));
        assert_eq!(found.map(|seen| seen.user), Some([1; 16]));
        assert!(memory.find(id, start + Duration::from_secs(300)).is_none());
    }

    #[test]
    fn a_token_is_known_by_all_of_it_and_the_claim_it_was_read_by() {
        let memory = Remembered::new(10, Duration::from_secs(300));
        let ids = [
            memory.id("key", b"token"),
            memory.id("key", b"token\0"),
            memory.id("key", b"toke"),
            memory.id("iss", b"token"),
            memory.id("keyt", b"oken"),
            memory.id("", b"keytoken"),
            Remembered::new(10, Duration::from_secs(300)).id("key", b"token"),
        ];
        for (place, id) in ids.iter().enumerate() {
            assert!(!ids[..place].contains(id), "{place}");
        }
    }

    #[test]
    fn the_number_of_tokens_is_bounded_and_those_in_use_stay() {
        let (memory, now) = (Remembered::new(100, Duration::from_secs(300)), now());
        let used = memory.id("key", b"used");
        memory.insert(used, seen(1), now);
        for n in 0..10_000_u32 {
            memory.insert(memory.id("key", &n.to_be_bytes()), seen(2), now);
            assert!(memory.find(used, now).is_some(), "{n}");
            let halves = memory.threads.get_or_default().borrow();
            assert!(halves.young.len() + halves.old.len() <= 101);
        }
        assert!(
            memory
                .find(memory.id("key", &7_u32.to_be_bytes()), now)
                .is_none()
        );
    }

    #[test]
    fn each_thread_remembers_for_itself() {
        let (memory, now) = (Remembered::new(100, Duration::from_secs(300)), now());
        let id = memory.id("key", b"token");
        memory.insert(id, seen(1), now);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| memory.find(id, now).is_none());
            assert!(other.join().expect("thread ends"));
        });
    }

    #[test]
    fn what_is_remembered_is_small() {
        assert!(size_of::<(TokenId, Entry)>() <= 112);
    }
}
