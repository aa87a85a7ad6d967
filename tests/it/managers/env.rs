//! `$env://` through the whole room.

use std::time::Duration;

use super::{Room, text};

#[tokio::test]
async fn variables_are_resolved_at_once_and_keep_their_version() {
    let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
    let references = ["$ENV://TEST_TOKEN", "$env://TEST_TOKEN_ABSENT", "$env://"];
    let view = room.ensure(&references).await;
    assert_eq!(
        text(&view, "$ENV://TEST_TOKEN"),
        Ok(" from-env\n".to_owned())
    );
    let absent = text(&view, "$env://TEST_TOKEN_ABSENT");
    assert_eq!(absent, Err("environment variable is not set".to_owned()));
    assert_eq!(
        text(&view, "$env://"),
        Err("error format: no env name".to_owned())
    );

    let before = view.resolve("$ENV://TEST_TOKEN").unwrap().version;
    let again = room.ensure(&references).await;
    assert_eq!(again.resolve("$ENV://TEST_TOKEN").unwrap().version, before);
}
