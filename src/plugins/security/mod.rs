//! Group `security`: holds only what its plugins share.

use super::def::BuildError;
use super::respond::Response;

pub(super) mod acl;
pub(super) mod consumer_restriction;
pub(super) mod cors;
pub(super) mod csrf;
pub(super) mod ip_restriction;
pub(super) mod public_api;

/// Status and text of a plugin's fields `rejected_code` and `rejected_msg`. APISIX takes any status
/// from 200.
fn rejection(code: u16, message: &str) -> Result<Response, BuildError> {
    if (200..=599).contains(&code) {
        Ok(Response::message(code, message))
    } else {
        Err(BuildError::invalid("rejected_code", "must be 200 to 599"))
    }
}

/// `rejected_code` where the configuration has none.
const fn default_rejected_code() -> u16 {
    403
}
