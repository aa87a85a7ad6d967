//! Header fields that become another field's name on the way to an application: CGI, WSGI and
//! PHP write `-` and `_` alike, so `X_Consumer_Username` arrives there as `X-Consumer-Username`.

use ::http::HeaderName;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

/// Takes out of a request the fields that are spelled like one of these names (in lower case)
/// but for underscores. The names themselves stay: whoever sets them replaces them anyway.
pub fn remove<'a>(request: &mut RequestHeader, names: impl Iterator<Item = &'a str> + Clone) {
    let forged = request.headers.keys().filter(|field| {
        let mut names = names.clone();
        names.any(|name| is_lookalike(field.as_str(), name))
    });
    let forged: SmallVec<[HeaderName; 2]> = forged.cloned().collect();
    for field in &forged {
        request.remove_header(field);
    }
}

fn is_lookalike(field: &str, name: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    field.len() == name.len()
        && field != name
        && field.bytes().map(folded).eq(name.bytes().map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_spelled_with_underscores_go() {
        let mut request = RequestHeader::build("GET", b"/", None).expect("a valid line");
        for field in [
            "X-Consumer-Username",
            "X_Consumer_Username",
            "x-consumer_username",
            "X-Consumer-UsernamE2",
            "X_Other",
        ] {
            request.append_header(field, "1").expect("a valid field");
        }
        remove(&mut request, ["x-consumer-username"].into_iter());
        let mut left: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["x-consumer-username", "x-consumer-username2", "x_other"]
        );
    }
}
