//! The audit log of the real program, and `claviger audit verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::gateway::{Builder, Running};
use crate::harness::{Gateway, OpenBao, wait_until};

fn builder(audit: &str) -> Builder {
    Gateway::builder().bootstrap(&format!("claviger: {{ audit: {audit} }}"))
}

fn path(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("audit.log")
}

fn resources(bao: &OpenBao, token: &str, consumers: &[(&str, &str)]) -> String {
    let mut text = format!(
        "secrets:\n  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{token}', \
         ttl: 1, neg_ttl: 1 }}\nconsumers:\n",
        bao.addr
    );
    for (name, path) in consumers {
        text.push_str(&format!(
            "  - {{ username: {name}, plugins: {{ key-auth: {{ key: $secret://vault/main/{path}/key }} }} }}\n"
        ));
    }
    text
}

/// The lines, each the JSON it is.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.lines().map(serde_json::from_str);
    whole.filter_map(Result::ok).collect()
}

fn has(path: &Path, event: &str, fields: &[(&str, &str)]) -> bool {
    lines(path).iter().any(|line| {
        let fits = |(name, expected): &(&str, &str)| {
            line[*name]
                .as_str()
                .is_some_and(|text| text.contains(expected))
        };
        line["event"] == event && fields.iter().all(fits)
    })
}

/// Runs `claviger audit verify` with these arguments: exit code and output.
fn verify(gateway: &Gateway, arguments: &[&str]) -> (i32, String) {
    let mut command = gateway.command(&["audit", "verify"]);
    let done = command.args(arguments).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.code().expect("it ends by itself"), said)
}

