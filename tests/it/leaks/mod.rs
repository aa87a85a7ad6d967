//! A marker in every secret, and a search for it in everything the program says.

mod broken;
mod full_run;
mod managers;
mod process;
mod scanner;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use claviger::tls::dev::Authority;
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

const COMMANDS: &[&[&str]] = &[
    &["check"],
    &["check", "--resolve"],
    &["explain"],
    &["explain", "--json"],
];
