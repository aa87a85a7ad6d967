//! Reading a request's body before the request goes upstream, and holding back one that cannot
//! be read before.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::respond::Response;

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
    /// only be looked at while it is held back from the upstream
    /// ([`RequestCtx::check_body_later`](super::RequestCtx::check_body_later)).
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

/// Looks at a body that was held back. The upstream has the request's head by then, and no byte
/// of the body; a refusal closes the connection to it.
pub trait CheckBody: Send + Sync {
    /// Longest body that is held back for this check.
    fn limit(&self) -> u64;

    /// What the client gets where the body is longer; `received` bytes of it have come.
    fn too_large(&self, received: u64) -> Response;

    /// Lets the body through, or says what the client gets. May be asked again where the request
    /// is sent to another node.
    fn check<'a>(&'a self, body: &'a Bytes) -> BoxFuture<'a, Result<(), Response>>;
}

/// A check that waits for the body.
pub struct PendingCheck {
    /// The check.
    pub check: Box<dyn CheckBody>,
    /// `_meta.error_response` of the plugin.
    pub error_body: Option<Bytes>,
}

impl PendingCheck {
    /// What the client gets for a refusal of this check.
    #[must_use]
    pub fn answer(&self, mut refusal: Response) -> Response {
        if let Some(body) = &self.error_body
            && refusal.status >= 400
        {
            refusal.body = Some(body.clone());
        }
        refusal
    }
}
