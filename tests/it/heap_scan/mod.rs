//! Searches the memory of a running gateway with 10 000 consumers for their credentials: after the
//! load, a reload and a rotation, no page holds one that no request has carried.

mod memory;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Map, Value};

use crate::harness::{Behaviour, Connection, Gateway, OpenBao, Upstream, wait_until};
use memory::{Hit, search, summary};

const CONSUMERS: usize = 10_000;
const PER_DOCUMENT: usize = 100;

/// Where a consumer's credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Literal,
    File,
    Bao,
    Environment,
}

impl Source {
    /// In blocks of documents, so that each of those has one source.
    fn of(n: usize) -> Self {
        match n / PER_DOCUMENT {
            0..40 => Self::Literal,
            40..70 => Self::File,
            70..98 => Self::Bao,
            _ => Self::Environment,
        }
    }
}

/// What stands in credentials: one mark where no request ever carries them, another where one does.
struct Marks {
    hidden: String,
    shown: String,
}

impl Marks {
    fn random() -> Self {
        let mark = || format!("mk{:016x}", rand::random::<u64>());
        Self {
            hidden: mark(),
            shown: mark(),
        }
    }

    /// The credential of a consumer. The mark stands in it twice, since an allocator writes over
    /// the start of what is freed.
    fn credential(&self, n: usize, generation: usize) -> String {
        let mark = if is_shown(n) {
            &self.shown
        } else {
            &self.hidden
        };
        format!("{n:05}-{generation}-{mark}-{n:05}-{mark}")
    }

    fn document(&self, document: usize, generation: usize) -> Value {
        let fields = (0..PER_DOCUMENT).map(|k| {
            let credential = self.credential(document * PER_DOCUMENT + k, generation);
            (format!("k{k}"), Value::from(credential))
        });
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

/// Some requests carry: two of each document's credentials, in every tenth document.
fn is_shown(n: usize) -> bool {
    n % (10 * PER_DOCUMENT) < 2
}

/// Half of them have keys, half have passwords.
fn is_key(n: usize) -> bool {
    n.is_multiple_of(2)
}

fn reference(n: usize) -> String {
    let (document, k) = (n / PER_DOCUMENT, n % PER_DOCUMENT);
    match Source::of(n) {
        Source::Literal => unreachable!("it stands in the file"),
        Source::File => format!("$secret://file/main/d{document}/k{k}"),
        Source::Bao => format!("$secret://vault/main/d{document}/k{k}"),
        Source::Environment => format!("$env://DOCUMENT_{document}/k{k}"),
    }
}

fn resources(marks: &Marks, generation: usize, bao: &OpenBao, upstream: &Upstream) -> String {
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: secrets, ttl: 600 }}\n  \
         - {{ id: vault/main, uri: '{}', prefix: secret, kv_version: 2, token: '{}', ttl: 600, \
         tls: {{ ca: bao-ca.pem }} }}\n\
         upstreams:\n  - {{ id: up, type: roundrobin, nodes: {{ '{}': 1 }} }}\n\
         routes:\n  - {{ id: keys, uri: /keys, plugins: {{ key-auth: {{}} }}, upstream_id: up }}\n  \
         - {{ id: passwords, uri: /passwords, plugins: {{ basic-auth: {{}} }}, upstream_id: up }}\n\
         consumers:\n",
        bao.addr, bao.token, upstream.addr
    );
    for n in 0..CONSUMERS {
        let value = match Source::of(n) {
            Source::Literal => marks.credential(n, generation),
            _ => reference(n),
        };
        let plugin = if is_key(n) {
            format!("key-auth: {{ key: {value} }}")
        } else {
            format!("basic-auth: {{ username: u{n}, password: {value} }}")
        };
        let _ = writeln!(yaml, "  - {{ username: c{n}, plugins: {{ {plugin} }} }}");
    }
    yaml
}

/// Path and header that present the credential.
fn presenting(n: usize, credential: &str) -> (&'static str, &'static str, String) {
    if is_key(n) {
        return ("/keys", "apikey", credential.to_owned());
    }
    let basic = STANDARD.encode(format!("u{n}:{credential}"));
    ("/passwords", "Authorization", format!("Basic {basic}"))
}

fn status(gateway: &Gateway, n: usize, credential: &str) -> u16 {
    let (path, header, value) = presenting(n, credential);
    gateway.get("h", path, &[(header, &value)]).status
}

/// Those whose credentials requests carry.
fn shown() -> impl Iterator<Item = usize> {
    (0..CONSUMERS).filter(|n| is_shown(*n))
}

fn assert_served(gateway: &Gateway, marks: &Marks, generation: impl Fn(Source) -> usize) {
    for n in shown() {
        let credential = marks.credential(n, generation(Source::of(n)));
        assert_eq!(status(gateway, n, &credential), 200, "consumer {n}");
    }
}

