//! Group `traffic`: holds only what its plugins share.

pub(super) mod mocking;
pub(super) mod redirect;
pub(super) mod request_id;
mod sample;
