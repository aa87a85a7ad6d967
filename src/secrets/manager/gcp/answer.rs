//! What Secret Manager's answers mean. Pure; no error repeats a part of an answer.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_32_ISCSI, Crc};
use reqwest::StatusCode;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secrets::manager::document::{Document, FieldMap, FieldValue};
use crate::secrets::manager::{FetchError, Presence};
use crate::secrets::value::Secret;

/// Name of the field that is the secret as a whole. No reference can name it.
pub(super) const WHOLE: &str = "";

#[derive(Deserialize)]
struct Access {
    name: Option<String>,
    payload: Option<Payload>,
}

#[derive(Deserialize)]
struct Payload {
    /// Left out when it is empty.
    data: Option<FieldValue>,
    /// Castagnoli's, a number in a string.
    #[serde(rename = "dataCrc32c")]
    data_crc32c: Option<FieldValue>,
}

#[derive(Deserialize)]
struct Version {
    name: Option<String>,
    state: String,
}

#[derive(Deserialize)]
struct Failure {
    error: Status,
}

#[derive(Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    reason: Option<String>,
}

/// The document in the answer to `:access`: the whole secret, and the members of the object in it
/// if one of them is wanted.
pub(super) fn document(body: &[u8], wanted: &[Arc<str>]) -> Result<Document, FetchError> {
    let access: Access = parse(body)?;
    let payload = access
        .payload
        .ok_or(FetchError::Garbage("no payload in it"))?;
    let bytes = payload.bytes()?;
    let mut fields = FieldMap::new();
    if wanted.iter().any(|field| &**field != WHOLE) {
        match serde_json::from_slice(&bytes) {
            Ok(members) => fields = members,
            Err(_) => {
                let other = FieldValue::Other("value is not a JSON object");
                let names = wanted
                    .iter()
                    .map(|field| ((&**field).into(), other.clone()));
                fields.extend(names);
            }
        }
    }
    if wanted.iter().any(|field| &**field == WHOLE) {
        let whole = FieldValue::Text(Secret::new(bytes.to_vec()));
        fields.insert(WHOLE.into(), whole);
    }
    Ok(Document::new(fields, number(access.name.as_deref())))
}

impl Payload {
    fn bytes(self) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let text = match self.data {
            Some(FieldValue::Text(text)) => text,
            Some(FieldValue::Other(_)) => return Err(FetchError::Garbage("data is not text")),
            None => Secret::new(Vec::new()),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.expose().len()));
        STANDARD
            .decode_vec(text.expose(), &mut bytes)
            .map_err(|_| FetchError::Garbage("data is not base64"))?;
        let Some(sum) = self.data_crc32c else {
            return Ok(bytes);
        };
        let sum = match &sum {
            FieldValue::Text(sum) => sum.expose_str().and_then(|sum| sum.parse().ok()),
            FieldValue::Other(_) => None,
        };
        if sum != Some(CRC_32C.checksum(&bytes)) {
            return Err(FetchError::Garbage("value does not fit its checksum"));
        }
        Ok(bytes)
    }
}

/// What the answer about a version says of it.
pub(super) fn presence(body: &[u8]) -> Result<Presence, FetchError> {
    let version: Version = parse(body)?;
    match version.state.as_str() {
        "ENABLED" => Ok(Presence {
            fields: None,
            version: number(version.name.as_deref()),
        }),
        "DISABLED" | "DESTROYED" => Err(FetchError::Deleted),
        _ => Err(FetchError::Garbage("version in a state we do not know")),
    }
}

/// Last part of `projects/1/secrets/a/versions/7`.
fn number(name: Option<&str>) -> Option<Arc<str>> {
    let (_, number) = name?.rsplit_once("/versions/")?;
    Some(number.into())
}

/// What an answer other than 200 means. Only Google's own words say something about a document;
/// a page by something in between does not.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> FetchError {
    let failure = serde_json::from_slice::<Failure>(body).ok();
    let said = failure.as_ref().map(|failure| &failure.error);
    match (status.as_u16(), said.map(|said| said.status.as_str())) {
        (401, _) => FetchError::TokenRefused,
        (429, _) => FetchError::Throttled,
        (status @ 500.., _) => FetchError::ServerError(status),
        (404, Some("NOT_FOUND")) => FetchError::NotFound,
        (403, Some("PERMISSION_DENIED")) => said.map_or(FetchError::Forbidden, forbidden),
        // A version that is disabled or destroyed. A key of the customer's that cannot be used
        // comes under the same word, and says nothing about the secret.
        (400, Some("FAILED_PRECONDITION"))
            if !said.is_some_and(|said| said.message.contains("KMS")) =>
        {
            FetchError::Deleted
        }
        (status, _) => FetchError::UnexpectedStatus(status),
    }
}

