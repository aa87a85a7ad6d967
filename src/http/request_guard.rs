//! What a strict edge refuses before routing, and Pingora lets pass (`pingora-notes.md` §2.5):
//! ambiguous framing, bare LF, a missing or doubtful host, oversized heads.

use ::http::{HeaderName, Version, header};
use memchr::memchr_iter;
use pingora_http::RequestHeader;
use pingora_http::authority::raw_target_authority;

use super::host::without_port;

/// Bounds on a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardRules {
    /// Bytes of the request line (HTTP/1) or of the request target (HTTP/2).
    pub max_target_bytes: usize,
    /// Bytes of the whole head.
    pub max_header_bytes: usize,
    /// Header fields, repeated ones counted each.
    pub max_headers: usize,
}

impl Default for GuardRules {
    /// nginx's: 8 KiB for the request line, 32 KiB in all; and 100 fields.
    fn default() -> Self {
        Self {
            max_target_bytes: 8 << 10,
            max_header_bytes: 32 << 10,
            max_headers: 100,
        }
    }
}

/// Why a request is refused. The connection must be closed afterwards: where a head is doubtful,
/// so is the start of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// RFC 9112 §6.3: the classic of request smuggling.
    #[error("both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    /// RFC 9112 §2.2 lets a recipient accept it; those behind us may not.
    #[error("line feed without carriage return")]
    BareLineFeed,
    /// RFC 9112 §3.2: HTTP/1.1 without `Host`.
    #[error("no Host")]
    MissingHost,
    /// RFC 9112 §3.2: more than one `Host`.
    #[error("more than one Host")]
    RepeatedHost,
    /// RFC 9112 §3.2: a `Host` that is no host.
    #[error("invalid Host")]
    InvalidHost,
    /// RFC 9112 §3.2.2: the target names another host than `Host`.
    #[error("Host differs from the request target")]
    HostMismatch,
    /// The request line is too long.
    #[error("request target too long")]
    TargetTooLong,
    /// The head has too many bytes.
    #[error("request head too large")]
    HeadTooLarge,
    /// The head has too many fields.
    #[error("too many header fields")]
    TooManyHeaders,
}

impl Refusal {
    /// Word for a metric's label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AmbiguousLength => "ambiguous_length",
            Self::BareLineFeed => "bare_line_feed",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::InvalidHost => "invalid_host",
            Self::HostMismatch => "host_mismatch",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
        }
    }

    /// The answer's status: 400, 414 or 431.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            _ => 400,
        }
    }
}

/// Checks an HTTP/1 head as it came over the wire, request line included. Needed beside
/// [`check`], since Pingora has dropped a doubtful `Content-Length` by the time it hands out the
/// parsed head.
///
/// # Errors
/// The request is to be refused.
pub fn check_raw(raw: &[u8], rules: &GuardRules) -> Result<(), Refusal> {
    let mut start = 0;
    let mut line_end = None;
    let (mut coded, mut counted) = (false, false);
    let mut look_at = |field: &[u8]| {
        coded |= is_field(field, b"transfer-encoding");
        counted |= is_field(field, b"content-length");
    };
    for at in memchr_iter(b'\n', raw) {
        if at == 0 || raw[at - 1] != b'\r' {
            return Err(Refusal::BareLineFeed);
        }
        match line_end {
            None => line_end = Some(at - 1),
            Some(_) => look_at(&raw[start..at]),
        }
        start = at + 1;
    }
    if line_end.is_some() {
        look_at(&raw[start..]);
    }
    if line_end.unwrap_or(raw.len()) > rules.max_target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    if raw.len() > rules.max_header_bytes {
        return Err(Refusal::HeadTooLarge);
    }
    if coded && counted {
        return Err(Refusal::AmbiguousLength);
    }
    Ok(())
}

/// Whether the line is a field of this name, which is in lower case.
fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
}

/// Puts the host that an absolute target names into `Host` where HTTP/1.0 left it out. Pingora keeps
/// it out of `uri`, where nobody would see it, and sends it upstream all the same. To be called before
/// [`check`].
///
/// # Errors
/// The request is to be refused.
pub fn name_host(head: &mut RequestHeader) -> Result<(), Refusal> {
    if head.version >= Version::HTTP_11 || head.headers.contains_key(header::HOST) {
        return Ok(());
    }
    let Some(host) = raw_target_authority(head.raw_path()).authority() else {
        return Ok(());
    };
    let host = header::HeaderValue::from_bytes(host).map_err(|_| Refusal::InvalidHost)?;
    head.insert_header(header::HOST, host)
        .map_err(|_| Refusal::InvalidHost)
}

