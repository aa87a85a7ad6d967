//! Sources on a real file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Documents;
use crate::diagnostic::Place;

const ROUTE: &str = "routes:\n- {id: 1, uri: /a, service_id: 1}\n#END\n";
const OTHER: &str = "routes:\n- {id: 2, uri: /b, service_id: 1}\n#END\n";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).expect("can be written");
}

fn source(path: &Path) -> Source {
    Source::new(
        path,
        SourceOptions {
            max_bytes: 1 << 20,
            env: Arc::new(|_| None),
            ..SourceOptions::default()
        },
    )
}

fn ids(documents: &Documents) -> Vec<String> {
    documents
        .routes
        .iter()
        .map(|route| route.id.to_string())
        .collect()
}

fn load(source: &mut Source) -> Vec<String> {
    ids(&source.load().expect("is accepted"))
}

#[test]
fn a_folder_is_one_document_in_name_order() {
    let dir = folder();
    write(
        &dir.path().join("20.yml"),
        "routes: [{uri: /x, service_id: 1}, {id: 1, uri: /z, service_id: 1}]",
    );
    write(&dir.path().join("10.yaml"), ROUTE);
    write(
        &dir.path().join("30.json"),
        r#"{"routes": [{"id": 3, "uri": "/j", "service_id": 1}]}"#,
    );
    write(&dir.path().join("notes.txt"), "not ours: [");
    write(&dir.path().join(".hidden.yaml"), "not ours: [");
    let documents = source(dir.path()).load().expect("is accepted");
    assert_eq!(
        ids(&documents),
        ["1", "arr_2", "3"],
        "positions count across files"
    );
    assert_eq!(
        documents.routes[0].value.uris,
        ["/z"],
        "the later file's item is taken"
    );
    assert_eq!(documents.diagnostics.len(), 1);
    let file = documents.routes[1].place.file.clone().expect("is known");
    assert!(file.ends_with("20.yml"), "each item names its own file");
}

#[test]
fn places_are_found_on_disk_while_the_content_is_the_same() {
    let dir = folder();
    let path = dir.path().join("a.yaml");
    write(&path, ROUTE);
    let documents = source(&path).load().expect("is accepted");
    let item = documents.routes[0].place.clone();
    assert_eq!(documents.places.locate(&item, "service_id").column, 20);
    documents.places.release();
    write(&path, OTHER);
    assert_eq!(
        documents.places.locate(&item, "service_id"),
        item,
        "another content tells nothing"
    );
    let elsewhere = Place {
        file: Some("/no/such".into()),
        line: 1,
        column: 1,
    };
    assert_eq!(documents.places.locate(&elsewhere, "uri"), elsewhere);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let dir = folder();
    let path = dir.path().join("a.yaml");
    let mut source = source(&path);
    let mut refusal = || {
        source
            .load()
            .expect_err("is refused")
            .diagnostic
            .to_string()
    };
    assert!(refusal().contains("error[unreadable]: cannot be read: "));
    write(&path, "routes: [");
    assert!(refusal().contains("a.yaml:2:1: error[syntax]: "));
    write(&path, b"a: \xff");
    assert!(refusal().contains("a.yaml:1:4: error[syntax]: expected UTF-8"));
    write(&path, vec![b' '; (1 << 20) + 1]);
    assert!(refusal().contains("a.yaml: error[too-large]: resources are larger than claviger.max_resource_bytes (1048576 bytes)"));
    write(&path, ROUTE);
    assert_eq!(load(&mut source), ["1"], "a good file heals it");
}

#[test]
fn a_file_of_200_mb_is_refused_unread() {
    let dir = folder();
    let path = dir.path().join("a.yaml");
    let file = fs::File::create(&path).expect("can be made");
    file.set_len(200 << 20).expect("sparse files are supported");
    let mut source = Source::new(&path, SourceOptions::default());
    let begin = std::time::Instant::now();
    let refusal = source.load().expect_err("is refused").diagnostic;
    assert_eq!(refusal.code, "too-large");
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "it is not read whole"
    );
}

