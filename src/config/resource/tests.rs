//! Every rule of `spec/00` §2–§6, as tables.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Documents;
use crate::config::parse::{parse, process_env};

fn read(text: &str) -> Documents {
    let file: Arc<str> = "a.yaml".into();
    parse(text, &file, &process_env()).expect("is YAML")
}

/// Findings about one item, as `field: message`. What the item guards is another question.
fn findings(kind: &str, item: &str) -> Vec<String> {
    let documents = read(&format!("{kind}:\n- {item}\n"));
    documents
        .diagnostics
        .iter()
        .filter(|found| found.code != "guards-nothing")
        .map(|found| format!("{}: {}", found.field, found.message))
        .collect()
}

/// Checks that each item has exactly these findings.
fn table(kind: &str, cases: &[(&str, &[&str])]) {
    for (item, expected) in cases {
        assert_eq!(findings(kind, item), *expected, "{kind}: {item}");
    }
}

#[test]
fn route_fields_hold_their_rules() {
    const NEEDS: &str = ": expected at least one of plugins, upstream, upstream_id, service_id";
    table(
        "routes",
        &[
            ("{uri: /a, plugins: {}}", &[]),
            (
                "{uri: /a, upstream_id: 1, name: n, desc: d, labels: {a: b}, create_time: 1, update_time: 2, modifiedIndex: 3}",
                &[],
            ),
            ("{uri: /a}", &[NEEDS]),
            ("{uri: /a, plugin_config_id: 1}", &[NEEDS]),
            ("{service_id: 1}", &[": expected uri or uris"]),
            (
                "{uri: /a, uris: [/b], service_id: 1}",
                &[": uri and uris exclude each other"],
            ),
            (
                "{uris: [], service_id: 1}",
                &["uris: expected at least 1 entry"],
            ),
            (
                "{uris: [/a, /a], service_id: 1}",
                &["uris: expected entries that differ from each other"],
            ),
            (
                "{uri: '', service_id: 1}",
                &["uri: expected 1 to 4096 characters"],
            ),
            (
                "{uri: 5, service_id: 1}",
                &["uri: expected a string, found a number"],
            ),
            (
                "{uri: /a, service_id: 0}",
                &[
                    "service_id: expected 1 to 64 letters, digits, '-', '_' or '.', or an integer of at least 1",
                ],
            ),
            (
                "{uri: /a, service_id: [1]}",
                &["service_id: expected a string or an integer, found a list"],
            ),
            (
                "{uri: /a, service_id: 1, methods: [GET, get]}",
                &[
                    "methods.1: expected one of GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS, CONNECT, TRACE, PURGE",
                ],
            ),
            (
                "{uri: /a, service_id: 1, host: a.test, hosts: [b.test]}",
                &[": host and hosts exclude each other"],
            ),
            (
                "{uri: /a, service_id: 1, host: 'a b'}",
                &["host: expected a host name, with or without a leading *"],
            ),
            (
                "{uri: /a, service_id: 1, host: 'a.*'}",
                &["host: expected a host name, with or without a leading *"],
            ),
            ("{uri: /a, service_id: 1, host: '*'}", &[]),
            (
                "{uri: /a, service_id: 1, hosts: ['*.a.test', '*a.test', '[::1]']}",
                &[],
            ),
            ("{uri: /a, service_id: 1, remote_addr: 10.0.0.0/8}", &[]),
            (
                "{uri: /a, service_id: 1, remote_addrs: ['::1', 10.0.0.256]}",
                &["remote_addrs.1: expected an IP address or CIDR block"],
            ),
            (
                "{uri: /a, service_id: 1, remote_addr: ::1, remote_addrs: [::1]}",
                &[": remote_addr and remote_addrs exclude each other"],
            ),
            (
                "{uri: /a, service_id: 1, vars: a}",
                &["vars: expected a list of conditions, found a string"],
            ),
            (
                "{uri: /a, service_id: 1, priority: 1.5}",
                &["priority: expected an integer, found a number"],
            ),
            ("{uri: /a, service_id: 1, priority: 2.0, status: 0}", &[]),
            (
                "{uri: /a, service_id: 1, status: 2}",
                &["status: expected an integer from 0 to 1"],
            ),
            (
                "{uri: /a, service_id: 1, enable_websocket: yes}",
                &["enable_websocket: expected true or false, found a string"],
            ),
            (
                "{uri: /a, service_id: 1, timeout: {connect: 1, send: 1}}",
                &["timeout: expected connect, send and read, all three"],
            ),
            (
                "{uri: /a, service_id: 1, timeout: {connect: 1, send: 1, read: 0}}",
                &["timeout.read: expected seconds above 0"],
            ),
            (
                "{uri: /a, service_id: 1, filter_func: f}",
                &[
                    "filter_func: filter_func is not supported, since it runs Lua; vars can express most conditions",
                ],
            ),
            (
                "{uri: /a, script: s}",
                &["script: script is not supported, since it runs Lua; use plugins"],
            ),
            (
                "{uri: /a, service_id: 1, ur: /b}",
                &["ur: additional properties forbidden, found ur"],
            ),
            (
                "{uri: /a, plugins: {key-auth: 1}}",
                &["plugins.key-auth: expected an object, found a number"],
            ),
            (
                "{uri: /a, plugins: []}",
                &["plugins: expected an object, found a list"],
            ),
            (
                "{uri: /a, service_id: 1, name: ''}",
                &["name: expected 1 to 256 characters"],
            ),
            (
                "{uri: /a, service_id: 1, labels: {a: 1}}",
                &["labels.a: expected a string, found a number"],
            ),
            (
                "{uri: /a, service_id: 1, labels: {a: 'b c'}}",
                &["labels.a: expected 1 to 256 characters without white space"],
            ),
            (
                "{id: a/b, uri: /a, service_id: 1}",
                &[
                    "id: expected 1 to 64 letters, digits, '-', '_' or '.', or an integer of at least 1",
                ],
            ),
            ("just text", &[": it should be an object"]),
        ],
    );
}

