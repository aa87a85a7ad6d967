//! `claviger check`: what it says, with places, and how it ends. `tests/golden/check/<name>.yaml`
//! stands beside `<name>.expected`; `CLAVIGER_GOLDEN=rewrite` rewrites the latter: read the diff.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use claviger::tls::dev::Authority;

use crate::harness::certs;
use crate::harness::gateway::program;

/// A folder with files, and what `check` says about `apisix.yaml` in it.
struct Checked {
    dir: tempfile::TempDir,
}

impl Checked {
    fn with(resources: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.yaml"), "{}\n").unwrap();
        fs::write(dir.path().join("apisix.yaml"), resources).unwrap();
        Self { dir }
    }

    fn file(self, name: &str, content: &str) -> Self {
        fs::write(self.dir.path().join(name), content).unwrap();
        self
    }

    fn says(&self, arguments: &[&str]) -> (i32, String) {
        says(self.dir.path(), arguments)
    }
}

fn says(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(program());
    command.arg("check").args(arguments).current_dir(dir);
    if !arguments.contains(&"--config") {
        command.args(["--config", "config.yaml"]);
    }
    let done = command.stdin(Stdio::null()).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.code().expect("it ends by itself"),
        String::from_utf8(said).unwrap(),
    )
}

#[test]
fn golden_files_give_the_findings_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check");
    let home = Checked::with("#END\n");
    let config = home.dir.path().join("config.yaml");
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end != "expected"))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 8, "the golden files are there");
    let mut wrong = String::new();
    for input in inputs {
        let name = input.file_name().unwrap().to_str().unwrap();
        let arguments = ["--config", config.to_str().unwrap(), "--resources", name];
        let (code, said) = says(&folder, &arguments);
        assert!(
            !said.contains("MARK"),
            "{name}: a value was printed\n{said}"
        );
        let found = format!("{said}exit {code}\n");
        let expected = input.with_extension("expected");
        if std::env::var_os("CLAVIGER_GOLDEN").is_some() {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push_str(&format!("{name}:\n{found}\n"));
        }
    }
    assert!(wrong.is_empty(), "findings differ:\n{wrong}");
}

#[test]
fn a_file_of_200_mb_is_refused_unread() {
    let checked = Checked::with("");
    let file = fs::File::create(checked.dir.path().join("apisix.yaml")).unwrap();
    file.set_len(200 << 20).unwrap();
    let (code, said) = checked.says(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("error[too-large]"), "{said}");
}

#[test]
fn what_cannot_be_run_ends_with_2() {
    let checked = Checked::with("#END\n");
    let (code, said) = checked.says(&["--config", "missing.yaml"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("cannot read missing.yaml"), "{said}");
    let (code, said) = checked.says(&["--no-such-option"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn missing_resources_are_a_finding() {
    let checked = Checked::with("");
    fs::remove_file(checked.dir.path().join("apisix.yaml")).unwrap();
    let (code, said) = checked.says(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("apisix.yaml: error[unreadable]"), "{said}");
}

#[test]
fn both_files_are_told_about_at_once() {
    let bootstrap = "apisix:\n  node_listen: MARKER\n";
    let resources = "routes:\n  - {id: 1, uri: /, plugins: {}, nope: MARKER}\n#END\n";
    let checked = Checked::with(resources).file("config.yaml", bootstrap);
    let (code, said) = checked.says(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("config.yaml:2:16: error["), "{said}");
    assert!(!said.contains("MARKER"), "{said}");
    assert!(
        said.contains("apisix.yaml:2:34: error[unknown-field] routes/1 nope"),
        "{said}"
    );
}

#[test]
fn a_key_of_another_certificate_is_found() {
    let authority = Authority::new().unwrap();
    let (one, other) = (
        certs::server(&authority, &["a.test"]),
        certs::server(&authority, &["a.test"]),
    );
    let ended = certs::expired(&authority, &["b.test"]);
    let quoted = |pem: &str| serde_json::to_string(pem).unwrap();
    let item = |id: &str, cert: &str, key: &str| {
        format!(
            "  - {{id: {id}, sni: {id}.test, cert: {}, key: {}}}\n",
            quoted(cert),
            quoted(key)
        )
    };
    let resources = format!(
        "ssls:\n{}{}#END\n",
        item("a", &one.cert_pem, certs::key_text(&other)),
        item("b", &ended.cert_pem, certs::key_text(&ended)),
    );
    let (code, said) = Checked::with(resources).says(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("error[certificate] ssls/a key: the private key does not belong"),
        "{said}"
    );
    assert!(
        said.contains("apisix.yaml:3:26: error[certificate] ssls/b cert"),
        "{said}"
    );
    assert!(!said.contains("BEGIN"), "{said}");
}

#[test]
fn references_are_asked_for_only_when_told_to() {
    let resources = "consumers:\n  - username: alice\n    plugins:\n      key-auth:\n        \
                     key: $env://CLAVIGER_TEST_NOT_SET\n#END\n";
    let checked = Checked::with(resources);
    let (code, said) = checked.says(&[]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = checked.says(&["--resolve"]);
    assert_eq!(code, 1, "{said}");
    let finding =
        "apisix.yaml:5:9: error[unresolved-reference] consumers/alice plugins.key-auth.key";
    assert!(said.contains(finding), "{said}");
}

#[test]
fn a_profile_names_both_files_and_resources_may_be_json() {
    let checked = Checked::with("routes: 7\n#END\n")
        .file(
            "config-edge.yaml",
            "deployment: {role: data_plane, role_data_plane: {config_provider: json}}\n",
        )
        .file(
            "apisix-edge.json",
            r#"{"routes": [{"id": 1, "uri": "/", "plugins": {"nope": {}}}]}"#,
        );
    let done = Command::new(program())
        .args(["check", "--config", "config.yaml"])
        .env("APISIX_PROFILE", "edge")
        .current_dir(checked.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("apisix-edge.json:1:47: error[unknown-plugin] routes/1"),
        "{said}"
    );
}

#[test]
fn a_folder_is_one_document() {
    let checked = Checked::with("");
    let folder = checked.dir.path().join("parts");
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("10-routes.yaml"),
        "routes:\n  - {id: 1, uri: /, upstream_id: u}\n#END\n",
    )
    .unwrap();
    fs::write(
        folder.join("20-upstreams.yaml"),
        "upstreams:\n  - {id: u, nodes: {\"127.0.0.1:1\": 1}}\n#END\n",
    )
    .unwrap();
    let (code, said) = checked.says(&["--resources", "parts"]);
    assert_eq!((code, said.as_str()), (0, "0 error(s), 0 warning(s)\n"));
    fs::remove_file(folder.join("20-upstreams.yaml")).unwrap();
    let (code, said) = checked.says(&["--resources", "parts"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("parts/10-routes.yaml:2:21: error[missing-upstream]"),
        "{said}"
    );
}
