//! `claviger echo`: an upstream for trying things. It answers with the request it got.
//!
//! Not for production: it listens without TLS and shows whatever it is sent, credentials included.
//!
//! | Path | Answer |
//! |---|---|
//! | `/status/<n>` | status `n` (200–599) |
//! | `/bytes/<n>` | `n` bytes, streamed |
//! | `/delay/<s>` | the request as JSON, after `s` seconds |
//! | any, with `Upgrade: websocket` | every message sent back |
//! | any other | the request as JSON |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Longest request body that is echoed; a longer one is answered 413.
const MAX_BODY_BYTES: usize = 4 << 20;
/// Most that `/bytes/<n>` gives; a larger number is answered 400.
const MAX_ANSWER_BYTES: u64 = 1 << 30;
/// Longest wait of `/delay/<s>`; a longer one is answered 400.
const MAX_DELAY_SECS: f64 = 600.0;
/// What `/bytes/<n>` is made of.
const FILLER: &[u8] = &[b'x'; 16 << 10];

/// Arguments of `claviger echo`.
#[derive(Debug, Clone, clap::Args)]
pub struct EchoArgs {
    /// Address to listen on, such as 127.0.0.1:1980. Port 0 takes any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1980")]
    pub listen: SocketAddr,
}

/// Serves until the process is stopped. Says on standard output where it listens.
///
/// # Errors
/// The address cannot be bound.
pub fn run(args: EchoArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        announce(&mut std::io::stdout(), listener.local_addr()?)?;
        serve(listener).await
    })
}

/// Accepts connections for ever; HTTP/1.1 and HTTP/2 with prior knowledge on the same port.
///
/// # Errors
/// The listener is broken; a failing connection is not an error.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(connection(stream, peer))),
            // Such as a client that left already, or no file descriptor free right now.
            Err(error) if error.raw_os_error() != Some(libc::EBADF) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error).context("cannot accept connections"),
        }
    }
}

fn announce(out: &mut impl std::io::Write, addr: SocketAddr) -> std::io::Result<()> {
    writeln!(out, "echo listens on http://{addr}")?;
    out.flush()
}

async fn connection(stream: TcpStream, peer: SocketAddr) {
    // Answers are small and single: waiting to fill a packet only adds latency.
    let _ = stream.set_nodelay(true);
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, peer).await) });
    // An error here is the client's doing (reset, bad bytes); there is nobody left to tell.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

type Answer = Response<Either<Full<Bytes>, Filler>>;

async fn answer(request: Request<Incoming>, peer: SocketAddr) -> Answer {
    if let Some(accept) = websocket_accept(request.headers()) {
        return upgrade(request, accept);
    }
    let path = request.uri().path().to_owned();
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("status"), Some(code), None) => status(code),
        (Some("bytes"), Some(count), None) => filler(count),
        (Some("delay"), Some(secs), None) => match secs.parse::<f64>() {
            Ok(secs) if (0.0..=MAX_DELAY_SECS).contains(&secs) => {
                tokio::time::sleep(Duration::from_secs_f64(secs)).await;
                echo(request, peer).await
            }
            _ => refusal(StatusCode::BAD_REQUEST, "delay is 0 to 600 seconds"),
        },
        _ => echo(request, peer).await,
    }
}

fn status(code: &str) -> Answer {
    let code = code.parse().ok().filter(|code| (200..600).contains(code));
    match code.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(code) => reply(code, &json!({ "status": code.as_u16() })),
        None => refusal(StatusCode::BAD_REQUEST, "status is 200 to 599"),
    }
}

fn filler(count: &str) -> Answer {
    match count.parse() {
        Ok(left) if left <= MAX_ANSWER_BYTES => Response::new(Either::Right(Filler { left })),
        _ => refusal(StatusCode::BAD_REQUEST, "bytes is 0 to 1073741824"),
    }
}

