//! What statuses and bodies of Vault mean. Answers of anything that does not speak Vault prove
//! nothing about a document. Never keeps a part of an answer.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::secrets::manager::FetchError;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// Reads a body as JSON.
///
/// # Errors
/// [`FetchError::Garbage`].
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchError> {
    serde_json::from_slice(body).map_err(|_| FetchError::Garbage("not the JSON Vault speaks"))
}

/// What a status that is neither an answer nor a refusal says about the server.
pub(super) fn of_status(status: StatusCode) -> FetchError {
    match status.as_u16() {
        503 => FetchError::Sealed,
        429 => FetchError::Throttled,
        status @ 500.. => FetchError::ServerError(status),
        status => FetchError::UnexpectedStatus(status),
    }
}

/// Whether an error's body has Vault's shape, and does not come from something in between.
pub(super) fn speaks_vault(body: &[u8]) -> bool {
    errors(body).is_some()
}

/// Whether a 403 is a policy's: the token was known. A dead token gets other words (measured on
/// `OpenBao` 2.7: `permission denied` alone), so a token that may not even look itself up is told
/// from one that ended.
pub(super) fn denied_by_policy(body: &[u8]) -> bool {
    errors(body).is_some_and(|errors| matches!(&*errors, [one] if one == POLICY_DENIAL))
}

/// What a 404 with Vault's errors (none for an absent path) says is missing.
pub(super) fn not_found(body: &[u8]) -> FetchError {
    match errors(body) {
        None => FetchError::UnexpectedStatus(404),
        Some(errors) if errors.iter().any(|error| error.contains("no handler for")) => {
            FetchError::NoPlace("mount")
        }
        Some(errors) if errors.iter().any(|error| error.contains("namespace")) => {
            FetchError::NoPlace("namespace")
        }
        Some(_) => FetchError::NotFound,
    }
}

/// Whether a 404 says that the server knows no such endpoint.
pub(super) fn is_unsupported(body: &[u8]) -> bool {
    let unsupported = |error: &String| error.contains("unsupported path");
    errors(body).is_some_and(|errors| errors.iter().any(unsupported))
}

fn errors(body: &[u8]) -> Option<Vec<String>> {
    let answer: Errors = serde_json::from_slice(body).ok()?;
    Some(answer.errors)
}

const POLICY_DENIAL: &str = "1 error occurred:\n\t* permission denied\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_404_names_what_is_missing_and_a_stranger_proves_nothing() {
        for (body, expected) in [
            (r#"{"errors":[]}"#, FetchError::NotFound),
            (
                r#"{"errors":["namespace not found"]}"#,
                FetchError::NoPlace("namespace"),
            ),
            (
                r#"{"errors":["no handler for route \"kv/x\". route entry not found."]}"#,
                FetchError::NoPlace("mount"),
            ),
            ("<html>", FetchError::UnexpectedStatus(404)),
            (r#"{"message":"x"}"#, FetchError::UnexpectedStatus(404)),
        ] {
            assert_eq!(not_found(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_policys_denial_is_told_from_a_dead_token() {
        let policy = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
        assert!(denied_by_policy(policy.as_bytes()));
        for dead in [
            r#"{"errors":["permission denied"]}"#,
            r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#,
            r#"{"errors":["bad token"]}"#,
        ] {
            assert!(!denied_by_policy(dead.as_bytes()), "{dead}");
        }
    }
}
