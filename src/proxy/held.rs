//! Bodies that are held in memory: of one request, and the room for those of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::plugins::body::{Ahead, BodyError};

/// Room for the bodies of all requests together.
pub struct HeldBytes {
    limit: u64,
    used: AtomicU64,
}

impl HeldBytes {
    /// Room for so many bytes; 0 is no limit.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What is held of a body that goes upstream only as a whole.
#[derive(Default)]
pub struct HeldBody {
    /// Read ahead, and not replayed by Pingora.
    pub(super) ahead: Bytes,
    /// Held back in the present attempt.
    pub(super) pieces: BytesMut,
    /// Pieces of the present attempt were seen.
    started: bool,
    /// The client was told to go on sending.
    pub(super) asked_for: bool,
    /// Reading ahead has ended at this.
    pub(super) outcome: Option<Result<Ahead, BodyError>>,
    lease: Option<Lease>,
}

/// Room that is given back with the request.
struct Lease {
    room: Arc<HeldBytes>,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

impl HeldBody {
    /// What an attempt has held goes with it: Pingora replays it, or does not try again.
    pub(super) fn begin_attempt(&mut self) {
        self.pieces.clear();
        self.started = false;
    }

    /// The status to answer where the client did not send what it announced: the request cannot
    /// go on, whatever a plugin made of that.
    pub(super) const fn broken(&self) -> Option<u16> {
        match self.outcome {
            Some(Err(BodyError::Broken(status))) => Some(status),
            _ => None,
        }
    }

    /// Puts before an attempt's first piece what was read ahead and is not replayed.
    pub(super) fn add(&mut self, piece: &mut Option<Bytes>) {
        if !std::mem::replace(&mut self.started, true) && !self.ahead.is_empty() {
            let first = piece.as_deref().unwrap_or_default();
            *piece = Some([&self.ahead, first].concat().into());
        }
    }

    /// Takes room for a further piece until the request ends. False where there is none.
    pub(super) fn grow(&mut self, bytes: usize, room: &Arc<HeldBytes>) -> bool {
        let bytes = bytes as u64;
        let lease = self.lease.get_or_insert_with(|| Lease {
            room: Arc::clone(room),
            bytes: 0,
        });
        let fits = lease.room.take(bytes);
        if fits {
            lease.bytes += bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_shared_and_given_back() {
        let room = Arc::new(HeldBytes::new(10));
        let (mut one, mut two) = (HeldBody::default(), HeldBody::default());
        assert!(one.grow(6, &room) && two.grow(4, &room));
        assert!(!two.grow(1, &room), "it is full");
        drop(one);
        assert!(two.grow(6, &room), "what was given back is there again");
        drop(two);
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
        assert!(HeldBody::default().grow(usize::MAX, &Arc::new(HeldBytes::new(0))));
    }

    #[test]
    fn what_is_not_replayed_stands_before_the_first_piece_of_each_attempt() {
        let mut held = HeldBody {
            ahead: Bytes::from_static(b"ab"),
            ..HeldBody::default()
        };
        for _ in 0..2 {
            held.begin_attempt();
            let mut piece = Some(Bytes::from_static(b"c"));
            held.add(&mut piece);
            assert_eq!(piece.as_deref(), Some(&b"abc"[..]));
            let mut piece = None;
            held.add(&mut piece);
            assert_eq!(piece, None);
        }
    }
}
