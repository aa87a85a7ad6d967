//! What Secrets Manager says, in our words: documents out of values, [`FetchError`]s out of the
//! SDK's errors. Those are never printed, since they hold bodies and headers.

use std::error::Error as StdError;
use std::sync::Arc;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::super::document::{Document, FieldMap, FieldValue};
use super::super::{FetchError, Presence};
use super::Version;
use super::connector::Broken;
use super::login::NoCredentials;
use crate::secrets::value::Secret;

/// The secret as a document: the whole value as the field without a name, and the members of the
/// JSON object where it is one and some are wanted.
pub(super) fn document(
    output: GetSecretValueOutput,
    wanted: &[Arc<str>],
) -> Result<Document, FetchError> {
    let whole = match (output.secret_string, output.secret_binary) {
        (Some(text), _) => Secret::from(text),
        (None, Some(blob)) => Secret::new(blob.into_inner()),
        (None, None) => return Err(FetchError::Garbage("no value in it")),
    };
    let mut members = wanted.iter().filter(|name| !name.is_empty()).peekable();
    let mut fields = FieldMap::new();
    if members.peek().is_some() {
        // A text that is no object has none of the fields; the whole of it is a value still.
        fields = serde_json::from_slice(whole.expose()).unwrap_or_else(|_| {
            let none = |name: &Arc<str>| (Box::from(&**name), FieldValue::Other(NO_OBJECT));
            members.map(none).collect()
        });
    }
    fields.insert(Box::default(), FieldValue::Text(whole));
    Ok(Document::new(fields, output.version_id.map(Into::into)))
}

/// What `DescribeSecret` tells: whether there is such a version. It knows no fields.
pub(super) fn presence(
    output: &DescribeSecretOutput,
    version: &Version<'_>,
) -> Result<Presence, FetchError> {
    if output.deleted_date().is_some() {
        return Err(FetchError::Deleted);
    }
    let versions = output.version_ids_to_stages();
    let found = versions
        .into_iter()
        .flatten()
        .find(|(id, stages)| match version {
            Version::Id(wanted) => id == wanted,
            Version::Stage(wanted) => stages.iter().any(|stage| stage == wanted),
        });
    let (id, _) = found.ok_or(FetchError::NotFound)?;
    Ok(Presence {
        fields: None,
        version: Some(id.as_str().into()),
    })
}

/// Why a call failed, and the code by which AWS refused it, if it did.
pub(super) fn failure<E>(error: &SdkError<E, HttpResponse>) -> (FetchError, Option<&str>)
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let why = match error {
        SdkError::ServiceError(context) => {
            let (meta, status) = (context.err().meta(), context.raw().status().as_u16());
            let why = refusal(meta.code(), meta.message(), status);
            return (why, meta.code());
        }
        SdkError::ResponseError(context) => of_status(context.raw().status().as_u16()),
        SdkError::TimeoutError(_) => FetchError::TimedOut,
        other => of_causes(other),
    };
    (why, None)
}

