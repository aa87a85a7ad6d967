//! Header fields that become another field's name on the way to an application: CGI, WSGI and
//! PHP write `-` and `_` alike, so `X_Consumer_Username` arrives there as `X-Consumer-Username`.

use ::http::HeaderName;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

/// Whether the request has a field of one of these names (in lower case), spelled so or with
/// underscores. Cheaper than looking each of them up.
#[must_use]
pub fn has_any(request: &RequestHeader, names: &[&str]) -> bool {
    let mut fields = request.headers.keys().map(HeaderName::as_str);
    fields.any(|field| names.iter().any(|name| reads_as(field, name)))
}

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
    reads_as(field, name) && field != name
}

fn reads_as(field: &str, name: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    field.len() == name.len() && field.bytes().map(folded).eq(name.bytes().map(folded))
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
        assert!(has_any(&request, &["x-consumer-username"]));
        remove(&mut request, ["x-consumer-username"].into_iter());
        assert!(has_any(&request, &["x-consumer-username"]), "itself stays");
        assert!(!has_any(&request, &["x-consumer-usernam3"]));
        let mut left: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["x-consumer-username", "x-consumer-username2", "x_other"]
        );
    }
}
