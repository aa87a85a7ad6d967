//! A hundred rotations a second for thirty seconds, reloads among them, under handshakes of every
//! sort: not one fails, none shows what was replaced a while ago, and nothing is kept of what was.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVersion};
use openssl::x509::X509;
use serde_json::json;

use super::issue::{Kind, Mint};
use super::*;

/// How long it blows.
const STORM: Duration = Duration::from_secs(30);
/// From one rotation to the next, whichever name it is of.
const PACE: Duration = Duration::from_millis(10);
/// Names, rotated in turn.
const NAMES: usize = 20;
/// A pair may be shown this long after its successor was written: the manager looks again some
/// 150 ms after a file changed, and a busy machine takes its time.
const LATEST: Duration = Duration::from_secs(6);
/// Slowest handshake, TCP included, on a machine that compiles beside it.
const SLOWEST: Duration = Duration::from_secs(5);
/// Growth after the first seconds: threads that load keep memory for their next work, the more of
/// them the busier the machine is. What handshakes and rotations would leak is more.
const GROWTH_KIB: u64 = 64 * 1024;
/// Type of HTTP/2 frames (RFC 9113 §6.2).
const HEADERS: u8 = 1;
/// When the process is as large as it gets.
const WARM: Duration = Duration::from_secs(8);

/// A pair that was written.
struct Generation {
    name: usize,
    /// When the next one of its kind and name was.
    superseded: Option<Instant>,
}

/// What the threads share.
struct Storm<'a> {
    gateway: &'a Gateway,
    mint: &'a Mint,
    over: AtomicBool,
    /// By number of the certificate.
    generations: Mutex<Vec<Generation>>,
    seen: Mutex<HashSet<u64>>,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    took: Mutex<Vec<Duration>>,
}

#[test]
fn a_storm_of_rotations_fails_no_handshake() {
    let mint = Mint::new();
    let upstream = Upstream::start(Behaviour::ok());
    let mut builder = Gateway::builder();
    let folder = builder.dir().join("secrets");
    let mut generations = Vec::new();
    let mut current = vec![Vec::new(); NAMES];
    for (name, current) in current.iter_mut().enumerate() {
        let (text, numbers) = write(&mint, name, &mut generations);
        builder = builder.file(&format!("secrets/n{name}.json"), text);
        *current = numbers;
    }
    let ca = mint.ca.to_pem().unwrap();
    let gateway = builder
        .file("ca.pem", ca)
        .resources(declared(&folder, &upstream, 0))
        .start();
    let storm = Storm {
        gateway: &gateway,
        mint: &mint,
        over: AtomicBool::new(false),
        generations: Mutex::new(generations),
        seen: Mutex::default(),
        handshakes: AtomicUsize::new(0),
        resumed: AtomicUsize::new(0),
        took: Mutex::default(),
    };
    let revision = || gateway.metric("claviger_config_revision").unwrap();
    let (first, mut warm) = (revision(), None);
    let rotations = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let storm = &storm;
                scope.spawn(move || storm.shake_hands(client))
            })
            .chain([scope.spawn(|| storm.resume())])
            .collect();
        let reloads = scope.spawn(|| storm.reload(&folder, &upstream));
        let rotations = storm.rotate(&mut current, |since| {
            if since >= WARM && warm.is_none() {
                warm = Some(memory_kib(&gateway));
            }
        });
        storm.over.store(true, Ordering::Relaxed);
        reloads.join().unwrap();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        rotations
    });
    let (warm, after) = (warm.expect("it lasted"), memory_kib(&gateway));
    let published = revision() - first;
    let seen = storm.seen.lock().unwrap().len();
    let handshakes = storm.handshakes.into_inner();
    let resumed = storm.resumed.into_inner();
    let mut took = storm.took.into_inner().unwrap();
    took.sort_unstable();
    let quantile = |of_hundred: usize| took[(took.len() - 1) * of_hundred / 100];
    println!(
        "{rotations} rotations, {published} snapshots, {seen} pairs seen in {handshakes} handshakes, \
         {resumed} resumed; half within {:?}, 99 % within {:?}, all within {:?}; \
         memory {warm} KiB, then {after} KiB",
        quantile(50),
        quantile(99),
        quantile(100),
    );
    let floor = |what: &str, count: usize, least: usize| {
        assert!(count >= least, "{what}: {count}, expected {least}");
    };
    floor("rotations", rotations, 1500);
    floor("snapshots", published as usize, 20);
    floor("pairs seen", seen, 100);
    floor("handshakes", handshakes, 200);
    floor("resumed sessions", resumed, 5);
    assert!(quantile(100) < SLOWEST, "{:?}", quantile(100));
    assert!(after < warm + GROWTH_KIB, "{warm} KiB, then {after} KiB");
    assert_eq!(gateway.metric("claviger_tls_quarantined"), Some(0.0));
    let failed = "claviger_tls_handshakes_total{result=\"failed\"}";
    assert_eq!(gateway.metric(failed), Some(0.0));
    let log = gateway.log();
    let errors = log.lines().filter(|line| line.contains(" ERROR "));
    assert_eq!(errors.collect::<Vec<_>>(), [""; 0]);
    // The last generation of each name is what serves in the end.
    for (name, numbers) in current.iter().enumerate() {
        for (kind, number) in kinds(name).iter().zip(numbers) {
            wait_until("the last rotation is in force", || {
                let name = format!("n{name}.test");
                let stream = connect(&gateway, &connector(&mint, None, *kind, false), &name);
                number_of(&stream) == u64::from(*number)
            });
        }
    }
}

