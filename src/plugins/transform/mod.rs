//! Group `transform`: holds only what its plugins share.
