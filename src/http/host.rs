//! The `Host` field (RFC 9110 §7.2, RFC 3986 §3.2).

/// The host without its port; brackets of an IPv6 literal stay.
#[must_use]
pub fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::without_port;

    #[test]
    fn port_is_cut_and_brackets_stay() {
        for (host, expected) in [
            ("a.test", "a.test"),
            ("a.test:8080", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(without_port(host), expected);
        }
    }
}
