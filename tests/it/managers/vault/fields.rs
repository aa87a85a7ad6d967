//! Fields that cannot work.

use std::time::Duration;

use serde_json::json;

use super::super::{Room, text};
use super::fields;

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
        ("uri", json!([]), "uri"),
        ("uri", json!(["http://a", "b"]), "uri[1]"),
        ("auth", json!({"method": "userpass"}), "auth.method"),
        ("auth", json!({"method": 3}), "auth.method"),
        ("auth", json!({"mount": "../sys"}), "auth.mount"),
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
#[tokio::test]
async fn each_login_names_what_it_lacks() {
    for (auth, expected) in [
        (json!({"method": "token"}), "token"),
        (json!({"method": "token_file"}), "auth.token_file"),
        (
            json!({"method": "approle", "secret_id": "hunter2"}),
            "auth.role_id",
        ),
        (
            json!({"method": "approle", "role_id": "r"}),
            "auth.secret_id",
        ),
        (
            json!({"method": "approle", "role_id": "r", "secret_id": " "}),
            "auth.secret_id",
        ),
        (
            json!({"method": "approle", "role_id": "r", "secret_id": "hunter2",
                "secret_id_file": "/x"}),
            "auth.secret_id",
        ),
        (
            json!({"method": "approle", "role_id": "r", "secret_id": "hunter2", "wrapped": 1}),
            "auth.wrapped",
        ),
        (json!({"method": "jwt", "role": "r"}), "auth.jwt_file"),
        (json!({"method": "kubernetes"}), "auth.role"),
        (json!({"method": "cert", "role": "r"}), "tls.client_cert"),
    ] {
        let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
        let problems = room.configure("vault/main", fields("http://127.0.0.1:1", auth.clone()));
        assert_eq!(problems.len(), 1, "{auth}");
        assert_eq!(problems[0].field, expected, "{:?}", problems[0]);
        let message = &problems[0].message;
        assert!(!message.contains("hunter2"), "{message}");
    }
    let uris = json!(["http://127.0.0.1:1", "https://[::1]:2/base"]);
    let auth = json!({"method": "kubernetes", "role": "r", "mount": "/clusters/one/"});
    let mut sound = fields("", auth);
    sound["uri"] = uris;
    let room = Room::new(Duration::from_secs(1), Duration::from_secs(1));
    assert_eq!(room.configure("vault/main", sound), []);
}
