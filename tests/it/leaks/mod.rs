//! A marker in every secret, and a search for it in everything the program says.

mod broken;
mod full_run;
mod managers;
mod process;
mod scanner;
mod web_identity;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use claviger::tls::dev::Authority;
use scanner::Scanner;
use serde_json::json;

use crate::harness::gateway::program;
use crate::harness::{
    Behaviour, Connection, Gateway, OpenBao, Relay, Relaying, Upstream, certs, client, wait_until,
};

/// Stands inside every secret.
const MARK: &str = "mArKeR7zQ4";

/// A secret with the marker in it.
fn marked(name: &str) -> String {
    format!("{name}-{MARK}")
}

/// Runs a command on the gateway's configuration and returns all it says.
fn said(gateway: &Gateway, resources: &str, command: &[&str], env: &[(&str, &str)]) -> Vec<u8> {
    let output = Command::new(program())
        .args(command)
        .args(["--config", "config.yaml", "--resources", resources])
        .envs(env.iter().copied())
        .current_dir(gateway.dir())
        .output()
        .unwrap();
    assert!(!output.stdout.is_empty() || !output.stderr.is_empty());
    [output.stdout, output.stderr].concat()
}

/// The audit log a gateway of these tests keeps, without a key.
const AUDIT: &str = "claviger: { audit: { path: audit.log } }";

/// What `claviger audit verify` says of the gateway's own log, once the last line stands in it.
fn audit_verdict(gateway: &Gateway, env: &[(&str, &str)]) -> Vec<u8> {
    let mut said = Vec::new();
    wait_until("the chain of the audit log holds", || {
        let mut command = gateway.command(&["audit", "verify"]);
        let done = command.envs(env.iter().copied()).output().unwrap();
        said = [done.stdout, done.stderr].concat();
        done.status.success()
    });
    said
}

/// Searches what a running gateway shows: its status pages, its metrics, its audit log, which
/// must hold one of these events at least.
fn assert_quiet(gateway: &Gateway, scanner: &Scanner, event: &str) {
    for path in STATUS_PAGES {
        let reply = client::get(gateway.status(), path, &[("Host", "status")]);
        assert!(!reply.text().is_empty(), "{path} says nothing");
        scanner.assert_clean(path, format!("{reply:?}"));
    }
    scanner.assert_clean("the metrics page", gateway.metrics_page());
    let event = format!("\"event\":\"{event}\"");
    let audit = || fs::read_to_string(gateway.dir().join("audit.log")).unwrap_or_default();
    wait_until("the audit log tells it", || audit().contains(&event));
    scanner.assert_clean("the audit log", audit());
}

const STATUS_PAGES: &[&str] = &["/status", "/status/ready", "/status/secrets", "/unknown"];
const COMMANDS: &[&[&str]] = &[
    &["check"],
    &["check", "--resolve"],
    &["explain"],
    &["explain", "--json"],
];
