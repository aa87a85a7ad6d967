//! What `file` does not read: what others may write, what lies outside, what is no file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::super::{Room, text};
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const LONG: Duration = Duration::from_secs(600);

struct Home {
    home: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("secrets")).unwrap();
        Self { home }
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("secrets")
    }

    fn write(&self, path: &str, value: impl AsRef<[u8]>, mode: u32) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, value).unwrap();
        set_mode(&path, mode);
    }

    async fn expect(&self, expected: &[(&str, Result<&str, &str>)]) {
        let room = Room::new(LONG, LONG);
        assert_eq!(
            room.configure("file/main", json!({"path": self.root()})),
            []
        );
        let at = |rest: &str| format!("$secret://file/main/{rest}");
        let references: Vec<_> = expected.iter().map(|(rest, _)| at(rest)).collect();
        let references: Vec<_> = references.iter().map(String::as_str).collect();
        let view = room.ensure(&references).await;
        for (reference, (_, expected)) in references.iter().zip(expected) {
            let found = text(&view, reference);
            assert_eq!(
                found.as_deref().map_err(String::as_str),
                *expected,
                "{reference}"
            );
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_others_may_write_is_refused() {
    let home = Home::new();
    home.write("open", "x", 0o666);
    home.write("doc.json", r#"{"k":"x"}"#, 0o646);
    home.write("shared/k", "x", 0o600);
    set_mode(&home.root().join("shared"), 0o777);
    home.write("shared/inner/k", "x", 0o600);
    home.write("sticky/k", "sticky", 0o600);
    set_mode(&home.root().join("sticky"), 0o1777);
    home.write("group", "group", 0o660);
    home.write("bad.json", "{", 0o600);
    home.write("fine", "x", 0o600);
    // Who may turn a link chooses the value, wherever the link leads.
    symlink("../fine", home.root().join("shared/link")).unwrap();
    home.expect(&[
        ("open", Err("others may write the file")),
        ("doc/k", Err("not trusted: others may write the file")),
        ("shared/k", Err("others may write the folder")),
        ("shared/inner/k", Err("others may write the folder")),
        ("shared/link", Err("others may write the folder")),
        ("sticky/k", Ok("sticky")),
        ("group", Ok("group")),
        ("bad/k", Err("answer not understood: not a JSON object")),
        ("fine", Ok("x")),
        (
            "fine?version=1",
            Err("error format: files have no versions"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_refused() {
    if !rustix::process::getuid().is_root() {
        // Only root can give files away; the rule for the folder's own owner is what is left.
        let home = Home::new();
        home.write("own", "own", 0o600);
        return home.expect(&[("own", Ok("own"))]).await;
    }
    const OWNER: u32 = 12345;
    const OTHER: u32 = 54321;
    let home = Home::new();
    home.write("root", "root", 0o644);
    home.write("owner", "owner", 0o644);
    home.write("other", "other", 0o644);
    home.write("theirs/k", "x", 0o644);
    symlink("root", home.root().join("link")).unwrap();
    for (path, user) in [
        ("", OWNER),
        ("owner", OWNER),
        ("other", OTHER),
        ("theirs", OTHER),
    ] {
        chown(home.root().join(path), Some(user), None).unwrap();
    }
    std::os::unix::fs::lchown(home.root().join("link"), Some(OTHER), None).unwrap();
    home.expect(&[
        ("root", Ok("root")),
        ("owner", Ok("owner")),
        ("other", Err("it is somebody else's")),
        ("theirs/k", Err("it is somebody else's")),
        ("link", Err("it is somebody else's")),
    ])
    .await;
}

#[tokio::test]
async fn links_are_followed_inside_the_folder_only() {
    let home = Home::new();
    let root = home.root();
    fs::write(home.home.path().join("outside"), "x").unwrap();
    fs::create_dir(home.home.path().join("secrets2")).unwrap();
    fs::write(home.home.path().join("secrets2/k"), "x").unwrap();
    home.write("a/b/value", "inside", 0o600);
    for (target, link) in [
        ("../outside", "link"),
        ("../secrets2", "prefix"),
        ("..", "up"),
        ("/etc", "absolute"),
        ("a/../../outside", "around"),
        ("loop", "loop"),
        ("a/b/value", "one"),
        ("one", "two"),
        ("b/../b/value", "a/dotted"),
        ("absent", "dangling"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    symlink(root.join("a/b/value"), root.join("own")).unwrap();
    let outside = Err("link leads out of the folder");
    home.expect(&[
        ("link", outside),
        ("prefix/k", outside),
        ("up/outside", outside),
        ("absolute/hostname", outside),
        ("around", outside),
        ("loop", Err("too many links")),
        ("one", Ok("inside")),
        ("two", Ok("inside")),
        ("a/dotted", Ok("inside")),
        ("own", Ok("inside")),
        ("dangling", Err("field not found")),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_file_or_too_large_is_refused_without_waiting() {
    let home = Home::new();
    let root = home.root();
    let pipe = std::ffi::CString::new(root.join("pipe").to_str().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    fs::File::create(root.join("huge"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    set_mode(&root.join("huge"), 0o600);
    fs::File::create(root.join("huge.json"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    home.write("fine", "fine", 0o600);
    home.expect(&[
        ("pipe", Err("not a regular file")),
        ("socket", Err("not a regular file")),
        ("folder", Err("field not found")),
        ("huge", Err("file is too large")),
        ("huge/k", Err("document is larger than 2097152 bytes")),
        ("fine", Ok("fine")),
    ])
    .await;
}

#[tokio::test]
async fn a_folder_that_others_may_replace_is_refused() {
    let home = Home::new();
    home.write("fine", "fine", 0o600);
    set_mode(home.home.path(), 0o777);
    home.expect(&[("fine", Err("not trusted: others may write a folder above"))])
        .await;
    set_mode(home.home.path(), 0o1777);
    home.expect(&[("fine", Ok("fine"))]).await;
    set_mode(home.home.path(), 0o700);
}

#[test]
fn a_file_we_may_not_read_refuses_alone() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/alice", "alice-1")
        .file("secrets/closed", "closed-1");
    set_mode(&builder.dir().join("secrets/closed"), 0o000);
    let resources = format!(
        r#"
secrets:
  - {{ id: file/main, path: {}/secrets, ttl: 1, neg_ttl: 1 }}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://file/main/alice }} }} }}
  - {{ username: closed, plugins: {{ key-auth: {{ key: $secret://file/main/closed }} }} }}
routes:
  - {{ id: a, uri: /*, plugins: {{ key-auth: {{}} }}, upstream: {{ type: roundrobin, nodes: {{ '{}': 1 }} }} }}
"#,
        builder.dir().display(),
        upstream.addr
    );
    let gateway = builder
        .resources(resources)
        .unprivileged()
        .unready()
        .start();
    let status = |key: &str| gateway.get("a", "/", &[("apikey", key)]).status;
    wait_until("the readable key opens", || status("alice-1") == 200);
    assert_eq!(status("closed-1"), 401);
    let log = gateway.log();
    assert!(log.contains("we may not read the file"), "{log}");
    set_mode(&gateway.dir().join("secrets/closed"), 0o400);
    wait_until("it opens once it may be read", || status("closed-1") == 200);
}
