//! The edge in front of a real `HttpProxy`, on real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service as _;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::http2::HTTP2_PREFACE;
use super::*;
use crate::clock::SystemClock;
use crate::proxy::handshake::{RefusedHandshakes, TlsOptions};
use crate::telemetry::metrics::HandshakeFailure;
use crate::tls::dev::{Authority, LeafOptions};
use crate::tls::{CertifiedKey, Protocols, SniEntry, SniStore, TlsIdentity, TlsPolicy};

/// Answers every request itself; `/slow` once it is released.
struct App {
    release: Arc<Notify>,
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        (): &mut (),
    ) -> pingora_error::Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "there is no upstream")
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora_error::Result<()> {
        header_seen();
        session.set_keepalive(Some(60));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora_error::Result<bool> {
        if session.req_header().uri.path() == "/slow" {
            self.release.notified().await;
        }
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        let response = Response::builder().header("content-length", 2).body(());
        let response: ResponseHeader = response.expect("valid").into_parts().0.into();
        session
            .write_response_header(Box::new(response), false)
            .await?;
        session
            .write_response_body(Some(Bytes::from_static(b"ok")), true)
            .await?;
        Ok(true)
    }

    async fn logging(&self, _session: &mut Session, _error: Option<&Error>, (): &mut ()) {
        request_done();
    }
}

struct Server {
    plain: SocketAddr,
    tls: SocketAddr,
    drain: Arc<Drain>,
    handshakes: Arc<HandshakeCounts>,
    release: Arc<Notify>,
    runtime: Runtime,
}

const LIMITS: EdgeLimits = EdgeLimits {
    max_connections: 0,
    handshake_timeout: Duration::from_secs(1),
    client_header_timeout: Duration::from_secs(1),
    h2c: true,
};

impl Server {
    fn start(limits: EdgeLimits) -> Self {
        let release = Arc::new(Notify::new());
        let app = App {
            release: release.clone(),
        };
        let conf = Arc::new(ServerConf::default());
        let mut proxy: HttpProxy<App> = http_proxy(&conf, app);
        let mut options = HttpServerOptions::default();
        options.h2c = limits.h2c;
        proxy.server_options = Some(options);
        let drain = Arc::new(Drain::default());
        let handshakes = Arc::new(HandshakeCounts::default());
        let parts = EdgeParts {
            limits,
            drain: drain.clone(),
            handshakes: handshakes.clone(),
            per_address: PerAddress::new(0),
            proxied: Arc::default(),
            lines: Arc::default(),
            clock: Arc::new(SystemClock),
        };
        let mut service = EdgeService::new("test", proxy, parts);
        let [plain, tls] = free_ports();
        service.listen(&[plain], Entrance::default());
        let names = names();
        let acceptor = Acceptor::build(
            Arc::new(move || names.clone()),
            TlsOptions::default(),
            Arc::new(RefusedHandshakes::default()),
            Arc::new(SystemClock),
        );
        let acceptor = Arc::new(acceptor.expect("settings"));
        service.listen(
            &[tls],
            Entrance {
                tls: Some(acceptor),
                ..Entrance::default()
            },
        );
        let runtime = Runtime::new().expect("runtime");
        let never = drain.watch();
        runtime.spawn(async move {
            service.start_service(None, never, 1).await;
        });
        for addr in [plain, tls] {
            while TcpStream::connect(addr).is_err() {
                std::thread::yield_now();
            }
        }
        let server = Self {
            plain,
            tls,
            drain,
            handshakes,
            release,
            runtime,
        };
        // The two connections above are accepted some time later.
        let accepted = |server: &Self| server.drain.counts().accepted.load(Ordering::Relaxed);
        server.until(|server| accepted(server) == 2 && server.active() == 0);
        server
    }

    fn active(&self) -> usize {
        self.drain.counts().active.load(Ordering::Relaxed)
    }

    fn until(&self, reached: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !reached(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "takes too long");
            std::thread::yield_now();
        }
    }

    /// Waits in the background for the drain to end; true if nothing had to be cut.
    fn wait_idle(&self) -> tokio::task::JoinHandle<bool> {
        let drain = self.drain.clone();
        let wait = async move { drain.wait_idle(Duration::from_secs(10)).await };
        self.runtime.spawn(wait)
    }
}

fn free_ports() -> [SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind"));
    held.map(|listener| listener.local_addr().expect("bound"))
}

fn names() -> Arc<SniStore> {
    let issued = Authority::new().and_then(|ca| ca.issue(&["a.test"], &LeafOptions::default()));
    let issued = issued.expect("leaf");
    let pair = CertifiedKey::parse(issued.cert_pem.as_bytes(), &issued.key_pem).expect("pair");
    let policy = TlsPolicy::new("1", Protocols::default(), None, 0);
    let identity = TlsIdentity::serving("1".into(), vec![Arc::new(pair)], policy);
    Arc::new(SniStore::build(vec![SniEntry {
        patterns: vec!["*".into()],
        identity: Arc::new(identity),
    }]))
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connect");
    let bound = Some(Duration::from_secs(10));
    stream.set_read_timeout(bound).expect("bound");
    stream
}

/// Sends a request and reads its answer, leaving the connection open.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("write");
    answer(stream)
}

fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0; 1];
    while !text.ends_with(b"\r\n\r\nok") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// How long the other end stays open while a byte of a head is sent now and then.
