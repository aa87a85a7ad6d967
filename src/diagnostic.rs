//! A located finding about configuration. It names places and expectations, never a value:
//! people also write secrets into files literally.

use std::fmt;
use std::sync::Arc;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The item works, but probably not as its author meant.
    Warning,
    /// The item (or the file) refuses.
    Error,
}

/// Where in a file something stands. Lines and columns count from 1; 0 means not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Path of the file as the user gave it.
    pub file: Option<Arc<str>>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file.as_deref().unwrap_or("-"))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the item refuses or merely deserves a look.
    pub severity: Severity,
    /// Stable word for the kind of finding, such as `unknown-plugin`.
    pub code: &'static str,
    /// Where it stands.
    pub place: Place,
    /// The object, such as `routes/1`; empty for the file as a whole.
    pub object: String,
    /// Dotted path inside the object, such as `plugins.key-auth.header`; may be empty.
    pub field: String,
    /// What was expected. Never holds a value from the file.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}: {severity}[{}]", self.place, self.code)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Cuts quoted input out of a serde message (``invalid type: string "…", expected …``), since the
/// input may be a secret. Names of fields and variants stay.
#[must_use]
pub fn without_values(message: &str) -> String {
    // The last one: the input may hold the words too.
    if let Some(expected) = message.rfind(", expected ")
        && (message.starts_with("invalid type") || message.starts_with("invalid value"))
    {
        return message[expected + 2..].to_owned();
    }
    if message.starts_with("unknown variant")
        && let Some(expected) = message.rfind("expected ")
    {
        return message[expected..].to_owned();
    }
    message.to_owned()
}
