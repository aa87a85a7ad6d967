//! What is known of a client afterwards: variables in conditions, header fields and logs, and
//! RFC 9440's fields, which no client can forge.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger::tls::dev::Authority;
use openssl::ssl::SslVersion;

use crate::harness::h2;

use super::visitor::{Card, Visitor, ask};
use super::*;

const FORGED: [(&str, &str); 6] = [
    ("Client-Cert", ":Zm9yZ2Vk:"),
    ("CLIENT-CERT", ":Zm9yZ2Vk:"),
    ("client_cert", ":Zm9yZ2Vk:"),
    ("Client-Cert-Chain", ":Zm9yZ2Vk:"),
    ("Client_Cert-Chain", ":Zm9yZ2Vk:"),
    ("Connection", "client-cert, client-cert-chain"),
];

struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    clients: Authority,
}

/// `leaf.test`, `chain.test` and `none.test` tell upstreams so much of certificates of one CA;
/// `part.test` asks for them where the path is not `/open`; `o.test` asks for none. No name is
/// `leaf.test`, too.
fn start_identity(more: &str) -> Setup {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("clients").unwrap();
    let ca = clients.cert_pem().unwrap();
    let server = |name| certs::server(&authority, &[name]);
    let upstream = Upstream::start(Behaviour::ok());
    let part = r#", forward: leaf, skip_mtls_uri_regex: ["^/open$"]"#;
    let items = [
        ("leaf.test", guard(&ca, ", forward: leaf")),
        ("chain.test", guard(&ca, ", forward: chain")),
        ("none.test", guard(&ca, "")),
        ("part.test", guard(&ca, part)),
        ("o.test", String::new()),
    ];
    let items = items.map(|(name, guard)| item(name, &[name], &server(name), &guard));
    let gateway = Gateway::builder()
        .bootstrap("apisix: { ssl: { fallback_sni: leaf.test } }")
        .bootstrap(more)
        .resources(resources(&upstream, &items))
        .start();
    Setup {
        upstream,
        gateway,
        clients,
    }
}

/// Values of the fields that an application would take for one of this name.
fn fields(setup: &Setup, name: &str) -> Vec<String> {
    let requests = setup.upstream.take();
    let [request] = &requests[..] else {
        panic!("one request was expected, {} came", requests.len());
    };
    let reads_as = |field: &str| field.replace('_', "-") == name;
    let fields = request.headers.iter();
    let values = fields.filter(|(field, _)| reads_as(field));
    values.map(|(_, value)| value.clone()).collect()
}

fn encoded(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}

#[test]
fn upstreams_are_told_of_verified_certificates_as_rfc_9440_says() {
    let setup = start_identity("{}");
    let one = setup.clients.intermediate("one").unwrap();
    let card = Card::of(&one);
    let [leaf, between] = &card.der()[..] else {
        panic!("a chain of two");
    };
    let at = setup.gateway.https();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (name, expected) in [
            ("leaf.test", vec![encoded(leaf)]),
            ("chain.test", vec![encoded(leaf)]),
            ("none.test", vec![]),
        ] {
            let visit = Visitor::new(at, name).card(&card).version(version);
            let mut visit = visit.connect().unwrap();
            for forged in [&[][..], &FORGED] {
                visit.request("GET", "/", &[&[("Host", name)], forged].concat());
                assert_eq!(visit.expect_reply().status, 200);
                let requests = setup.upstream.requests();
                let chain = requests[0].header("client-cert-chain").map(str::to_owned);
                assert_eq!(fields(&setup, "client-cert"), expected, "{name}");
                let between = (name == "chain.test").then(|| encoded(between));
                assert_eq!(chain, between, "{name}");
            }
        }
    }
    // Where the root itself issued it there is no chain to tell of.
    let direct = Card::of(&setup.clients);
    assert_eq!(
        Visitor::new(at, "chain.test")
            .card(&direct)
            .ask("chain.test", "/"),
        Ok(200)
    );
    assert_eq!(fields(&setup, "client-cert-chain"), Vec::<String>::new());
    let http2 = Visitor::new(at, "leaf.test").card(&card).connect_http2();
    assert_eq!(
        http2.ask("leaf.test", "/", &FORGED[..5].to_ascii_lower()),
        Some(200)
    );
    assert_eq!(fields(&setup, "client-cert"), [encoded(leaf)]);
}