/// One manager that is away must not fill the log, nor push out what else is to be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_references_without_value_are_some_lines_and_a_count() {
    let bao = OpenBao::start().await;
    let names: Vec<String> = (0..130).map(|n| format!("k{n}")).collect();
    let mut text = resources(&bao, &bao.token, &[]);
    for name in &names {
        text.push_str(&format!(
            "  - {{ username: {name}, plugins: {{ key-auth: {{ key: $secret://vault/main/many/{name} }} }} }}\n"
        ));
    }
    let gateway = builder("{ path: audit.log }")
        .resources(text)
        .unready()
        .start();
    let log = path(&gateway);
    let told = |event: &str| {
        let lines = lines(&log)
            .into_iter()
            .filter(|line| line["event"] == event);
        lines.collect::<Vec<_>>()
    };
    wait_until("all refusals are recorded", || {
        !told("refused_many").is_empty()
    });
    let many = told("refused_many");
    assert_eq!((told("refused").len(), many.len()), (50, 1), "{many:?}");
    assert_eq!(many[0]["count"], 80);
    assert_eq!(many[0]["why"], "document not found");
    let first = many[0]["first"].as_str().unwrap();
    assert_eq!(first.split(", ").count(), 10, "{first}");
    assert!(first.starts_with("$secret://vault/main/many/k"), "{first}");

    let document: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| (name.clone(), json!(format!("value-of-{name}"))))
        .collect();
    bao.put_v2("edge/many", Value::Object(document)).await;
    wait_until("that they have values is recorded", || {
        !told("adopted_many").is_empty()
    });
    assert_eq!(told("adopted").len(), 50);
    assert_eq!(told("adopted_many")[0]["count"], 80);
    let (code, said) = verify(&gateway, &[log.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_happens_to_secrets_is_recorded_without_a_value() {
    let bao = OpenBao::start().await;
    bao.put_v2("edge/alice", json!({"key": "value-of-alice-1"}))
        .await;
    let both = [("alice", "alice"), ("bob", "absent")];
    let mut gateway = builder("{ path: audit.log }")
        .resources(resources(&bao, &bao.token, &both))
        .unready()
        .start();
    let log = path(&gateway);
    let alice = ("reference", "$secret://vault/main/alice/key");
    let bob = ("reference", "$secret://vault/main/absent/key");
    wait_until("the start is recorded", || {
        has(&log, "started", &[])
            && has(&log, "manager_added", &[("manager", "vault/main")])
            && has(&log, "logged_in", &[("method", "token")])
            && has(
                &log,
                "in_use",
                &[("path", "alice"), ("manager_version", "1")],
            )
            && has(&log, "refused", &[bob, ("why", "document not found")])
            && has(&log, "configuration", &[("trigger", "source")])
    });
    bao.put_v2("edge/alice", json!({"key": "value-of-alice-2"}))
        .await;
    wait_until("a rotation is recorded", || {
        has(&log, "adopted", &[alice, ("manager_version", "2")])
            && has(&log, "configuration", &[("trigger", "secrets")])
    });
    bao.seal().await;
    wait_until("silence is recorded", || {
        has(&log, "manager_silent", &[("why", "sealed")])
    });
    gateway.write_resources(
        "secrets: [{ id: vault/new, uri: nonsense, prefix: a, token: value-of-token }]",
    );
    wait_until("other managers are recorded", || {
        has(&log, "manager_removed", &[("manager", "vault/main")])
            && has(
                &log,
                "manager_refused",
                &[("manager", "vault/new"), ("field", "uri")],
            )
    });
    gateway.write_resources("routes: {");
    wait_until("a rejection is recorded", || {
        has(&log, "configuration_rejected", &[])
    });
    let page = gateway.metrics_page();
    assert!(page.contains("claviger_audit_dropped_total 0\n"), "{page}");
    gateway.signal(Signal::TERM);
    gateway.wait_exit();
    assert!(has(&log, "stopped", &[]));
    let all = lines(&log);
    assert_eq!(all.last().unwrap()["event"], "stopped");
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        !text.contains("value-of-") && !text.contains(&bao.token),
        "{text}"
    );
    let (code, said) = verify(&gateway, &["audit.log"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("{} lines, 1 to {}", all.len(), all.len())),
        "{said}"
    );
    assert!(
        said.contains(all.last().unwrap()["hash"].as_str().unwrap()),
        "{said}"
    );
    assert!(said.contains("the chain holds"), "{said}");
}

#[test]
fn tampering_is_found_by_line() {
    let gateway = builder("{ path: audit.log }").resources("").start();
    let log = path(&gateway);
    for revision in 2..12 {
        gateway.write_resources(&format!(
            "routes: [{{ id: r{revision}, uri: /, upstream_id: u }}]"
        ));
        let line = revision + 1;
        wait_until("the configuration is recorded", || {
            lines(&log).len() >= line
        });
    }
    let (code, said) = verify(&gateway, &[]);
    assert_eq!(code, 0, "the file of the configuration is checked: {said}");
    let head = lines(&log).last().unwrap()["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let whole = fs::read_to_string(&log).unwrap();
    let copy = gateway.dir().join("copy.log");
    type Tamper = fn(&mut Vec<&str>);
    let cases: [(Tamper, &str); 5] = [
        (
            |lines| {
                lines.remove(4);
            },
            "copy.log:5: error: missing: line 5",
        ),
        (|lines| lines.swap(4, 5), "copy.log:5: error: out of order"),
        (
            |lines| lines.insert(4, lines[2]),
            "copy.log:5: error: inserted",
        ),
        (
            |lines| lines.insert(4, "{}"),
            "copy.log:5: error: no line of an audit log",
        ),
        (|lines| lines.truncate(6), "copy.log:6: error: cut off"),
    ];
    for (tamper, expected) in cases {
        let mut lines = whole.lines().collect();
        tamper(&mut lines);
        fs::write(&copy, lines.join("\n") + "\n").unwrap();
        let (code, said) = verify(&gateway, &["--head", &head, "copy.log"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(expected), "{expected} in {said}");
    }
    fs::write(&copy, whole.replacen("\"revision\":4", "\"revision\":5", 1)).unwrap();
    let (code, said) = verify(&gateway, &["copy.log"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(": error: changed: the line does not fit its own hash"),
        "{said}"
    );
    let (code, said) = verify(&gateway, &["absent.log"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("absent.log cannot be read"), "{said}");
}

#[test]
fn the_chain_goes_on_after_a_kill() {
    let mut gateway = builder("{ path: audit.log }").resources("").start();
    let log = path(&gateway);
    wait_until("the start is recorded", || has(&log, "configuration", &[]));
    gateway.signal(Signal::KILL);
    gateway.wait_exit();
    let before = lines(&log).len();
    // A line that was being written when the power went.
    let mut torn = fs::read_to_string(&log).unwrap();
    torn.push_str("{\"time\":\"2026-01-01T00:00:0");
    fs::write(&log, torn).unwrap();
    let (code, said) = verify(&gateway, &["audit.log"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the end is no whole line"), "{said}");

    let resources = gateway.dir().join("apisix.yaml");
    let mut command = gateway.command(&["run"]);
    command.arg("--resources").arg(resources);
    let _second = Running::start(command.stderr(Stdio::null()));
    wait_until("the next start is recorded", || {
        let events = lines(&log);
        events
            .iter()
            .filter(|line| line["event"] == "started")
            .count()
            == 2
    });
    let after = &lines(&log)[before];
    assert_eq!(after["event"], "torn");
    assert_eq!(after["seq"], before + 1);
    let (code, said) = verify(&gateway, &["audit.log"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("bytes torn by a crash"), "{said}");
}

#[test]
fn a_rotated_log_is_one_chain_with_the_old_one() {
    let gateway = builder("{ path: audit.log }").resources("").start();
    let (log, old) = (path(&gateway), gateway.dir().join("audit.log.1"));
    wait_until("the start is recorded", || has(&log, "configuration", &[]));
    fs::rename(&log, &old).unwrap();
    gateway.signal(Signal::USR1);
    wait_until("a new file is there", || log.exists());
    gateway.write_resources("routes: [{ id: r, uri: /, upstream_id: u }]");
    wait_until("the new file is written", || {
        has(&log, "configuration", &[])
    });
    let (last, first) = (lines(&old).pop().unwrap(), lines(&log).remove(0));
    assert_eq!(
        first["prev"], last["hash"],
        "the new file names the end of the old one"
    );
    let (code, said) = verify(&gateway, &["audit.log.1", "audit.log"]);
    assert_eq!(code, 0, "{said}");
    // Alone it says what it goes on from; in the wrong order it does not hold.
    let (code, said) = verify(&gateway, &["audit.log"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(last["hash"].as_str().unwrap()), "{said}");
    let (code, said) = verify(&gateway, &["audit.log", "audit.log.1"]);
    assert_eq!(code, 1, "{said}");
}

#[test]
fn a_key_out_of_a_reference_seals_the_lines() {
    let gateway = builder("{ path: audit.log, key: $env://AUDIT_KEY }")
        .env("AUDIT_KEY", "a key of sixteen bytes or more")
        .resources("")
        .start();
    let log = path(&gateway);
    wait_until("the start is recorded", || has(&log, "configuration", &[]));
    assert!(lines(&log)[0]["hmac"].is_string());
    let verify = |key: &str| {
        let mut command = gateway.command(&["audit", "verify", "audit.log"]);
        let done = command.env("AUDIT_KEY", key).output().unwrap();
        done.status.code().expect("it ends by itself")
    };
    assert_eq!(verify("a key of sixteen bytes or more"), 0);
    assert_eq!(verify("another key of sixteen bytes"), 1);
    assert_eq!(verify("short"), 2);
    // A key in the file itself would be no secret.
    let mut literal = builder("{ path: audit.log, key: a key of sixteen bytes }").spawn();
    assert_eq!(literal.wait_exit().code(), Some(2));
    assert!(
        literal.log().contains("claviger.audit.key"),
        "{}",
        literal.log()
    );
    assert!(!literal.log().contains("sixteen"), "{}", literal.log());
    // Without its value the start is refused: unsealed lines would be worth less than they seem.
    let mut unset = builder("{ path: audit.log, key: $env://AUDIT_KEY_UNSET }").spawn();
    assert_eq!(unset.wait_exit().code(), Some(2));
    assert!(
        unset.log().contains("environment variable is not set"),
        "{}",
        unset.log()
    );
}

#[test]
fn without_a_path_there_is_no_log() {
    let gateway = Gateway::start("");
    let page = gateway.metrics_page();
    assert!(!page.contains("claviger_audit_"), "{page}");
    let (code, said) = verify(&gateway, &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("claviger.audit.path"), "{said}");
}
