//! Host names as certificates have them (RFC 1123 §2.1, RFC 5890 §2.3.1): letters, digits and
//! hyphens in labels. For names that go on into a path or a query: nothing in them needs encoding,
//! and no dots stand alone.

/// Whether the text is a host name in lower case: labels of 1 to 63 letters, digits and inner
/// hyphens, 253 characters at most, no address.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= LONGEST
        && text.split('.').all(is_label)
        // No top-level domain is a number (RFC 1123 §2.1), so this is an address.
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&label.len())
        && label.bytes().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// RFC 1035 §2.3.4: 255 bytes on the wire, which is so many in text.
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_letters_digits_and_hyphens_are_host_names_and_nothing_else_is() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for name in [
            "a",
            "a.test",
            "xn--bcher-kva.test",
            "1.2.3.x4",
            "a-b.c0",
            &longest,
        ] {
            assert!(is_host_name(name), "{name}");
        }
        for name in [
            "", ".", "..", "a..b", ".a", "a.", "a/b", "a%2fb", "a_b.test", "-a.test", "a-.test",
            "A.test", "a\\b", "a b", "a\0", "ä.test", "1.2.3.4", "*.a.test", "a:1", "[::1]", "a#b",
            "a?b", "{sni}",
        ] {
            assert!(!is_host_name(name), "{name:?}");
        }
        assert!(!is_host_name(&format!("{longest}a")));
        assert!(!is_host_name(&format!("a{label}.test")));
    }
}