fn drip(mut stream: TcpStream) -> Duration {
    let start = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").expect("write");
    let pace = Some(Duration::from_millis(100));
    stream.set_read_timeout(pace).expect("bound");
    while start.elapsed() < Duration::from_secs(20) {
        let open = stream.write_all(b"a").is_ok();
        let ended = match stream.read(&mut [0; 64]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ),
        };
        if !open || ended {
            break;
        }
    }
    start.elapsed()
}

/// The upper bound leaves room for a busy machine, and stays far below the 60 s of keep-alive.
#[test]
fn a_head_that_drips_is_cut_on_the_first_and_on_later_requests() {
    let server = Server::start(LIMITS);
    let open = drip(connect(server.plain));
    assert!(open < Duration::from_secs(15), "{open:?}");

    let mut later = connect(server.plain);
    assert!(ask(&mut later, "/").contains("200 OK"));
    // Idleness is not held against the head that follows.
    let idle = Some(LIMITS.client_header_timeout * 3 / 2);
    later.set_read_timeout(idle).expect("bound");
    assert!(later.read(&mut [0; 1]).is_err(), "the idle one stays open");
    assert!(ask(&mut later, "/").contains("200 OK"));
    let open = drip(later);
    assert!(open >= LIMITS.client_header_timeout, "{open:?}");
    assert!(open < Duration::from_secs(15), "{open:?}");
    // Counted just after the connection is closed.
    server.until(|server| {
        server
            .drain
            .counts()
            .header_timeouts
            .load(Ordering::Relaxed)
            == 2
    });
}

#[test]
fn slow_answers_are_not_cut() {
    let server = Server::start(LIMITS);
    let mut slow = connect(server.plain);
    write!(slow, "GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("write");
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "-w", "|%{http_version}"])
        .arg(format!("http://{}/slow", server.plain))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("curl is installed");
    // Past every deadline of both connections.
    let pace = Some(Duration::from_secs(3));
    slow.set_read_timeout(pace).expect("bound");
    assert!(slow.read(&mut [0; 1]).is_err(), "no answer and no end");
    server.release.notify_waiters();
    assert!(answer(&mut slow).contains("200 OK"));
    let output = curl.wait_with_output().expect("curl ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok|2");
}

#[test]
fn http2_connections_without_a_request_are_cut() {
    let server = Server::start(LIMITS);
    for opening in [&HTTP2_PREFACE[..8], &HTTP2_PREFACE[..]] {
        let mut silent = connect(server.plain);
        silent.write_all(opening).expect("write");
        let start = Instant::now();
        // Its SETTINGS may come first.
        drop(silent.read_to_end(&mut Vec::new()));
        assert!(start.elapsed() < Duration::from_secs(3), "{opening:?}");
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_until_one_ends() {
    let server = Server::start(EdgeLimits {
        max_connections: 1,
        ..LIMITS
    });
    let mut first = connect(server.plain);
    assert!(ask(&mut first, "/").contains("200 OK"));
    for addr in [server.plain, server.tls] {
        let mut second = connect(addr);
        assert!(!matches!(second.read(&mut [0; 64]), Ok(1..)), "{addr}");
    }
    drop(first);
    server.until(|server| server.active() == 0);
    assert!(ask(&mut connect(server.plain), "/").contains("200 OK"));
}

#[test]
fn tls_ports_close_silent_clients_and_answer_plain_http() {
    let server = Server::start(LIMITS);
    let start = Instant::now();
    let mut silent = connect(server.tls);
    assert!(!matches!(silent.read(&mut [0; 64]), Ok(1..)));
    assert!(start.elapsed() < Duration::from_secs(3));

    let mut plain = connect(server.tls);
    write!(plain, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("write");
    let mut text = String::new();
    plain.read_to_string(&mut text).expect("a whole answer");
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").expect("head and body");
    assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
    server.until(|server| server.active() == 0);
    let failed = |failure| server.handshakes.failed(failure);
    assert_eq!(failed(HandshakeFailure::Timeout), 1);
    assert_eq!(failed(HandshakeFailure::PlainHttp), 1);
    assert_eq!(server.handshakes.in_flight(), 0);
}

#[test]
fn a_drain_stops_accepting_and_ends_with_the_last_request() {
    let server = Server::start(EdgeLimits {
        client_header_timeout: Duration::from_secs(60),
        ..LIMITS
    });
    let mut idle = connect(server.plain);
    assert!(ask(&mut idle, "/").contains("200 OK"));
    let mut slow = connect(server.plain);
    write!(slow, "GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("write");
    server.until(|server| server.active() == 2);

    server.drain.begin();
    let waiting = server.wait_idle();
    server.until(|server| TcpStream::connect(server.plain).is_err());
    server.until(|server| TcpStream::connect(server.tls).is_err());
    assert_eq!(idle.read(&mut [0; 1]).expect("closed in order"), 0);
    // Counted just after a connection is closed; the slow request goes on.
    server.until(|server| server.active() == 1);
    assert!(!waiting.is_finished());

    server.release.notify_one();
    let text = answer(&mut slow);
    assert!(text.contains("200 OK"), "{text}");
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    let released = Instant::now();
    assert!(server.runtime.block_on(waiting).expect("drain"));
    assert!(released.elapsed() < Duration::from_secs(2));
}
