//! Consumers over the real program: whom a credential names, what the upstream is told of them,
//! and what of it a client can make up (`spec/02` §1, `spec/00` §7.1–7.2).

use http::Request;

use crate::harness::client::Reply;
use crate::harness::wire::Message;
use crate::harness::{Behaviour, Gateway, Upstream, h2, wait_until};

fn start(yaml: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(&upstream, yaml));
    (upstream, gateway)
}

fn over(upstream: &Upstream, yaml: &str) -> String {
    let node = format!("upstream: {{ nodes: {{ '{}': 1 }} }}", upstream.addr);
    yaml.replace("NODE", &node)
}

fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Reply {
    gateway.get("a.test", path, headers)
}

/// What an application sees of the client, whose server writes `-` and `_` alike.
fn identity(seen: &Message) -> Vec<(String, String)> {
    let named = |name: &str| name.starts_with("x-consumer-") || name.starts_with("x-credential-");
    let headers = seen.headers.iter();
    let headers = headers.map(|(name, value)| (name.replace('_', "-"), value.clone()));
    let mut found: Vec<_> = headers.filter(|(name, _)| named(name)).collect();
    found.sort();
    found
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let expected = expected.iter();
    expected
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const FORGED: [(&str, &str); 8] = [
    ("X-Consumer-Username", "root"),
    ("x-consumer-username", "root"),
    ("X_Consumer_Username", "root"),
    ("X-Consumer_Username", "root"),
    ("X-Credential-Identifier", "root"),
    ("X_CREDENTIAL_IDENTIFIER", "root"),
    ("X-Consumer-Custom-ID", "root"),
    ("x_consumer_custom_id", "root"),
];

const PEOPLE: &str = "
consumers:
  - { username: alice, labels: { custom_id: 'Jürgen' }, plugins: { key-auth: { key: alice-own } } }
  - { id: alice/credentials/phone, plugins: { key-auth: { key: alice-phone } } }
  - { id: alice/credentials/laptop, labels: { custom_id: ignored }, plugins: { key-auth: { key: alice-laptop } } }
  - { username: bob, labels: { custom_id: \"bell\\a\" }, plugins: { key-auth: { key: bob-own } } }
  - { username: guest }
  - { username: broken, plugins: { no-such-plugin: {} } }
routes:
  - { id: 1, uri: /one, plugins: { key-auth: {} }, NODE }
  - { id: 2, uri: /guest, plugins: { key-auth: { anonymous_consumer: guest } }, NODE }
  - { id: 3, uri: /nobody, plugins: { key-auth: { anonymous_consumer: nobody } }, NODE }
  - { id: 4, uri: /broken, plugins: { key-auth: { anonymous_consumer: broken } }, NODE }
  - { id: 5, uri: /open, NODE }
  - { id: 6, uri: /socket, enable_websocket: true, plugins: { key-auth: {} }, NODE }
";

#[test]
fn every_credential_names_its_consumer_and_itself() {
    let (upstream, gateway) = start(PEOPLE);
    let alice = ("x-consumer-username", "alice");
    let custom = ("x-consumer-custom-id", "Jürgen");
    for (key, expected) in [
        ("alice-own", &[custom, alice][..]),
        (
            "alice-phone",
            &[custom, alice, ("x-credential-identifier", "phone")],
        ),
        (
            "alice-laptop",
            &[custom, alice, ("x-credential-identifier", "laptop")],
        ),
        // A label that fits into no header is not sent, and the client's own neither.
        ("bob-own", &[("x-consumer-username", "bob")]),
    ] {
        let headers: Vec<_> = [("apikey", key)].into_iter().chain(FORGED).collect();
        assert_eq!(get(&gateway, "/one", &headers).status, 200, "{key}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(identity(&seen), pairs(expected), "{key}");
    }
    // A consumer that was refused authenticates nobody, its credentials included.
    get(&gateway, "/open", &FORGED);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(identity(&seen).len(), FORGED.len(), "nobody vouches here");
}

#[test]
fn no_connection_option_takes_the_identity_away() {
    let (upstream, gateway) = start(PEOPLE);
    let bob = pairs(&[("x-consumer-username", "bob")]);
    for option in [
        &b"X-Consumer-Username"[..],
        b"close, x-consumer-username",
        b"keep-alive, X-CONSUMER-USERNAME, x-credential-identifier",
        b"X-Consumer-Username\r\nConnection: X-Consumer-Username",
        b"\tX-Consumer-Username ",
        b"\xff, X-Consumer-Username",
        b"X-Consumer-Username, \xff",
    ] {
        let head = [
            &b"GET /one HTTP/1.1\r\nHost: a.test\r\napikey: bob-own\r\nConnection: "[..],
            option,
            b"\r\nX-Consumer-Username: root\r\n\r\n",
        ];
        let mut connection = gateway.connect();
        connection.send(head.concat());
        let said = String::from_utf8_lossy(option);
        let reply = connection.expect_reply();
        let seen = upstream.take();
        match seen.last() {
            Some(seen) => assert_eq!(identity(seen), bob, "{said:?}"),
            None => assert_eq!(reply.status, 400, "{said:?}"),
        }
    }
    let headers = [
        ("apikey", "bob-own"),
        ("Upgrade", "websocket"),
        ("Connection", "upgrade, X-Consumer-Username"),
        ("X-Consumer-Username", "root"),
    ];
    get(&gateway, "/socket", &headers);
    let seen = upstream.take().pop().unwrap();
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(identity(&seen), bob, "an upgrade keeps what is ours");
    // Naming the credential hides it from us too.
    let headers = [("apikey", "bob-own"), ("Connection", "apikey")];
    assert_eq!(get(&gateway, "/one", &headers).status, 401);
}

#[test]
fn http2_clients_can_make_up_no_more() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder().bootstrap("apisix: { enable_http2: true }");
    let gateway = builder.resources(over(&upstream, PEOPLE)).start();
    let mut request = Request::get("http://a.test/one").header("apikey", "bob-own");
    for (name, value) in FORGED {
        request = request.header(name.to_lowercase(), value);
    }
    let replies = h2::requests(
        gateway.http(),
        vec![request.body(bytes::Bytes::new()).unwrap()],
    );
    assert_eq!(replies[0].head.status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(identity(&seen), pairs(&[("x-consumer-username", "bob")]));
}

#[test]
fn the_anonymous_consumer_is_there_or_nobody_is_let_in() {
    let (upstream, gateway) = start(PEOPLE);
    for key in [None, Some("wrong")] {
        let mut headers = FORGED.to_vec();
        headers.extend(key.map(|key| ("apikey", key)));
        assert_eq!(get(&gateway, "/guest", &headers).status, 200);
        let seen = upstream.take().pop().unwrap();
        assert_eq!(identity(&seen), pairs(&[("x-consumer-username", "guest")]));
        for (path, name) in [("/nobody", "nobody"), ("/broken", "broken")] {
            let reply = get(&gateway, path, &headers);
            assert_eq!(reply.status, 401, "{path}");
            let body = "{\"message\":\"Invalid user authorization\"}\n";
            assert_eq!(reply.text(), body, "{path}");
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge, Some("apikey realm=\"key\""));
            let told = format!("code: 401. error: failed to get anonymous consumer {name}");
            wait_until("the log says why", || gateway.log().contains(&told));
        }
    }
    assert_eq!(upstream.count(), 0);
    let known = [("apikey", "bob-own")];
    assert_eq!(get(&gateway, "/nobody", &known).status, 200);
}

#[test]
fn the_last_of_several_auth_plugins_says_who_it_is() {
    let (upstream, gateway) = start(
        "
consumers:
  - { username: alice, labels: { custom_id: '7' } }
  - { id: alice/credentials/phone, plugins: { key-auth: { key: alice-phone } } }
  - { username: bob, plugins: { key-auth: { key: bob-own }, response-rewrite: { headers: { set: { X-Of: bob } } } } }
global_rules:
  - { id: 1, plugins: { key-auth: { header: first } } }
routes:
  - { id: 1, uri: /both, plugins: { key-auth: { header: second } }, NODE }
  - { id: 2, uri: /multi, plugins: { multi-auth: { auth_plugins: [key-auth: { header: x }, key-auth: { header: y }] }, key-auth: { header: second } }, NODE }
",
    );
    let bob = pairs(&[("x-consumer-username", "bob")]);
    let alice = pairs(&[
        ("x-consumer-custom-id", "7"),
        ("x-consumer-username", "alice"),
        ("x-credential-identifier", "phone"),
    ]);
    for (path, first, more, second, expected) in [
        ("/both", "alice-phone", None, "bob-own", Some(&bob)),
        ("/both", "bob-own", None, "alice-phone", Some(&alice)),
        ("/both", "wrong", None, "alice-phone", None),
        ("/both", "alice-phone", None, "wrong", None),
        (
            "/multi",
            "alice-phone",
            Some("alice-phone"),
            "bob-own",
            Some(&bob),
        ),
        (
            "/multi",
            "bob-own",
            Some("bob-own"),
            "alice-phone",
            Some(&alice),
        ),
        ("/multi", "bob-own", Some("wrong"), "alice-phone", None),
        ("/multi", "bob-own", None, "alice-phone", None),
    ] {
        let mut headers = vec![("first", first), ("second", second)];
        headers.extend(more.map(|key| ("y", key)));
        let reply = get(&gateway, path, &headers);
        let seen = upstream.take().pop();
        assert_eq!(
            seen.as_ref().map(identity).as_ref(),
            expected,
            "{headers:?}"
        );
        let status = if expected.is_some() { 200 } else { 401 };
        assert_eq!(reply.status, status, "{headers:?}");
        if expected.is_some() {
            let of_bob = (second == "bob-own").then_some("bob");
            assert_eq!(reply.header("x-of"), of_bob, "only the last one's plugins");
        }
    }
}

#[test]
fn the_routes_rewrite_and_the_consumers_later_phases_run() {
    let (upstream, gateway) = start(
        "
consumer_groups:
  - { id: g, plugins: { request-id: { header_name: X-Group-Id } } }
consumers:
  - { username: own, plugins: { key-auth: { key: own }, request-id: { header_name: X-Own-Id } } }
  - { username: member, group_id: g, plugins: { key-auth: { key: member } } }
  - { username: both, group_id: g, plugins: { key-auth: { key: both }, request-id: { header_name: X-Both-Id } } }
routes:
  - { id: 1, uri: /with, plugins: { key-auth: {}, request-id: { header_name: X-Route-Id } }, NODE }
  - { id: 2, uri: /without, plugins: { key-auth: {} }, NODE }
",
    );
    for (path, key, up, down) in [
        ("/with", "own", "x-route-id", "x-own-id"),
        ("/with", "member", "x-route-id", "x-group-id"),
        ("/with", "both", "x-route-id", "x-both-id"),
        ("/without", "own", "x-own-id", "x-own-id"),
        ("/without", "member", "x-group-id", "x-group-id"),
        ("/without", "both", "x-both-id", "x-both-id"),
    ] {
        let reply = get(&gateway, path, &[("apikey", key)]);
        let seen = upstream.requests().pop().unwrap();
        let ids = |message: &Message| {
            let headers = message.headers.iter();
            let names = headers.map(|(name, _)| name.clone());
            names
                .filter(|name| name.ends_with("-id"))
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&seen), [up], "{path} {key}");
        assert_eq!(ids(&reply.message), [down], "{path} {key}");
    }
}

#[test]
fn preflights_and_their_answers_come_before_any_auth_plugin() {
    let (upstream, gateway) = start(
        "
consumers:
  - { username: alice, plugins: { key-auth: { key: k } } }
routes:
  - { id: 1, uri: /cors, plugins: { key-auth: { _meta: { error_response: { code: 1 } } }, cors: {}, consumer-restriction: { whitelist: [nobody] } }, NODE }
",
    );
    let mut connection = gateway.connect();
    let origin = [("Host", "a.test"), ("Origin", "https://b.test")];
    connection.request("OPTIONS", "/cors", &origin);
    assert_eq!(connection.expect_reply().status, 200);
    let reply = get(&gateway, "/cors", &[]);
    assert_eq!(
        (reply.status, reply.text()),
        (401, "{\"code\":1}\n".to_owned())
    );
    let challenge = reply.header("www-authenticate");
    assert_eq!(
        challenge,
        Some("apikey realm=\"key\""),
        "the challenge stays"
    );
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(get(&gateway, "/cors", &[("apikey", "k")]).status, 403);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_lost_group_refuses_all_of_its_consumers_requests_until_it_is_there() {
    let yaml = |groups: &str| {
        format!(
            "
{groups}
consumers:
  - {{ username: alice, group_id: g, plugins: {{ key-auth: {{ key: alice }} }} }}
  - {{ id: alice/credentials/c, plugins: {{ key-auth: {{ key: second }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: bob }} }} }}
routes:
  - {{ id: 1, uri: /*, plugins: {{ key-auth: {{}} }}, NODE }}
"
        )
    };
    let (upstream, gateway) = start(&yaml(""));
    let status = |key| get(&gateway, "/", &[("apikey", key)]).status;
    for (key, expected) in [("alice", 503), ("second", 503), ("bob", 200), ("none", 401)] {
        assert_eq!(status(key), expected, "{key}");
    }
    let group = "consumer_groups: [ { id: g, plugins: { response-rewrite: { headers: { set: { X-G: '1' } } } } } ]";
    gateway.write_resources(&over(&upstream, &yaml(group)));
    wait_until("the group is in force", || status("second") == 200);
    let reply = get(&gateway, "/", &[("apikey", "second")]);
    assert_eq!(reply.header("x-g"), Some("1"));
    let broken = "consumer_groups: [ { id: g, plugins: { no-such-plugin: {} } } ]";
    gateway.write_resources(&over(&upstream, &yaml(broken)));
    wait_until("the broken group is in force", || status("alice") == 503);
    assert_eq!(status("bob"), 200);
}

#[test]
fn duplicate_keys_are_told_and_the_later_one_is_in_force() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/a", "shared-key-1")
        .file("secrets/b", "shared-key-1")
        .env("DUPLICATE_KEY_OF_TEST", "shared-key-2");
    let folder = builder.dir().join("secrets");
    let yaml = format!(
        "
secrets:
  - {{ id: file/main, path: {}, ttl: 1, neg_ttl: 1 }}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://file/main/a }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: $secret://file/main/b }} }} }}
  - {{ username: carol, plugins: {{ key-auth: {{ key: shared-key-2 }} }} }}
  - {{ id: carol/credentials/c, plugins: {{ key-auth: {{ key: $env://DUPLICATE_KEY_OF_TEST }} }} }}
  - {{ id: bob/credentials/late, plugins: {{ key-auth: {{ key: shared-key-2 }} }} }}
routes:
  - {{ id: 1, uri: /*, plugins: {{ key-auth: {{}} }}, NODE }}
",
        folder.display()
    );
    let gateway = builder.resources(over(&upstream, &yaml)).start();
    let who = |key: &str| {
        get(&gateway, "/", &[("apikey", key)]);
        let seen = upstream.take().pop();
        seen.map(|seen| identity(&seen))
    };
    let bob = pairs(&[("x-consumer-username", "bob")]);
    let late = pairs(&[
        ("x-consumer-username", "bob"),
        ("x-credential-identifier", "late"),
    ]);
    assert_eq!(who("shared-key-1"), Some(bob.clone()));
    assert_eq!(who("shared-key-2"), Some(late));
    let log = gateway.log();
    for told in [
        "apisix.yaml:6:",
        "consumers/bob plugins.key-auth.key: duplicate key of plugin key-auth found with consumer: alice",
        "consumers/carol/credentials/c plugins.key-auth.key: duplicate key of plugin key-auth found with consumer: carol",
        "consumers/bob/credentials/late plugins.key-auth.key: duplicate key of plugin key-auth found with credential: c of consumer: carol",
    ] {
        assert!(log.contains(told), "{told}\n{log}");
    }
    assert!(!log.contains("shared-key"), "no value is told");
    // A rotation ends it, and the next one begins it the other way round.
    gateway.write_file("secrets/b", "other-key");
    wait_until("bob has a key of his own", || {
        who("other-key").as_ref() == Some(&bob)
    });
    let alice = pairs(&[("x-consumer-username", "alice")]);
    assert_eq!(who("shared-key-1"), Some(alice));
    gateway.write_file("secrets/a", "other-key");
    wait_until("alice's key is bob's", || who("shared-key-1").is_none());
    assert_eq!(who("other-key"), Some(bob), "the later in the file");
    let told = "consumers/bob plugins.key-auth.key: duplicate key of plugin key-auth found with consumer: alice";
    wait_until("the log says it again", || {
        gateway.log().matches(told).count() == 2
    });
}
