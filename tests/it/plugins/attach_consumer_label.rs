use super::{get, start};

#[test]
fn labels_reach_the_upstream_and_forged_ones_do_not() {
    let (upstream, gateway) = start(
        "
consumers:
  - { username: alice, labels: { team: blue }, plugins: { key-auth: { key: alice } } }
  - { username: bob, plugins: { key-auth: { key: bob } } }
routes:
  - { id: 1, uri: /keyed, plugins: { key-auth: {}, attach-consumer-label: { headers: { X-Team: $team, X-Role: $role } } }, NODE }
  - { id: 2, uri: /open, plugins: { attach-consumer-label: { headers: { X-Team: $team } } }, NODE }
",
    );
    let forged = [
        ("x-team", "forged"),
        ("X-TEAM", "forged"),
        ("X_Team", "forged"),
        ("X-Role", "forged"),
        ("Connection", "x-team"),
    ];
    for (path, key, expected) in [
        ("/keyed", "alice", Some("blue")),
        ("/keyed", "bob", None),
        ("/open", "none", None),
    ] {
        let headers: Vec<_> = [("apikey", key)].into_iter().chain(forged).collect();
        assert_eq!(get(&gateway, path, &headers).status, 200);
        let seen = upstream.requests().pop().unwrap();
        let named = |name: &&(String, String)| name.0.replace('_', "-") == "x-team";
        let teams: Vec<_> = seen.headers.iter().filter(named).collect();
        let teams: Vec<_> = teams.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            teams,
            expected.into_iter().collect::<Vec<_>>(),
            "{path} {key}"
        );
        let role = if path == "/open" {
            Some("forged")
        } else {
            None
        };
        assert_eq!(seen.header("x-role"), role, "{path} {key}");
    }
}
