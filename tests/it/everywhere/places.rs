//! One reference without value in every place: exactly its user refuses, in its own way, and heals
//! alone once the value is there.

use std::fmt::Write as _;

use claviger::tls::dev::{Authority, Issued, LeafOptions, Usage};

use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, wait_until};

/// What asks for a reference, and what it is told while there is no value.
struct Place {
    /// Its name: the file that is missing, and the host that needs it.
    name: &'static str,
    /// Key the request carries.
    key: &'static str,
    /// Status without the value.
    refusal: u16,
}

const fn place(name: &'static str, key: &'static str, refusal: u16) -> Place {
    Place { name, key, refusal }
}

const PLACES: &[Place] = &[
    place("route", "", 503),
    place("two", "", 503),
    place("meta", "", 503),
    place("service", "", 503),
    place("config", "", 503),
    place("group", "grouped", 503),
    place("consumer", "plugged", 503),
    place("credential", "credential-value", 401),
    place("key", "key-value", 401),
    place("anonymous", "", 503),
    place("metadata", "", 503),
    place("attr", "", 503),
    place("upstream-ca", "", 503),
    place("service-ca", "", 503),
    place("route-cert", "", 503),
    place("client-id", "", 503),
];

const NAME: &str = "node.test";

struct Stand {
    ca: String,
    client: Issued,
    plain: Upstream,
    tls: Upstream,
    mtls: Upstream,
}

impl Stand {
    fn new() -> Self {
        let authority = Authority::new().unwrap();
        let ca = authority.cert_pem().unwrap();
        let node = certs::server(&authority, &[NAME]);
        let key = certs::key_text(&node).as_bytes();
        let options = LeafOptions {
            usage: Usage::Client,
            ..LeafOptions::default()
        };
        Self {
            client: authority.issue(&["gateway"], &options).unwrap(),
            plain: Upstream::start(Behaviour::ok()),
            tls: Upstream::start_tls(Behaviour::ok(), &node.cert_pem, key),
            mtls: Upstream::start_mtls(Behaviour::ok(), &node.cert_pem, key, Some(&ca)),
            ca,
        }
    }

