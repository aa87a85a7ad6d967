//! TLS towards nodes: what is verified, what is shown, and which connections are shared.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use claviger::tls::dev::{Authority, Issued, KeyKind, LeafOptions, Usage};
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::harness::gateway::Builder;
use crate::harness::{Behaviour, Gateway, Nginx, Upstream, certs, wait_until};

pub(super) const NAME: &str = "node.test";

pub(super) struct Node {
    pub(super) upstream: Upstream,
    pub(super) ca: String,
}

/// A node whose certificate is for `node.test`, and its CA.
pub(super) fn node(client_ca: Option<&str>) -> Node {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &[NAME]);
    let key = certs::key_text(&issued).as_bytes();
    Node {
        upstream: Upstream::start_mtls(Behaviour::ok(), &issued.cert_pem, key, client_ca),
        ca: authority.cert_pem().unwrap(),
    }
}

/// A gateway that reads secrets from the folder `secrets` (file/main), with these routes: path
/// and `tls` of its upstream.
pub(super) fn routes(builder: Builder, node: &Node, routes: &[(&str, &str)]) -> Builder {
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {} }}\nroutes:\n",
        builder.dir().join("secrets").display()
    );
    for (path, tls) in routes {
        yaml.push_str(&format!(
            "  - {{ id: {path}, uri: /{path}, upstream: {{ scheme: https, nodes: {{ \"{}\": 1 }}, tls: {tls} }} }}\n",
            node.upstream.addr
        ));
    }
    builder.resources(yaml)
}

pub(super) fn status(gateway: &Gateway, host: &str, path: &str) -> u16 {
    gateway.get(host, path, &[]).status
}

#[test]
fn the_name_asked_for_is_the_host_that_is_sent() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &[NAME]);
    let say = "location / { return 200 [$ssl_server_name]; }";
    let nginx = Nginx::start(&issued, "", say, &[]);
    let upstream = |rest: &str| {
        format!(
            "{{ scheme: https, tls: {{ verify: false }}, nodes: {{ \"{}\": 1 }}, {rest} }}",
            nginx.addr
        )
    };
    let gateway = Gateway::start(format!(
        "routes:
  - {{ id: pass, uri: /pass, upstream: {} }}
  - {{ id: node, uri: /node, upstream: {} }}
  - {{ id: rewrite, uri: /rewrite, upstream: {} }}
  - {{ id: plugin, uri: /plugin, plugins: {{ proxy-rewrite: {{ host: plugin.test }} }}, upstream: {} }}
",
        upstream("pass_host: pass"),
        upstream("pass_host: node"),
        upstream("pass_host: rewrite, upstream_host: 'other.test:8443'"),
        upstream("pass_host: pass"),
    ));
    for (host, path, name) in [
        ("client.test:81", "/pass", "client.test"),
        ("192.0.2.1", "/pass", ""),
        ("[2001:db8::1]:81", "/pass", ""),
        ("client.test", "/node", ""),
        ("client.test", "/rewrite", "other.test"),
        ("client.test", "/plugin", "plugin.test"),
    ] {
        let reply = gateway.get(host, path, &[]);
        assert_eq!(reply.text(), format!("[{name}]"), "{host} {path}");
    }
}

#[test]
fn nodes_are_spoken_to_in_modern_tls_alone() {
    let authority = Authority::new().unwrap();
    let ecdsa = certs::server(&authority, &[NAME]);
    let of = |key: KeyKind| {
        let options = LeafOptions {
            key,
            ..LeafOptions::default()
        };
        authority.issue(&[NAME], &options).unwrap()
    };
    let say = "location / { return 200 $ssl_protocol; }";
    for (issued, protocols, said) in [
        (&ecdsa, "TLSv1.3", Some("TLSv1.3")),
        (&ecdsa, "TLSv1.2", Some("TLSv1.2")),
        (&ecdsa, "TLSv1.1", None),
        (&of(KeyKind::Rsa2048), "TLSv1.3", Some("TLSv1.3")),
        (&of(KeyKind::EcdsaP384), "TLSv1.3", Some("TLSv1.3")),
        (&of(KeyKind::Ed25519), "TLSv1.3", None),
    ] {
        let server = format!("ssl_protocols {protocols}; ssl_ciphers DEFAULT:@SECLEVEL=0; {say}");
        let nginx = Nginx::start(issued, "", &server, &[]);
        let gateway = Gateway::start(format!(
            "routes:\n  - {{ id: app, uri: /*, upstream: {{ scheme: https, \
             tls: {{ verify: false }}, nodes: {{ \"{}\": 1 }} }} }}\n",
            nginx.addr
        ));
        let reply = gateway.get(NAME, "/", &[]);
        match said {
            Some(said) => assert_eq!(reply.text(), said),
            None => assert_eq!(reply.status, 502, "{protocols}"),
        }
    }
}

