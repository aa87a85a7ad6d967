//! TLS as clients see it: which certificate a name gets, and which names get none. By the real
//! `openssl s_client` and `curl` wherever they can say it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claviger::tls::dev::{Authority, Issued, KeyKind, LeafOptions, Usage};

use crate::harness::gateway::Builder;
use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, ports, wait_until};

/// An item of `ssls`, its pair written literally.
fn item(id: &str, names: &[&str], issued: &Issued, more: &str) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap();
    format!(
        "  - id: {id}\n    snis: {}\n    cert: {}\n    key: {}\n{more}",
        serde_json::to_string(names).unwrap(),
        text(&issued.cert_pem),
        text(certs::key_text(issued)),
    )
}

/// These items, and a route for every host.
fn resources(upstream: &Upstream, items: &[String]) -> String {
    format!(
        "ssls:\n{}routes:\n  - id: all\n    uri: /*\n    upstream: {{ type: roundrobin, nodes: \
         {{ \"{}\": 1 }} }}\n",
        items.concat(),
        upstream.addr
    )
}

/// A gateway with an item for each of these names, called as its name.
fn start(builder: Builder, names: &[&str]) -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let items: Vec<_> = (0..)
        .zip(names)
        .map(|(n, name)| {
            let issued = certs::server(&authority, &[name]);
            item(&format!("i{n}"), &[name], &issued, "")
        })
        .collect();
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = builder.resources(resources(&upstream, &items)).start();
    (upstream, gateway)
}

/// What `openssl s_client` says, to a conversation that ends when the server ends it.
fn converse(addr: SocketAddr, args: &[&str], request: &str) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &addr.to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed (scripts/setup.sh)");
    // Gone already where the handshake fails.
    let _ = client.stdin.take().unwrap().write_all(request.as_bytes());
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The same without a word after the handshake.
fn s_client(addr: SocketAddr, args: &[&str]) -> String {
    converse(addr, args, "")
}

/// Subject of the certificate a client of this name is shown.
fn subject(addr: SocketAddr, name: &str) -> Option<String> {
    subject_in(&s_client(addr, &["-servername", name]))
}

fn subject_in(said: &str) -> Option<String> {
    let line = said.lines().find_map(|line| line.strip_prefix("subject="));
    line.map(|line| line.trim_start_matches("CN = ").to_owned())
}

fn assert_alert(said: &str, number: u8) {
    assert!(said.contains("no peer certificate available"), "{said}");
    let alert = format!("SSL alert number {number}");
    assert!(said.contains(&alert), "{alert} expected\n{said}");
}

/// A TLS 1.2 ClientHello whose `server_name` extension has this content.
fn hello(server_name: Option<&[u8]>) -> Vec<u8> {
    fn block<const N: usize>(content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u64).to_be_bytes();
        [&length[8 - N..], content].concat()
    }
    let extension =
        |kind: u16, content: &[u8]| [kind.to_be_bytes().to_vec(), block::<2>(content)].concat();
    let mut extensions = [
        extension(10, &block::<2>(&[0, 0x17])),
        extension(11, &block::<1>(&[0])),
        extension(13, &block::<2>(&[4, 3])),
    ]
    .concat();
    if let Some(content) = server_name {
        extensions.extend(extension(0, content));
    }
    let hello = [
        &[3, 3][..],
        &[7; 32],
        &block::<1>(&[]),
        &block::<2>(&[0xc0, 0x2b]),
        &block::<1>(&[0]),
        &block::<2>(&extensions),
    ]
    .concat();
    let message = [&[1][..], &block::<3>(&hello)].concat();
    [&[0x16, 3, 1][..], &block::<2>(&message)].concat()
}

/// The content of a `server_name` extension with this name.
fn server_name(name: &[u8]) -> Vec<u8> {
    let entry = [&[0][..], &(name.len() as u16).to_be_bytes(), name].concat();
    [&(entry.len() as u16).to_be_bytes()[..], &entry].concat()
}

