//! Group `transform`: holds only what its plugins share.

mod header_edits;
pub(super) mod proxy_rewrite;
