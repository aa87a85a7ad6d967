//! `redirect`: sends the client elsewhere (`spec/03` §5).

use http::Method;
use http::header::{HeaderName, HeaderValue, LOCATION};
use serde::Deserialize;
use serde_json::Value;

use crate::expr::{Template, VarSource, Variable};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Hooks, Rewrite, Step};
use crate::plugins::respond::Response;
use crate::plugins::target::{Rewriting, append_query, encode_path, encode_unsafe};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "redirect",
    priority: 900,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct RedirectConfig {
    /// Where to; a template.
    uri: Option<String>,
    /// A pattern of the path, and a template; without a match the request goes on.
    regex_uri: Option<Vec<String>>,
    /// To the same place over TLS.
    http_to_https: Option<bool>,
    /// Status of the answer; `http_to_https` chooses its own.
    #[serde(default = "default_code")]
    ret_code: u16,
    /// Percent-encode the new location's path.
    #[serde(default)]
    encode_uri: bool,
    /// Append the request's query.
    #[serde(default)]
    append_query_string: bool,
}

const fn default_code() -> u16 {
    302
}

enum Goal {
    Uri(Template),
    Regex(Rewriting),
    /// `:port` where it is not the usual one.
    Https(String),
    /// `http_to_https: false`.
    Nowhere,
}

struct Redirect {
    goal: Goal,
    code: u16,
    encode: bool,
    append_query: bool,
    /// `$host`.
    host: Variable,
}

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

fn build(config: &RedirectConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let goal = match (&config.uri, &config.regex_uri, config.http_to_https) {
        (Some(uri), None, None) => Goal::Uri(uri_template(uri)?),
        (None, Some(pair), None) => Goal::Regex(regex(pair)?),
        (None, None, Some(true)) if config.append_query_string => {
            return Err(BuildError::invalid(
                "append_query_string",
                "must not be set with http_to_https, which keeps the query",
            ));
        }
        (None, None, Some(true)) => Goal::Https(https_port(ctx)),
        (None, None, Some(false)) => Goal::Nowhere,
        _ => {
            return Err(BuildError::invalid(
                "",
                "exactly one of uri, regex_uri and http_to_https is required",
            ));
        }
    };
    if !(200..=999).contains(&config.ret_code) {
        return Err(BuildError::invalid("ret_code", "must be 200 to 999"));
    }
    let plugin = Redirect {
        goal,
        code: config.ret_code,
        encode: config.encode_uri,
        append_query: config.append_query_string,
        host: Variable::parse("host"),
    };
    Ok(Hooks::of(plugin).rewrite().done())
}

fn uri_template(uri: &str) -> Result<Template, BuildError> {
    if uri.len() < 2 && uri != "/" {
        return Err(BuildError::invalid("uri", "must not be empty"));
    }
    Ok(Template::parse(uri))
}

fn regex(pair: &[String]) -> Result<Rewriting, BuildError> {
    let [regex, template] = pair else {
        let message = "must be a regular expression and a template";
        return Err(BuildError::invalid("regex_uri", message));
    };
    Rewriting::build("regex_uri[0]", regex, template)
}

/// `:port` of HTTPS: `plugin_attr.redirect.https_port`, else a TLS port the gateway listens on.
/// Empty for 443 and for what is no port.
fn https_port(ctx: &BuildCtx<'_>) -> String {
    let configured = match ctx.attr.get("https_port") {
        Some(Value::Number(port)) => Some(port.as_u64()),
        Some(Value::String(port)) => Some(port.parse().ok()),
        _ => None,
    };
    let port = match configured {
        Some(port) => port.and_then(|port| u16::try_from(port).ok()),
        None => ctx.https_ports.first().copied(),
    };
    match port {
        None | Some(0 | 443) => String::new(),
        Some(port) => format!(":{port}"),
    }
}