#[test]
fn nobody_can_make_up_a_certificate() {
    let setup = start_identity("{}");
    let at = setup.gateway.https();
    let stranger = Card::of(&Authority::named("stranger").unwrap());
    let check = |what: &str| {
        let requests = setup.upstream.take();
        assert_eq!(requests.len(), 1, "{what}");
        for (field, value) in &requests[0].headers {
            assert!(
                !field.replace('_', "-").starts_with("client-cert"),
                "{what}: {field}: {value}"
            );
        }
    };
    assert_eq!(setup.gateway.get("leaf.test", "/", &FORGED).status, 200);
    check("in the clear");
    for (sni, card, path) in [
        ("o.test", None, "/"),
        ("part.test", None, "/open"),
        ("part.test", Some(&stranger), "/open"),
    ] {
        let visitor = Visitor::new(at, sni);
        let visitor = card.map_or(visitor, |card| visitor.card(card));
        let mut visit = visitor.connect().unwrap();
        visit.request("GET", path, &[&[("Host", sni)][..], &FORGED].concat());
        assert_eq!(visit.expect_reply().status, 200, "{sni}");
        check(sni);
        let lower = FORGED[..5].to_ascii_lower();
        assert_eq!(visitor.connect_http2().ask(sni, path, &lower), Some(200));
        check("over HTTP/2");
    }
    let mut request = http::Request::get("http://o.test/");
    for (name, value) in FORGED[..5].to_ascii_lower() {
        request = request.header(name, value);
    }
    let request = request.body(bytes::Bytes::new()).unwrap();
    let replies = h2::requests(setup.gateway.http(), vec![request]);
    assert_eq!(replies[0].head.status, 200);
    check("over HTTP/2 in the clear");
}

#[test]
fn a_certificate_counts_for_the_name_it_was_verified_for() {
    let setup = start_identity("{}");
    let card = Card::of(&setup.clients);
    let at = setup.gateway.https();
    let told = vec![encoded(&card.der()[0])];
    let named = Visitor::new(at, "leaf.test").card(&card);
    let nameless = Visitor::nameless(at).card(&card);
    for (visitor, host, expected) in [
        (named, "leaf.test", &told),
        (named, "LEAF.test.:9443", &told),
        (named, "o.test", &vec![]),
        (named, "unknown.test", &vec![]),
        (named, "127.0.0.1", &vec![]),
        (nameless, "leaf.test", &told),
        // A client that knows an address only can say no name.
        (nameless, "127.0.0.1:9443", &told),
        (nameless, "[::1]", &told),
        (nameless, "o.test", &vec![]),
    ] {
        assert_eq!(visitor.ask(host, "/"), Ok(200), "{host}");
        assert_eq!(&fields(&setup, "client-cert"), expected, "{host}");
    }
    for (visitor, host) in [
        (named, "none.test"),
        (nameless, "none.test"),
        (nameless, "part.test"),
    ] {
        assert_eq!(visitor.ask(host, "/"), Ok(400), "{host}");
    }
    // An absolute target counts as the host.
    for (target, status) in [
        ("https://leaf.test/", 200),
        ("https://none.test/", 400),
        ("https://NONE.test:9443/", 400),
    ] {
        let mut visit = named.connect().unwrap();
        let host = target.trim_start_matches("https://").trim_end_matches('/');
        visit.request("GET", target, &[("Host", host)]);
        assert_eq!(visit.expect_reply().status, status, "{target}");
    }
    // HTTP/1.0 may leave the host out, which is no name that is guarded.
    let mut visit = named.connect().unwrap();
    visit.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(visit.expect_reply().status, 200);
    let http2 = named.connect_http2();
    assert_eq!(http2.ask("leaf.test", "/", &[]), Some(200));
    assert_eq!(http2.ask("none.test", "/", &[]), Some(400));
    assert_eq!(
        http2.ask("leaf.test", "/", &[]),
        Some(200),
        "the connection goes on"
    );
}

