//! Fields that belong to one hop (RFC 9110 §7.6.1). Pingora cleans requests; responses are cleaned
//! here.

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

/// Takes out of a response what was meant for us only: the standard fields, and those that
/// `Connection` names. Fields that frame the message stay (they are Pingora's to set), and so does
/// everything on `101`, where the fields are the upgrade. Allocates nothing unless `Connection`
/// names something.
pub fn strip_response(response: &mut ResponseHeader) {
    if response.status == ::http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    // Most responses have none but `Connection: keep-alive`: one look over the names, instead of
    // a hash for each that could be there.
    if response
        .headers
        .keys()
        .any(|name| HOP_BY_HOP.contains(name))
    {
        for name in &HOP_BY_HOP {
            response.remove_header(name);
        }
    }
    let nominated: SmallVec<[HeaderName; 4]> = response
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|name| {
            !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close")
        })
        .filter_map(|name| HeaderName::try_from(name).ok())
        .filter(|name| !FRAMING.contains(name))
        .collect();
    for name in &nominated {
        response.remove_header(name);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// `Connection` itself is overwritten by Pingora on the way down, so it is not listed.
/// `Proxy-Authenticate` is for the client of a forward proxy, which we are not.
const HOP_BY_HOP: [HeaderName; 6] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::UPGRADE,
];

/// Whether a field belongs to one connection or frames one message: nothing to copy from one
/// message into another.
#[must_use]
pub fn is_of_one_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
        || matches!(
            *name,
            header::CONNECTION
                | header::CONTENT_LENGTH
                | header::TRANSFER_ENCODING
                | header::TRAILER
        )
}

/// Whether `Connection` names the field (RFC 9110 §7.6.1).
#[must_use]
pub fn is_nominated(name: &HeaderName, headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case(name.as_str()))
}

/// What the message's length and the connection depend on: not an upstream's to remove.
const FRAMING: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRAILER,
];

/// Takes out of a request the fields that `Connection` names (RFC 9110 §7.6.1) before anything
/// reads them, so that a client cannot name a field that the gateway sets later, and have it
/// removed on the way to the upstream. `Connection` itself keeps what Pingora acts on.
pub fn sanitize_request(request: &mut RequestHeader) {
    const ACTED_ON: [&str; 3] = ["close", "keep-alive", "upgrade"];
    let acted_on = |token: &&str| {
        ACTED_ON
            .iter()
            .any(|known| token.eq_ignore_ascii_case(known))
    };
    let values = request.headers.get_all(header::CONNECTION);
    let tokens = || {
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
    };
    if tokens().all(|token| acted_on(&token)) {
        return;
    }
    let named: Vec<HeaderName> = tokens()
        .filter(|token| !acted_on(token))
        .filter_map(|token| token.parse().ok())
        .collect();
    let kept: Vec<&str> = tokens().filter(acted_on).collect();
    let kept = HeaderValue::try_from(kept.join(", "));
    for name in named.iter().filter(|name| !FRAMING.contains(name)) {
        request.remove_header(name);
    }
    request.remove_header(&header::CONNECTION);
    if let Ok(kept) = kept
        && !kept.is_empty()
    {
        // The name is valid, so this cannot fail.
        drop(request.insert_header(header::CONNECTION, kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).expect("a valid status");
        for (name, value) in fields {
            response
                .append_header(*name, *value)
                .expect("a valid field");
        }
        response
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_are_removed() {
        let mut response = response(
            200,
            &[
                ("connection", "close, X-Private"),
                ("connection", "content-length, bad name"),
                ("x-private", "1"),
                ("x-public", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("upgrade", "h2c"),
                ("content-length", "3"),
            ],
        );
        strip_response(&mut response);
        let mut left: Vec<_> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "x-public"]);
    }

    #[test]
    fn nominated_fields_are_of_one_hop() {
        let head = response(
            200,
            &[("connection", "close, X-User"), ("connection", "x-b")],
        );
        for (name, nominated) in [("x-user", true), ("x-b", true), ("x-c", false)] {
            let name = HeaderName::from_static(name);
            assert_eq!(is_nominated(&name, &head.headers), nominated, "{name}");
            assert!(!is_of_one_hop(&name));
        }
        for name in [
            "connection",
            "keep-alive",
            "te",
            "content-length",
            "transfer-encoding",
        ] {
            assert!(is_of_one_hop(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn an_upgrade_keeps_its_fields() {
        let mut response = response(101, &[("connection", "upgrade"), ("upgrade", "websocket")]);
        strip_response(&mut response);
        assert_eq!(response.headers.len(), 2);
    }
}
