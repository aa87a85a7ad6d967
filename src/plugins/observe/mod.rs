//! Group `observe`: holds only what its plugins share.

pub(in crate::plugins) mod prometheus;
