//! Certificates fetched on demand, out of a real `OpenBao` whose reads a relay counts.

mod bounds;
mod changes;
mod outages;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use claviger::tls::dev::{Authority, Issued};
use openssl::nid::Nid;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use serde_json::json;

use super::*;
use crate::harness::{Behaviour, Gateway, OpenBao, Relay, Relaying, Upstream};

/// A gateway that takes certificates of `*.demand.test` from `OpenBao`, through a relay.
pub(super) struct Stage {
    bao: OpenBao,
    relay: Relay,
    authority: Authority,
    upstream: Upstream,
    gateway: Gateway,
}

/// How a [`Stage`] is set.
struct Setting {
    /// Fields of the manager.
    manager: &'static str,
    /// Of the item.
    on_demand: &'static str,
    /// Further fields of the item, one a line.
    item: String,
    /// Cert and key, where they are.
    places: [&'static str; 2],
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            manager: "ttl: 3600, neg_ttl: 3600",
            on_demand: "true",
            item: String::new(),
            places: ["tls/{sni}/cert", "tls/{sni}/key"],
        }
    }
}

impl Setting {
    fn resources(&self, manager: &str, token: &str, upstream: &Upstream) -> String {
        let [cert, key] = self.places;
        let (fields, on_demand, item) = (self.manager, self.on_demand, &self.item);
        let node = upstream.addr;
        format!(
            "secrets:\n  - {{ id: vault/main, uri: '{manager}', prefix: secret/edge, token: '{token}', kv_version: 2, {fields} }}\n\
             ssls:\n  - id: demand\n    snis: ['*.demand.test']\n    cert: '$secret://vault/main/{cert}'\n    \
             key: '$secret://vault/main/{key}'\n    on_demand: {on_demand}\n{item}\
             routes:\n  - {{ id: all, uri: /*, upstream: {{ type: roundrobin, nodes: {{ '{node}': 1 }} }} }}\n"
        )
    }

    async fn start(&self) -> Stage {
        self.start_with(OpenBao::start().await)
    }

    fn start_with(&self, bao: OpenBao) -> Stage {
        let relay = Relay::start(&bao.addr, Relaying::Pass);
        let authority = Authority::new().unwrap();
        let upstream = Upstream::start(Behaviour::ok());
        let gateway = Gateway::builder()
            .bootstrap("claviger: { audit: { path: logs/audit.log } }")
            .file("ca.pem", authority.cert_pem().unwrap())
            .resources(self.resources(&relay.uri(), &bao.token, &upstream))
            .start();
        Stage {
            bao,
            relay,
            authority,
            upstream,
            gateway,
        }
    }
}

impl Stage {
    /// Has a certificate for the name written. Returns it.
    async fn write(&self, name: &str) -> Issued {
        let issued = certs::server(&self.authority, &[name]);
        let fields = json!({"cert": issued.cert_pem, "key": certs::key_text(&issued)});
        self.bao.put_v2(&format!("edge/tls/{name}"), fields).await;
        issued
    }

    /// Reads of documents of names.
    fn reads(&self) -> usize {
        let paths = self.relay.paths();
        paths
            .iter()
            .filter(|path| path.contains("/data/edge/"))
            .count()
    }

    /// Reads of the documents of one name.
    fn reads_of(&self, name: &str) -> usize {
        let paths = self.relay.paths();
        paths.iter().filter(|path| path.contains(name)).count()
    }

    fn shake(&self, name: &str) -> Result<Shown, String> {
        shake(self.gateway.https(), name)
    }

    /// Events of this kind in the audit log that speak of this.
    fn audited(&self, event: &str, of: &str) -> usize {
        let path = self.gateway.dir().join("logs/audit.log");
        let log = std::fs::read_to_string(path).unwrap();
        let event = format!("\"event\":\"{event}\"");
        let lines = log.lines();
        lines
            .filter(|line| line.contains(&event) && line.contains(of))
            .count()
    }

    /// A number on the metrics page.
    fn metric(&self, line: &str) -> f64 {
        self.gateway.metric(line).unwrap_or(0.0)
    }
}

/// What a client was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    name: String,
    serial: String,
}

/// A whole handshake for this name.
fn shake(addr: SocketAddr, name: &str) -> Result<Shown, String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    // The server's refusal is part of this handshake then, and no first read's.
    connector
        .set_max_proto_version(Some(SslVersion::TLS1_2))
        .unwrap();
    let stream = TcpStream::connect(addr).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let configured = connector
        .build()
        .configure()
        .unwrap()
        .verify_hostname(false);
    let shaken = configured
        .connect(name, stream)
        .map_err(|error| error.to_string())?;
    let leaf = shaken.ssl().peer_certificate().unwrap();
    let mut names = leaf.subject_name().entries_by_nid(Nid::COMMONNAME);
    let name = names.next().unwrap().data().to_string().unwrap();
    let serial = leaf.serial_number().to_bn().unwrap().to_hex_str().unwrap();
    let serial = serial.to_string();
    Ok(Shown { name, serial })
}

