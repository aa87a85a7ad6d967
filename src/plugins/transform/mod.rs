//! Group `transform`: holds only what its plugins share.

pub(super) mod attach_consumer_label;
mod decode;
mod filter;
mod header_edits;
pub(super) mod proxy_rewrite;
pub(super) mod response_rewrite;
