//! Whole documents and whole logins that come with a status of failure: never a value, never a
//! session. One server speaks for all managers; the status stands in what it is asked for.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Room, text};
use crate::harness::wire::{Kind, Reader};

const FORGED: &str = "forged-by-an-impostor";
const FAILURES: [u16; 12] = [400, 401, 403, 404, 409, 410, 429, 500, 501, 502, 503, 504];

/// Answers everything with a document, a mount, a session and a token at once, and with the status
/// behind the mark `at-` in the question; 200 where there is none.
fn impostor() -> SocketAddr {
    use std::io::Write as _;
    let fields = json!({ "k": FORGED });
    let all = json!({
        "access_token": "t", "token_type": "Bearer", "expires_in": 3600,
        "auth": {"client_token": "t", "renewable": false, "lease_duration": 3600},
        "name": "projects/test/secrets/doc/versions/1",
        "payload": {"data": STANDARD.encode(fields.to_string())},
        "Name": "doc", "VersionId": "1", "SecretString": fields.to_string(),
        "data": {
            "data": fields, "k": FORGED,
            "metadata": {"version": 1, "deletion_time": "", "destroyed": false},
            "path": "at/", "options": {"version": "2"},
            "id": "t", "ttl": 3600, "renewable": false,
        },
    })
    .to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = Reader::default();
            let Ok(Some(request)) = reader.message(&mut stream, Kind::Request) else {
                continue;
            };
            let question = format!("{} {}", request.word(1), request.text());
            let status = question
                .split_once("at-")
                .filter(|_| !request.word(1).starts_with("/v1/sys/"))
                .map_or("200", |(_, rest)| &rest[..3]);
            let _ = stream.write_all(
                format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{all}",
                    all.len()
                )
                .as_bytes(),
            );
        }
    });
    addr
}

/// A manager of each kind, and a reference into it, whose document comes with this status, and
/// whose login comes with that one where it makes any.
fn managers(
    addr: SocketAddr,
    account: &Value,
    document: u16,
    login: u16,
) -> Vec<(String, Value, String)> {
    let at = format!("at-{document}");
    let uri = format!("http://{addr}");
    let name = format!("{document}-{login}");
    let role = json!({
        "method": "approle", "mount": format!("at-{login}"), "role_id": "r", "secret_id": "s",
    });
    let mut google = account.clone();
    google["token_uri"] = format!("{uri}/at-{login}/token").into();
    google["entries_uri"] = format!("{uri}/{at}/v1").into();
    let mut managers = vec![
        (
            format!("vault/one-{name}"),
            json!({"uri": uri, "prefix": at, "kv_version": 1, "auth": role}),
            "doc/k".to_owned(),
        ),
        (
            format!("vault/two-{name}"),
            json!({"uri": uri, "prefix": at, "kv_version": 2, "auth": role}),
            "doc/k".to_owned(),
        ),
        (
            format!("gcp/main-{name}"),
            json!({ "auth_config": google }),
            "doc/k".to_owned(),
        ),
    ];
    if login == 200 {
        managers.push((
            format!("aws/main-{name}"),
            json!({"endpoint_url": uri, "access_key_id": "a", "secret_access_key": "b"}),
            format!("{at}/doc#k"),
        ));
    }
    managers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_with_a_status_of_failure_is_never_used() {
    let addr = impostor();
    let key = openssl::rsa::Rsa::generate(2048).unwrap();
    let account = json!({
        "client_email": "gateway@test", "project_id": "test",
        "private_key": String::from_utf8(key.private_key_to_pem().unwrap()).unwrap(),
    });
    let failing = FAILURES
        .iter()
        .flat_map(|status| [(*status, 200), (200, *status)]);
    let all: Vec<_> = [(200, 200)]
        .into_iter()
        .chain(failing)
        .flat_map(|(document, login)| managers(addr, &account, document, login))
        .collect();
    let room = Room::new(Duration::from_secs(600), Duration::from_secs(600));
    let items: Vec<_> = all
        .iter()
        .map(|(id, fields, _)| (&**id, fields.clone()))
        .collect();
    assert_eq!(room.configure_all(&items), []);
    let references: Vec<String> = all
        .iter()
        .map(|(id, _, rest)| format!("$secret://{id}/{rest}"))
        .collect();
    let asked: Vec<&str> = references.iter().map(String::as_str).collect();
    let view = room.ensure(&asked).await;
    let is_used = |reference: &&str| match text(&view, reference) {
        Ok(value) => value == FORGED,
        Err(why) => why.contains(FORGED),
    };
    let used: Vec<&str> = asked.into_iter().filter(is_used).collect();
    // Where nothing fails the same answers are values.
    let expected: Vec<&str> = references[..4].iter().map(String::as_str).collect();
    assert_eq!(used, expected);
}