/// Checks a parsed head, of any HTTP version.
///
/// # Errors
/// The request is to be refused.
pub fn check(head: &RequestHeader, rules: &GuardRules) -> Result<(), Refusal> {
    let headers = &head.headers;
    if headers.len() > rules.max_headers {
        return Err(Refusal::TooManyHeaders);
    }
    if head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len())
        > rules.max_target_bytes
    {
        return Err(Refusal::TargetTooLong);
    }
    // RFC 9113 §6.5.2 counts 32 bytes for each field; what stands on an HTTP/1 wire is less.
    let size =
        |(name, value): (&HeaderName, &header::HeaderValue)| name.as_str().len() + value.len();
    if headers.iter().map(size).sum::<usize>() > rules.max_header_bytes {
        return Err(Refusal::HeadTooLarge);
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(Refusal::AmbiguousLength);
    }
    check_host(head)
}

fn check_host(head: &RequestHeader) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let target = head.uri.authority();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Refusal::RepeatedHost),
        (Some(host), None) => host.to_str().map_err(|_| Refusal::InvalidHost)?,
        // HTTP/2 has `:authority` instead; HTTP/1.0 needs neither.
        (None, None) => match target {
            Some(target) if head.version != Version::HTTP_11 => target.as_str(),
            None if head.version < Version::HTTP_11 => return Ok(()),
            _ => return Err(Refusal::MissingHost),
        },
    };
    let target = target.map(::http::uri::Authority::as_str);
    if !is_host(target.unwrap_or(host)) {
        return Err(Refusal::InvalidHost);
    }
    // An empty field beside a target that names a host is another host, too.
    match target {
        Some(target) if !same_host(host, target, head.uri.scheme_str()) => {
            Err(Refusal::HostMismatch)
        }
        _ => Ok(()),
    }
}

/// RFC 3986 §3.2.2–3: a name, address or `[v6]`, and a decimal port or none. No user information:
/// readers disagree on which side of its `@` the host stands.
fn is_host(host: &str) -> bool {
    let name = without_port(host);
    let port_fits = match host[name.len()..].strip_prefix(':') {
        Some("") => true,
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => name.len() == host.len(),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let named = match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(allowed),
    };
    named && port_fits
}

/// Compares without case, a default port being the same as none.
fn same_host(left: &str, right: &str, scheme: Option<&str>) -> bool {
    let default = if scheme == Some("https") { "443" } else { "80" };
    let port = |host: &str, name: usize| match host.get(name + 1..) {
        None | Some("") => default.parse(),
        Some(port) => port.parse::<u16>(),
    };
    let (left_name, right_name) = (without_port(left), without_port(right));
    left_name.eq_ignore_ascii_case(right_name)
        && port(left, left_name.len()) == port(right, right_name.len())
}

