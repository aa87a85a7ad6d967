//! A node behind TLS that speaks HTTP/2 to those who offer it, HTTP/1.1 to others, and does with
//! each request what a test wrote down for it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslMethod, select_next_proto};
use openssl::x509::X509;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_openssl::SslStream;

use claviger::tls::dev::Issued;

use super::certs;

/// What becomes of a request over HTTP/2. One over HTTP/1.1 is always answered.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Reads the body, answers 200 with it.
    Echo,
    /// The same, and a trailer `x-sum: 7`.
    Trailers,
    /// 200 whose head is all there is, without a length.
    HeadOnly,
    /// 204.
    NoContent,
    /// 413 with the body `too much`, before the request's body came; then asks for no more of it.
    Early,
    /// Resets the stream before an answer.
    Reset(Reason),
    /// 200, ten bytes of a body; at [`H2Node::go_on`] a reset.
    ResetMidBody,
    /// Reads and says nothing.
    Never,
    /// Answers, and takes no more requests on the connection.
    LastOne,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which connection it came over, from 0.
    pub connection: usize,
    /// Its head.
    pub head: http::request::Parts,
}

impl Seen {
    /// First value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Shared {
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    offered: Mutex<Vec<Vec<u8>>>,
    go_on: Notify,
}

/// A running node. It stops when dropped.
pub struct H2Node {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl H2Node {
    /// A node with this certificate that does so with the requests that come, in this order, and
    /// echoes the rest.
    pub fn start(issued: &Issued, acts: &[Act]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared::default());
        let tls = acceptor(issued, &shared);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = Arc::clone(&shared);
        runtime.spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(converse(
                    Arc::clone(&serving),
                    Ssl::new(tls.context()).unwrap(),
                    stream,
                    number,
                ));
                number += 1;
            }
        });
        let node = Self {
            addr,
            shared,
            _runtime: runtime,
        };
        node.next(acts);
        node
    }

    /// What to do with the next requests.
    pub fn next(&self, acts: &[Act]) {
        lock(&self.shared.acts).extend(acts);
    }

    /// What waits goes on.
    pub fn go_on(&self) {
        self.shared.go_on.notify_one();
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Requests since they were taken last.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.shared.seen))
    }

    /// What each connection offered by ALPN, in wire format.
    pub fn offered(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.offered).clone()
    }
}

fn acceptor(issued: &Issued, shared: &Arc<Shared>) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let leaf = X509::from_pem(issued.cert_pem.as_bytes()).unwrap();
    builder.set_certificate(&leaf).unwrap();
    let key = PKey::private_key_from_pem(certs::key_text(issued).as_bytes()).unwrap();
    builder.set_private_key(&key).unwrap();
    let shared = Arc::clone(shared);
    builder.set_alpn_select_callback(move |_, offered| {
        lock(&shared.offered).push(offered.to_vec());
        select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::ALERT_FATAL)
    });
    builder.build()
}

async fn converse(shared: Arc<Shared>, ssl: Ssl, stream: TcpStream, number: usize) {
    let mut stream = SslStream::new(ssl, stream).unwrap();
    if Pin::new(&mut stream).accept().await.is_err() {
        return;
    }
    if stream.ssl().selected_alpn_protocol() == Some(b"h2") {
        speak_h2(shared, stream, number).await;
    } else {
        let service = service_fn(move |request: Request<Incoming>| {
            let (head, _) = request.into_parts();
            let seen = Seen {
                connection: number,
                head,
            };
            lock(&shared.seen).push(seen);
            async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("one")))) }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

async fn speak_h2(shared: Arc<Shared>, stream: SslStream<TcpStream>, number: usize) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        let seen = Seen {
            connection: number,
            head,
        };
        lock(&shared.seen).push(seen);
        let act = lock(&shared.acts).pop_front().unwrap_or(Act::Echo);
        tokio::spawn(perform(Arc::clone(&shared), act, body, respond));
        if matches!(act, Act::LastOne) {
            connection.graceful_shutdown();
        }
    }
}

async fn perform(
    shared: Arc<Shared>,
    act: Act,
    mut body: h2::RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    let head = |status: u16| Response::builder().status(status).body(()).unwrap();
    match act {
        Act::Echo | Act::LastOne | Act::Trailers => {
            let received = read(&mut body).await;
            let mut stream = respond.send_response(head(200), false).unwrap();
            let trailers = matches!(act, Act::Trailers);
            send(&mut stream, received, !trailers).await;
            if trailers {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("7"));
                stream.send_trailers(trailers).unwrap();
            }
        }
        Act::HeadOnly => {
            respond.send_response(head(200), true).unwrap();
        }
        Act::NoContent => {
            respond.send_response(head(204), true).unwrap();
        }
        Act::Early => {
            let mut stream = respond.send_response(head(413), false).unwrap();
            stream.send_data("too much".into(), true).unwrap();
            // Dropping what was not read resets the stream with NO_ERROR.
        }
        Act::Reset(reason) => respond.send_reset(reason),
        Act::ResetMidBody => {
            let mut stream = respond.send_response(head(200), false).unwrap();
            stream.send_data("0123456789".into(), false).unwrap();
            shared.go_on.notified().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Act::Never => std::future::pending().await,
    }
}

async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else {
            return;
        };
        let part = data.split_to(capacity.min(data.len()));
        if stream.send_data(part, false).is_err() {
            return;
        }
    }
    if end {
        let _ = stream.send_data(Bytes::new(), true);
    }
}

async fn read(body: &mut h2::RecvStream) -> Bytes {
    let mut read = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        read.extend(part);
    }
    read.into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
