//! Group `security`: holds only what its plugins share.
