//! The real program with `gcp`: logged in as the machine, a key rotated under it.

use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

use super::Cloud;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_consumer_is_rotated_in_google_secret_manager() {
    let cloud = Cloud::start().await;
    cloud
        .drongo
        .put("alice", br#"{"api":{"x":1},"api/key":"first"}"#)
        .await;
    let upstream = Upstream::start(Behaviour::ok());
    let resources = format!(
        r#"
secrets:
  - {{ id: gcp/main, entries_uri: "{}", ttl: 1, neg_ttl: 1 }}
consumers:
  - username: alice
    plugins: {{ key-auth: {{ key: $secret://gcp/main/alice/api/key }} }}
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins: {{ key-auth: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
        cloud.entries_uri(),
        upstream.addr
    );
    let host = cloud.google.uri();
    let gateway = Gateway::builder()
        .resources(resources)
        .env("GCE_METADATA_HOST", host.trim_start_matches("http://"))
        .start();
    let with = |key: &str| gateway.get("guarded.test", "/", &[("apikey", key)]).status;
    assert_eq!((with("first"), with("second")), (200, 401));
    assert_eq!(with("$secret://gcp/main/alice/api/key"), 401);

    cloud.drongo.put("alice", br#"{"api/key":"second"}"#).await;
    wait_until("the new key must be in force", || with("second") == 200);
    assert_eq!(with("first"), 401);

    // A token that Google ends serves nobody, and no request notices.
    cloud.google.revoke();
    cloud.drongo.put("alice", br#"{"api/key":"third"}"#).await;
    wait_until("the newest key must be in force", || with("third") == 200);
    assert_eq!(cloud.google.logins(), ["metadata", "metadata"]);
    let log = gateway.log();
    for secret in ["first", "second", "third", "ya29"] {
        assert!(!log.contains(secret), "{secret} must not be logged");
    }
}
