//! A client that sends exactly the bytes a test says, over TCP or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslStream};
use openssl::x509::X509;

use super::wire::{Kind, Message, Reader};

/// How long a read may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// The rest.
    pub message: Message,
}

impl Reply {
    /// Body as text.
    pub fn text(&self) -> String {
        self.message.text()
    }

    /// First value of a field; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }
}

/// One connection, kept open from request to request.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: S,
    reader: Reader,
}

impl Connection<TcpStream> {
    /// Connects in the clear.
    pub fn open(addr: SocketAddr) -> Self {
        Self::over(tcp(addr))
    }

    /// Takes a stream that is connected already.
    pub fn over_stream(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream)
    }

    /// Gives up a read after so long.
    pub fn set_read_timeout(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// Ends our side of the conversation, as `shutdown(SHUT_WR)`.
    pub fn finish_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl Connection<SslStream<TcpStream>> {
    /// Connects with TLS, verifying the certificate against this CA and the name sent as SNI.
    ///
    /// # Errors
    /// The handshake failed; the text is OpenSSL's.
    pub fn open_tls(addr: SocketAddr, name: &str, ca_pem: &str) -> Result<Self, String> {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        for ca in X509::stack_from_pem(ca_pem.as_bytes()).unwrap() {
            builder.cert_store_mut().add_cert(ca).unwrap();
        }
        builder
            .build()
            .connect(name, tcp(addr))
            .map(Self::over)
            .map_err(|error| error.to_string())
    }

    /// Takes a stream whose handshake is done.
    pub fn over_tls(stream: SslStream<TcpStream>) -> Self {
        Self::over(stream)
    }

    /// The server's certificate, as DER.
    pub fn certificate(&self) -> Vec<u8> {
        let certificate = self.stream.ssl().peer_certificate();
        certificate.expect("a server has one").to_der().unwrap()
    }
}

impl<S: Read + Write> Connection<S> {
    fn over(stream: S) -> Self {
        Self {
            stream,
            reader: Reader::default(),
        }
    }

    /// Sends these bytes as they are. A peer that has already closed is the next read's business.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
        let _ = self.stream.flush();
    }

    /// Sends a request without a body.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let fields: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        self.send(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n"));
    }

    /// The next answer; `None` where the server closed instead.
    ///
    /// # Errors
    /// The answer is cut short or not HTTP, or none came in time.
    pub fn reply(&mut self) -> io::Result<Option<Reply>> {
        self.reply_of(Kind::Answer)
    }

    /// The next answer, to a request with `HEAD`.
    pub fn expect_reply_to_head(&mut self) -> Reply {
        let reply = self.reply_of(Kind::AnswerToHead);
        let reply = reply.expect("a whole answer must come");
        reply.expect("an answer must come before the connection closes")
    }

    fn reply_of(&mut self, kind: Kind) -> io::Result<Option<Reply>> {
        let message = match self.reader.message(&mut self.stream, kind) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        Ok(message.map(|message| Reply {
            status: message.word(1).parse().unwrap_or(0),
            message,
        }))
    }

    /// The answer to `HEAD`, which must come.
    pub fn expect_head_reply(&mut self) -> Reply {
        let message = self.reader.message(&mut self.stream, Kind::AnswerToHead);
        let message = message.expect("a whole answer must come");
        let message = message.expect("an answer must come before the connection closes");
        Reply {
            status: message.word(1).parse().unwrap_or(0),
            message,
        }
    }

    /// The next answer, which must come.
    pub fn expect_reply(&mut self) -> Reply {
        let reply = self.reply().expect("a whole answer must come");
        reply.expect("an answer must come before the connection closes")
    }

    /// So many bytes as they come, for what is not HTTP after an upgrade.
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let read = self.reader.exactly(&mut self.stream, count);
        read.expect("the bytes must come")
    }

    /// Whether the server has closed, or closes within the read's time limit.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reply(), Ok(None))
    }
}

/// One request on a connection of its own.
pub fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut connection = Connection::open(addr);
    connection.request("GET", path, headers);
    connection.expect_reply()
}

/// A connected socket with time limits.
pub fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}
