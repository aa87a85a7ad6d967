//! A real listener, with real `openssl s_client` and `curl` on the other end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::Response;
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::services::Service as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::plugins::ctx::TlsInfo;
use crate::proxy::listener::{EdgeLimits, EdgeParts, EdgeService, Entrance, PerAddress};
use crate::tls::dev::{Authority, Issued, KeyKind, LeafOptions, Usage};
use crate::tls::{
    CaBundle, Chains, ClientAuth, ClientRules, Newest, Protocols, SniEntry, TlsIdentity, TlsPolicy,
    choose_pair,
};

/// Answers with the facts of the connection.
struct Facts;

#[async_trait]
impl ServeHttp for Facts {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let digest = session
            .digest()
            .and_then(|digest| digest.ssl_digest.clone());
        let info = digest.and_then(|digest| digest.extension.get::<Arc<TlsInfo>>().cloned());
        let body = format!("{info:?}").into_bytes();
        Response::builder()
            .header("content-length", body.len())
            .body(body)
            .expect("valid response")
    }
}

struct Server {
    addr: SocketAddr,
    names: Arc<ArcSwap<SniStore>>,
    refused: Arc<RefusedHandshakes>,
    dir: TempDir,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Server {
    fn start(authority: &Authority, mut options: TlsOptions, entries: Vec<SniEntry>) -> Self {
        options.sessions.get_or_insert_with(sessions);
        let names = Arc::new(ArcSwap::from_pointee(SniStore::build(entries)));
        let refused = Arc::new(RefusedHandshakes::default());
        let current = names.clone();
        let acceptor = Acceptor::build(
            Arc::new(move || current.load_full()),
            options,
            refused.clone(),
            Arc::new(SystemClock),
        )
        .expect("settings");
        let free = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = free.local_addr().expect("bound");
        drop(free);
        let mut service = EdgeService::new("test", HttpServer::new_app(Facts), parts());
        let tls = Some(Arc::new(acceptor));
        service.listen(
            &[addr],
            Entrance {
                tls,
                ..Entrance::default()
            },
        );
        let (stop, stopped) = watch::channel(false);
        let runtime = Runtime::new().expect("runtime");
        runtime.spawn(async move { service.start_service(None, stopped, 1).await });
        let dir = tempfile::tempdir().expect("folder");
        let ca = authority.cert_pem().expect("pem");
        std::fs::write(dir.path().join("ca.pem"), ca).expect("write");
        while TcpStream::connect(addr).is_err() {
            std::thread::yield_now();
        }
        Self {
            addr,
            names,
            refused,
            dir,
            _stop: stop,
            _runtime: runtime,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, issued: &Issued) -> PathBuf {
        let mut text = issued.cert_pem.clone().into_bytes();
        text.extend(issued.key_pem.expose());
        std::fs::write(self.path(name), text).expect("write");
        self.path(name)
    }

    /// Output of `openssl s_client` after one request.
    fn s_client(&self, args: &[&str]) -> String {
        let mut client = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-showcerts", "-connect"])
            .arg(self.addr.to_string())
            .arg("-CAfile")
            .arg(self.path("ca.pem"))
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let mut input = client.stdin.take().expect("piped");
        // The client may be gone already when the handshake failed.
        drop(input.write_all(request));
        let output = client.wait_with_output().expect("openssl ends");
        drop(input);
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    fn curl(&self, name: &str, args: &[&str]) -> String {
        let port = self.addr.port();
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(self.path("ca.pem"))
            .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
            .args(args)
            .arg(format!("https://{name}:{port}/"))
            .output()
            .expect("curl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    /// Level and description of the alert that answers these bytes.
    fn alert(&self, hello: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).expect("connect");
        stream.write_all(hello).expect("write");
        let mut answer = Vec::new();
        // A reset after the alert is as good as an end.
        drop(stream.read_to_end(&mut answer));
        assert_eq!(answer.first(), Some(&21), "an alert and nothing before it");
        answer.split_off(5)
    }
}

fn parts() -> EdgeParts {
    EdgeParts {
        limits: EdgeLimits {
            max_connections: 0,
            handshake_timeout: Duration::from_secs(10),
            client_header_timeout: Duration::from_secs(10),
            h2c: false,
        },
        drain: Arc::default(),
        handshakes: Arc::default(),
        per_address: PerAddress::new(0),
        proxied: Arc::default(),
        lines: Arc::default(),
        clock: Arc::new(SystemClock),
    }
}

fn leaf(authority: &Authority, names: &[&str], key: KeyKind) -> Issued {
    let options = LeafOptions {
        key,
        ..LeafOptions::default()
    };
    authority.issue(names, &options).expect("leaf")
}

fn identity(id: &str, leaves: &[Issued], policy: TlsPolicy) -> Arc<TlsIdentity> {
    let now = SystemClock.wall();
    let pairs = leaves.iter().filter_map(|leaf| {
        let cert = &crate::secrets::Secret::from(leaf.cert_pem.clone());
        let key = &leaf.key_pem;
        choose_pair(Newest::Values { cert, key }, None, now, &Chains::new()).serving
    });
    Arc::new(TlsIdentity::serving(id.into(), pairs.collect(), policy))
}

fn policy(id: &str, protocols: &[&str]) -> TlsPolicy {
    let protocols = if protocols.is_empty() {
        Protocols::default()
    } else {
        Protocols::parse(protocols.iter().copied()).expect("protocols")
    };
    TlsPolicy::new(id, protocols, None, 0)
}

fn entry(patterns: &[&str], identity: Arc<TlsIdentity>) -> SniEntry {
    SniEntry {
        patterns: patterns.iter().map(|&pattern| pattern.into()).collect(),
        identity,
    }
}

/// One item with an ECDSA certificate for exactly these names.
fn plain(authority: &Authority, id: &str, names: &[&str]) -> SniEntry {
    let leaf = leaf(authority, names, KeyKind::EcdsaP256);
    entry(names, identity(id, &[leaf], policy(id, &[])))
}

fn sessions() -> Arc<SessionCache> {
    let clock = Arc::new(SystemClock);
    Arc::new(SessionCache::new(SESSION_BYTES, SESSION_LIFETIME, clock))
}

fn authority() -> Authority {
    Authority::new().expect("authority")
}

/// A TLS 1.2 ClientHello whose `server_name` extension has this content.
fn client_hello(server_name: &[u8]) -> Vec<u8> {
    fn sized(bytes: &[u8]) -> Vec<u8> {
        let len = u16::try_from(bytes.len()).expect("short");
        [&len.to_be_bytes(), bytes].concat()
    }
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &sized(content)].concat();
    let extensions = [
        extension(0, server_name),
        extension(10, &[0, 2, 0, 23]),
        extension(13, &[0, 4, 4, 3, 8, 4]),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &sized(&[0xc0, 0x2b, 0xc0, 0x2f]),
        &[1, 0],
        &sized(&extensions),
    ]
    .concat();
    let handshake = [&[1, 0], &sized(&body)[..]].concat();
    [&[22, 3, 1], &sized(&handshake)[..]].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    let len = u16::try_from(name.len()).expect("short");
    [&(len + 3).to_be_bytes()[..], &[0], &len.to_be_bytes(), name].concat()
}

#[test]
fn the_name_chooses_the_certificate() {
    let ca = authority();
    let entries = vec![
        plain(&ca, "exact", &["a.test"]),
        plain(&ca, "wild", &["*.b.test"]),
    ];
    let server = Server::start(&ca, TlsOptions::default(), entries);
    assert!(server.curl("a.test", &[]).contains("ssl_id: \"exact\""));
    let wild = server.curl("X.b.test", &[]);
    assert!(wild.contains("ssl_id: \"wild\""), "{wild}");
    assert!(wild.contains("sni: Some(\"x.b.test\")"), "{wild}");
    assert!(wild.contains("protocol: \"TLSv1.3\""), "{wild}");
    let dotted = server.s_client(&["-servername", "a.test."]);
    assert!(dotted.contains("Verify return code: 0"), "{dotted}");
}

#[test]
fn an_unknown_name_and_no_name_get_an_alert_and_never_a_certificate() {
    let ca = authority();
    let server = Server::start(
        &ca,
        TlsOptions::default(),
        vec![plain(&ca, "1", &["a.test"])],
    );
    for args in [
        &["-servername", "b.test"][..],
        &["-servername", "x.a.test"],
        &["-noservername"],
        &["-servername", "b.test", "-tls1_2"],
        &["-noservername", "-tls1_2"],
    ] {
        let output = server.s_client(args);
        assert!(output.contains("alert number 112"), "{args:?}: {output}");
        assert!(!output.contains("BEGIN CERTIFICATE"), "{args:?}: {output}");
    }
    assert_eq!(server.refused.unknown_name.load(Ordering::Relaxed), 3);
    assert_eq!(server.refused.no_name.load(Ordering::Relaxed), 2);
}

#[test]
fn the_fallback_serves_clients_without_a_name_and_unknown_names_only_when_asked_to() {
    let ca = authority();
    let mut options = TlsOptions {
        fallback_sni: Some("A.test".to_owned()),
        ..TlsOptions::default()
    };
    let entries = || vec![plain(&ca, "1", &["a.test"])];
    let server = Server::start(&ca, options.clone(), entries());
    let nameless = server.s_client(&["-noservername"]);
    assert!(nameless.contains("sni: None"), "{nameless}");
    assert!(
        server
            .s_client(&["-servername", "b.test"])
            .contains("alert number 112")
    );
    options.fallback_for_unknown = true;
    let server = Server::start(&ca, options, entries());
    let unknown = server.s_client(&["-servername", "b.test"]);
    assert!(unknown.contains("ssl_id: \"1\""), "{unknown}");
}

#[test]
fn bad_names_in_raw_bytes_end_with_an_alert() {
    const FATAL: u8 = 2;
    let ca = authority();
    let server = Server::start(&ca, TlsOptions::default(), vec![plain(&ca, "1", &["*"])]);
    for name in [
        &[b'a'; 300][..],
        b"a\0b",
        b"",
        b".",
        b"\xff\xfe.test",
        b"a b",
    ] {
        let alert = server.alert(&client_hello(&server_name(name)));
        assert_eq!(alert, [FATAL, 112], "{name:?}");
    }
    let whole = server_name(b"a.test");
    for broken in [&[][..], &whole[..4], &[&whole[..], &[0]].concat()] {
        let alert = server.alert(&client_hello(broken));
        assert_eq!(alert, [FATAL, 50], "{broken:?}");
    }
    assert!(
        server
            .curl("still.works", &["-k"])
            .contains("ssl_id: \"1\"")
    );
}

#[test]
fn rsa_and_ecdsa_pairs_are_chosen_by_what_the_client_verifies() {
    let ca = authority();
    let middle = ca.intermediate("middle").expect("intermediate");
    let leaves = [
        leaf(&ca, &["a.test"], KeyKind::Rsa2048),
        leaf(&middle, &["a.test"], KeyKind::EcdsaP256),
    ];
    let both = entry(&["a.test"], identity("1", &leaves, policy("1", &[])));
    let server = Server::start(&ca, TlsOptions::default(), vec![both]);
    let name = ["-servername", "a.test"];
    let rsa = server.s_client(&[&name[..], &["-sigalgs", "RSA-PSS+SHA256:ECDSA+SHA384"]].concat());
    let ecdsa = server.s_client(&[&name[..], &["-sigalgs", "ECDSA+SHA256"]].concat());
    assert!(rsa.contains("Peer signature type: RSA-PSS"), "{rsa}");
    assert!(ecdsa.contains("Peer signature type: ECDSA"), "{ecdsa}");
    assert!(
        ecdsa.contains("Verify return code: 0"),
        "the chain is sent: {ecdsa}"
    );
    assert_eq!(
        ecdsa.matches("BEGIN CERTIFICATE").count(),
        2,
        "leaf and chain"
    );
}

#[test]
fn an_item_that_cannot_serve_refuses_for_its_own_names_only() {
    let ca = authority();
    let options = LeafOptions {
        starts_in_secs: -200_000,
        ends_in_secs: -100_000,
        ..LeafOptions::default()
    };
    let expired = ca.issue(&["old.test"], &options).expect("leaf");
    let expired = entry(
        &["old.test"],
        identity("old", &[expired], policy("old", &[])),
    );
    let entries = vec![expired, plain(&ca, "1", &["*", "a.test"])];
    let server = Server::start(&ca, TlsOptions::default(), entries);
    let output = server.s_client(&["-servername", "old.test"]);
    assert!(output.contains("alert number 80"), "{output}");
    assert!(!output.contains("BEGIN CERTIFICATE"), "{output}");
    assert!(server.curl("a.test", &[]).contains("ssl_id: \"1\""));
}

#[test]
fn sessions_resume_inside_a_name_and_never_across_names() {
    let ca = authority();
    for with_tickets in [false, true] {
        let entries = vec![
            plain(&ca, "1", &["a.test", "*.a.test"]),
            plain(&ca, "2", &["b.test"]),
        ];
        let options = TlsOptions {
            tickets: with_tickets.then(|| {
                let keys =
                    TicketKeys::random(SESSION_LIFETIME, SESSION_LIFETIME, Arc::new(SystemClock));
                Arc::new(keys.expect("random bytes"))
            }),
            ..TlsOptions::default()
        };
        let server = Server::start(&ca, options, entries);
        for version in ["-tls1_2", "-tls1_3"] {
            let first = ["-servername", "a.test", version, "-sess_out", "session"];
            let first = server.s_client(&first);
            assert!(first.contains("resumed: false"), "{first}");
            let again =
                |name| server.s_client(&["-servername", name, version, "-sess_in", "session"]);
            let case = format!("{version} tickets {with_tickets}");
            for (name, id) in [("b.test", "2"), ("x.a.test", "1")] {
                let other = again(name);
                assert!(other.contains("resumed: false"), "{case}: {other}");
                assert!(
                    other.contains(&format!("ssl_id: \"{id}\"")),
                    "{case}: {other}"
                );
                assert!(other.contains("BEGIN CERTIFICATE"), "{case}: {other}");
            }
            let same = again("a.test");
            assert!(same.contains("resumed: true"), "{case}: {same}");
            assert!(same.contains("sni: Some(\"a.test\")"), "{case}: {same}");
        }
    }
}

#[test]
fn a_session_ends_with_the_policy_it_was_made_under() {
    let ca = authority();
    let server = Server::start(
        &ca,
        TlsOptions::default(),
        vec![plain(&ca, "1", &["a.test"])],
    );
    let first = ["-servername", "a.test", "-sess_out", "session"];
    assert!(server.s_client(&first).contains("resumed: false"));
    let changed = identity(
        "1",
        &[leaf(&ca, &["a.test"], KeyKind::EcdsaP256)],
        TlsPolicy::new("1", Protocols::default(), None, 1),
    );
    let names = SniStore::build(vec![entry(&["a.test"], changed)]);
    server.names.store(Arc::new(names));
    let again = server.s_client(&["-servername", "a.test", "-sess_in", "session"]);
    assert!(again.contains("resumed: false"), "{again}");
}

#[test]
fn http2_is_offered_only_when_asked_for() {
    let ca = authority();
    for (http2, version) in [(true, "2"), (false, "1.1")] {
        let options = TlsOptions {
            http2,
            ..TlsOptions::default()
        };
        let server = Server::start(&ca, options, vec![plain(&ca, "1", &["a.test"])]);
        let output = server.curl("a.test", &["--http2", "-w", "|%{http_version}"]);
        assert!(output.ends_with(&format!("|{version}")), "{output}");
    }
}

#[test]
fn each_name_has_its_own_protocol_versions() {
    let ca = authority();
    let entries = ["TLSv1.1", "TLSv1.2", "TLSv1.3"].map(|version| {
        let name = format!("{}.test", version.replace('.', "").to_lowercase());
        let leaf = leaf(&ca, &[&name], KeyKind::Rsa2048);
        entry(
            &[&name],
            identity(version, &[leaf], policy(version, &[version])),
        )
    });
    let options = TlsOptions {
        ciphers: Some("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA".to_owned()),
        ..TlsOptions::default()
    };
    let server = Server::start(&ca, options, entries.into());
    let versions = [
        ("tlsv11", "-tls1_1"),
        ("tlsv12", "-tls1_2"),
        ("tlsv13", "-tls1_3"),
    ];
    for (name, own) in versions {
        for (_, asked) in versions {
            let name = format!("{name}.test");
            let args = [
                "-servername",
                &name,
                asked,
                "-cipher",
                "DEFAULT:@SECLEVEL=0",
            ];
            let output = server.s_client(&args);
            if asked == own {
                assert!(output.contains("ssl_id"), "{args:?}: {output}");
            } else {
                // The server's alert, or the client's own verdict on what it was offered.
                let refused = ["alert number 70", "unsupported protocol"];
                let refused = refused.iter().any(|text| output.contains(text));
                assert!(refused && !output.contains("ssl_id"), "{args:?}: {output}");
            }
        }
    }
}

#[test]
fn a_hello_after_a_retry_request_changes_nothing() {
    let ca = authority();
    let server = Server::start(
        &ca,
        TlsOptions::default(),
        vec![plain(&ca, "1", &["a.test"])],
    );
    // A share for the first group only, which the server does not speak.
    let output = server.s_client(&["-servername", "a.test", "-groups", "P-521:P-256", "-msg"]);
    assert_eq!(output.matches(", ClientHello").count(), 2, "{output}");
    assert!(output.contains("ssl_id: \"1\""), "{output}");
}

#[test]
fn a_name_with_client_certificates_asks_for_them_even_after_a_session_elsewhere() {
    let ca = authority();
    let clients = Authority::named("clients").expect("authority");
    let bundle = CaBundle::parse(clients.cert_pem().expect("pem").as_bytes()).expect("bundle");
    let client = Arc::new(ClientAuth::build(ClientRules::new(bundle)).expect("store"));
    let guarded = TlsPolicy::new("m", Protocols::default(), Some(client), 0);
    let guarded = identity("m", &[leaf(&ca, &["m.test"], KeyKind::EcdsaP256)], guarded);
    let entries = vec![plain(&ca, "1", &["a.test"]), entry(&["m.test"], guarded)];
    let server = Server::start(&ca, TlsOptions::default(), entries);

    let usage = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    let good = clients.issue(&["client"], &usage).expect("leaf");
    let good = server.write("good.pem", &good);
    let stranger = ca.issue(&["client"], &usage).expect("leaf");
    let stranger = server.write("stranger.pem", &stranger);
    let (good, stranger) = (good.display().to_string(), stranger.display().to_string());

    for version in ["-tls1_2", "-tls1_3"] {
        let ask =
            |args: &[&str]| server.s_client(&[&["-servername", "m.test", version], args].concat());
        let open = ["-servername", "a.test", version, "-sess_out", "open"];
        assert!(server.s_client(&open).contains("resumed: false"));
        let none = if version == "-tls1_3" {
            "alert number 116"
        } else {
            "alert number 40"
        };
        for args in [&[][..], &["-sess_in", "open"]] {
            let output = ask(args);
            assert!(output.contains(none), "{version} {args:?}: {output}");
            assert!(!output.contains("ssl_id"), "{version} {args:?}: {output}");
        }
        let output = ask(&["-cert", &stranger, "-key", &stranger]);
        assert!(output.contains("alert number 48"), "{version}: {output}");
        let output = ask(&["-cert", &good, "-key", &good, "-sess_out", "mutual"]);
        assert!(
            output.contains("client: Some(Presented(Verified("),
            "{version}: {output}"
        );
        let output = ask(&["-sess_in", "mutual"]);
        assert!(output.contains("resumed: true"), "{version}: {output}");
    }
}

mod generations;