fn answer_to(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    let limit = Some(Duration::from_secs(10));
    stream.set_read_timeout(limit).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    answer
}

#[test]
fn names_are_matched_exactly_then_by_wildcard_then_by_star() {
    let (_upstream, gateway) = start(Gateway::builder(), &["*.a.test", "one.a.test", "*"]);
    let at = gateway.https();
    for (asked, shown) in [
        ("one.a.test", "one.a.test"),
        ("ONE.a.Test", "one.a.test"),
        ("one.a.test.", "one.a.test"),
        ("two.a.test", "*.a.test"),
        ("three.two.a.test", "*"),
        ("a.test", "*"),
        ("elsewhere", "*"),
    ] {
        assert_eq!(subject(at, asked).as_deref(), Some(shown), "{asked}");
    }
}

#[test]
fn a_name_without_an_item_gets_an_alert_and_no_certificate() {
    let (_upstream, gateway) = start(Gateway::builder(), &["*.a.test", "b.test"]);
    let at = gateway.https();
    for name in ["c.test", "a.test", "x.y.a.test", "b.test.c.test"] {
        for version in ["-tls1_2", "-tls1_3"] {
            assert_alert(&s_client(at, &["-servername", name, version]), 112);
        }
    }
    assert_alert(&s_client(at, &["-noservername"]), 112);
    let refused = |reason: &str| {
        let start = format!("claviger_handshakes_refused_total{{reason=\"{reason}\"}} ");
        let page = gateway.metrics_page();
        page.lines()
            .find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
    };
    assert_eq!(refused("unknown_name"), Some(8.0));
    assert_eq!(refused("no_name"), Some(1.0));
    assert_eq!(subject(at, "b.test").as_deref(), Some("b.test"));
}

#[test]
fn names_no_certificate_can_have_get_an_alert() {
    let (_upstream, gateway) = start(Gateway::builder(), &["*", "a.test"]);
    let at = gateway.https();
    let sane = answer_to(at, &hello(Some(&server_name(b"a.test"))));
    assert_eq!(sane[0], 0x16, "the hello itself must be well formed");
    for name in [
        &[b'a'; 300][..],
        b"a.test\0.b.test",
        b"",
        b"a\xff.test",
        b"a b",
    ] {
        let answer = answer_to(at, &hello(Some(&server_name(name))));
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 112], "{name:?}");
    }
    for content in [
        &[][..],
        &[0],
        &[0, 9, 0, 0, 1, b'a'],
        &[0, 4, 1, 0, 1, b'a'],
    ] {
        let answer = answer_to(at, &hello(Some(content)));
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 50], "{content:?}");
    }
    assert_eq!(subject(at, "a.test").as_deref(), Some("a.test"));
}

#[test]
fn a_fallback_serves_clients_without_a_name_and_nobody_else() {
    let builder = Gateway::builder().bootstrap("apisix: { ssl: { fallback_sni: fall.test } }");
    let (_upstream, gateway) = start(builder, &["fall.test", "b.test"]);
    let at = gateway.https();
    let nameless = s_client(at, &["-noservername"]);
    assert_eq!(subject_in(&nameless).as_deref(), Some("fall.test"));
    assert_alert(&s_client(at, &["-servername", "c.test"]), 112);
}