impl Rewrite for Redirect {
    fn rewrite<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let location = match &self.goal {
            Goal::Nowhere => None,
            Goal::Uri(template) => Some(self.finished(template.render(req), req)),
            Goal::Regex(rewriting) => {
                let rewritten = rewriting.rewrite(req.path(), req);
                rewritten.map(|(location, _)| self.finished(location, req))
            }
            Goal::Https(port) => return self.to_https(port, req),
        };
        location.map_or(Step::CONTINUE, |location| answer(self.code, &location))
    }
}

impl Redirect {
    fn finished(&self, location: String, req: &RequestCtx<'_>) -> String {
        let mut location = if self.encode {
            match location.split_once('?') {
                Some((path, query)) => [&encode_path(path), "?", query].concat(),
                None => encode_path(&location).into_owned(),
            }
        } else {
            location
        };
        if self.append_query {
            append_query(&mut location, req.query());
        }
        location
    }

    fn to_https<'a>(&self, port: &str, req: &RequestCtx<'_>) -> Step<'a> {
        let forwarded = req.header(&X_FORWARDED_PROTO).map(|value| {
            // A chain of proxies appends; the first one saw the client.
            let first = value.to_str().unwrap_or_default().split(',').next();
            first.unwrap_or_default().trim()
        });
        let scheme = forwarded.unwrap_or_else(|| req.scheme());
        if scheme.eq_ignore_ascii_case("https") {
            return Step::CONTINUE;
        }
        let Some(host) = req.var(&self.host) else {
            return Step::CONTINUE;
        };
        // As the client wrote it, so that what it encoded stays encoded. Differs from APISIX,
        // which sends the decoded path.
        let original = req.state.original.as_deref();
        let uri = original.map_or(&req.head.uri, |original| &original.uri);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let method = original.map_or(&req.head.method, |original| &original.method);
        let safe = *method == Method::GET || *method == Method::HEAD;
        let location = ["https://", &host, port, target].concat();
        answer(if safe { 301 } else { 308 }, &location)
    }
}

