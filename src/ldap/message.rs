//! The messages of RFC 4511 that are asked and awaited.

use zeroize::Zeroizing;

use super::ber::{ENUMERATED, INTEGER, OCTETS, Reader, SEQUENCE, Writer};

/// Result code of what went well.
pub(super) const SUCCESS: u32 = 0;
/// Result code of a search that found more than it may return.
pub(super) const SIZE_LIMIT_EXCEEDED: u32 = 4;

const BIND: u8 = 0x60;
const BIND_ANSWER: u8 = 0x61;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_ANSWER: u8 = 0x78;
/// Context tag 0, primitive: a simple password, or the name of an extended operation.
const CONTEXT_0: u8 = 0x80;
/// Filter `equalityMatch`.
const EQUALITY: u8 = 0xa3;

const WHOLE_SUBTREE: u32 = 2;
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// Asks for no attributes: only the entry's name is needed.
const NO_ATTRIBUTES: &[u8] = b"1.1";
/// What tags and lengths of any message take.
const FRAME: usize = 128;

/// A search for entries below `base` whose `attribute` equals `value`. The value stands in the
/// message as it is, so that nothing in it can be syntax (RFC 4515 is for filters as text).
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) base: &'a str,
    pub(super) attribute: &'a str,
    pub(super) value: &'a [u8],
    pub(super) size_limit: u32,
    pub(super) time_limit_secs: u32,
}

/// What the directory says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// To a bind: a result code.
    Bind(u32),
    /// An entry's name.
    Entry(&'a [u8]),
    /// Another directory that may know more; not followed.
    Reference,
    /// The end of a search: a result code.
    Done(u32),
    /// To an extended operation: a result code.
    Extended(u32),
}

/// A simple bind. Who calls this has made sure that a password belongs to a name: without one, a
/// bind succeeds without saying anything (RFC 4513 §5.1.2).
pub(super) fn bind(id: u32, name: &str, password: &[u8]) -> Zeroizing<Vec<u8>> {
    message(id, name.len() + password.len(), |writer| {
        writer.around(BIND, |writer| {
            writer.number(INTEGER, 3);
            writer.bytes(OCTETS, name.as_bytes());
            writer.bytes(CONTEXT_0, password);
        });
    })
}

pub(super) fn search(id: u32, search: Search<'_>) -> Zeroizing<Vec<u8>> {
    let length = search.base.len() + search.attribute.len() + search.value.len();
    message(id, length, |writer| {
        writer.around(SEARCH, |writer| {
            writer.bytes(OCTETS, search.base.as_bytes());
            writer.number(ENUMERATED, WHOLE_SUBTREE);
            // Aliases are followed, as APISIX does.
            writer.number(ENUMERATED, 3);
            writer.number(INTEGER, search.size_limit);
            writer.number(INTEGER, search.time_limit_secs);
            writer.boolean(true);
            writer.around(EQUALITY, |writer| {
                writer.bytes(OCTETS, search.attribute.as_bytes());
                writer.bytes(OCTETS, search.value);
            });
            writer.around(SEQUENCE, |writer| writer.bytes(OCTETS, NO_ATTRIBUTES));
        });
    })
}

pub(super) fn start_tls(id: u32) -> Zeroizing<Vec<u8>> {
    message(id, START_TLS.len(), |writer| {
        writer.around(EXTENDED, |writer| writer.bytes(CONTEXT_0, START_TLS));
    })
}

fn message(id: u32, length: usize, operation: impl FnOnce(&mut Writer)) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::with_capacity(FRAME + length);
    writer.around(SEQUENCE, |writer| {
        writer.number(INTEGER, id);
        operation(writer);
    });
    writer.done()
}

/// The answer inside a message to question `id`; `None` where it is another's, or none we await.
pub(super) fn answer(content: &[u8], id: u32) -> Option<Answer<'_>> {
    let mut message = Reader::new(content);
    if message.number(INTEGER)? != id {
        return None;
    }
    let (tag, operation) = message.element()?;
    let mut operation = Reader::new(operation);
    match tag {
        BIND_ANSWER => Some(Answer::Bind(result(&mut operation)?)),
        ENTRY => Some(Answer::Entry(operation.expect(OCTETS)?)),
        SEARCH_DONE => Some(Answer::Done(result(&mut operation)?)),
        REFERENCE => Some(Answer::Reference),
        EXTENDED_ANSWER => Some(Answer::Extended(result(&mut operation)?)),
        _ => None,
    }
}

/// A result's code; its texts must be there and are not read.
fn result(operation: &mut Reader<'_>) -> Option<u32> {
    let code = operation.number(ENUMERATED)?;
    operation.expect(OCTETS)?;
    operation.expect(OCTETS)?;
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fit_the_room_made_for_them() {
        let long = "x".repeat(5000);
        for (name, password) in [("", ""), ("cn=a", "b"), (&*long, &*long)] {
            let message = bind(u32::MAX, name, password.as_bytes());
            assert!(message.len() <= FRAME + name.len() + password.len());
        }
        let message = search(
            u32::MAX,
            Search {
                base: &long,
                attribute: &long,
                value: long.as_bytes(),
                size_limit: u32::MAX,
                time_limit_secs: u32::MAX,
            },
        );
        assert!(message.len() <= FRAME + 3 * long.len());
        assert!(start_tls(u32::MAX).len() <= FRAME + START_TLS.len());
    }

    #[test]
    fn answers_are_read_and_all_else_is_none() {
        let refused = [2, 1, 7, 0x61, 7, 10, 1, 49, 4, 0, 4, 0];
        assert_eq!(answer(&refused, 7), Some(Answer::Bind(49)));
        assert_eq!(answer(&refused, 8), None, "another question's");
        let entry = [2, 1, 7, 0x64, 8, 4, 4, b'c', b'n', b'=', b'a', 0x30, 0];
        assert_eq!(answer(&entry, 7), Some(Answer::Entry(b"cn=a")));
        let done = [2, 1, 7, 0x65, 7, 10, 1, 0, 4, 0, 4, 0];
        assert_eq!(answer(&done, 7), Some(Answer::Done(SUCCESS)));
        for end in 0..refused.len() {
            assert_eq!(answer(&refused[..end], 7), None, "cut at {end}");
        }
        let notice = [2, 1, 0, 0x78, 7, 10, 1, 52, 4, 0, 4, 0];
        assert_eq!(answer(&notice, 7), None, "notice of disconnection");
        assert_eq!(answer(&[2, 1, 7, 0x42, 0], 7), None, "not an answer");
    }
}