#[test]
fn a_folder_larger_than_the_limit_is_refused() {
    let dir = folder();
    for name in ["a.yaml", "b.yaml"] {
        write(
            &dir.path().join(name),
            format!("{ROUTE}{}", "#\n".repeat(300_000)),
        );
    }
    assert_eq!(
        source(dir.path())
            .load()
            .expect_err("is refused")
            .diagnostic
            .code,
        "too-large"
    );
}

#[test]
fn unchanged_files_are_not_parsed_again() {
    let dir = folder();
    write(&dir.path().join("a.yaml"), ROUTE);
    write(&dir.path().join("b.yaml"), OTHER);
    let mut source = source(dir.path());
    let first = source.load().expect("is accepted");
    write(&dir.path().join("b.yaml"), "routes: []");
    let second = source.load().expect("is accepted");
    assert!(
        Arc::ptr_eq(&first.routes[0].value, &second.routes[0].value),
        "the declaration is shared"
    );
    assert_eq!(ids(&second), ["1"]);
}

/// Waits for a change with a deadline far above what it takes.
async fn changed(watcher: &mut Watcher) {
    tokio::time::timeout(Duration::from_secs(20), watcher.changed())
        .await
        .expect("the change is seen");
}

#[tokio::test]
async fn changes_of_every_manner_are_seen() {
    let dir = folder();
    let path = dir.path().join("a.yaml");
    write(&path, ROUTE);
    let mut watcher = Watcher::start(&path);
    let mut source = source(&path);
    assert_eq!(load(&mut source), ["1"]);
    write(&path, OTHER);
    changed(&mut watcher).await;
    assert_eq!(load(&mut source), ["2"], "written in place");
    for text in [ROUTE, OTHER] {
        let temporary = dir.path().join("a.tmp");
        write(&temporary, text);
        fs::rename(&temporary, &path).expect("can be renamed");
        changed(&mut watcher).await;
        assert_eq!(
            load(&mut source),
            [if text == ROUTE { "1" } else { "2" }],
            "renamed over"
        );
    }
    write(&path, "routes: []\n");
    changed(&mut watcher).await;
    assert!(
        load(&mut source).is_empty(),
        "without an end marker, once it is still"
    );
    fs::remove_file(&path).expect("can be removed");
    changed(&mut watcher).await;
    source.load().expect_err("it is gone");
    write(&path, ROUTE);
    changed(&mut watcher).await;
    assert_eq!(load(&mut source), ["1"], "it came back");
}

#[tokio::test]
async fn a_kubernetes_swap_is_seen() {
    let dir = folder();
    let volume = dir.path();
    for (version, text) in [("..1", ROUTE), ("..2", OTHER)] {
        fs::create_dir(volume.join(version)).expect("can be made");
        write(&volume.join(version).join("a.yaml"), text);
    }
    symlink("..1", volume.join("..data")).expect("can be linked");
    symlink("..data/a.yaml", volume.join("a.yaml")).expect("can be linked");
    let path = volume.join("a.yaml");
    let mut watcher = Watcher::start(&path);
    let mut source = source(&path);
    assert_eq!(load(&mut source), ["1"]);
    symlink("..2", volume.join("..new")).expect("can be linked");
    fs::rename(volume.join("..new"), volume.join("..data")).expect("can be renamed");
    changed(&mut watcher).await;
    assert_eq!(load(&mut source), ["2"]);
}

#[tokio::test]
async fn a_change_before_the_first_wait_is_seen_and_reading_is_none() {
    let dir = folder();
    write(&dir.path().join("a.yaml"), ROUTE);
    let mut watcher = Watcher::start(dir.path());
    write(&dir.path().join("b.yaml"), OTHER);
    changed(&mut watcher).await;
    load(&mut source(dir.path()));
    let quiet = tokio::time::timeout(Duration::from_millis(1500), watcher.changed()).await;
    assert!(quiet.is_err(), "our own reading is no change");
}
