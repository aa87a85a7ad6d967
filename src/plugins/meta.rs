//! `_meta`: what the engine, not the plugin, does with every plugin (`spec/00` §8.1).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::def::{self, BuildError};
use crate::expr::Expr;

#[derive(Deserialize, Default)]
struct MetaConfig {
    #[serde(default)]
    disable: bool,
    error_response: Option<Value>,
    priority: Option<i32>,
    filter: Option<Value>,
    pre_function: Option<Value>,
}

/// A plugin's `_meta`, ready to use.
#[derive(Default)]
pub struct Meta {
    /// The plugin does not run, but still overrides a same-named one of lower precedence.
    pub disable: bool,
    /// Body that replaces the plugin's own when it answers with 400 or above.
    pub error_response: Option<Bytes>,
    /// Order among the plugins of its scope.
    pub priority: Option<i32>,
    /// The plugin runs only where this holds.
    pub filter: Option<Expr>,
    /// The filter could not be compiled, so the plugin always runs, as in APISIX.
    pub filter_problem: Option<String>,
}

impl Meta {
    /// Reads `_meta` out of a plugin's configuration object; absent is all defaults.
    ///
    /// # Errors
    /// A field has the wrong type, or is Lua.
    pub fn parse(config: &Value) -> Result<Self, BuildError> {
        let Some(meta) = config.get("_meta") else {
            return Ok(Self::default());
        };
        let meta: MetaConfig = def::parse(meta).map_err(|error| BuildError {
            field: match error.field.as_str() {
                "" => "_meta".to_owned(),
                field => format!("_meta.{field}"),
            },
            ..error
        })?;
        if meta.pre_function.is_some() {
            return Err(BuildError::invalid(
                "_meta.pre_function",
                "Lua functions are not supported",
            ));
        }
        let error_response = match meta.error_response {
            None => None,
            Some(Value::String(text)) => Some(Bytes::from(text)),
            Some(object @ Value::Object(_)) => Some(Bytes::from(format!("{object}\n"))),
            Some(_) => {
                return Err(BuildError::invalid(
                    "_meta.error_response",
                    "expected a string or an object",
                ));
            }
        };
        let (filter, filter_problem) = match meta.filter.map(|filter| Expr::parse(&filter)) {
            None => (None, None),
            Some(Ok(filter)) => (Some(filter), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        Ok(Self {
            disable: meta.disable,
            error_response,
            priority: meta.priority,
            filter,
            filter_problem,
        })
    }
}
