//! The scheme as a plugin, on requests made by hand.
