//! What a node must prove: chain, name or address, time, use; and against which trust.

use std::path::Path;

use claviger::tls::dev::{Authority, Issued, LeafOptions, Usage};

use super::tls::{NAME, Node, node, routes, status};
use crate::harness::gateway::claviger;
use crate::harness::{Behaviour, Gateway, H2Node, Pipe, Upstream, certs, wait_until};

#[test]
fn a_node_is_verified_by_ca_and_name_where_that_is_asked() {
    let node = node(None);
    let other = Authority::new().unwrap().cert_pem().unwrap();
    let builder = Gateway::builder()
        .file("secrets/ca.pem", &node.ca)
        .file("secrets/other.pem", other);
    let gateway = routes(
        builder,
        &node,
        &[
            (
                "right",
                "{ verify: true, ca_certs: $secret://file/main/ca.pem }",
            ),
            (
                "wrong",
                "{ verify: true, ca_certs: $secret://file/main/other.pem }",
            ),
            ("system", "{ verify: true }"),
            ("off", "{ verify: false }"),
            ("unset", "{}"),
        ],
    )
    .start();
    assert_eq!(status(&gateway, NAME, "/right"), 200);
    assert_eq!(status(&gateway, &format!("{NAME}:8443"), "/right"), 200);
    assert_eq!(
        status(&gateway, "other.test", "/right"),
        502,
        "another name"
    );
    assert_eq!(
        status(&gateway, "127.0.0.1", "/right"),
        502,
        "the certificate is for no address"
    );
    assert_eq!(status(&gateway, NAME, "/wrong"), 502);
    assert_eq!(status(&gateway, NAME, "/system"), 502);
    for path in ["/off", "/unset"] {
        assert_eq!(status(&gateway, NAME, path), 200, "{path}");
        assert_eq!(status(&gateway, "127.0.0.1", path), 200, "{path}");
    }
}

#[test]
fn each_rule_of_verification_holds() {
    let (root, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let far = root.intermediate("between").unwrap();
    let started = |issued: &Issued| {
        let key = certs::key_text(issued).as_bytes();
        Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key)
    };
    let leaf_only = |issued: &Issued| Issued {
        cert_pem: certs::first(&issued.cert_pem),
        ..issued.clone()
    };
    let client_use = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    let own = Issued {
        cert_pem: other.cert_pem().unwrap(),
        key_pem: other.key_pem().unwrap(),
    };
    // Name of the case, certificate, hosts that pass, hosts that do not.
    let cases: Vec<(&str, Issued, &[&str], &[&str])> = vec![
        (
            "name",
            certs::server(&root, &[NAME, "b.test"]),
            &[NAME, "b.test", "NODE.test", "node.test.", "node.test:8443"],
            &["a.test", "x.node.test", "127.0.0.1", "[::1]"],
        ),
        (
            "wildcard",
            certs::server(&root, &["*.node.test"]),
            &["a.node.test", "b.node.test"],
            &[NAME, "a.b.node.test", "node-test"],
        ),
        (
            "address",
            certs::server(&root, &["127.0.0.1", "::1", NAME]),
            &["127.0.0.1", "127.0.0.1:8443", "[::1]", "[::1]:443", NAME],
            &["127.0.0.2", "[::2]"],
        ),
        (
            "address-of-another-ca",
            certs::server(&other, &["127.0.0.1"]),
            &[],
            &["127.0.0.1"],
        ),
        (
            "address-expired",
            certs::expired(&root, &["127.0.0.1"]),
            &[],
            &["127.0.0.1"],
        ),
        (
            "address-of-a-client",
            root.issue(&["127.0.0.1"], &client_use).unwrap(),
            &[],
            &["127.0.0.1"],
        ),
        ("expired", certs::expired(&root, &[NAME]), &[], &[NAME]),
        (
            "of-another-ca",
            certs::server(&other, &[NAME]),
            &[],
            &[NAME],
        ),
        ("self-signed", own, &[], &[NAME, "127.0.0.1"]),
        (
            "of-a-client",
            root.issue(&[NAME], &client_use).unwrap(),
            &[],
            &[NAME],
        ),
        ("chain", certs::server(&far, &[NAME]), &[NAME], &["a.test"]),
        (
            "broken-chain",
            leaf_only(&certs::server(&far, &[NAME])),
            &[],
            &[NAME],
        ),
    ];
    let nodes: Vec<_> = cases.iter().map(|case| started(&case.1)).collect();
    let mut builder = Gateway::builder().file("secrets/ca.pem", root.cert_pem().unwrap());
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {} }}\nroutes:\n",
        builder.dir().join("secrets").display()
    );
    for ((name, ..), node) in cases.iter().zip(&nodes) {
        yaml.push_str(&format!(
            "  - {{ id: {name}, uri: /{name}, upstream: {{ scheme: https, nodes: {{ \"{}\": 1 }}, \
             tls: {{ verify: true, ca_certs: $secret://file/main/ca.pem }} }} }}\n",
            node.addr
        ));
    }
    builder = builder.resources(yaml);
    let gateway = builder.start();
    for round in 0..2 {
        for ((name, _, good, bad), node) in cases.iter().zip(&nodes) {
            for (hosts, expected) in [(good, 200), (bad, 502)] {
                for host in *hosts {
                    node.forget();
                    let answer = status(&gateway, host, &format!("/{name}"));
                    assert_eq!(answer, expected, "{name}: {host}, round {round}");
                    assert_eq!(node.count(), usize::from(expected == 200), "{name}: {host}");
                }
            }
        }
    }
}

