//! The little of BER (X.690) that LDAP's messages need: definite lengths, tags of one byte.
//! Reading takes slices of what was received, never recurses and never panics.

use zeroize::Zeroizing;

/// Tag of `INTEGER`.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of `OCTET STRING`.
pub(super) const OCTETS: u8 = 0x04;
/// Tag of `ENUMERATED`.
pub(super) const ENUMERATED: u8 = 0x0a;
/// Tag of `SEQUENCE`.
pub(super) const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;

/// Writes a message. What it holds is wiped, since a bind holds a password.
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// Room for this many bytes; a longer message would leave an unwiped copy behind.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    /// The message.
    pub(super) fn done(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// A tag around what `content` writes. Its length takes four bytes whatever it is, which BER
    /// allows, so that nothing is written twice.
    pub(super) fn around(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.0.extend([tag, 0x84, 0, 0, 0, 0]);
        let start = self.0.len();
        content(self);
        let length = self.0.len() - start;
        let length = u32::try_from(length).expect("requests are far shorter than 4 GiB");
        if let Some(place) = self.0.get_mut(start - 4..start) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    /// Bytes under this tag.
    pub(super) fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.around(tag, |writer| writer.0.extend_from_slice(bytes));
    }

    /// A number that is not negative, in as few bytes as it takes: servers read four.
    pub(super) fn number(&mut self, tag: u8, number: u32) {
        let bytes = u64::from(number).to_be_bytes();
        // The first bit is the sign.
        let needless = |pair: &[u8]| matches!(pair, [0, 0..=0x7f]);
        let skipped = bytes.windows(2).take_while(|pair| needless(pair)).count();
        let bytes = bytes.get(skipped..).unwrap_or_default();
        self.0.extend([tag, bytes.len().to_le_bytes()[0]]);
        self.0.extend_from_slice(bytes);
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, value: bool) {
        self.0.extend([BOOLEAN, 1, if value { 0xff } else { 0 }]);
    }
}

/// Reads one element after the other.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next element's tag and content; `None` where there is none, or not all of it.
    pub(super) fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match length_bytes(first)? {
            0 => (usize::from(first), rest),
            count => {
                let (bytes, rest) = rest.split_at_checked(count)?;
                (long_length(bytes), rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next element, if it has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.element()?;
        (found == tag).then_some(content)
    }

    /// The next element, if it is a number under this tag that is not negative.
    pub(super) fn number(&mut self, tag: u8) -> Option<u32> {
        let bytes = self.expect(tag)?;
        let (&first, _) = bytes.split_first()?;
        if first & 0x80 != 0 || bytes.len() > 5 {
            return None;
        }
        let wide = bytes
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        u32::try_from(wide).ok()
    }
}

/// How many bytes of length follow a length's first byte: none where it is the length itself.
/// `None` for the indefinite form, which LDAP forbids, and for more than four.
pub(super) const fn length_bytes(first: u8) -> Option<usize> {
    match first {
        0..=0x7f => Some(0),
        0x81..=0x84 => Some((first & 0x7f) as usize),
        _ => None,
    }
}

/// The length that up to four bytes give.
pub(super) fn long_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::with_capacity(64);
        writer.around(SEQUENCE, |writer| {
            writer.number(INTEGER, 300);
            writer.bytes(OCTETS, &[7; 200]);
            writer.boolean(false);
        });
        let message = writer.done();
        let mut outer = Reader::new(&message);
        let mut inner = Reader::new(outer.expect(SEQUENCE).expect("sequence is there"));
        assert_eq!(inner.number(INTEGER), Some(300));
        assert_eq!(inner.expect(OCTETS), Some(&[7; 200][..]));
        assert_eq!(inner.element(), Some((BOOLEAN, &[0][..])));
        assert_eq!(inner.element(), None);
        assert_eq!(outer.element(), None);
    }

    #[test]
    fn numbers_take_as_few_bytes_as_they_can() {
        for (number, expected) in [
            (0, &[0][..]),
            (3, &[3]),
            (0x7f, &[0x7f]),
            (0x80, &[0, 0x80]),
            (300, &[1, 44]),
            (0x7fff_ffff, &[0x7f, 0xff, 0xff, 0xff]),
            (u32::MAX, &[0, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut writer = Writer::with_capacity(8);
            writer.number(INTEGER, number);
            let message = writer.done();
            assert_eq!(Reader::new(&message).expect(INTEGER), Some(expected));
            assert_eq!(Reader::new(&message).number(INTEGER), Some(number));
        }
    }

    #[test]
    fn broken_elements_are_nothing() {
        let cases: [&[u8]; 9] = [
            &[],
            &[0x04],
            &[0x04, 0x02, 0x61],
            &[0x04, 0x80, 0x61, 0, 0],
            &[0x04, 0x85, 0, 0, 0, 0, 1, 0x61],
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff, 0x61],
            &[0x04, 0x82, 0x01],
            &[0x04, 0xff, 0x61],
            &[0x02, 0x01, 0x01],
        ];
        for bytes in cases {
            assert_eq!(Reader::new(bytes).expect(OCTETS), None, "{bytes:?}");
        }
        let numbers: [&[u8]; 4] = [
            &[0x02, 0x00],
            &[0x02, 0x01, 0xff],
            &[0x02, 0x05, 0x01, 0, 0, 0, 0],
            &[0x02, 0x06, 0, 0, 0, 0, 0, 1],
        ];
        for bytes in numbers {
            assert_eq!(Reader::new(bytes).number(INTEGER), None, "{bytes:?}");
        }
        assert_eq!(
            Reader::new(&[0x02, 0x81, 0x01, 0x07]).number(INTEGER),
            Some(7)
        );
    }
}