#[test]
fn the_whole_chain_is_sent() {
    let root = Authority::new().unwrap();
    let middle = root.intermediate("middle").unwrap();
    let issued = certs::server(&middle, &["a.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .file("root.pem", root.cert_pem().unwrap())
        .resources(resources(&upstream, &[item("a", &["a.test"], &issued, "")]))
        .start();
    let root = gateway.dir().join("root.pem");
    let root = root.to_str().unwrap();
    let said = s_client(
        gateway.https(),
        &["-servername", "a.test", "-showcerts", "-CAfile", root],
    );
    assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[test]
fn of_two_pairs_the_one_the_client_can_verify_is_sent() {
    let authority = Authority::new().unwrap();
    let ecdsa = certs::server(&authority, &["a.test"]);
    let options = LeafOptions {
        key: KeyKind::Rsa2048,
        ..LeafOptions::default()
    };
    let rsa = authority.issue(&["a.test"], &options).unwrap();
    let more = format!(
        "    certs: [{}]\n    keys: [{}]\n",
        serde_json::to_string(&rsa.cert_pem).unwrap(),
        serde_json::to_string(certs::key_text(&rsa)).unwrap(),
    );
    let upstream = Upstream::start(Behaviour::ok());
    let item = item("a", &["a.test"], &ecdsa, &more);
    let gateway = Gateway::start(resources(&upstream, &[item]));
    for version in ["-tls1_2", "-tls1_3"] {
        for (algorithms, key) in [
            ("ECDSA+SHA256", "Server public key is 256 bit"),
            ("RSA-PSS+SHA256", "Server public key is 2048 bit"),
            ("RSA-PSS+SHA256:ECDSA+SHA256", "Server public key is"),
        ] {
            let args = ["-servername", "a.test", version, "-sigalgs", algorithms];
            let said = s_client(gateway.https(), &args);
            assert!(said.contains(key), "{version} {algorithms}\n{said}");
        }
    }
}

#[test]
fn a_pair_that_cannot_serve_closes_its_name_and_no_other() {
    let authority = Authority::new().unwrap();
    let good = certs::server(&authority, &["good.test"]);
    let torn = Issued {
        key_pem: certs::server(&authority, &["torn.test"]).key_pem,
        ..certs::server(&authority, &["torn.test"])
    };
    let over = certs::expired(&authority, &["over.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item("torn", &["torn.test"], &torn, ""),
            item("over", &["over.test"], &over, ""),
            item("good", &["good.test", "*"], &good, ""),
        ],
    ));
    let at = gateway.https();
    assert_eq!(subject(at, "good.test").as_deref(), Some("good.test"));
    // Nor does the broader item take the name over.
    assert_alert(&s_client(at, &["-servername", "torn.test"]), 80);
    assert_alert(&s_client(at, &["-servername", "over.test"]), 80);
    let log = gateway.log();
    for said in [
        "the private key does not belong to the certificate",
        "the certificate expired 0 day(s) ago",
    ] {
        assert!(log.contains(said), "{said}");
    }
    let page = gateway.metrics_page();
    let refused = "claviger_config_refused_items{kind=\"ssls\"} 2";
    assert!(page.lines().any(|line| line == refused), "{page}");
}

#[test]
fn an_item_refuses_whole_where_one_of_its_values_cannot_be_used() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let rsa = LeafOptions {
        key: KeyKind::Rsa2048,
        ..LeafOptions::default()
    };
    let second = authority.issue(&["a"], &rsa).unwrap();
    let other = authority.issue(&["a"], &rsa).unwrap();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let pair = |cert: &str, key: &str| format!("    certs: [{cert}]\n    keys: [{key}]\n");
    let cert = quoted(&second.cert_pem);
    let client = |more: &str| {
        let ca = quoted(&authority.cert_pem().unwrap());
        format!("    client: {{ ca: {ca}{more} }}\n")
    };
    let cases = [
        (
            pair(&cert, "$env://NO_SUCH_KEY"),
            "keys.0: reference $env://NO_SUCH_KEY",
        ),
        (
            pair(&cert, &quoted(certs::key_text(&other))),
            "keys.0: the private key does not belong",
        ),
        (
            pair("$env://NO_SUCH_CERT", &quoted(certs::key_text(&second))),
            "certs.0: reference $env://NO_SUCH_CERT",
        ),
        (
            client(", skip_mtls_uri_regex: [/open]"),
            "client.skip_mtls_uri_regex: ",
        ),
    ];
    let names: Vec<_> = (0..cases.len()).map(|n| format!("{n}.test")).collect();
    let mut items: Vec<_> = cases
        .iter()
        .zip(&names)
        .map(|((more, _), name)| {
            let issued = certs::server(&authority, &[name]);
            item(name, &[name], &issued, more)
        })
        .collect();
    // Served, though its certificate does not cover the name.
    let apart = certs::server(&authority, &["another.test"]);
    items.push(item("apart", &["apart.test"], &apart, ""));
    let gateway = Gateway::builder()
        .resources(resources(&upstream, &items))
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    for ((_, said), name) in cases.iter().zip(&names) {
        assert_alert(&s_client(gateway.https(), &["-servername", name]), 80);
        assert!(gateway.log().contains(said), "{name}: {said}");
    }
    let shown = subject(gateway.https(), "apart.test");
    assert_eq!(shown.as_deref(), Some("another.test"));
    let said = "the certificate does not cover apart.test";
    assert!(gateway.log().contains(said), "{said}");
}

#[test]
fn an_item_that_is_off_does_not_exist() {
    let authority = Authority::new().unwrap();
    let issued = |name| certs::server(&authority, &[name]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item("1", &["a.test"], &issued("off"), "    status: 0\n"),
            item("2", &["a.test"], &issued("on"), ""),
            item("3", &["b.test"], &issued("off"), "    status: 0\n"),
            item("4", &["c.test"], &issued("client"), "    type: client\n"),
        ],
    ));
    let at = gateway.https();
    assert_eq!(subject(at, "a.test").as_deref(), Some("on"));
    assert_alert(&s_client(at, &["-servername", "b.test"]), 112);
    assert_alert(&s_client(at, &["-servername", "c.test"]), 112);
}

