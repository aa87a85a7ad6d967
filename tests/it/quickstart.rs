//! `claviger quickstart`: what it writes must be what `check` accepts.

use crate::harness::gateway::claviger;

#[test]
fn what_quickstart_writes_passes_check() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("try");
    let written = claviger(&["quickstart", folder.to_str().unwrap()]);
    assert!(written.status.success(), "{written:?}");
    let said = String::from_utf8(written.stdout).unwrap();
    let key = std::fs::read_to_string(folder.join("secrets/alice.key")).unwrap();
    assert!(said.contains("curl") && !said.contains(&key), "{said}");
    let config = folder.join("config.yaml");
    let resources = folder.join("apisix.yaml");
    let checked = claviger(&[
        "check",
        "--config",
        config.to_str().unwrap(),
        "--resources",
        resources.to_str().unwrap(),
        "--resolve",
    ]);
    assert!(checked.status.success(), "{checked:?}");
}
