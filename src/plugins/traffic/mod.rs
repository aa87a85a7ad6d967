//! Group `traffic`: holds only what its plugins share.