#[test]
fn each_item_has_its_own_protocol_versions() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let item = |name: &str, protocols: &str| {
        let more = format!("    ssl_protocols: [{protocols}]\n");
        item(name, &[name], &certs::server(&authority, &[name]), &more)
    };
    let gateway = Gateway::builder()
        .bootstrap("apisix: { ssl: { ssl_ciphers: \"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA\" } }")
        .resources(resources(
            &upstream,
            &[
                item("old.test", "TLSv1.1"),
                item("mid.test", "TLSv1.2"),
                item("new.test", "TLSv1.3"),
                item("ends.test", "TLSv1.1, TLSv1.3"),
            ],
        ))
        .start();
    for (name, allowed) in [
        ("old.test", &["-tls1_1"][..]),
        ("mid.test", &["-tls1_2"]),
        ("new.test", &["-tls1_3"]),
        ("ends.test", &["-tls1_1", "-tls1_3"]),
    ] {
        for version in ["-tls1_1", "-tls1_2", "-tls1_3"] {
            let args = ["-servername", name, version, "-cipher", "ALL:@SECLEVEL=0"];
            let said = s_client(gateway.https(), &args);
            if allowed.contains(&version) {
                assert_eq!(subject_in(&said).as_deref(), Some(name), "{version}");
            } else {
                let none = "no peer certificate available";
                assert!(said.contains(none), "{name} {version}\n{said}");
            }
        }
    }
}

#[test]
fn a_new_certificate_is_for_new_handshakes_and_cuts_no_connection() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let with = |issued: &Issued| resources(&upstream, &[item("a", &["a.test"], issued, "")]);
    let gateway = Gateway::start(with(&certs::server(&authority, &["a.test"])));
    let connect = || Connection::open_tls(gateway.https(), "a.test", &ca).expect("served");
    let mut kept = connect();
    let first = kept.certificate();
    gateway.write_resources(&with(&certs::server(&authority, &["a.test"])));
    wait_until("new handshakes get the new certificate", || {
        connect().certificate() != first
    });
    kept.request("GET", "/", &[("Host", "a.test")]);
    assert_eq!(kept.expect_reply().status, 200);
    // A pair whose halves do not fit changes nothing.
    let second = connect().certificate();
    let torn = Issued {
        key_pem: certs::server(&authority, &["a.test"]).key_pem,
        ..certs::server(&authority, &["a.test"])
    };
    gateway.write_resources(&with(&torn));
    wait_until("the torn pair is reported", || {
        gateway.log().contains("the last good pair serves on")
    });
    assert_eq!(connect().certificate(), second);
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: none\r\nConnection: close\r\n\r\n";