#[test]
fn upstream_fields_hold_their_rules() {
    table(
        "upstreams",
        &[
            (
                "{nodes: {a.test: 1, 'a.test:80': 0, '[::1]:80': 1, '::1': 1}}",
                &[],
            ),
            ("{nodes: []}", &[]),
            (
                "{nodes: [{host: a.test, weight: 1, port: 80, priority: -1, metadata: {}}]}",
                &[],
            ),
            (
                "{nodes: {'a.test:0': 1}}",
                &["nodes.a.test:0: expected host or host:port with a port from 1 to 65535"],
            ),
            (
                "{nodes: {a.test: -1}}",
                &["nodes.a.test: expected an integer from 0 to 4294967295"],
            ),
            (
                "{nodes: {a.test: x}}",
                &["nodes.a.test: expected an integer, found a string"],
            ),
            (
                "{nodes: [{host: a.test}]}",
                &["nodes.0: property \"weight\" is required"],
            ),
            (
                "{nodes: [{host: 'a b', weight: 1}]}",
                &["nodes.0.host: expected an IP address or host name"],
            ),
            (
                "{nodes: 5}",
                &[
                    "nodes: expected a list of nodes, or a map of \"host:port\" to weight, found a number",
                ],
            ),
            (
                "{type: roundrobin}",
                &[": expected nodes, or service_name and discovery_type"],
            ),
            (
                "{service_name: a}",
                &[": service_name and discovery_type are required together"],
            ),
            (
                "{service_name: a, discovery_type: dns}",
                &[": service discovery is not supported yet; requests answer 503"],
            ),
            (
                "{nodes: {}, type: random}",
                &["type: expected one of roundrobin, chash, least_conn, ewma"],
            ),
            ("{nodes: {}, type: chash}", &[": missing key"]),
            ("{nodes: {}, type: chash, hash_on: consumer}", &[]),
            ("{nodes: {}, type: chash, key: arg_x}", &[]),
            (
                "{nodes: {}, type: chash, key: nope}",
                &["key: expected a request variable that chash knows, or arg_<name>"],
            ),
            (
                "{nodes: {}, type: chash, hash_on: header, key: 'a b'}",
                &["key: expected letters, digits, '-' or '_'"],
            ),
            (
                "{nodes: {}, type: chash, hash_on: vars_combinations, key: '$host$uri'}",
                &[],
            ),
            (
                "{nodes: {}, pass_host: rewrite}",
                &[": `upstream_host` can't be empty when `pass_host` is `rewrite`"],
            ),
            (
                "{nodes: {}, pass_host: rewrite, upstream_host: a.test}",
                &[],
            ),
            (
                "{nodes: {}, scheme: kafka}",
                &["scheme: expected http, https, grpc or grpcs; other schemes are not supported"],
            ),
            (
                "{nodes: {}, scheme: ftp}",
                &["scheme: expected one of http, https, grpc, grpcs"],
            ),
            (
                "{nodes: {}, retries: -1}",
                &["retries: expected an integer from 0 to 4294967295"],
            ),
            ("{nodes: {}, retry_timeout: 0}", &[]),
            (
                "{nodes: {}, keepalive_pool: {size: 0, idle_timeout: 0, requests: 1}}",
                &["keepalive_pool.size: expected an integer from 1 to 4294967295"],
            ),
            (
                "{nodes: {}, tls: {client_cert: $env://A}}",
                &["tls: client_cert and client_key are required together"],
            ),
            (
                "{nodes: {}, tls: {client_cert: $env://A, client_key: $secret://vault/1/a/b, verify: true, ca_certs: $ENV://C}}",
                &[],
            ),
            (
                "{nodes: {}, tls: {client_cert_id: 1, client_cert: $env://A, client_key: $env://B}}",
                &["tls: client_cert_id excludes client_cert and client_key"],
            ),
            ("{nodes: {}, scheme: https, tls: {alpn: h2}}", &[]),
            (
                "{nodes: {}, scheme: grpcs, tls: {alpn: [http/1.1, h2]}}",
                &[],
            ),
            (
                "{nodes: {}, tls: {alpn: h3}}",
                &["tls.alpn: expected one of h2, http/1.1"],
            ),
            (
                "{nodes: {}, tls: {alpn: []}}",
                &["tls.alpn: expected h2, http/1.1 or both"],
            ),
            (
                "{nodes: {}, scheme: grpcs, tls: {alpn: [http/1.1]}}",
                &[": grpcs needs h2 in tls.alpn"],
            ),
            (
                "{nodes: {}, tls: {client_cert: short, client_key: $env://B}}",
                &["tls.client_cert: expected PEM of 128 to 65536 characters, or a reference"],
            ),
            (
                "{nodes: {}, checks: {}}",
                &["checks: property \"active\" is required"],
            ),
            (
                "{nodes: {}, checks: {active: {type: udp}}}",
                &["checks.active.type: expected one of http, https, tcp"],
            ),
            (
                "{nodes: {}, checks: {active: {healthy: {interval: 0}}}}",
                &["checks.active.healthy.interval: expected an integer of at least 1"],
            ),
            (
                "{nodes: {}, checks: {active: {unhealthy: {timeouts: 255}}, passive: {unhealthy: {timeouts: 0}}}}",
                &["checks.active.unhealthy.timeouts: expected an integer from 1 to 254"],
            ),
            (
                "{nodes: {}, checks: {active: {healthy: {http_statuses: [200, 200]}}}}",
                &[
                    "checks.active.healthy.http_statuses: expected entries that differ from each other",
                ],
            ),
            (
                "{nodes: {}, checks: {active: {req_headers: [x]}}}",
                &["checks.active.req_headers.0: expected Name: value"],
            ),
            (
                "{nodes: {}, checks: {active: {timeout: 1, http_path: /x}, wrong: 1}}",
                &["checks.wrong: no such field; it has no effect"],
            ),
            (
                "{nodes: {}, nope: 1}",
                &["nope: additional properties forbidden, found nope"],
            ),
        ],
    );
}

