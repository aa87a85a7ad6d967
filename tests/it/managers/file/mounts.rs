//! Files that hold one value each, as Kubernetes and Docker mount secrets.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use claviger::secrets::View;
use serde_json::json;

use super::super::{Room, text};

const LONG: Duration = Duration::from_secs(600);

/// A secret volume as the kubelet writes it: every file is a link through `..data`, which is
/// turned to a new folder by one rename.
struct Mount {
    home: tempfile::TempDir,
    generation: usize,
}

impl Mount {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("mount");
        fs::create_dir(&root).unwrap();
        // Kubernetes' own mode of a mounted secret.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).unwrap();
        let mut mount = Self {
            home,
            generation: 0,
        };
        mount.swap();
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), root.join(name)).unwrap();
        }
        mount
    }

    fn root(&self) -> std::path::PathBuf {
        self.home.path().join("mount")
    }

    /// One update, in the kubelet's order (`pkg/volume/util/atomic_writer.go`).
    fn swap(&mut self) {
        let root = self.root();
        let folder = |generation: usize| format!("..2026_11_22_05_00_00.{generation:09}");
        self.generation += 1;
        let new = folder(self.generation);
        fs::create_dir(root.join(&new)).unwrap();
        for name in ["tls.crt", "tls.key"] {
            let value = format!("{name} {}", self.generation);
            fs::write(root.join(&new).join(name), value).unwrap();
        }
        symlink(&new, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        let old = root.join(folder(self.generation - 1));
        if old.exists() {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

const CERT: &str = "$secret://file/main/tls.crt";
const KEY: &str = "$secret://file/main/tls.key";

/// The generation both halves come from.
fn generation(view: &View) -> usize {
    let of = |reference| {
        let value = text(view, reference).expect("a swap leaves no moment without a value");
        let (_, generation) = value.rsplit_once(' ').unwrap();
        generation.parse::<usize>().unwrap()
    };
    let (cert, key) = (of(CERT), of(KEY));
    assert_eq!(cert, key, "both come from one side of a swap");
    cert
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubernetes_mount_is_followed_swap_by_swap_and_never_half() {
    let mut mount = Mount::new();
    let room = Room::new(LONG, LONG);
    assert_eq!(
        room.configure("file/main", json!({"path": mount.root()})),
        []
    );
    let view = room.ensure(&[CERT, KEY]).await;
    assert_eq!(generation(&view), 1);
    // The watch starts with the loop's next turn: until a swap is seen, swap again.
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut seen = 1;
    while seen < 6 {
        mount.swap();
        let patience = Instant::now() + Duration::from_secs(1);
        while Instant::now() < patience && generation(&room.secrets.view()) < mount.generation {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let now = generation(&room.secrets.view());
        seen += usize::from(now == mount.generation);
        assert!(
            Instant::now() < deadline,
            "swaps must be seen before the ttl"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_in_quick_succession_are_never_mixed() {
    let mut mount = Mount::new();
    // Read all the time, so that reads and swaps meet.
    let room = Room::new(Duration::from_millis(100), LONG);
    assert_eq!(
        room.configure("file/main", json!({"path": mount.root()})),
        []
    );
    generation(&room.ensure(&[CERT, KEY]).await);
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        mount.swap();
        generation(&room.secrets.view());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let last = format!("tls.crt {}", mount.generation);
    room.until(CERT, Ok(&last)).await;
    assert_eq!(generation(&room.secrets.view()), mount.generation);
}

#[tokio::test]
async fn a_value_is_a_file_of_any_bytes_any_name_and_up_to_a_mebibyte() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    let binary: Vec<u8> = (0..=255).collect();
    let large = "x".repeat(1024 * 1024);
    for (name, value) in [
        ("binary", &binary[..]),
        ("large", large.as_bytes()),
        ("sp ace/100%/ключ 🔑", "пароль".as_bytes()),
        ("newlines", b"a\n\n"),
        ("dos", b"a\r\n"),
        ("blank", b"\n"),
        ("looks-like.json", br#"{"k": "field"}"#),
        ("b64", b"Zm9v\n"),
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }
    let room = Room::new(LONG, LONG);
    assert_eq!(room.configure("file/main", json!({"path": root})), []);
    let at = |rest: &str| format!("$secret://file/main/{rest}");
    let references: Vec<_> = [
        "binary",
        "large",
        "sp ace/100%/ключ 🔑",
        "newlines",
        "dos",
        "blank",
        "looks-like.json",
        "looks-like.json/k",
        "looks-like/k",
        "b64?decode=base64",
        "absent",
    ]
    .map(at)
    .into();
    let view = room
        .ensure(&references.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let value = |rest: &str| {
        let resolved = view.resolve(&at(rest));
        resolved.map(|resolved| resolved.open().to_vec())
    };
    assert_eq!(value("binary").unwrap(), binary);
    assert!(value("large").unwrap() == large.as_bytes());
    assert_eq!(value("sp ace/100%/ключ 🔑").unwrap(), "пароль".as_bytes());
    assert_eq!(value("newlines").unwrap(), b"a\n");
    assert_eq!(value("dos").unwrap(), b"a");
    assert_eq!(value("looks-like.json").unwrap(), br#"{"k": "field"}"#);
    assert_eq!(value("looks-like.json/k").unwrap(), b"field");
    assert_eq!(value("looks-like/k").unwrap(), b"field");
    assert_eq!(value("b64?decode=base64").unwrap(), b"foo");
    assert_eq!(value("blank").unwrap_err().to_string(), "value is empty");
    assert_eq!(value("absent").unwrap_err().to_string(), "field not found");
}

#[tokio::test]
async fn a_file_deleted_is_an_answer_and_a_folder_gone_is_none() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("secrets");
    fs::create_dir(&root).unwrap();
    let write = |path: &Path, value: &str| {
        let aside = path.with_extension("new");
        fs::write(&aside, value).unwrap();
        fs::rename(aside, path).unwrap();
    };
    write(&root.join("a"), "one");
    write(&root.join("b"), "beside");
    let room = Room::new(Duration::from_millis(300), Duration::from_millis(300));
    assert_eq!(room.configure("file/main", json!({"path": root})), []);
    let (a, b) = ("$secret://file/main/a", "$secret://file/main/b");
    room.ensure(&[a, b]).await;
    fs::remove_file(root.join("a")).unwrap();
    room.until(a, Err("field not found")).await;
    assert_eq!(text(&room.secrets.view(), b), Ok("beside".to_owned()));
    write(&root.join("a"), "again");
    room.until(a, Ok("again")).await;

    fs::rename(&root, home.path().join("gone")).unwrap();
    let stale = claviger::secrets::ReferenceState::Stale;
    let deadline = Instant::now() + Duration::from_secs(15);
    while room.state(a) != stale {
        assert!(Instant::now() < deadline, "the value must be called stale");
        assert_eq!(text(&room.secrets.view(), a), Ok("again".to_owned()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(text(&room.secrets.view(), a), Ok("again".to_owned()));
    fs::rename(home.path().join("gone"), &root).unwrap();
    write(&root.join("a"), "back");
    room.until(a, Ok("back")).await;
}
