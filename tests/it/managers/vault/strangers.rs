//! Servers that are anything but Vault, or none, or slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use claviger::secrets::manager::FetchError;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::{Room, text};
use super::{ID, REFERENCE, dev, found, value};
use crate::harness::{Relay, Relaying};

/// A server that says `answer` to everything, or nothing at all, and counts who asks for documents.
async fn impostor(answer: Option<String>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, counted) = (answer.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                if !request.starts_with(b"GET /v1/auth/token/lookup-self ") {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    (addr, count)
}

fn http(status: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_make_no_sense_are_understood_as_that() {
    let large = format!("{{\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(3 * 1024 * 1024));
    for (answer, expected) in [
        (Some("garbage\r\n\r\n".to_owned()), "manager unreachable: "),
        (
            http("200 OK", "<html>hunter2</html>"),
            "answer not understood: ",
        ),
        (http("200 OK", "{}"), "answer not understood: "),
        (http("200 OK", &large), "document is larger than "),
        (
            http("404 Not Found", "<html>"),
            "manager answered status 404",
        ),
        (
            http("404 Not Found", r#"{"errors":[]}"#),
            "document not found",
        ),
        (
            http("403 Forbidden", "<html>"),
            "manager answered status 403",
        ),
        (
            http("403 Forbidden", r#"{"errors":["x"]}"#),
            "manager does not accept our token",
        ),
        (
            http("307 Temporary Redirect", ""),
            "manager redirects with status 307",
        ),
        (
            http("429 Too Many Requests", ""),
            "manager refuses more requests",
        ),
        (
            http("500 Internal Server Error", ""),
            "manager failed with status 500",
        ),
        (
            http(
                "503 Service Unavailable",
                r#"{"errors":["Vault is sealed"]}"#,
            ),
            "manager is sealed",
        ),
    ] {
        let (uri, _) = impostor(answer).await;
        let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
        let fields = json!({"uri": uri, "prefix": "kv", "token": "t", "kv_version": 1});
        assert_eq!(room.configure("vault/main", fields), []);
        let reference = "$secret://vault/main/a/k";
        let reason = text(&room.ensure(&[reference]).await, reference).unwrap_err();
        assert!(reason.starts_with(expected), "{reason:?}, not {expected:?}");
        assert!(!reason.contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_waits_no_longer_than_it_is_told_and_many_documents_do_not_storm() {
    let (uri, count) = impostor(None).await;
    let room = Room::new(Duration::from_secs(1), Duration::from_secs(60));
    let fields = json!({"uri": uri, "prefix": "kv", "token": "t", "timeout": 0.5});
    assert_eq!(room.configure("vault/main", fields), []);
    let references: Vec<String> = (0..500)
        .map(|number| format!("$secret://vault/main/d{number}/k"))
        .collect();
    let started = Instant::now();
    let view = room
        .ensure(&references.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the circuit ends the queue"
    );
    assert!(view.resolve(&references[0]).is_err());
    assert!(count.load(Ordering::Relaxed) < 100, "{count:?} connections");
    assert!(!room.secrets.manager_report()[0].healthy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_comes_back_is_noticed_by_itself() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let room = Room::new(Duration::from_secs(300), Duration::from_secs(60));
    let fields =
        json!({"uri": format!("http://{addr}"), "prefix": "kv", "token": "t", "kv_version": 1});
    assert_eq!(room.configure("vault/main", fields), []);
    let reference = "$secret://vault/main/a/k";
    let reason = text(&room.ensure(&[reference]).await, reference).unwrap_err();
    assert!(reason.starts_with("manager unreachable"), "{reason}");

    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = http("200 OK", r#"{"data":{"k":"back"}}"#).unwrap();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    room.until(reference, Ok("back")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_manager_keeps_its_values_and_a_changed_one_reads_again() {
    let (uri, count) = impostor(http("200 OK", r#"{"data":{"k":"v"}}"#)).await;
    let room = Room::new(Duration::from_secs(300), Duration::from_secs(60));
    let fields = |token| json!({"uri": uri, "prefix": "kv", "token": token, "kv_version": 1});
    let reference = "$secret://vault/main/a/k";
    for (token, reads) in [("one", 1), ("one", 1), ("two", 2)] {
        assert_eq!(room.configure("vault/main", fields(token)), []);
        assert_eq!(
            text(&room.ensure(&[reference]).await, reference),
            Ok("v".to_owned())
        );
        // The value serves on while the changed manager is read.
        let counted = || count.load(Ordering::Relaxed);
        let complaint = || format!("{} reads, not {reads}", counted());
        room.wait(|| counted() >= reads, complaint).await;
        assert_eq!(counted(), reads);
    }
    assert!(room.secrets.configure(&[]).is_empty());
    let reason = text(&room.ensure(&[reference]).await, reference).unwrap_err();
    assert_eq!(reason, format!("no secret conf, secret_uri: {reference}"));
}

/// Waits until this path is asked for once more.
async fn asked_again(room: &Room, relay: &Relay, path: &str) {
    let before = relay.count();
    let asked = || relay.paths()[before..].iter().any(|at| at.contains(path));
    let complaint = || format!("nobody asks for {path}: {:?}", relay.paths());
    room.wait(asked, complaint).await;
}

/// A page of something in between says nothing about the mount: taken for "no such question", it
/// would leave the guess that the mount is one segment long, and there is none of that name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_place_of_the_mount_is_no_answer_about_it() {
    let bao = dev().await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let room = Room::new(Duration::from_millis(250), Duration::from_secs(600));
    let mount = json!({"type": "kv", "options": {"version": "2"}});
    bao.call("POST", "sys/mounts/team/kv", mount).await;
    let put = async |value: &str| {
        let data = json!({"data": {"k": value}});
        let none = ("X-Nothing", "nothing");
        let path = "team/kv/data/apisix/a";
        bao.try_call_with(none, path, data).await.ok()
    };
    // A mount of version 2 is being upgraded for a moment.
    while put("v").await.is_none_or(|(status, _)| status != 200) {}
    let fields = json!({
        "uri": relay.uri(), "prefix": "team/kv/apisix", "token": bao.token, "kv_version": 2,
    });
    assert_eq!(room.configure(ID, fields), []);
    assert_eq!(value(&room).await, found("v"));
    // After a 404 the mount is asked for anew, and that answer is a page, too.
    relay.set(Relaying::Answer(404, "<html>"));
    asked_again(&room, &relay, "team/kv/data/apisix/a").await;
    relay.set(Relaying::Answer(400, "<html>"));
    asked_again(&room, &relay, "sys/internal/ui/mounts").await;
    assert!(put("w").await.is_some_and(|(status, _)| status == 200));
    relay.set(Relaying::Pass);
    room.until(REFERENCE, Ok("w")).await;
    let no = FetchError::NoPlace("mount").kind();
    let reads = room.told.reads.lock().unwrap();
    assert!(!reads.contains(&Some(no)), "a false no: {reads:?}");
}
