//! Which fields `gcp` accepts.

use std::sync::Arc;

use claviger::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::super::Told;

#[test]
fn fields_that_cannot_work_are_refused_by_name() {
    let told = Arc::new(Told::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let build = |fields: Value| super::build(fields, &told, &clock);
    let rsa = |bits| {
        let key = openssl::rsa::Rsa::generate(bits).unwrap();
        String::from_utf8(key.private_key_to_pem().unwrap()).unwrap()
    };
    let (good, short) = (rsa(2048), rsa(1024));
    let account = json!({"client_email": "a@b", "private_key": good, "project_id": "p"});
    let with = |name: &str, value: Value| {
        let mut account = account.clone();
        account[name] = value;
        json!({ "auth_config": account })
    };
    assert!(build(json!({ "auth_config": account })).is_ok());
    assert!(build(with("scope", json!("one"))).is_ok());
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        json!({ "auth_file": path })
    };
    let fine = file("fine", &account.to_string());
    assert!(build(fine).is_ok());
    let open = file("open", &account.to_string());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(home.path().join("open"), mode).unwrap();
    let mut user = account.clone();
    user["type"] = json!("authorized_user");
    let mut both = json!({ "auth_config": account });
    both["auth_file"] = json!("/hunter2");

    for (fields, field, message) in [
        (both, "auth_file", "not both"),
        (
            json!({"auth_file": "/nowhere/hunter2"}),
            "auth_file",
            "cannot be read",
        ),
        (file("text", "hunter2"), "auth_file", "in JSON"),
        (file("empty", "{}"), "auth_file", "client_email"),
        (
            file("user", &user.to_string()),
            "auth_file",
            "type: expected service_account",
        ),
        (open, "auth_file", "others may write"),
        (
            with("client_email", json!(" ")),
            "auth_config.client_email",
            "empty",
        ),
        (
            with("client_email", json!(["hunter2"])),
            "auth_config.client_email",
            "string",
        ),
        (
            with("project_id", json!("../hunter2")),
            "auth_config.project_id",
            "project",
        ),
        (
            with("project_id", json!(null)),
            "auth_config.project_id",
            "string",
        ),
        (
            with("private_key", json!("hunter2")),
            "auth_config.private_key",
            "RSA",
        ),
        (
            with("private_key", json!(null)),
            "auth_config.private_key",
            "RSA",
        ),
        (
            with("private_key", json!(short)),
            "auth_config.private_key",
            "2048",
        ),
        (
            with("token_uri", json!("hunter2")),
            "auth_config.token_uri",
            "http",
        ),
        (
            with("entries_uri", json!("http://a:hunter2@b")),
            "auth_config.entries_uri",
            "http",
        ),
        (with("scope", json!(7)), "auth_config.scope", ""),
        (json!({"entries_uri": "ftp://x"}), "entries_uri", "http"),
        (json!({"project_id": ".."}), "project_id", "project"),
        (json!({"metadata_uri": "hunter2"}), "metadata_uri", "http"),
        (json!({"timeout": 0}), "timeout", "more than 0"),
        (json!({"tls": {"ca": "/nowhere/ca.pem"}}), "tls.ca", "PEM"),
        (
            json!({"tls": {"server_name": "a.b"}}),
            "tls.server_name",
            "none",
        ),
    ] {
        let error = build(fields.clone())
            .err()
            .unwrap_or_else(|| panic!("{fields}"));
        assert_eq!(error.field, field, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!error.to_string().contains("PRIVATE KEY"), "{error}");
    }
    let mut beside = json!({ "auth_config": account });
    beside["metadata_uri"] = json!("http://a");
    assert_eq!(build(beside).err().unwrap().field, "metadata_uri");
}
