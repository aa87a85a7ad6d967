//! Group `security`: holds only what its plugins share.

pub(super) mod cors;
pub(super) mod ip_restriction;
pub(super) mod public_api;
