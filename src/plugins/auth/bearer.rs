//! Tokens in a header.

/// The token in a header's value: what follows `Bearer ` or `bearer `, the two spellings that
/// APISIX takes off, or all of it.
pub(super) fn token(value: &[u8]) -> &[u8] {
    let token = value.strip_prefix(b"Bearer ");
    token
        .or_else(|| value.strip_prefix(b"bearer "))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_are_taken_off() {
        for (value, expected) in [
            ("Bearer a.b", "a.b"),
            ("bearer a.b", "a.b"),
            ("BEARER a.b", "BEARER a.b"),
            ("Bearer  a.b", " a.b"),
            ("Bearer Bearer a", "Bearer a"),
            ("Bearer", "Bearer"),
            ("Bearer ", ""),
            ("a.b", "a.b"),
            ("", ""),
        ] {
            assert_eq!(token(value.as_bytes()), expected.as_bytes());
        }
    }
}
