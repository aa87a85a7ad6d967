//! Faults of requests: what comes in place of the manager's answer, or becomes of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openssl::ssl::SslStream;
use serde_json::json;

use super::{Dialect, FORGED, Fault, Shared, reset_on_drop};
use crate::harness::relay::{forward, in_wire_form};
use crate::harness::wire::{Kind, Reader};

/// A connection over which requests come.
pub(super) trait Peer: Read + Write {
    /// What it runs over.
    fn tcp(&self) -> &TcpStream;
}

impl Peer for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Peer for SslStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref()
    }
}

const FAULTS: &[Fault] = &[
    Fault::DelayBefore,
    Fault::DelayAfter,
    Fault::Stall,
    Fault::Reset,
    Fault::Close,
    Fault::TruncateReset,
    Fault::TruncateClose,
    Fault::Drip,
    Fault::Status,
    Fault::Status,
    Fault::Status,
    Fault::Stranger,
    Fault::Stranger,
    Fault::Garbage,
    Fault::Malformed,
];

pub(super) fn converse(shared: &Shared, mut client: impl Peer) {
    let mut reader = Reader::default();
    while let Ok(Some(request)) = reader.message(&mut client, Kind::Request) {
        let fault = shared.draw(FAULTS, |decks| &mut decks.request);
        let mut say = |bytes: &[u8]| client.write_all(bytes).and_then(|()| client.flush());
        let manager = || forward(&request, shared.manager);
        let said = match fault {
            Fault::DelayBefore => {
                std::thread::sleep(shared.pause(LONGEST_DELAY));
                manager().map(|answer| say(&answer))
            }
            Fault::DelayAfter => manager().map(|answer| {
                std::thread::sleep(shared.pause(LONGEST_DELAY));
                say(&answer)
            }),
            Fault::Stall => {
                shared.stall();
                None
            }
            Fault::Reset => {
                reset_on_drop(client.tcp());
                None
            }
            Fault::Close => None,
            Fault::TruncateReset | Fault::TruncateClose => {
                if let Some(answer) = manager() {
                    let _ = say(&answer[..shared.random(answer.len())]);
                }
                if fault == Fault::TruncateReset {
                    // Time for the bytes to be read: an RST overtakes them.
                    std::thread::sleep(Duration::from_millis(20));
                    reset_on_drop(client.tcp());
                }
                None
            }
            Fault::Drip => manager().map(|answer| drip(&answer, say)),
            Fault::Status => Some(say(&status(shared))),
            Fault::Stranger => Some(say(&stranger(shared))),
            Fault::Garbage => {
                let _ = say(GARBAGE[shared.random(GARBAGE.len())]);
                None
            }
            Fault::Malformed => {
                let _ = say(&malformed(shared));
                None
            }
            _ => manager().map(|answer| say(&answer)),
        };
        if !matches!(said, Some(Ok(()))) {
            return;
        }
        // Handshakes are worth failing, so connections behind TLS do not live long.
        if !matches!(shared.front, super::Front::Http) && shared.is_storming() {
            return;
        }
    }
}