#[test]
fn sessions_resume_for_their_own_name_only() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test", "b.test", "*.w.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let text = resources(
        &upstream,
        &[
            item("a", &["a.test"], &issued, ""),
            item("b", &["b.test"], &issued, ""),
            item("w", &["*.w.test"], &issued, ""),
        ],
    );
    for tickets in ["true", "false"] {
        let gateway = Gateway::builder()
            .bootstrap(&format!(
                "apisix: {{ ssl: {{ ssl_session_tickets: {tickets} }} }}"
            ))
            .resources(&text)
            .start();
        let session = gateway.dir().join("session");
        let session = session.to_str().unwrap();
        for version in ["-tls1_2", "-tls1_3"] {
            for (first, second, way) in [
                ("a.test", "a.test", "Reused, "),
                ("a.test", "b.test", "New, "),
                ("x.w.test", "x.w.test", "Reused, "),
                ("x.w.test", "y.w.test", "New, "),
            ] {
                let common = ["-ign_eof", version, "-servername"];
                let args = [&common[..], &[first, "-sess_out", session]].concat();
                let said = converse(gateway.https(), &args, REQUEST);
                assert!(said.contains("New, "), "{said}");
                let args = [&common[..], &[second, "-sess_in", session]].concat();
                let said = converse(gateway.https(), &args, REQUEST);
                assert!(
                    said.contains(way) && said.contains("200 X"),
                    "tickets {tickets}, {version}, {first} then {second}: {way}\n{said}"
                );
            }
        }
    }
}

/// What curl's answer was: its exit code and the status.
fn curl(gateway: &Gateway, url_host: &str, args: &[&str]) -> (Option<i32>, String) {
    let port = gateway.https().port();
    let ca = gateway.dir().join("ca.pem");
    let output = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(["--max-time", "10", "--noproxy", "*", "--cacert"])
        .arg(ca)
        .args(["--resolve", &format!("{url_host}:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://{url_host}:{port}/"))
        .current_dir(gateway.dir())
        .output()
        .expect("curl is installed (scripts/setup.sh)");
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), status)
}

/// `m.test` and `*.w.test` want certificates of one CA, `o.test` wants none, and what `bad.test`
/// wants cannot be set up.
fn start_mtls() -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("clients").unwrap();
    let client = |authority: &Authority, ends_in_secs| {
        let options = LeafOptions {
            usage: Usage::Client,
            starts_in_secs: -7200,
            ends_in_secs,
            ..LeafOptions::default()
        };
        let issued = authority.issue(&["someone"], &options).unwrap();
        format!("{}{}", issued.cert_pem, certs::key_text(&issued))
    };
    let one = clients.intermediate("one").unwrap();
    let two = one.intermediate("two").unwrap();
    let guard = format!(
        "    client: {{ ca: {} }}\n",
        serde_json::to_string(&clients.cert_pem().unwrap()).unwrap()
    );
    let missing = "    client: { ca: \"$env://NO_SUCH_CA\" }\n";
    let server = |name| certs::server(&authority, &[name]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .file("ca.pem", authority.cert_pem().unwrap())
        .file("good.pem", client(&clients, 3600))
        .file("expired.pem", client(&clients, -3600))
        .file("foreign.pem", client(&authority, 3600))
        .file("one.pem", client(&one, 3600))
        .file("two.pem", client(&two, 3600))
        .resources(resources(
            &upstream,
            &[
                item("m", &["m.test"], &server("m.test"), &guard),
                item("w", &["*.w.test"], &server("*.w.test"), &guard),
                item("o", &["o.test"], &server("o.test"), ""),
                item("bad", &["bad.test"], &server("bad.test"), missing),
            ],
        ))
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    (upstream, gateway)
}