/// Which pairs a name has.
fn kinds(name: usize) -> &'static [Kind] {
    match name % 4 {
        0 => &[Kind::Rsa],
        1 => &[Kind::Ecdsa, Kind::Rsa],
        _ => &[Kind::Ecdsa],
    }
}

/// The next generation of a name, as its document, and the numbers of its pairs.
fn write(mint: &Mint, name: usize, generations: &mut Vec<Generation>) -> (String, Vec<u32>) {
    let mut document = serde_json::Map::new();
    let mut numbers = Vec::new();
    for (place, kind) in kinds(name).iter().enumerate() {
        let number = generations.len() as u32;
        let (cert, key) = mint.issue(&format!("n{name}.test"), number, *kind);
        document.insert(format!("cert{place}"), json!(cert));
        document.insert(format!("key{place}"), json!(key));
        generations.push(Generation {
            name,
            superseded: None,
        });
        numbers.push(number);
    }
    (json!(document).to_string(), numbers)
}

fn declared(folder: &std::path::Path, upstream: &Upstream, turn: usize) -> String {
    let item = |name: usize| {
        let half = |half: &str, place: usize| format!("$secret://file/main/n{name}/{half}{place}");
        let (cert, key) = (half("cert", 0), half("key", 0));
        let more = match kinds(name).len() {
            1 => String::new(),
            _ => format!(", certs: [{}], keys: [{}]", half("cert", 1), half("key", 1)),
        };
        // The items change too, one at each reload.
        let turn = if turn % NAMES == name { turn } else { 0 };
        format!(
            "  - {{ id: n{name}, sni: n{name}.test, cert: {cert}, key: {key}{more}, \
             labels: {{ turn: \"{turn}\" }} }}\n"
        )
    };
    let items: Vec<_> = (0..NAMES).map(item).collect();
    let manager = format!(
        "secrets:\n  - {{ id: file/main, path: {} }}\n",
        folder.display()
    );
    manager + &resources(upstream, &items)
}

