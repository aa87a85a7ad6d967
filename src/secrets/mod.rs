//! Resolves references to secrets, keeps the values in memory, refreshes them in the background.
//! Never hands out a value that did not come from its manager.

pub mod reference;
pub mod value;
pub mod view;

pub use reference::Reference;
pub use value::Secret;
pub use view::{Resolved, Unresolved, View};