/// Takes out fields whose names have an underscore (`underscores_in_headers: off`), so that no
/// upstream takes `X_Consumer` for `X-Consumer`. They are dropped, as nginx does it, not refused.
pub fn drop_underscored(head: &mut RequestHeader) {
    let is_underscored = |name: &&HeaderName| name.as_str().contains('_');
    while let Some(name) = head.headers.keys().find(is_underscored).cloned() {
        head.remove_header(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: GuardRules = GuardRules {
        max_target_bytes: 40,
        max_header_bytes: 200,
        max_headers: 4,
    };

    fn head(target: &str, fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a valid head");
        head.set_uri(target.parse().expect("a valid target"));
        head.set_version(Version::HTTP_11);
        for (name, value) in fields {
            head.append_header(*name, *value).expect("a valid field");
        }
        head
    }

    #[test]
    fn raw_heads_are_checked_on_the_wire() {
        let ok: Result<(), Refusal> = Ok(());
        for (raw, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", ok),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Content-Length: 1\r\n\r\n",
                ok,
            ),
            (
                "GET / HTTP/1.1\r\ncontent-LENGTH: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(Refusal::AmbiguousLength),
            ),
            (
                "GET / HTTP/1.1\nHost: a\r\n\r\n",
                Err(Refusal::BareLineFeed),
            ),
            ("GET / HTTP/1.1\r\nHost: a\n\n", Err(Refusal::BareLineFeed)),
            ("\nGET / HTTP/1.1\r\n\r\n", Err(Refusal::BareLineFeed)),
        ] {
            assert_eq!(check_raw(raw.as_bytes(), &RULES), expected, "{raw:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(40));
        assert_eq!(
            check_raw(long.as_bytes(), &RULES),
            Err(Refusal::TargetTooLong)
        );
        let large = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(200));
        assert_eq!(
            check_raw(large.as_bytes(), &RULES),
            Err(Refusal::HeadTooLarge)
        );
    }

    #[test]
    fn hosts_are_checked() {
        for (target, hosts, expected) in [
            ("/", &["a.test"][..], None),
            ("/", &["a.test:8080"], None),
            ("/", &["a.test:"], None),
            ("/", &["[::1]:80"], None),
            ("/", &["a_b.test"], None),
            ("/", &[], Some(Refusal::MissingHost)),
            ("/", &["a", "a"], Some(Refusal::RepeatedHost)),
            ("/", &[""], Some(Refusal::InvalidHost)),
            ("/", &["a b"], Some(Refusal::InvalidHost)),
            ("/", &["u@a"], Some(Refusal::InvalidHost)),
            ("/", &["a/b"], Some(Refusal::InvalidHost)),
            ("/", &["a:99999"], Some(Refusal::InvalidHost)),
            ("/", &["a:+1"], Some(Refusal::InvalidHost)),
            ("/", &["[::1]x"], Some(Refusal::InvalidHost)),
            ("http://a.test/", &["A.test:80"], None),
            ("http://a.test/", &["b.test"], Some(Refusal::HostMismatch)),
            (
                "http://a.test:81/",
                &["a.test"],
                Some(Refusal::HostMismatch),
            ),
            ("http://u@a.test/", &["a.test"], Some(Refusal::InvalidHost)),
            ("http://a.test/", &[""], Some(Refusal::HostMismatch)),
            ("http://a.test/", &[], Some(Refusal::MissingHost)),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let checked = check(&head(target, &fields), &RULES);
            assert_eq!(checked.err(), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        let fields = [
            ("host", "a"),
            ("b", "1"),
            ("b", "2"),
            ("b", "3"),
            ("b", "4"),
        ];
        assert_eq!(
            check(&head("/", &fields), &RULES),
            Err(Refusal::TooManyHeaders)
        );
        assert_eq!(Refusal::TooManyHeaders.status(), 431);
        assert_eq!(Refusal::TargetTooLong.status(), 414);
        assert_eq!(Refusal::BareLineFeed.status(), 400);
    }

    #[test]
    fn old_and_new_versions_have_their_own_rule_for_hosts() {
        let mut old = head("/", &[]);
        old.set_version(Version::HTTP_10);
        assert_eq!(check(&old, &RULES), Ok(()));
        for (target, expected) in [
            ("http://a.test/", Ok(())),
            ("http://u@a.test/", Err(Refusal::InvalidHost)),
        ] {
            old.set_uri(target.parse().expect("a valid target"));
            assert_eq!(check(&old, &RULES), expected, "{target}");
        }
        let mut new = head("https://a.test/", &[]);
        new.set_version(Version::HTTP_2);
        assert_eq!(check(&new, &RULES), Ok(()));
    }

    #[test]
    fn a_target_names_the_host_that_an_old_client_leaves_out() {
        for (target, host, checked) in [
            ("/", None, Ok(())),
            ("/http://a.test/", None, Ok(())),
            ("http://A.test:80/x", Some("A.test:80"), Ok(())),
            ("other://a.test", Some("a.test"), Ok(())),
            (
                "http://u@a.test/",
                Some("u@a.test"),
                Err(Refusal::InvalidHost),
            ),
        ] {
            let mut old = RequestHeader::build("GET", target.as_bytes(), None).expect("a head");
            old.set_version(Version::HTTP_10);
            assert_eq!(name_host(&mut old), Ok(()), "{target}");
            let named = old.headers.get(header::HOST);
            assert_eq!(
                named.map(header::HeaderValue::as_bytes),
                host.map(str::as_bytes)
            );
            assert_eq!(check(&old, &RULES), checked, "{target}");
            let mut new = RequestHeader::build("GET", target.as_bytes(), None).expect("a head");
            new.set_version(Version::HTTP_11);
            assert_eq!(name_host(&mut new), Ok(()), "{target}");
            assert_eq!(check(&new, &RULES), Err(Refusal::MissingHost), "{target}");
        }
        let mut own = head("/", &[("host", "b.test")]);
        own.set_version(Version::HTTP_10);
        assert_eq!(name_host(&mut own), Ok(()));
        assert_eq!(own.headers[header::HOST], "b.test");
    }

    #[test]
    fn underscored_fields_can_be_dropped() {
        let mut head = head("/", &[("x_a", "1"), ("x-a", "2"), ("y_b_c", "3")]);
        drop_underscored(&mut head);
        assert_eq!(head.headers.len(), 1);
    }
}