impl Storm<'_> {
    /// Rotates name after name at the pace, or as fast as it can.
    fn rotate(&self, current: &mut [Vec<u32>], mut tick: impl FnMut(Duration)) -> usize {
        let began = Instant::now();
        for rotation in 0.. {
            let due = PACE * rotation as u32;
            if began.elapsed() >= STORM {
                return rotation;
            }
            thread::sleep(due.saturating_sub(began.elapsed()));
            let name = rotation % NAMES;
            let (text, numbers) = write(self.mint, name, &mut self.generations.lock().unwrap());
            self.gateway
                .write_file(&format!("secrets/n{name}.json"), text);
            let now = Instant::now();
            let mut generations = self.generations.lock().unwrap();
            for old in std::mem::replace(&mut current[name], numbers) {
                generations[old as usize].superseded = Some(now);
            }
            drop(generations);
            tick(began.elapsed());
        }
        unreachable!("it ends with the storm")
    }

    /// Rewrites the resources, time and again.
    fn reload(&self, folder: &std::path::Path, upstream: &Upstream) {
        for turn in 1.. {
            if self.is_over() {
                return;
            }
            self.gateway
                .write_resources(&declared(folder, upstream, turn));
            thread::sleep(Duration::from_millis(700));
        }
    }

    /// Handshakes and one request each, over either HTTP, with either kind of key.
    fn shake_hands(&self, client: usize) {
        let versions = [SslVersion::TLS1_2, SslVersion::TLS1_3];
        let connectors: Vec<_> = [Kind::Ecdsa, Kind::Rsa]
            .into_iter()
            .flat_map(|kind| versions.map(|version| (kind, version)))
            .flat_map(|(kind, version)| [(kind, version, true), (kind, version, false)])
            .map(|(kind, version, h2)| (kind, h2, connector(self.mint, Some(version), kind, h2)))
            .collect();
        for turn in client.. {
            if self.is_over() {
                return;
            }
            let name = turn * 7 % NAMES;
            let fit = |(kind, ..): &&(Kind, bool, SslConnector)| kinds(name).contains(kind);
            let fitting: Vec<_> = connectors.iter().filter(fit).collect();
            let (_, h2, connector) = fitting[(turn / NAMES + client) % fitting.len()];
            self.meet(name, connector, *h2);
        }
    }

    fn meet(&self, name: usize, connector: &SslConnector, h2: bool) {
        let began = Instant::now();
        let host = format!("n{name}.test");
        let mut stream = connect(self.gateway, connector, &host);
        self.took.lock().unwrap().push(began.elapsed());
        let number = number_of(&stream);
        {
            let generations = self.generations.lock().unwrap();
            let generation = &generations[number as usize];
            assert_eq!(generation.name, name, "another name's certificate");
            if let Some(superseded) = generation.superseded {
                let old = began.saturating_duration_since(superseded);
                assert!(old < LATEST, "{host}: shown {old:?} after its successor");
            }
        }
        self.seen.lock().unwrap().insert(number);
        let status = if h2 {
            http2(&mut stream, &host)
        } else {
            http1(&mut stream, &host)
        };
        assert_eq!(status, "200", "{host}");
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Sessions that resume, over and over: what OpenSSL's own client makes of `-reconnect`.
    fn resume(&self) {
        let ca = self.gateway.dir().join("ca.pem");
        for turn in 0.. {
            if self.is_over() {
                return;
            }
            let host = format!("n{}.test", turn % NAMES);
            let output = Command::new("openssl")
                .args(["s_client", "-reconnect", "-tls1_2", "-verify_return_error"])
                .args(["-connect", &self.gateway.https().to_string()])
                .args(["-servername", &host, "-verify_hostname", &host, "-CAfile"])
                .arg(&ca)
                .stdin(Stdio::null())
                .output()
                .expect("openssl is installed (scripts/setup.sh)");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "{said}");
            let sessions = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
            let (new, reused) = (sessions("New, "), sessions("Reused, "));
            assert_eq!(new + reused, 6, "{said}");
            self.resumed.fetch_add(reused, Ordering::Relaxed);
            self.handshakes.fetch_add(new + reused, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A client that trusts the mint alone, and can verify keys of one kind.
fn connector(mint: &Mint, version: Option<SslVersion>, kind: Kind, h2: bool) -> SslConnector {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.cert_store_mut().add_cert(mint.ca.clone()).unwrap();
    builder.set_min_proto_version(version).unwrap();
    builder.set_max_proto_version(version).unwrap();
    // The mint signs with ECDSA, so a client of RSA keys must take that in certificates.
    let (signatures, ciphers) = match kind {
        Kind::Ecdsa => ("ECDSA+SHA256", "aECDSA"),
        Kind::Rsa => ("RSA-PSS+SHA256:RSA+SHA256", "aRSA"),
    };
    builder.set_sigalgs_list(signatures).unwrap();
    builder.set_cipher_list(ciphers).unwrap();
    let alpn: &[u8] = if h2 { b"\x02h2" } else { b"\x08http/1.1" };
    builder.set_alpn_protos(alpn).unwrap();
    builder.build()
}

fn connect(gateway: &Gateway, connector: &SslConnector, host: &str) -> SslStream<TcpStream> {
    let stream = TcpStream::connect(gateway.https()).expect("the listener accepts");
    stream.set_nodelay(true).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    let shaken = connector.connect(host, stream);
    shaken.unwrap_or_else(|error| panic!("{host}: {error}"))
}

fn number_of(stream: &SslStream<TcpStream>) -> u64 {
    let leaf: X509 = stream.ssl().peer_certificate().expect("a server has one");
    let number = leaf.serial_number().to_bn().unwrap().to_dec_str().unwrap();
    number.parse().unwrap()
}

/// Status of a request over HTTP/1.1.
fn http1(stream: &mut SslStream<TcpStream>, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[b"HTTP/1.1 ".len()..]).into_owned()
}

/// The same over HTTP/2, by hand: one stream, a head without a body, and the answer's first field,
/// which is its status.
fn http2(stream: &mut SslStream<TcpStream>, host: &str) -> String {
    assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
    // RFC 7541 appendix A: `:method: GET`, `:scheme: https`, `:path: /`, `:authority` by name.
    let mut head = vec![0x82, 0x87, 0x84, 0x41, host.len() as u8];
    head.extend(host.as_bytes());
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    said.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // END_STREAM and END_HEADERS.
    said.extend([0, 0, head.len() as u8, 1, 0x5, 0, 0, 0, 1]);
    said.extend(head);
    stream.write_all(&said).unwrap();
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).expect("a frame");
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        let mut content = vec![0; length as usize];
        stream.read_exact(&mut content).expect("a whole frame");
        if frame[3] == HEADERS {
            // Past changes of the table's size: index 8 is `:status: 200`.
            let first = content.iter().find(|byte| **byte & 0xe0 != 0x20);
            return if first == Some(&0x88) { "200" } else { "other" }.to_owned();
        }
    }
}

fn memory_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.unwrap().trim().trim_end_matches(" kB");
    line.parse().unwrap()
}
