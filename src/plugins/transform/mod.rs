//! Group `transform`: holds only what its plugins share.

mod decode;
mod filter;
mod header_edits;
pub(super) mod proxy_rewrite;
pub(super) mod response_rewrite;
