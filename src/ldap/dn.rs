//! Distinguished names as text (RFC 4514): putting a user's name into one, and telling whether two
//! are the same.

/// A value as it stands in a distinguished name: whatever it holds, it stays one value. `=` is
/// escaped too, as APISIX does.
#[must_use]
pub fn escape_value(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len() + 8);
    let last = value.chars().count().saturating_sub(1);
    for (place, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => escaped.extend(['\\', c]),
            '#' if place == 0 => escaped.push_str("\\#"),
            ' ' if place == 0 || place == last => escaped.push_str("\\ "),
            c if c.is_ascii_control() => escaped.push_str(&format!("\\{:02X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Whether a text is a type of attribute (RFC 4512 §2.5): a name, or numbers with dots.
#[must_use]
pub fn is_attribute(text: &str) -> bool {
    let name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let oid = |text: &str| {
        let mut arcs = text.split('.');
        arcs.all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name(text) || oid(text)
}

/// One text for all ways to write the same name; `None` where it is none.
///
/// Equal are: types of attributes in any case, escapes in any form, spaces around separators,
/// parts of one step in any order. Values are compared to the letter: whether `Bob` and `bob` are
/// one user is a matter of the directory's schema, which is not known here.
#[must_use]
pub fn canonical(name: &str) -> Option<Vec<u8>> {
    let mut rest = name.trim_matches(' ').as_bytes();
    let mut canonical = Vec::with_capacity(name.len());
    if rest.is_empty() {
        return Some(canonical);
    }
    let mut step: Vec<Vec<u8>> = Vec::new();
    loop {
        let (part, separator, after) = part(rest)?;
        step.push(part);
        rest = after;
        if separator == Some(b'+') {
            continue;
        }
        step.sort_unstable();
        for (place, part) in step.drain(..).enumerate() {
            if place > 0 {
                canonical.push(b'+');
            }
            canonical.extend(part);
        }
        if separator.is_none() {
            return Some(canonical);
        }
        canonical.push(b',');
    }
}

/// A part's one text, the separator behind it, and what follows.
type Part<'a> = (Vec<u8>, Option<u8>, &'a [u8]);

/// The first `type=value` of a text.
fn part(text: &[u8]) -> Option<Part<'_>> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let kind = std::str::from_utf8(text.get(..equals)?)
        .ok()?
        .trim_matches(' ');
    if !is_attribute(kind) {
        return None;
    }
    let mut part = kind.to_ascii_lowercase().into_bytes();
    part.push(b'=');
    let (value, separator, rest) = value(text.get(equals + 1..)?)?;
    part.extend(value);
    Some((part, separator, rest))
}

/// A value's one text, up to its separator: what is special is written as `\xx`.
fn value(text: &[u8]) -> Option<Part<'_>> {
    let start = text
        .iter()
        .position(|byte| *byte != b' ')
        .unwrap_or(text.len());
    let mut rest = text.get(start..)?;
    let hexadecimal = rest.first() == Some(&b'#');
    let mut value = Vec::new();
    // Spaces count once something follows them.
    let mut spaces = 0;
    let separator = loop {
        let Some((&byte, after)) = rest.split_first() else {
            break None;
        };
        rest = after;
        let byte = match byte {
            b',' | b'+' => break Some(byte),
            b' ' => {
                spaces += 1;
                continue;
            }
            b'"' | b';' | b'<' | b'>' | 0 => return None,
            b'\\' if hexadecimal => return None,
            b'\\' => {
                let (byte, after) = escaped(rest)?;
                rest = after;
                byte
            }
            b'#' if hexadecimal && value.is_empty() => {
                value.push(b'#');
                continue;
            }
            byte if hexadecimal && !byte.is_ascii_hexdigit() => return None,
            byte if hexadecimal => byte.to_ascii_lowercase(),
            byte => byte,
        };
        for space in std::iter::repeat_n(b' ', std::mem::take(&mut spaces)).chain([byte]) {
            push(&mut value, space);
        }
    };
    Some((value, separator, rest))
}

/// The byte behind a `\`: two hexadecimal digits, or one of the special characters.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (&first, after) = text.split_first()?;
    if b" \"#+,;<=>\\".contains(&first) {
        return Some((first, after));
    }
    let (&second, after) = after.split_first()?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = digit(first)? * 16 + digit(second)?;
    Some((u8::try_from(byte).ok()?, after))
}