#[test]
fn a_node_that_proves_its_address_later_is_used_then() {
    let (root, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let good = certs::server(&root, &["127.0.0.1"]);
    let bad = certs::server(&other, &["127.0.0.1"]);
    // One that keeps its connections open, and speaks HTTP/2.
    let [bad, good] = [bad, good].map(|issued| H2Node::start(&issued, &[]));
    let pipe = Pipe::start(&bad.addr.to_string());
    let builder = Gateway::builder().file("ca.pem", root.cert_pem().unwrap());
    let ca = builder.dir().join("ca.pem");
    let gateway = builder
        .bootstrap(&format!(
            "apisix: {{ ssl: {{ ssl_trusted_certificate: {} }} }}",
            ca.display()
        ))
        .resources(format!(
            "routes:\n  - {{ id: app, uri: /*, upstream: {{ scheme: https, pass_host: node, \
             nodes: {{ \"{}\": 1 }}, tls: {{ verify: true }} }} }}\n",
            pipe.addr
        ))
        .start();
    for _ in 0..2 {
        assert_eq!(status(&gateway, NAME, "/"), 502);
    }
    assert_eq!(bad.seen().len(), 0, "nothing was sent");
    pipe.lead_to(good.addr);
    assert_eq!(status(&gateway, NAME, "/"), 200);
    assert_eq!(status(&gateway, NAME, "/"), 200);
    assert_eq!(good.offered().len(), 1, "one connection");
}

#[test]
fn trust_without_ca_certs_is_the_systems_and_ca_certs_replace_it() {
    let (system, own) = (Authority::new().unwrap(), Authority::new().unwrap());
    let nodes = [&system, &own].map(|authority| {
        let issued = certs::server(authority, &[NAME]);
        let key = certs::key_text(&issued).as_bytes();
        Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key)
    });
    let resources = |folder: &Path| {
        let mut yaml = format!(
            "secrets:\n  - {{ id: file/main, path: {} }}\nroutes:\n",
            folder.join("secrets").display()
        );
        let own = "{ verify: true, ca_certs: $secret://file/main/own.pem }";
        for (index, node) in nodes.iter().enumerate() {
            for (trust, tls) in [("system", "{ verify: true }"), ("own", own)] {
                yaml.push_str(&format!(
                    "  - {{ id: {trust}{index}, uri: /{trust}{index}, upstream: {{ scheme: https, \
                     nodes: {{ \"{}\": 1 }}, tls: {tls} }} }}\n",
                    node.addr
                ));
            }
        }
        yaml
    };
    let ca = system.cert_pem().unwrap();
    for place in ["environment", "file", "reference"] {
        let builder = Gateway::builder()
            .file("secrets/own.pem", own.cert_pem().unwrap())
            .file("secrets/system.pem", &ca);
        let path = builder.dir().join("secrets/system.pem");
        let path = path.to_str().unwrap();
        let trusted =
            |text: &str| format!("apisix: {{ ssl: {{ ssl_trusted_certificate: '{text}' }} }}");
        let yaml = resources(builder.dir());
        let builder = builder.resources(yaml);
        let gateway = match place {
            "environment" => builder.env("SSL_CERT_FILE", path),
            "file" => builder.bootstrap(&trusted(path)),
            _ => builder
                .bootstrap(&trusted("$env://TRUSTED"))
                .env("TRUSTED", &ca),
        }
        .start();
        let statuses =
            ["/system0", "/system1", "/own0", "/own1"].map(|path| status(&gateway, NAME, path));
        assert_eq!(statuses, [200, 502, 502, 200], "{place}");
    }
}