#[test]
fn inline_upstreams_hold_the_same_rules() {
    assert_eq!(
        findings("routes", "{uri: /a, upstream: {nodes: {}, type: chash}}"),
        ["upstream: missing key"]
    );
    assert_eq!(
        findings("services", "{upstream: {nodes: {a: b}}}"),
        ["upstream.nodes.a: expected an integer, found a string"]
    );
}

#[test]
fn other_kinds_hold_their_rules() {
    table(
        "services",
        &[
            (
                "{id: 1, hosts: [a.test], enable_websocket: true, upstream_id: 1, plugins: {}}",
                &[],
            ),
            (
                "{script: x}",
                &["script: script is not supported, since it runs Lua; use plugins"],
            ),
            (
                "{uri: /a}",
                &["uri: additional properties forbidden, found uri"],
            ),
        ],
    );
    table(
        "plugin_configs",
        &[
            ("{id: 1, plugins: {cors: }, name: n}", &[]),
            ("{id: 1}", &[": property \"plugins\" is required"]),
            ("{plugins: {}}", &[": property \"id\" is required"]),
        ],
    );
    table(
        "global_rules",
        &[
            ("{id: 1, plugins: {}}", &[]),
            (
                "{plugins: {}}",
                &[": a global rule should have an id; it runs under its position"],
            ),
            (
                "{id: 1, plugins: {}, name: n}",
                &["name: additional properties forbidden, found name"],
            ),
        ],
    );
    table(
        "protos",
        &[
            ("{id: 1, content: 'syntax'}", &[]),
            ("{id: 1}", &[": property \"content\" is required"]),
        ],
    );
    table(
        "plugin_metadata",
        &[
            ("{id: http-logger, log_format: {a: $host}}", &[]),
            (
                "{log_format: {}}",
                &[": property \"id\" is required: the plugin's name"],
            ),
        ],
    );
    table(
        "secrets",
        &[
            ("{id: vault/1, uri: x, whatever: 1}", &[]),
            ("{uri: x}", &[": no secret id"]),
            ("{id: vault}", &["id: expected <manager>/<name>"]),
            ("{id: vault/a/b}", &["id: expected <manager>/<name>"]),
            ("{id: 5}", &["id: expected a string, found a number"]),
        ],
    );
    table(
        "stream_routes",
        &[(
            "{id: 1}",
            &["stream_routes: stream routes are not supported; they are ignored"],
        )],
    );
    table(
        "routez",
        &[("{id: 1}", &["routez: no such list; it is ignored"])],
    );
    table("x-anchors", &[("{id: 1}", &[])]);
}