/// Serves values that were never written, to a client that should not have come this far.
pub(super) fn forge(shared: &Shared, mut client: impl Peer) {
    let mut reader = Reader::default();
    while let Ok(Some(_)) = reader.message(&mut client, Kind::Request) {
        let answer = in_wire_form(200, forged(shared.dialect).as_bytes());
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// One byte at a time, until the client has no patience left.
fn drip(answer: &[u8], mut say: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    for byte in answer {
        say(&[*byte])?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// 429 or 5xx.
fn status(shared: &Shared) -> Vec<u8> {
    let own: &[(u16, &str)] = match shared.dialect {
        Dialect::Vault => &[
            (
                429,
                r#"{"errors":["request path rate limit quota exceeded"]}"#,
            ),
            (500, r#"{"errors":["internal error"]}"#),
            (503, r#"{"errors":["Vault is sealed"]}"#),
            (502, r#"{"errors":[]}"#),
        ],
        Dialect::Aws => &[
            (
                400,
                r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
            ),
            (
                500,
                r#"{"__type":"InternalServiceError","message":"try later"}"#,
            ),
            (
                503,
                r#"{"__type":"ServiceUnavailable","message":"try later"}"#,
            ),
            (500, r#"{"__type":"ResourceNotFoundException"}"#),
        ],
        Dialect::Gcp => &[
            (
                429,
                r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#,
            ),
            (500, r#"{"error":{"code":500,"status":"INTERNAL"}}"#),
            (503, r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#),
            (502, r#"{"error":{"code":404,"status":"NOT_FOUND"}}"#),
        ],
    };
    let foreign = [
        (429, "slow down"),
        (500, ""),
        (502, "<html><h1>502 Bad Gateway</h1></html>"),
        (503, "<html>maintenance</html>"),
        (504, "\0\u{1}\u{2}"),
    ];
    let forged = forged(shared.dialect);
    let forgeries = [429, 500, 503].map(|status| (status, &*forged));
    let all: Vec<_> = [own, &foreign, &forgeries].concat();
    let (status, body) = all[shared.random(all.len())];
    in_wire_form(status, body.as_bytes())
}

/// Answers that say nothing about a secret, though their status sounds like it.
fn stranger(shared: &Shared) -> Vec<u8> {
    let bodies = [
        (200, "<html>please accept our terms</html>"),
        (200, ""),
        (200, "null"),
        (200, "[]"),
        (200, "\"forged-by-chaos\""),
        (200, "{\"data\":"),
        (200, "\u{feff}{}"),
        (204, ""),
        (400, "<html>bad request</html>"),
        (401, "<html>who are you</html>"),
        (403, "<html>blocked by the firewall</html>"),
        (404, "<html>no such host</html>"),
        (410, ""),
        (418, "{}"),
    ];
    match shared.random(bodies.len() + 2) {
        at if at < bodies.len() => in_wire_form(bodies[at].0, bodies[at].1.as_bytes()),
        0..=14 => {
            // To the proxy itself, which would serve whoever follows.
            let head = "HTTP/1.1 302 Found\r\nLocation: /v1/elsewhere\r\nContent-Length: 0\r\n\r\n";
            head.as_bytes().to_vec()
        }
        _ => in_wire_form(307, forged(shared.dialect).as_bytes()),
    }
}

/// A whole document of values that were never written.
fn forged(dialect: Dialect) -> String {
    let fields = json!({"key": FORGED, "a": FORGED, "b": FORGED, "cert": FORGED, "pem": FORGED});
    let document = match dialect {
        Dialect::Vault => json!({"data": {
            "data": fields, "metadata": {"version": 999_999, "deletion_time": "", "destroyed": false},
            "key": FORGED, "a": FORGED, "b": FORGED, "cert": FORGED, "pem": FORGED,
        }}),
        Dialect::Aws => json!({"Name": "x", "VersionId": "x", "SecretString": fields.to_string()}),
        Dialect::Gcp => {
            use base64::Engine as _;
            let data = base64::engine::general_purpose::STANDARD.encode(fields.to_string());
            json!({"name": "x", "payload": {"data": data}})
        }
    };
    document.to_string()
}

const GARBAGE: &[&[u8]] = &[
    b"\x16\x03\x01 this is not HTTP\r\n\r\n\0",
    b"\r\n\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\xff\xfe\xfd\xfc\0\0\0\0",
    b"HTTP/9.9 200 OK\r\n\r\n",
];

/// A value nobody wrote, in HTTP that breaks its own rules.
fn malformed(shared: &Shared) -> Vec<u8> {
    let body = forged(shared.dialect);
    let length = body.len();
    let (big, spaces) = ("x".repeat(512 << 10), " ".repeat(3 << 20));
    match shared.random(7) {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{body}"),
        1 => format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        2 => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"
        ),
        3 => format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{body}"),
        4 => format!("HTTP/1.1 200 OK\r\nX: {big}\r\nContent-Length: {length}\r\n\r\n{body}"),
        5 => format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            length + 1
        ),
        // Longer than a document may be.
        _ => format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{spaces}{body}",
            spaces.len() + length
        ),
    }
    .into_bytes()
}

const LONGEST_DELAY: Duration = Duration::from_millis(1500);
