//! `check --resolve` and `explain`: what they say of references, how they name the step that
//! failed, that a token which may not read values is enough, and that they say no value.

use std::fs;
use std::path::Path;
use std::process::Output;

use claviger::tls::dev::Authority;
use serde_json::{Value, json};

use crate::harness::gateway::program;
use crate::harness::{OpenBao, certs, ports};

fn write(dir: &Path, resources: &str) {
    fs::write(
        dir.join("config.yaml"),
        "deployment: { role: data_plane, role_data_plane: { config_provider: yaml } }\n",
    )
    .unwrap();
    fs::write(dir.join("apisix.yaml"), resources).unwrap();
}

fn run(dir: &Path, command: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = std::process::Command::new(program())
        .args(command)
        .args(["--config", "config.yaml", "--resources", "apisix.yaml"])
        .env("CLAVIGER_TEST_SET", "value-of-env")
        .env("CLAVIGER_TEST_JSON", r#"{"key": "value-of-json"}"#)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("value-of-"), "a value was said: {said}");
    (status.code(), said)
}

fn consumer(name: &str, reference: &str) -> String {
    format!("  - {{ username: {name}, plugins: {{ key-auth: {{ key: '{reference}' }} }} }}\n")
}

/// A token that may see which fields documents have, and read none.
const SUBKEYS: &str = r#"
path "secret/subkeys/edge/*" { capabilities = ["read"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_failure_names_its_place_and_its_step() {
    let bao = OpenBao::start_tls().await;
    let dir = tempfile::tempdir().unwrap();
    let document = json!({"key": "value-of-alice", "none": null, "object": {"x": "value-of-x"}});
    bao.put_v2("edge/alice", document).await;
    bao.put_v2("edge/gone", json!({"key": "value-of-gone"}))
        .await;
    bao.delete_v2("edge/gone").await;
    let token = bao.token_with("subkeys", SUBKEYS).await;
    fs::copy(bao.ca(), dir.path().join("ca.pem")).unwrap();
    let manager = |name: &str, uri: &str, prefix: &str, token: &str, tls: &str| {
        format!(
            "  - {{ id: vault/{name}, uri: '{uri}', prefix: {prefix}, kv_version: 2, \
             token: '{token}', timeout: 3, tls: {{ {tls} }} }}\n"
        )
    };
    let ca = format!("ca: '{}'", dir.path().join("ca.pem").display());
    let port = bao.addr.rsplit(':').next().unwrap();
    let refused = format!("https://127.0.0.1:{}", ports::free());
    let mut resources = "secrets:\n".to_owned();
    for (name, uri, prefix, token, tls) in [
        ("main", &*bao.addr, "secret/edge", &*token, &*ca),
        (
            "dns",
            "https://no-such-host.invalid",
            "secret/edge",
            &token,
            &ca,
        ),
        ("tcp", &refused, "secret/edge", &token, &ca),
        ("tls", &bao.addr, "secret/edge", &token, ""),
        (
            "name",
            &format!("https://127.0.0.2:{port}"),
            "secret/edge",
            &token,
            &ca,
        ),
        ("login", &bao.addr, "secret/edge", "no-such-token", &ca),
        ("policy", &bao.addr, "secret/other", &token, &ca),
    ] {
        resources.push_str(&manager(name, uri, prefix, token, tls));
    }
    resources.push_str("consumers:\n");
    let cases = [
        ("alice", "$secret://vault/main/alice/key", ""),
        ("envy", "$env://CLAVIGER_TEST_SET", ""),
        ("json", "$env://CLAVIGER_TEST_JSON/key", ""),
        ("dns", "$secret://vault/dns/alice/key", "dns: "),
        ("tcp", "$secret://vault/tcp/alice/key", "tcp: "),
        ("tls", "$secret://vault/tls/alice/key", "tls: "),
        ("login", "$secret://vault/login/alice/key", "login: "),
        ("policy", "$secret://vault/policy/alice/key", "policy: "),
        (
            "absent",
            "$secret://vault/main/absent/key",
            "path: document not found",
        ),
        (
            "gone",
            "$secret://vault/main/gone/key",
            "path: document version is deleted",
        ),
        (
            "field",
            "$secret://vault/main/alice/other",
            "field: field not found",
        ),
        (
            "shape",
            "$secret://vault/main/alice/object",
            "shape: value is an object",
        ),
        (
            "unset",
            "$env://CLAVIGER_TEST_UNSET",
            "path: environment variable is not set",
        ),
        (
            "member",
            "$env://CLAVIGER_TEST_JSON/other",
            "field: field not found",
        ),
        (
            "text",
            "$env://CLAVIGER_TEST_SET/key",
            "shape: decode failed",
        ),
    ];
    for (name, reference, _) in cases {
        resources.push_str(&consumer(name, reference));
    }
    write(dir.path(), &format!("{resources}#END\n"));

    let (code, said) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(0), "without --resolve nobody is asked: {said}");
    let (code, said) = run(dir.path(), &["check", "--resolve"]);
    assert_eq!(code, Some(1), "{said}");
    let first = resources
        .lines()
        .position(|line| line.contains("alice,"))
        .unwrap()
        + 1;
    for (index, (name, reference, why)) in cases.into_iter().enumerate() {
        let place = format!("apisix.yaml:{}:", first + index);
        let line = said.lines().find(|line| line.starts_with(&place));
        if why.is_empty() {
            assert_eq!(line, None, "{name} resolves");
            continue;
        }
        let line = line.unwrap_or_else(|| panic!("{name} must be told: {said}"));
        let expected =
            format!("consumers/{name} plugins.key-auth.key: reference {reference}: {why}");
        assert!(line.contains(&expected), "{expected} in {line}");
    }
    let wrong = cases.iter().filter(|case| !case.2.is_empty()).count();
    assert!(said.contains(&format!("{wrong} error(s)")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn explain_shows_the_graph_of_references() {
    let bao = OpenBao::start().await;
    let dir = tempfile::tempdir().unwrap();
    bao.put_v2("edge/alice", json!({"key": "value-of-alice"}))
        .await;
    bao.put_v2(
        "edge/alice",
        json!({"key": "value-of-alice-2", "ca": "value-of-ca"}),
    )
    .await;
    let token = bao.token_with("subkeys", SUBKEYS).await;
    // The token itself stands in the environment.
    write(
        dir.path(),
        &format!(
            "secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, kv_version: 2, token: '{token}', namespace: $env://CLAVIGER_TEST_UNSET_NS }}
  - {{ id: vault/good, uri: '{}', prefix: secret/edge, kv_version: 2, token: '{token}' }}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://vault/good/alice/key }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: $secret://vault/good/absent/key }} }} }}
  - {{ username: carol, plugins: {{ key-auth: {{ key: $secret://vault/main/alice/key }} }} }}
plugin_configs:
  - {{ id: unused, plugins: {{ response-rewrite: {{ headers: {{ set: {{ X-A: $secret://vault/good/alice/key }} }} }} }} }}
ssls:
  - {{ id: site, sni: a.test, cert: $secret://vault/good/alice/ca, key: $secret://vault/good/alice/key }}
#END
",
            bao.addr, bao.addr
        ),
    );
    let reference = "$secret://vault/good/alice/key";
    let (code, said) = run(dir.path(), &["explain", reference]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        reference,
        "manager vault/good, path alice, field key, version 2: present",
        "used by consumers/alice plugins.key-auth.key (without it: 401, as for an unknown credential)",
        "used by ssls/site key (without it: the handshake for these names is refused)",
        "used by plugin_configs/unused plugins.response-rewrite.headers.set.X-A (not in use; without it: 503 from the plugin)",
        "secrets/vault/good: 3 references into 2 documents, used by 4 objects",
    ] {
        assert!(said.contains(part), "{part} must be told: {said}");
    }
    assert!(
        !said.contains("consumers/carol"),
        "only what was asked: {said}"
    );

    let (code, said) = run(dir.path(), &["explain", "consumers/bob"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("refused: path: document not found"), "{said}");
    let (code, said) = run(dir.path(), &["explain", "secrets/vault/main"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("its field namespace is $env://CLAVIGER_TEST_UNSET_NS"),
        "{said}"
    );
    assert!(said.contains("is refused: "), "{said}");
    assert!(
        said.contains("used by 1 object (consumers/carol)"),
        "{said}"
    );
    let (code, _) = run(dir.path(), &["explain", "consumers/nobody"]);
    assert_eq!(code, Some(1));

    let (code, said) = run(dir.path(), &["explain", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let json: Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!(json["objects"]["consumers"], 3, "{said}");
    let find = |list: &str, key: &str, name: &str| {
        let all = json[list].as_array().unwrap();
        all.iter().find(|one| one[key] == name).cloned().unwrap()
    };
    let alice = find("references", "reference", reference);
    assert_eq!(
        (&alice["state"], &alice["version"]),
        (&json!("present"), &json!("2"))
    );
    assert_eq!(alice["users"].as_array().unwrap().len(), 3);
    let bob = find("references", "reference", "$secret://vault/good/absent/key");
    assert_eq!(
        (&bob["state"], &bob["step"]),
        (&json!("refused"), &json!("path"))
    );
    let good = find("managers", "id", "vault/good");
    assert_eq!(
        (&good["references"], &good["problem"]),
        (&json!(3), &Value::Null)
    );
    assert!(find("managers", "id", "vault/main")["problem"].is_string());
}

#[test]
fn a_manager_that_is_used_and_not_declared_is_told_once_with_its_users() {
    let dir = tempfile::tempdir().unwrap();
    let mut resources = "consumers:\n".to_owned();
    for n in 0..12 {
        resources.push_str(&consumer(&format!("c{n}"), "$secret://vault/main/a/key"));
    }
    resources.push_str(
        "secrets:\n  - { id: vault/other, uri: 'http://127.0.0.1:1', prefix: a, \
         token: $secret://vault/main/a/token }\n#END\n",
    );
    write(dir.path(), &resources);
    let (code, said) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(1), "{said}");
    let told: Vec<_> = said
        .lines()
        .filter(|line| line.contains("manager-in-use"))
        .collect();
    assert_eq!(told.len(), 1, "{said}");
    for part in [
        "secrets/vault/main",
        "13 objects",
        "consumers/c0",
        "is not declared",
    ] {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
    // And each place besides.
    assert_eq!(said.matches("missing-manager").count(), 12, "{said}");
}

/// A token that may read documents, but for those under `hidden`, of which it may see the fields.
const READS: &str = r#"
path "secret/data/edge/*" { capabilities = ["read"] }
path "secret/subkeys/edge/*" { capabilities = ["read"] }
path "secret/data/edge/hidden" { capabilities = ["deny"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn values_that_cannot_be_used_are_told_by_the_rules_words() {
    let bao = OpenBao::start().await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let [issued, other] = [(); 2].map(|()| certs::server(&authority, &["a.test", "b.test"]));
    let pem = json!({
        "cert": issued.cert_pem,
        "key": certs::key_text(&issued),
        "other": certs::key_text(&other),
    });
    bao.put_v2("edge/tls", pem).await;
    bao.put_v2(
        "edge/app",
        json!({"key": "value-of-app", "net": "10.0.0.0/8"}),
    )
    .await;
    bao.put_v2("edge/hidden", json!({"key": "value-of-hidden"}))
        .await;
    let token = bao.token_with("reads", READS).await;
    let plugin =
        |id: &str, plugins: &str| format!("  - {{ id: {id}, plugins: {{ {plugins} }} }}\n");
    let at = "$secret://vault/main";
    let resources = format!(
        "secrets:\n  - {{ id: vault/main, uri: '{}', prefix: secret/edge, kv_version: 2, token: '{token}' }}\n\
         consumers:\n{}{}{}{}ssls:\n\
         \x20 - {{ id: fits, sni: a.test, cert: {at}/tls/cert, key: {at}/tls/key }}\n\
         \x20 - {{ id: pair, sni: b.test, cert: {at}/tls/cert, key: {at}/tls/other }}\n\
         \x20 - {{ id: text, sni: c.test, cert: {at}/app/key, key: {at}/tls/key }}\n\
         plugin_configs:\n{}{}{}#END\n",
        bao.addr,
        consumer("alice", &format!("{at}/app/key")),
        consumer("hidden", &format!("{at}/hidden/key")),
        consumer("gone", &format!("{at}/gone/key")),
        consumer("field", &format!("{at}/app/other")),
        plugin(
            "net",
            &format!("ip-restriction: {{ whitelist: ['{at}/app/net'] }}")
        ),
        plugin(
            "no-net",
            &format!("ip-restriction: {{ whitelist: ['{at}/app/key'] }}")
        ),
        plugin(
            "env-net",
            "ip-restriction: { whitelist: [$env://CLAVIGER_TEST_SET] }"
        ),
    );
    write(dir.path(), &resources);

    let (code, said) = run(dir.path(), &["check", "--resolve"]);
    assert_eq!(code, Some(1), "{said}");
    for misfit in ["ssls/pair", "ssls/text", "plugin_configs/no-net"] {
        assert!(!said.contains(misfit), "{misfit} is not looked at: {said}");
    }
    let (code, said) = run(dir.path(), &["check", "--values"]);
    assert_eq!(code, Some(1), "{said}");
    let told = [
        ("ssls/pair", "does not belong"),
        ("ssls/text", "expected PEM of 128 to 65536 characters"),
        ("plugin_configs/no-net", "ip-restriction"),
        ("plugin_configs/env-net", "ip-restriction"),
        ("consumers/gone", "path: document not found"),
        ("consumers/field", "field: field not found"),
        (
            "consumers/hidden",
            "is there, and cannot be read: forbidden by the manager",
        ),
    ];
    for (object, why) in told {
        let line = said.lines().find(|line| line.contains(object));
        let line = line.unwrap_or_else(|| panic!("{object} must be told: {said}"));
        assert!(
            line.contains("apisix.yaml:") && line.contains(why),
            "{line}"
        );
    }
    assert!(
        said.contains(&format!("{} error(s), 0 warning(s)", told.len())),
        "and nothing else: {said}"
    );
    let keys = [&issued, &other].map(certs::key_text);
    let secret_lines = keys.iter().flat_map(|pem| pem.lines());
    for line in secret_lines.filter(|line| !line.starts_with("-----")) {
        assert!(!said.contains(line), "a key was said");
    }
}