async fn put_documents(marks: &Marks, generation: usize, bao: &OpenBao) {
    for document in (0..CONSUMERS / PER_DOCUMENT)
        .filter(|document| Source::of(document * PER_DOCUMENT) == Source::Bao)
    {
        let path = format!("d{document}");
        bao.put_v2(&path, marks.document(document, generation))
            .await;
    }
}

fn files(marks: &Marks, generation: usize) -> impl Iterator<Item = (String, String)> + '_ {
    let documents = 0..CONSUMERS / PER_DOCUMENT;
    let documents =
        documents.filter(|document| Source::of(document * PER_DOCUMENT) == Source::File);
    documents.map(move |document| {
        let name = format!("secrets/d{document}.json");
        (name, marks.document(document, generation).to_string())
    })
}

/// No page holds the mark, once what is under way has ended.
fn assert_gone(gateway: &Gateway, what: &str, mark: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let hits = search(gateway.pid(), mark);
        if hits.is_empty() {
            return;
        }
        let told: Vec<_> = hits.iter().take(20).map(Hit::to_string).collect();
        assert!(
            std::time::Instant::now() < deadline,
            "{what}: {} places, {:?}, such as\n{}",
            hits.len(),
            summary(&hits),
            told.join("\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_stands_in_memory_that_no_request_has_carried() {
    let (bao, upstream) = (OpenBao::start_tls().await, Upstream::start(Behaviour::ok()));
    let marks = Marks::random();
    put_documents(&marks, 0, &bao).await;
    let mut builder = Gateway::builder()
        .file("bao-ca.pem", std::fs::read(bao.ca()).unwrap())
        .resources(resources(&marks, 0, &bao, &upstream));
    for (name, content) in files(&marks, 0) {
        builder = builder.file(&name, content);
    }
    for document in (0..CONSUMERS / PER_DOCUMENT)
        .filter(|document| Source::of(document * PER_DOCUMENT) == Source::Environment)
    {
        let value = marks.document(document, 0).to_string();
        builder = builder.env(&format!("DOCUMENT_{document}"), &value);
    }
    // Who is not root may read the memory of dumpable programs only.
    if !rustix::process::getuid().is_root() {
        builder = builder.bootstrap("claviger: { allow_core_dump: true }");
    }
    let gateway = builder.start();
    assert_served(&gateway, &marks, |_| 0);
    assert_eq!(status(&gateway, 0, "wrong"), 401);
    assert_gone(&gateway, "after the load", &marks.hidden);

    // A request that holds the snapshot of before: it is freed by a traffic thread.
    let (path, header, value) = presenting(0, &marks.credential(0, 0));
    let mut held = Connection::open(gateway.http());
    held.send(format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\n{header}: {value}\r\nContent-Length: 2\r\n\r\na"
    ));
    let generation = |source| usize::from(source != Source::Environment);
    for (name, content) in files(&marks, 1) {
        gateway.write_file(&name, content);
    }
    put_documents(&marks, 1, &bao).await;
    gateway.write_resources(&resources(&marks, 1, &bao, &upstream));
    // Reads every secret again.
    gateway.signal(Signal::HUP);
    for n in shown() {
        let credential = marks.credential(n, generation(Source::of(n)));
        wait_until("the rotated credential is in force", || {
            status(&gateway, n, &credential) == 200
        });
    }
    held.send("b");
    assert_eq!(held.expect_reply().status, 200);
    drop(held);
    assert_served(&gateway, &marks, generation);
    assert_gone(&gateway, "after the rotation", &marks.hidden);

    let carried = search(gateway.pid(), &marks.shown);
    eprintln!(
        "of credentials that requests carried, memory holds {:?}",
        summary(&carried)
    );
}

/// The control: what a plugin is meant to hold is found, in each form.
#[test]
fn the_search_finds_what_stands_in_memory() {
    let upstream = Upstream::start(Behaviour::ok());
    let (plain, encoded) = (Marks::random().hidden, Marks::random().hidden);
    let mut builder = Gateway::builder().resources(format!(
        "routes:\n  - {{ id: 1, uri: /*, plugins: {{ proxy-rewrite: {{ headers: {{ set: {{ \
         X-Plain: a-{plain}, X-Encoded: '{}' }} }} }} }}, \
         upstream: {{ type: roundrobin, nodes: {{ '{}': 1 }} }} }}\n",
        STANDARD.encode(format!("ab{encoded}")),
        upstream.addr
    ));
    if !rustix::process::getuid().is_root() {
        builder = builder.bootstrap("claviger: { allow_core_dump: true }");
    }
    let gateway = builder.start();
    assert_eq!(gateway.get("h", "/", &[]).status, 200);
    let forms = |mark: &str| summary(&search(gateway.pid(), mark));
    assert!(forms(&plain).contains_key("plain"));
    assert!(forms(&encoded).contains_key("base64"));
    assert!(forms(&Marks::random().hidden).is_empty());
}
