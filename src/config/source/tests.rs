//! Sources on a real file system.
