//! HTTP/2 without TLS: an upstream that answers as a gRPC server does, and a client.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// An upstream that speaks HTTP/2 only, without an upgrade, and answers each request with its
/// body and `grpc-status: 0` in the trailers.
pub struct GrpcUpstream {
    /// Where it listens.
    pub addr: SocketAddr,
    heads: Arc<Mutex<Vec<http::request::Parts>>>,
    connections: Arc<AtomicUsize>,
    // Serves until it is dropped.
    _runtime: Runtime,
}

impl GrpcUpstream {
    /// Starts it.
    pub fn start() -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let (seen, counted) = (Arc::clone(&heads), Arc::clone(&connections));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&seen)));
            }
        });
        Self {
            addr,
            heads,
            connections,
            _runtime: runtime,
        }
    }

    /// Heads of the requests so far.
    pub fn heads(&self) -> Vec<http::request::Parts> {
        self.heads.lock().unwrap().clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(stream: TcpStream, heads: Arc<Mutex<Vec<http::request::Parts>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let heads = Arc::clone(&heads);
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            heads.lock().unwrap().push(head);
            let received = read(&mut body).await;
            let answer = Response::builder().header("content-type", "application/grpc");
            let mut stream = respond
                .send_response(answer.body(()).unwrap(), false)
                .unwrap();
            stream.send_data(received.into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
        });
    }
}

/// What came back.
pub struct Reply {
    /// Status and fields.
    pub head: http::response::Parts,
    /// Body.
    pub body: Vec<u8>,
    /// Trailers, if any came.
    pub trailers: Option<HeaderMap>,
}

/// Sends requests over one connection with prior knowledge, one after another.
pub fn requests(addr: SocketAddr, requests: Vec<Request<Bytes>>) -> Vec<Reply> {
    runtime().block_on(async move {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut replies = Vec::new();
        for request in requests {
            let (head, body) = request.into_parts();
            let head = Request::from_parts(head, ());
            let (response, mut stream) = client.send_request(head, body.is_empty()).unwrap();
            if !body.is_empty() {
                stream.send_data(body, true).unwrap();
            }
            let (head, mut body) = response.await.unwrap().into_parts();
            replies.push(Reply {
                head,
                body: read(&mut body).await,
                trailers: body.trailers().await.unwrap(),
            });
        }
        replies
    })
}

async fn read(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        read.extend(part);
    }
    read
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