#[test]
fn consumers_and_credentials_hold_their_rules() {
    table(
        "consumers",
        &[
            (
                "{username: jack, group_id: g, plugins: {key-auth: {key: k}}, desc: d}",
                &[],
            ),
            ("{username: jack, id: jack}", &[]),
            (
                "{username: jack, id: jill}",
                &[": additional properties forbidden, found id"],
            ),
            (
                "{username: 'ja ck'}",
                &["username: expected 1 to 256 letters, digits, '-' or '_'"],
            ),
            ("{plugins: {}}", &[": property \"username\" is required"]),
            (
                "{username: jack, name: n}",
                &["name: additional properties forbidden, found name"],
            ),
            (
                "{id: jack/credentials/a, plugins: {key-auth: {key: k}}}",
                &["id: expected a valid consumer of that username in the same document"],
            ),
            (
                "{id: jack/a}",
                &["id: expected <username>/credentials/<credential id>"],
            ),
            (
                "{id: jack/credentials/a, plugins: {key-auth: {}, jwt-auth: {}}}",
                &["plugins: expected at most one plugin"],
            ),
            (
                "{id: jack/credentials/a, plugins: {cors: {}}}",
                &["plugins: only supports auth type plugins in consumer credential"],
            ),
        ],
    );
    let documents =
        read("consumers: [{id: j/credentials/a, name: n, plugins: {key-auth: {}}}, {username: j}]");
    assert_eq!(documents.credentials.len(), 1, "order does not matter");
    assert_eq!(&*documents.credentials[0].value.credential_id, "a");
    let documents = read("consumers: [{id: j/credentials/a}, {username: j, nope: 1}]");
    assert!(
        documents.credentials.is_empty(),
        "a refused consumer takes its credentials along"
    );
}

