//! Group `auth`: holds only what its plugins share.
