//! The body against the `Digest` that was sent with it.

use bytes::Bytes;
use futures::future::BoxFuture;
use prometheus::IntCounter;

use crate::plugins::body::CheckBody;
use crate::plugins::respond::Response;

/// How much is hashed before other requests get their turn.
const SLICE: usize = 1 << 20;

/// SHA-256 of a body of any size.
pub(super) async fn sha256(body: &Bytes) -> [u8; 32] {
    let mut hash = openssl::sha::Sha256::new();
    for (place, slice) in body.chunks(SLICE).enumerate() {
        if place > 0 {
            tokio::task::yield_now().await;
        }
        hash.update(slice);
    }
    hash.finish()
}

/// 413, as APISIX words it.
pub(super) fn too_large(received: u64, limit: u64) -> Response {
    let message =
        format!("request size {received} is greater than the maximum size {limit} allowed");
    Response::message(413, &message)
}

/// What can only be known once the body is there.
pub(super) struct DigestCheck {
    pub(super) expected: [u8; 32],
    pub(super) limit: u64,
    pub(super) refused: Response,
    pub(super) failures: Failures,
}

/// Counters of what fails so late.
#[derive(Clone)]
pub(super) struct Failures {
    pub(super) digest: IntCounter,
    pub(super) too_large: IntCounter,
}

impl CheckBody for DigestCheck {
    fn limit(&self) -> u64 {
        self.limit
    }

    fn too_large(&self, received: u64) -> Response {
        self.failures.too_large.inc();
        too_large(received, self.limit)
    }

    fn check<'a>(&'a self, body: &'a Bytes) -> BoxFuture<'a, Result<(), Response>> {
        Box::pin(async move {
            if sha256(body).await == self.expected {
                return Ok(());
            }
            self.failures.digest.inc();
            log::debug!(
                "hmac-auth failed to authenticate the request, code: 401. error: the body differs \
                 from its digest"
            );
            Err(self.refused.clone())
        })
    }
}
