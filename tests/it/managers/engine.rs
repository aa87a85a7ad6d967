//! What the room does with managers, whatever their kind: references in their fields, items that
//! are replaced, events.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use claviger::clock::SystemClock;
use claviger::secrets::manager::FetchError;
use claviger::secrets::{Event, Observer, ReferenceState, Secrets, SecretsSettings};
use serde_json::{Value, json};

use super::{Room, text};
use crate::harness::{OpenBao, Relay, Relaying};

const TTL: Duration = Duration::from_millis(300);

fn room() -> Room {
    Room::new(TTL, Duration::from_millis(200))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, fields: &Value) {
        let aside = self.0.path().join("aside.tmp");
        std::fs::write(&aside, fields.to_string()).unwrap();
        let name = format!("{name}.json");
        std::fs::rename(aside, self.0.path().join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(format!("{name}.json"))).unwrap();
    }

    fn item(&self) -> Value {
        json!({"path": self.0.path()})
    }
}

const VALUE: &str = "$secret://vault/main/a/k";
const TOKEN: &str = "$secret://file/keys/bao/token";

fn vault(uri: &str, token: &str) -> Value {
    json!({"uri": uri, "prefix": "secret/apisix", "token": token, "timeout": 2})
}

fn names(events: &[Event]) -> Vec<&'static str> {
    let name = |event: &Event| match event {
        Event::ManagerAdded => "added",
        Event::ManagerChanged => "changed",
        Event::ManagerRemoved => "removed",
        Event::ManagerRefused { .. } => "manager refused",
        Event::WentSilent { .. } => "silent",
        Event::AnswersAgain => "answers",
        Event::Adopted { .. } => "adopted",
        Event::Refused { .. } => "refused",
        _ => "login",
    };
    let names = events.iter().map(name);
    names.filter(|name| *name != "login").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_kept_by_another_manager_is_read_first_and_followed() {
    let bao = OpenBao::start().await;
    bao.put_v2("apisix/a", json!({"k": "one"})).await;
    let rules = r#"path "secret/*" { capabilities = ["read"] }"#;
    let (first, second) = (
        bao.token_with("first", rules).await,
        bao.token_with("second", rules).await,
    );
    let keys = Folder::new();
    keys.put("bao", &json!({"token": first}));
    let room = room();
    let managers = [
        ("vault/main", vault(&bao.addr, TOKEN)),
        ("file/keys", keys.item()),
    ];
    assert_eq!(room.configure_all(&managers), []);
    // One load is enough: it waits for the token, then for the value.
    assert_eq!(text(&room.ensure(&[VALUE]).await, VALUE), Ok("one".into()));
    assert_eq!(names(&room.events("vault/main")), ["added"]);

    // The old token dies; nothing is lost, and the new one is taken without being asked to.
    bao.revoke(&first).await;
    keys.put("bao", &json!({"token": second}));
    bao.put_v2("apisix/a", json!({"k": "two"})).await;
    room.until(VALUE, Ok("two")).await;
    let events = names(&room.events("vault/main"));
    assert!(events.contains(&"changed"), "{events:?}");
    assert!(
        !events.contains(&"refused"),
        "never without value: {events:?}"
    );

    // A token that can be none is not taken; the one in force goes on.
    keys.put("bao", &json!({"token": "two words"}));
    let refused = || {
        let events = room.events("vault/main");
        events
            .iter()
            .any(|event| matches!(event, Event::ManagerRefused { field, .. } if field == "token"))
    };
    room.wait(refused, || "the token must be refused".into())
        .await;
    bao.put_v2("apisix/a", json!({"k": "three"})).await;
    room.until(VALUE, Ok("three")).await;

    // Nor does the loss of the token take the manager away: it has logged in with it.
    keys.remove("bao");
    room.until(TOKEN, Err("document not found")).await;
    bao.put_v2("apisix/a", json!({"k": "four"})).await;
    room.until(VALUE, Ok("four")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_waits_for_its_fields_and_says_which() {
    let bao = OpenBao::start().await;
    bao.put_v2("apisix/a", json!({"k": "one"})).await;
    let keys = Folder::new();
    let room = room();
    let managers = [
        ("vault/main", vault(&bao.addr, TOKEN)),
        ("file/keys", keys.item()),
    ];
    assert_eq!(room.configure_all(&managers), []);
    let view = room.ensure(&[VALUE]).await;
    let why = format!("secret manager vault/main waits for token, {TOKEN}: document not found");
    assert_eq!(text(&view, VALUE), Err(why.clone()));
    let report = room.secrets.manager_report().pop().unwrap();
    assert_eq!(
        (&*report.id, report.reason.as_deref()),
        ("vault/main", Some(&*why))
    );
    assert!(!report.healthy);
    assert_eq!(room.report(VALUE).reason.as_deref(), Some(&*why));
    assert_eq!(names(&room.events("vault/main")), ["refused"]);

    keys.put("bao", &json!({"token": bao.token}));
    room.until(VALUE, Ok("one")).await;
    let events = names(&room.events("vault/main"));
    assert_eq!(events, ["refused", "added", "adopted"]);
    assert!(
        room.secrets
            .manager_report()
            .iter()
            .all(|report| report.healthy)
    );
}

#[tokio::test]
async fn managers_that_need_each_other_or_nobody_are_refused_and_spelled_out() {
    let path = |reference: &str| json!({ "path": reference });
    let [into_a, into_b, into_c] = ["a", "b", "c"].map(|id| format!("$secret://file/{id}/x/y"));
    for (managers, id, message) in [
        (
            vec![("file/a", path(&into_a))],
            "file/a",
            "managers need each other: file/a → file/a".to_owned(),
        ),
        (
            vec![("file/a", path(&into_b)), ("file/b", path(&into_a))],
            "file/b",
            "managers need each other: file/b → file/a → file/b".to_owned(),
        ),
        (
            vec![
                ("file/a", path(&into_b)),
                ("file/b", path(&into_c)),
                ("file/c", json!({"path": "x", "other": [{"deep": &into_a}]})),
            ],
            "file/a",
            "managers need each other: file/a → file/b → file/c → file/a".to_owned(),
        ),
        (
            vec![("file/a", path(&into_b))],
            "file/a",
            format!("{into_b}: no secret conf"),
        ),
    ] {
        let room = room();
        let problems = room.configure_all(&managers);
        assert_eq!(problems.len(), managers.len(), "{problems:?}");
        let problem = problems.iter().find(|problem| &*problem.id == id).unwrap();
        assert_eq!((&*problem.field, &problem.message), ("path", &message));
        assert_eq!(room.events(id), [], "nothing is in force yet");
        let view = room.ensure(&[&into_a]).await;
        let reason = text(&view, &into_a).unwrap_err();
        assert!(
            reason.starts_with("secret manager file/a refused: path: "),
            "{reason}"
        );
        assert_eq!(names(&room.events(id))[0], "manager refused");
    }

    // One that merely needs a refused one is not part of the circle: it waits.
    let room = room();
    let managers = [("file/a", path(&into_a)), ("file/b", path(&into_a))];
    let problems = room.configure_all(&managers);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let view = room.ensure(&[&into_b]).await;
    let reason = text(&view, &into_b).unwrap_err();
    assert!(
        reason.starts_with("secret manager file/b waits for path, "),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_item_keeps_its_values_unless_it_may_mean_others() {
    let bao = OpenBao::start().await;
    bao.put_v2("apisix/a", json!({"k": "v"})).await;
    bao.put_v2("other/a", json!({"k": "other"})).await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let room = room();
    assert_eq!(
        room.configure("vault/main", vault(&relay.uri(), &bao.token)),
        []
    );
    assert_eq!(text(&room.ensure(&[VALUE]).await, VALUE), Ok("v".into()));

    // The manager is down, and its item gets another token: what was read serves on.
    relay.set(Relaying::Close);
    assert_eq!(
        room.configure("vault/main", vault(&relay.uri(), "another")),
        []
    );
    assert_eq!(text(&room.ensure(&[VALUE]).await, VALUE), Ok("v".into()));
    assert_eq!(room.state(VALUE), ReferenceState::Stale);
    // It answers, and does not know the token: nothing is said about the value.
    relay.set(Relaying::Pass);
    room.failures(3).await;
    assert_eq!(text(&room.secrets.view(), VALUE), Ok("v".into()));
    // A token that cannot be is refused, and so is everything that depends on the item.
    let problems = room.configure("vault/main", vault(&relay.uri(), "two words"));
    assert_eq!(problems.len(), 1);
    let reason = text(&room.ensure(&[VALUE]).await, VALUE).unwrap_err();
    assert!(
        reason.starts_with("secret manager vault/main refused"),
        "{reason}"
    );
    assert_eq!(
        room.configure("vault/main", vault(&relay.uri(), &bao.token)),
        []
    );
    assert_eq!(text(&room.ensure(&[VALUE]).await, VALUE), Ok("v".into()));
    room.until_state(VALUE, ReferenceState::Fresh).await;

    // Another prefix means other secrets: a value of the old place is none of theirs.
    relay.set(Relaying::Close);
    let mut elsewhere = vault(&relay.uri(), &bao.token);
    elsewhere["prefix"] = json!("secret/other");
    assert_eq!(room.configure("vault/main", elsewhere), []);
    let reason = text(&room.ensure(&[VALUE]).await, VALUE).unwrap_err();
    assert!(reason.starts_with("manager unreachable"), "{reason}");
    relay.set(Relaying::Pass);
    room.until(VALUE, Ok("other")).await;

    // An item whose credentials another manager keeps serves its values until they are there.
    let keys = Folder::new();
    let mut waiting = vault(&relay.uri(), TOKEN);
    waiting["prefix"] = json!("secret/other");
    let managers = [("vault/main", waiting), ("file/keys", keys.item())];
    assert_eq!(room.configure_all(&managers), []);
    assert_eq!(
        text(&room.ensure(&[VALUE]).await, VALUE),
        Ok("other".into())
    );
    assert_eq!(room.state(VALUE), ReferenceState::Stale);
    let reason = room.report(VALUE).reason.unwrap_or_default();
    assert!(reason.contains("waits for token"), "{reason}");
    keys.put("bao", &json!({"token": bao.token}));
    room.until_state(VALUE, ReferenceState::Fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_is_told_what_came_into_force_and_what_became_of_values() {
    let folder = Folder::new();
    folder.put("a", &json!({"k": "one"}));
    let [k, gone] = ["$secret://file/main/a/k", "$secret://file/main/gone/k"];
    let room = room();
    let configure = |ttl: f64| {
        let mut item = folder.item();
        item["ttl"] = json!(ttl);
        assert_eq!(room.configure("file/main", item), []);
    };
    configure(0.3);
    assert!(
        room.events("file/main").is_empty(),
        "declared is not in force"
    );
    let view = room.ensure(&[k, gone]).await;
    let version = view.resolve(k).unwrap().version;
    let refused = |reference: &str, why: &str| Event::Refused {
        reference: reference.into(),
        why: why.into(),
    };
    let mut expected = vec![Event::ManagerAdded, refused(gone, "document not found")];
    assert_eq!(room.events("file/main"), expected);

    // What did not change is no news: not by a reload, not by any number of reads.
    configure(0.3);
    room.ensure(&[k, gone]).await;
    room.secrets.refresh_now();
    folder.put("a", &json!({"k": "two"}));
    room.until(k, Ok("two")).await;
    expected.push(Event::Adopted {
        reference: k.into(),
        version: room.report(k).version.unwrap(),
        manager_version: None,
    });
    assert!(room.report(k).version.unwrap() > version);
    assert_eq!(room.events("file/main"), expected);

    folder.remove("a");
    room.until(k, Err("document not found")).await;
    expected.push(refused(k, "document not found"));
    folder.put("a", &json!({"x": "two"}));
    room.until(k, Err("field not found")).await;
    expected.push(refused(k, "field not found"));
    assert_eq!(room.events("file/main"), expected);

    configure(0.2);
    room.ensure(&[k]).await;
    expected.push(Event::ManagerChanged);
    assert!(room.secrets.configure(&[]).is_empty());
    assert_eq!(room.events("file/main"), expected);
    room.ensure(&[]).await;
    expected.push(Event::ManagerRemoved);
    assert_eq!(room.events("file/main"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_goes_silent_and_comes_back_is_told_once_each() {
    let bao = OpenBao::start().await;
    bao.put_v2("apisix/a", json!({"k": "v"})).await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let room = room();
    assert_eq!(
        room.configure("vault/main", vault(&relay.uri(), &bao.token)),
        []
    );
    room.ensure(&[VALUE]).await;
    relay.set(Relaying::Answer(503, r#"{"errors":["Vault is sealed"]}"#));
    let circuit = || room.secrets.manager_report()[0].circuit.as_str();
    room.wait(|| circuit() == "open", || "it must open".into())
        .await;
    let report = room.secrets.manager_report().pop().unwrap();
    assert_eq!((report.healthy, report.last_error), (false, Some("sealed")));
    assert_eq!(room.secrets.silent_managers().len(), 1);
    assert_eq!(text(&room.secrets.view(), VALUE), Ok("v".into()));
    relay.set(Relaying::Pass);
    room.wait(|| circuit() == "closed", || "it must close".into())
        .await;
    room.until_state(VALUE, ReferenceState::Fresh).await;
    let told = || names(&room.events("vault/main"));
    room.wait(
        || told() == ["added", "silent", "answers"],
        || format!("{:?}", told()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_manager_says_of_a_document_ends_its_value_once_it_is_confirmed() {
    let bao = OpenBao::start().await;
    let rules = |but: &str| {
        let all = r#"path "secret/*" { capabilities = ["read"] }"#;
        format!("{all}\npath \"secret/data/apisix/{but}\" {{ capabilities = [\"deny\"] }}")
    };
    let token = bao.token_with("reader", &rules("none")).await;
    let neg_ttl = Duration::from_millis(700);
    let room = Room::new(Duration::from_millis(200), neg_ttl);
    assert_eq!(room.configure("vault/main", vault(&bao.addr, &token)), []);
    let cases = [
        ("deleted", "document version is deleted"),
        ("destroyed", "document version is deleted"),
        ("gone", "document not found"),
        ("denied", "forbidden by the manager"),
        ("kept", ""),
    ];
    for (name, _) in cases {
        bao.put_v2(&format!("apisix/{name}"), json!({"k": name}))
            .await;
    }
    let references = cases.map(|(name, _)| format!("$secret://vault/main/{name}/k"));
    let view = room
        .ensure(&references.each_ref().map(String::as_str))
        .await;
    assert!(
        references
            .iter()
            .all(|reference| view.resolve(reference).is_ok())
    );

    bao.call("DELETE", "secret/data/apisix/deleted", Value::Null)
        .await;
    let first = json!({"versions": [1]});
    bao.call("PUT", "secret/destroy/apisix/destroyed", first)
        .await;
    bao.call("DELETE", "secret/metadata/apisix/gone", Value::Null)
        .await;
    bao.policy("reader", &rules("denied")).await;
    for ((_, why), reference) in cases.iter().zip(&references).take(4) {
        let doubted = || {
            let report = room.report(reference);
            report.state != ReferenceState::Fresh && report.reason.as_deref() == Some(why)
        };
        room.wait(doubted, || format!("{:?}", room.report(reference)))
            .await;
    }
    for ((_, why), reference) in cases.iter().zip(&references).take(4) {
        room.until(reference, Err(why)).await;
    }
    // Each was said twice, and the second time `neg_ttl` after the first.
    let refused = |reference: &String| {
        let events = room.events("vault/main").into_iter();
        events
            .filter(|event| matches!(event, Event::Refused { reference: of, .. } if **of == **reference))
            .count()
    };
    assert!(
        references
            .iter()
            .take(4)
            .all(|reference| refused(reference) == 1)
    );
    assert_eq!(
        text(&room.secrets.view(), &references[4]),
        Ok("kept".into())
    );
}

/// Looks into the room whenever it is told something, which it could not under the room's lock.
#[derive(Default)]
struct Curious {
    secrets: OnceLock<std::sync::Weak<Secrets>>,
    seen: Mutex<Vec<(String, usize)>>,
}

impl Observer for Curious {
    fn fetch(&self, _: &str, _: Result<(), &FetchError>, _: Duration) {}

    fn event(&self, manager: &str, _: Event) {
        let secrets = self
            .secrets
            .get()
            .and_then(std::sync::Weak::upgrade)
            .unwrap();
        let known = secrets.report().len();
        drop(secrets.view());
        self.seen.lock().unwrap().push((manager.to_owned(), known));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_may_look_into_the_room() {
    let observer = Arc::new(Curious::default());
    let secrets = Secrets::new(
        SecretsSettings::default(),
        Arc::new(SystemClock),
        Arc::clone(&observer) as _,
    );
    observer.secrets.set(Arc::downgrade(&secrets)).unwrap();
    let references = std::collections::BTreeSet::from([
        "$secret://file/none/a/k".into(),
        "$env://CLAVIGER_ABSENT".into(),
    ]);
    let load = secrets.ensure(&references, Duration::from_secs(1));
    let load = tokio::time::timeout(Duration::from_secs(5), load);
    load.await.expect("telling must not stand in its own way");
    let seen = observer.seen.lock().unwrap().clone();
    assert_eq!(seen, [("env".to_owned(), 2), ("file/none".to_owned(), 2)]);
}
