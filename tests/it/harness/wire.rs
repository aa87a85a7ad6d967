//! HTTP/1.1 messages off a socket, read strictly and without a library that would tidy them up.

use std::io::{self, ErrorKind, Read};

/// One message: a request or an answer.
#[derive(Debug, Clone)]
pub struct Message {
    /// First line, without its line end.
    pub start: String,
    /// Fields in order, names lower-cased.
    pub headers: Vec<(String, String)>,
    /// Body, with chunking undone.
    pub body: Vec<u8>,
}

impl Message {
    /// First value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The `n`th word of the first line.
    pub fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }

    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Which side sent the message: it decides what no `Content-Length` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No length: no body.
    Request,
    /// No length: until the connection closes.
    Answer,
    /// Never a body, whatever the head says.
    AnswerToHead,
}

/// Bytes read so far and not yet part of a message.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// The next message; `None` where the peer closed before its first byte.
    ///
    /// # Errors
    /// `UnexpectedEof` where the message is cut short, `InvalidData` where it is not HTTP.
    pub fn message(&mut self, from: &mut impl Read, kind: Kind) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at;
            }
            if !self.more(from)? {
                return match self.pending.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        let head: Vec<u8> = self.pending.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut message = Message {
            start: lines.next().unwrap_or_default().to_owned(),
            headers: lines.filter_map(field).collect(),
            body: Vec::new(),
        };
        message.body = self.body(from, &message, kind)?;
        Ok(Some(message))
    }

    fn body(&mut self, from: &mut impl Read, head: &Message, kind: Kind) -> io::Result<Vec<u8>> {
        let status = head.word(1);
        let bodiless = status.starts_with('1') || matches!(status, "204" | "304");
        if kind == Kind::AnswerToHead || kind == Kind::Answer && bodiless {
            return Ok(Vec::new());
        }
        if head.header("transfer-encoding").is_some() {
            return self.chunks(from);
        }
        match head.header("content-length").map(str::parse) {
            Some(Ok(length)) => self.exactly(from, length),
            Some(Err(_)) => Err(ErrorKind::InvalidData.into()),
            None if kind == Kind::Request => Ok(Vec::new()),
            None => {
                while self.more(from)? {}
                Ok(std::mem::take(&mut self.pending))
            }
        }
    }

    fn chunks(&mut self, from: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(from)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.line(from)?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(from, size)?);
            self.line(from)?;
        }
    }

    fn line(&mut self, from: &mut impl Read) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.pending, b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more(from)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next `length` bytes, whatever they are.
    ///
    /// # Errors
    /// The stream ends before.
    pub fn exactly(&mut self, from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            if !self.more(from)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.pending.drain(..length).collect())
    }

    /// False at the end of the stream.
    fn more(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(count) => {
                    self.pending.extend_from_slice(&buffer[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}