#[test]
fn a_guarded_name_asks_for_a_certificate_of_its_ca() {
    let (upstream, gateway) = start_mtls();
    for version in ["1.2", "1.3"] {
        let versions = ["--tls-max", version];
        let ask = |cert: &str| {
            curl(
                &gateway,
                "m.test",
                &[&versions[..], &["--cert", cert]].concat(),
            )
        };
        assert_eq!(ask("good.pem"), (Some(0), "200".to_owned()));
        assert_eq!(
            ask("one.pem"),
            (Some(0), "200".to_owned()),
            "one intermediate"
        );
        let served = upstream.count();
        for cert in ["expired.pem", "foreign.pem", "two.pem"] {
            let (code, status) = ask(cert);
            assert!(
                code != Some(0) && status == "000",
                "{version} {cert}: {status}"
            );
        }
        let (code, status) = curl(&gateway, "m.test", &versions);
        assert!(code != Some(0) && status == "000", "{version}: {status}");
        assert_eq!(upstream.count(), served, "no refused request goes on");
    }
    assert_eq!(curl(&gateway, "o.test", &[]), (Some(0), "200".to_owned()));
    assert_ne!(curl(&gateway, "bad.test", &[]).0, Some(0));
}

#[test]
fn a_guarded_name_is_not_reached_over_another_names_handshake() {
    let (upstream, gateway) = start_mtls();
    let ask = |sni: &str, host: &str, more: &[&str]| {
        let host = format!("Host: {host}");
        curl(&gateway, sni, &[&["-H", &host][..], more].concat()).1
    };
    for protocol in ["--http1.1", "--http2"] {
        let cert = [protocol, "--cert", "good.pem"];
        for (sni, host, more) in [
            ("o.test", "m.test", &[protocol][..]),
            ("o.test", "M.test", &[protocol]),
            ("o.test", "m.test:443", &[protocol]),
            ("o.test", "m.test.", &[protocol]),
            ("o.test", "bad.test", &[protocol]),
            ("o.test", "m.test", &cert),
            ("a.w.test", "b.w.test", &cert),
            ("m.test", "a.w.test", &cert),
        ] {
            assert_eq!(ask(sni, host, more), "400", "{protocol} {sni} {host}");
        }
        assert_eq!(upstream.count(), 0);
        assert_eq!(ask("m.test", "m.test", &cert), "200");
        assert_eq!(ask("m.test", "o.test", &cert), "200");
        assert_eq!(ask("o.test", "none.test", &[protocol]), "200");
        let served = gateway.get("m.test", "/", &[]).status;
        assert_eq!(served, 200, "in the clear nothing is checked");
        upstream.forget();
    }
    let said = "client certificate not verified with SNI o.test, but the host is m.test";
    assert!(gateway.log().contains(said), "{said}");
}

#[test]
fn a_session_of_an_open_name_opens_no_guarded_one() {
    let (upstream, gateway) = start_mtls();
    let session = gateway.dir().join("session");
    let session = session.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let common = ["-ign_eof", version, "-servername"];
        let args = [&common[..], &["o.test", "-sess_out", session]].concat();
        let said = converse(gateway.https(), &args, REQUEST);
        assert!(said.contains("200 X"), "{said}");
        let served = upstream.count();
        let args = [&common[..], &["m.test", "-sess_in", session]].concat();
        let said = converse(gateway.https(), &args, REQUEST);
        assert!(!said.contains("Reused, "), "{said}");
        assert!(!said.contains("HTTP/1.1"), "{said}");
        assert_eq!(upstream.count(), served);
    }
}