#[test]
fn what_is_not_trusted_is_passed_over_for_another_node() {
    let authority = Authority::new().unwrap();
    let other = Authority::new().unwrap();
    let [good, expired, foreign] = [
        certs::server(&authority, &[NAME]),
        certs::expired(&authority, &[NAME]),
        certs::server(&other, &[NAME]),
    ]
    .map(|issued| {
        let key = certs::key_text(&issued).as_bytes();
        Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key)
    });
    let builder = Gateway::builder()
        .bootstrap("apisix: { show_upstream_status_in_response_header: true }")
        .file("ca.pem", authority.cert_pem().unwrap());
    let ca = builder.dir().join("ca.pem");
    let gateway = builder
        .bootstrap(&format!(
            "apisix: {{ ssl: {{ ssl_trusted_certificate: {} }} }}",
            ca.display()
        ))
        .resources(format!(
            "routes:\n  - {{ id: app, uri: /*, upstream: {{ scheme: https, tls: {{ verify: true }}, \
             nodes: {{ \"{}\": 1, \"{}\": 1, \"{}\": 1 }} }} }}\n",
            expired.addr, foreign.addr, good.addr
        ))
        .start();
    // Nothing was sent, so a POST may go on as well.
    for method in ["GET", "POST", "POST"] {
        let mut connection = gateway.connect();
        connection.request(method, "/", &[("Host", NAME), ("Content-Length", "0")]);
        let reply = connection.expect_reply();
        assert_eq!(reply.status, 200);
        let statuses = reply.header("x-apisix-upstream-status").unwrap();
        assert!(statuses.ends_with("200"), "{statuses}");
    }
    assert_eq!((expired.count(), foreign.count(), good.count()), (0, 0, 3));
}

#[test]
fn a_rotated_ca_does_not_ride_on_connections_of_the_old() {
    let (old, new) = (
        Authority::named("old").unwrap(),
        Authority::named("new").unwrap(),
    );
    let node = {
        let issued = certs::server(&old, &[NAME]);
        let key = certs::key_text(&issued).as_bytes();
        Node {
            upstream: Upstream::start_tls(Behaviour::ok(), &issued.cert_pem, key),
            ca: old.cert_pem().unwrap(),
        }
    };
    let builder = Gateway::builder()
        .bootstrap("apisix: { lru: { secret: { ttl: 1, neg_ttl: 1 } } }")
        .file("secrets/ca.pem", &node.ca);
    let gateway = routes(
        builder,
        &node,
        &[(
            "app",
            "{ verify: true, ca_certs: $secret://file/main/ca.pem }",
        )],
    )
    .start();
    assert_eq!(status(&gateway, NAME, "/app"), 200);
    gateway.write_file("secrets/ca.pem", new.cert_pem().unwrap());
    wait_until("the old CA is trusted no more", || {
        status(&gateway, NAME, "/app") == 502
    });
    for _ in 0..3 {
        assert_eq!(
            status(&gateway, NAME, "/app"),
            502,
            "an open connection waits"
        );
    }
    let both = old.cert_pem().unwrap() + &new.cert_pem().unwrap();
    gateway.write_file("secrets/ca.pem", both);
    wait_until("both are trusted", || status(&gateway, NAME, "/app") == 200);
}

#[test]
fn what_is_not_verified_is_warned_of() {
    let node = node(None);
    let builder = routes(
        Gateway::builder(),
        &node,
        &[("off", "{ verify: false }"), ("unset", "{}")],
    );
    let gateway = builder.start();
    let resources = gateway.dir().join("apisix.yaml");
    let config = gateway.dir().join("config.yaml");
    let output = claviger(&[
        "check",
        "--config",
        config.to_str().unwrap(),
        "--resources",
        resources.to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let warned: Vec<_> = said
        .lines()
        .filter(|line| line.contains("not verified"))
        .collect();
    assert_eq!(warned.len(), 1, "{said}");
    assert!(warned[0].contains("unset"), "{said}");
}