async fn echo(request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body is incomplete or too long",
        );
    };
    let mut seen = json!({
        "method": head.method.as_str(),
        "uri": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": headers_as_json(&head.headers),
        "remote_addr": peer.to_string(),
    });
    let body = body.to_bytes();
    match std::str::from_utf8(&body) {
        Ok(text) => seen["body"] = text.into(),
        Err(_) => {
            seen["body_base64"] = base64::engine::general_purpose::STANDARD
                .encode(&body)
                .into();
        }
    }
    reply(StatusCode::OK, &seen)
}

/// A field sent once is a string, one sent several times a list.
fn headers_as_json(headers: &HeaderMap) -> Map<String, Value> {
    headers
        .keys()
        .map(|name| {
            let mut values: Vec<Value> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
                .collect();
            let value = match values.pop() {
                Some(only) if values.is_empty() => only,
                last => values.into_iter().chain(last).collect(),
            };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

fn reply(code: StatusCode, body: &Value) -> Answer {
    let text = format!("{body:#}\n");
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn refusal(code: StatusCode, why: &str) -> Answer {
    reply(code, &json!({ "error_msg": why }))
}

/// The `Sec-WebSocket-Accept` of a well-formed opening handshake (RFC 6455 §4.2.1).
fn websocket_accept(headers: &HeaderMap) -> Option<String> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    upgrade
        .eq_ignore_ascii_case("websocket")
        .then(|| derive_accept_key(key.as_bytes()))
}

fn upgrade(mut request: Request<Incoming>, accept: String) -> Answer {
    let Ok(accept) = HeaderValue::try_from(accept) else {
        return refusal(StatusCode::BAD_REQUEST, "bad Sec-WebSocket-Key");
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            echo_messages(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo_messages(io: TokioIo<hyper::upgrade::Upgraded>) {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_BODY_BYTES))
        .max_frame_size(Some(MAX_BODY_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
    while let Some(Ok(message)) = socket.next().await {
        // Pings are answered by the library; a close is echoed by it too.
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            break;
        }
    }
}

/// A body of `left` bytes that never stands whole in memory.
struct Filler {
    left: u64,
}

impl Body for Filler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let take = usize::try_from(self.left).map_or(FILLER.len(), |left| left.min(FILLER.len()));
        self.left -= take as u64;
        let chunk = Bytes::from_static(&FILLER[..take]);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::Message;

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        addr
    }

    async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client
            .get(format!("http://{addr}{path}"))
            .header("x-one", "1")
            .body("hello")
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_request_comes_back_as_json() {
        let (status, text) = get(start().await, "/a/b?c=d").await;
        let seen: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, 200);
        assert_eq!(seen["method"], "GET");
        assert_eq!(seen["uri"], "/a/b?c=d");
        assert_eq!(seen["headers"]["x-one"], "1");
        assert_eq!(seen["body"], "hello");
        let peer = seen["remote_addr"].as_str().unwrap();
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    }

    #[tokio::test]
    async fn paths_choose_status_size_and_delay() {
        let addr = start().await;
        assert_eq!(get(addr, "/status/418").await.0, 418);
        assert_eq!(get(addr, "/bytes/100000").await.1.len(), 100_000);
        assert_eq!(get(addr, "/bytes/0").await, (200, String::new()));
        assert_eq!(get(addr, "/delay/0.01").await.0, 200);
        for bad in ["/status/99", "/status/x", "/bytes/-1", "/delay/1e9"] {
            assert_eq!(get(addr, bad).await.0, 400, "{bad}");
        }
    }

    #[tokio::test]
    async fn repeated_headers_become_a_list() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        headers.append("b", HeaderValue::from_static("3"));
        let seen = Value::Object(headers_as_json(&headers));
        assert_eq!(seen, json!({ "a": ["1", "2"], "b": "3" }));
    }

    #[tokio::test]
    async fn websocket_messages_come_back() {
        let addr = start().await;
        let stream = TcpStream::connect(addr).await.unwrap();
        let url = format!("ws://{addr}/chat");
        let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        assert_eq!(response.status(), 101);
        for message in [Message::text("hi"), Message::binary(vec![0, 255])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
    }

    #[tokio::test]
    async fn http2_works_without_an_upgrade() {
        let stream = TcpStream::connect(start().await).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://echo.test/x").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
}
