//! Request variables, templates and expressions (`spec/00` §8.5, §9.4). Parsed at load, evaluated
//! per request against a [`VarSource`]; knows nothing of the proxy.

mod eval;
mod name;
mod parse;
pub mod pattern;
pub mod template;
pub mod var;

pub use name::Name;
pub use parse::{Expr, ExprError};
pub use template::{Captured, Segment, Template};
pub use var::{VarSource, Variable};
