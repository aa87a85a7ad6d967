//! `vault` against a real `OpenBao`, and against servers that are anything but.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use claviger::secrets::ReferenceState;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Backend, Fault, Room, conformance, text};
use crate::harness::openbao::OpenBao;
use crate::harness::{Relay, Relaying};

struct Kv {
    bao: OpenBao,
    relay: Relay,
    /// May read all but what [`Kv::forbid`] was told.
    token: String,
    version: u8,
    declared: Option<Value>,
}

impl Kv {
    fn mount(&self) -> &'static str {
        if self.version == 1 { "kv1" } else { "secret" }
    }
}

fn encoded(path: &str) -> String {
    let encode = |part| percent_encode(part);
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn percent_encode(part: &str) -> String {
    part.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

impl Backend for Kv {
    fn id(&self) -> &'static str {
        "vault/main"
    }

    fn fields(&self) -> Value {
        let mut fields = json!({
            "uri": self.relay.uri(), "prefix": format!("/{}//apisix/", self.mount()),
            "token": format!("  {}\n", self.token), "timeout": 5,
        });
        if let Some(declared) = &self.declared {
            fields["kv_version"] = declared.clone();
        }
        fields
    }

    async fn put(&self, path: &str, fields: Value) {
        let path = format!("apisix/{}", encoded(path));
        match self.version {
            1 => self.bao.put_v1(&path, fields).await,
            _ => self.bao.put_v2(&path, fields).await,
        }
    }

    async fn delete(&self, path: &str) {
        let path = format!("apisix/{}", encoded(path));
        match self.version {
            1 => self.bao.delete_v1(&path).await,
            _ => self.bao.delete_v2(&path).await,
        }
    }

    async fn undelete(&self, path: &str, fields: Value) {
        if self.version == 1 {
            return self.put(path, fields).await;
        }
        let path = format!("secret/undelete/apisix/{}", encoded(path));
        self.bao.call("POST", &path, json!({"versions": [1]})).await;
    }

    async fn forbid(&self, path: &str) -> bool {
        self.bao.policy("reader", &self.rules(Some(path))).await;
        true
    }

    async fn allow(&self, _path: &str) {
        self.bao.policy("reader", &self.rules(None)).await;
    }

    async fn go_down(&mut self) {
        self.bao.seal().await;
    }

    fn relay(&self) -> Option<&Relay> {
        Some(&self.relay)
    }

    fn relaying(&self, fault: Fault) -> Relaying {
        let sealed = r#"{"errors":["Vault is sealed"]}"#;
        match fault {
            Fault::Sealed => Relaying::Answer(503, sealed),
            Fault::Failing => Relaying::Answer(500, r#"{"errors":["internal error"]}"#),
            Fault::Throttled => {
                Relaying::Answer(429, r#"{"errors":["request path quota exceeded"]}"#)
            }
            Fault::WrongContent => Relaying::Answer(404, "<html>not found</html>"),
            Fault::Slow => Relaying::Never,
            Fault::Closed => Relaying::Close,
            Fault::Garbage => Relaying::Garbage,
            Fault::Truncated => Relaying::Truncated,
        }
    }

    fn deleted(&self) -> &'static str {
        match self.version {
            1 => self.no_document(),
            _ => "document version is deleted",
        }
    }
}

impl Kv {
    fn rules(&self, but: Option<&str>) -> String {
        let mount = self.mount();
        let mut rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}\n");
        if let Some(path) = but {
            let data = if self.version == 1 { "" } else { "data/" };
            let path = format!("{mount}/{data}apisix/{path}");
            rules += &format!("path \"{path}\" {{ capabilities = [\"deny\"] }}\n");
        }
        rules
    }
}

async fn kv(version: u8, declared: Option<Value>) -> Kv {
    let bao = OpenBao::start().await;
    let mount = if version == 1 { "kv1" } else { "secret" };
    let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}");
    Kv {
        token: bao.token_with("reader", &rules).await,
        relay: Relay::start(&bao.addr, Relaying::Pass),
        bao,
        version,
        declared,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_1_found_by_asking_conforms() {
    conformance(kv(1, None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_1_as_declared_conforms() {
    conformance(kv(1, Some(json!(1))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_2_found_by_asking_conforms() {
    conformance(kv(2, Some(json!("auto"))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_2_as_declared_conforms() {
    conformance(kv(2, Some(json!(2))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_are_read_when_asked_for_and_deleted_ones_are_gone() {
    let kv = kv(2, None).await;
    kv.put("a", json!({"k": "first"})).await;
    kv.put("a", json!({"k": "second"})).await;
    let room = Room::new(Duration::from_millis(300), Duration::from_millis(300));
    assert_eq!(room.configure("vault/main", kv.fields()), []);
    let [newest, first, ninth, word] = ["", "?version=1", "?version=9", "?version=x"]
        .map(|query| format!("$secret://vault/main/a/k{query}"));
    let view = room.ensure(&[&newest, &first, &ninth, &word]).await;
    assert_eq!(text(&view, &newest), Ok("second".to_owned()));
    assert_eq!(text(&view, &first), Ok("first".to_owned()));
    assert_eq!(text(&view, &ninth), Err("document not found".to_owned()));
    assert!(text(&view, &word).unwrap_err().contains("is a number"));

    kv.delete("a").await;
    room.until(&newest, Err("document version is deleted"))
        .await;
    assert_eq!(text(&room.secrets.view(), &first), Ok("first".to_owned()));
    kv.put("a", json!({"k": "third"})).await;
    room.until(&newest, Ok("third")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_token_that_may_not_read_ends_the_value_and_a_dead_token_does_not() {
    let kv = kv(2, None).await;
    kv.put("a", json!({"k": "v"})).await;
    let rules = r#"path "secret/data/apisix/*" { capabilities = ["read"] }"#;
    let living = kv.bao.token_with("living", rules).await;
    let dying = kv.bao.token_with("dying", rules).await;
    let rooms = [living, dying.clone()].map(|token| {
        let room = Room::new(Duration::from_millis(300), Duration::from_millis(300));
        let mut fields = kv.fields();
        fields["token"] = token.into();
        assert_eq!(room.configure("vault/main", fields), []);
        room
    });
    let reference = "$secret://vault/main/a/k";
    for room in &rooms {
        assert_eq!(
            text(&room.ensure(&[reference]).await, reference),
            Ok("v".to_owned())
        );
    }
    kv.bao.revoke(&dying).await;
    let none = r#"path "secret/data/other" { capabilities = ["read"] }"#;
    kv.bao
        .call("PUT", "sys/policies/acl/living", json!({"policy": none}))
        .await;
    rooms[0]
        .until(reference, Err("forbidden by the manager"))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        text(&rooms[1].secrets.view(), reference),
        Ok("v".to_owned())
    );
    assert_eq!(rooms[1].state(reference), ReferenceState::Stale);
}

#[tokio::test]
async fn fields_that_cannot_work_are_refused_by_name() {
    let base = || json!({"uri": "http://127.0.0.1:1", "prefix": "kv/a", "token": "t"});
    for (field, value, expected) in [
        ("uri", json!("ftp://x"), "uri"),
        ("uri", json!("http://user:hunter2@x"), "uri"),
        ("prefix", json!("kv/../sys"), "prefix"),
        ("prefix", json!("/"), "prefix"),
        ("token", json!("hunter2\u{7}"), "token"),
        ("token", json!("hunter2 x"), "token"),
        ("token", json!(" \n"), "token"),
        ("token", json!(null), "token"),
        ("token", json!("$env://TEST_TOKEN_ABSENT"), "token"),
        ("token", json!("$secret://vault/2/a/b"), "token"),
        ("timeout", json!(0), "timeout"),
        ("kv_version", json!(3), "kv_version"),
        ("auth", json!({"method": "approle"}), "auth.method"),
        ("tls", json!({"ca": "/nowhere/ca.pem"}), "tls.ca"),
        ("tls", json!({"client_cert": "x"}), "tls"),
        ("ttl", json!("1s"), "ttl"),
    ] {
        let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
        let mut fields = base();
        fields[field] = value.clone();
        let problems = room.configure("vault/main", fields);
        assert_eq!(problems.len(), 1, "{field}: {value}");
        assert_eq!(problems[0].field, expected, "{:?}", problems[0]);
        assert!(
            !problems[0].message.contains("hunter2"),
            "{:?}",
            problems[0]
        );
        let view = room.ensure(&["$secret://vault/main/a/b"]).await;
        let reason = text(&view, "$secret://vault/main/a/b").unwrap_err();
        assert!(
            reason.starts_with("secret manager vault/main refused"),
            "{reason}"
        );
    }
    let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
    let mut fields = base();
    fields["token"] = json!("$env://TEST_TOKEN");
    assert_eq!(room.configure("vault/main", fields), []);
}

/// A server that says `answer` to everything, or nothing at all, and counts.
async fn impostor(answer: Option<String>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
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
        assert_eq!(count.load(Ordering::Relaxed), reads);
    }
    assert!(room.secrets.configure(&[]).is_empty());
    let reason = text(&room.ensure(&[reference]).await, reference).unwrap_err();
    assert_eq!(reason, format!("no secret conf, secret_uri: {reference}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_by_the_authority_and_name_it_was_given() {
    let bao = OpenBao::start_tls().await;
    bao.put_v2("apisix/a", json!({"k": "v"})).await;
    let ca = bao.ca();
    let pem = std::fs::read_to_string(&ca).unwrap();
    for (tls, trusted) in [
        (json!({}), false),
        (json!({"ca": ca}), true),
        (json!({"ca": pem}), true),
        (json!({"ca": pem, "server_name": "localhost"}), true),
        (json!({"ca": pem, "server_name": "elsewhere.test"}), false),
        (json!({"verify": false}), true),
    ] {
        let room = Room::new(Duration::from_secs(300), Duration::from_secs(60));
        let fields = json!({
            "uri": bao.addr, "prefix": "secret/apisix", "token": bao.token, "tls": tls,
        });
        assert_eq!(room.configure("vault/main", fields), []);
        let reference = "$secret://vault/main/a/k";
        let found = text(&room.ensure(&[reference]).await, reference);
        assert_eq!(found.is_ok(), trusted, "{tls}: {found:?}");
    }
}
