//! A small HTTP server of a test's own, over hyper: it answers as a function says, remembers what
//! it was asked, and counts connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::wire::Message;

/// What a service says to a request.
pub type Said = Response<String>;

type Answering = dyn Fn(&Message) -> Said + Send + Sync;

struct Shared {
    answer: Mutex<Arc<Answering>>,
    asked: Mutex<Vec<Message>>,
    connections: AtomicUsize,
}

/// A running service. It stops when dropped.
pub struct Service {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl Service {
    /// A service that answers so.
    pub fn start(answer: impl Fn(&Message) -> Said + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new(Arc::new(answer)),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            addr: told.recv().unwrap(),
            shared,
            _stop: stop,
        }
    }

    /// Answers so from now on.
    pub fn set(&self, answer: impl Fn(&Message) -> Said + Send + Sync + 'static) {
        *lock(&self.shared.answer) = Arc::new(answer);
    }

    /// Requests since they were taken last.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *lock(&self.shared.asked))
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

/// A status, headers, and a body.
pub fn said(status: u16, headers: &[(&str, &str)], body: impl Into<String>) -> Said {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // An error is a client that went away.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    let message = Message {
        start: format!("{} {} HTTP/1.1", head.method, head.uri),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: match body.collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(_) => Vec::new(),
        },
    };
    let answer = Arc::clone(&lock(&shared.answer));
    let said = answer(&message);
    lock(&shared.asked).push(message);
    Ok(said.map(|body| Full::new(body.into())))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
