//! Takes credentials out of a request before it goes upstream; the rest of it stays as written.

use http::{HeaderValue, header};

use crate::http::{cookie, query};
use crate::plugins::ctx::RequestCtx;

/// Takes every argument of that (decoded) name out of the query.
pub(super) fn from_query(req: &mut RequestCtx<'_>, argument: &str) {
    let Some(query) = req.query() else { return };
    if query::first(query, argument).is_none() {
        return;
    }
    let path = req.head.uri.path();
    let target = match query::without_args(query, |name| name == argument) {
        Some(kept) => [path, "?", &kept].concat(),
        None => path.to_owned(),
    };
    let normalised = req.state.path.clone();
    if req.set_target(&target).is_err() {
        log::error!("a credential could not be taken out of the query");
    }
    req.state.path = normalised;
}

/// Takes every cookie of that name out of the `Cookie` fields.
pub(super) fn from_cookies(req: &mut RequestCtx<'_>, name: &str) {
    let fields = || req.head.headers.get_all(header::COOKIE).iter();
    if fields().all(|field| cookie::find(field.as_bytes(), name).is_none()) {
        return;
    }
    let kept: Vec<HeaderValue> = fields()
        .filter_map(|field| HeaderValue::try_from(cookie::without(field.as_bytes(), name)?).ok())
        .collect();
    drop(req.head.remove_header("Cookie"));
    for field in kept {
        // The name is valid, so this cannot fail.
        drop(req.head.append_header("Cookie", field));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;

    #[test]
    fn an_argument_goes_and_the_rest_stays_as_written() {
        for (target, expected) in [
            ("/a%20b?x=1&jwt=t&y=%2F", "/a%20b?x=1&y=%2F"),
            ("/a%20b?jwt=t&%6awt=u&jwt", "/a%20b"),
            ("/a?jwts=t", "/a?jwts=t"),
            ("/a", "/a"),
        ] {
            let mut exchange = Exchange::get(target);
            exchange.state.path = Some("/normalised".to_owned());
            from_query(&mut exchange.ctx(), "jwt");
            assert_eq!(exchange.target(), expected);
            assert_eq!(exchange.ctx().path(), "/normalised");
        }
    }

    #[test]
    fn a_cookie_goes_and_the_rest_stays_as_written() {
        let mut exchange = Exchange::get("/")
            .header("Cookie", "a=1; jwt=t;  b=\"x\"")
            .header("Cookie", "jwt=u")
            .header("Cookie", "c=3");
        from_cookies(&mut exchange.ctx(), "jwt");
        assert_eq!(exchange.values("cookie"), ["a=1;  b=\"x\"", "c=3"]);
        from_cookies(&mut exchange.ctx(), "a");
        from_cookies(&mut exchange.ctx(), "b");
        from_cookies(&mut exchange.ctx(), "c");
        assert!(exchange.values("cookie").is_empty());
    }
}
