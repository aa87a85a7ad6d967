use super::{assert_local, get, start};

#[test]
fn labels_open_and_close() {
    let (upstream, gateway) = start(
        r#"
consumers:
  - { username: blue, labels: { team: blue }, plugins: { key-auth: { key: blue } } }
  - { username: list, labels: { team: '["green","blue"]' }, plugins: { key-auth: { key: list } } }
  - { username: commas, labels: { team: 'green,blue', role: guest }, plugins: { key-auth: { key: commas } } }
  - { username: plain, plugins: { key-auth: { key: plain } } }
  - { username: owner, labels: { team: blue } }
  - { id: owner/credentials/c, labels: { team: red }, plugins: { key-auth: { key: credential } } }
routes:
  - { id: 1, uri: /allow, plugins: { key-auth: {}, acl: { allow_labels: { team: [blue] } } }, NODE }
  - { id: 2, uri: /deny, plugins: { key-auth: {}, acl: { allow_labels: { team: [blue] }, deny_labels: { role: [guest] }, rejected_code: 404, rejected_msg: nothing here } }, NODE }
  - { id: 3, uri: /open, plugins: { acl: { deny_labels: { role: [guest] } } }, NODE }
"#,
    );
    let forbidden = Some((403, "{\"message\":\"The consumer is forbidden.\"}\n"));
    let nothing = Some((404, "{\"message\":\"nothing here\"}\n"));
    let missing = Some((401, "{\"message\":\"Missing authentication.\"}\n"));
    for (path, key, refusal) in [
        ("/allow", "blue", None),
        ("/allow", "list", None),
        ("/allow", "commas", None),
        ("/allow", "plain", forbidden),
        // The consumer's labels count, not the credential's (`spec/02` §1).
        ("/allow", "credential", None),
        ("/deny", "blue", None),
        ("/deny", "commas", nothing),
        ("/deny", "plain", nothing),
        ("/open", "blue", missing),
    ] {
        upstream.forget();
        let reply = get(&gateway, path, &[("apikey", key)]);
        match refusal {
            None => assert_eq!(reply.status, 200, "{path} {key}"),
            Some((status, body)) => {
                assert_local(&reply, status, body);
                assert_eq!(upstream.count(), 0, "{path} {key}");
            }
        }
    }
}
