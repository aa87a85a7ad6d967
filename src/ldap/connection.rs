//! One connection to a directory: one question at a time, each with its own number.
//!
//! A connection that failed, or whose answer was not awaited to its end, is never used again: its
//! owner drops it, so that no answer can be taken for another question's.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::LdapError;
use super::ber::{SEQUENCE, length_bytes, long_length};
use super::message::{self, Answer, SIZE_LIMIT_EXCEEDED, SUCCESS, Search};
use super::tls::{Security, TlsSettings};

/// Longest answer. Names and codes are asked for, never attributes.
const MAX_ANSWER: usize = 64 * 1024;
/// Most references to other directories that a search may return besides its entries.
const MAX_REFERENCES: usize = 64;

trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A connection.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    last_id: u32,
}

impl Connection {
    /// Connects, and speaks TLS where that is asked for.
    pub(super) async fn open(
        host: &str,
        port: u16,
        security: &Security,
    ) -> Result<Self, LdapError> {
        let stream = TcpStream::connect((host, port));
        let stream = stream.await.map_err(LdapError::Connect)?;
        stream.set_nodelay(true).map_err(LdapError::Connect)?;
        match security {
            Security::Plain => Ok(Self::over(stream)),
            Security::Tls(settings) => Ok(Self::over(secured(stream, host, settings).await?)),
            Security::StartTls(settings) => {
                let mut stream = stream;
                start_tls(&mut stream).await?;
                Ok(Self::over(secured(stream, host, settings).await?))
            }
        }
    }

    fn over(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            // Above the number StartTLS took.
            last_id: START_TLS_ID,
        }
    }

    /// The result code of a bind with this name and password.
    pub(super) async fn bind(&mut self, name: &str, password: &[u8]) -> Result<u32, LdapError> {
        let id = self.next_id();
        send(&mut self.stream, &message::bind(id, name, password)).await?;
        let content = receive(&mut self.stream).await?;
        match message::answer(&content, id) {
            Some(Answer::Bind(code)) => Ok(code),
            _ => Err(LdapError::Protocol),
        }
    }

    /// Names of the entries found; [`LdapError::Ambiguous`] where there are more than asked for.
    pub(super) async fn search(&mut self, search: Search<'_>) -> Result<Vec<String>, LdapError> {
        let id = self.next_id();
        send(&mut self.stream, &message::search(id, search)).await?;
        let (mut names, mut references) = (Vec::new(), 0);
        loop {
            let content = receive(&mut self.stream).await?;
            match message::answer(&content, id) {
                Some(Answer::Entry(name)) if names.len() < search.size_limit as usize => {
                    let name = String::from_utf8(name.to_vec());
                    names.push(name.map_err(|_| LdapError::Protocol)?);
                }
                Some(Answer::Reference) if references < MAX_REFERENCES => references += 1,
                Some(Answer::Done(SUCCESS)) => return Ok(names),
                Some(Answer::Done(SIZE_LIMIT_EXCEEDED)) => return Err(LdapError::Ambiguous),
                Some(Answer::Done(code)) => return Err(LdapError::Search(code)),
                _ => return Err(LdapError::Protocol),
            }
        }
    }

    fn next_id(&mut self) -> u32 {
        // RFC 4511 §4.1.1.1: positive numbers of 31 bits.
        self.last_id = self.last_id % (i32::MAX as u32) + 1;
        self.last_id
    }
}

const START_TLS_ID: u32 = 1;

async fn start_tls(stream: &mut TcpStream) -> Result<(), LdapError> {
    send(stream, &message::start_tls(START_TLS_ID)).await?;
    // Nothing is read beyond the answer, so that nothing sent in the clear counts after it.
    let content = receive(stream).await?;
    match message::answer(&content, START_TLS_ID) {
        Some(Answer::Extended(SUCCESS)) => Ok(()),
        Some(Answer::Extended(code)) => Err(LdapError::StartTls(code)),
        _ => Err(LdapError::Protocol),
    }
}

async fn secured(
    stream: TcpStream,
    host: &str,
    settings: &TlsSettings,
) -> Result<SslStream<TcpStream>, LdapError> {
    let told = |error: openssl::error::ErrorStack| LdapError::Tls(error.to_string());
    let session = settings.session(host).map_err(told)?;
    let mut stream = SslStream::new(session, stream).map_err(told)?;
    let connected = Pin::new(&mut stream).connect().await;
    connected.map_err(|error| LdapError::Tls(error.to_string()))?;
    Ok(stream)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), LdapError> {
    stream.write_all(bytes).await.map_err(LdapError::Closed)?;
    stream.flush().await.map_err(LdapError::Closed)
}

/// The content of the next message.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, LdapError> {
    let mut head = [0; 2];
    read(stream, &mut head).await?;
    let [SEQUENCE, first] = head else {
        return Err(LdapError::Protocol);
    };
    let length = match length_bytes(first).ok_or(LdapError::Protocol)? {
        0 => usize::from(first),
        count => {
            let mut bytes = [0; 4];
            let bytes = bytes.get_mut(..count).ok_or(LdapError::Protocol)?;
            read(stream, bytes).await?;
            long_length(bytes)
        }
    };
    if length > MAX_ANSWER {
        return Err(LdapError::Protocol);
    }
    let mut content = vec![0; length];
    read(stream, &mut content).await?;
    Ok(content)
}

async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), LdapError> {
    let read: io::Result<usize> = stream.read_exact(bytes).await;
    read.map(drop).map_err(LdapError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a bind, number 2, where the directory answers these bytes.
    async fn bound(answer: &[u8]) -> Result<u32, LdapError> {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(answer).await.expect("answer fits");
        let mut connection = Connection::over(near);
        // The question is read by no one; the pipe is long enough.
        let result = connection.bind("cn=a", b"b").await;
        drop(far);
        result
    }

    #[tokio::test]
    async fn strange_answers_are_refused() {
        let good = [0x30, 12, 2, 1, 2, 0x61, 7, 10, 1, 0, 4, 0, 4, 0];
        assert!(matches!(bound(&good).await, Ok(SUCCESS)));
        let mut other = good;
        other[4] = 3;
        let mut extended = good;
        extended[5] = 0x78;
        let cases: [&[u8]; 7] = [
            &other,
            &extended,
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff],
            &[0x30, 0x83, 0x01, 0x00, 0x01],
            &[0x30, 0],
        ];
        for answer in cases {
            let result = bound(answer).await;
            assert!(
                matches!(result, Err(LdapError::Protocol)),
                "{answer:?}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn numbers_start_again_before_they_turn_negative() {
        let (near, _far) = tokio::io::duplex(16);
        let mut connection = Connection::over(near);
        connection.last_id = i32::MAX as u32 - 1;
        assert_eq!(connection.next_id(), i32::MAX as u32);
        assert_eq!(connection.next_id(), 1);
    }
}
