//! Secret managers (`spec/00` §6, `spec/01` §2). Their fields are checked by the manager's own
//! file in `secrets::manager`; here only the id's shape is.

use serde_json::Value;

/// A `secrets` item: id `<kind>/<name>`, the rest as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecretConfig {
    /// Kind of manager: `vault` `aws` `gcp` `file`.
    pub manager: String,
    /// Name, second part of the id.
    pub name: String,
    /// All other fields.
    pub fields: Value,
}
