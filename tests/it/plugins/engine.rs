//! Order, merging, `_meta`, global rules and what becomes of broken pieces.

use super::{
    TEXT, access_log, assert_local, get, over, send, send_on, start, start_logging, status_and_body,
};
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const NOT_FOUND: &str = "{\"error_msg\":\"404 Route Not Found\"}\n";

fn page(status: &str) -> String {
    format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n<hr><center>claviger</center>\r\n</body>\r\n</html>\r\n"
    )
}

#[test]
fn a_broken_piece_has_its_consequence_and_no_other_route_takes_over() {
    let (upstream, gateway) = start(
        "
services:
  - { id: bad, plugins: { no-such-plugin: {} } }
plugin_configs:
  - { id: bad, plugins: { ip-restriction: {} } }
routes:
  - { id: all, uri: /*, NODE }
  - { id: unknown, uri: /unknown, plugins: { no-such-plugin: {} }, NODE }
  - { id: invalid, uri: /invalid/*, plugins: { key-auth: { realm: 5 } }, NODE }
  - { id: service, uri: /service, service_id: bad, NODE }
  - { id: config, uri: /config, plugin_config_id: bad, NODE }
  - { id: upstream, uri: /upstream, upstream_id: none }
  - { id: nothing, uri: /nothing, plugins: {} }
  - { id: inert, uri: /inert, plugins: { ip-restriction: { _meta: { disable: true } } }, NODE }
",
    );
    let gone = (404, NOT_FOUND.to_owned());
    for (path, expected, content_type) in [
        ("/unknown", gone.clone(), TEXT),
        ("/invalid/x", gone, TEXT),
        (
            "/service",
            (404, page("404 Not Found")),
            "text/html; charset=utf-8",
        ),
        (
            "/config",
            (503, page("503 Service Unavailable")),
            "text/html; charset=utf-8",
        ),
        (
            "/upstream",
            (502, page("502 Bad Gateway")),
            "text/html; charset=utf-8",
        ),
        (
            "/nothing",
            (503, page("503 Service Unavailable")),
            "text/html; charset=utf-8",
        ),
    ] {
        let reply = get(&gateway, path, &[]);
        assert_eq!(status_and_body(&reply), expected, "{path}");
        assert_eq!(reply.header("content-type"), Some(content_type), "{path}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(get(&gateway, "/inert", &[]).status, 200);
    assert_eq!(get(&gateway, "/other", &[]).status, 200);
    let log = gateway.log();
    for told in [
        "unknown plugin [no-such-plugin]",
        "failed to check the configuration of plugin key-auth err: expected a string",
    ] {
        assert!(log.contains(told), "{told}");
    }
}

#[test]
fn scopes_override_whole_plugins() {
    let (_upstream, gateway) = start(
        "
services:
  - { id: s, plugins: { mocking: { response_example: service, response_headers: { X-From: service } }, cors: {} } }
plugin_configs:
  - { id: p, plugins: { mocking: { response_example: config } } }
consumer_groups:
  - { id: g, plugins: { mocking: { response_example: group } } }
consumers:
  - { username: plain, plugins: { key-auth: { key: plain } } }
  - { username: member, group_id: g, plugins: { key-auth: { key: member } } }
  - { username: own, group_id: g, plugins: { key-auth: { key: own }, mocking: { response_example: consumer } } }
  - { id: own/credentials/c, plugins: { key-auth: { key: own-second } } }
  - { username: lost, group_id: none, plugins: { key-auth: { key: lost } } }
  - { username: guest, plugins: { mocking: { response_example: guest } } }
routes:
  - { id: 1, uri: /service, service_id: s }
  - { id: 2, uri: /config, service_id: s, plugin_config_id: p }
  - { id: 3, uri: /route, service_id: s, plugin_config_id: p, plugins: { key-auth: {}, mocking: { response_example: route } } }
  - { id: 4, uri: /off, service_id: s, plugins: { mocking: { _meta: { disable: true } } } }
  - { id: 5, uri: /guest, plugins: { key-auth: { anonymous_consumer: guest } } }
  - { id: 6, uri: /lost, plugins: { key-auth: { anonymous_consumer: lost } } }
",
    );
    for (path, key, expected) in [
        ("/service", None, (200, "service".to_owned())),
        ("/config", None, (200, "config".to_owned())),
        ("/off", None, (503, page("503 Service Unavailable"))),
        ("/route", Some("plain"), (200, "route".to_owned())),
        ("/route", Some("member"), (200, "group".to_owned())),
        ("/route", Some("own"), (200, "consumer".to_owned())),
        ("/route", Some("own-second"), (200, "consumer".to_owned())),
        (
            "/route",
            Some("lost"),
            (503, page("503 Service Unavailable")),
        ),
        ("/guest", None, (200, "guest".to_owned())),
        ("/lost", None, (503, page("503 Service Unavailable"))),
    ] {
        let headers: Vec<_> = key.map(|key| ("apikey", key)).into_iter().collect();
        let reply = get(&gateway, path, &headers);
        assert_eq!(status_and_body(&reply), expected, "{path} {key:?}");
    }
    let reply = get(&gateway, "/config", &[]);
    assert_eq!(reply.header("x-from"), None, "whole plugins, no deep merge");
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("*"),
        "others stay"
    );
}

#[test]
fn a_consumers_rewrite_runs_once_and_never_over_the_routes() {
    let (upstream, gateway) = start(
        r#"
consumer_groups:
  - { id: g, plugins: { proxy-rewrite: { headers: { add: { X-By: group } } } } }
consumers:
  - { username: alone, plugins: { key-auth: { key: alone }, proxy-rewrite: { headers: { add: { X-By: consumer } } } } }
  - { username: member, group_id: g, plugins: { key-auth: { key: member } } }
  - { username: both, group_id: g, plugins: { key-auth: { key: both }, proxy-rewrite: { headers: { add: { X-By: both } } } } }
routes:
  - { id: 1, uri: /plain, plugins: { key-auth: {} }, NODE }
  - { id: 2, uri: /own, plugins: { key-auth: {}, proxy-rewrite: { headers: { add: { X-By: route } } } }, NODE }
"#,
    );
    for (path, key, by) in [
        ("/plain", "alone", "consumer"),
        ("/plain", "member", "group"),
        ("/plain", "both", "both"),
        ("/own", "alone", "route"),
        ("/own", "both", "route"),
    ] {
        assert_eq!(get(&gateway, path, &[("apikey", key)]).status, 200);
        let seen = upstream.requests().pop().unwrap();
        let all: Vec<_> = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "x-by")
            .collect();
        assert_eq!(all, [&("x-by".to_owned(), by.to_owned())], "{path} {key}");
    }
}

#[test]
fn phases_come_before_numbers_and_meta_priority_reorders() {
    let (_upstream, gateway) = start(
        r#"
routes:
  - { id: 1, uri: /access, plugins: { mocking: { response_example: mocked }, ip-restriction: { blacklist: [127.0.0.1] } } }
  - { id: 2, uri: /swapped, plugins: { mocking: { response_example: mocked, _meta: { priority: 1 } }, ip-restriction: { blacklist: [127.0.0.1] } } }
  - { id: 3, uri: /phases, plugins: { mocking: { response_example: mocked }, redirect: { uri: /new } } }
  - { id: 4, uri: /rewritten, plugins: { redirect: { uri: "/new$uri" }, proxy-rewrite: { uri: /first, _meta: { priority: 1 } } } }
  - { id: 5, uri: /kept, plugins: { redirect: { uri: "/new$uri" }, proxy-rewrite: { uri: /first } } }
"#,
    );
    assert_eq!(get(&gateway, "/access", &[]).text(), "mocked");
    assert_eq!(get(&gateway, "/swapped", &[]).status, 403);
    assert_eq!(
        get(&gateway, "/phases", &[]).header("location"),
        Some("/new")
    );
    let location = |path| {
        get(&gateway, path, &[])
            .header("location")
            .map(str::to_owned)
    };
    assert_eq!(location("/rewritten").as_deref(), Some("/new/rewritten"));
    assert_eq!(location("/kept").as_deref(), Some("/new/first"));
}

#[test]
fn meta_replaces_error_bodies_and_filters() {
    let (upstream, gateway) = start(
        r#"
routes:
  - { id: 1, uri: /text, plugins: { key-auth: { _meta: { error_response: "keep out" } } }, NODE }
  - { id: 2, uri: /object, plugins: { ip-restriction: { blacklist: [127.0.0.1], _meta: { error_response: { code: 7 } } } }, NODE }
  - { id: 3, uri: /redirect, plugins: { redirect: { uri: /new, _meta: { error_response: never } } }, NODE }
  - { id: 4, uri: /filtered, plugins: { key-auth: { _meta: { filter: [[http_x_open, "~=", "1"]] } } }, NODE }
  - { id: 5, uri: /odd, plugins: { ip-restriction: { blacklist: [127.0.0.1], _meta: { filter: [[a, "no operator", b]] } } }, NODE }
"#,
    );
    let reply = get(&gateway, "/text", &[]);
    assert_local(&reply, 401, "keep out");
    assert_eq!(
        reply.header("www-authenticate"),
        Some("apikey realm=\"key\"")
    );
    assert_local(&get(&gateway, "/object", &[]), 403, "{\"code\":7}\n");
    let reply = get(&gateway, "/redirect", &[]);
    assert_eq!(status_and_body(&reply), (302, String::new()));
    assert_eq!(get(&gateway, "/filtered", &[]).status, 401);
    assert_eq!(get(&gateway, "/filtered", &[("X-Open", "1")]).status, 200);
    assert_eq!(
        get(&gateway, "/odd", &[]).status,
        403,
        "a filter that is none lets it run"
    );
    assert_eq!(upstream.count(), 1);
}

#[test]
fn global_rules_guard_and_dress_paths_without_a_route() {
    let upstream = Upstream::start(Behaviour::ok());
    let rules = "
global_rules:
  - { id: 1, plugins: { key-auth: {}, cors: {}, response-rewrite: { headers: { set: { X-Global: '1' } } } } }
consumers:
  - { username: alice, plugins: { key-auth: { key: k }, mocking: { response_example: never here } } }
routes:
  - { id: 1, uri: /route, plugins: { mocking: { response_example: in } } }
";
    let gateway = Gateway::start(rules);
    let mut connection = gateway.connect();
    for (method, path, key, status, body) in [
        (
            "GET",
            "/unmatched",
            None,
            401,
            "{\"message\":\"Missing API key in request\"}\n",
        ),
        ("GET", "/unmatched", Some("k"), 404, NOT_FOUND),
        ("OPTIONS", "/unmatched", None, 200, ""),
        (
            "GET",
            "/route",
            None,
            401,
            "{\"message\":\"Missing API key in request\"}\n",
        ),
    ] {
        let headers: Vec<_> = key.map(|key| ("apikey", key)).into_iter().collect();
        let reply = send_on(&mut connection, method, path, &headers);
        assert_eq!(
            status_and_body(&reply),
            (status, body.to_owned()),
            "{method} {path}"
        );
        assert_eq!(reply.header("x-global"), Some("1"), "{method} {path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    }
    // A rule that does not hold is not left out: everything refuses until it is put right.
    gateway.write_resources(&over(
        &upstream,
        "
global_rules:
  - { id: 1, plugins: { no-such-plugin: {} } }
routes:
  - { id: 1, uri: /route, NODE }
",
    ));
    wait_until("the broken rule is in force", || {
        get(&gateway, "/route", &[]).status == 503
    });
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_same_plugin_of_two_global_rules_runs_twice() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(
        &upstream,
        "
global_rules:
  - { id: first, plugins: { ip-restriction: { whitelist: [127.0.0.1] } } }
  - { id: second, plugins: { ip-restriction: { blacklist: [127.0.0.1], message: second } } }
routes:
  - { id: 1, uri: /*, NODE }
",
    ));
    assert_local(&get(&gateway, "/", &[]), 403, "{\"message\":\"second\"}\n");
    assert!(
        gateway
            .log()
            .contains("plugin ip-restriction stands in global rule first too")
    );
}

#[test]
fn a_secret_that_is_missing_closes_only_what_needs_it() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder().file("secrets/here", "127.0.0.0/8");
    let folder = builder.dir().join("secrets");
    let resources = format!(
        "
secrets:
  - {{ id: file/main, path: {} }}
consumers:
  - {{ username: alice, plugins: {{ key-auth: {{ key: $secret://file/main/missing }} }} }}
  - {{ username: bob, plugins: {{ key-auth: {{ key: bobs }} }} }}
routes:
  - {{ id: 1, uri: /missing, plugins: {{ ip-restriction: {{ whitelist: [$secret://file/main/missing] }} }}, NODE }}
  - {{ id: 2, uri: /here, plugins: {{ ip-restriction: {{ whitelist: [$secret://file/main/here] }} }}, NODE }}
  - {{ id: 3, uri: /keyed, plugins: {{ key-auth: {{}} }}, NODE }}
",
        folder.display()
    );
    let gateway = builder
        .resources(over(&upstream, &resources))
        .unready()
        .start();
    wait_until("the traffic listener is open", || {
        std::net::TcpStream::connect(gateway.http()).is_ok()
    });
    wait_until("what has its secret is served", || {
        get(&gateway, "/here", &[]).status == 200
    });
    let reply = get(&gateway, "/missing", &[]);
    assert_local(
        &reply,
        503,
        "{\"error_msg\":\"plugin ip-restriction is not available: a secret it needs is missing\"}\n",
    );
    let reference = [("apikey", "$secret://file/main/missing")];
    assert_eq!(get(&gateway, "/keyed", &reference).status, 401);
    assert_eq!(get(&gateway, "/keyed", &[("apikey", "bobs")]).status, 200);
}

#[test]
fn the_access_log_tells_how_each_request_ended() {
    let format = "$status $body_bytes_sent $upstream_status $route_id $consumer_name $sent_http_x_by|$upstream_connect_time";
    let (upstream, gateway) = start_logging(
        format,
        r#"
global_rules:
  - { id: 1, plugins: { response-rewrite: { headers: { set: { X-By: us } } } } }
consumers:
  - { username: alice, plugins: { key-auth: { key: k } } }
routes:
  - { id: ok, uri: /ok, plugins: { key-auth: {} }, NODE }
  - { id: odd, uri: /odd, plugins: { response-rewrite: { status_code: 418, body: teapot } }, NODE }
  - { id: cut, uri: /cut, NODE }
  - { id: bad, uri: /bad, upstream: { nodes: { "127.0.0.1:1": 1 } } }
"#,
    );
    get(&gateway, "/ok", &[("apikey", "k")]);
    get(&gateway, "/ok", &[]);
    get(&gateway, "/odd", &[]);
    get(&gateway, "/none", &[]);
    send(&gateway, "HEAD", "/none", &[]);
    let refused = get(&gateway, "/bad", &[]);
    assert_eq!(refused.header("x-apisix-upstream-status"), Some("502"));
    upstream.set(Behaviour::CloseMidBody);
    let mut connection = gateway.connect();
    connection.request("GET", "/cut", &[("Host", "a.test")]);
    assert!(
        connection.reply().is_err(),
        "what is cut must not look whole"
    );
    wait_until("all lines are written", || access_log(&gateway).len() == 7);
    let lines = access_log(&gateway);
    let ends: Vec<_> = lines
        .iter()
        .map(|line| line.split_once('|').unwrap())
        .collect();
    let page = page("502 Bad Gateway").len();
    assert_eq!(
        ends.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
        [
            "200 5 200 ok alice us".to_owned(),
            "401 41 - ok - us".to_owned(),
            "418 6 200 odd - us".to_owned(),
            "404 36 - - - us".to_owned(),
            "404 0 - - - us".to_owned(),
            format!("502 {page} 502 bad - us"),
            // The client saw 200, and the log says so.
            "200 10 200 cut - us".to_owned(),
        ]
    );
    let connected = |index: usize| ends[index].1.parse::<f64>().is_ok();
    assert!(connected(0) && connected(2) && !connected(1), "{lines:#?}");
}