#[test]
fn variables_tell_of_the_client_in_conditions_fields_and_logs() {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("Clients, Ltd").unwrap();
    let ca = clients.cert_pem().unwrap();
    let card = Card::named(&clients, "alice + bob");
    let upstream = Upstream::start(Behaviour::ok());
    let skip = r#", skip_mtls_uri_regex: ["^/open"]"#;
    let issued = certs::server(&authority, &["m.test"]);
    let items = item("m", &["m.test"], &issued, &guard(&ca, skip));
    let text = format!(
        "ssls:\n{items}routes:
  - id: known
    uri: /*
    priority: 1
    vars: [[ssl_client_verify, ==, SUCCESS], [ssl_client_s_dn, ~~, alice]]
    plugins:
      proxy-rewrite:
        headers:
          set:
            X-Route: known
            X-Verify: $ssl_client_verify
            X-Subject: $ssl_client_s_dn
            X-Issuer: $ssl_client_i_dn
            X-Serial: $ssl_client_serial
            X-Fingerprint: $ssl_client_fingerprint
            X-Escaped: $ssl_client_escaped_cert
            X-Start: $ssl_client_v_start
            X-End: $ssl_client_v_end
            X-Remain: $ssl_client_v_remain
            X-Sni: $ssl_server_name
            X-Reused: $ssl_session_reused
    upstream: &up {{ type: roundrobin, nodes: {{ \"{}\": 1 }} }}
  - id: unknown
    uri: /*
    plugins:
      proxy-rewrite:
        headers: {{ set: {{ X-Route: unknown, X-Verify: $ssl_client_verify, X-Subject: \"[$ssl_client_s_dn]\" }} }}
    upstream: *up
",
        upstream.addr
    );
    let gateway = Gateway::builder()
        .bootstrap("nginx_config: { http: { access_log_format: '$ssl_client_verify|$ssl_client_s_dn|$uri' } }")
        .resources(text)
        .start();
    let at = gateway.https();
    assert_eq!(
        Visitor::new(at, "m.test")
            .card(&card)
            .ask("m.test", "/open"),
        Ok(200)
    );
    let requests = upstream.take();
    let header = |name: &str| requests[0].header(name).unwrap_or_default().to_owned();
    let openssl = |args: &[&str]| {
        let file = gateway.dir().join("card.pem");
        std::fs::write(&file, card.leaf_pem()).unwrap();
        let output = Command::new("openssl")
            .args(["x509", "-noout", "-in"])
            .arg(file)
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim_end().split_once('=').unwrap().1.to_owned()
    };
    for (name, value) in [
        ("x-route", "known".to_owned()),
        ("x-verify", "SUCCESS".to_owned()),
        ("x-subject", r"CN=alice \+ bob".to_owned()),
        ("x-issuer", r"CN=Clients\, Ltd".to_owned()),
        ("x-serial", openssl(&["-serial"])),
        (
            "x-fingerprint",
            openssl(&["-fingerprint", "-sha1"])
                .replace(':', "")
                .to_lowercase(),
        ),
        ("x-start", openssl(&["-startdate"])),
        ("x-end", openssl(&["-enddate"])),
        ("x-remain", "89".to_owned()),
        ("x-sni", "m.test".to_owned()),
        ("x-reused", ".".to_owned()),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    let escaped = percent_encoding::percent_decode_str(&header("x-escaped"))
        .decode_utf8_lossy()
        .into_owned();
    assert_eq!(escaped, card.leaf_pem());

    // What an unverified certificate says is not told.
    let forged = Card::named(&Authority::named("stranger").unwrap(), "alice");
    let mut visit = Visitor::new(at, "m.test").card(&forged).connect().unwrap();
    assert_eq!(ask(&mut visit, "m.test", "/open"), Some(200));
    assert_eq!(Visitor::new(at, "m.test").ask("m.test", "/open"), Ok(200));
    assert_eq!(gateway.get("m.test", "/open", &[]).status, 200);
    let told: Vec<_> = upstream
        .take()
        .iter()
        .map(|request| {
            ["x-route", "x-verify", "x-subject"]
                .map(|name| request.header(name).unwrap_or("-").to_owned())
        })
        .collect();
    let failed = "FAILED:unable to verify the first certificate";
    assert_eq!(told[0], ["unknown", failed, "[]"]);
    assert_eq!(told[1], ["unknown", "NONE", "[]"]);
    assert_eq!(told[2][0], "unknown");
    wait_until("the access log tells it", || {
        let log = std::fs::read_to_string(gateway.dir().join("logs/access.log"));
        let log = log.unwrap_or_default();
        log.contains("SUCCESS|CN=alice") && log.contains(&format!("{failed}|-|/open"))
    });
}

/// HTTP/2 wants names in lower case.
trait Lower {
    fn to_ascii_lower(&self) -> Vec<(&'static str, &'static str)>;
}

impl Lower for [(&'static str, &'static str)] {
    fn to_ascii_lower(&self) -> Vec<(&'static str, &'static str)> {
        let lower = |name: &'static str| match name {
            "Client-Cert" | "CLIENT-CERT" => "client-cert",
            "Client-Cert-Chain" => "client-cert-chain",
            "Client_Cert-Chain" => "client_cert-chain",
            other => other,
        };
        self.iter()
            .map(|(name, value)| (lower(name), *value))
            .collect()
    }
}