#[test]
fn a_handshake_that_stalls_is_bound_by_the_connect_timeout() {
    // Accepted by the kernel, and never spoken to.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = node(None);
    let gateway = |nodes: &str| {
        Gateway::start(format!(
            "routes:\n  - {{ id: app, uri: /*, upstream: {{ scheme: https, tls: {{ verify: false }}, \
             timeout: {{ connect: 0.3, send: 9, read: 9 }}, nodes: {{ {nodes} }} }} }}\n"
        ))
    };
    let silent = silent.local_addr().map(|addr| (silent, addr)).unwrap();
    let alone = gateway(&format!("\"{}\": 1", silent.1));
    let started = Instant::now();
    assert_eq!(status(&alone, NAME, "/"), 504);
    assert!(started.elapsed() < Duration::from_secs(5));
    let beside = gateway(&format!(
        "\"{}\": 1, \"{}\": 1",
        silent.1, good.upstream.addr
    ));
    for _ in 0..2 {
        assert_eq!(status(&beside, NAME, "/"), 200, "the other node serves");
    }
}

#[test]
fn connections_are_shared_where_trust_is_equal_and_only_there() {
    let node = node(None);
    let other = Authority::new().unwrap().cert_pem().unwrap();
    let builder = Gateway::builder()
        .file("secrets/ca.pem", &node.ca)
        .file("secrets/copy.pem", &node.ca)
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
                "same",
                "{ verify: true, ca_certs: $secret://file/main/copy.pem }",
            ),
            (
                "wrong",
                "{ verify: true, ca_certs: $secret://file/main/other.pem }",
            ),
            ("system", "{ verify: true }"),
            ("off", "{ verify: false }"),
        ],
    )
    .start();
    let connections = || node.upstream.connections();
    assert_eq!(status(&gateway, NAME, "/off"), 200);
    assert_eq!(
        status(&gateway, NAME, "/right"),
        200,
        "not over the unverified connection"
    );
    assert_eq!(connections(), 2);
    for path in ["/right", "/same", "/off"] {
        assert_eq!(status(&gateway, NAME, path), 200, "{path}");
    }
    assert_eq!(connections(), 2, "equal trust rides on what is open");
    for path in ["/wrong", "/system"] {
        assert_eq!(
            status(&gateway, NAME, path),
            502,
            "{path} must not ride on trust of others"
        );
    }
    assert_eq!(
        node.upstream.count(),
        5,
        "the node has seen no more requests"
    );
}

/// A client certificate of this CA with serial number 7, whatever the CA would choose.
pub(super) fn client(authority: &Authority, name: &str) -> Issued {
    let options = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    let mut issued = authority.issue(&[name], &options).unwrap();
    let key = PKey::private_key_from_pem(certs::key_text(&issued).as_bytes()).unwrap();
    let ca = X509::from_pem(authority.cert_pem().unwrap().as_bytes()).unwrap();
    let ca_key = PKey::private_key_from_pem(authority.key_pem().unwrap().expose()).unwrap();
    let made = X509::from_pem(issued.cert_pem.as_bytes()).unwrap();
    let mut builder = X509::builder().unwrap();
    let serial = BigNum::from_u32(7).unwrap();
    builder.set_version(2).unwrap();
    builder
        .set_serial_number(&Asn1Integer::from_bn(&serial).unwrap())
        .unwrap();
    builder.set_subject_name(made.subject_name()).unwrap();
    builder.set_issuer_name(ca.subject_name()).unwrap();
    builder.set_pubkey(&key).unwrap();
    let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(9));
    builder.set_not_before(&from.unwrap()).unwrap();
    builder.set_not_after(&to.unwrap()).unwrap();
    builder.sign(&ca_key, MessageDigest::sha256()).unwrap();
    issued.cert_pem = String::from_utf8(builder.build().to_pem().unwrap()).unwrap();
    issued
}

