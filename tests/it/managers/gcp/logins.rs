//! How `gcp` comes by a token, keeps it, and loses it.

use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, ManualClock};
use claviger::secrets::manager::Manager;
use claviger::secrets::{Event, ReferenceState, Secret, SecretsSettings};
use serde_json::json;

use super::super::{Room, Told, text};
use super::{Cloud, EMAIL, LOGGED_IN, build, events, manager, until, value};
use crate::harness::google::Tokens;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_key_file_works_and_a_changed_one_is_followed() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.json");
    std::fs::write(&path, cloud.key.to_string()).unwrap();
    let room = Room::new(Duration::from_millis(200), Duration::from_millis(200));
    let fields = json!({"auth_file": path, "entries_uri": cloud.entries_uri()});
    assert_eq!(room.configure("gcp/main", fields), []);
    let reference = "$secret://gcp/main/db";
    let view = room.ensure(&[reference]).await;
    assert_eq!(text(&view, reference), Ok("v".to_owned()));
    assert_eq!(cloud.google.logins(), [EMAIL]);

    // What is no key changes nothing, and is told.
    std::fs::write(&path, r#"{"type":"hunter2"}"#).unwrap();
    let failed = |event: &Event| matches!(event, Event::LoginFailed { why, .. } if why.contains("auth_file"));
    until("a bad file must be told", || {
        room.events("gcp/main").iter().any(failed)
    })
    .await;
    assert!(!format!("{:?}", room.events("gcp/main")).contains("hunter2"));
    assert_eq!(room.state(reference), ReferenceState::Fresh);

    // Another account, written aside and renamed as tools that rotate keys do; the old one goes.
    let other = "second@test-project.iam.gserviceaccount.com";
    let aside = home.path().join("aside");
    std::fs::write(&aside, cloud.google.account(other).to_string()).unwrap();
    std::fs::rename(aside, &path).unwrap();
    cloud.google.forget(EMAIL);
    until("the other must log in", || {
        cloud.google.logins() == [EMAIL, other]
    })
    .await;
    cloud.google.revoke();
    until("a revoked token is replaced", || {
        cloud.google.logins().len() == 3
    })
    .await;
    assert_eq!(cloud.google.logins()[2], other);
    cloud.drongo.put("db", b"w").await;
    room.until(reference, Ok("w")).await;
    assert!(
        cloud.google.complaints().is_empty(),
        "{:?}",
        cloud.google.complaints()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_logs_in_as_itself() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let fields = json!({"metadata_uri": cloud.google.uri(), "entries_uri": cloud.entries_uri()});
    let (first, told) = manager(fields.clone());
    assert!(first.login().is_none());
    assert_eq!(value(&*first, "db", None, "").await, "v");
    assert_eq!(value(&*first, "db", None, "").await, "v");
    assert_eq!(cloud.google.logins(), ["metadata"], "one login serves all");
    assert_eq!(events(&told), [Event::LoggedIn { method: "metadata" }]);
    assert_eq!(first.login().map(|login| login.method), Some("metadata"));

    let mut elsewhere = fields.clone();
    elsewhere["project_id"] = json!("other-project");
    let (elsewhere, _) = manager(elsewhere);
    assert_eq!(
        value(&*elsewhere, "db", None, "").await,
        "document not found"
    );

    cloud.google.set_tokens(Tokens::Refused);
    let (alone, _) = manager(fields.clone());
    assert_eq!(
        value(&*alone, "db", None, "").await,
        "login failed: no service account is attached to this machine"
    );
    cloud.google.set_tokens(Tokens::Good);
    cloud.google.drop_flavor();
    let (fooled, _) = manager(fields);
    assert_eq!(
        value(&*fooled, "db", None, "").await,
        "login failed: answer not understood: not Google's metadata server"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_replaced_ahead_of_their_end_and_no_read_fails() {
    let cloud = Cloud::start().await;
    // Kept for two seconds, and dead soon after: whoever kept it longer would be seen.
    cloud.google.set_life(62, Duration::from_millis(2500));
    cloud.drongo.put("db", b"v").await;
    let room = Room::new(Duration::from_millis(100), Duration::from_millis(100));
    assert_eq!(room.configure("gcp/main", cloud.fields()), []);
    let reference = "$secret://gcp/main/db";
    let view = room.ensure(&[reference]).await;
    assert_eq!(text(&view, reference), Ok("v".to_owned()));
    until("two renewals must come", || {
        cloud.google.logins().len() >= 3
    })
    .await;
    let renewed = Event::Renewed {
        method: "service_account",
    };
    let events = room.events("gcp/main");
    let logins: Vec<_> = events.iter().filter(|event| **event == LOGGED_IN).collect();
    assert_eq!(logins.len(), 1, "{events:?}");
    assert!(
        events.iter().filter(|event| **event == renewed).count() >= 2,
        "{events:?}"
    );
    let told = room.told.reads.lock().unwrap().clone();
    assert!(
        told.len() > 10 && told.iter().all(Option::is_none),
        "{told:?}"
    );
    assert_eq!(cloud.google.reads().1, 0, "no read without a living token");
    let login = room.secrets.manager_report()[0].login;
    assert!(login.is_some(), "its end is reported");
    assert!(
        cloud.google.complaints().is_empty(),
        "{:?}",
        cloud.google.complaints()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_fails_leaves_values_in_force_and_heals_by_itself() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let room = Room::new(Duration::from_millis(100), Duration::from_millis(100));
    let mut fields = cloud.fields();
    fields["timeout"] = json!(0.5);
    assert_eq!(room.configure("gcp/main", fields), []);
    let reference = "$secret://gcp/main/db";
    let view = room.ensure(&[reference]).await;
    assert_eq!(text(&view, reference), Ok("v".to_owned()));
    for (tokens, kind, why) in [
        (
            Tokens::Refused,
            "login",
            "login failed: token endpoint does not accept",
        ),
        (
            Tokens::Garbage,
            "login",
            "login failed: answer not understood: login is not answered in JSON",
        ),
        (
            Tokens::Failing,
            "server_error",
            "manager failed with status 503",
        ),
        (Tokens::Never, "timed_out", ""),
    ] {
        cloud.google.set_tokens(tokens);
        cloud.google.revoke();
        let kinds = room.failures(2).await;
        assert!(kinds.contains(kind), "{tokens:?}: {kinds:?}");
        room.until_state(reference, ReferenceState::Stale).await;
        assert_eq!(text(&room.secrets.view(), reference), Ok("v".to_owned()));
        let failed = |event: &Event| matches!(event, Event::LoginFailed { why: told, .. } if told.starts_with(why));
        let events = room.events("gcp/main");
        assert!(events.iter().any(failed), "{tokens:?}: {events:?}");
        cloud.google.set_tokens(Tokens::Good);
        room.until_state(reference, ReferenceState::Fresh).await;
    }
    let events = room.events("gcp/main");
    assert!(!format!("{events:?}").contains("hunter2"));
    let logins = events.iter().filter(|event| **event == LOGGED_IN).count();
    assert_eq!(logins, 5, "each fault was healed by one login: {events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_serves_to_its_end_while_the_next_is_refused() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let clock = Arc::new(ManualClock::new());
    let told = Arc::new(Told::default());
    let timed: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let manager: Arc<dyn Manager> = build(cloud.fields(), &told, &timed).unwrap().into();
    let tended = Arc::clone(&manager);
    let tending = tokio::spawn(async move { tended.tend().await });
    assert_eq!(value(&*manager, "db", None, "").await, "v");
    let ends = manager.login().unwrap().ends.unwrap();
    let left = ends.saturating_duration_since(clock.now());
    assert_eq!(left, Duration::from_secs(3600));

    // Kept for 3540 seconds; the next is asked for after 3240.
    clock.advance(Duration::from_secs(3230));
    cloud.google.set_tokens(Tokens::Refused);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(events(&told), [LOGGED_IN], "not asked for yet");
    clock.advance(Duration::from_secs(20));
    until("the next must be asked for ahead", || {
        events(&told).len() == 2
    })
    .await;
    assert!(matches!(events(&told)[1], Event::LoginFailed { .. }));
    clock.advance(Duration::from_secs(280));
    assert_eq!(value(&*manager, "db", None, "").await, "v");
    clock.advance(Duration::from_secs(20));
    let error = value(&*manager, "db", None, "").await;
    assert!(error.starts_with("login failed: "), "{error}");
    assert_eq!(
        cloud.google.reads(),
        (2, 0),
        "no read with a token past its time"
    );

    // Tried again by itself, and told once.
    assert_eq!(events(&told).len(), 2, "{:?}", events(&told));
    cloud.google.set_ahead(Duration::from_secs(3610));
    cloud.google.set_tokens(Tokens::Good);
    clock.advance(Duration::from_secs(60));
    until("it is asked for again", || events(&told).len() == 3).await;
    assert_eq!(value(&*manager, "db", None, "").await, "v");
    assert_eq!(cloud.google.logins().len(), 2);
    tending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_documents_share_one_login_and_a_revoked_token_costs_one_more() {
    let cloud = Cloud::start().await;
    for number in 0..30 {
        cloud.drongo.put(&format!("d{number}"), b"v").await;
    }
    let room = Room::new(Duration::from_secs(600), Duration::from_secs(600));
    assert_eq!(room.configure("gcp/main", cloud.fields()), []);
    let references: Vec<String> = (0..30)
        .map(|number| format!("$secret://gcp/main/d{number}"))
        .collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let view = room.ensure(&references).await;
    for reference in &references {
        assert_eq!(text(&view, reference), Ok("v".to_owned()));
    }
    assert_eq!(cloud.google.logins().len(), 1);

    cloud.google.revoke();
    let (before, _) = cloud.google.reads();
    room.secrets.refresh_now();
    until("all must be read again", || {
        cloud.google.reads().0 >= before + 30
    })
    .await;
    assert_eq!(cloud.google.logins().len(), 2, "one login for all of them");
    assert_eq!(
        room.events("gcp/main")
            .iter()
            .filter(|event| **event == LOGGED_IN)
            .count(),
        2
    );
    let told = room.told.reads.lock().unwrap().clone();
    assert!(told.iter().all(Option::is_none), "nobody noticed: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_always_refused_is_asked_for_once_more_and_no_oftener() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    cloud.google.set_life(3600, Duration::ZERO);
    let (manager, _) = manager(cloud.fields());
    let found = value(&*manager, "db", None, "").await;
    assert_eq!(found, "manager does not accept our token");
    assert_eq!(
        (cloud.google.logins().len(), cloud.google.reads()),
        (2, (0, 2))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_key_may_come_from_the_environment() {
    let cloud = Cloud::start().await;
    cloud.drongo.put("db", b"v").await;
    let pem = cloud.key["private_key"].as_str().unwrap();
    let room = Room::with(SecretsSettings {
        env: vec![
            ("TEST_PEM".to_owned(), Secret::from(pem.to_owned()).seal()),
            // As an environment file has to hold it.
            (
                "TEST_LINE".to_owned(),
                Secret::from(pem.replace('\n', "\\n")).seal(),
            ),
            (
                "TEST_JSON".to_owned(),
                Secret::from(cloud.key.to_string()).seal(),
            ),
        ],
        ..SecretsSettings::default()
    });
    let from = |reference: &str| {
        let mut fields = cloud.fields();
        fields["auth_config"]["private_key"] = reference.into();
        fields
    };
    let managers = [
        ("gcp/pem", from("$env://TEST_PEM")),
        ("gcp/line", from("$env://TEST_LINE")),
        ("gcp/json", from("$env://TEST_JSON/private_key")),
    ];
    assert_eq!(room.configure_all(&managers), []);
    let references = managers.map(|(id, _)| format!("$secret://{id}/db"));
    let view = room
        .ensure(&references.each_ref().map(String::as_str))
        .await;
    for reference in &references {
        assert_eq!(text(&view, reference), Ok("v".to_owned()), "{reference}");
    }
}
