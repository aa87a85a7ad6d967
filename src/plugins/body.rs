//! Reading a request's body before the request goes upstream.

use bytes::Bytes;
use futures::future::BoxFuture;

/// Where the body comes from.
pub trait ReadBody: Send {
    /// Reads it whole, up to `limit` bytes; it is still sent upstream afterwards.
    fn read(&mut self, limit: u64) -> BoxFuture<'_, Result<Ahead, BodyError>>;
}

/// What was read ahead.
#[derive(Debug, Clone)]
pub enum Ahead {
    /// All of it.
    Whole(Bytes),
    /// The client did not say how long it is, and it is longer than can be read ahead: it can
    /// only be looked at while it is held back from the upstream.
    Later,
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It has this many bytes, or more.
    TooLarge(u64),
    /// It did not come; answer with this status.
    Broken(u16),
}