pub(super) fn der(issued: &Issued) -> Option<Vec<u8>> {
    let certificate = X509::from_pem(issued.cert_pem.as_bytes()).unwrap();
    Some(certificate.to_der().unwrap())
}

const INLINE: &str = "{ verify: false, client_cert: $secret://file/main/client.crt, \
    client_key: $secret://file/main/client.key }";

#[test]
fn a_client_certificate_is_shown_inline_or_by_id() {
    let clients = Authority::named("clients").unwrap();
    let node = node(Some(&clients.cert_pem().unwrap()));
    let shown = client(&clients, "gateway");
    let builder = Gateway::builder()
        .file("secrets/client.crt", &shown.cert_pem)
        .file("secrets/client.key", certs::key_text(&shown));
    let folder = builder.dir().join("secrets");
    let upstream = |tls: &str| {
        format!(
            "{{ scheme: https, nodes: {{ \"{}\": 1 }}, tls: {tls} }}",
            node.upstream.addr
        )
    };
    let gateway = builder
        .resources(format!(
            r#"
secrets:
  - {{ id: file/main, path: {} }}
ssls:
  - id: towards-nodes
    type: client
    cert: $secret://file/main/client.crt
    key: $secret://file/main/client.key
routes:
  - {{ id: inline, uri: /inline, upstream: {} }}
  - {{ id: by-id, uri: /by-id, upstream: {} }}
  - {{ id: none, uri: /none, upstream: {} }}
"#,
            folder.display(),
            upstream(INLINE),
            upstream("{ verify: false, client_cert_id: towards-nodes }"),
            upstream("{ verify: false }"),
        ))
        .start();
    assert_eq!(
        status(&gateway, NAME, "/none"),
        502,
        "the node wants a certificate"
    );
    assert_eq!(status(&gateway, NAME, "/inline"), 200);
    assert_eq!(status(&gateway, NAME, "/by-id"), 200);
    assert_eq!(
        node.upstream.client_certificates(),
        [der(&shown)],
        "one certificate, one connection"
    );
    assert_eq!(
        status(&gateway, NAME, "/none"),
        502,
        "not over a connection that showed one"
    );
}

#[test]
fn a_rotated_client_certificate_leaves_the_old_connections() {
    let clients = Authority::named("clients").unwrap();
    let node = node(Some(&clients.cert_pem().unwrap()));
    let (old, new) = (client(&clients, "old"), client(&clients, "new"));
    let builder = Gateway::builder()
        .bootstrap("apisix: { lru: { secret: { ttl: 1, neg_ttl: 1 } } }")
        .file("secrets/client.crt", &old.cert_pem)
        .file("secrets/client.key", certs::key_text(&old));
    let gateway = routes(builder, &node, &[("app", INLINE)]).start();
    for _ in 0..2 {
        assert_eq!(status(&gateway, NAME, "/app"), 200);
    }
    assert_eq!(node.upstream.client_certificates(), [der(&old)]);

    gateway.write_file("secrets/client.crt", &new.cert_pem);
    gateway.write_file("secrets/client.key", certs::key_text(&new));
    wait_until("the new certificate is shown", || {
        // While certificate and key are not of one pair, the old ones serve.
        assert_eq!(status(&gateway, NAME, "/app"), 200);
        node.upstream.client_certificates().last() == Some(&der(&new))
    });
    assert_eq!(status(&gateway, NAME, "/app"), 200);
    assert_eq!(node.upstream.client_certificates(), [der(&old), der(&new)]);
}
