//! `file` against a real folder.

mod mounts;
mod trust;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Backend, Fault, Room, conformance, text};

struct Folder {
    home: tempfile::TempDir,
    extension: &'static str,
}

impl Folder {
    fn new(extension: &'static str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("secrets")).unwrap();
        Self { home, extension }
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("secrets")
    }
}

impl Backend for Folder {
    fn id(&self) -> &'static str {
        "file/main"
    }

    fn fields(&self) -> Value {
        json!({"path": self.root()})
    }

    async fn put(&self, path: &str, fields: Value) {
        let path = self.root().join(format!("{path}.{}", self.extension));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // JSON is YAML too. Written aside and renamed, as tools that rotate secrets do.
        let aside = path.with_extension("tmp");
        std::fs::write(&aside, fields.to_string()).unwrap();
        std::fs::rename(aside, path).unwrap();
    }

    async fn delete(&self, path: &str) {
        std::fs::remove_file(self.root().join(format!("{path}.{}", self.extension))).unwrap();
    }

    async fn put_binary(&self, path: &str, bytes: &[u8]) -> String {
        std::fs::write(self.root().join(path), bytes).unwrap();
        path.to_owned()
    }

    async fn begin(&self, fault: Fault, path: &str) -> bool {
        let bytes: &[u8] = match fault {
            Fault::Garbage => b"\x16\x03\x01\0",
            Fault::Truncated => br#"{"k": "kep"#,
            Fault::WrongContent => b"[1, 2]",
            _ => return false,
        };
        let path = self.root().join(format!("{path}.{}", self.extension));
        std::fs::write(path, bytes).unwrap();
        true
    }

    async fn end(&self, path: &str, fields: Value) {
        self.put(path, fields).await;
    }

    async fn go_down(&mut self) {
        std::fs::rename(self.root(), self.home.path().join("gone")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_documents_conform() {
    conformance(Folder::new("json")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yaml_documents_conform() {
    conformance(Folder::new("yaml")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_references_are_one_read_per_document_and_one_change_is_cheap() {
    let folder = Folder::new("json");
    for document in 0..1000 {
        let fields =
            (0..100).map(|field| (format!("f{field}"), json!(format!("{document}-{field}"))));
        folder
            .put(&format!("d{document}"), Value::Object(fields.collect()))
            .await;
    }
    let room = Room::new(Duration::from_secs(600), Duration::from_secs(60));
    assert_eq!(room.configure("file/main", folder.fields()), []);
    let references: Vec<String> = (0..100_000)
        .map(|number| format!("$secret://file/main/d{}/f{}", number / 100, number % 100))
        .collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let started = Instant::now();
    let older = room.ensure(&references).await;
    let took = started.elapsed();
    assert_eq!(
        text(&older, "$secret://file/main/d999/f99"),
        Ok("999-99".to_owned())
    );
    assert!(took < Duration::from_secs(10), "{took:?} even unoptimised");
    assert_eq!(room.secrets.manager_report()[0].fresh, 100_000);

    // A second load of the same references reads nothing.
    let started = Instant::now();
    let same = room.ensure(&references).await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert!(same.changed_since(&older).is_empty());

    tokio::time::sleep(Duration::from_secs(1)).await;
    folder.put("d7", json!({"f1": "new"})).await;
    room.until("$secret://file/main/d7/f1", Ok("new")).await;
    let started = Instant::now();
    let changed = room.secrets.view().changed_since(&older);
    assert_eq!(changed, ["$secret://file/main/d7/f1".into()]);
    assert!(
        started.elapsed() < Duration::from_millis(100),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_managers_own_clocks_go_before_the_rooms_and_an_old_value_is_refused() {
    let mut folder = Folder::new("json");
    folder.put("a", json!({"k": "v"})).await;
    let room = Room::new(Duration::from_secs(600), Duration::from_secs(60));
    let mut fields = folder.fields();
    fields["ttl"] = json!(0.2);
    fields["neg_ttl"] = json!(0.2);
    fields["max_stale"] = json!(1);
    assert_eq!(room.configure("file/main", fields), []);
    let reference = "$secret://file/main/a/k";
    let view = room.ensure(&[reference]).await;
    let version = view.resolve(reference).unwrap().version;
    folder.go_down().await;
    let reason = "older than max_stale: manager unreachable: folder: entity not found";
    room.until(reference, Err(reason)).await;
    assert!(
        view.resolve(reference).is_ok(),
        "an older view keeps what it saw"
    );

    std::fs::rename(folder.home.path().join("gone"), folder.root()).unwrap();
    room.until(reference, Ok("v")).await;
    let view = room.secrets.view();
    assert_eq!(view.resolve(reference).unwrap().version, version);
}
