//! The type every secret has. It cannot be printed, serialised or compared in variable time.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::sealed::Sealed;

/// Bytes that are wiped when dropped. There is no `Display`, `Serialize` or `PartialEq`;
/// [`Secret::expose`] is the one way in and is easy to search for.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes ownership of the bytes. Spare capacity is wiped with the vector it came from.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(Zeroizing::new(bytes.as_slice().into()))
    }

    /// The value itself. Call it only in a sink: a comparison by digest, a key parser, a header.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, when it is UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The same value, to be kept for later.
    #[must_use]
    pub fn seal(&self) -> Arc<Sealed> {
        Arc::new(Sealed::new(&self.0))
    }

    /// Whether there is anything in it. An empty secret is never a value (`spec/01` §5.1).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
