//! Many consumers: a rotation builds its users only, and no request asks a manager. Proportions,
//! not times: those are `make bench-secrets`'s; what each costs in memory is `tests/memory.rs`'s.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const CONSUMERS: usize = 20_000;
const PER_DOCUMENT: usize = 100;

fn key(n: usize, generation: usize) -> String {
    format!("key-of-{n}-in-generation-{generation}")
}

fn document(document: usize, generation: usize) -> String {
    let first = document * PER_DOCUMENT;
    let fields = (0..PER_DOCUMENT).map(|k| {
        let value = Value::from(key(first + k, generation));
        (format!("k{k}"), value)
    });
    Value::Object(fields.collect::<Map<_, _>>()).to_string()
}

/// A gateway of so many consumers, whose keys stand in documents of the file manager.
fn gateway(consumers: usize, upstream: &Upstream) -> Gateway {
    let mut builder = Gateway::builder();
    let secrets = builder.dir().join("secrets");
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: '{}', ttl: 600 }}\n\
         routes:\n  - {{ id: 1, uri: /*, plugins: {{ key-auth: {{}} }}, \
         upstream: {{ nodes: {{ '{}': 1 }} }} }}\nconsumers:\n",
        secrets.display(),
        upstream.addr
    );
    for n in 0..consumers.div_ceil(PER_DOCUMENT) {
        builder = builder.file(&format!("secrets/d{n}.json"), document(n, 0));
    }
    for n in 0..consumers {
        let reference = format!(
            "$secret://file/main/d{}/k{}",
            n / PER_DOCUMENT,
            n % PER_DOCUMENT
        );
        let _ = writeln!(
            yaml,
            "  - {{ username: c{n}, plugins: {{ key-auth: {{ key: {reference} }} }} }}"
        );
    }
    builder.resources(yaml).start()
}

/// Calls to the manager so far, as the metrics tell.
fn fetches(gateway: &Gateway) -> String {
    let page = gateway.metrics_page();
    let mut lines = page.lines();
    let line = lines.find(|line| line.starts_with("claviger_secret_fetches_total{"));
    line.expect("fetches are counted").to_owned()
}

fn status_with(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("h", "/", &[("apikey", key)]).status
}

#[test]
fn among_many_consumers_a_rotation_builds_only_its_users() {
    let upstream = Upstream::start(Behaviour::ok());
    let many = gateway(CONSUMERS, &upstream);
    let read = fetches(&many);
    for n in (0..CONSUMERS).step_by(CONSUMERS / 100) {
        assert_eq!(status_with(&many, &key(n, 0)), 200, "consumer {n}");
        assert_eq!(status_with(&many, &key(n, 1)), 401, "consumer {n}");
    }
    assert_eq!(fetches(&many), read, "no request asks a manager");

    many.write_file("secrets/d77.json", document(77, 1));
    let (first, last) = (77 * PER_DOCUMENT, 78 * PER_DOCUMENT - 1);
    wait_until("the rotated keys are in force", || {
        status_with(&many, &key(first, 1)) == 200
    });
    for n in [first, last] {
        assert_eq!(status_with(&many, &key(n, 0)), 401, "old key of {n}");
        assert_eq!(status_with(&many, &key(n, 1)), 200, "new key of {n}");
    }
    assert_eq!(status_with(&many, &key(first - 1, 0)), 200, "a neighbour");
    let built = format!("trigger=Secrets consumers_built={PER_DOCUMENT} ");
    wait_until("the log says what was built", || {
        many.log().contains(&built)
    });
}