    fn resources(&self, folder: &str) -> String {
        let (plain, tls, mtls) = (self.plain.addr, self.tls.addr, self.mtls.addr);
        let plain = format!("upstream: {{ type: roundrobin, nodes: {{ '{plain}': 1 }} }}");
        let https = |node, tls: &str| {
            format!(
                "type: roundrobin, scheme: https, pass_host: rewrite, upstream_host: {NAME}, \
                 nodes: {{ '{node}': 1 }}, tls: {{ {tls} }}"
            )
        };
        let header = |name: &str| {
            format!(
                "proxy-rewrite: {{ headers: {{ set: {{ X-Up: '$secret://file/main/{name}' }} }} }}"
            )
        };
        let mut yaml = format!(
            r#"
secrets:
  - {{ id: file/main, path: {folder}, ttl: 1, neg_ttl: 1 }}
consumers:
  - {{ username: bob, plugins: {{ key-auth: {{ key: bob }} }} }}
  - {{ username: grouped, group_id: g, plugins: {{ key-auth: {{ key: grouped }} }} }}
  - {{ username: plugged, plugins: {{ key-auth: {{ key: plugged }}, {consumer} }} }}
  - {{ username: keyed, plugins: {{ key-auth: {{ key: '$secret://file/main/key' }} }} }}
  - {{ username: owner }}
  - {{ id: owner/credentials/1, plugins: {{ key-auth: {{ key: '$secret://file/main/credential' }} }} }}
  - {{ id: owner/credentials/2, plugins: {{ key-auth: {{ key: neighbour }} }} }}
  - {{ username: nobody, plugins: {{ {anonymous} }} }}
consumer_groups:
  - {{ id: g, plugins: {{ {group} }} }}
plugin_metadata:
  - {{ id: cors, allow_origins: {{ ours: '$secret://file/main/metadata' }} }}
plugin_configs:
  - {{ id: c, plugins: {{ {config} }} }}
services:
  - {{ id: s, plugins: {{ {service} }}, {plain} }}
  - {{ id: ca, upstream: {{ {service_ca} }} }}
upstreams:
  - {{ id: ca, {upstream_ca} }}
ssls:
  - {{ id: client, type: client, cert: '$secret://file/main/client-id', key: '$secret://file/main/client-key' }}
routes:
  - {{ id: open, host: open.test, uri: /*, {plain} }}
  - {{ id: two, host: two.test, uri: /*, {plain}, plugins: {{ {route}, response-rewrite: {{ headers: {{ set: {{ X-Down: '$secret://file/main/two' }} }} }} }} }}
  - {{ id: service, host: service.test, uri: /*, service_id: s }}
  - {{ id: config, host: config.test, uri: /*, plugin_config_id: c, {plain} }}
  - {{ id: service-ca, host: service-ca.test, uri: /*, service_id: ca }}
  - {{ id: upstream-ca, host: upstream-ca.test, uri: /*, upstream_id: ca }}
"#,
            consumer = header("consumer"),
            anonymous = header("anonymous"),
            group = header("group"),
            config = header("config"),
            service = header("service"),
            route = header("present"),
            service_ca = https(
                tls,
                "verify: true, ca_certs: '$secret://file/main/service-ca'"
            ),
            upstream_ca = https(
                tls,
                "verify: true, ca_certs: '$secret://file/main/upstream-ca'"
            ),
        );
        let route_cert = "client_cert: '$secret://file/main/route-cert', client_key: '$secret://file/main/client-key'";
        for (id, more) in [
            (
                "route",
                format!("{plain}, plugins: {{ {} }}", header("route")),
            ),
            (
                "meta",
                format!(
                    "{plain}, plugins: {{ request-id: {{ _meta: {{ error_response: '$secret://file/main/meta' }} }} }}"
                ),
            ),
            (
                "metadata",
                format!("{plain}, plugins: {{ cors: {{ allow_origins_by_metadata: [ours] }} }}"),
            ),
            (
                "attr",
                format!(
                    "{plain}, plugins: {{ redirect: {{ http_to_https: true, _meta: {{ filter: [[arg_tls, '==', 'yes']] }} }} }}"
                ),
            ),
            (
                "route-cert",
                format!("upstream: {{ {} }}", https(mtls, route_cert)),
            ),
            (
                "client-id",
                format!("upstream: {{ {} }}", https(mtls, "client_cert_id: client")),
            ),
        ] {
            let _ = writeln!(yaml, "  - {{ id: {id}, host: {id}.test, uri: /*, {more} }}");
        }
        for id in ["group", "consumer", "credential", "key", "guarded"] {
            let _ = writeln!(
                yaml,
                "  - {{ id: {id}, host: {id}.test, uri: /*, {plain}, plugins: {{ key-auth: {{}} }} }}"
            );
        }
        let _ = writeln!(
            yaml,
            "  - {{ id: anonymous, host: anonymous.test, uri: /*, {plain}, plugins: {{ key-auth: {{ anonymous_consumer: nobody }} }} }}"
        );
        yaml
    }

    /// What stands behind the reference of that name, once it does.
    fn value(&self, name: &str) -> String {
        match name {
            "upstream-ca" | "service-ca" => self.ca.clone(),
            "route-cert" | "client-id" => self.client.cert_pem.clone(),
            "metadata" => "https://ours.test".to_owned(),
            "attr" => "8443".to_owned(),
            name => format!("{name}-value"),
        }
    }

    fn neighbours_serve(&self, gateway: &Gateway) {
        assert_eq!(gateway.get("open.test", "/", &[]).status, 200);
        for key in ["bob", "neighbour"] {
            let reply = gateway.get("guarded.test", "/", &[("apikey", key)]);
            assert_eq!(reply.status, 200, "{key}");
        }
    }
}

fn status(gateway: &Gateway, place: &Place) -> u16 {
    let headers = [("apikey", place.key)];
    let headers = &headers[usize::from(place.key.is_empty())..];
    let path = if place.name == "attr" {
        "/?tls=yes"
    } else {
        "/"
    };
    let reply = gateway.get(&format!("{}.test", place.name), path, headers);
    match (place.name, reply.status) {
        ("attr", 301) => 200,
        (_, status) => status,
    }
}

#[test]
fn every_place_refuses_alone_and_heals_alone() {
    let stand = Stand::new();
    let builder = Gateway::builder()
        .file("secrets/present", "present-value")
        .file("secrets/client-key", certs::key_text(&stand.client))
        .bootstrap("plugin_attr: { redirect: { https_port: '$secret://file/early/attr' } }");
    let folder = builder.dir().join("secrets").display().to_string();
    let managers = format!(
        "claviger: {{ secrets: {{ managers: [{{ id: file/early, path: {folder}, ttl: 1, neg_ttl: 1 }}] }} }}"
    );
    let gateway = builder
        .bootstrap(&managers)
        .resources(stand.resources(&folder))
        .unready()
        .start();
    wait_until("routes are served", || {
        gateway.get("open.test", "/", &[]).status == 200
    });
    for (healed, place) in PLACES.iter().enumerate() {
        stand.neighbours_serve(&gateway);
        for place in &PLACES[healed..] {
            let before = stand.plain.count() + stand.tls.connections() + stand.mtls.connections();
            assert_eq!(status(&gateway, place), place.refusal, "{}", place.name);
            let after = stand.plain.count() + stand.tls.connections() + stand.mtls.connections();
            assert_eq!(before, after, "{}: no refusal reaches a node", place.name);
        }
        assert!(!gateway.is_ready(), "{} is missing", place.name);
        gateway.write_file(&format!("secrets/{}", place.name), stand.value(place.name));
        wait_until(place.name, || status(&gateway, place) == 200);
    }
    for place in PLACES {
        assert_eq!(status(&gateway, place), 200, "{}", place.name);
    }
    wait_until("nothing is missing", || gateway.is_ready());
    let reply = gateway.get("attr.test", "/x?tls=yes", &[]);
    assert_eq!(
        reply.header("location"),
        Some("https://attr.test:8443/x?tls=yes")
    );
    let log = gateway.log();
    assert!(!log.contains("-value"), "no value is logged");
}

#[test]
fn a_global_rule_without_its_value_refuses_every_request_and_no_other_plugin() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder();
    let resources = format!(
        r#"
secrets:
  - {{ id: file/main, path: {}/secrets, ttl: 1, neg_ttl: 1 }}
global_rules:
  - {{ id: 1, plugins: {{ ip-restriction: {{ blacklist: ['$secret://file/main/net'] }} }} }}
  - {{ id: 2, plugins: {{ request-id: {{}} }} }}
routes:
  - {{ id: a, uri: /*, upstream: {{ type: roundrobin, nodes: {{ '{}': 1 }} }} }}
"#,
        builder.dir().display(),
        upstream.addr
    );
    let gateway = builder
        .file("secrets/other", "x")
        .resources(resources)
        .unready()
        .start();
    let reply = gateway.get("a.test", "/", &[]);
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("ip-restriction"), "{}", reply.text());
    assert_eq!(upstream.count(), 0);
    gateway.write_file("secrets/net", "203.0.113.0/24");
    wait_until("the rule holds", || {
        gateway.get("a.test", "/", &[]).status == 200
    });
    gateway.write_file("secrets/net", "127.0.0.0/8");
    wait_until("the rule's value rotates", || {
        gateway.get("a.test", "/", &[]).status == 403
    });
}

#[test]
fn names_without_a_part_of_their_secrets_refuse_alone_and_heal_alone() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let names = ["good.test", "any.test", "two.test", "keys.test", "ca.test"];
    let issued = certs::server(&authority, &names);
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/cert", &issued.cert_pem)
        .file("secrets/key", certs::key_text(&issued));
    let resources = format!(
        r#"
secrets:
  - {{ id: file/main, path: {}/secrets, ttl: 1, neg_ttl: 1 }}
ssls:
  - {{ id: good, sni: good.test, cert: '$secret://file/main/cert', key: '$secret://file/main/key' }}
  - {{ id: ca, sni: ca.test, cert: '$secret://file/main/cert', key: '$secret://file/main/key', client: {{ ca: '$secret://file/main/client-ca' }} }}
  - {{ id: two, sni: two.test, cert: '$secret://file/main/cert', key: '$secret://file/main/key', certs: ['$secret://file/main/cert2'], keys: ['$secret://file/main/key'] }}
  - {{ id: keys, sni: keys.test, cert: '$secret://file/main/cert', key: '$secret://file/main/key2' }}
  - {{ id: wild, sni: '*.test', cert: '$secret://file/main/cert', key: '$secret://file/main/key' }}
routes:
  - {{ id: a, uri: /*, upstream: {{ type: roundrobin, nodes: {{ '{}': 1 }} }} }}
"#,
        builder.dir().display(),
        upstream.addr
    );
    let gateway = builder.resources(resources).unready().start();
    let answers = |name: &str| {
        let connection = Connection::open_tls(gateway.https(), name, &ca);
        let mut connection = connection.ok()?;
        connection.request("GET", "/", &[("Host", name)]);
        // In TLS 1.3 a client learns only now that it was refused.
        Some(connection.reply().ok()??.status)
    };
    wait_until("the good name serves", || answers("good.test") == Some(200));
    assert_eq!(answers("any.test"), Some(200), "the wildcard serves");
    for (name, file, value) in [
        ("two.test", "cert2", issued.cert_pem.clone()),
        ("keys.test", "key2", certs::key_text(&issued).to_owned()),
        ("ca.test", "client-ca", ca.clone()),
    ] {
        // The wildcard beside it must not take its place.
        assert_eq!(answers(name), None, "{name} must refuse");
        assert!(!gateway.is_ready());
        gateway.write_file(&format!("secrets/{file}"), value);
        if name == "ca.test" {
            wait_until("all is there", || gateway.is_ready());
            assert_eq!(
                answers(name),
                None,
                "a client without certificate is refused"
            );
        } else {
            wait_until(name, || answers(name) == Some(200));
        }
        assert_eq!(answers("good.test"), Some(200));
    }
}
