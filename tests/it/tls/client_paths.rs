//! `skip_mtls_uri_regex`: the handshake asks, requests are held to it.

use claviger::tls::dev::Authority;
use openssl::ssl::SslVersion;

use super::visitor::{Card, Visitor, ask};
use super::*;

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    good: Card,
    expired: Card,
    stranger: Card,
}

/// `m.test` needs certificates for all but `/open/…` and `…/health`; `o.test` needs none, and
/// `n.test` needs them for everything.
fn start_paths() -> Setup {
    start_paths_with(false)
}

fn start_paths_with(tickets: bool) -> Setup {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("clients").unwrap();
    let ca = clients.cert_pem().unwrap();
    let server = |name| certs::server(&authority, &[name]);
    let upstream = Upstream::start(Behaviour::ok());
    let skip = r#", skip_mtls_uri_regex: ["^/open/", "/health$"]"#;
    let resources = resources(
        &upstream,
        &[
            item(
                "m",
                &["m.test", "*.m.test"],
                &server("m.test"),
                &guard(&ca, skip),
            ),
            item("n", &["n.test"], &server("n.test"), &guard(&ca, "")),
            item("o", &["o.test"], &server("o.test"), ""),
        ],
    );
    let gateway = Gateway::builder()
        .bootstrap(&format!(
            "apisix: {{ ssl: {{ ssl_session_tickets: {tickets} }} }}"
        ))
        .resources(resources)
        .start();
    Setup {
        upstream,
        gateway,
        good: Card::of(&clients),
        expired: Card::with(&clients, "late", |options| {
            options.starts_in_secs = -7200;
            options.ends_in_secs = -3600;
        }),
        stranger: Card::of(&authority),
    }
}

#[test]
fn only_exempt_paths_are_served_without_a_certificate() {
    let setup = start_paths();
    let cases = [
        ("/open/a", true),
        ("/a/health", true),
        ("/open/../open/a", true),
        ("/%6fpen/a", true),
        ("/", false),
        ("/open", false),
        ("/healthy", false),
        ("/Open/a", false),
        ("/?/open/", false),
        ("/a?x=/health", false),
        ("/open/../a", false),
        ("/open/%2e%2e/a", false),
        ("/open/.%2E/a", false),
        ("/open%2f..%2fa", false),
        ("//open/../a", false),
        ("/open/..//a", false),
        ("/a/health/../b", false),
    ];
    for version in VERSIONS {
        for (path, exempt) in cases {
            setup.upstream.forget();
            let visitor = Visitor::new(setup.gateway.https(), "m.test").version(version);
            let status = visitor.ask("m.test", path);
            let expected = if exempt { 200 } else { 400 };
            assert_eq!(status, Ok(expected), "{path}");
            let seen = setup.upstream.take();
            assert_eq!(seen.len(), usize::from(exempt), "{path}");
            for request in seen {
                let sent = request.word(1);
                assert!(!sent.contains(".."), "{path} went up as {sent}");
            }
        }
        for (card, expected) in [
            (&setup.good, 200),
            (&setup.expired, 400),
            (&setup.stranger, 400),
        ] {
            let visitor = Visitor::new(setup.gateway.https(), "m.test").version(version);
            let visitor = visitor.card(card);
            assert_eq!(visitor.ask("m.test", "/"), Ok(expected));
            assert_eq!(visitor.ask("m.test", "/open/a"), Ok(200));
        }
    }
    for said in [
        "client certificate was not present",
        "client certificate verification is not passed: FAILED:certificate has expired",
        "client certificate verification is not passed: FAILED:unable to verify the first certificate",
    ] {
        await_log(&setup.gateway, said);
    }
}

#[test]
fn one_connection_may_ask_for_exempt_paths_before_it_asks_for_others() {
    let setup = start_paths();
    let mut visit = Visitor::new(setup.gateway.https(), "m.test")
        .connect()
        .unwrap();
    assert_eq!(ask(&mut visit, "m.test", "/open/a"), Some(200));
    assert_eq!(ask(&mut visit, "m.test", "/open/b"), Some(200));
    assert_eq!(ask(&mut visit, "m.test", "/a"), Some(400));
    assert!(visit.is_closed(), "nothing more is read");
    let http2 = Visitor::new(setup.gateway.https(), "m.test").connect_http2();
    for (path, status) in [
        ("/open/a", 200),
        ("/a", 400),
        ("/open/../a", 400),
        ("/a/health", 200),
    ] {
        assert_eq!(http2.ask("m.test", path, &[]), Some(status), "{path}");
    }
}

#[test]
fn other_names_connections_reach_exempt_paths_only() {
    let setup = start_paths();
    let at = setup.gateway.https();
    for (sni, card) in [
        ("o.test", None),
        ("n.test", Some(&setup.good)),
        ("x.m.test", Some(&setup.good)),
    ] {
        let visitor = Visitor::new(at, sni);
        let visitor = card.map_or(visitor, |card| visitor.card(card));
        assert_eq!(visitor.ask("m.test", "/a"), Ok(400), "{sni}");
        assert_eq!(visitor.ask("m.test", "/open/a"), Ok(200), "{sni}");
        assert_eq!(visitor.ask("M.test.:443", "/a"), Ok(400), "{sni}");
    }
    // Where the whole name needs one, another name's certificate is none.
    let visitor = Visitor::new(at, "m.test").card(&setup.good);
    assert_eq!(visitor.ask("n.test", "/open/a"), Ok(400));
    let said = "client certificate verified with SNI x.m.test, but the host is m.test";
    await_log(&setup.gateway, said);
}

#[test]
fn a_resumed_session_keeps_the_verdict_it_was_made_with() {
    for tickets in [false, true] {
        let setup = start_paths_with(tickets);
        let session = setup.gateway.dir().join("session");
        let session = session.to_str().unwrap();
        for (name, card, expected) in [
            ("none", None, "400 Bad"),
            ("good", Some(&setup.good), "200 X"),
            ("bad", Some(&setup.expired), "400 Bad"),
        ] {
            let file = setup.gateway.dir().join(name);
            let mut own = vec!["-ign_eof", "-servername", "m.test"];
            if let Some(card) = card {
                std::fs::write(&file, &card.pem).unwrap();
                own.extend(["-cert", file.to_str().unwrap()]);
            }
            for version in ["-tls1_2", "-tls1_3"] {
                let ask = |more: &[&str], path: &str| {
                    let request =
                        format!("GET {path} HTTP/1.1\r\nHost: m.test\r\nConnection: close\r\n\r\n");
                    let args = [more, &[version]].concat();
                    converse(setup.gateway.https(), &args, &request)
                };
                let first = ask(&[&own[..], &["-sess_out", session]].concat(), "/open/a");
                assert!(
                    first.contains("200 X") && first.contains("New, "),
                    "{first}"
                );
                // The second connection presents nothing: the session alone speaks for it.
                let resumed = ["-ign_eof", "-servername", "m.test", "-sess_in", session];
                let second = ask(&resumed, "/a");
                let case = format!("tickets {tickets} {version} {name}\n{second}");
                assert!(second.contains("Reused, "), "{case}");
                assert!(second.contains(expected), "{case}");
                // Nor does it open another name of the item, or the name that enforces.
                for other in ["x.m.test", "n.test"] {
                    let args = ["-ign_eof", "-servername", other, "-sess_in", session];
                    assert!(!ask(&args, "/a").contains("Reused, "), "{other} {case}");
                }
            }
        }
    }
}
