//! Group `observe`: holds only what its plugins share.