fn push(value: &mut Vec<u8>, byte: u8) {
    if byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"-_.@ ".contains(&byte) {
        value.push(byte);
    } else {
        value.extend(format!("\\{byte:02x}").into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_value_is_one_value_and_no_syntax() {
        for (value, expected) in [
            ("alice", "alice"),
            ("comma,user", "comma\\,user"),
            ("a+b=c", "a\\+b\\=c"),
            (" x ", "\\ x\\ "),
            (" ", "\\ "),
            ("#1", "\\#1"),
            ("a#1", "a#1"),
            ("a\\,ou=admins", "a\\\\\\,ou\\=admins"),
            ("<\">;", "\\<\\\"\\>\\;"),
            ("nul\0cr\r", "nul\\00cr\\0D"),
            ("Lučić", "Lučić"),
        ] {
            assert_eq!(escape_value(value), expected);
            let name = format!("cn={},dc=test", escape_value(value));
            let name = canonical(&name).expect("name is well formed");
            let commas = name.iter().filter(|byte| **byte == b',').count();
            assert_eq!(commas, 1, "{value} stays one value");
        }
    }

    #[test]
    fn names_written_differently_are_the_same() {
        let same: [&[&str]; 6] = [
            &["cn=a,dc=test", "CN=a, DC=test", " cn = a , dc = test "],
            &[
                "cn=comma\\,user,dc=t",
                "cn=comma\\2Cuser,dc=t",
                "cn=comma\\2cuser,dc=t",
            ],
            &["cn=a+uid=b,dc=t", "uid=b + cn=a,dc=t"],
            &["cn=\\ a,dc=t", "cn=\\20a,dc=t"],
            &["cn=Lu\\C4\\8Di\\C4\\87", "cn=Lučić"],
            &["cn=#0402AB,dc=t", "cn=#0402ab,dc=t"],
        ];
        let mut all = Vec::new();
        for names in same {
            let mut found = names.iter().map(|name| canonical(name));
            let first = found.next().flatten().expect("name is well formed");
            assert!(
                found.all(|other| other.as_ref() == Some(&first)),
                "{names:?}"
            );
            all.push(first);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), same.len(), "different names stay apart");
    }

    #[test]
    fn different_names_stay_apart() {
        for (one, other) in [
            ("cn=Alice,dc=t", "cn=alice,dc=t"),
            ("cn=a b,dc=t", "cn=a  b,dc=t"),
            ("cn=a\\ ,dc=t", "cn=a,dc=t"),
            ("cn=a\\,dc=b,dc=t", "cn=a,dc=b,dc=t"),
            ("cn=a\\+uid=b,dc=t", "cn=a+uid=b,dc=t"),
            ("cn=\\#41", "cn=#41"),
            ("cn=\\\\2c", "cn=\\,"),
        ] {
            let (one, other) = (canonical(one), canonical(other));
            assert!(one.is_some() && other.is_some() && one != other, "{one:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in [
            "alice",
            "cn",
            "=a",
            "cn=a,",
            "cn=a,,dc=t",
            "cn=a\\",
            "cn=a\\4",
            "cn=a\\zz",
            "c n=a",
            "cn=\"a\"",
            "cn=a;dc=t",
            "cn=#4g",
            "cn=a,$secret://vault/1/a/b",
            "cn=<a>",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
        assert_eq!(canonical(""), Some(Vec::new()), "the root");
        assert!(canonical("cn=").is_some(), "an empty value is one");
    }
}
