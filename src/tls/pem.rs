//! Blocks of a PEM text (RFC 7468): where they stand and what they call themselves. Lenient where
//! OpenSSL is: text around blocks, any line endings. Decodes certificates, never a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block, from its `BEGIN` line to its `END` line.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// What stands behind `BEGIN`.
    pub label: &'a [u8],
    /// The whole block, both lines included.
    pub whole: &'a [u8],
    body: &'a [u8],
}

/// A block that does not end, or that another label ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Torn;

impl Block<'_> {
    /// Whether it is a certificate by one of the labels that OpenSSL takes.
    pub(super) fn is_certificate(&self) -> bool {
        matches!(
            self.label,
            b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE"
        )
    }

    /// Whether it is a private key of any kind, encrypted or not.
    pub(super) fn is_private_key(&self) -> bool {
        self.label.ends_with(b"PRIVATE KEY")
    }

    /// Whether it cannot be read without a pass phrase.
    pub(super) fn is_encrypted(&self) -> bool {
        let headed = self.body.trim_ascii_start().starts_with(b"Proc-Type:");
        self.label == b"ENCRYPTED PRIVATE KEY" || headed
    }

    /// What the base64 stands for.
    pub(super) fn decode(&self) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(self.body.len());
        text.extend(self.body.iter().filter(|byte| !byte.is_ascii_whitespace()));
        STANDARD.decode(&text).ok()
    }
}

/// The blocks of a text, in order. Ends at the first torn one.
pub(super) fn blocks(text: &[u8]) -> impl Iterator<Item = Result<Block<'_>, Torn>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let (label, start, body) = begin(rest.take()?)?;
        let Some((end, after)) = end(body, label) else {
            return Some(Err(Torn));
        };
        rest = Some(after);
        let whole = start.len() - after.len();
        Some(Ok(Block {
            label,
            whole: &start[..whole],
            body: &body[..end],
        }))
    })
}

/// Label, block and body of the first block; only whole lines begin one.
fn begin(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + memchr::memmem::find(&text[from..], BEGIN)?;
        let start = &text[at..];
        let behind = &start[BEGIN.len()..];
        let line = memchr::memchr2(b'\n', b'\r', behind).unwrap_or(behind.len());
        let label = behind[..line].trim_ascii_end().strip_suffix(DASHES);
        // A text whose line ends were escaped is one line, which ends in dashes, too.
        if let Some(label) = label
            && memchr::memmem::find(label, b"--").is_none()
            && begins_line(text, at)
        {
            return Some((label, start, &behind[line..]));
        }
        from = at + BEGIN.len();
    }
}

/// Where the body ends and what follows the block. `None` where another line of dashes comes first.
fn end<'a>(body: &'a [u8], label: &[u8]) -> Option<(usize, &'a [u8])> {
    let at = memchr::memmem::find(body, DASHES)?;
    let after = body[at..].strip_prefix(END)?;
    let after = after.strip_prefix(label)?.strip_prefix(DASHES)?;
    begins_line(body, at).then_some((at, after))
}

fn begins_line(text: &[u8], at: usize) -> bool {
    at == 0 || matches!(text[at - 1], b'\n' | b'\r')
}

const DASHES: &[u8] = b"-----";
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<Result<String, Torn>> {
        let label = |block: Block<'_>| String::from_utf8_lossy(block.label).into_owned();
        blocks(text.as_bytes())
            .map(|block| block.map(label))
            .collect()
    }

    #[test]
    fn blocks_are_found_among_any_text_and_line_endings() {
        let text = "Bag Attributes\n  friendlyName: -----BEGIN A-----\n\
            -----BEGIN A-----\r\nAQI=\r\n-----END A-----\r\ngarbage\n\
            -----BEGIN B C-----  \nAQ\nID\n\n-----END B C-----trailing";
        assert_eq!(labels(text), [Ok("A".to_owned()), Ok("B C".to_owned())]);
        let decoded: Vec<_> = blocks(text.as_bytes())
            .map(|block| block.expect("whole").decode())
            .collect();
        assert_eq!(decoded, [Some(vec![1, 2]), Some(vec![1, 2, 3])]);
        let whole = blocks(text.as_bytes()).next().expect("one").expect("whole");
        assert!(whole.whole.starts_with(b"-----BEGIN A") && whole.whole.ends_with(b"END A-----"));
    }

    #[test]
    fn torn_blocks_are_told() {
        for text in [
            "-----BEGIN A-----\nAQI=\n",
            "-----BEGIN A-----\nAQI=\n-----END B-----\n",
            "-----BEGIN A-----\nAQI=\n-----BEGIN A-----\nAQI=\n-----END A-----\n",
            "-----BEGIN A-----\nAQI=-----END A-----\n",
        ] {
            assert_eq!(labels(text), [Err(Torn)], "{text}");
        }
        assert_eq!(labels("no block; -----BEGIN A-----, END"), []);
        assert_eq!(labels("-----BEGIN A-----\\nAQI=\\n-----END A-----"), []);
        assert_eq!(labels(""), []);
    }

    #[test]
    fn what_is_no_base64_does_not_decode() {
        let text = b"-----BEGIN A-----\nhunter2!\n-----END A-----\n";
        let block = blocks(text).next().expect("one").expect("whole");
        assert_eq!(block.decode(), None);
    }
}