#[test]
fn every_listener_serves_on_both_kinds_of_address() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test"]);
    let ca = authority.cert_pem().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let ports = [(); 4].map(|()| ports::free());
    let [http4, http6, https4, https6] = ports;
    let pair =
        |four, six| format!("[{{ ip: 127.0.0.1, port: {four} }}, {{ ip: '::1', port: {six} }}]");
    let gateway = Gateway::builder()
        .bootstrap_last(&format!(
            "apisix: {{ node_listen: {}, ssl: {{ listen: {} }} }}",
            pair(http4, http6),
            pair(https4, https6)
        ))
        .resources(resources(&upstream, &[item("a", &["a.test"], &issued, "")]))
        .start();
    for (ip, http, https) in [("127.0.0.1", http4, https4), ("::1", http6, https6)] {
        let addr = |port| SocketAddr::new(ip.parse().unwrap(), port);
        let reply = crate::harness::client::get(addr(http), "/", &[("Host", "a.test")]);
        assert_eq!(reply.status, 200);
        let mut tls = Connection::open_tls(addr(https), "a.test", &ca).expect("served");
        tls.request("GET", "/", &[("Host", "a.test")]);
        assert_eq!(tls.expect_reply().status, 200);
    }
    drop(gateway);
}

#[test]
fn the_end_of_a_certificate_is_on_the_metrics_page() {
    let options = LeafOptions {
        ends_in_secs: 1000,
        ..LeafOptions::default()
    };
    let issued = Authority::new()
        .unwrap()
        .issue(&["a.test"], &options)
        .unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream, &[item("a", &["a.test"], &issued, "")]));
    let page = gateway.metrics_page();
    let samples: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("claviger_certificate_expiry_seconds{"))
        .collect();
    let [sample] = samples[..] else {
        panic!("{samples:?}");
    };
    assert!(
        sample.contains("ssl=\"a\"") && sample.contains("sni=\"a.test\""),
        "{sample}"
    );
    let end: f64 = sample.rsplit(' ').next().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let left = end - now.as_secs_f64();
    assert!((900.0..=1000.0).contains(&left), "{left}");
    assert!(gateway.log().contains("expires in 0 day(s)"));
}

#[test]
fn pairs_come_from_references() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let [env, file] = ["env.test", "file.test"].map(|name| certs::server(&authority, &[name]));
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .bootstrap("nginx_config: { envs: [CERT, KEY] }")
        .env("CERT", &env.cert_pem)
        .env("KEY", certs::key_text(&env))
        .file("secrets/tls.crt", &file.cert_pem)
        .file("secrets/tls.key", certs::key_text(&file));
    let folder = builder.dir().join("secrets");
    let items = "  - { id: e, sni: env.test, cert: $env://CERT, key: $env://KEY }
  - id: f
    sni: file.test
    cert: $secret://file/main/tls.crt
    key: $secret://file/main/tls.key
"
    .to_owned();
    let secrets = format!(
        "secrets:\n  - {{ id: file/main, path: {} }}\n",
        folder.display()
    );
    let gateway = builder
        .resources(secrets + &resources(&upstream, &[items]))
        .start();
    for name in ["env.test", "file.test"] {
        let mut tls = Connection::open_tls(gateway.https(), name, &ca).expect("served");
        tls.request("GET", "/", &[("Host", name)]);
        assert_eq!(tls.expect_reply().status, 200);
    }
    fs::remove_file(folder.join("tls.key")).unwrap();
    assert!(subject(gateway.https(), "env.test").is_some());
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let (_upstream, gateway) = start(Gateway::builder(), &["a.test"]);
    let mut connection = Connection::open(gateway.https());
    connection.request("GET", "/", &[("Host", "a.test")]);
    let reply = connection.expect_reply();
    assert_eq!(reply.status, 400);
    assert!(
        reply
            .text()
            .contains("plain HTTP request was sent to HTTPS port")
    );
    assert!(connection.is_closed());
}