fn serial(issued: &Issued) -> String {
    let leaf = openssl::x509::X509::from_pem(issued.cert_pem.as_bytes()).unwrap();
    leaf.serial_number()
        .to_bn()
        .unwrap()
        .to_hex_str()
        .unwrap()
        .to_string()
}

/// Does this for each, some at a time.
fn in_threads(threads: usize, names: &[String], each: impl Fn(&str) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(name);
                }
            });
        }
    });
}

/// How many names there are; `make on-demand` says ten thousand.
fn many() -> usize {
    let given = std::env::var("CLAVIGER_ON_DEMAND_NAMES").ok();
    given.map_or(300, |number| number.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_is_fetched_at_its_first_handshake_and_then_served_from_memory() {
    let stage = Setting::default().start().await;
    let names: Vec<_> = (0..many()).map(|n| format!("n{n}.demand.test")).collect();
    for some in names.chunks(16) {
        let writes = some.iter().map(|name| stage.write(name));
        futures::future::join_all(writes).await;
    }
    assert_eq!(stage.reads(), 0, "nothing is read ahead");
    for round in ["first", "second"] {
        let began = std::time::Instant::now();
        in_threads(8, &names, |name| {
            let shown = stage.shake(name);
            assert_eq!(shown.map(|shown| shown.name).as_deref(), Ok(name));
        });
        println!("{} {round} handshakes: {:?}", names.len(), began.elapsed());
        assert_eq!(stage.reads(), names.len(), "after each {round} handshake");
    }
    let held = stage.metric("claviger_on_demand_names{ssl=\"demand\"}");
    assert_eq!(held, names.len() as f64);
    // What clients choose stands in no report and in no label.
    let page = stage.gateway.metrics_page();
    assert!(!page.contains("n1.demand.test"), "{page}");
    let reported = crate::harness::client::get(
        stage.gateway.status(),
        "/status/secrets",
        &[("Host", "status")],
    );
    assert!(
        reported.text().contains("\"total\":0"),
        "{}",
        reported.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_handshakes_of_one_name_are_one_read_of_each_document() {
    let setting = Setting {
        places: ["certs/{sni}/pem", "keys/{sni}/pem"],
        ..Setting::default()
    };
    let stage = setting.start().await;
    let issued = certs::server(&stage.authority, &["a.demand.test"]);
    let halves = [
        ("certs", issued.cert_pem.as_str()),
        ("keys", certs::key_text(&issued)),
    ];
    for (half, text) in halves {
        let path = format!("edge/{half}/a.demand.test");
        stage.bao.put_v2(&path, json!({"pem": text})).await;
    }
    // So that all have come before the first answer has.
    stage.relay.set(Relaying::Late(Duration::from_millis(300)));
    let names = vec!["A.demand.test".to_owned(); 50];
    in_threads(50, &names, |name| {
        assert_eq!(
            stage.shake(name).map(|shown| shown.name).as_deref(),
            Ok("a.demand.test")
        );
    });
    assert_eq!(stage.reads(), 2, "{:?}", stage.relay.paths());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_protocols_and_http2_are_the_items_as_ever() {
    let clients = Authority::named("clients").unwrap();
    let ca = serde_json::to_string(&clients.cert_pem().unwrap()).unwrap();
    let setting = Setting {
        item: format!("    client: {{ ca: {ca} }}\n    ssl_protocols: [TLSv1.3]\n"),
        ..Setting::default()
    };
    let stage = setting.start().await;
    stage.write("a.demand.test").await;
    let options = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    let issued = clients.issue(&["someone"], &options).unwrap();
    let pem = format!("{}{}", issued.cert_pem, certs::key_text(&issued));
    stage.gateway.write_file("client.pem", pem);
    for _ in 0..2 {
        let with = curl(
            &stage.gateway,
            "a.demand.test",
            &["--cert", "client.pem", "--http2"],
        );
        assert_eq!(with, (Some(0), "200".to_owned()));
        let (code, status) = curl(&stage.gateway, "a.demand.test", &[]);
        assert_ne!((code, &*status), (Some(0), "200"));
        let old = ["--cert", "client.pem", "--tls-max", "1.2"];
        assert_ne!(curl(&stage.gateway, "a.demand.test", &old).0, Some(0));
    }
    assert_eq!(stage.upstream.count(), 2);
    assert_eq!(stage.reads_of("a.demand.test"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_before_is_said_not_to_be() {
    let stage = Setting::default().start().await;
    for (command, expected) in [
        (
            "check",
            "ssls/demand cert: $secret://vault/main/tls/{sni}/cert: on demand: not asked",
        ),
        ("explain", "on demand: not asked\n  used by ssls/demand key"),
    ] {
        let more = if command == "check" {
            &["check", "--resolve"][..]
        } else {
            &["explain"]
        };
        let said = stage.gateway.command(more).output().unwrap();
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(text.contains(expected), "{text}");
        assert!(said.status.success(), "{text}");
    }
    assert_eq!(stage.reads(), 0);
}