#[test]
fn ssls_hold_their_rules() {
    table(
        "ssls",
        &[
            ("{sni: a.test, cert: $env://A, key: $env://B}", &[]),
            (
                "{snis: ['*.a.test', '*'], cert: $env://A, key: $env://B, ssl_protocols: [TLSv1.3], status: 1, labels: {}}",
                &[],
            ),
            ("{type: client, cert: $env://A, key: $env://B}", &[]),
            (
                "{cert: $env://A, key: $env://B}",
                &[": expected sni or snis"],
            ),
            (
                "{sni: a, snis: [b], cert: $env://A, key: $env://B}",
                &[": sni and snis exclude each other"],
            ),
            (
                "{sni: a, cert: $env://A}",
                &[": property \"key\" is required"],
            ),
            (
                "{sni: a, cert: short, key: short}",
                &[
                    "cert: expected PEM of 128 to 65536 characters, or a reference",
                    "key: expected PEM of 64 to 65536 characters, or a reference",
                ],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, certs: [$env://C]}",
                &[": mismatched number of certs and keys"],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, client: {}}",
                &["client: property \"ca\" is required"],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, client: {ca: $env://C, depth: -1}}",
                &["client.depth: expected an integer from 0 to 4294967295"],
            ),
            (
                "{sni: '*.a', cert: '$secret://vault/m/{sni}/c', key: '$secret://vault/m/{sni}/k', on_demand: true}",
                &[],
            ),
            (
                "{sni: '*', cert: '$secret://vault/m/{sni}/c', key: '$secret://vault/m/{sni}/k', on_demand: {max_names: 5, timeout: 0.5, neg_ttl: 1, idle: 2, unknown_per_second: 3, unknown_burst: 4, concurrency: 5, waiting: 6}}",
                &[],
            ),
            (
                "{sni: '*', cert: '$secret://vault/m/{sni}/c', key: '$secret://vault/m/{sni}/k', on_demand: {max_names: 0, timeout: 0, x: 1}}",
                &[
                    "on_demand.max_names: expected an integer from 1 to 1000000",
                    "on_demand.timeout: expected seconds above 0",
                    "on_demand.x: no such field; it has no effect",
                ],
            ),
            (
                "{sni: '*.a', cert: '$secret://vault/m/{sni}/c', key: '$secret://vault/m/{sni}/k', on_demand: false}",
                &[": {sni} in a reference needs on_demand"],
            ),
            (
                "{snis: ['*.a', b.a], cert: '$secret://vault/m/{sni}/c', key: $env://K, on_demand: true}",
                &[
                    ": with on_demand cert, key, certs and keys are references with {sni} in them",
                    ": with on_demand every name is a wildcard; give other names an item of their own",
                ],
            ),
            (
                "{type: client, cert: '$secret://vault/m/{sni}/c', key: '$secret://vault/m/{sni}/k', on_demand: true}",
                &[": on_demand is for certificates that clients are shown, not for type client"],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, ocsp_stapling: {enabled: true, skip_verify: true, cache_ttl: 60}}",
                &[],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, ocsp_stapling: {enabled: 1, skip_verify: x, cache_ttl: 59, y: 1}}",
                &[
                    "ocsp_stapling.enabled: expected true or false, found a number",
                    "ocsp_stapling.skip_verify: expected true or false, found a string",
                    "ocsp_stapling.cache_ttl: expected an integer from 60 to 4294967295",
                    "ocsp_stapling.y: no such field; it has no effect",
                ],
            ),
            (
                "{sni: '*', cert: '$secret://vault/m/{sni}/c', key: '$secret://vault/m/{sni}/k', on_demand: true, ocsp_stapling: {enabled: true}}",
                &[": ocsp_stapling has no effect together with on_demand: nothing is stapled"],
            ),
            (
                "{type: client, cert: $env://A, key: $env://B, ocsp_stapling: {enabled: true}}",
                &[
                    ": ocsp_stapling is for certificates that clients are shown, not for type client: it has no effect",
                ],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, ssl_protocols: [SSLv3]}",
                &["ssl_protocols.0: expected one of TLSv1.1, TLSv1.2, TLSv1.3"],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, validity_end: 1}",
                &["validity_end: additional properties forbidden, found validity_end"],
            ),
            (
                "{sni: a, cert: $env://A, key: $env://B, name: n}",
                &["name: additional properties forbidden, found name"],
            ),
        ],
    );
}