/// The answer. Whatever could break the header is encoded first.
fn answer<'a>(code: u16, location: &str) -> Step<'a> {
    let value = HeaderValue::from_str(&encode_unsafe(location));
    match value {
        Ok(value) => Response::status(code).with_header(LOCATION, value).into(),
        Err(_) => Response::status(500).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Exchange, With, answered, built, refusal};

    fn location(config: &Value, exchange: Exchange) -> Option<(u16, String)> {
        let mut exchange = exchange.header("Host", "Shop.test:9080");
        let answer = exchange.rewrite(&built(&DEF, config))?;
        assert_eq!(answer.body, None);
        let location = answered(&answer, "location").expect("answer has a location");
        Some((answer.status, location.to_owned()))
    }

    #[test]
    fn uri_is_a_template() {
        for (config, target, code, expected) in [
            (json!({"uri": "/new"}), "/old?q", 302, "/new"),
            (json!({"uri": "/new", "ret_code": 301}), "/old", 301, "/new"),
            (json!({"uri": "/p$uri"}), "/a/b", 302, "/p/a/b"),
            (
                json!({"uri": "https://$host$request_uri"}),
                "/a?q",
                302,
                "https://shop.test/a?q",
            ),
            (
                json!({"uri": "/n", "append_query_string": true}),
                "/a?q=1",
                302,
                "/n?q=1",
            ),
            (
                json!({"uri": "/n?x", "append_query_string": true}),
                "/a?q=1",
                302,
                "/n?x&q=1",
            ),
            (
                json!({"uri": "/n", "append_query_string": true}),
                "/a",
                302,
                "/n",
            ),
            (
                json!({"uri": "/a b/ü?c d", "encode_uri": true}),
                "/",
                302,
                "/a%20b/%C3%BC?c%20d",
            ),
            (
                json!({"uri": "/$arg_x"}),
                "/?x=%0d%0aSet-Cookie:a",
                302,
                "/%0D%0ASet-Cookie:a",
            ),
        ] {
            let found = location(&config, Exchange::get(target));
            assert_eq!(found, Some((code, expected.to_owned())), "{config}");
        }
    }

    #[test]
    fn regex_uri_redirects_only_where_it_matches() {
        let config = json!({"regex_uri": ["^/test/(.*)", "http://$1.$host"]});
        let found = location(&config, Exchange::get("/test/a?q"));
        assert_eq!(found, Some((302, "http://a.shop.test".to_owned())));
        assert_eq!(location(&config, Exchange::get("/other")), None);
    }

    #[test]
    fn plain_requests_are_sent_to_https() {
        let config = json!({"http_to_https": true});
        let to = |code, location: &str| Some((code, location.to_owned()));
        for (exchange, expected) in [
            (
                Exchange::get("/a?q=%20"),
                to(301, "https://shop.test/a?q=%20"),
            ),
            (
                Exchange::new("HEAD", "/%2e%20"),
                to(301, "https://shop.test/%2e%20"),
            ),
            (Exchange::new("POST", "/"), to(308, "https://shop.test/")),
            (
                Exchange::get("/").header("X-Forwarded-Proto", "https"),
                None,
            ),
            (
                Exchange::get("/").header("X-Forwarded-Proto", "HTTPS, http"),
                None,
            ),
            (
                Exchange::get("/").header("X-Forwarded-Proto", "http"),
                to(301, "https://shop.test/"),
            ),
        ] {
            assert_eq!(location(&config, exchange), expected);
        }
        let mut secure = Exchange::get("/");
        secure.state.tls = Some(Arc::default());
        assert_eq!(location(&config, secure), None);
        let mut behind = Exchange::get("/").header("X-Forwarded-Proto", "http");
        behind.state.tls = Some(Arc::default());
        assert_eq!(location(&config, behind), to(301, "https://shop.test/"));
        assert_eq!(
            location(&json!({"http_to_https": false}), Exchange::get("/")),
            None
        );
    }

    #[test]
    fn the_https_port_is_told_unless_it_is_the_usual_one() {
        for (attr, ports, expected) in [
            (json!(null), vec![], ""),
            (json!(null), vec![9443, 443], ":9443"),
            (json!(null), vec![443], ""),
            (json!({"https_port": 8443}), vec![9443], ":8443"),
            (json!({"https_port": "8443"}), vec![9443], ":8443"),
            (json!({"https_port": 443}), vec![9443], ""),
            (json!({"https_port": 70000}), vec![9443], ""),
            (json!({"https_port": 0}), vec![9443], ""),
        ] {
            let with = With {
                attr,
                https_ports: ports,
                ..With::default()
            };
            let hooks = with.build(&DEF, &json!({"http_to_https": true}));
            let hooks = hooks.expect("configuration is valid");
            let mut exchange = Exchange::get("/").header("Host", "a.test:80");
            let answer = exchange.rewrite(&hooks).expect("request is redirected");
            let expected = format!("https://a.test{expected}/");
            assert_eq!(answered(&answer, "location"), Some(expected.as_str()));
        }
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        let one = ": exactly one of uri, regex_uri and http_to_https is required";
        let pair = "regex_uri: must be a regular expression and a template";
        for (json, expected) in [
            (json!(null), one),
            (json!({"uri": "/a", "http_to_https": true}), one),
            (json!({"uri": "/a", "regex_uri": ["a", "b"]}), one),
            (json!({"uri": ""}), "uri: must not be empty"),
            (
                json!({"uri": "/a", "ret_code": 199}),
                "ret_code: must be 200 to 999",
            ),
            (json!({"regex_uri": ["a"]}), pair),
            (json!({"regex_uri": ["a", "b", "c", "d"]}), pair),
            (
                json!({"regex_uri": ["(", "b"]}),
                "regex_uri[0]: must be a regular expression without look-around and back-references",
            ),
            (
                json!({"http_to_https": true, "append_query_string": true}),
                "append_query_string: must not be set with http_to_https, which keeps the query",
            ),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