/// A 403 is about the secret, or about our login or project as a whole.
fn forbidden(said: &Status) -> FetchError {
    let reasons = said
        .details
        .iter()
        .filter_map(|detail| detail.reason.as_deref());
    for reason in reasons {
        match reason {
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => {
                return FetchError::LoginFailed("scope does not cover Secret Manager".into());
            }
            "SERVICE_DISABLED" | "BILLING_DISABLED" | "CONSUMER_SUSPENDED" | "CONSUMER_INVALID" => {
                return FetchError::UnexpectedStatus(403);
            }
            _ => {}
        }
    }
    FetchError::Forbidden
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchError> {
    serde_json::from_slice(body)
        .map_err(|_| FetchError::Garbage("not the JSON Secret Manager speaks"))
}

const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(document: &Document, field: &str) -> String {
        match document.field(field).expect("field must be there") {
            FieldValue::Text(secret) => secret.expose_str().expect("UTF-8").to_owned(),
            FieldValue::Other(what) => what.to_owned(),
        }
    }

    fn access(data: &str, rest: &str) -> String {
        let name = "projects/1/secrets/a/versions/7";
        format!(r#"{{"name":"{name}","payload":{{"data":"{data}"{rest}}}}}"#)
    }

    #[test]
    fn a_secret_is_read_whole_and_by_member() {
        // {"k":"v","n":1}
        let body = access("eyJrIjoidiIsIm4iOjF9", "");
        let wanted = ["".into(), "k".into(), "x".into()];
        let both = document(body.as_bytes(), &wanted).expect("answer is good");
        assert_eq!(text(&both, ""), r#"{"k":"v","n":1}"#);
        assert_eq!(
            (text(&both, "k"), text(&both, "n")),
            ("v".into(), "1".into())
        );
        assert_eq!(both.version.as_deref(), Some("7"));
        assert!(both.field("x").is_none());
        let one = document(body.as_bytes(), &["k".into()]).expect("answer is good");
        assert!(one.field("").is_none());

        // Padding as some servers escape it; "hi" is no object.
        let body = access(r"aGk\u003d", "");
        let plain = document(body.as_bytes(), &wanted).expect("answer is good");
        assert_eq!(text(&plain, ""), "hi");
        assert_eq!(text(&plain, "k"), "value is not a JSON object");
        let empty = document(br#"{"payload":{}}"#, &["".into()]).expect("answer is good");
        assert_eq!((text(&empty, ""), empty.version), (String::new(), None));
    }

    #[test]
    fn a_value_has_to_fit_its_checksum() {
        let wanted = ["".into()];
        // RFC 3720 §B.4 has CRC-32C's own vectors; "123456789" is the usual one.
        for (sum, good) in [
            (r#","dataCrc32c":"3808858755""#, true),
            (r#","dataCrc32c":3808858755"#, true),
            (r#","dataCrc32c":"3808858754""#, false),
            (r#","dataCrc32c":"x""#, false),
            (r#","dataCrc32c":null"#, true),
            ("", true),
        ] {
            let body = access("MTIzNDU2Nzg5", sum);
            assert_eq!(document(body.as_bytes(), &wanted).is_ok(), good, "{sum}");
        }
    }

    #[test]
    fn what_is_no_answer_is_garbage() {
        for body in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"payload":{"data":"!"}}"#,
            r#"{"payload":{"data":[]}}"#,
        ] {
            let error = document(body.as_bytes(), &["".into()]).expect_err(body);
            assert!(matches!(error, FetchError::Garbage(_)), "{body}: {error:?}");
        }
    }

    #[test]
    fn a_probe_reads_the_state() {
        let state = |state| format!(r#"{{"name":"a/versions/3","state":"{state}"}}"#);
        let found = presence(state("ENABLED").as_bytes()).expect("version is enabled");
        assert_eq!((found.fields, found.version.as_deref()), (None, Some("3")));
        for gone in ["DISABLED", "DESTROYED"] {
            assert_eq!(presence(state(gone).as_bytes()), Err(FetchError::Deleted));
        }
        assert!(matches!(
            presence(state("X").as_bytes()),
            Err(FetchError::Garbage(_))
        ));
    }

    #[test]
    fn only_googles_own_words_are_about_the_secret() {
        let said =
            |status: &str, more: &str| format!(r#"{{"error":{{"status":"{status}"{more}}}}}"#);
        let reason = |word: &str| format!(r#","details":[{{"@type":"x"}},{{"reason":"{word}"}}]"#);
        let denied = |word: &str| said("PERMISSION_DENIED", &reason(word));
        let cases = [
            (404, said("NOT_FOUND", ""), FetchError::NotFound),
            (404, "<html>".into(), FetchError::UnexpectedStatus(404)),
            (
                404,
                r#"{"error":{"code":404}}"#.into(),
                FetchError::UnexpectedStatus(404),
            ),
            (403, said("PERMISSION_DENIED", ""), FetchError::Forbidden),
            (403, denied("IAM_PERMISSION_DENIED"), FetchError::Forbidden),
            (
                403,
                denied("SERVICE_DISABLED"),
                FetchError::UnexpectedStatus(403),
            ),
            (403, "<html>".into(), FetchError::UnexpectedStatus(403)),
            (
                400,
                said("FAILED_PRECONDITION", r#","message":"in DESTROYED state""#),
                FetchError::Deleted,
            ),
            (
                400,
                said("FAILED_PRECONDITION", r#","message":"Cloud KMS key""#),
                FetchError::UnexpectedStatus(400),
            ),
            (
                400,
                said("INVALID_ARGUMENT", ""),
                FetchError::UnexpectedStatus(400),
            ),
            (401, String::new(), FetchError::TokenRefused),
            (429, said("RESOURCE_EXHAUSTED", ""), FetchError::Throttled),
            (503, String::new(), FetchError::ServerError(503)),
        ];
        for (status, body, expected) in cases {
            let status = StatusCode::from_u16(status).expect("status is in range");
            assert_eq!(refusal(status, body.as_bytes()), expected, "{body}");
        }
        let scope = refusal(
            StatusCode::FORBIDDEN,
            denied("ACCESS_TOKEN_SCOPE_INSUFFICIENT").as_bytes(),
        );
        assert!(matches!(scope, FetchError::LoginFailed(_)));
    }
}
