//! Grammar of references (`spec/01` §1, design §3).

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(std::sync::Arc<str>);

impl Reference {
    /// Whether the text claims to be a reference: starts with `$secret://`, or with `$env://` in
    /// any case. Such a text is never a literal value.
    #[must_use]
    pub fn is_reference(text: &str) -> bool {
        text.starts_with("$secret://")
            || text
                .get(..7)
                .is_some_and(|start| start.eq_ignore_ascii_case("$env://"))
    }

    /// The reference as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
