//! What secrets cost their manager, as the manager counts it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Room, text};
use crate::harness::audit::AuditedBao;
use crate::harness::{Behaviour, Gateway, Relay, Relaying, Upstream};

const DOCUMENTS: usize = 100;
const FIELDS: usize = 100;

/// How often each document was read, as the audit device says, and how many other reads there were.
fn reads(bao: &AuditedBao) -> (BTreeMap<String, usize>, usize) {
    let (mut documents, mut others) = (BTreeMap::new(), 0);
    for path in bao.reads() {
        match path.strip_prefix("secret/data/edge/") {
            Some(name) => *documents.entry(name.to_owned()).or_default() += 1,
            None => others += 1,
        }
    }
    (documents, others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_references_into_a_hundred_documents_cost_a_hundred_reads_per_ttl() {
    let bao = AuditedBao::start().await;
    let fields = (0..FIELDS).map(|field| (format!("f{field}"), json!(format!("v{field}"))));
    let fields = Value::Object(fields.collect());
    for document in 0..DOCUMENTS {
        bao.put(&format!("edge/d{document}"), fields.clone()).await;
    }
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let ttl = Duration::from_secs(2);
    let room = Room::new(ttl, Duration::from_secs(60));
    let manager = json!({
        "uri": relay.uri(), "prefix": "secret/edge", "token": AuditedBao::TOKEN, "kv_version": 2,
    });
    assert_eq!(room.configure("vault/main", manager), []);
    let references: Vec<String> = (0..DOCUMENTS * FIELDS)
        .map(|number| {
            format!(
                "$secret://vault/main/d{}/f{}",
                number / FIELDS,
                number % FIELDS
            )
        })
        .collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let view = room.ensure(&references).await;
    for reference in &references {
        assert!(view.resolve(reference).is_ok(), "{reference}");
    }
    let last = references[references.len() - 1];
    assert_eq!(text(&view, last), Ok("v99".to_owned()));
    let (documents, others) = reads(&bao);
    assert_eq!(documents.len(), DOCUMENTS);
    assert!(documents.values().all(|count| *count == 1), "{documents:?}");
    assert!(others <= 2, "{others} reads of something else");
    assert_eq!(relay.count(), DOCUMENTS + others, "requests of any kind");

    // A load of the same references costs nothing.
    room.ensure(&references).await;
    assert_eq!(reads(&bao).0.values().sum::<usize>(), DOCUMENTS);

    // One read of each per ttl: the second round is over before any document has its third.
    for round in 2..=3 {
        let deadline = Instant::now() + 5 * ttl;
        let documents = loop {
            let (documents, _) = reads(&bao);
            if documents.values().sum::<usize>() >= round * DOCUMENTS {
                break documents;
            }
            assert!(Instant::now() < deadline, "a round must take one ttl");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let even = documents.values().all(|count| *count == round);
        assert!(even, "round {round}: {documents:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thousand_requests_cost_the_manager_nothing() {
    let bao = AuditedBao::start().await;
    bao.put("edge/alice", json!({"key": "alice-key"})).await;
    bao.put("edge/header", json!({"value": "from-bao"})).await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .resources(format!(
            r#"
secrets:
  - {{ id: vault/main, uri: '{}', prefix: secret/edge, token: '{}', ttl: 3600, neg_ttl: 3600 }}
consumers:
  - username: alice
    plugins: {{ key-auth: {{ key: $secret://vault/main/alice/key }} }}
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins:
      key-auth: {{}}
      proxy-rewrite: {{ headers: {{ set: {{ x-secret: $secret://vault/main/header/value }} }} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
            relay.uri(),
            AuditedBao::TOKEN,
            upstream.addr
        ))
        .start();
    let (documents, _) = reads(&bao);
    assert_eq!(documents.values().sum::<usize>(), 2, "{documents:?}");
    let (asked, calls) = (bao.reads().len(), relay.count());
    for number in 0..1000 {
        let (key, expected) = match number % 2 {
            0 => ("alice-key", 200),
            _ => ("nobody's", 401),
        };
        let reply = gateway.get("guarded.test", "/", &[("apikey", key)]);
        assert_eq!(reply.status, expected);
    }
    assert_eq!(relay.count(), calls, "no request may ask the manager");
    assert_eq!(bao.reads().len(), asked);
}
