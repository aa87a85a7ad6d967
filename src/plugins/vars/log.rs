//! Variables as logs may show them: values of auth parameters are masked.

use std::borrow::Cow;

use super::super::ctx::{RequestCtx, RouteInfo};
use crate::expr::{VarSource, Variable};
use crate::http::query::map_args;

/// What stands for a masked value.
const MASK: &str = "***";

/// Variables of a finished request, with the route's auth parameters (`RouteInfo::redacted_args`)
/// and the `Authorization` headers masked wherever they could show.
pub struct LogVars<'a, 'r>(pub &'a RequestCtx<'r>);

impl VarSource for LogVars<'_, '_> {
    fn var(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = self.0.var(variable)?;
        let route = self.0.state.route.as_deref();
        let masked = match variable {
            Variable::Header(name) | Variable::ResponseHeader(name) => {
                let authorization =
                    matches!(name.as_str(), "authorization" | "proxy-authorization");
                authorization || hides(route, |hidden| hidden.eq_ignore_ascii_case(name.as_str()))
            }
            Variable::Arg(name) | Variable::Cookie(name) | Variable::PostArg(name) => {
                hides(route, |hidden| *hidden == **name)
            }
            _ => false,
        };
        if masked {
            return Some(Cow::Borrowed(MASK));
        }
        Some(match (variable, route) {
            (Variable::Header(name), Some(route)) if name == http::header::COOKIE => {
                masked_cookies(value, route)
            }
            (Variable::Named(name), Some(route)) => match &**name {
                "args" | "query_string" => masked_query(value, route),
                "request" | "request_uri" | "real_request_uri" | "upstream_uri" => {
                    masked_target(value, route)
                }
                _ => value,
            },
            _ => value,
        })
    }
}

fn hides(route: Option<&RouteInfo>, is: impl Fn(&str) -> bool) -> bool {
    route.is_some_and(|route| route.redacted_args.iter().any(|hidden| is(hidden)))
}

fn masked_query<'a>(query: Cow<'a, str>, route: &RouteInfo) -> Cow<'a, str> {
    if route.redacted_args.is_empty() {
        return query;
    }
    let hidden = |name: &str| hides(Some(route), |hidden| hidden == name);
    Cow::Owned(map_args(&query, hidden, Some(MASK)).unwrap_or_default())
}

/// Masks in the query of a request target, which may stand in a request line.
fn masked_target<'a>(text: Cow<'a, str>, route: &RouteInfo) -> Cow<'a, str> {
    if route.redacted_args.is_empty() {
        return text;
    }
    let Some((path, rest)) = text.split_once('?') else {
        return text;
    };
    let (query, protocol) = rest
        .find(' ')
        .map_or((rest, ""), |space| rest.split_at(space));
    let query = masked_query(Cow::Borrowed(query), route);
    Cow::Owned([path, "?", &query, protocol].concat())
}

fn masked_cookies<'a>(line: Cow<'a, str>, route: &RouteInfo) -> Cow<'a, str> {
    let hidden = |pair: &str| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name).trim();
        hides(Some(route), |hidden| hidden == name)
    };
    if !line.split(';').any(hidden) {
        return line;
    }
    let kept = line.split(';').map(|pair| match pair.split_once('=') {
        Some((name, _)) if hidden(pair) => Cow::Owned([name, "=", MASK].concat()),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(kept.collect::<Vec<_>>().join(";"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::testing::Exchange;
    use super::*;

    #[test]
    fn auth_parameters_are_masked_everywhere() {
        let mut exchange = Exchange::get("/a?x=1&apikey=hunter2&y")
            .header("apikey", "hunter2")
            .header("Authorization", "Basic aHVudGVyMg==")
            .header("Cookie", "a=1; apikey=hunter2");
        exchange.state.route = Some(Arc::new(RouteInfo {
            redacted_args: vec!["apikey".into()],
            ..RouteInfo::default()
        }));
        let ctx = exchange.ctx();
        let vars = LogVars(&ctx);
        for (name, expected) in [
            ("args", "x=1&apikey=***&y"),
            ("query_string", "x=1&apikey=***&y"),
            ("request_uri", "/a?x=1&apikey=***&y"),
            ("real_request_uri", "/a?x=1&apikey=***&y"),
            ("request", "GET /a?x=1&apikey=***&y HTTP/1.1"),
            ("arg_apikey", "***"),
            ("arg_x", "1"),
            ("http_apikey", "***"),
            ("http_authorization", "***"),
            ("cookie_apikey", "***"),
            ("http_cookie", "a=1; apikey=***"),
            ("uri", "/a"),
        ] {
            let value = vars.var(&Variable::parse(name));
            assert_eq!(value.as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn nothing_changes_where_nothing_is_hidden() {
        let mut exchange = Exchange::get("/a?x=1&&y");
        exchange.state.route = Some(Arc::default());
        let ctx = exchange.ctx();
        let vars = LogVars(&ctx);
        let value = vars.var(&Variable::parse("request"));
        assert_eq!(value.as_deref(), Some("GET /a?x=1&&y HTTP/1.1"));
    }
}
