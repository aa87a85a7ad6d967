//! The `server_name` extension, read from the bytes the client sent (RFC 6066 §3). Takes no
//! byte on trust: OpenSSL has not looked at it yet.

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested<'a> {
    /// No extension, or one without a host name.
    Nothing,
    /// A host name as sent: ASCII, no NUL, 1–255 bytes without the trailing dot; case as sent.
    Name(&'a str),
    /// A host name no certificate can have: too long, empty, NUL or other than printable ASCII.
    BadName,
    /// Lengths that do not fit together.
    Malformed,
}

/// Reads the extension's content; `None` where the ClientHello has no such extension.
#[must_use]
pub fn parse(extension: Option<&[u8]>) -> Requested<'_> {
    let Some(content) = extension else {
        return Requested::Nothing;
    };
    // A list of entries: 1 byte type, 2 bytes length, the name. RFC 6066 knows type 0 only and
    // forbids two names of one type; OpenSSL refuses a second entry as well.
    let Some((list, [])) = split_u16(content) else {
        return Requested::Malformed;
    };
    let Some((&kind, entry)) = list.split_first() else {
        return Requested::Malformed;
    };
    let Some((name, [])) = split_u16(entry) else {
        return Requested::Malformed;
    };
    if kind != HOST_NAME {
        return Requested::Malformed;
    }
    check(name)
}

/// `name` lower-cased into `buffer`; `None` where it does not fit.
#[must_use]
pub fn lower_case<'b>(name: &str, buffer: &'b mut [u8; MAX_NAME]) -> Option<&'b str> {
    let into = buffer.get_mut(..name.len())?;
    into.copy_from_slice(name.as_bytes());
    into.make_ascii_lowercase();
    std::str::from_utf8(into).ok()
}

fn check(name: &[u8]) -> Requested<'_> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = !name.is_empty() && name.len() <= MAX_NAME;
    match std::str::from_utf8(name) {
        Ok(name) if fits && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Requested::Name(name)
        }
        _ => Requested::BadName,
    }
}

fn split_u16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Longest host name, in bytes.
pub const MAX_NAME: usize = 255;

const HOST_NAME: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(name: &[u8]) -> Vec<u8> {
        let name_len = u16::try_from(name.len()).expect("short");
        let mut bytes = (name_len + 3).to_be_bytes().to_vec();
        bytes.push(HOST_NAME);
        bytes.extend(name_len.to_be_bytes());
        bytes.extend(name);
        bytes
    }

    fn read(name: &[u8]) -> String {
        format!("{:?}", parse(Some(&extension(name))))
    }

    #[test]
    fn a_name_is_read_without_its_trailing_dot() {
        assert_eq!(read(b"A.test"), r#"Name("A.test")"#);
        assert_eq!(read(b"a.test."), r#"Name("a.test")"#);
        assert_eq!(parse(None), Requested::Nothing);
    }

    #[test]
    fn names_no_certificate_can_have_are_bad() {
        for name in [
            &b""[..],
            b".",
            &[b'a'; 300],
            b"a\0b",
            b"\xff\xfe",
            b"a b",
            "ä.test".as_bytes(),
        ] {
            assert_eq!(read(name), "BadName", "{name:?}");
        }
        assert_ne!(read(&[b'a'; 255]), "BadName");
    }

    #[test]
    fn every_truncation_and_every_wrong_length_is_malformed() {
        let whole = extension(b"a.test");
        for end in 0..whole.len() {
            assert_eq!(parse(Some(&whole[..end])), Requested::Malformed, "{end}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(parse(Some(&longer)), Requested::Malformed);
        for position in [0, 1, 3, 4] {
            let mut wrong = whole.clone();
            wrong[position] ^= 1;
            assert_eq!(parse(Some(&wrong)), Requested::Malformed, "{position}");
        }
        let mut other_kind = whole;
        other_kind[2] = 1;
        assert_eq!(parse(Some(&other_kind)), Requested::Malformed);
    }

    #[test]
    fn lower_casing_needs_no_more_room_than_the_longest_name() {
        let mut buffer = [0; MAX_NAME];
        assert_eq!(lower_case("A.Test", &mut buffer), Some("a.test"));
        assert_eq!(lower_case(&"a".repeat(256), &mut buffer), None);
    }
}
