//! Request variables, templates and expressions (`spec/00` §8.5, §9.4). Parsed at load, evaluated
//! per request against a [`VarSource`]; knows nothing of the proxy.

pub mod var;

pub use var::{VarSource, Variable};
mod stub;
pub use stub::*;
