//! `check --resolve` and `explain`: what they say of references, and that they say no value.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::harness::OpenBao;
use crate::harness::gateway::claviger;

fn write(dir: &Path, resources: &str) {
    fs::write(
        dir.join("config.yaml"),
        "deployment: { role: data_plane, role_data_plane: { config_provider: yaml } }\n",
    )
    .unwrap();
    fs::write(dir.join("apisix.yaml"), resources).unwrap();
}

fn run(dir: &Path, command: &[&str]) -> (Option<i32>, String) {
    let (config, resources) = (dir.join("config.yaml"), dir.join("apisix.yaml"));
    let files = [
        "--config",
        config.to_str().unwrap(),
        "--resources",
        resources.to_str().unwrap(),
    ];
    let Output {
        status,
        stdout,
        stderr,
    } = claviger(&[command, &files].concat());
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("value-of-"), "a value was said: {said}");
    (status.code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn check_asks_managers_when_told_to_and_explain_says_who_uses_what() {
    let bao = OpenBao::start().await;
    let dir = tempfile::tempdir().unwrap();
    bao.put_v2("edge/alice", json!({"key": "value-of-alice"}))
        .await;
    write(
        dir.path(),
        &format!(
            "secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}' }}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://vault/main/alice/key }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: $secret://vault/main/alice/other }} }} }}
  - {{ username: carol, plugins: {{ key-auth: {{ key: $secret://vault/main/absent/key }} }} }}
  - {{ username: dave, plugins: {{ key-auth: {{ key: $secret://vault/other/alice/key }} }} }}
#END
",
            bao.addr, bao.token
        ),
    );
    let (code, said) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(0), "{said}");

    let (code, said) = run(dir.path(), &["check", "--resolve"]);
    assert_eq!(code, Some(1), "{said}");
    for (line, object, why) in [
        (5, "consumers/bob", "field not found"),
        (6, "consumers/carol", "document not found"),
        (7, "consumers/dave", "no secret conf"),
    ] {
        let found = said.lines().any(|text| {
            text.contains(&format!("apisix.yaml:{line}:"))
                && text.contains(&format!("{object} plugins.key-auth.key"))
                && text.contains(why)
        });
        assert!(found, "{object} must be told: {said}");
    }
    assert!(!said.contains("consumers/alice"), "{said}");

    bao.put_v2(
        "edge/alice",
        json!({"key": "value-of-alice", "other": "value-of-bob"}),
    )
    .await;
    let reference = "$secret://vault/main/alice/key";
    let (code, said) = run(dir.path(), &["explain", reference]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        reference,
        "manager vault/main",
        "path alice",
        "version 2",
        "Fresh",
        "used by consumers/alice",
    ] {
        assert!(said.contains(part), "{part} must be told: {said}");
    }
    assert!(
        !said.contains("consumers/bob"),
        "only what was asked: {said}"
    );
    let (_, said) = run(dir.path(), &["explain", "consumers/carol"]);
    assert!(said.contains("Refused: document not found"), "{said}");

    let good = fs::read_to_string(dir.path().join("apisix.yaml")).unwrap();
    let good: Vec<_> = good
        .lines()
        .filter(|line| !line.contains("carol") && !line.contains("dave"))
        .collect();
    write(dir.path(), &good.join("\n"));
    let (code, said) = run(dir.path(), &["check", "--resolve"]);
    assert_eq!(code, Some(0), "{said}");
}