#[test]
fn declarations_say_what_the_file_says() {
    let documents = read(
        "routes: [{id: 7, uri: /a, host: A.Test, remote_addr: ::1, plugins: {key-auth: }, status: 0, upstream: {nodes: {'[::1]:81': 2}, timeout: {connect: 0.5, send: 1, read: 2}, retry_timeout: 0}}]
ssls: [{sni: A.test., cert: $env://A, key: $env://B, certs: [$env://C], keys: [$env://D], client: {ca: $env://E}}]
secrets: [{id: vault/1, uri: u}]
plugin_metadata: [{id: p, a: 1}]",
    );
    assert!(
        documents.diagnostics.is_empty(),
        "{:?}",
        documents.diagnostics
    );
    let route = &documents.routes[0];
    assert_eq!(
        (&*route.id, route.place.line, route.place.column),
        ("7", 1, 10)
    );
    assert_eq!(route.value.hosts, ["a.test"]);
    assert!(!route.value.enabled);
    assert_eq!(
        route
            .value
            .plugins
            .find("key-auth")
            .expect("stands there")
            .json(),
        serde_json::json!({})
    );
    let upstream = route.value.upstream.as_ref().expect("is inline");
    assert_eq!(upstream.balancer, "roundrobin");
    assert_eq!(
        upstream.nodes,
        [NodeConfig {
            host: "::1".into(),
            port: Some(81),
            weight: 2,
            priority: 0
        }]
    );
    assert_eq!(
        upstream.timeout.map(|timeout| timeout.connect),
        Some(Duration::from_millis(500))
    );
    assert_eq!(upstream.retry_timeout, None);
    let ssl = &documents.ssls[0].value;
    assert_eq!(ssl.snis, ["a.test"]);
    assert_eq!(ssl.pairs.len(), 2);
    assert_eq!(ssl.client.as_ref().map(|client| client.depth), Some(1));
    assert_eq!(
        documents.secrets[0].value.fields,
        serde_json::json!({"uri": "u"})
    );
    assert_eq!(documents.plugin_metadata[0].value["a"], 1);
}

#[test]
fn a_refused_route_keeps_its_matchable_part() {
    let documents = read(
        "routes: [{id: 1, uri: /admin, host: a.test, methods: [GET], plugins: {}, nope: 1}, {id: 2, host: 'a b', uri: /x, plugins: {}}, {id: 3, plugins: {}}]",
    );
    assert!(documents.routes.is_empty());
    let refused: Vec<_> = documents
        .refused_routes
        .iter()
        .map(|route| &*route.id)
        .collect();
    assert_eq!(
        refused,
        ["1"],
        "a route without a readable host or path takes no request"
    );
    let matches = &documents.refused_routes[0].matches;
    assert_eq!(
        (&*matches.uris[0], &*matches.hosts[0], &*matches.methods[0]),
        ("/admin", "a.test", "GET")
    );
}

#[test]
fn a_refused_global_rule_is_listed() {
    let documents = read("global_rules: [{id: 1, plugins: 5}, 7]");
    assert!(documents.global_rules.is_empty());
    let refused: Vec<&str> = documents
        .refused_global_rules
        .iter()
        .map(|id| &**id)
        .collect();
    assert_eq!(refused, ["1", "arr_2"]);
}

#[test]
fn refused_certificates_and_services_keep_what_could_be_read() {
    let documents = read(
        "ssls: [{id: 1, snis: [B.test., 'x y'], nope: 1}, {id: 2, type: client, nope: 1}, {id: 3, sni: [c.test]}, {id: 4, cert: 5}]\nservices: [{id: 1, hosts: d.test}]",
    );
    assert!(documents.ssls.is_empty() && documents.services.is_empty());
    let names = documents.refused_ssls.iter();
    let names: Vec<_> = names.map(|item| (&*item.id, &*item.value.snis)).collect();
    assert_eq!(
        names,
        [
            ("1", &["b.test".to_owned()][..]),
            ("3", &["c.test".to_owned()])
        ]
    );
    assert_eq!(documents.refused_services[0].value.hosts, ["d.test"]);
    let unguarded = documents.diagnostics.iter();
    let unguarded = unguarded.filter(|found| found.code == "guards-nothing");
    let unguarded: Vec<_> = unguarded.map(|found| &*found.object).collect();
    assert_eq!(unguarded, ["ssls/1", "ssls/4"]);
}
