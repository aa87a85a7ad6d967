//! What `gcp` makes of answers, and of servers that are not there or not trusted.

use claviger::secrets::manager::{FetchError, Step};
use serde_json::json;

use super::{Cloud, manager, read, value};
use crate::harness::{Behaviour, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_google_has_its_meaning_and_is_never_repeated() {
    let cloud = Cloud::start().await;
    let server = Upstream::start(Behaviour::ok());
    let (manager, _) = manager(cloud.fields_at(&format!("http://{}/v1", server.addr)));
    let json = |status, body: &str| Behaviour::Answer(status, body.to_owned());
    let said = |status, word: &str| {
        json(
            status,
            &format!(r#"{{"error":{{"message":"hunter2","status":"{word}"}}}}"#),
        )
    };
    let large = format!(
        r#"{{"payload":{{"data":"{}"}}}}"#,
        "x".repeat(3 * 1024 * 1024)
    );
    let garbage = FetchError::Garbage("not the JSON Secret Manager speaks");
    for (answer, expected) in [
        (said(404, "NOT_FOUND"), FetchError::NotFound),
        (said(403, "PERMISSION_DENIED"), FetchError::Forbidden),
        (said(400, "FAILED_PRECONDITION"), FetchError::Deleted),
        (
            said(400, "INVALID_ARGUMENT"),
            FetchError::UnexpectedStatus(400),
        ),
        (said(401, "UNAUTHENTICATED"), FetchError::TokenRefused),
        (said(429, "RESOURCE_EXHAUSTED"), FetchError::Throttled),
        (said(500, "INTERNAL"), FetchError::ServerError(500)),
        (json(503, "<html>hunter2"), FetchError::ServerError(503)),
        (
            json(404, "<html>hunter2"),
            FetchError::UnexpectedStatus(404),
        ),
        (
            json(403, "<html>hunter2"),
            FetchError::UnexpectedStatus(403),
        ),
        (json(307, ""), FetchError::Redirected(307)),
        (json(200, "<html>hunter2"), garbage.clone()),
        (json(200, r#"{"payload":{"data":"hunt"#), garbage),
        (json(200, "{}"), FetchError::Garbage("no payload in it")),
        (
            json(200, r#"{"payload":{"data":"hunter2!"}}"#),
            FetchError::Garbage("data is not base64"),
        ),
        (
            json(
                200,
                r#"{"payload":{"data":"aHVudGVyMg==","dataCrc32c":"1"}}"#,
            ),
            FetchError::Garbage("value does not fit its checksum"),
        ),
        (json(200, &large), FetchError::TooLarge(2 * 1024 * 1024)),
    ] {
        server.set(answer.clone());
        let found = manager.fetch(read("a", None, &[])).await.map(drop);
        let shown = format!("{found:?}");
        assert_eq!(found, Err(expected), "{answer:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let seen = server.requests().remove(0);
    assert_eq!(
        seen.start,
        "GET /v1/projects/test-project/secrets/a/versions/latest:access HTTP/1.1"
    );
    assert_eq!(seen.header("authorization"), Some("Bearer ya29.test-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_step_and_the_server_and_only_a_trusted_one_is_asked() {
    use claviger::tls::dev::{Authority, LeafOptions};

    let cloud = Cloud::start().await;
    let authority = Authority::new().unwrap();
    let issued = authority
        .issue(&["127.0.0.1"], &LeafOptions::default())
        .unwrap();
    let answer = Behaviour::Answer(200, r#"{"payload":{"data":"dg=="}}"#.to_owned());
    let key = issued.key_pem.expose();
    let server = Upstream::start_tls(answer, &issued.cert_pem, key);
    let fields = cloud.fields_at(&format!("https://{}/v1", server.addr));
    let (untrusting, _) = manager(fields.clone());
    let found = untrusting.fetch(read("a", None, &[])).await.map(drop);
    assert_eq!(found.map_err(|why| why.step()), Err(Step::Tls));
    assert_eq!(server.requests().len(), 0);
    let ca = authority.cert_pem().unwrap();
    for (field, trust) in [("tls", json!({ "ca": ca })), ("ssl_verify", json!(false))] {
        let mut fields = fields.clone();
        fields[field] = trust;
        let (trusting, _) = manager(fields);
        assert_eq!(value(&*trusting, "a", None, "").await, "v");
    }

    let mut nowhere = cloud.fields();
    nowhere["auth_config"]["token_uri"] = json!("http://nowhere.invalid/token");
    let mut closed = cloud.fields();
    closed["auth_config"]["token_uri"] = json!("http://127.0.0.1:1/token");
    for (fields, step) in [(nowhere, Step::Dns), (closed, Step::Tcp)] {
        let (manager, _) = manager(fields);
        let error = manager
            .fetch(read("a", None, &[]))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.step(), step);
        assert!(error.to_string().contains("token endpoint: "), "{error}");
        assert!(!error.to_string().contains("http:"), "{error}");
    }
}