/// Looks through the causes for one of ours: a broken transport, or credentials that could not
/// be had.
fn of_causes(error: &(dyn StdError + 'static)) -> FetchError {
    let mut cause = Some(error);
    while let Some(link) = cause {
        if let Some(NoCredentials(why)) = link.downcast_ref() {
            return FetchError::LoginFailed(why.as_str().into());
        }
        if let Some(Broken(why)) = link.downcast_ref() {
            return why.clone();
        }
        cause = link.source();
    }
    FetchError::Unreadable("the request could not be made".into())
}

/// Only a code of AWS's says something about the secret; a bare status may come from anything in
/// between.
fn refusal(code: Option<&str>, message: Option<&str>, status: u16) -> FetchError {
    let Some(code) = code else {
        return of_status(status);
    };
    match code {
        "ResourceNotFoundException" => FetchError::NotFound,
        "InvalidRequestException" if is_about_deletion(message) => FetchError::Deleted,
        "AccessDeniedException" | "AccessDenied" => FetchError::Forbidden,
        "InvalidParameterException" | "ValidationException" => {
            FetchError::Unsupported("AWS takes neither this name nor this version")
        }
        // The key is disabled, deleted, or KMS is in trouble: that says neither that the secret
        // is gone nor that it is not ours, so a known value serves on up to `max_stale`.
        "DecryptionFailure" => FetchError::Unreadable("AWS cannot decrypt it".into()),
        code if NOT_US.contains(&code) => FetchError::TokenRefused,
        code if TOO_OFTEN.contains(&code) => FetchError::Throttled,
        _ => of_status(status),
    }
}

/// AWS's words, and moto's.
fn is_about_deletion(message: Option<&str>) -> bool {
    let message = message.unwrap_or_default();
    [
        "marked for deletion",
        "scheduled for deletion",
        "marked deleted",
    ]
    .iter()
    .any(|words| message.contains(words))
}

fn of_status(status: u16) -> FetchError {
    match status {
        200..300 => FetchError::Garbage("not the JSON Secrets Manager speaks"),
        300..400 => FetchError::Redirected(status),
        429 => FetchError::Throttled,
        500.. => FetchError::ServerError(status),
        _ => FetchError::UnexpectedStatus(status),
    }
}

const NO_OBJECT: &str = "value is not a JSON object";

/// Codes that mean: these credentials, or what was signed with them, are not accepted.
const NOT_US: &[&str] = &[
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

const TOO_OFTEN: &[&str] = &[
    "LimitExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_and_bare_statuses_prove_nothing() {
        let marked = Some("You can't perform this operation: it was marked for deletion.");
        for (code, message, status, expected) in [
            (
                Some("ResourceNotFoundException"),
                None,
                400,
                FetchError::NotFound,
            ),
            (
                Some("InvalidRequestException"),
                marked,
                400,
                FetchError::Deleted,
            ),
            (
                Some("InvalidRequestException"),
                Some("other"),
                400,
                FetchError::UnexpectedStatus(400),
            ),
            (
                Some("AccessDeniedException"),
                None,
                400,
                FetchError::Forbidden,
            ),
            (
                Some("ExpiredTokenException"),
                None,
                400,
                FetchError::TokenRefused,
            ),
            (
                Some("ThrottlingException"),
                None,
                400,
                FetchError::Throttled,
            ),
            (
                Some("InternalServiceError"),
                None,
                500,
                FetchError::ServerError(500),
            ),
            (
                Some("SomethingNew"),
                None,
                400,
                FetchError::UnexpectedStatus(400),
            ),
            (None, None, 403, FetchError::UnexpectedStatus(403)),
            (None, None, 404, FetchError::UnexpectedStatus(404)),
            (None, None, 429, FetchError::Throttled),
            (None, None, 307, FetchError::Redirected(307)),
        ] {
            assert_eq!(
                refusal(code, message, status),
                expected,
                "{code:?} {status}"
            );
        }
        assert!(!refusal(Some("DecryptionFailure"), None, 400).is_authoritative());
    }

    fn value(text: Option<&str>, binary: Option<&[u8]>) -> GetSecretValueOutput {
        GetSecretValueOutput::builder()
            .set_secret_string(text.map(Into::into))
            .set_secret_binary(binary.map(aws_smithy_types::Blob::new))
            .version_id("v1")
            .build()
    }

    fn field(document: &Document, name: &str) -> String {
        match document.field(name) {
            Some(FieldValue::Text(secret)) => format!("{:?}", secret.expose()),
            Some(FieldValue::Other(what)) => what.to_owned(),
            None => "absent".to_owned(),
        }
    }

    #[test]
    fn a_secret_is_one_value_and_an_object_where_it_is_one() {
        let wanted: [Arc<str>; 2] = ["".into(), "k".into()];
        for (text, binary, whole, member) in [
            (
                Some(r#"{"k":"v"}"#),
                None,
                &br#"{"k":"v"}"#[..],
                format!("{:?}", b"v"),
            ),
            (Some("42"), None, b"42", NO_OBJECT.to_owned()),
            (
                Some("-----BEGIN"),
                None,
                b"-----BEGIN",
                NO_OBJECT.to_owned(),
            ),
            (None, Some(&b"\xff\0"[..]), b"\xff\0", NO_OBJECT.to_owned()),
            (
                None,
                Some(br#"{"k":1}"#),
                br#"{"k":1}"#,
                format!("{:?}", b"1"),
            ),
            (
                Some(r#"{"":"x"}"#),
                None,
                br#"{"":"x"}"#,
                "absent".to_owned(),
            ),
        ] {
            let document = document(value(text, binary), &wanted).expect("must be a document");
            assert_eq!(field(&document, ""), format!("{whole:?}"));
            assert_eq!(field(&document, "k"), member, "{text:?}");
            assert_eq!(document.version.as_deref(), Some("v1"));
        }
        assert!(document(value(None, None), &wanted).is_err());
    }
}
