//! sslyze against the default configuration: what it finds stands in docs/tls-audit.md with its
//! reason, and nothing else. `make audit` asks testssl, too.

use super::*;
use crate::harness::tool;

/// What `scripts/audit.py` says to what sslyze found, and whether all of it is explained.
fn audit(gateway: &Gateway, name: &str) -> (String, bool) {
    let file = |name: &str| gateway.dir().join(name).to_str().unwrap().to_owned();
    let mut judge = Command::new(tool("python3"));
    judge.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/audit.py"));
    judge.args(["default", "--sslyze", &file("sslyze.json")]);
    for configuration in ["intermediate", "modern"] {
        let scan = Command::new(tool("sslyze"))
            .args(["--sni", name, "--certinfo_ca_file", &file("ca.pem")])
            .args(["--resum", "--early_data", "--http_headers"])
            .args(["--mozilla_config", configuration])
            .args(["--json_out", &file("sslyze.json")])
            .arg(gateway.https().to_string())
            .output()
            .expect("sslyze is installed (scripts/setup.sh)");
        let told = file(&format!("{configuration}.txt"));
        std::fs::write(&told, scan.stdout).unwrap();
        judge.arg("--mozilla");
        judge.arg(format!("{configuration}={told}"));
    }
    let verdict = judge.output().unwrap();
    let said = [verdict.stdout, verdict.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (said, verdict.status.success())
}

/// A gateway of `a.test`, with this laid over its bootstrap.
fn gateway(bootstrap: &str) -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let year = LeafOptions {
        ends_in_secs: 365 * 24 * 3600,
        ..LeafOptions::default()
    };
    let issued = authority.issue(&["a.test"], &year).unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .bootstrap(bootstrap)
        .file("ca.pem", authority.cert_pem().unwrap())
        .resources(resources(&upstream, &[item("a", &["a.test"], &issued, "")]))
        .start();
    (upstream, gateway)
}

#[test]
fn every_finding_about_the_default_configuration_is_explained() {
    let (_upstream, gateway) = gateway("{}");
    let (said, explained) = audit(&gateway, "a.test");
    assert!(explained, "{said}");
}

#[test]
fn a_weaker_configuration_is_found_out() {
    let weak = "apisix: { ssl: { ssl_protocols: TLSv1.1 TLSv1.2 TLSv1.3, \
        ssl_ciphers: 'ALL:@SECLEVEL=0' } }";
    let (_upstream, gateway) = gateway(weak);
    let (said, explained) = audit(&gateway, "a.test");
    assert!(!explained, "{said}");
    for finding in [
        "UNEXPLAINED: sslyze tls_1_1_cipher_suites.accepted: ",
        "UNEXPLAINED: mozilla intermediate.tls_versions: ",
        "UNEXPLAINED: mozilla intermediate.ciphers: ",
    ] {
        assert!(said.contains(finding), "{finding}\n{said}");
    }
}
